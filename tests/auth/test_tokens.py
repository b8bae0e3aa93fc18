"""What a valid token says is believed; each way in which one is not valid has its sentence."""

import json

import pytest

from twistedsock.auth import tokens
from twistedsock.auth.identity import EVERYTHING, Right
from twistedsock.auth.keys import ALGORITHMS
from twistedsock.auth.tokens import (
    MAX_BRACKETS,
    MAX_SECONDS,
    Claims,
    TokenRequirements,
    is_subject,
    sign_token,
    verify_token,
)
from twistedsock.errors import Error, ErrorCode

TERMS = TokenRequirements()
DEEP = 3_000


@pytest.fixture
def check(keyring):
    """What becomes of a token, with one key for HS256."""

    def check(token, terms=TERMS, later=0.0, keys=("HS256",)):
        found = verify_token(token, keyring.keys(*keys), keyring.now + later, terms)
        return found if isinstance(found, Error) else found[1]

    return check


@pytest.fixture
def check_claims(keyring, check):
    """What becomes of a token with some claims besides the usual ones."""

    def check_claims(terms=TERMS, later=0.0, **more):
        return check(keyring.token(**more), terms, later)

    return check_claims


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_minted_is_believed(keyring, algorithm):
    claims = {"sub": "änn", "exp": keyring.now + 60, "channels": {"kitchen": "rw", "alerts.*": "r", "log.>": "w"}}
    token = sign_token(claims, keyring.signing(algorithm), "2026-11")
    key = keyring.key(algorithm, "2026-11")
    found = verify_token(token, {"old": keyring.key("HS256"), "2026-11": key}, keyring.now, TERMS)
    assert not isinstance(found, Error)
    assert found[0] is key
    said = found[1]
    assert (said.subject, said.is_admin, said.expires) == ("änn".encode(), False, keyring.now + 90)
    assert said.grants.on(b"kitchen") == Right.BOTH
    assert said.grants.on(b"alerts.fire") == Right.READ
    assert said.grants.on(b"log.a.b") == Right.WRITE
    assert said.grants.on(b"alerts.a.b") == said.grants.on(b"cellar") == Right.NONE


def test_a_token_without_kid_is_for_the_only_key(keyring, check):
    token = sign_token({"sub": "ann", "exp": keyring.now + 60}, keyring.signing("ES256"), None)
    assert isinstance(check(token, keys=["ES256"]), Claims)
    assert check(token, keys=["ES256", "EdDSA"]) == tokens.WHICH_KEY
    assert check(token, keys=[]) == tokens.WHICH_KEY


def test_an_admin_may_do_everything(check_claims):
    claims = check_claims(admin=True, channels={"kitchen": "r"})
    assert claims.is_admin
    assert claims.grants is EVERYTHING
    assert not check_claims(admin=False).is_admin


def test_claims_that_nobody_asks_for_are_no_matter(check_claims):
    claims = check_claims(iss="somebody", iat="yesterday", jti=None, channel={"x": "rw"}, Admin=True)
    assert isinstance(claims, Claims)
    assert not claims.is_admin
    assert claims.grants.pairs == ()


@pytest.mark.parametrize(
    ("later", "leeway", "error"),
    [
        (59.9, 0, None),
        (60, 0, tokens.EXPIRED),
        (89.9, 30, None),
        (90, 30, tokens.EXPIRED),
        (1e12, 30, tokens.EXPIRED),
    ],
)
def test_exp_is_the_end(check_claims, later, leeway, error):
    found = check_claims(TokenRequirements(leeway=leeway), later)
    assert found == error if error else found.expires == 1_800_000_060 + leeway


@pytest.mark.parametrize(
    ("later", "leeway", "error"),
    [
        (9.9, 0, tokens.NOT_YET),
        (10, 0, None),
        (-20.1, 30, tokens.NOT_YET),
        (-20, 30, None),
        (-1e12, 30, tokens.NOT_YET),
    ],
)
def test_nbf_is_the_beginning(keyring, check_claims, later, leeway, error):
    found = check_claims(TokenRequirements(leeway=leeway), later, nbf=keyring.now + 10)
    assert found == error if error else isinstance(found, Claims)


