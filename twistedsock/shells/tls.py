"""TLS connections that a client may half-close, and that are freed when they end, with OpenSSL's buffers: not by a full
garbage collection, which hardly ever comes here."""

from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.core.reader import WRITING

MAX_IGNORED_BYTES = 64 * 1024
"""After close_notify. A client that goes on sending is reset, because it breaks the protocol and is not charged for
what it sends."""


@implementer(IHalfCloseableProtocol)
class FreedAtTheEnd(BufferingTLSTransport):
    """Twisted's, without what would hold it, and with the half-close of TLS 1.3: a client that has sent close_notify
    still reads (RFC 8446 section 6.1). In TLS 1.2 close_notify ends both directions (RFC 5246 section 7.2.1). Aborted
    connections end without close_notify."""

    _input_ended = False
    _ignored = 0

    # What Twisted's class has.
    _lostTLSConnection: bool
    _aborted: bool
    _tlsConnection: Any
    wrappedProtocol: Any

    def dataReceived(self, data: bytes) -> None:
        """Twisted's, but what comes after close_notify is ignored (RFC 8446 section 6.1). OpenSSL would keep it."""
        if not self._input_ended:
            super().dataReceived(data)
            return
        self._ignored += len(data)
        if self._ignored > MAX_IGNORED_BYTES:
            self.abortConnection()

    def _flushReceiveBIO(self) -> None:
        """Twisted's, with a branch for the half-close. After close_notify nothing is read any more."""
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
        """Twisted's, but a producer can also be unregistered when the connection is gone."""
        if self._tlsConnection is not None:
            super()._shutdownTLS()

    def _is_half_close(self) -> bool:
        """Whether close_notify, which has just come, leaves the other direction open."""
        return (
            not self.disconnecting
            and self._tlsConnection.get_protocol_version_name() == "TLSv1.3"
            and IHalfCloseableProtocol.providedBy(self.wrappedProtocol)
        )

    def abortConnection(self) -> None:
        """Twisted's, without close_notify: a client takes that for the end of what it reads, and not for a reset."""
        transport: Any = self.transport
        self._aborted = self.disconnecting = True
        transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The peer has ended its TCP stream. Before its close_notify, that is a truncation."""
        if not self._input_ended:
            transport: Any = self.transport
            transport.connectionLost(connectionDone)

    def writeConnectionLost(self) -> None:
        """Our own end of the TCP stream."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The producer of what was written here holds us; it has been told that it is over."""
        super().connectionLost(reason)
        self.unregisterProducer()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Where a peer goes without a word, or breaks the rules, Twisted keeps the error in a variable on the stack in
        which it came up, and the error has that stack. Who is told of the error asks for its kind alone.

        What still waits to be sent is discarded (RFC 5246 section 7.2.1). Twisted waits until it has been sent and the
        producer has no more, but a producer that is resumed after the end of TLS writes nothing: the connection would
        stay for ever, neither read nor written."""
        transport: Any = self.transport
        waits = getattr(transport, "blocked", 0) & WRITING
        super()._tlsShutdownFinished(reason)
        if waits:
            transport.abortConnection()
        if reason is not None:
            _forget_stack(reason)


def _forget_stack(failure: Failure) -> None:
    failure.tb = None
    error: BaseException | None = failure.value
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def free_at_the_end(port: Any) -> None:
    """Let a listening port make such connections, if it makes Twisted's usual ones. Before the first connection."""
    factory = getattr(port, "factory", None)
    if isinstance(factory, TLSMemoryBIOFactory) and factory.protocol is BufferingTLSTransport:
        factory.protocol = FreedAtTheEnd
