"""Tokens (JSON Web Tokens, RFC 7519): what a bridge believes of one, and how one is made.

A signature is checked by PyJWT, with the algorithm of the key that the token names. What the header and the claims say
is read here, strictly: where two readers could understand a token differently, it is refused.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, cast

import jwt
import msgspec

from twistedsock.auth.identity import EVERYTHING, RIGHTS, Grants
from twistedsock.auth.keys import ALGORITHMS, Key, SigningKey
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import INVISIBLE, pattern

MAX_TOKEN_BYTES = 8 * 1024
"""What HTTP servers commonly take as one header, so that a token fits wherever it may come; and little to check."""

MAX_PATTERNS = 100
"""Patterns in one token: rights for more channels are better said with wildcards."""

SUBJECT_BYTES = 200
"""As long as a channel's name may be; room for an e-mail address or a URN."""

MAX_BRACKETS = 200
"""Objects and lists in a header or in claims: more than anybody needs, and as deep as every Python parses them."""

MAX_SECONDS = 253_402_300_799
"""The last second of the year 9999. A later time is one in milliseconds, and such a token would never run out."""

_FORM = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{INVISIBLE}]")

_SIGNATURES = {algorithm: jwt.PyJWS(algorithms=[algorithm]) for algorithm in ALGORITHMS}


def _error(words: str) -> Error:
    return Error(ErrorCode.UNAUTHORIZED, words)


MALFORMED = _error(f"that is no token: three parts in base64url with dots between, at most {MAX_TOKEN_BYTES:,} bytes")

BAD_HEADER = _error("the header of the token is no JSON object that can be understood in one way only")

CRITICAL = _error("the header of the token says crit, and this server knows no extension")

UNKNOWN_KEY = _error("the token names a key (kid) that this server does not have")

WHICH_KEY = _error("the token does not name its key (kid), and this server does not have exactly one")

WRONG_ALGORITHM = _error("the token has another algorithm (alg) than its key")

BAD_SIGNATURE = _error("the signature of the token is not valid")

BAD_PAYLOAD = _error("the claims of the token are no JSON object that can be understood in one way only")

EXPIRED = _error("the token has expired (exp)")

NOT_YET = _error("the token is not valid yet (nbf)")

NO_EXPIRY = _error("the token never expires, and this server takes only those that do: exp is missing")

NO_AUDIENCE = _error("the token does not say for whom it is, and this server wants to be named: aud is missing")

WRONG_AUDIENCE = _error("the token is for somebody else (aud)")

BAD_SUBJECT = _error(
    f"the token's claim sub is missing, or not 1 to {SUBJECT_BYTES} bytes of text without control or invisible "
    "characters and without ~ in front"
)

BAD_CHANNELS = _error(f"the token's claim channels is no object of at most {MAX_PATTERNS} patterns")

BAD_ADMIN = _error("the token's claim admin is neither true nor false")

BAD_AUDIENCE = _error("the token's claim aud is neither a text nor a list of texts")


class TokenRequirements(msgspec.Struct, frozen=True):
    """What a server asks of every token. ``audience`` is its own name, None if it has none; ``leeway`` are the seconds
    that two clocks may differ by."""

    audience: str | None = None
    leeway: float = 30.0
    expiry_required: bool = True


class Claims(msgspec.Struct, frozen=True):
    """What a valid token says. ``expires`` is when it is no longer taken, leeway included; None: never."""

    subject: bytes
    grants: Grants
    is_admin: bool
    expires: float | None