def test_times_may_be_fractions(keyring, check_claims):
    assert check_claims(exp=keyring.now + 0.5, nbf=keyring.now - 0.5).expires == keyring.now + 30.5


@pytest.mark.parametrize(("exp", "is_time"), [(MAX_SECONDS, True), (MAX_SECONDS + 1, False)])
def test_a_time_is_at_most_the_last_second_of_the_year_9999(check_claims, exp, is_time):
    found = check_claims(exp=exp)
    assert isinstance(found, Claims) is is_time


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_token_with_a_number_that_is_not_json_is_not_minted(keyring, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sign_token({"sub": "ann", "x": value}, keyring.signing("HS256"), None)


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize(
    "value",
    ["1900000000", True, None, [], {}, 1_900_000_000_000, 10**400, 1e300, -1e300, 253_402_300_800],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_time_is_refused(check_claims, name, value):
    """Milliseconds would be a token that never ends."""
    assert check_claims(**{name: value}).message == f"the token's claim {name} is no time in seconds since 1970"


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "9" * 5_000])
def test_a_number_that_is_none_is_refused(keyring, check, value):
    found = check(keyring.token(b'{"sub":"ann","exp":' + value.encode() + b"}"))
    assert isinstance(found, Error)


def test_a_token_that_never_ends_is_taken_where_that_is_configured(keyring, check):
    token = keyring.token({"sub": "ann"})
    assert check(token) == tokens.NO_EXPIRY
    assert check(token, TokenRequirements(expiry_required=False)).expires is None


@pytest.mark.parametrize(
    ("ours", "named", "error"),
    [
        ("here", "here", None),
        ("here", ["there", "here"], None),
        ("here", "there", tokens.WRONG_AUDIENCE),
        ("here", "her", tokens.WRONG_AUDIENCE),
        ("here", "Here", tokens.WRONG_AUDIENCE),
        ("here", ["there"], tokens.WRONG_AUDIENCE),
        ("here", [], tokens.WRONG_AUDIENCE),
        ("here", "", tokens.WRONG_AUDIENCE),
        (None, "there", tokens.WRONG_AUDIENCE),
        (None, [], tokens.WRONG_AUDIENCE),
        (None, None, tokens.BAD_AUDIENCE),
        ("here", None, tokens.BAD_AUDIENCE),
        ("here", 1, tokens.BAD_AUDIENCE),
        ("here", ["here", 1], tokens.BAD_AUDIENCE),
        ("here", {"here": "here"}, tokens.BAD_AUDIENCE),
    ],
)
def test_a_token_must_be_for_us(check_claims, ours, named, error):
    found = check_claims(TokenRequirements(audience=ours), aud=named)
    assert found == error if error else isinstance(found, Claims)


def test_a_token_must_say_for_whom_where_that_is_configured(check_claims):
    assert check_claims(TokenRequirements(audience="here")) == tokens.NO_AUDIENCE


@pytest.mark.parametrize("sub", ["a", "ann@example.org", "Ann Lee", "é" * 100, "x" * 200, "a~"])
def test_a_subject_is_a_name(check_claims, sub):
    assert is_subject(sub)
    assert check_claims(sub=sub).subject == sub.encode()


@pytest.mark.parametrize(
    "sub",
    [None, 7, True, [], {}, "", "x" * 201, "é" * 101, "~ann", "a\nb", "a\0", "\x1b[2J", "a\x7f", "a\x85", "a\u2028b"]
    + ["\ud800", "a\udfff", "ann\u200b", "\xadann", "a\u200dn", "a\u202enn", "ann\ufeff", "ann\u3164", "a\U000e0041"],
    ids=ascii,
)
def test_what_is_no_name_is_refused(check_claims, sub):
    assert check_claims(sub=sub) == tokens.BAD_SUBJECT


def test_a_subject_must_be_there(keyring, check):
    assert check(keyring.token({"exp": keyring.now + 60})) == tokens.BAD_SUBJECT


