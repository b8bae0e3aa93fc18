"""Framing of messages: line ends and WebSocket frames; ``codecs.sse`` has the one for server-sent events.

Events in a row differ only in offset and payload, so thousands are formatted with one template."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from twistedsock.codecs.payload import json_to_line
from twistedsock.codecs.websocket import text_fragment, text_frame, text_head
from twistedsock.pubsub.future import Future
from twistedsock.session.encoder import Piece
from twistedsock.speedups import compiled

_LAST_DIGITS = [b"%03d" % number for number in range(1000)]


def decimal_runs(first: int, count: int) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """The decimal numbers from ``first`` on, in runs of at most a thousand with the same length: the digits that they
    have in common, and the last digits of each. The last digits are always the same, so they are formatted once."""
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
        """One message for each payload, joined: ``before``, a number that counts up from ``first``, ``after``, the
        payload, ``end``. Formatting a thousand of them at once costs a quarter of formatting each."""

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        """Like ``numbered``, with nothing after the number."""

    def fragments(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The frames of one message, each as soon as its piece is there. Futures are left as they are."""


def _literal(text: bytes) -> bytes:
    """A text as a part of a % template."""
    return text.replace(b"%", b"%%")


@compiled
def join_numbered(before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
    """Like ``Framing.numbered``, for messages whose frame is part of ``before`` and ``end``."""
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
    """Like ``join_numbered``, with the number twice in each message."""
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
    """Each message is a line."""

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

    def fragments(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        yield from pieces
        yield b"\n"


class JsonLine(Newline):
    """Each JSON message is a line. Its payloads can contain line breaks, and the line can be shown on a terminal."""

    def frame(self, message: bytes) -> bytes:
        return json_to_line(message) + b"\n"

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [json_to_line(message) + b"\n" for message in messages]

    def fragments(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            yield piece if isinstance(piece, Future) else json_to_line(piece)
        yield b"\n"


def _text_rows(texts: Sequence[bytes], columns: Sequence[Sequence[bytes]], payloads: Sequence[bytes]) -> bytes:
    """A WebSocket text message for each row of the columns: its values with the texts before, between and after them.
    ``payloads`` is one of the columns; in each of the others all values have the same length."""
    count, sizes = len(payloads), list(map(len, payloads))
    fixed = len(b"".join(texts)) + sum([len(column[0]) for column in columns]) - sizes[0]
    template = b"%b".join(map(_literal, texts))
    if sizes.count(sizes[0]) == count:  # common: the values of a sensor
        template = _literal(text_head(fixed + sizes[0])) + template
    else:
        template, columns = b"%b" + template, ([text_head(fixed + size) for size in sizes], *columns)
    values = [b""] * (len(columns) * count)
    for number, column in enumerate(columns):
        values[number :: len(columns)] = column
    return template * count % tuple(values)


@compiled
def join_numbered_frames(before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
    """Like ``join_numbered``, with each message in a text frame."""
    rows: list[bytes] = []
    position = 0
    for begin, ends in decimal_runs(first, len(payloads)):
        part = payloads[position : position + len(ends)]
        position += len(ends)
        rows.append(_text_rows((before + begin, after, end), (ends, part), part))
    return b"".join(rows)


class TextMessage:
    """Each message is a WebSocket text message (RFC 6455 section 5.6), unmasked because servers do not mask."""

    frame = staticmethod(text_frame)

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [text_frame(message) for message in messages]

    numbered = staticmethod(join_numbered_frames)

    def numbered_behind(
        self, before: bytes, payloads: Sequence[bytes], between: Sequence[bytes], first: int, end: bytes
    ) -> bytes:
        """Like ``numbered``, with the number behind the payload: once after each text of ``between``."""
        if len(payloads) == 1:
            number = b"%d" % first
            return text_frame(b"".join((before, payloads[0], number.join(between), number, end)))
        rows: list[bytes] = []
        position = 0
        for begin, ends in decimal_runs(first, len(payloads)):
            part = payloads[position : position + len(ends)]
            position += len(ends)
            texts = (before, *[text + begin for text in between], end)
            rows.append(_text_rows(texts, (part, *[ends] * len(between)), part))
        return b"".join(rows)

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        rows: list[bytes] = []
        for begin, ends in decimal_runs(first, count):
            begin = text_head(len(before) + len(begin) + len(ends[0])) + before + begin
            rows += (begin, begin.join(ends))
        return b"".join(rows)

    def fragments(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        first = True
        waiting: bytes | None = None
        for piece in pieces:
            if isinstance(piece, Future):
                yield piece
                continue
            if waiting is not None:
                yield text_fragment(waiting, first, last=False)
                first = False
            waiting = piece
        yield text_fragment(waiting or b"", first, last=True)
