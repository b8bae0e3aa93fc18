"""Which channels are meant: names in which ``*`` is any run of characters inside one segment, and ``>`` at the end is
the rest. Segments end at ``.``, ``/`` or ``:``; a run and a rest may be empty."""

import re
from collections.abc import Callable
from functools import lru_cache

from twistedsock.core.names import describe_invisible, is_channel

_RUN = rb"[^./:]*"


class Pattern:
    """``matches`` takes time in proportion to the length of pattern and channel, whatever they are. What is no pattern
    raises ValueError with a sentence for people."""

    __slots__ = ("_is_match", "text")

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
        fixed = name.encode()
        self._is_match: Callable[[bytes], object]
        if "*" in name:
            self._is_match = re.compile(_expression(fixed, rest=name != text), re.DOTALL).fullmatch
        elif name != text:
            self._is_match = lambda channel: channel.startswith(fixed) or None
        else:
            self._is_match = lambda channel: channel == fixed or None

    def matches(self, channel: bytes) -> bool:
        return self._is_match(channel) is not None


@lru_cache(1024)
def pattern(text: str) -> Pattern:
    """As ``Pattern``; those that many tokens name are made once."""
    return Pattern(text)


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
