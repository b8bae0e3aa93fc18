"""A long answer, no faster than its client reads it, and letting others have their turns between two pieces."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twistedsock.server.connection import log_exception

if TYPE_CHECKING:
    from twistedsock.server.http.request import HTTPRequest

PATIENCE = 60
"""Seconds that a client may read nothing of what was written for it: as long as a connection may be silent."""


@implementer(IPushProducer)
class StreamingResponse:
    """The head has been written. ``is_allowed`` is asked before each piece: where it is not, the answer breaks off, and
    the client notices, as the end is missing."""

    def __init__(self, request: "HTTPRequest", pieces: Iterator[bytes], is_allowed: Callable[[], bool]) -> None:
        self._request = request
        self._pieces = pieces
        self._is_allowed = is_allowed
        self._paused = self._over = False

    def begin(self) -> None:
        """Write the first one."""
        request = self._request
        request.on_gone = self.stopProducing
        request.registerProducer(self, True)
        request.connection.setTimeout(PATIENCE)
        self._go_on()

    def resumeProducing(self) -> None:
        self._paused = False
        self._postpone()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        """The client is gone, or has not read for too long."""
        self._over = True

    def _postpone(self) -> None:
        self._request.context.broker.postpone(self._go_on)

    def _go_on(self) -> None:
        if self._over or self._paused:
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
        if piece is None:
            self._over, request.on_gone = True, None
            request.connection.setTimeout(None)
            request.unregisterProducer()
            request.finish()
            return
        request.connection.resetTimeout()
        request.channel.write(b"%x\r\n%b\r\n" % (len(piece), piece) if request.chunked else piece)
        if not self._paused:
            self._postpone()
