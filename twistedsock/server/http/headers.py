"""Headers that many responses share: security, CORS, and the validation and compression that requests ask for."""

from collections.abc import Mapping

PAGE_HEADERS = {
    b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    b"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}
"""Sent with every file. The pages load only their own files and connect only to their own server. ``blob:`` is for
pictures that the page has received as the bytes of an event."""

DATA_HEADERS = {
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
}
"""Sent with every other response, so that no browser renders it as a page and no cache stores it."""

JSON = b"application/json"

BODILESS_STATUSES = (204, 304)
"""Responses without a body and without a ``Content-Length`` (RFC 9110 section 6.4.1)."""

CORS_ALLOWED_HEADERS = (
    b"Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Sockbridge-Stream"
)
"""Headers that pages of allowed origins can send. Implementations of EventSource send Cache-Control."""

CORS_EXPOSED_HEADERS = b"Allow, ETag, Idempotency-Replayed, Retry-After, WWW-Authenticate"
"""Headers that pages of allowed origins can read, in addition to those that every page can read (Fetch,
"CORS-safelisted response-header name")."""

PREFLIGHT_MAX_AGE_SECONDS = 600


def header_block(headers: Mapping[bytes, bytes]) -> bytes:
    """The lines of ``headers``. Raises ``ValueError`` if a header contains a line break, which would forge another."""
    written = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    if not written.count(b"\r") == written.count(b"\n") == len(headers):
        raise ValueError("a header contains a line break")
    return written


def accepts_gzip(accept_encoding: bytes) -> bool:
    """True if ``Accept-Encoding`` allows gzip (RFC 9110 section 12.5.3)."""
    for one in accept_encoding.lower().split(b","):
        coding, _, weight = one.partition(b";")
        if coding.strip() in (b"gzip", b"*"):
            return weight.replace(b" ", b"").rstrip(b"0.") not in (b"q=", b"q")
    return False


def matches_etag(if_none_match: bytes, tag: bytes) -> bool:
    """True if ``If-None-Match`` lists ``tag`` (RFC 9110 section 13.1.2)."""
    if not if_none_match:
        return False
    return any(one.strip().removeprefix(b"W/") in (tag, b"*") for one in if_none_match.split(b","))
