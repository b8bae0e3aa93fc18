"""Socket.IO clients of the broker: each connection carries a session, like those of the other protocols.

This is the application of ``/socket.io/``, unless a program passes its own: ``twistedsock.socketio``.
"""

from collections.abc import Sequence
from typing import Any

from twistedsock.codecs.engineio_session import CloseCause, EngineSettings
from twistedsock.codecs.socketio_decoder import SocketIODecoder, to_message
from twistedsock.codecs.socketio_encoder import SocketIOEncoder
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import Limits
from twistedsock.server.connection import open_session
from twistedsock.server.engineio import EngineConnection, MessageHandler
from twistedsock.server.engineio_outlet import EngineOutlet
from twistedsock.server.http.sse import authenticated
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.session.context import ServerContext

MAX_PAYLOAD_BYTES = 1_000_000
"""Maximum size of a packet and of the body of a request, as in the reference implementation. A longer event than
``max_message_bytes`` is an error that its sender receives; a longer packet than this ends the connection."""

MAX_MESSAGES_TOGETHER = 1_000
"""Messages of one read that are run together."""


def engine_settings(limits: Limits) -> EngineSettings:
    """The settings of Engine.IO for the limits of a server."""
    # A client can write an event twice as long as it is, because of escapes and names. The server writes a control
    # character as six bytes, and a client that polls needs one event at least to continue.
    return EngineSettings(
        max_payload=max(MAX_PAYLOAD_BYTES, 2 * limits.max_message_bytes),
        max_buffered_bytes=max(EngineSettings().max_buffered_bytes, 7 * limits.max_message_bytes),
    )


class BrokerApplication:
    """``main_channel`` is the channel of the main namespace, empty if that has commands only."""

    def __init__(self, context: ServerContext, reactor: Any, main_channel: bytes = b"") -> None:
        self.context = context
        self.main_channel = main_channel
        self.engine_settings = engine_settings(context.limits)
        self.timeouts = ConnectionTimeouts(context.limits, reactor)

    def has_policy(self) -> bool:
        return self.context.policy is not None

    def open(self, connection: EngineConnection) -> "SessionHandler":
        return SessionHandler(self, connection)


class SessionHandler(MessageHandler):
    """Gives the messages of a connection to its session."""

    __slots__ = ("_connection", "_decoder", "_encoder", "_is_silent", "_messages", "_outlet", "_pipeline", "_timeouts")

    charges_input = True

    def __init__(self, application: BrokerApplication, connection: EngineConnection) -> None:
        context, handshake = application.context, connection.handshake
        self._connection = connection
        self._timeouts = application.timeouts
        self._messages: list[bytes] = []
        self._is_silent = True
        self._encoder = SocketIOEncoder(context.broker.time_of)
        self._decoder = SocketIODecoder(
            self._encoder,
            context.limits.max_message_bytes,
            2 * application.engine_settings.max_payload,
            application.has_policy,
            application.main_channel,
        )
        self._outlet = EngineOutlet(connection, context.broker.scheduler)
        self._pipeline = open_session(
            context,
            self._encoder,
            self._decoder,
            self._outlet,
            handshake.endpoints,
            self,
            listener=handshake.listener,
            handshake=handshake.info,
            timeouts=application.timeouts,
            awaits_first_command=True,
        )

    def opened(self) -> None:
        self._pipeline.session.send_welcome(b"", authenticated(self._connection.handshake.identity))
        self._connection.forget_request()

    # Input.

    @property
    def buffered_bytes(self) -> int:
        return self._decoder.buffered_bytes

    def bytes_received(self, size: int) -> None:
        if self._pipeline.session.is_rate_limited:
            self._pipeline.bytes_received(size)

    def received(self, data: bytes, is_binary: bool) -> None:
        self._messages.append(to_message(data, is_binary))
        if len(self._messages) >= MAX_MESSAGES_TOGETHER:
            self.input_parsed()

    def received_texts(self, texts: Sequence[bytes]) -> None:
        self._messages += texts
        self.input_parsed()
        if self._decoder.buffered_bytes:
            self._connection.update()

    def input_parsed(self) -> None:
        if self._messages:
            messages, self._messages = self._messages, []
            if self._is_silent:
                self._is_silent = False
                self._timeouts.first_command_received(self._pipeline)
            if self._timeouts.has_idle_timeout:
                self._timeouts.command_received(self._pipeline)
            self._pipeline.submit(messages)

    # Output.

    def complete_message(self) -> bool:
        replies = self._pipeline.session.replies
        replies.flush()
        return not replies.has_unfinished_reply

    def changed(self) -> None:
        self._outlet.changed()

    # The end.

    def pause_input(self) -> None:
        self._connection.pause()

    def resume_input(self) -> None:
        self._connection.resume()

    def close_connection(self, reason: CloseReason) -> None:
        """Called by the session after its last bytes."""
        connection = self._connection
        if self._decoder.has_failed:
            connection.fail(CloseCause.INVALID)
            return
        if reason is CloseReason.POLICY and not self._pipeline.session.replies.has_unfinished_reply:
            connection.send_frames(self._encoder.disconnected())
        connection.close()

    def closed(self, cause: CloseCause) -> None:
        self.input_parsed()
        self._timeouts.stop(self._pipeline)
        self._outlet.drain_listener = None
        how = "cleanly" if cause in (CloseCause.CLIENT, CloseCause.SERVER) else "broken"
        self._pipeline.session.mark_closing(cause.value, "peer" if cause is CloseCause.CLIENT else "server")
        self._pipeline.connection_lost(how)
