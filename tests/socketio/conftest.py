"""A web port with a Socket.IO application, without sockets."""

from collections.abc import Callable, Iterator

import pytest

from tests.fakes import FakeReactor, autobahn_loop
from tests.server.engineio_clients import EnginePort
from tests.socketio.clients import SocketClient
from twistedsock.socketio import SocketIO


@pytest.fixture
def reactor() -> Iterator[FakeReactor]:
    """The time of the server and of Autobahn's timers."""
    reactor = FakeReactor()
    with autobahn_loop(reactor):
        yield reactor


@pytest.fixture
def sio() -> SocketIO:
    """An application without handlers."""
    return SocketIO()


@pytest.fixture
def port(reactor: FakeReactor, sio: SocketIO) -> EnginePort:
    """A web port with the application."""
    return EnginePort(reactor, sio, sio.engine_settings)


@pytest.fixture
def connect(port: EnginePort) -> Callable[..., SocketClient]:
    """Connect a client over WebSocket: ``connect(namespace="/", auth=None)``."""

    def connect(namespace: str = "/", auth: str = "") -> SocketClient:
        client = SocketClient(port)
        client.join(namespace, auth)
        return client

    return connect
