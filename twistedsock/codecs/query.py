"""The query of a request for HTTP, read with suspicion: what is unknown, repeated or malformed is refused by name."""

import math
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import msgspec

from twistedsock.errors import Error, ErrorCode

MEDIA_TYPE = b"application/problem+json"

HTTP_STATUS = {
    ErrorCode.UNKNOWN_COMMAND: 404,
    ErrorCode.BAD_ARGUMENT: 400,
    ErrorCode.BAD_CHANNEL: 400,
    ErrorCode.BAD_NAME: 400,
    ErrorCode.BAD_JSON: 400,
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
"""The status of each code, where nothing else is said."""

RETRY_AFTER_SECONDS = 5
"""Seconds after which it is worth asking again where there was no room."""


class ApiError(Exception):
    """Ends the operation that a request asks for: the request is answered with the refusal. ``status`` is for those
    whose status the code does not tell."""

    def __init__(self, error: Error, status: int | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status


def problem_details(error: Error, status: int) -> bytes:
    """The object that tells of a refusal (RFC 9457 section 3)."""
    told = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "code": error.code.decode(),
    }
    return msgspec.json.encode(told) + b"\n"


MAX_PARAMETERS = 100
"""In one query: three times the channels that one may ask for at once."""

TOKEN_PARAMETER = "token"
"""It may be in every query (RFC 6750 section 2.3), and is looked at by nobody here."""


def bad_parameter(name: str, words: str) -> ApiError:
    """To be raised: an argument is not what it must be."""
    return ApiError(Error(ErrorCode.BAD_ARGUMENT, f"{name}: {words}"))


class QueryParameters:
    """``query`` is what stands behind the ``?``. Whatever is asked raises ``ApiError`` with ``bad-argument``."""

    __slots__ = ("_values",)

    def __init__(self, query: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        pairs = query.split(b"&") if query else []
        if len(pairs) > MAX_PARAMETERS:
            raise ApiError(Error(ErrorCode.BAD_ARGUMENT, f"a query has at most {MAX_PARAMETERS} parameters"))
        for pair in pairs:
            name, _, value = pair.partition(b"=")
            if pair:
                self._values.setdefault(_decode(name, "the query"), []).append(_decode(value, _shown(name)))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def allow_only(self, names: Collection[str], repeated: Collection[str] = ()) -> None:
        """See that there are no others, and that none is there twice but those that may be ``repeated``. To be called
        first."""
        for name, values in self._values.items():
            if name == TOKEN_PARAMETER:
                continue
            if name not in names and name not in repeated:
                raise bad_parameter(name[:100], "there is no such parameter here")
            if len(values) > 1 and name not in repeated:
                raise bad_parameter(name, "it may be given once")

    def text(self, name: str) -> str | None:
        """The value; None where it is not given."""
        values = self._values.get(name)
        return values[-1] if values else None

    def texts(self, name: str) -> list[str]:
        """All values of one that may be repeated."""
        return self._values.get(name, [])

    def integer(self, name: str, most: int, least: int = 0) -> int | None:
        """A whole number; None where it is not given."""
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise bad_parameter(name, f"it must be a whole number from {least} to {most}")

    def seconds(self, name: str, most: float) -> float | None:
        """A time in seconds; None where it is not given."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text) if len(text) <= 20 and text[:1].isdigit() else math.nan
        except ValueError:
            value = math.nan
        if 0 <= value <= most:
            return value
        raise bad_parameter(name, f"it must be a number of seconds from 0 to {most:g}")

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """One of several words; None where it is not given."""
        text = self.text(name)
        if text is None or text in choices:
            return text
        raise bad_parameter(name, f"it must be {' or '.join(choices)}")


def _decode(text: bytes, where: str) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise bad_parameter(where, "it must be UTF-8, percent-encoded") from None


def _shown(name: bytes) -> str:
    return unquote_to_bytes(name[:100]).decode(errors="replace")


# TODO-MERGED-DOC: How a refusal is told over HTTP: a status, and an object of RFC 9457 with the same code as in
# every dialect.
