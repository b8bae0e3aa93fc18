"""Tokens: claims, their errors, and attacks on the header and the signature."""

import json
import time

import pytest

from twistedsock.auth import tokens
from twistedsock.auth.identity import EVERYTHING, Right
from twistedsock.auth.keys import ALGORITHMS
from twistedsock.auth.tokens import (
    MAX_BRACKETS,
    MAX_SECONDS,
    MAX_TOKEN_BYTES,
    Claims,
    TokenRequirements,
    is_subject,
    sign_token,
    verify_token,
)
from twistedsock.errors import Error, ErrorCode

REQUIREMENTS = TokenRequirements()
DEEP = 3_000


@pytest.fixture
def check(keyring):
    """Verify a token with the keys for some algorithms, HS256 by default."""

    def check(token, *algorithms, requirements=REQUIREMENTS, later=0.0):
        found = verify_token(token, keyring.keys(*algorithms or ("HS256",)), keyring.now + later, requirements)
        return found if isinstance(found, Error) else found[1]

    return check


@pytest.fixture
def check_claims(keyring, check):
    """Verify a token with claims in addition to the usual ones."""

    def check_claims(requirements=REQUIREMENTS, later=0.0, **more):
        return check(keyring.token(**more), requirements=requirements, later=later)

    return check_claims


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_accepts_signed_token_of_each_algorithm(keyring, algorithm):
    claims = {"sub": "änn", "exp": keyring.now + 60, "channels": {"kitchen": "rw", "alerts.*": "r", "log.>": "w"}}
    token = sign_token(claims, keyring.signing(algorithm), "2026-11")
    key = keyring.key(algorithm, "2026-11")
    found = verify_token(token, {"old": keyring.key("HS256"), "2026-11": key}, keyring.now, REQUIREMENTS)
    assert not isinstance(found, Error)
    assert found[0] is key
    said = found[1]
    assert (said.subject, said.is_admin, said.expires) == ("änn".encode(), False, keyring.now + 90)
    assert said.grants.on(b"kitchen") == Right.BOTH
    assert said.grants.on(b"alerts.fire") == Right.READ
    assert said.grants.on(b"log.a.b") == Right.WRITE
    assert said.grants.on(b"alerts.a.b") == said.grants.on(b"cellar") == Right.NONE


def test_token_without_kid_needs_a_single_key(keyring, check):
    token = sign_token({"sub": "ann", "exp": keyring.now + 60}, keyring.signing("ES256"), None)
    assert isinstance(check(token, "ES256"), Claims)
    assert check(token, "ES256", "EdDSA") == tokens.WHICH_KEY
    assert verify_token(token, {}, keyring.now, REQUIREMENTS) == tokens.WHICH_KEY


def test_admin_has_all_rights(check_claims):
    claims = check_claims(admin=True, channels={"kitchen": "r"})
    assert claims.is_admin
    assert claims.grants is EVERYTHING
    assert not check_claims(admin=False).is_admin


def test_ignores_unknown_claims(check_claims):
    claims = check_claims(iss="somebody", iat="yesterday", jti=None, channel={"x": "rw"}, Admin=True)
    assert isinstance(claims, Claims)
    assert not claims.is_admin
    assert claims.grants.pairs == ()


@pytest.mark.parametrize(
    ("later", "leeway", "error"),
    [(59.9, 0, None), (89.9, 30, None), *((*case, tokens.EXPIRED) for case in ((60, 0), (90, 30), (1e12, 30)))],
)
def test_token_expires_at_exp_plus_leeway(check_claims, later, leeway, error):
    found = check_claims(TokenRequirements(leeway=leeway), later)
    assert found == error if error else found.expires == 1_800_000_060 + leeway


@pytest.mark.parametrize(
    ("later", "leeway", "error"),
    [(10, 0, None), (-20, 30, None), *((*case, tokens.NOT_YET) for case in ((9.9, 0), (-20.1, 30), (-1e12, 30)))],
)
def test_token_is_valid_from_nbf_minus_leeway(keyring, check_claims, later, leeway, error):
    found = check_claims(TokenRequirements(leeway=leeway), later, nbf=keyring.now + 10)
    assert found == error if error else isinstance(found, Claims)


