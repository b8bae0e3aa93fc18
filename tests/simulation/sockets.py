"""Connections of nodes to a simulated server, and the reactor that such a node has: virtual time, and no threads."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError, TimeoutError
from twisted.python.failure import Failure

from tests.simulation.redis_server import Process, ServerConnection
from tests.simulation.world import World


class Timer:
    """What ``callLater`` returns."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()

    def active(self) -> bool:
        return self._call is not None

    def cancel(self) -> None:
        self._call = None


class Network(Protocol):
    """The servers that a node connects to, and how long messages take."""

    def route(self, host: str) -> Process | None:
        """The process at the address, None if no packet reaches it."""

    def delay(self) -> float: ...


class Reactor:
    """Of one node. ``after_call`` is called after each call that the reactor has made."""

    def __init__(self, world: World, network: Network, after_call: Callable[[], None]) -> None:
        self.is_stopped = False
        self.connections: list[Connection] = []
        self.network = network
        self.world = world
        self._after_call = after_call

    def callLater(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Timer:
        timer = Timer(partial(call, *arguments))
        self.world.after(max(seconds, 0.0001), partial(self.run, timer.run))
        return timer

    def run(self, call: Callable[[], Any]) -> None:
        """Make a call, unless the node has been killed."""
        if not self.is_stopped:
            call()
            self._after_call()

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        connector = _Connector(IPv4Address("TCP", host, port))
        factory.doStart()
        factory.startedConnecting(connector)
        self.world.after(
            self.network.delay(), partial(self.run, partial(self._connect, connector, host, factory, timeout))
        )
        return connector

    def _connect(self, connector: "_Connector", host: str, factory: Any, timeout: float) -> None:
        server = self.network.route(host)
        if connector.is_cancelled:
            return
        if server is None:
            failed = partial(factory.clientConnectionFailed, connector, Failure(TimeoutError()))
            self.world.after(timeout, partial(self.run, failed))
        elif not server.is_running:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError(111)))
        else:
            protocol = factory.buildProtocol(None)
            connection = Connection(self, server, protocol)
            self.connections.append(connection)
            protocol.makeConnection(connection)

    def stop(self) -> None:
        """The node is killed."""
        self.is_stopped = True
        for connection in self.connections:
            connection.abandon()


class _Connector:
    is_cancelled = False

    def __init__(self, address: IPv4Address) -> None:
        self._address = address

    def getDestination(self) -> IPv4Address:
        return self._address

    def stopConnecting(self) -> None:
        self.is_cancelled = True


class Connection:
    """A connection of a node, as the transport of its protocol. Output arrives later, in the order in which it
    was written. While the connection ``is_silent``, nothing arrives any more at either end."""

    disconnecting = False

    def __init__(self, reactor: Reactor, server: Process, protocol: Any) -> None:
        self.server = server
        self.is_silent = False
        self._reactor = reactor
        self._protocol = protocol
        self._is_open = True
        self._arrivals = {True: 0.0, False: 0.0}
        self._peer: ServerConnection = server.accept(self._write_to_node, self._closed_by_server)

    # The node's end.

    def write(self, data: bytes) -> None:
        if self._is_open:
            self._send(True, partial(self.server.receive, self._peer, data))

    def loseConnection(self) -> None:
        self._close(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self._close(Failure(ConnectionLost()))

    def _close(self, reason: Failure) -> None:
        if self._is_open:
            self.abandon()
            self._reactor.callLater(0, self._protocol.connectionLost, reason)

    def abandon(self) -> None:
        """Close the node's end. Earlier output may arrive, also much later."""
        if self._is_open:
            self._is_open = False
            self._reactor.connections.remove(self) if not self._reactor.is_stopped else None
            world = self._reactor.world
            delay = world.random.choice((0.0, 0.0, 1.0, 5.0)) if world.has_faults else 0.0
            self._send(True, partial(self.server.forget, self._peer), delay)

    # The server's end.

    def _write_to_node(self, data: bytes) -> None:
        self._send(False, partial(self._arrive, data))

    def _arrive(self, data: bytes) -> None:
        if self._is_open:
            self._reactor.run(partial(self._protocol.dataReceived, data))

    def _closed_by_server(self) -> None:
        self._send(False, self._lose)

    def _lose(self) -> None:
        """The server has closed its end, or a middlebox has reset the connection."""
        if self._is_open:
            self._is_open = False
            self._reactor.connections.remove(self)
            self._reactor.run(partial(self._protocol.connectionLost, Failure(ConnectionLost())))

    # The way.

    def reset(self) -> None:
        """Both ends are closed now. Bytes on their way are lost."""
        self.is_silent = True
        self.server.forget(self._peer)
        self._lose()

    def stall(self, seconds: float) -> None:
        """All that is sent from now on arrives later, at both ends."""
        now = self._reactor.world.now
        self._arrivals = {way: max(arrival, now) + seconds for way, arrival in self._arrivals.items()}

    def _send(self, to_server: bool, call: Callable[[], None], delay: float = 0.0) -> None:
        world = self._reactor.world
        arrival = max(self._arrivals[to_server], world.now + delay + self._reactor.network.delay())
        self._arrivals[to_server] = arrival
        world.at(arrival, lambda: None if self.is_silent else call())
