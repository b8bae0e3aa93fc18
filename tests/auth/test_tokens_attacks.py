"""What people try with tokens, one by one; then anything at all."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.auth import tokens
from twistedsock.auth.tokens import MAX_TOKEN_BYTES, Claims, TokenRequirements, sign_token, verify_token
from twistedsock.errors import Error

TERMS = TokenRequirements()


@pytest.fixture
def check(keyring):
    def check(token, *algorithms):
        found = verify_token(token, keyring.keys(*(algorithms or ("HS256",))), keyring.now, TERMS)
        return found if isinstance(found, Error) else found[1]

    return check


@pytest.fixture
def good(keyring):
    """A valid token by algorithm, of somebody who is no admin."""
    return lambda algorithm: sign_token({"sub": "ann", "exp": keyring.now + 60}, keyring.signing(algorithm), algorithm)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "none ", None, False, 0, [], ["none"], {}, "x"])
def test_alg_none_is_refused(keyring, check, name):
    header, payload, signature = keyring.token(header={"alg": name}).split(b".")
    assert check(b".".join([header, payload, signature])) == tokens.WRONG_ALGORITHM
    assert check(b".".join([header, payload, b""])) == tokens.MALFORMED
    assert check(b".".join([header, payload])) == tokens.MALFORMED
    assert check(b".".join([header, payload, b"AA"]), "RS256") == tokens.WRONG_ALGORITHM


def test_a_token_without_alg_is_refused(keyring, check):
    assert check(keyring.token(header=b'{"typ":"JWT"}')) == tokens.WRONG_ALGORITHM


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("change", [bytes, bytes.rstrip, lambda pem: pem.replace(b"\n", b"\r\n")])
def test_a_public_key_is_no_secret_for_hmac(keyring, check, algorithm, change):
    """The classic: the verifier takes the algorithm from the token, and the key as bytes."""
    public = change((keyring.folder / f"{algorithm}.pub").read_bytes())
    for name in ("HS256", algorithm):
        token = keyring.token(header={"alg": name, "kid": algorithm}, secret=public)
        expected = tokens.WRONG_ALGORITHM if name == "HS256" else tokens.BAD_SIGNATURE
        assert check(token, algorithm) == check(token, algorithm, "HS256") == expected


@pytest.mark.parametrize("name", ["HS384", "HS512", "RS256", "PS256", "ES256", "ES256K", "EdDSA", "hs256", "HS256 "])
def test_the_algorithm_is_that_of_the_key(keyring, check, name):
    assert check(keyring.token(algorithm=name)) == tokens.WRONG_ALGORITHM


def test_rsa_and_elliptic_curves_are_not_mixed_up(keyring, check, good):
    assert check(good("RS256"), "RS256", "ES256").subject == b"ann"
    for signed, claimed in (("RS256", "ES256"), ("ES256", "RS256"), ("EdDSA", "ES256"), ("ES256", "EdDSA")):
        other_key = sign_token({"sub": "ann", "exp": keyring.now + 60}, keyring.signing(signed), claimed)
        assert check(other_key, signed, claimed) == tokens.WRONG_ALGORITHM
        header = json.dumps({"alg": claimed, "kid": claimed}).encode()
        _, payload, signature = good(signed).split(b".")
        forged = keyring.token(header=header).split(b".")[0] + b"." + payload + b"." + signature
        assert check(forged, signed, claimed) == tokens.BAD_SIGNATURE


def test_the_kid_of_another_key_does_not_help(keyring):
    keys = {"old": keyring.key("HS256", "old"), "new": keyring.key("ES256", "new")}
    assert verify_token(keyring.token(header={"kid": "new"}), keys, keyring.now, TERMS) == tokens.WRONG_ALGORITHM
    assert verify_token(keyring.token(header={"kid": "older"}), keys, keyring.now, TERMS) == tokens.UNKNOWN_KEY
    assert not isinstance(verify_token(keyring.token(header={"kid": "old"}), keys, keyring.now, TERMS), Error)


@pytest.mark.parametrize(
    "kid",
    ["", "HS256\0", " HS256", "hs256", "../../etc/passwd", "/dev/null", "' OR 1=1 --", "HS256' UNION SELECT 'x"]
    + ["$(id)", "x" * 4_000, "\ud800", "\u212a", "file:///dev/null", "__class__"],
    ids=lambda kid: ascii(kid)[:20],
)
def test_a_kid_is_a_name_and_nothing_else(keyring, check, kid):
    assert check(keyring.token(header={"kid": kid}, secret=b"")) == tokens.UNKNOWN_KEY
    assert check(keyring.token(header={"kid": kid})) == tokens.UNKNOWN_KEY


@pytest.mark.parametrize("kid", [None, 0, 1.5, True, [], ["HS256"], {}, {"HS256": 1}])
def test_a_kid_that_is_no_text_is_refused(keyring, check, kid):
    assert check(keyring.token(header={"kid": kid})) == tokens.BAD_HEADER


def test_keys_in_the_header_are_not_looked_at(keyring, check):
    """Whoever believes these lets everybody bring a key."""
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
def test_critical_extensions_are_refused(keyring, check, crit):
    assert check(keyring.token(header={"crit": crit, "b64": False, "x": 1})) == tokens.CRITICAL


def test_an_unencoded_payload_is_refused(keyring, check):
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
def test_a_header_that_is_none_is_refused(keyring, check, header):
    assert check(keyring.token(header=header)) == (tokens.BAD_HEADER if header else tokens.MALFORMED)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_a_truncated_token_is_refused(check, good, algorithm):
    token = good(algorithm)
    assert isinstance(check(token, algorithm), Claims)
    for length in range(len(token)):
        assert isinstance(check(token[:length], algorithm), Error)
        assert isinstance(check(token[length + 1 :], algorithm), Error)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_each_bit_of_a_token_counts(check, good, algorithm):
    """Of its characters too: there is one way only to write it."""
    token = good(algorithm)
    for place in range(len(token)):
        for bit in range(8):
            changed = bytearray(token)
            changed[place] ^= 1 << bit
            assert isinstance(check(bytes(changed), algorithm), Error), (place, bit)


def test_an_empty_or_repeated_signature_is_refused(check, good):
    header, payload, signature = good("ES256").split(b".")
    for other in (
        b"AA",
        b"A" * 86,
        signature * 2,
        signature[:40],
        b"A" * 44 + signature[44:],
        signature[:44] + b"A" * 42,
    ):
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
def test_what_is_no_token_is_refused(check, good, change):
    assert check(change(good("HS256"))) == tokens.MALFORMED


def test_a_token_has_a_longest(keyring, check):
    def padded(length):
        return keyring.token(pad="x" * length)

    length = next(length for length in range(5_900, 6_100) if len(padded(length)) >= MAX_TOKEN_BYTES)
    assert len(padded(length)) == MAX_TOKEN_BYTES
    assert isinstance(check(padded(length)), Claims)
    assert check(padded(length + 1)) == tokens.MALFORMED


def test_a_signature_is_checked_before_the_claims_are_looked_at(keyring, check):
    for claims in (b"x", b"[" * 4_000, {"sub": "", "exp": 0}):
        assert check(keyring.token(claims, secret=b"x" * 32)) == tokens.BAD_SIGNATURE


@pytest.mark.parametrize("token", [b"[" * 5_000, b"A" * 8_000, b'{"a":' * 1_000, b"1" * 4_000])
def test_nothing_that_a_stranger_sends_takes_long(keyring, check, token):
    """Milliseconds at most, and a peer may try ten times."""
    made = keyring.token(header=token)
    before = time.process_time()
    for _ in range(10):
        check(made)
        check(token)
    assert time.process_time() - before < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "sub", "exp", "nbf", "aud", "channels", "admin", "x"])
VALUES = JSON | st.sampled_from(["HS256", "none", "ann", 1_800_000_060, {"a.*": "rw"}, True, ["b64"]])
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=8).map(lambda value: json.dumps(value).encode())


@given(token=st.binary(max_size=300) | st.text("AQe.-_=", max_size=80).map(str.encode))
def test_any_bytes_are_refused_and_nothing_is_raised(keyring, token):
    assert isinstance(verify_token(token, keyring.keys("HS256"), keyring.now, TERMS), Error)


@given(
    header=OBJECTS | st.binary(max_size=60),
    claims=OBJECTS | st.binary(max_size=60),
    required=st.booleans(),
    audience=st.none() | st.text(max_size=5),
)
def test_any_signed_token_gives_claims_or_a_refusal(keyring, header, claims, required, audience):
    """Also from somebody who has the key, and writes nonsense."""
    terms = TokenRequirements(audience, 30, required)
    for head in (header, b'{"alg":"HS256"}'):
        found = verify_token(keyring.token(claims or b"x", head), keyring.keys("HS256"), keyring.now, terms)
        assert isinstance(found, Error) or isinstance(found[1], Claims)
