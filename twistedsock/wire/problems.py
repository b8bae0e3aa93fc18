"""How a refusal is told over HTTP: a status, and an object of RFC 9457 with the same code as in every dialect."""

from http import HTTPStatus

import msgspec

from twistedsock.core.errors import Code, Refusal

MEDIA_TYPE = b"application/problem+json"

STATUS = {
    Code.UNKNOWN_COMMAND: 404,
    Code.BAD_ARGUMENT: 400,
    Code.BAD_CHANNEL: 400,
    Code.BAD_NAME: 400,
    Code.BAD_JSON: 400,
    Code.BAD_TYPE: 415,
    Code.TOO_LONG: 413,
    Code.NOT_UTF8: 400,
    Code.NOT_SUBSCRIBED: 400,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.LIMIT: 503,
    Code.RATE: 429,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
"""The status of each code, where nothing else is said."""

LIMIT_OVER = 5
"""Seconds after which it is worth asking again where there was no room."""


class Refused(Exception):
    """Ends the operation that a request asks for: the request is answered with the refusal. ``status`` is for those
    whose status the code does not tell."""

    def __init__(self, refusal: Refusal, status: int | None = None) -> None:
        super().__init__(refusal.words)
        self.refusal = refusal
        self.status = status


def problem(refusal: Refusal, status: int) -> bytes:
    """The object that tells of a refusal (RFC 9457 section 3)."""
    told = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": refusal.words,
        "code": refusal.code.decode(),
    }
    return msgspec.json.encode(told) + b"\n"
