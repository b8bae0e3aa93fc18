"""The connection between a worker and the hub: a Unix socket, through Twisted."""

import os
import socket
import struct
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.backplanes.hub import Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.hub_link import Link
from twistedsock.backplanes.hub_messages import ProtocolError
from twistedsock.server.twisted_internals import unsent_bytes

FIRST_RETRY_SECONDS = 0.02

MAX_RETRY_SECONDS = 1.0
"""The longest pause between two attempts to connect to the hub. The pause doubles each time."""

PROBE_SECONDS = 3.0
"""How often a worker asks the hub for a sign of life."""

_PEER = struct.Struct("3i")
"""``struct ucred`` of Linux (unix(7)): process, user and group."""


class _Stream(Protocol):
    """One end of a connection, as an outlet."""

    transport: Any

    def write(self, data: bytes) -> None:
        """Send at once what the socket accepts. Twisted would wait for the next turn, and ask the kernel twice more."""
        if not unsent_bytes(self.transport):
            try:
                data = data[self.transport.socket.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # Twisted notices it too, when it reads
        if data:
            self.transport.write(data)

    def close(self) -> None:
        self.transport.abortConnection()


@implementer(IPushProducer)
class HubProtocol(_Stream):
    """The hub's end."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._link: Link | None = None

    def connectionMade(self) -> None:
        user = user_of(self.transport.socket)
        if user not in (None, os.geteuid()):
            self._hub.report(f"connection of another user rejected: {user}")
            self.transport.abortConnection()
            return
        self._link = self._hub.connect(self)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._link is not None:
            self._link.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._link is not None:
            self._link.lost()

    def pauseProducing(self) -> None:
        if self._link is not None:
            self._link.pause()

    def resumeProducing(self) -> None:
        if self._link is not None:
            self._link.resume()

    def stopProducing(self) -> None:
        """``connectionLost`` follows."""


def user_of(connection: socket.socket) -> int | None:
    """The user of the process at the other end, None if the system does not say it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)


class HubFactory(Factory):
    """``hub`` accepts the connections of workers."""

    noisy = False

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def buildProtocol(self, address: Any) -> HubProtocol:
        return HubProtocol(self._hub)


class _WorkerProtocol(_Stream):
    """The worker's end."""

    def __init__(self, connector: "HubConnector") -> None:
        self._connector = connector

    def connectionMade(self) -> None:
        self._connector.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._connector.received(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connector.lost()


class HubConnector:
    """Connects a worker to the hub at ``path``, again and again."""

    _log = Logger()

    def __init__(self, backplane: WorkerBackplane, path: str, reactor: Any) -> None:
        self._backplane = backplane
        self._path = path
        self._reactor = reactor
        self._pause = FIRST_RETRY_SECONDS
        self._stream: _Stream | None = None
        self._retry: Any = None
        self._is_stopped = False
        self._probes = LoopingCall(backplane.probe)
        self._probes.clock = reactor

    def start(self) -> None:
        self._retry = None
        if not self._probes.running:
            self._probes.start(PROBE_SECONDS, now=False)
        factory = Factory.forProtocol(lambda: _WorkerProtocol(self))
        factory.noisy = False
        connecting = UNIXClientEndpoint(self._reactor, self._path).connect(factory)
        connecting.addErrback(lambda failure: self._try_again())

    def stop(self) -> None:
        """Close the connection when everything is written."""
        self._is_stopped = True
        if self._probes.running:
            self._probes.stop()
        if self._retry is not None:
            self._retry.cancel()
        if self._stream is not None:
            self._stream.transport.loseConnection()

    def connected(self, stream: _Stream) -> None:
        self._stream = stream
        self._backplane.connected(stream)

    def received(self, stream: _Stream, data: bytes) -> None:
        try:
            self._backplane.received(data)
        except ProtocolError as error:
            self._log.error("the hub sent something else than messages: {error}", error=error)
            stream.close()
        if self._backplane.is_connected:
            self._pause = FIRST_RETRY_SECONDS

    def lost(self) -> None:
        self._stream = None
        was_connected = self._backplane.is_connected
        self._backplane.lost()
        if was_connected and not self._is_stopped:
            self._log.warn("the connection to the hub has ended: commands fail until there is another one")
        self._try_again()

    def _try_again(self) -> None:
        if not self._is_stopped:
            self._retry = self._reactor.callLater(self._pause, self.start)
            self._pause = min(2 * self._pause, MAX_RETRY_SECONDS)
