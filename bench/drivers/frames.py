"""WebSocket messages of bytes; those of text are in twistedsock.bench.wires."""

from twistedsock.bench.wires import client_frame, server_frame

BINARY = b"\x82"
"""The first byte of a whole binary message (RFC 6455, section 5.2)."""


def binary_client_frame(message: bytes) -> bytes:
    """A binary message as a client sends it, masked with zeros."""
    return BINARY + client_frame(message)[1:]


def binary_server_frame(message: bytes) -> bytes:
    """A binary message as a server sends it."""
    return BINARY + server_frame(message)[1:]
