"""A long response, sent as fast as its client reads it, in turns with the work for other clients."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twistedsock.pubsub.future import Future
from twistedsock.server.connection import log_exception
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Piece

WRITE_TIMEOUT_SECONDS = 60
"""Time without progress after which a long response is aborted: as long as a connection can be silent."""


class StreamedRequest(Protocol):
    """The interface of a request for its response."""

    channel: Any
    chunked: Any
    on_disconnect: Callable[[], object] | None

    @property
    def connection(self) -> Any: ...
    @property
    def context(self) -> ServerContext: ...
    def registerProducer(self, producer: Any, streaming: bool) -> Any: ...
    def unregisterProducer(self) -> Any: ...
    def finish(self) -> Any: ...


@implementer(IPushProducer)
class StreamingResponse:
    """The body of a long response, after its head. Writes a piece a turn while the socket accepts data. If it is
    aborted, the client notices, because the end is missing."""

    def __init__(self, request: StreamedRequest, pieces: Iterator[Piece], is_allowed: Callable[[], bool]) -> None:
        self._request = request
        self._pieces = pieces
        self._is_allowed = is_allowed
        self._is_paused = self._is_over = False

    def start(self) -> None:
        request = self._request
        request.on_disconnect = self.stopProducing
        request.registerProducer(self, True)
        request.connection.setTimeout(WRITE_TIMEOUT_SECONDS)
        self._write_next()

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._schedule()

    def pauseProducing(self) -> None:
        self._is_paused = True

    def stopProducing(self) -> None:
        """Called when the client has disconnected or has not read for too long."""
        self._is_over = True
        self._pieces = iter(())  # they can hold memory, and this object is in a reference cycle

    def _schedule(self) -> None:
        self._request.context.broker.scheduler.defer(self._write_next)

    def _write_next(self) -> None:
        if self._is_over or self._is_paused:
            return
        request = self._request
        if not self._is_allowed():
            request.connection.abort()
            return
        try:
            piece = next(self._pieces, None)
        except Exception:
            log_exception()
            request.connection.abort()
            return
        if isinstance(piece, Future):
            piece.then(lambda outcome: self._schedule())
            return
        if piece is None:
            self._is_over, request.on_disconnect = True, None
            request.connection.setTimeout(None)
            request.unregisterProducer()
            request.finish()
            return
        request.connection.resetTimeout()
        request.channel.write(b"%x\r\n%b\r\n" % (len(piece), piece) if request.chunked else piece)
        if not self._is_paused:
            self._schedule()
