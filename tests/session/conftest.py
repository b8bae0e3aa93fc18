"""A server and a client of the line protocol. Modules replace the server when theirs has other limits."""

import pytest

from twistedsock.testing import FakeServer, LineClient


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def peer(server: FakeServer) -> LineClient:
    """A client that has received its welcome."""
    peer = server.line_client()
    peer.received()
    return peer
