"""How a connection is closed on our side: our last words, then the end of our stream, then theirs.

Closing a socket with unread input makes the kernel answer with RST, and that can destroy the last words on their way.
So we say that we have finished (FIN), read and forget what still comes, and close when the peer does, or when it has
had time enough.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

LINGER = 10.0
"""Seconds that a peer has to take our last bytes and to end its own stream."""


def graceful_close(transport: Any, call_later: Callable[..., Any]) -> Any:
    """End our stream, and the connection after ``LINGER`` at the latest; gives the delayed call, to be cancelled when
    the connection is gone before. The protocol must drop what still comes in."""
    end_stream = getattr(transport, "loseWriteConnection", None)
    if end_stream is None or ISSLTransport.providedBy(transport):  # TLS has a goodbye of its own
        transport.loseConnection()
    else:
        end_stream()
        transport.resumeProducing()
    return call_later(LINGER, transport.abortConnection)


def close_description(reason: Failure | None) -> str:
    """For the last step of a connection: that its two ends have both said goodbye, that we have cut it off, or that it
    broke, as the other end did."""
    kind = None if reason is None else reason.type
    if kind is ConnectionDone:
        return "cleanly"
    return "aborted" if kind is ConnectionAborted else "broken"


_log = Logger()


def log_exception() -> None:
    """Log the exception that is being handled."""
    _log.failure("a command met a fault of this server")


# TODO-MERGED-DOC: What becomes of a fault of ours: it is logged once, with its traceback, and the peer hears
# ``internal``.
