"""The life of a connection that carries a session: opening the session, closing the socket, logging exceptions.

Connections are closed with a lingering close. A socket that is closed with unread input makes the kernel answer with
RST, and that can destroy the last bytes on their way to the client. Therefore the server ends its own stream (FIN),
discards what still arrives, and closes when the client does or after ``LINGER_SECONDS``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.session.encoder import Encoder, Endpoints
from twistedsock.session.input_pipeline import Decoder, InputPipeline
from twistedsock.session.session import Session, SessionConnection
from twistedsock.session.timeline import HandshakeInfo

if TYPE_CHECKING:
    from twistedsock.session.context import ServerContext

LINGER_SECONDS = 10.0
"""Time for the client to read the last bytes and to end its own stream."""

_log = Logger()


def log_exception() -> None:
    """Log the exception that is being handled, with its traceback. The client receives the error ``internal``."""
    _log.failure("internal error while a command was processed")


def open_session(
    context: "ServerContext",
    encoder: Encoder,
    decoder: Decoder,
    outlet: Any,
    endpoints: Endpoints,
    connection: SessionConnection,
    *,
    listener: str = "",
    handshake: HandshakeInfo | None = None,
    timeouts: ConnectionTimeouts | None = None,
    awaits_first_command: bool = False,
    read_only: bool = False,
    on_exception: Callable[[], object] = log_exception,
) -> InputPipeline:
    """Open a session on a connection, and return the pipeline of its input.

    Nothing has been sent yet: the caller keeps the pipeline and then calls ``session.send_welcome``. With ``timeouts``
    the idle timeout starts now and, if the connection ``awaits_first_command``, so does the one for that command;
    the caller reports each command to them."""
    session = Session(context, encoder, outlet, endpoints, connection, listener, handshake, read_only)
    outlet.drain_listener = session
    pipeline = InputPipeline(session, decoder, on_exception)
    if timeouts is not None:
        timeouts.start(pipeline, awaits_first_command)
    return pipeline


def graceful_close(transport: Any, call_later: Callable[..., Any]) -> Any:
    """End our stream now, and the connection after ``LINGER_SECONDS`` at the latest. The protocol must discard what
    still arrives. Returns the delayed call that aborts the connection, to be cancelled when it is lost before."""
    transport.resumeProducing()  # if reading was paused, the end of the client's stream would not be noticed
    end_stream = getattr(transport, "loseWriteConnection", None)
    if end_stream is None or ISSLTransport.providedBy(transport):  # TLS ends with close_notify in each direction
        transport.loseConnection()
    else:
        end_stream()
    return call_later(LINGER_SECONDS, transport.abortConnection)


def close_description(reason: Failure | None) -> str:
    """How a connection ended, for its timeline: ``cleanly`` if both sides closed it, ``aborted`` if the server did
    without waiting, otherwise ``broken``."""
    kind = None if reason is None else reason.type
    if kind is ConnectionDone:
        return "cleanly"
    return "aborted" if kind is ConnectionAborted else "broken"
