"""The private parts of Twisted's transports and TLS that this server depends on, and what it replaces in Twisted's
objects.

Checked with Twisted 26.10. ``tests/server/test_internals.py`` fails if a later version lacks one of the names in
``INTERNALS``: then compare this module with the class in question. Three changes of public attributes stand elsewhere:
``reactor.seconds`` in ``server.reactor``, and ``factory`` of ports in ``server.proxy_protocol``.
"""

from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet import tcp, unix
from twisted.internet.address import IPv6Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import ILogObserver, Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.pubsub.subscription import SOCKET_FULL

CHECKED_TWISTED_VERSION = "26.10"

INTERNALS: dict[type, tuple[str, ...]] = {
    tcp.Server: ("_addressType", "dataBuffer", "logstr", "offset", "repstr", "_tempDataBuffer", "_tempDataLen"),
    tcp.Port: ("transport", "_logger", "_shouldShutdown"),
    unix.Port: ("_fromListeningDescriptor",),
    BufferingTLSTransport: (
        "_aborted",
        "_appSendBuffer",
        "_flushReceiveBIO",
        "_flushSendBIO",
        "_lostTLSConnection",
        "_shutdownTLS",
        "_tlsConnection",
        "_tlsShutdownFinished",
    ),
}

# Transports: their write buffers.


def unsent_bytes(transport: Any) -> int:
    """The number of bytes that a TCP or Unix transport has not passed to its socket."""
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


def write_buffer_size(transport: Any) -> int:
    """Bytes of memory in the write buffer of a TCP or Unix transport. It may include bytes that have been sent."""
    return int(len(transport.dataBuffer) + transport._tempDataLen)


def discard_write_buffer(transport: Any) -> None:
    transport.dataBuffer, transport.offset = b"", 0
    transport._tempDataBuffer, transport._tempDataLen = [], 0


_NO_BYTES: Any = ()
"""The waiting bytes of all transports that have none. A tuple, so that no bytes can be added for all of them."""


