"""How one message is told from the next: by a line end, or by a WebSocket frame."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from twistedsock.wire.frames import text_fragment, text_frame


class Framing(Protocol):
    def frame(self, message: bytes) -> bytes: ...

    def frames(self, messages: list[bytes]) -> list[bytes]: ...

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """One message that comes in pieces."""


class Newline:
    """A message is a line."""

    def frame(self, message: bytes) -> bytes:
        return message + b"\n"

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [message + b"\n" for message in messages]

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        yield from pieces
        yield b"\n"


class TextMessage:
    """A message is a WebSocket text message (RFC 6455 section 5.6), unmasked as a server's are."""

    def frame(self, message: bytes) -> bytes:
        return text_frame(message)

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [text_frame(message) for message in messages]

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        first = True
        waiting: bytes | None = None
        for piece in pieces:
            if waiting is not None:
                yield text_fragment(waiting, first, last=False)
                first = False
            waiting = piece
        yield text_fragment(waiting or b"", first, last=True)