def test_accepts_fractional_times(keyring, check_claims):
    assert check_claims(exp=keyring.now + 0.5, nbf=keyring.now - 0.5).expires == keyring.now + 30.5


def test_rejects_times_after_the_year_9999(check_claims):
    assert isinstance(check_claims(exp=MAX_SECONDS), Claims)
    assert isinstance(check_claims(exp=MAX_SECONDS + 1), Error)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_does_not_sign_numbers_that_json_lacks(keyring, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sign_token({"sub": "ann", "x": value}, keyring.signing("HS256"), None)


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize(
    "value",
    ["1900000000", True, None, [], {}, 1_900_000_000_000, 10**400, 1e300, -1e300, 253_402_300_800],
    ids=lambda value: str(value)[:20],
)
def test_rejects_invalid_time(check_claims, name, value):
    """A time in milliseconds would mean a token that never expires."""
    assert check_claims(**{name: value}).message == f"invalid token: {name} must be a time in seconds since 1970"


@pytest.mark.parametrize("value", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "9" * 5_000])
def test_rejects_infinite_and_huge_numbers(keyring, check, value):
    found = check(keyring.token(b'{"sub":"ann","exp":' + value.encode() + b"}"))
    assert isinstance(found, Error)


def test_accepts_token_without_expiry_if_configured(keyring, check):
    token = keyring.token({"sub": "ann"})
    assert check(token) == tokens.NO_EXPIRY
    assert check(token, requirements=TokenRequirements(expiry_required=False)).expires is None


@pytest.mark.parametrize(
    ("ours", "named", "error"),
    [
        *(("here", named, None) for named in ("here", ["there", "here"])),
        *(("here", named, tokens.WRONG_AUDIENCE) for named in ("there", "her", "Here", ["there"], [], "")),
        *((None, named, tokens.WRONG_AUDIENCE) for named in ("there", [])),
        *(("here", named, tokens.BAD_AUDIENCE) for named in (None, 1, ["here", 1], {"here": "here"})),
        (None, None, tokens.BAD_AUDIENCE),
    ],
)
def test_rejects_other_audiences(check_claims, ours, named, error):
    found = check_claims(TokenRequirements(audience=ours), aud=named)
    assert found == error if error else isinstance(found, Claims)


def test_requires_audience_if_configured(check_claims):
    assert check_claims(TokenRequirements(audience="here")) == tokens.NO_AUDIENCE


@pytest.mark.parametrize("sub", ["a", "ann@example.org", "Ann Lee", "é" * 100, "x" * 200, "a~"])
def test_accepts_valid_subject(check_claims, sub):
    assert is_subject(sub)
    assert check_claims(sub=sub).subject == sub.encode()


@pytest.mark.parametrize(
    "sub",
    [None, 7, True, [], {}, "", "x" * 201, "é" * 101, "~ann", "a\nb", "a\0", "\x1b[2J", "a\x7f", "a\x85", "a\u2028b"]
    + ["\ud800", "a\udfff", "ann\u200b", "\xadann", "a\u200dn", "a\u202enn", "ann\ufeff", "ann\u3164", "a\U000e0041"],
    ids=ascii,
)
def test_rejects_invalid_subject(check_claims, sub):
    assert check_claims(sub=sub) == tokens.BAD_SUBJECT


def test_requires_subject(keyring, check):
    assert check(keyring.token({"exp": keyring.now + 60})) == tokens.BAD_SUBJECT


@pytest.mark.parametrize("admin", [None, 0, 1, "true", "", [], {}])
def test_rejects_admin_that_is_not_a_boolean(check_claims, admin):
    assert check_claims(admin=admin) == tokens.BAD_ADMIN


