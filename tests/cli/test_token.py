"""`sockbridge token`: the server accepts what it prints, or it prints an error."""

import time
from pathlib import Path

import pytest

from twistedsock.auth.identity import Identity, Right
from twistedsock.auth.keys import ALGORITHMS, read_key
from twistedsock.auth.policy import build_policy
from twistedsock.auth.tokens import MAX_PATTERNS, TokenRequirements, verify_token
from twistedsock.config import read_settings

ACCESS = '[access]\naudience = "here"\n'


@pytest.fixture
def identify(run_command):
    """Create a token, and return the identity that the configured policy finds in it."""

    def identify(config, *words):
        outcome = run_command("token", "--config", config, "--sub", "ann", *words)
        assert outcome.status == 0, outcome.errors
        assert outcome.out.count("\n") == 1
        policy = build_policy(read_settings(config, {}).access, time.time)
        identity = policy.by_token(outcome.out.strip().encode(), "tcp:1")
        assert isinstance(identity, Identity), identity
        return identity

    return identify


def test_server_accepts_token(run_command, configure, identify):
    config = configure(ACCESS, run_command("keygen").out)
    identity = identify(config, "--allow", "kitchen=rw", "--allow", "alerts.*=r")
    assert (identity.subject, identity.is_admin) == (b"ann", False)
    assert identity.grants.on(b"kitchen") == Right.BOTH
    assert identity.grants.on(b"alerts.fire") == Right.READ
    assert identity.grants.on(b"cellar") == Right.NONE
    assert 0 < identity.expires - time.time() - 3_600 <= 30


def test_creates_admin_token(run_command, configure, identify):
    assert identify(configure(ACCESS, run_command("keygen").out), "--admin").is_admin


@pytest.mark.parametrize(
    ("said", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7_200), ("30d", 2_592_000), ("52w", 31_449_600)]
)
def test_accepts_units_of_time(run_command, configure, identify, said, seconds):
    identity = identify(configure(ACCESS, run_command("keygen").out), "--expires", said)
    assert abs(identity.expires - time.time() - seconds - 30) < 5


def test_token_without_expiry_needs_server_that_accepts_it(run_command, configure, identify, error_of):
    key = run_command("keygen").out
    never = ("--expires", "never")
    strict = configure(ACCESS, key)
    assert "it must expire (exp)" in error_of("token", "--config", strict, "--sub", "ann", *never)
    assert identify(configure(ACCESS, "expiry-required = false", key), *never).expires is None
    outcome = run_command("token", "--sub", "ann", *never)
    assert outcome.status == 0
    assert "only with expiry-required = false" in outcome.errors


def test_signs_with_first_or_chosen_key(run_command, configure, identify):
    config = configure(
        ACCESS, run_command("keygen", "a", "--id", "new").out, run_command("keygen", "b", "--id", "old").out
    )
    access = read_settings(config, {}).access
    prints = [read_key("x", "HS256", Path(key.file)).fingerprint for key in access.key]
    assert prints[0] in identify(config).proof
    assert prints[1] in identify(config, "--id", "old").proof
    assert prints[1] in identify(config, "--key", "b").proof
    assert prints[1] in identify(config, "--key", "b", "--id", "old").proof


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_needs_private_key_on_command_line(run_command, configure, identify, error_of, algorithm):
    config = configure(
        ACCESS,
        run_command("keygen", "a", "--id", "1", "--algorithm", algorithm).out,
        run_command("keygen", "b", "--id", "2").out,
    )
    words = error_of("token", "--config", config, "--sub", "ann")
    assert words.startswith(f"the key '1' is for {algorithm}, so the server has the public key only")
    assert identify(config, "--key", "a").subject == b"ann"
    assert "contains a public key" in error_of("token", "--config", config, "--sub", "ann", "--key", "a.pub")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signs_without_configuration_file(run_command, algorithm):
    run_command("keygen", "mine", "--algorithm", algorithm)
    outcome = run_command(
        "token", "--key", "mine", "--id", "k", "--audience", "here", "--sub", "ann", "--expires", "1m"
    )
    assert (outcome.status, outcome.errors) == (0, "")
    keys = {"k": read_key("k", algorithm, Path("mine" if algorithm == "HS256" else "mine.pub"))}
    found = verify_token(outcome.out.strip().encode(), keys, time.time(), TokenRequirements("here"))
    assert found[1].subject == b"ann"


def test_default_key_is_file_key(run_command):
    run_command("keygen")
    assert run_command("token", "--sub", "ann").status == 0


def test_error_explains_problem_with_key(run_command, configure, error_of):
    token = ("token", "--sub", "ann")
    assert error_of(*token) == "cannot read key: No such file or directory"
    assert error_of(*token, "--config", "x.toml") == "cannot read x.toml: No such file or directory"
    empty = configure("")
    assert "contains no [[access.key]]: create one with sockbridge keygen" in error_of(*token, "--config", empty)
    config = configure(ACCESS, run_command("keygen", "--id", "1").out)
    assert "no [[access.key]] has the id '2'" in error_of(*token, "--config", config, "--id", "2")
    assert "is for HS256, not for ES256" in error_of(*token, "--config", config, "--algorithm", "ES256")
    run_command("keygen", "other")
    assert "other matches no [[access.key]]" in error_of(*token, "--config", config, "--key", "other")
    assert "it is for another audience (aud)" in error_of(*token, "--config", config, "--audience", "there")
    Path("key").write_text("short")
    assert "a secret for HS256 needs at least 32" in error_of(*token, "--config", config)


def test_warns_of_key_that_other_users_can_read(run_command):
    run_command("keygen")
    Path("key").chmod(0o644)
    outcome = run_command("token", "--sub", "ann")
    assert outcome.status == 0
    assert "users other than the owner can read the secret in key" in outcome.errors


@pytest.mark.parametrize(
    "words",
    [
        *(["--allow", rights] for rights in ("kitchen", "kitchen=", "=r", "a b=r", "kitchen=x")),
        *(["--expires", time] for time in ("0s", "1", "1y", "-1h", "")),
        *(["--sub", subject] for subject in ("", "~ann", "a\nb")),
        ["--algorithm", "none"],
        ["more"],
    ],
)
def test_rejects_invalid_arguments(run_command, words):
    run_command("keygen")
    outcome = run_command("token", "--sub", "ann", *words)
    assert (outcome.status, outcome.out) == (2, "")
    assert words[-1] in outcome.errors or words[0] in outcome.errors


def test_requires_subject(run_command):
    assert run_command("token").status == 2


def test_does_not_create_token_that_no_server_accepts(run_command, error_of):
    run_command("keygen")
    many = [word for number in range(MAX_PATTERNS + 1) for word in ("--allow", f"c{number}=r")]
    assert "at most 100 patterns" in error_of("token", "--sub", "ann", *many)
    assert "exp must be a time in seconds" in error_of("token", "--sub", "ann", "--expires", "999999999w")
    long = [word for number in range(60) for word in ("--allow", f"{number:0>150}=r")]
    assert "expected three base64url parts" in error_of("token", "--sub", "ann", *long)
