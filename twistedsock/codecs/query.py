"""Query parameters of HTTP requests, and pages of lists. Unknown, repeated and malformed parameters are rejected by
name."""

import math
import re
from collections.abc import Callable, Collection, Iterable
from heapq import nsmallest
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import msgspec

from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.times import EXPECTED_BOUND, parse_bound
from twistedsock.errors import Error, ErrorCode
from twistedsock.session.history_query import Bound

MAX_PARAMETERS = 100
"""In one query: three times as many as a stream can have channels."""

TOKEN_PARAMETER = "token"
"""Allowed in every query (RFC 6750 section 2.3); read with the other credentials."""

_OFFSET_FROM_UTC = re.compile(r" ([0-9]{2}:[0-9]{2})$")

T = TypeVar("T")


def bad_parameter(name: str, words: str) -> ApiError:
    """The exception to raise if a parameter is not valid."""
    return ApiError(Error(ErrorCode.BAD_ARGUMENT, f"{name}: {words}"))


class QueryParameters:
    """``query`` is the part of the URL after the ``?``. All methods raise ``ApiError`` with ``bad-argument``."""

    __slots__ = ("_values",)

    def __init__(self, query: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        pairs = query.split(b"&") if query else []
        if len(pairs) > MAX_PARAMETERS:
            raise ApiError(
                Error(ErrorCode.BAD_ARGUMENT, f"too many query parameters: at most {MAX_PARAMETERS} are allowed")
            )
        for pair in pairs:
            name, _, value = pair.partition(b"=")
            if pair:
                self._values.setdefault(_decode(name, "the query"), []).append(_decode(value, _shown(name)))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def allow_only(self, names: Collection[str], repeated: Collection[str] = ()) -> None:
        """Reject all parameters but these. Only those in ``repeated`` can occur more than once. Call this first."""
        for name, values in self._values.items():
            if name == TOKEN_PARAMETER:
                continue
            if name not in names and name not in repeated:
                raise bad_parameter(name[:100], "unknown parameter")
            if len(values) > 1 and name not in repeated:
                raise bad_parameter(name, "given more than once")

    def text(self, name: str) -> str | None:
        """The value, None if it is not given."""
        values = self._values.get(name)
        return values[-1] if values else None

    def texts(self, name: str) -> list[str]:
        """All values of a parameter that can be repeated."""
        return self._values.get(name, [])

    def integer(self, name: str, most: int, least: int = 0) -> int | None:
        """A whole number, None if it is not given."""
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise bad_parameter(name, f"expected a whole number from {least} to {most}")

    def bound(self, name: str) -> Bound | None:
        """An offset or a time, None if it is not given."""
        text = self.text(name)
        if text is None:
            return None
        # A plus sign in a query means a space, but most people write one in a time.
        bound = parse_bound(_OFFSET_FROM_UTC.sub(r"+\1", text))
        if bound is None:
            raise bad_parameter(name, f"invalid value {text[:32]!r}: {EXPECTED_BOUND}")
        return bound

    def seconds(self, name: str, most: float) -> float | None:
        """A time in seconds, None if it is not given."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text) if len(text) <= 20 and text[:1].isdigit() else math.nan
        except ValueError:
            value = math.nan
        if 0 <= value <= most:
            return value
        raise bad_parameter(name, f"expected a number of seconds from 0 to {most:g}")

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """One of several words, None if it is not given."""
        text = self.text(name)
        if text is None or text in choices:
            return text
        raise bad_parameter(name, f"expected {' or '.join(choices)}")


def _decode(text: bytes, where: str) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise bad_parameter(where, "expected UTF-8, percent-encoded") from None


def _shown(name: bytes) -> str:
    return unquote_to_bytes(name[:100]).decode(errors="replace")


DEFAULT_PAGE_SIZE = 100

MAX_PAGE_SIZE = 1_000
"""Entries of a list: some hundred KiB, which are written at once."""

PAGINATION_PARAMETERS = ("after", "limit")


class Pagination(msgspec.Struct, frozen=True):
    """A page of a list that is sorted by name: at most ``limit`` entries behind ``after``."""

    after: bytes
    limit: int

    def page(self, entries: Iterable[T], name: Callable[[T], bytes]) -> tuple[list[T], bytes | None]:
        """The entries of the page, and ``after`` of the next page, None for the last one."""
        found = nsmallest(self.limit + 1, [entry for entry in entries if name(entry) > self.after], key=name)
        return found[: self.limit], name(found[self.limit - 1]) if len(found) > self.limit else None


def read_pagination(parameters: QueryParameters) -> Pagination:
    """Raises ``ApiError`` if a parameter is invalid."""
    after = (parameters.text("after") or "").encode()
    return Pagination(after, parameters.integer("limit", MAX_PAGE_SIZE, least=1) or DEFAULT_PAGE_SIZE)
