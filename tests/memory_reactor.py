"""A reactor whose ports have no sockets, for tests of the service."""

from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport

LOOPBACK = "tcp:8081:interface=127.0.0.1"


class Port:
    """A listening port without a socket."""

    transport = tcp.Server

    def __init__(self, host: Any) -> None:
        self._host = host
        self.listening = True

    def getHost(self) -> Any:
        return self._host

    def stopListening(self) -> Deferred[None]:
        self.listening = False
        return succeed(None)


class Reactor(MemoryReactorClock):
    """A reactor without sockets. Port 0 becomes 50000. ``taken`` are ports that another program uses."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[Port] = []
        self.factories: list[Any] = []
        self.backlogs: list[int] = []
        self.taken: set[int] = set()

    def _listen(self, host: Any, factory: Any, backlog: int) -> Port:
        if getattr(host, "port", None) in self.taken:
            raise CannotListenError(host.host, host.port, OSError(98, "Address already in use"))
        self.ports.append(Port(host))
        self.factories.append(factory)
        self.backlogs.append(backlog)
        return self.ports[-1]

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if ":" in interface:
            return self._listen(IPv6Address("TCP", interface, port or 50000), factory, backlog)
        return self._listen(IPv4Address("TCP", interface or "0.0.0.0", port or 50000), factory, backlog)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return self._listen(UNIXAddress(address), factory, backlog)

    def turn(self) -> None:
        self.advance(0)


class Line(StringTransport):
    """The transport of a line connection."""

    def __init__(self) -> None:
        loopback = [IPv4Address("TCP", "127.0.0.1", port) for port in (8081, 50001)]
        super().__init__(hostAddress=loopback[0], peerAddress=loopback[1])
        self.half_closed = self.aborted = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True


def connect(reactor: Reactor, index: int = 0) -> tuple[Any, Line]:
    """Connect a line client to a port, and return protocol and transport after the welcome."""
    protocol = reactor.factories[index].buildProtocol(None)
    transport = Line()
    protocol.makeConnection(transport)
    assert transport.value().startswith(b"WELCOME ")
    transport.clear()
    return protocol, transport
