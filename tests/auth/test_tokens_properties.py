"""Properties of tokens with arbitrary headers and claims, with and without a valid signature."""

import hmac
import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import CHANNELS, JSON_TEXTS, TEXTS, damaged
from tests.fuzz.properties import holds
from tests.issuer import base64url, hmac_token
from twistedsock.auth.keys import Key
from twistedsock.auth.tokens import MAX_SECONDS, Claims, TokenRequirements, is_subject, verify_token
from twistedsock.errors import Error, ErrorCode

NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef0123456789ABCDEF"
KEYS = {"k": Key("k", "HS256", SECRET, "0" * 64)}

HEADERS = st.sampled_from([b'{"alg":"HS256","kid":"k"}'] * 6 + [b'{"alg":"none"}', b'{"alg":"RS256"}', b"{}", b"[]"])
SUBJECTS = st.sampled_from(["ann", "~ann", "", "a\nb", "x" * 201, "\ud800"]) | TEXTS
TIMES = st.sampled_from([NOW + 60, NOW + 60, NOW - 60, 0, -1, 10**15, True, "1", None, float(NOW), 1e300])
PATTERNS = st.sampled_from(["a", "lobby.*", "lobby.>", ">", "*", "", "a>b", "**", "\x00"]) | CHANNELS.map(
    lambda channel: channel.decode(errors="replace")
)
RIGHTS = st.dictionaries(PATTERNS, st.sampled_from(["r", "w", "rw", "rw", "", "x", 1]), max_size=4)
CLAIMS = st.fixed_dictionaries(
    {"sub": SUBJECTS, "exp": TIMES},
    optional={
        "nbf": st.sampled_from([NOW - 60, NOW + 60]) | TIMES,
        "aud": st.sampled_from(["us", ["us", "x"], [], 1]),
        "channels": RIGHTS,
        "admin": st.booleans(),
    },
)
PAYLOADS = damaged(CLAIMS.map(json.dumps).map(str.encode), 1) | JSON_TEXTS | st.binary(max_size=40)


def signed(header: bytes, payload: bytes) -> bytes:
    return hmac_token(header, payload, SECRET)


@holds(examples=120, header=damaged(HEADERS, 1), payload=PAYLOADS, audience=st.sampled_from([None, "us"]))
def test_signed_token_gives_valid_claims_or_an_error(header: bytes, payload: bytes, audience: str | None) -> None:
    """A token with a valid signature gives claims that have not expired and are within the limits, or an error. It
    never raises."""
    found = verify_token(signed(header, payload), KEYS, NOW, TokenRequirements(audience))
    if isinstance(found, Error):
        assert found.code is ErrorCode.UNAUTHORIZED and found.message.isprintable()
        return
    key, claims = found
    assert key is KEYS["k"] and isinstance(claims, Claims) and claims.expires is not None and claims.expires > NOW
    said = json.loads(payload)
    assert claims.subject.decode() == said["sub"] and is_subject(said["sub"])
    assert claims.is_admin is said.get("admin", False)
    assert said["exp"] <= MAX_SECONDS and said.get("nbf", 0) <= NOW + TokenRequirements().leeway


@holds(examples=120, token=damaged(st.builds(signed, HEADERS, PAYLOADS), 2) | st.binary())
def test_damaged_token_is_rejected(token: bytes) -> None:
    """A damaged token is rejected. It never raises."""
    found: Any = verify_token(token, KEYS, NOW, TokenRequirements())
    if not isinstance(found, Error):
        said, _, signature = token.rpartition(b".")
        assert signature == base64url(hmac.digest(SECRET, said, "sha256"))
    assert isinstance(verify_token(token, {}, NOW, TokenRequirements()), Error)
