"""Tokens (JSON Web Tokens, RFC 7519): verification, claims and signing.

PyJWT checks the signature, with the algorithm of the key that the token names. This module reads the header and the
claims. It rejects every token that two parsers could read differently.
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
"""The usual limit of HTTP servers for one header, so that clients can send a token there."""

MAX_PATTERNS = 100
"""Patterns in one token. A wildcard grants rights on more channels."""

SUBJECT_BYTES = 200
"""The same as for a channel name: room for an e-mail address or a URN."""

MAX_BRACKETS = 200
"""Objects and lists in a header or in claims. Every Python version parses JSON of this depth."""

MAX_SECONDS = 253_402_300_799
"""The last second of the year 9999. A later time is probably in milliseconds, and the token would never expire."""

_FORM = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")

_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{INVISIBLE}]")

_SIGNATURES = {algorithm: jwt.PyJWS(algorithms=[algorithm]) for algorithm in ALGORITHMS}


SUBJECT_RULE = f"1 to {SUBJECT_BYTES} bytes of text, without control characters, invisible characters and a ~ in front"


def _error(message: str) -> Error:
    return Error(ErrorCode.UNAUTHORIZED, message)


MALFORMED = _error(
    f"invalid token: expected three base64url parts with dots between, at most {MAX_TOKEN_BYTES:,} bytes"
)

BAD_HEADER = _error("invalid token: the header must be a JSON object with unique names")

CRITICAL = _error("invalid token: the header requires extensions (crit), and this server supports none")

UNKNOWN_KEY = _error("invalid token: this server has no key with that id (kid)")

WHICH_KEY = _error("invalid token: the header must contain the id of the key (kid)")

WRONG_ALGORITHM = _error("invalid token: its algorithm (alg) is not that of the key")

BAD_SIGNATURE = _error("invalid token: wrong signature")

BAD_PAYLOAD = _error("invalid token: the claims must be a JSON object with unique names")

EXPIRED = _error("the token has expired (exp): get a new one")

NOT_YET = _error("the token is not valid yet (nbf): try again later, or check the clock of its issuer")

NO_EXPIRY = _error("invalid token: it must expire (exp)")

NO_AUDIENCE = _error("invalid token: it must name the audience (aud) of this server")

WRONG_AUDIENCE = _error("invalid token: it is for another audience (aud)")

BAD_SUBJECT = _error(f"invalid token: sub must be {SUBJECT_RULE}")

BAD_CHANNELS = _error(f"invalid token: channels must be an object of at most {MAX_PATTERNS} patterns")

BAD_ADMIN = _error("invalid token: admin must be true or false")

BAD_AUDIENCE = _error("invalid token: aud must be a string or a list of strings")


class TokenRequirements(msgspec.Struct, frozen=True):
    """The requirements of a server for every token. ``audience`` is the server's own name, or None. ``leeway`` is the
    difference between two clocks that is tolerated, in seconds."""

    audience: str | None = None
    leeway: float = 30.0
    expiry_required: bool = True


class Claims(msgspec.Struct, frozen=True):
    """The claims of a valid token. ``expires`` includes the leeway; None: the token never expires."""

    subject: bytes
    grants: Grants
    is_admin: bool
    expires: float | None


def is_subject(text: str) -> bool:
    """Return whether a token or a certificate can contain this name. ``~`` is the mark of unverified nicknames."""
    try:
        length = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return 0 < length <= SUBJECT_BYTES and not text.startswith("~") and _FORBIDDEN.search(text) is None


def verify_token(
    token: bytes, keys: Mapping[str, Key], now: float, terms: TokenRequirements
) -> tuple[Key, Claims] | Error:
    """Return the key and the claims of a token, or the reason why it is invalid. ``now`` is the wall clock in seconds
    since 1970. Never raises, and no error contains a part of the token."""
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
    """Return a token with these claims. Does not check whether a server would accept them."""
    payload = json.dumps(claims, separators=(",", ":"), allow_nan=False).encode()
    headers = {} if id is None else {"kid": id}
    return _SIGNATURES[key.algorithm].encode(payload, key.material, algorithm=key.algorithm, headers=headers).encode()


def read_claims(payload: bytes, now: float, terms: TokenRequirements) -> Claims | Error:
    """Check the claims of a token, whose signature the caller has verified."""
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
    """Return the key that the header names. Keys in the header (jwk, x5c) or behind its links (jku, x5u) are not
    trusted."""
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
    """Decode base64url without padding (RFC 7515 section 2). Returns None unless the encoding is canonical."""
    if len(part) % 4 == 1:
        return None
    decoded = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    return decoded if urlsafe_b64encode(decoded).rstrip(b"=") == part else None


def _object(text: bytes) -> dict[str, Any] | None:
    """Parse a JSON object in UTF-8 whose names are unique at every depth (RFC 7519 section 4)."""
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
        raise ValueError("repeated name")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _time(claims: Mapping[str, Any], name: str) -> float | Error | None:
    """Return a time in seconds since 1970 (RFC 7519 section 2, NumericDate), or None if the claim is missing."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) in (int, float) and -MAX_SECONDS <= value <= MAX_SECONDS:
        return float(value)
    return _error(f"invalid token: {name} must be a time in seconds since 1970")


def _check_audience(claims: Mapping[str, Any], ours: str | None) -> Error | None:
    """Check the audience (RFC 7519 section 4.1.3). A server without a name rejects tokens that name any."""
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
            return _error(f"invalid token: the rights of pattern {number} in channels must be r, w or rw")
        try:
            pairs.append((pattern(text), right))
        except ValueError:
            return _error(f"invalid token: pattern {number} in channels is not a valid pattern")
    return Grants(pairs)
