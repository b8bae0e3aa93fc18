"""How one message is told from the next: by a line end, or by a WebSocket frame."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from twistedsock.codecs.websocket import text_fragment, text_frame, text_head

_LAST_DIGITS = [b"%03d" % number for number in range(1000)]


def decimal_runs(first: int, count: int) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """The numbers from ``first`` on as (what they begin with, what each ends with), a thousand at most at a time: most
    of a row of numbers begins alike, and the ends are always the same. All of one time have the same length."""
    end = first + count
    for most in (10, 100, 1000):
        if first < min(most, end):
            numbers = range(first, min(most, end))
            yield b"", [b"%d" % number for number in numbers]
            first = numbers.stop
    while first < end:
        thousands, last = divmod(first, 1000)
        ends = _LAST_DIGITS[last : last + end - first]
        yield b"%d" % thousands, ends
        first += len(ends)


class Framing(Protocol):
    def frame(self, message: bytes) -> bytes: ...

    def frames(self, messages: list[bytes]) -> list[bytes]: ...

    def numbered(self, before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
        """Messages in a row, joined: ``before``, a number that counts up from ``first``, ``after``, the payload,
        ``end``. This is the hot path under fire: one formatting for a thousand of them costs a fourth of a thousand."""

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        """As ``numbered``, with nothing behind the number."""

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """One message that comes in pieces."""


def _literal(text: bytes) -> bytes:
    """A text as part of a template."""
    return text.replace(b"%", b"%%")


def join_numbered(before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
    """As ``Framing.numbered``, for what is framed by its own beginning and end."""
    rows: list[bytes] = []
    position = 0
    for begin, ends in decimal_runs(first, len(payloads)):
        template = b"%b%b%%b%b%%b%b" % (_literal(before), begin, _literal(after), _literal(end))
        values = [b""] * (2 * len(ends))
        values[::2] = ends
        values[1::2] = payloads[position : position + len(ends)]
        rows.append(template * len(ends) % tuple(values))
        position += len(ends)
    return b"".join(rows)


def join_twice_numbered(
    before: bytes, first: int, between: bytes, after: bytes, payloads: Sequence[bytes], end: bytes
) -> bytes:
    """As ``join_numbered``, with the number in each message twice."""
    rows: list[bytes] = []
    position = 0
    for begin, ends in decimal_runs(first, len(payloads)):
        opening, middle = _literal(before) + begin, _literal(between) + begin
        template = b"%b%%b%b%%b%b%%b%b" % (opening, middle, _literal(after), _literal(end))
        values = [b""] * (3 * len(ends))
        values[::3] = values[1::3] = ends
        values[2::3] = payloads[position : position + len(ends)]
        rows.append(template * len(ends) % tuple(values))
        position += len(ends)
    return b"".join(rows)


class Newline:
    """A message is a line."""

    def frame(self, message: bytes) -> bytes:
        return message + b"\n"

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [message + b"\n" for message in messages]

    def numbered(self, before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
        return join_numbered(before, first, after, payloads, end + b"\n")

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        rows: list[bytes] = []
        for begin, ends in decimal_runs(first, count):
            begin = before + begin
            rows += (begin, (b"\n" + begin).join(ends), b"\n")
        return b"".join(rows)

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        yield b"\n"


class TextMessage:
    """A message is a WebSocket text message (RFC 6455 section 5.6), unmasked as a server's are."""

    def frame(self, message: bytes) -> bytes:
        return text_frame(message)

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [text_frame(message) for message in messages]

    def numbered(self, before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
        rows: list[bytes] = []
        position = 0
        for begin, ends in decimal_runs(first, len(payloads)):
            part = payloads[position : position + len(ends)]
            position += len(ends)
            fixed = len(before) + len(begin) + len(ends[0]) + len(after) + len(end)
            sizes = list(map(len, part))
            template = b"%b%b%%b%b%%b%b" % (_literal(before), begin, _literal(after), _literal(end))
            if sizes.count(sizes[0]) == len(sizes):  # a sensor's values seldom differ in length
                template = _literal(text_head(fixed + sizes[0])) + template
                values = [b""] * (2 * len(ends))
                values[::2] = ends
                values[1::2] = part
            else:
                template = b"%b" + template
                values = [b""] * (3 * len(ends))
                values[::3] = [text_head(fixed + size) for size in sizes]
                values[1::3] = ends
                values[2::3] = part
            rows.append(template * len(ends) % tuple(values))
        return b"".join(rows)

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        rows: list[bytes] = []
        for begin, ends in decimal_runs(first, count):
            begin = text_head(len(before) + len(begin) + len(ends[0])) + before + begin
            rows += (begin, begin.join(ends))
        return b"".join(rows)

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        first = True
        waiting: bytes | None = None
        for piece in pieces:
            if waiting is not None:
                yield text_fragment(waiting, first, last=False)
                first = False
            waiting = piece
        yield text_fragment(waiting or b"", first, last=True)


# TODO-MERGED-DOC: Numbers in a row as digits, faster than one by one.
