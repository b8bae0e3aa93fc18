"""A connection without sockets."""

from collections.abc import Callable

import pytest


class Wire:
    """Stands for a socket: gives the chunks it is made with, takes ``room`` bytes."""

    def __init__(self, *chunks: bytes, room: int = 1 << 30) -> None:
        self.chunks = list(chunks)
        self.sent = b""
        self.room = room

    def recv(self, size: int) -> bytes:
        if not self.chunks:
            raise BlockingIOError
        return self.chunks.pop(0)

    def send(self, data: bytes) -> int:
        taken = min(len(data), self.room)
        if not taken:
            raise BlockingIOError
        self.sent += bytes(data[:taken])
        self.room -= taken
        return taken


@pytest.fixture
def wire() -> Callable[..., Wire]:
    """``wire(*chunks, room=…)``"""
    return Wire
