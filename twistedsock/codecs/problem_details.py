"""Errors of the HTTP API: the status of each error code, the body of a response (RFC 9457), errors of addresses."""

import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import msgspec

from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import is_channel, is_reserved

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


MAX_SHOWN_PATH_BYTES = 100
"""Of a path that an error repeats: enough to find a typing error in it."""

_SHOWN_PATH = re.compile(rb"/[A-Za-z0-9._~%%:@$,=/-]{0,%d}" % (MAX_SHOWN_PATH_BYTES - 1))
"""Paths that an error can repeat unchanged, whatever shows it: no markup, quotes or spaces."""

_AROUND_CHANNEL = re.compile(rb"/(?:channels(?:/|$))?(.*?)(?:/(?:events?|members?))?/?")


def unknown_path(path: bytes) -> Error:
    """The error of an address that does not exist. It names the one that publishes to the channel that was probably
    meant, because ``/kitchen`` and ``/channels/kitchen`` are usual guesses."""
    shown = f" {path.decode()}" if _SHOWN_PATH.fullmatch(path) else ""
    hint = f"publish with {_publish_request(path)}, all addresses are in /openapi.json"
    return Error(ErrorCode.UNKNOWN_COMMAND, f"unknown path{shown}: {hint}")


def method_not_allowed(path: bytes, allowed: bytes) -> Error:
    """The error of an address that exists for other methods only. ``allowed`` is the value of the header ``Allow``."""
    hint = f"publish with {_publish_request(path if path.startswith(b'/channels/') else b'')}"
    return Error(ErrorCode.UNKNOWN_COMMAND, f"method not allowed: use {allowed.decode()}, or {hint}")


def _publish_request(path: bytes) -> str:
    around = _AROUND_CHANNEL.fullmatch(path) if _SHOWN_PATH.fullmatch(path) else None
    name = around[1] if around else b""
    channel = unquote_to_bytes(name)
    is_usable = is_channel(channel) and not is_reserved(channel)
    return f"POST /channels/{name.decode() if is_usable else '{channel}'}/events"
