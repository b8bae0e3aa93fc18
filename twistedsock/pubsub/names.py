"""Names of channels, events and nicks (docs/reference/line-protocol.md, "Names"), patterns of channel names, and
idempotency keys.

In a pattern, ``*`` stands for any run of characters within one segment, and ``>`` at the end for the rest of the name.
Segments end at ``.``, ``/`` or ``:``. A run and a rest may be empty.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from twistedsock.errors import BAD_CHANNEL, BAD_EVENT_NAME, BAD_NICK, Error

CHANNEL_BYTES = 200
"""Long enough for a path of identifiers, short enough that 100,000 names need only a few megabytes."""

EVENT_NAME_BYTES = 64
"""An event name is a word, and is sent with each event."""

NICK_BYTES = 32
"""People read nicks, one on a line."""

RESERVED = b"$sys/"
"""The prefix of the channels on which the server publishes its own state. Only the server can publish there."""

DEFAULT_EVENT_NAME = b"message"
"""The name of an event for which the publisher gave none."""

INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that are invisible, or change how the text around them is shown, as ranges of a regular expression: the
category Cf (soft hyphen, zero-width characters and joiners, bidirectional controls, tags), all other
Default_Ignorable_Code_Point characters (fillers, variation selectors) of Unicode 17, and the blank Braille pattern. Two
names that differ in these alone look the same (UTS 39 section 3.1)."""

_IDEMPOTENCY_KEY = re.compile(rb"[ -~]{1,200}")
"""The longest keys that clients make are a UUID behind the name of what they publish."""

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
    """A phrase that names the first invisible character of a text by its number, or an empty string."""
    found = _INVISIBLE.search(text)
    return f"contains the invisible character U+{ord(found[0]):04X}" if found else ""


def _explain(kind: str, candidate: bytes, general: Error) -> Error:
    """The error for a name that is not valid. An invisible character is named by its number."""
    fault = describe_invisible(candidate.decode(errors="replace"))
    return Error(general.code, f"invalid {kind}: {fault}") if fault else general


def is_channel(candidate: bytes) -> bool:
    """Whether this is a valid channel name."""
    return _is_name(candidate, CHANNEL_BYTES)


def is_reserved(channel: bytes) -> bool:
    """Whether a channel is the server's own."""
    return channel.startswith(RESERVED)


def is_idempotency_key(candidate: bytes) -> bool:
    """Whether this is a valid idempotency key: 1 to 200 printable ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(candidate) is not None


def is_event_name(candidate: bytes) -> bool:
    """Whether this is a valid event name."""
    return candidate == DEFAULT_EVENT_NAME or _is_name(candidate, EVENT_NAME_BYTES)


def is_nick(candidate: bytes) -> bool:
    """Whether this is a valid nick, unless it is the id of another client."""
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
    """A pattern of channel names. An invalid one raises ValueError with a message for people. ``matches`` takes time in
    proportion to the length of pattern and channel. A pattern with stars is compiled when it is first used, which takes
    about 0.1 ms."""

    __slots__ = ("_is_match", "fixed", "has_rest", "has_stars", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        name = text.removesuffix(">")
        # A pattern without its special characters must be a valid name.
        sample = name.replace("*", "x") or text.replace(">", "x")
        if not is_channel(sample.encode(errors="replace")):
            fault = describe_invisible(text)
            raise ValueError(
                f"invalid pattern {ascii(text[:64])}: {fault}"
                if fault
                else f"invalid pattern {text[:64]!r}: must be a channel name, with * for a run and > for the rest"
            )
        self.fixed = name.encode()
        """The pattern without ``>``. Unless it ``has_stars``, this is a channel name, or the start of one if it
        ``has_rest``."""
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


K = TypeVar("K", bound=Hashable)

V = TypeVar("V")

ADMITTED_ONE_IN = 8
"""When the cache is full, one new value in this many replaces the oldest one; the rest are not added."""


class Cache(dict[K, V]):
    """At most ``limit`` values: look one up with ``get``, and ``add`` it if it was missing.

    A cache that admits every value, such as an LRU cache, misses each time if one key more than it holds is used in
    turn. This one misses little more often than it has to, and adapts to other keys more slowly.
    """

    __slots__ = ("_limit", "_refused")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._refused = 0

    def add(self, key: K, value: V) -> None:
        """Add a value for a key that has none, unless there is no room for it."""
        if len(self) >= self._limit:
            if self._refused < ADMITTED_ONE_IN - 1:
                self._refused += 1
                return
            self._refused = 0
            del self[next(iter(self))]
        self[key] = value


MAX_CACHED_PATTERNS = 4096
"""Patterns that are shared by the tokens that contain them: those of forty tokens with the maximum of patterns. A
compiled pattern takes about 2 KiB."""

_patterns = Cache[str, Pattern](MAX_CACHED_PATTERNS)


def pattern(text: str) -> Pattern:
    """Like ``Pattern``, but patterns that many tokens contain are made once."""
    made = _patterns.get(text)
    if made is None:
        made = Pattern(text)
        _patterns.add(text, made)
    return made


GROUP_BYTES = 256
"""Bytes of patterns that are compiled together. This takes about a time slice: 2 to 5 ms were measured."""


class AnyOf:
    """Selects the channels that match any of several patterns, in less than a tenth of the time that it takes to try
    each pattern. Call ``compile_some`` before, until it returns True."""

    __slots__ = ("_channels", "_groups", "_prefixes", "_waiting", "stars")

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        several = list(patterns)
        plain = [one for one in several if not one.has_stars]
        self._channels = frozenset(one.fixed for one in plain if not one.has_rest)
        self._prefixes = tuple(one.fixed for one in plain if one.has_rest)
        self._waiting = [one for one in several if one.has_stars]
        self._groups: list[Callable[[bytes], object]] = []
        self.stars = len(self._waiting)
        """The number of patterns with stars. Only these take time."""

    def compile_some(self) -> bool:
        """Compile some of the patterns. Returns whether all are compiled."""
        expressions, size = list[bytes](), 0
        while self._waiting and size < GROUP_BYTES:
            one = self._waiting.pop()
            size += len(one.fixed)
            expressions.append(b"(?:" + one.expression + b")")
        if expressions:
            self._groups.append(re.compile(b"|".join(expressions), re.DOTALL).fullmatch)
        return not self._waiting

    def select(self, channels: list[bytes]) -> list[bytes]:
        known, prefixes, groups = self._channels, self._prefixes, self._groups
        return [
            channel
            for channel in channels
            if channel in known or channel.startswith(prefixes) or any([match(channel) for match in groups])
        ]


def _expression(name: bytes, rest: bool) -> bytes:
    """The atomic groups keep their first match: without them, many stars would take exponential time. They miss
    nothing, because the leftmost match leaves most room for what follows."""
    segments = re.split(rb"([./:])", name)
    last = len(segments) - 1
    parts = []
    for index, segment in enumerate(segments):
        head, *others = segment.split(b"*")
        parts.append(re.escape(head))
        if others:
            *middle, tail = others
            parts += [b"(?>" + _RUN + b"?" + re.escape(piece) + b")" for piece in middle if piece]
            # Before a rest at the end, the first place of the tail is as good as any other.
            lazy = rest and index == last
            parts.append(b"(?>" + _RUN + b"?" + re.escape(tail) + b")" if lazy else _RUN + re.escape(tail))
    return b"".join(parts) + (b".*" if rest else b"")
