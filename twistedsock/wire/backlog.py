"""Messages that wait to be run, in little more memory than they have bytes."""

from array import array
from collections import deque
from collections.abc import Sequence

from twistedsock.core.commands import Command, Publish

Message = bytes | Command

PART = 1_000
"""Messages that are taken at a time; and so many at most wait one by one, each with the 60 bytes or so that an object
takes beside its own. One read can bring 20,000 of two bytes."""

EACH = 64
"""Bytes of memory that a message, or a payload, takes beside its own; see above."""

_Joined = tuple[bytes, "array[int]"]
"""Messages in a row, and the length of each."""


class Backlog:
    """First in, first out. It is true while anything waits."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: deque[list[Message] | _Joined] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return sum(map(_size_of, self._parts))

    def extend(self, messages: Sequence[Message]) -> None:
        """Let these wait behind all others."""
        last = self._parts[-1] if self._parts else None
        if isinstance(last, list) and len(last) + len(messages) <= PART:
            last.extend(messages)
        else:
            self._parts.extend(_parts_of(messages))

    def put_back(self, messages: Sequence[Message]) -> None:
        """Let these wait before all others."""
        self._parts.extendleft(reversed(_parts_of(messages)))

    def take(self) -> list[Message]:
        """The next messages; none if nothing waits."""
        if not self._parts:
            return []
        part = self._parts.popleft()
        if isinstance(part, list):
            return part
        joined, sizes = part
        messages: list[Message] = []
        position = 0
        for size in sizes:
            messages.append(joined[position : position + size])
            position += size
        return messages


def _parts_of(messages: Sequence[Message]) -> list[list[Message] | _Joined]:
    if len(messages) <= PART:
        return [list(messages)] if messages else []
    return [_join(messages[start : start + PART]) for start in range(0, len(messages), PART)]


def _join(messages: Sequence[Message]) -> list[Message] | _Joined:
    texts = [message for message in messages if isinstance(message, bytes)]
    if len(texts) != len(messages):
        return list(messages)
    return b"".join(texts), array("I", map(len, texts))


def _size_of(part: list[Message] | _Joined) -> int:
    if isinstance(part, list):
        return sum(EACH + (len(message) if isinstance(message, bytes) else _carried(message)) for message in part)
    joined, sizes = part
    return len(joined) + sizes.itemsize * len(sizes)


def _carried(command: Command) -> int:
    return command.content.size + EACH * len(command.content) if isinstance(command, Publish) else 0
