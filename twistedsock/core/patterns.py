"""Which channels are meant: names in which ``*`` is any run of characters inside one segment, and ``>`` at the end is
the rest. Segments end at ``.``, ``/`` or ``:``; a run and a rest may be empty."""

import re
from collections.abc import Callable, Iterable

from twistedsock.core.cache import Cache
from twistedsock.core.names import describe_invisible, is_channel

_RUN = rb"[^./:]*"


class Pattern:
    """``matches`` takes time in proportion to the length of pattern and channel, whatever they are. What is no pattern
    raises ValueError with a sentence for people. A pattern with stars is compiled when it is first used, which takes
    about 0.1 ms."""

    __slots__ = ("_is_match", "fixed", "has_rest", "has_stars", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        name = text.removesuffix(">")
        # A channel's name, but for the signs that are kept for this.
        sample = name.replace("*", "x") or text.replace(">", "x")
        if not is_channel(sample.encode(errors="replace")):
            fault = describe_invisible(text)
            raise ValueError(
                f"{ascii(text[:64])} is no pattern: it {fault}"
                if fault
                else f"{text[:64]!r} is no pattern: a channel's name, with * for a run and > for the rest"
            )
        self.fixed = name.encode()
        """What stands before the rest: a channel, or the beginning of one if it ``has_rest``, unless it
        ``has_stars``."""
        self.has_rest = name != text
        self.has_stars = "*" in name
        self._is_match: Callable[[bytes], object] | None = None

    def matches(self, channel: bytes) -> bool:
        if self.has_stars:
            if self._is_match is None:
                self._is_match = re.compile(self.expression, re.DOTALL).fullmatch
            return self._is_match(channel) is not None
        return channel.startswith(self.fixed) if self.has_rest else channel == self.fixed

    @property
    def expression(self) -> bytes:
        """The regular expression of a pattern with stars."""
        return _expression(self.fixed, self.has_rest)


MAX_CACHED_PATTERNS = 4096
"""Patterns that tokens name and that are made once: those of forty tokens with as many as there may be in one. About
2 KiB each when they are compiled."""

_patterns = Cache[str, Pattern](MAX_CACHED_PATTERNS)


def pattern(text: str) -> Pattern:
    """As ``Pattern``; those that many tokens name are made once."""
    made = _patterns.get(text)
    if made is None:
        made = Pattern(text)
        _patterns.keep(text, made)
    return made


GROUP_BYTES = 256
"""Bytes of patterns that are compiled together, so that it takes no more than about a time slice: 2 to 5 ms were
measured."""


class AnyOf:
    """Whether a channel matches any of several patterns. To look through many channels this takes less than a tenth of
    the time that trying each pattern takes. ``compile_some`` has to be called before, until it returns True: that takes
    as long as hundreds of channels do."""

    __slots__ = ("_channels", "_groups", "_prefixes", "_waiting", "stars")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        several = list(patterns)
        plain = [one for one in several if not one.has_stars]
        self._channels = frozenset(one.fixed for one in plain if not one.has_rest)
        self._prefixes = tuple(one.fixed for one in plain if one.has_rest)
        self._waiting = [one for one in several if one.has_stars]
        self._groups: list[Callable[[bytes], object]] = []
        self.stars = len(self._waiting)
        """How many patterns have stars; the others take no time."""

    def compile_some(self) -> bool:
        """Compile some of the patterns; whether that was all."""
        expressions, size = list[bytes](), 0
        while self._waiting and size < GROUP_BYTES:
            one = self._waiting.pop()
            size += len(one.fixed)
            expressions.append(b"(?:" + one.expression + b")")
        if expressions:
            self._groups.append(re.compile(b"|".join(expressions), re.DOTALL).fullmatch)
        return not self._waiting

    def select(self, channels: list[bytes]) -> list[bytes]:
        """Those that match."""
        known, prefixes, groups = self._channels, self._prefixes, self._groups
        return [
            channel
            for channel in channels
            if channel in known or channel.startswith(prefixes) or any([match(channel) for match in groups])
        ]


def _expression(name: bytes, rest: bool) -> bytes:
    """The atomic groups keep what they found first: without them many stars would take exponential time, and nothing
    is missed, as the leftmost place leaves most room for what follows."""
    segments = re.split(rb"([./:])", name)
    last = len(segments) - 1
    parts = []
    for index, segment in enumerate(segments):
        head, *others = segment.split(b"*")
        parts.append(re.escape(head))
        if others:
            *middle, tail = others
            parts += [b"(?>" + _RUN + b"?" + re.escape(piece) + b")" for piece in middle if piece]
            # At the very end before a rest, any place will do for the tail: the first one.
            lazy = rest and index == last
            parts.append(b"(?>" + _RUN + b"?" + re.escape(tail) + b")" if lazy else _RUN + re.escape(tail))
    return b"".join(parts) + (b".*" if rest else b"")