def is_subject(text: str) -> bool:
    """Whether somebody may be called so who proves it. ``~`` in front marks those who do not."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < length <= SUBJECT_BYTES and not text.startswith("~") and _FORBIDDEN.search(text) is None


def verify_token(
    token: bytes, keys: Mapping[str, Key], now: float, terms: TokenRequirements
) -> tuple[Key, Claims] | Error:
    """The key that a token was signed with, and what it says; or why it is not taken. ``now`` is in seconds of the wall
    clock since 1970. Whatever the bytes, this raises nothing, and no refusal repeats anything of them."""
    parts = _FORM.fullmatch(token) if len(token) <= MAX_TOKEN_BYTES else None
    if parts is None:
        return MALFORMED
    header, payload, signature = (_decode(part) for part in parts.groups())
    if header is None or payload is None or signature is None:
        return MALFORMED
    key = _choose(header, keys)
    if isinstance(key, Error):
        return key
    try:
        _SIGNATURES[key.algorithm].decode(token, key.material, algorithms=[key.algorithm])
    except jwt.PyJWTError:
        return BAD_SIGNATURE
    claims = read_claims(payload, now, terms)
    return claims if isinstance(claims, Error) else (key, claims)


def sign_token(claims: Mapping[str, Any], key: SigningKey, id: str | None) -> bytes:
    """A token with these claims. It is not looked at whether a server would take them."""
    payload = json.dumps(claims, separators=(",", ":"), allow_nan=False).encode()
    headers = {} if id is None else {"kid": id}
    return _SIGNATURES[key.algorithm].encode(payload, key.material, algorithm=key.algorithm, headers=headers).encode()


def read_claims(payload: bytes, now: float, terms: TokenRequirements) -> Claims | Error:
    """What the claims of a token come to whose signature is valid."""
    claims = _object(payload)
    if claims is None:
        return BAD_PAYLOAD
    error = _check_audience(claims, terms.audience)
    if error is not None:
        return error
    expires = _time(claims, "exp")
    begins = _time(claims, "nbf")
    if isinstance(expires, Error):
        return expires
    if isinstance(begins, Error):
        return begins
    if expires is None and terms.expiry_required:
        return NO_EXPIRY
    if expires is not None and now >= expires + terms.leeway:
        return EXPIRED
    if begins is not None and now < begins - terms.leeway:
        return NOT_YET
    subject, is_admin = claims.get("sub"), claims.get("admin", False)
    if not isinstance(subject, str) or not is_subject(subject):
        return BAD_SUBJECT
    if not isinstance(is_admin, bool):
        return BAD_ADMIN
    grants = _grants(claims.get("channels", {}))
    if isinstance(grants, Error):
        return grants
    return Claims(
        subject.encode(),
        EVERYTHING if is_admin else grants,
        is_admin,
        None if expires is None else expires + terms.leeway,
    )


def _choose(header: bytes, keys: Mapping[str, Key]) -> Key | Error:
    """The key that the token names, if it may be used for it. Keys that come inside a header (jwk, x5c) or from where
    it points to (jku, x5u) are no keys of ours, and are not looked at."""
    fields = _object(header)
    if fields is None:
        return BAD_HEADER
    if "crit" in fields:  # RFC 7515 section 4.1.11
        return CRITICAL
    if "kid" in fields:
        name = fields["kid"]
        if not isinstance(name, str):
            return BAD_HEADER
        found = keys.get(name)
        if found is None:
            return UNKNOWN_KEY
    elif len(keys) == 1:
        (found,) = keys.values()
    else:
        return WHICH_KEY
    return found if fields.get("alg") == found.algorithm else WRONG_ALGORITHM


def _decode(part: bytes) -> bytes | None:
    """Base64url without padding (RFC 7515 section 2); None if it is not written in the one way that there is."""
    if len(part) % 4 == 1:
        return None
    decoded = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    return decoded if urlsafe_b64encode(decoded).rstrip(b"=") == part else None


def _object(text: bytes) -> dict[str, Any] | None:
    """A JSON object in UTF-8 whose names are unique at every depth (RFC 7519 section 4)."""
    if text.count(b"{") + text.count(b"[") > MAX_BRACKETS:
        return None
    try:
        found = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except ValueError:
        return None
    return cast(dict[str, Any], found) if isinstance(found, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _time(claims: Mapping[str, Any], name: str) -> float | Error | None:
    """Seconds since 1970, whole or not (RFC 7519 section 2, NumericDate). None if they are not said."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) in (int, float) and -MAX_SECONDS <= value <= MAX_SECONDS:
        return float(value)
    return _error(f"the token's claim {name} is no time in seconds since 1970")


def _check_audience(claims: Mapping[str, Any], ours: str | None) -> Error | None:
    """RFC 7519 section 4.1.3: who is not named in an audience must refuse the token, so a server without a name takes
    none that names any."""
    if "aud" not in claims:
        return None if ours is None else NO_AUDIENCE
    named = claims["aud"]
    names = named if isinstance(named, list) else [named]
    if not all(isinstance(name, str) for name in names):
        return BAD_AUDIENCE
    return None if ours in names else WRONG_AUDIENCE


def _grants(channels: object) -> Grants | Error:
    if not isinstance(channels, dict) or len(channels) > MAX_PATTERNS:
        return BAD_CHANNELS
    pairs = []
    for number, (text, rights) in enumerate(channels.items(), 1):
        right = RIGHTS.get(rights) if isinstance(rights, str) else None
        if right is None:
            return _error(f"in the token's claim channels, number {number} has rights other than r, w and rw")
        try:
            pairs.append((pattern(text), right))
        except ValueError:
            return _error(f"in the token's claim channels, number {number} is no pattern")
    return Grants(pairs)
