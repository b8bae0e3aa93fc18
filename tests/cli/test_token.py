"""What `sockbridge token` prints is a token that the bridge takes, or it says why there is none."""

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
def taken(say):
    """The identity that the bridge of a file of options sees in what was printed."""

    def taken(config, *words):
        outcome = say("token", "--config", config, "--sub", "ann", *words)
        assert outcome.status == 0, outcome.errors
        assert outcome.out.count("\n") == 1
        policy = build_policy(read_settings(config, {}).access, time.time)
        identity = policy.by_token(outcome.out.strip().encode(), "tcp:1")
        assert isinstance(identity, Identity), identity
        return identity

    return taken


def test_the_bridge_takes_what_is_made_for_it(say, configure, taken):
    config = configure(ACCESS, say("keygen").out)
    identity = taken(config, "--allow", "kitchen=rw", "--allow", "alerts.*=r")
    assert (identity.subject, identity.is_admin) == (b"ann", False)
    assert identity.grants.on(b"kitchen") == Right.BOTH
    assert identity.grants.on(b"alerts.fire") == Right.READ
    assert identity.grants.on(b"cellar") == Right.NONE
    assert 0 < identity.expires - time.time() - 3_600 <= 30


def test_an_admin(say, configure, taken):
    assert taken(configure(ACCESS, say("keygen").out), "--admin").is_admin


@pytest.mark.parametrize(
    ("said", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7_200), ("30d", 2_592_000), ("52w", 31_449_600)]
)
def test_times(say, configure, taken, said, seconds):
    identity = taken(configure(ACCESS, say("keygen").out), "--expires", said)
    assert abs(identity.expires - time.time() - seconds - 30) < 5


def test_a_token_that_never_expires_is_for_bridges_that_take_them(say, configure, taken, refused):
    key = say("keygen").out
    never = ("--expires", "never")
    strict = configure(ACCESS, key)
    assert "the token never expires" in refused("token", "--config", strict, "--sub", "ann", *never)
    assert taken(configure(ACCESS, "expiry-required = false", key), *never).expires is None
    outcome = say("token", "--sub", "ann", *never)
    assert outcome.status == 0
    assert "only with expiry-required = false" in outcome.errors


def test_the_first_key_is_taken_or_the_one_that_is_named(say, configure, taken):
    config = configure(ACCESS, say("keygen", "a", "--id", "new").out, say("keygen", "b", "--id", "old").out)
    access = read_settings(config, {}).access
    prints = [read_key("x", "HS256", Path(key.file)).fingerprint for key in access.key]
    assert prints[0] in taken(config).proof
    assert prints[1] in taken(config, "--id", "old").proof
    assert prints[1] in taken(config, "--key", "b").proof
    assert prints[1] in taken(config, "--key", "b", "--id", "old").proof


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_private_key_is_named(say, configure, taken, refused, algorithm):
    config = configure(
        ACCESS, say("keygen", "a", "--id", "1", "--algorithm", algorithm).out, say("keygen", "b", "--id", "2").out
    )
    words = refused("token", "--config", config, "--sub", "ann")
    assert words.startswith(f"the key '1' is for {algorithm}, so a bridge has its public half only")
    assert taken(config, "--key", "a").subject == b"ann"
    assert "holds a public key" in refused("token", "--config", config, "--sub", "ann", "--key", "a.pub")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_a_bridge_all_is_said(say, algorithm):
    say("keygen", "mine", "--algorithm", algorithm)
    outcome = say("token", "--key", "mine", "--id", "k", "--audience", "here", "--sub", "ann", "--expires", "1m")
    assert (outcome.status, outcome.errors) == (0, "")
    keys = {"k": read_key("k", algorithm, Path("mine" if algorithm == "HS256" else "mine.pub"))}
    found = verify_token(outcome.out.strip().encode(), keys, time.time(), TokenRequirements("here"))
    assert found[1].subject == b"ann"


def test_the_key_beside_us_is_the_default(say):
    say("keygen")
    assert say("token", "--sub", "ann").status == 0


def test_what_is_wrong_with_keys_is_told(say, configure, refused):
    token = ("token", "--sub", "ann")
    assert refused(*token) == "cannot read key: No such file or directory"
    assert refused(*token, "--config", "x.toml") == "cannot read x.toml: No such file or directory"
    empty = configure("")
    assert "tells of no [[access.key]]; sockbridge keygen makes one" in refused(*token, "--config", empty)
    config = configure(ACCESS, say("keygen", "--id", "1").out)
    assert "no [[access.key]] with the id '2'" in refused(*token, "--config", config, "--id", "2")
    assert "is for HS256, and ES256 was asked for" in refused(*token, "--config", config, "--algorithm", "ES256")
    say("keygen", "other")
    assert "other belongs to no [[access.key]]" in refused(*token, "--config", config, "--key", "other")
    assert "the token is for somebody else" in refused(*token, "--config", config, "--audience", "there")
    Path("key").write_text("short")
    assert "a secret for HS256 has 32 or more" in refused(*token, "--config", config)


def test_a_key_that_others_can_read_is_told_beside_the_token(say):
    say("keygen")
    Path("key").chmod(0o644)
    outcome = say("token", "--sub", "ann")
    assert outcome.status == 0
    assert "others than its owner can read the secret in key" in outcome.errors


@pytest.mark.parametrize(
    "words",
    [
        ["--allow", "kitchen"],
        ["--allow", "kitchen="],
        ["--allow", "=r"],
        ["--allow", "a b=r"],
        ["--allow", "kitchen=x"],
        ["--expires", "0s"],
        ["--expires", "1"],
        ["--expires", "1y"],
        ["--expires", "-1h"],
        ["--expires", ""],
        ["--sub", ""],
        ["--sub", "~ann"],
        ["--sub", "a\nb"],
        ["--algorithm", "none"],
        ["more"],
    ],
)
def test_a_mistake_in_the_call_is_told_as_such(say, words):
    say("keygen")
    outcome = say("token", "--sub", "ann", *words)
    assert (outcome.status, outcome.out) == (2, "")
    assert words[-1] in outcome.errors or words[0] in outcome.errors


def test_a_subject_must_be_said(say):
    assert say("token").status == 2


def test_what_no_bridge_would_take_is_not_made(say, refused):
    say("keygen")
    many = [word for number in range(MAX_PATTERNS + 1) for word in ("--allow", f"c{number}=r")]
    assert "at most 100 patterns" in refused("token", "--sub", "ann", *many)
    assert "is no time in seconds" in refused("token", "--sub", "ann", "--expires", "999999999w")
    long = [word for number in range(60) for word in ("--allow", f"{number:0>150}=r")]
    assert "that is no token" in refused("token", "--sub", "ann", *long)
