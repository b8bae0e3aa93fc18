"""TLS connections that are freed when they end, with OpenSSL's buffers: not by a full garbage collection, which hardly
ever comes here."""

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure


class FreedAtTheEnd(BufferingTLSTransport):
    """Twisted's, without what would hold it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The producer of what was written here holds us; it has been told that it is over."""
        super().connectionLost(reason)
        self.unregisterProducer()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Where a peer goes without a word, or breaks the rules, Twisted keeps the error in a variable on the stack in
        which it came up, and the error has that stack. Who is told of the error asks for its kind alone."""
        super()._tlsShutdownFinished(reason)
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