def test_rejects_more_than_a_hundred_patterns(check_claims):
    names = {f"c{number}": "r" for number in range(100)}
    assert len(check_claims(channels=names).grants.pairs) == 100
    assert check_claims(channels=names | {"x": "r"}) == tokens.BAD_CHANNELS


@pytest.mark.parametrize("channels", [None, [], "kitchen", ["kitchen"], 1, True])
def test_rejects_channels_that_are_not_an_object(check_claims, channels):
    assert check_claims(channels=channels) == tokens.BAD_CHANNELS


@pytest.mark.parametrize("rights", ["", "wr", "RW", "x", "r w", "rwx", None, True, 1, [], ["r"], {}])
def test_rejects_invalid_rights(check_claims, rights):
    found = check_claims(channels={"a": "r", "kitchen": rights})
    assert found.message == "invalid token: the rights of pattern 2 in channels must be r, w or rw"


@pytest.mark.parametrize("text", ["", " ", "a b", "a>b", "a\n", "x" * 300, "\ud800", "a\x1b"], ids=ascii)
def test_error_names_number_of_invalid_pattern(check_claims, text):
    found = check_claims(channels={text: "r"})
    assert found.message == "invalid token: pattern 1 in channels is not a valid pattern"


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
def test_rejects_claims_that_are_not_an_object(keyring, check, payload):
    found = check(keyring.token(payload)) if payload else verify_token(b"a..b", keyring.keys("HS256"), 0, REQUIREMENTS)
    assert found == (tokens.BAD_PAYLOAD if payload else tokens.MALFORMED)


def test_limits_nesting_of_claims(keyring, check):
    """Python versions limit the depth of JSON differently."""

    def nested(depth):
        return f'{{"sub":"ann","exp":1800000060,"x":{"[" * depth}{"]" * depth}}}'.encode()

    assert isinstance(check(keyring.token(nested(MAX_BRACKETS - 1))), Claims)
    assert check(keyring.token(nested(MAX_BRACKETS))) == tokens.BAD_PAYLOAD


def test_errors_have_one_code_and_no_full_stop():
    found = [value for value in vars(tokens).values() if isinstance(value, Error)]
    assert len(found) > 15
    for error in found:
        assert error.code is ErrorCode.UNAUTHORIZED
        assert error.message.isascii() and "\n" not in error.message and error.message[-1] != "."


def test_errors_do_not_quote_the_token(keyring, check):
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


# Attacks on tokens (RFC 8725).


@pytest.fixture
def good(keyring):
    """Return a valid token for an algorithm."""
    return lambda algorithm: sign_token({"sub": "ann", "exp": keyring.now + 60}, keyring.signing(algorithm), algorithm)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "none ", None, False, 0, [], ["none"], {}, "x"])
def test_rejects_alg_none(keyring, check, name):
    header, payload, signature = keyring.token(header={"alg": name}).split(b".")
    assert check(b".".join([header, payload, signature])) == tokens.WRONG_ALGORITHM
    assert check(b".".join([header, payload, b""])) == tokens.MALFORMED
    assert check(b".".join([header, payload])) == tokens.MALFORMED
    assert check(b".".join([header, payload, b"AA"]), "RS256") == tokens.WRONG_ALGORITHM


def test_rejects_token_without_alg(keyring, check):
    assert check(keyring.token(header=b'{"typ":"JWT"}')) == tokens.WRONG_ALGORITHM


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("change", [bytes, bytes.rstrip, lambda pem: pem.replace(b"\n", b"\r\n")])
def test_rejects_public_key_as_hmac_secret(keyring, check, algorithm, change):
    """A verifier that trusts the algorithm of the token would use the public key as a secret for HMAC."""
    public = change((keyring.folder / f"{algorithm}.pub").read_bytes())
    for name in ("HS256", algorithm):
        token = keyring.token(header={"alg": name, "kid": algorithm}, secret=public)
        expected = tokens.WRONG_ALGORITHM if name == "HS256" else tokens.BAD_SIGNATURE
        assert check(token, algorithm) == check(token, algorithm, "HS256") == expected


