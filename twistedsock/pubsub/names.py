"""What channels, events and nicks may be called (docs/protocol-lines.md, "Names")."""

import re
from collections.abc import Callable, Iterable

from twistedsock.errors import BAD_CHANNEL, BAD_EVENT_NAME, BAD_NICK, Error
from twistedsock.limits.cache import Cache

CHANNEL_BYTES = 200
"""Long enough for a path of identifiers, short enough that 100,000 names stay in a few megabytes."""

EVENT_NAME_BYTES = 64
"""An event name is a word, and is written out with each event."""

NICK_BYTES = 32
"""A nick is read by people, one line each."""

RESERVED = b"$sys/"
"""With this begin the channels on which the server tells of itself: clients may read them, but not publish there."""

DEFAULT_EVENT_NAME = b"message"
"""The name of an event whose publisher gave none."""

INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that cannot be seen, or change how the text around them is shown, as ranges of a regular expression: the
category Cf (soft hyphen, zero-width characters and joiners, bidirectional controls, tags), every other
Default_Ignorable_Code_Point (fillers, variation selectors) of Unicode 17, and the blank Braille pattern. Two names that
differ in these alone look the same (UTS 39 section 3.1)."""

_INVISIBLE = re.compile(f"[{INVISIBLE}]")

# \s is exactly str.isspace() here; * > # + ? are kept for patterns.
_FORBIDDEN = re.compile(rf"[\s\x00-\x1f\x7f-\x9f*>#+?{INVISIBLE}]")


def _is_name(candidate: bytes, most: int) -> bool:
    if not 0 < len(candidate) <= most:
        return False
    try:
        text = candidate.decode()
    except UnicodeDecodeError:
        return False
    return _FORBIDDEN.search(text) is None


def describe_invisible(text: str) -> str:
    """A phrase that names the first invisible character of a text by its number; empty if there is none."""
    found = _INVISIBLE.search(text)
    return f"contains the invisible character U+{ord(found[0]):04X}" if found else ""


def _explain(kind: str, candidate: bytes, general: Error) -> Error:
    """The error for a name that is not valid. An invisible character is named, because nobody can look for it."""
    fault = describe_invisible(candidate.decode(errors="replace"))
    return Error(general.code, f"invalid {kind}: {fault}") if fault else general


def is_channel(candidate: bytes) -> bool:
    """Whether a channel may be called so."""
    return _is_name(candidate, CHANNEL_BYTES)


def is_reserved(channel: bytes) -> bool:
    """Whether a channel is the server's own."""
    return channel.startswith(RESERVED)


def is_event_name(candidate: bytes) -> bool:
    """Whether an event may be called so."""
    return candidate == DEFAULT_EVENT_NAME or _is_name(candidate, EVENT_NAME_BYTES)


def is_nick(candidate: bytes) -> bool:
    """Whether a peer may call itself so; that it is nobody's id is asked elsewhere."""
    return _is_name(candidate, NICK_BYTES)


def check_channel(candidate: bytes) -> Error | None:
    """The error if a channel cannot have this name."""
    return None if is_channel(candidate) else _explain("channel name", candidate, BAD_CHANNEL)


def check_event_name(candidate: bytes) -> Error | None:
    """The error if an event cannot have this name."""
    return None if is_event_name(candidate) else _explain("event name", candidate, BAD_EVENT_NAME)


def check_nick(candidate: bytes) -> Error | None:
    """The error if a client cannot have this nick. Whether it is another client's id is not checked here."""
    return None if is_nick(candidate) else _explain("nick", candidate, BAD_NICK)


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

    def __eq__(self, other: object) -> bool:
        """Two patterns with the same text match the same channels; the cache does not always return the same object."""
        return self.text == other.text if isinstance(other, Pattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

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
        _patterns.add(text, made)
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


# TODO-MERGED-DOC: Which channels are meant: names in which ``*`` is any run of characters inside one segment,
# and ``>`` at the end is the rest. Segments end at ``.``, ``/`` or ``:``; a run and a rest may be empty.
