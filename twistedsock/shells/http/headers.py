"""Headers that many answers have."""

from collections.abc import Mapping

PAGE = {
    b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}
"""Sent with every file. Our pages need nothing but their own files and their own socket."""

DATA = {
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
}
"""Sent with every other answer: nobody is to show it as a page, or to keep it."""

ALLOWED_HEADERS = (
    b"Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Sockbridge-Stream"
)
"""Headers that pages of allowed origins can send. Implementations of EventSource send Cache-Control."""

EXPOSED_HEADERS = b"Allow, ETag, Idempotency-Replayed, Retry-After, WWW-Authenticate"
"""Headers that pages of allowed origins can read, besides those that every page can read (Fetch, "CORS-safelisted
response-header name")."""

PREFLIGHT_AGE = 600
"""Seconds that a browser may remember what it was allowed."""


def block(headers: Mapping[bytes, bytes]) -> bytes:
    """Headers as they are written; ValueError where one of them would be two."""
    written = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    if not written.count(b"\r") == written.count(b"\n") == len(headers):
        raise ValueError("a header holds a line break")
    return written