@pytest.mark.parametrize("name", ["HS384", "HS512", "RS256", "PS256", "ES256", "ES256K", "EdDSA", "hs256", "HS256 "])
def test_rejects_algorithm_other_than_that_of_the_key(keyring, check, name):
    assert check(keyring.token(algorithm=name)) == tokens.WRONG_ALGORITHM


def test_does_not_confuse_rsa_and_elliptic_curves(keyring, check, good):
    assert check(good("RS256"), "RS256", "ES256").subject == b"ann"
    for signed, claimed in (("RS256", "ES256"), ("ES256", "RS256"), ("EdDSA", "ES256"), ("ES256", "EdDSA")):
        other_key = sign_token({"sub": "ann", "exp": keyring.now + 60}, keyring.signing(signed), claimed)
        assert check(other_key, signed, claimed) == tokens.WRONG_ALGORITHM
        header = json.dumps({"alg": claimed, "kid": claimed}).encode()
        _, payload, signature = good(signed).split(b".")
        forged = keyring.token(header=header).split(b".")[0] + b"." + payload + b"." + signature
        assert check(forged, signed, claimed) == tokens.BAD_SIGNATURE


def test_rejects_kid_of_another_key(keyring):
    keys = {"old": keyring.key("HS256", "old"), "new": keyring.key("ES256", "new")}
    assert verify_token(keyring.token(header={"kid": "new"}), keys, keyring.now, REQUIREMENTS) == tokens.WRONG_ALGORITHM
    assert verify_token(keyring.token(header={"kid": "older"}), keys, keyring.now, REQUIREMENTS) == tokens.UNKNOWN_KEY
    assert not isinstance(verify_token(keyring.token(header={"kid": "old"}), keys, keyring.now, REQUIREMENTS), Error)


@pytest.mark.parametrize(
    "kid",
    ["", "HS256\0", " HS256", "hs256", "../../etc/passwd", "/dev/null", "' OR 1=1 --", "HS256' UNION SELECT 'x"]
    + ["$(id)", "x" * 4_000, "\ud800", "\u212a", "file:///dev/null", "__class__"],
    ids=lambda kid: ascii(kid)[:20],
)
def test_unknown_kid_is_only_compared(keyring, check, kid):
    assert check(keyring.token(header={"kid": kid}, secret=b"")) == tokens.UNKNOWN_KEY
    assert check(keyring.token(header={"kid": kid})) == tokens.UNKNOWN_KEY


@pytest.mark.parametrize("kid", [None, 0, 1.5, True, [], ["HS256"], {}, {"HS256": 1}])
def test_rejects_kid_that_is_not_a_string(keyring, check, kid):
    assert check(keyring.token(header={"kid": kid})) == tokens.BAD_HEADER


def test_ignores_keys_in_the_header(keyring, check):
    """Otherwise, every client could bring its own key."""
    own = b"mallory's secret, which is as long as it takes"
    brought = {
        "jwk": {"kty": "oct", "k": "bWFsbG9yeSdzIHNlY3JldCwgd2hpY2ggaXMgYXMgbG9uZyBhcyBpdCB0YWtlcw"},
        "jku": "https://mallory.example/keys.json",
        "x5u": "https://mallory.example/cert.pem",
        "x5c": ["MIIB"],
    }
    assert check(keyring.token(header=brought, secret=own)) == tokens.BAD_SIGNATURE
    assert check(keyring.token(header=brought)).subject == b"ann"


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["x"], [], None, "b64", [1]])
def test_rejects_critical_extensions(keyring, check, crit):
    assert check(keyring.token(header={"crit": crit, "b64": False, "x": 1})) == tokens.CRITICAL


