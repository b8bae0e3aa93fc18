"""Errors of the HTTP API: the status of each error code, and the body of the response (RFC 9457)."""

from http import HTTPStatus

import msgspec

from twistedsock.errors import Error, ErrorCode

PROBLEM_TYPE = b"application/problem+json"

HTTP_STATUS = {
    ErrorCode.UNKNOWN_COMMAND: 404,
    ErrorCode.BAD_ARGUMENT: 400,
    ErrorCode.BAD_CHANNEL: 400,
    ErrorCode.BAD_NAME: 400,
    ErrorCode.BAD_JSON: 400,
    ErrorCode.BAD_BASE64: 400,
    ErrorCode.BAD_TYPE: 415,
    ErrorCode.TOO_LONG: 413,
    ErrorCode.NOT_UTF8: 400,
    ErrorCode.NOT_SUBSCRIBED: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.LIMIT: 503,
    ErrorCode.RATE: 429,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}
"""The status of each error code, unless ``ApiError`` has another."""

TOKEN_HINT = ": send a token in the header Authorization: Bearer"
"""Added to errors that need a token (RFC 6750)."""

RETRY_AFTER_SECONDS = 5
"""``Retry-After`` if a limit of the server was reached."""


class ApiError(Exception):
    """Ends a request with an error response. ``status`` replaces the status of the error code."""

    def __init__(self, error: Error, status: int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status


def problem_details(error: Error, status: int) -> bytes:
    """The problem details object of an error (RFC 9457 section 3). It has the same code as in the other protocols."""
    details = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message + (TOKEN_HINT if error.needs_token else ""),
        "code": error.code.decode(),
    }
    return msgspec.json.encode(details) + b"\n"
