"""Fixtures for tests of the server, without sockets."""

import gc
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from twisted.internet.task import Clock

from tests.fakes import FakeReactor, FakeSocket, FakeTransport, autobahn_loop, connect
from tests.server.clients import LineConnection, LinePort, MakeLinePort, WebSocketClient, WebSocketPort
from tests.server.engineio_clients import EnginePort
from tests.server.http.clients import MakeWebPort, WebPort
from twistedsock.server.socketio import BrokerApplication
from twistedsock.server.web_endpoints import LINE_PROTOCOL
from twistedsock.testing import FakeServer


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def autobahn_reactor(reactor: FakeReactor) -> Iterator[FakeReactor]:
    """``reactor``, and Autobahn's timers use it too."""
    with autobahn_loop(reactor):
        yield reactor


@pytest.fixture(scope="module")
def earlier_objects() -> Iterator[None]:
    """Hide the objects of other modules from the collector, which needs a tenth of a second to visit them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_collector(earlier_objects: None) -> Iterator[None]:
    """Disable the garbage collector, and hide existing objects from ``gc.get_objects()``."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def fake_socket() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The time of Autobahn's timers."""
    clock = Clock()
    with autobahn_loop(clock):
        yield clock


@pytest.fixture
def port(server: FakeServer, clock: Clock) -> WebSocketPort:
    """A WebSocket port, to open clients on."""
    return WebSocketPort(server, clock)


@pytest.fixture
def client(port: WebSocketPort) -> WebSocketClient:
    """A WebSocket client of the line protocol, after its welcome."""
    return port.open(LINE_PROTOCOL)


@pytest.fixture
def make_lines(reactor: FakeReactor) -> MakeLinePort:
    """Build a line port: ``make_lines(server, listening=…)``."""
    return partial(LinePort, reactor)


@pytest.fixture
def lines(make_lines: MakeLinePort, server: FakeServer) -> LinePort:
    """A line port. ``lines(there=…)`` opens a connection."""
    return make_lines(server)


@pytest.fixture
def call(lines: LinePort) -> LineConnection:
    """A line connection after its welcome."""
    call = lines()
    assert call.received() == ["WELCOME sockbridge/1 id=p1 from=127.0.0.1:50000 to=127.0.0.1:8081"]
    return call


@pytest.fixture
def make_web(autobahn_reactor: FakeReactor) -> MakeWebPort:
    """Build a web port: ``make_web(server, origins=None, listening=…)``."""
    return partial(WebPort, autobahn_reactor)


@pytest.fixture
def web(make_web: MakeWebPort, server: FakeServer) -> WebPort:
    """A web port. ``web(here=…, there=…)`` opens a connection."""
    return make_web(server)


@pytest.fixture
def make_socketio(autobahn_reactor: FakeReactor) -> Callable[[FakeServer], EnginePort]:
    """Build a web port for Socket.IO clients of a server."""

    def make(server: FakeServer) -> EnginePort:
        application = BrokerApplication(server.context, autobahn_reactor)
        return EnginePort(autobahn_reactor, application, application.engine_settings, server)

    return make


@pytest.fixture
def socketio(make_socketio: Callable[[FakeServer], EnginePort], server: FakeServer) -> EnginePort:
    """A web port for Socket.IO clients."""
    return make_socketio(server)


@pytest.fixture
def wire() -> Callable[..., FakeTransport]:
    """Make a transport: ``wire(here="127.0.0.1", port=8081, there="127.0.0.1")``."""
    return connect