def test_rejects_unencoded_payload(keyring, check):
    assert check(keyring.token(header={"b64": False})) == tokens.BAD_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        *(b"", b"x", b"[]", b'"HS256"', b"null", b"\xff", b'{"alg":"HS256"', '{"alg":"HS256"}'.encode("utf-16")),
        *(b'{"alg":"none","alg":"HS256"}', b'{"alg":"HS256","kid":"a","k\\u0069d":"HS256"}', b'{"alg":NaN}'),
        *(b"[" * 5_000, b'{"a":' * 1_000, b'{"alg":"HS256","x":' + b"[" * 2_500 + b"]" * 2_500 + b"}"),
        *(b"9" * 5_000, b'{"alg":"HS256","x":' + b"9" * 5_000 + b"}"),
    ],
    ids=lambda header: ascii(header)[:24],
)
def test_rejects_invalid_header(keyring, check, header):
    assert check(keyring.token(header=header)) == (tokens.BAD_HEADER if header else tokens.MALFORMED)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_rejects_truncated_token(check, good, algorithm):
    token = good(algorithm)
    assert isinstance(check(token, algorithm), Claims)
    for length in range(len(token)):
        assert isinstance(check(token[:length], algorithm), Error)
        assert isinstance(check(token[length + 1 :], algorithm), Error)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_rejects_token_with_any_changed_bit(check, good, algorithm):
    """Base64url has redundant encodings, which are rejected too."""
    token = good(algorithm)
    for index in range(len(token)):
        for bit in range(8):
            changed = bytearray(token)
            changed[index] ^= 1 << bit
            assert isinstance(check(bytes(changed), algorithm), Error), (index, bit)


def test_rejects_malformed_signature(check, good):
    header, payload, signature = good("ES256").split(b".")
    halves = (b"A" * 44 + signature[44:], signature[:44] + b"A" * 42)
    for other in (b"AA", b"A" * 86, signature * 2, signature[:40], *halves):
        assert check(b".".join([header, payload, other]), "ES256") == tokens.BAD_SIGNATURE


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + b"=",
        lambda token: token + b"\n",
        lambda token: b" " + token,
        lambda token: token.replace(b".", b". ", 1),
        lambda token: token.replace(b".", b"=.", 1),
        lambda token: token[:10] + b"\n" + token[10:],
        lambda token: token[:10] + b"!" + token[10:],
        lambda token: token + b".",
        lambda token: token + b".AA",
        lambda token: b"." + token,
        lambda token: token.replace(b".", b".."),
        lambda token: token.replace(b".", b"\xe2\x80\xa4"),
        lambda token: b"Bearer " + token,
        lambda token: b"\xff" + token,
        lambda token: b"",
        lambda token: b".",
        lambda token: b"..",
        lambda token: b"a.b.c",
        lambda token: token * 2,
        lambda token: b"A" * 100_000,
        lambda token: b"." * 100_000,
        lambda token: b".".join([b"A" * 40_000] * 3),
    ],
)
def test_rejects_malformed_token(check, good, change):
    assert check(change(good("HS256"))) == tokens.MALFORMED


def test_rejects_token_over_the_size_limit(keyring, check):
    def padded(length):
        return keyring.token(pad="x" * length)

    length = next(length for length in range(5_900, 6_100) if len(padded(length)) >= MAX_TOKEN_BYTES)
    assert len(padded(length)) == MAX_TOKEN_BYTES
    assert isinstance(check(padded(length)), Claims)
    assert check(padded(length + 1)) == tokens.MALFORMED


def test_verifies_signature_before_reading_claims(keyring, check):
    for claims in (b"x", b"[" * 4_000, {"sub": "", "exp": 0}):
        assert check(keyring.token(claims, secret=b"x" * 32)) == tokens.BAD_SIGNATURE


@pytest.mark.parametrize("token", [b"[" * 5_000, b"A" * 8_000, b'{"a":' * 1_000, b"1" * 4_000])
def test_rejects_hostile_input_quickly(keyring, check, token):
    """Milliseconds at most: a client has ten attempts."""
    made = keyring.token(header=token)
    before = time.process_time()
    for _ in range(10):
        check(made)
        check(token)
    assert time.process_time() - before < 1