class SmallServer(tcp.Server):
    """As Twisted's, but an idle connection takes 200 bytes less. The texts for the log do not name its address; this
    server does not log them, and to write them takes 2 of the 40 microseconds for opening a connection. The list of
    bytes that wait is created when there are any."""

    def __init__(self, handle: Any, protocol: Any, client: Any, server: Any, number: int, reactor: Any) -> None:
        tcp.Connection.__init__(self, handle, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = number
        self.hostname = client[0]
        self.logstr = self.repstr = type(protocol).__name__
        self._tempDataBuffer = _NO_BYTES
        self.startReading()
        self.connected = 1

    def write(self, data: bytes) -> None:
        if self._tempDataBuffer is _NO_BYTES:
            self._tempDataBuffer = []
        super().write(data)


def unencrypted_bytes(transport: Any) -> int:
    """The number of bytes that a TLS transport keeps because its connection does not accept more; 0 for others."""
    return sum(map(len, getattr(transport, "_appSendBuffer", ())))


# Listening ports.


def connection_class(port: Any) -> type | None:
    """The class of the transports that a port creates, None if it is no port of Twisted's."""
    return getattr(port, "transport", None)


def set_connection_class(port: Any, transport_class: type) -> None:
    port.transport = transport_class


def share_port(port: Any) -> None:
    """The socket of a listening port is also that of other processes: closing it here must not end it there."""
    port._shouldShutdown = False


def adopt_unix_port(reactor: Any, number: int, factory: Any) -> "SharedUnixPort":
    """Accept the connections of a listening Unix socket that another process has opened."""
    port = SharedUnixPort._fromListeningDescriptor(reactor, number, factory)
    port.startListening()
    return port


class SharedUnixPort(unix.Port):
    """A Unix socket of another process, which sets its mode and backlog, and removes its file. Twisted's own port would
    do all of that again."""

    _preexistingSocket: Any
    _shouldShutdown = False

    def startListening(self) -> None:
        if self.factory is not None:
            self.factory.doStart()
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        tcp.Port.connectionLost(self, reason)


def redirect_log(port: Any, observer: ILogObserver) -> None:
    """Send what a port of Twisted's logs to ``observer`` only. Others are left unchanged."""
    logger = getattr(port, "_logger", None)
    if isinstance(logger, Logger):
        port._logger = Logger(logger.namespace, observer=observer)


def install_half_close_tls(port: Any) -> None:
    """Let a listening port create ``HalfCloseTLSTransport`` instead of Twisted's own TLS transport. Must be called
    before the first connection."""
    factory = getattr(port, "factory", None)
    if isinstance(factory, TLSMemoryBIOFactory) and factory.protocol is BufferingTLSTransport:
        factory.protocol = HalfCloseTLSTransport


# TLS.

MAX_BYTES_AFTER_CLOSE_NOTIFY = 64 * 1024
"""A client that continues to send is reset, because it violates the protocol and is not charged for what it sends."""


@implementer(IHalfCloseableProtocol)
class HalfCloseTLSTransport(BufferingTLSTransport):
    """A TLS transport with the half-close of TLS 1.3: a client that has sent close_notify can still read (RFC 8446
    section 6.1). In TLS 1.2 close_notify ends both directions (RFC 5246 section 7.2.1). Aborted connections end without
    close_notify.

    It also has no reference cycles after its end. OpenSSL's buffers are then freed at once, and not by a full garbage
    collection, which rarely runs."""

    _input_ended = False
    _ignored_bytes = 0

    # Provided by Twisted's class.
    _lostTLSConnection: bool
    _aborted: bool
    _tlsConnection: Any
    wrappedProtocol: Any

    def dataReceived(self, data: bytes) -> None:
        """As Twisted's, but input after close_notify is ignored (RFC 8446 section 6.1). OpenSSL would keep it."""
        if not self._input_ended:
            super().dataReceived(data)
            return
        self._ignored_bytes += len(data)
        if self._ignored_bytes > MAX_BYTES_AFTER_CLOSE_NOTIFY:
            self.abortConnection()

    def _flushReceiveBIO(self) -> None:
        """As Twisted's, with a branch for the half-close. Nothing is read after close_notify."""
        while not self._lostTLSConnection and not self._input_ended:
            try:
                data = self._tlsConnection.recv(2**15)
            except WantReadError:
                break
            except ZeroReturnError:
                if self._is_half_close():
                    self._input_ended = True
                    self.wrappedProtocol.readConnectionLost()
                else:
                    self._shutdownTLS()
                    self._tlsShutdownFinished(None)
            except Error:
                self._tlsShutdownFinished(Failure())
            else:
                if not self._aborted:
                    self.wrappedProtocol.dataReceived(data)
        self._flushSendBIO()

    def _shutdownTLS(self) -> None:
        """As Twisted's, but a producer can also be unregistered after the connection is lost."""
        if self._tlsConnection is not None:
            super()._shutdownTLS()

    def _is_half_close(self) -> bool:
        """True if the close_notify that has just been received leaves the other direction open."""
        return (
            not self.disconnecting
            and self._tlsConnection.get_protocol_version_name() == "TLSv1.3"
            and IHalfCloseableProtocol.providedBy(self.wrappedProtocol)
        )

    def abortConnection(self) -> None:
        """As Twisted's, without close_notify: a client would mistake the reset for a regular end."""
        transport: Any = self.transport
        self._aborted = self.disconnecting = True
        transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The client has ended its TCP stream. Before close_notify, that is a truncation."""
        if not self._input_ended:
            transport: Any = self.transport
            transport.connectionLost(connectionDone)

    def writeConnectionLost(self) -> None:
        """The server has ended its TCP stream."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """As Twisted's, but the producer, which refers to this transport, is unregistered."""
        super().connectionLost(reason)
        self.unregisterProducer()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """As Twisted's, with two differences. Twisted keeps an error in a variable of the stack in which it was raised,
        and the error refers to that stack; here it loses its traceback, since only its type is used.

        Unsent bytes are discarded (RFC 5246 section 7.2.1). Twisted waits until they are sent and the producer has no
        more. But a producer that is resumed after the end of TLS writes nothing, so the connection would stay open,
        neither read nor written."""
        transport: Any = self.transport
        has_unsent = getattr(transport, "blocked", 0) & SOCKET_FULL
        super()._tlsShutdownFinished(reason)
        if has_unsent:
            transport.abortConnection()
        if reason is not None:
            _drop_traceback(reason)


def _drop_traceback(failure: Failure) -> None:
    failure.tb = None
    error: BaseException | None = failure.value
    while error is not None:
        error.__traceback__ = None
        error = error.__context__