@pytest.mark.parametrize("admin", [None, 0, 1, "true", "", [], {}])
def test_admin_is_true_or_false(check_claims, admin):
    assert check_claims(admin=admin) == tokens.BAD_ADMIN


def test_a_hundred_patterns_are_as_many_as_a_token_has(check_claims):
    names = {f"c{number}": "r" for number in range(100)}
    assert len(check_claims(channels=names).grants.pairs) == 100
    assert check_claims(channels=names | {"x": "r"}) == tokens.BAD_CHANNELS


@pytest.mark.parametrize("channels", [None, [], "kitchen", ["kitchen"], 1, True])
def test_channels_are_an_object(check_claims, channels):
    assert check_claims(channels=channels) == tokens.BAD_CHANNELS


@pytest.mark.parametrize("rights", ["", "wr", "RW", "x", "r w", "rwx", None, True, 1, [], ["r"], {}])
def test_rights_are_r_w_or_rw(check_claims, rights):
    found = check_claims(channels={"a": "r", "kitchen": rights})
    assert found.message == "in the token's claim channels, number 2 has rights other than r, w and rw"


@pytest.mark.parametrize("text", ["", " ", "a b", "a>b", "a\n", "x" * 300, "\ud800", "a\x1b"], ids=ascii)
def test_a_pattern_that_is_none_is_refused_by_its_place(check_claims, text):
    found = check_claims(channels={text: "r"})
    assert found.message == "in the token's claim channels, number 1 is no pattern"


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"x", b"[]", b'"sub"', b"1", b"null", b"{", b"{}x", b"\xff", b'{"sub":"\xff"}', b"\xef\xbb\xbf{}"),
        *('{"sub":"ann"}'.encode("utf-16"), '{"sub":"ann"}'.encode("utf-32")),
        *(b'{"sub":"ann","sub":"root"}', b'{"sub":"ann","s\\u0075b":"root"}', b'{"channels":{"a":"r","a":"rw"}}'),
        *(b"[" * DEEP, b'{"a":' * 1_100, b"[" * DEEP + b"]" * DEEP, b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}"),
    ],
    ids=lambda payload: ascii(payload)[:24],
)
def test_claims_that_are_no_object_are_refused(keyring, check, payload):
    found = check(keyring.token(payload)) if payload else verify_token(b"a..b", keyring.keys("HS256"), 0, TERMS)
    assert found == (tokens.BAD_PAYLOAD if payload else tokens.MALFORMED)


def test_brackets_are_counted(keyring, check):
    """The same for every Python, though each gives up at another depth."""

    def nested(depth):
        return f'{{"sub":"ann","exp":1800000060,"x":{"[" * depth}{"]" * depth}}}'.encode()

    assert isinstance(check(keyring.token(nested(MAX_BRACKETS - 1))), Claims)
    assert check(keyring.token(nested(MAX_BRACKETS))) == tokens.BAD_PAYLOAD


def test_refusals_are_for_people_and_have_one_code():
    found = [value for value in vars(tokens).values() if isinstance(value, Error)]
    assert len(found) > 15
    for error in found:
        assert error.code is ErrorCode.UNAUTHORIZED
        assert error.message.isascii() and "\n" not in error.message and error.message[-1] != "."


def test_a_refusal_does_not_repeat_what_it_is_about(keyring, check):
    secret = "Zq7secret"
    for claims in (
        {"sub": f"~{secret}", "exp": keyring.now + 60},
        {"sub": secret, "exp": secret},
        {"sub": "a", "exp": keyring.now + 60, "channels": {f"{secret} ": "r"}},
        {"sub": "a", "exp": keyring.now + 60, "channels": {"a": secret}},
        {"sub": "a", "exp": keyring.now + 60, "aud": secret},
        {"sub": "a", "exp": keyring.now + 60, "admin": secret},
    ):
        found = check(keyring.token(json.dumps(claims).encode()))
        assert isinstance(found, Error)
        assert secret not in found.message
