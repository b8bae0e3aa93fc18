"""Messages as server-sent events (HTML, "Parsing an event stream"): fields, each a line, and an empty line."""

from collections.abc import Iterable, Iterator, Sequence

from twistedsock.wire.framing import number

RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a browser comes back: soon, but not so soon that all come at once when a server starts."""

KEEP_ALIVE = b":\n\n"
"""A comment, which no client sees: it keeps proxies from taking a silent stream for a dead one."""

_TYPE = len(b'{"type":"')
_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def one_line(message: bytes) -> bytes:
    """JSON whose line breaks, which can only stand between tokens, are spaces: a line break would end the field."""
    return message.translate(_BREAKS)


def fields(message: bytes) -> bytes:
    """What a message of the JSON dialect begins with as an event: its type, but for an event itself, so that
    ``onmessage`` of a browser gets those and nothing else."""
    kind = message[_TYPE : message.index(b'"', _TYPE)]
    return b"data: " if kind == b"event" else b"event: %b\ndata: " % kind


class EventStream:
    """A framing of messages of the JSON dialect: each is the data of one event."""

    def frame(self, message: bytes) -> bytes:
        return fields(message) + one_line(message) + b"\n\n"

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [self.frame(message) for message in messages]

    def numbered(self, before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
        """The payloads are such as hold no line breaks."""
        return number(fields(before) + before, first, after, payloads, end + b"\n\n")

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        begin = fields(before) + before
        return b"".join([b"%b%d\n\n" % (begin, number) for number in range(first, first + count)])

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        begun = False
        for piece in pieces:
            yield one_line(piece) if begun else fields(piece) + one_line(piece)
            begun = True
        yield b"\n\n"
