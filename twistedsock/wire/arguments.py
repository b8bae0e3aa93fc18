"""The query of a request for HTTP, read with suspicion: what is unknown, repeated or malformed is refused by name."""

import math
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from twistedsock.core.errors import Code, Refusal
from twistedsock.wire.problems import Refused

MOST_ARGUMENTS = 100
"""In one query: three times the channels that one may ask for at once."""

TOKEN = "token"
"""It may be in every query (RFC 6750 section 2.3), and is looked at by nobody here."""


def wrong(name: str, words: str) -> Refused:
    """To be raised: an argument is not what it must be."""
    return Refused(Refusal(Code.BAD_ARGUMENT, f"{name}: {words}"))


class Arguments:
    """``query`` is what stands behind the ``?``. Whatever is asked raises ``Refused`` with ``bad-argument``."""

    __slots__ = ("_values",)

    def __init__(self, query: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        pairs = query.split(b"&") if query else []
        if len(pairs) > MOST_ARGUMENTS:
            raise Refused(Refusal(Code.BAD_ARGUMENT, f"a query has at most {MOST_ARGUMENTS} parameters"))
        for pair in pairs:
            name, _, value = pair.partition(b"=")
            if pair:
                self._values.setdefault(_decode(name, "the query"), []).append(_decode(value, _shown(name)))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def only(self, names: Collection[str], repeated: Collection[str] = ()) -> None:
        """See that there are no others, and that none is there twice but those that may be ``repeated``. To be called
        first."""
        for name, values in self._values.items():
            if name == TOKEN:
                continue
            if name not in names and name not in repeated:
                raise wrong(name[:100], "there is no such parameter here")
            if len(values) > 1 and name not in repeated:
                raise wrong(name, "it may be given once")

    def text(self, name: str) -> str | None:
        """The value; None where it is not given."""
        values = self._values.get(name)
        return values[-1] if values else None

    def texts(self, name: str) -> list[str]:
        """All values of one that may be repeated."""
        return self._values.get(name, [])

    def whole(self, name: str, most: int, least: int = 0) -> int | None:
        """A whole number; None where it is not given."""
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise wrong(name, f"it must be a whole number from {least} to {most}")

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
        raise wrong(name, f"it must be a number of seconds from 0 to {most:g}")

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        """One of several words; None where it is not given."""
        text = self.text(name)
        if text is None or text in choices:
            return text
        raise wrong(name, f"it must be {' or '.join(choices)}")


def _decode(text: bytes, where: str) -> str:
    try:
        return unquote_to_bytes(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise wrong(where, "it must be UTF-8, percent-encoded") from None


def _shown(name: bytes) -> str:
    return unquote_to_bytes(name[:100]).decode(errors="replace")
