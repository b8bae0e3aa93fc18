"""One Engine.IO session: what the packets of a client do, the heartbeat, and the move from long polling to WebSocket.

A session outlives the requests and the WebSocket that carry it. It is pure: the caller gives it requests, sockets and
the time. ``codecs.engineio`` has the packets and the source of the rules.
"""

import math
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec

from twistedsock.codecs.engineio import (
    CLOSE,
    MESSAGE,
    NOOP,
    PING,
    POLLING,
    PROBE,
    PROBE_ANSWER,
    PROTOCOL_REVISION,
    WEBSOCKET,
    HandshakeError,
    InvalidPacket,
    Packet,
    PacketType,
    decode_frame,
    encode_payload,
    open_packet,
)
from twistedsock.limits.settings import CHUNK_BYTES

CLOSE_TIMEOUT_SECONDS = 30.0
"""How long a session that the server has closed waits for the request that carries its last packets."""

PACKET_BYTES = 100
"""Memory of a queued packet beside its data, so that many empty packets reach the limit too."""


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds, sizes are bytes. The defaults are those of the reference implementation."""

    ping_interval: float = 25.0
    """Time between an answer of the client and the next ping."""
    ping_timeout: float = 20.0
    """Time for the answer to a ping."""
    upgrade_timeout: float = 10.0
    """Time for the move to a WebSocket, from its handshake on."""
    max_payload: int = 1_000_000
    """Maximum size of a WebSocket message or of the body of a POST request."""
    max_buffered_bytes: int = 4_000_000
    """Maximum size of the packets that wait for one client. A client that reads more slowly is disconnected."""


class CloseCause(Enum):
    """Why a session has ended, in the words that Socket.IO clients use."""

    CLIENT = "transport close"
    TRANSPORT = "transport error"
    INVALID = "parse error"
    TIMEOUT = "ping timeout"
    TOO_SLOW = "client too slow"
    SERVER = "server shutting down"


class Poll(Protocol):
    """A GET request that waits for packets. It is answered once."""

    def respond(self, body: bytes) -> None: ...


class Socket(Protocol):
    """A WebSocket. ``is_blocked`` is True while it can accept no packet."""

    @property
    def is_blocked(self) -> bool: ...
    def send(self, packet: Packet) -> None: ...
    def send_frames(self, frames: bytes) -> None: ...
    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None: ...
    def close(self) -> None: ...


class Listener(Protocol):
    """The user of a session."""

    def received(self, data: bytes, is_binary: bool) -> None: ...

    def received_texts(self, texts: Sequence[bytes]) -> None:
        """Text packets with messages, encoded, that have been received together."""

    def complete_message(self) -> bool:
        """Send the rest of a message that has been sent in part. Returns False if it is not available yet: no packet
        can be sent between the parts."""

    def closed(self, cause: CloseCause) -> None:
        """No message can be received or sent any more."""

    def finished(self) -> None:
        """The session has delivered its last packets, and can be forgotten. Called after ``closed``."""


class EngineSession:
    """``now`` is always the same clock, in seconds. The caller calls ``time_passed`` at ``deadline`` or later."""

    __slots__ = (
        "_awaits_pong",
        "_candidate",
        "_close_at",
        "_has_extended",
        "_heartbeat_at",
        "_is_probed",
        "_listener",
        "_owes_ping",
        "_poll",
        "_queue",
        "_settings",
        "_socket",
        "_upgrade_until",
        "buffered_bytes",
        "direct",
        "is_corked",
        "is_open",
        "is_paused",
        "is_posting",
        "sid",
    )

    def __init__(self, sid: str, settings: EngineSettings, listener: Listener, now: float) -> None:
        self.sid = sid
        self.is_open = True
        self.is_posting = False
        """True while the packets of a POST request are being received."""
        self.is_corked = False
        """While True, packets wait for ``flush``, so that they leave together."""
        self.is_paused = False
        """True while the user of the session receives no messages."""
        self.direct: Socket | None = None
        """The WebSocket that carries the session, while no packet waits: bytes can be written to it at once."""
        self.buffered_bytes = 0
        self._settings = settings
        self._listener = listener
        # Packets, and packets that have been encoded as WebSocket frames.
        self._queue: list[Packet | bytes] = []
        self._poll: Poll | None = None
        self._socket: Socket | None = None
        self._candidate: Socket | None = None
        """The WebSocket to which the session is moving."""
        self._is_probed = False
        self._upgrade_until = math.inf
        self._heartbeat_at = now + settings.ping_interval
        self._awaits_pong = self._has_extended = False
        self._owes_ping = False
        """True if a ping waits for the end of a message."""
        self._close_at = math.inf

    @property
    def transport(self) -> str:
        return POLLING if self._socket is None else WEBSOCKET

    @property
    def socket(self) -> Socket | None:
        """The WebSocket that carries the session, None while the client polls."""
        return self._socket

    @property
    def has_poll(self) -> bool:
        """True while a GET request waits."""
        return self._poll is not None

    @property
    def is_writable(self) -> bool:
        """True if the client can receive messages now. One that polls can while a request waits that can carry them."""
        if self._socket is not None:
            return not self._queue and not self._socket.is_blocked
        if self._poll is None or not self.is_open:
            return False
        return self.buffered_bytes < CHUNK_BYTES or not self._listener.complete_message()

    @property
    def is_finished(self) -> bool:
        return not self.is_open and self._close_at == math.inf

    @property
    def deadline(self) -> float:
        """When ``time_passed`` has something to do next."""
        return min(self._heartbeat_at, self._upgrade_until, self._close_at)

    # Opening.

    def open_with_poll(self, poll: Poll) -> None:
        """Answer the first request of a session, together with the packets that are sent before ``flush``."""
        self._poll, self.is_corked = poll, True
        self._open((WEBSOCKET,))

    def open_with_socket(self, socket: Socket) -> None:
        self._socket, self.is_corked = socket, True
        self._open(())

    def _open(self, upgrades: tuple[str, ...]) -> None:
        settings = self._settings
        self.send(
            open_packet(
                self.sid.encode(), upgrades, settings.ping_interval, settings.ping_timeout, settings.max_payload
            )
        )

    # Output.

    def send(self, packet: Packet) -> None:
        """Send a packet, or keep it until the client can receive it."""
        if not self.is_open:
            return
        if self.direct is not None and not self.direct.is_blocked:
            self.direct.send(packet)
            return
        self._append(packet, len(packet.data))
        if not self.is_corked:
            self.flush()
        self._check_buffer()

    def send_frames(self, frames: bytes) -> None:
        """Send packets that have been encoded as WebSocket frames, or parts of packets. If the client polls, they wait
        for ``flush``."""
        if not self.is_open:
            return
        if self.direct is not None:
            self.direct.send_frames(frames)
            return
        self._append(frames, len(frames))
        self._check_buffer()

    def _append(self, packet: Packet | bytes, size: int) -> None:
        self.direct = None
        self._queue.append(packet)
        self.buffered_bytes += size + PACKET_BYTES

    def _check_buffer(self) -> None:
        if self.buffered_bytes > self._settings.max_buffered_bytes:
            self.fail(CloseCause.TOO_SLOW)

    def flush(self) -> None:
        """Send what waits, if the client can receive it. Called when the WebSocket has room again, too."""
        self.is_corked = False
        queue, socket = self._queue, self._socket
        if socket is not None:
            sent = 0
            while sent < len(queue) and not socket.is_blocked:
                packet = queue[sent]
                sent += 1
                if isinstance(packet, bytes):
                    self.buffered_bytes -= len(packet) + PACKET_BYTES
                    socket.send_frames(packet)
                else:
                    self.buffered_bytes -= len(packet.data) + PACKET_BYTES
                    socket.send(packet)
            del queue[:sent]
            if not queue and self.is_open:
                self.direct = socket
        elif queue and self._poll is not None and self._listener.complete_message():
            self._respond(*self._drain())

    def message_completed(self) -> None:
        """A message that was sent in part is complete: send what waited for its end."""
        if self._owes_ping and self._listener.complete_message():
            self._owes_ping = False
            self.send(PING)
        self.flush()

    def _drain(self) -> list[Packet | bytes]:
        packets = list(self._queue)
        self._queue.clear()
        self.buffered_bytes = 0
        return packets

    def _respond(self, *packets: Packet | bytes) -> None:
        """Answer the request that waits, if there is one."""
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.respond(encode_payload(packets))

    # Long polling.

    def poll(self, poll: Poll) -> HandshakeError | None:
        """A GET request. Returns the error if it must be rejected instead."""
        if self._socket is not None:
            return HandshakeError.BAD_REQUEST
        if self.is_finished:
            return HandshakeError.UNKNOWN_SESSION
        if not self.is_open:
            self._poll = poll
            self._respond(*self._drain(), CLOSE)
            self._finish()
            return None
        if self._poll is not None:  # the client has lost count of its requests, and packets could get lost
            self.fail(CloseCause.TRANSPORT)
            return HandshakeError.BAD_REQUEST
        self._poll = poll
        if self._is_probed and not self._queue:
            self._respond(NOOP)  # the client finishes polling before it moves
        else:
            self.flush()
        return None

    def poll_lost(self, poll: Poll) -> None:
        """The client has disconnected before the answer. Packets may be on their way, so the session is over."""
        if self._poll is poll:
            self._poll = None
            self.fail(CloseCause.TRANSPORT)

    def release_poll(self, poll: Poll) -> None:
        """Answer a request that waits, so that the client makes another one."""
        if self._poll is poll:
            self._respond(NOOP)

    def begin_post(self) -> HandshakeError | None:
        """A POST request. Unless an error is returned, the caller calls ``receive`` for each packet in its payload, and
        then ``end_post``."""
        if self._socket is not None or not self.is_open:
            return HandshakeError.BAD_REQUEST
        if self.is_posting:
            self.fail(CloseCause.TRANSPORT)
            return HandshakeError.BAD_REQUEST
        self.is_posting = self.is_corked = True
        return None

    def end_post(self) -> None:
        self.is_posting = False
        self.flush()

    # WebSocket.

    def upgrade(self, socket: Socket, revision: str, now: float) -> bool:
        """Begin to move to a WebSocket. Returns False if that is not possible: the caller closes it, and the session
        continues as it is."""
        if not self.is_open or self._socket is not None or self._candidate is not None or revision != PROTOCOL_REVISION:
            return False
        self._candidate = socket
        self._upgrade_until = now + self._settings.upgrade_timeout
        return True

    def receive_texts(self, socket: Socket, texts: Sequence[object], now: float) -> bool:
        """Receive what has arrived together on a WebSocket, if these are texts, and packets with messages, all of them.
        That is much faster than one by one. Otherwise does nothing, and returns False."""
        if socket is not self._socket or not self.is_open:
            return False
        messages = [text for text in texts if isinstance(text, bytes) and text[:1] == MESSAGE]
        if len(messages) != len(texts):
            return False
        if self._awaits_pong:
            self._extend_heartbeat(now)
        self._listener.received_texts(messages)
        return True

    def socket_received(self, socket: Socket, data: bytes, is_binary: bool, now: float) -> None:
        """A message of a WebSocket; a text is valid UTF-8. Raises ``InvalidPacket`` as ``receive`` does."""
        if socket is self._socket:
            self.receive(decode_frame(data, is_binary), now)
        elif socket is self._candidate:
            self._receive_probe(socket, data, is_binary)

    def _receive_probe(self, socket: Socket, data: bytes, is_binary: bool) -> None:
        try:
            packet = decode_frame(data, is_binary)
        except InvalidPacket:
            packet = CLOSE
        if packet == PROBE and not self._is_probed:
            self._is_probed = True
            socket.send(PROBE_ANSWER)
            self._respond(NOOP)
        elif packet.type is PacketType.UPGRADE and self._is_probed and not self.is_posting:
            self._forget_candidate()
            self._respond(NOOP)
            self._socket = socket
            if self.is_paused:
                socket.pause()
            self.flush()
        else:
            self._drop_candidate()

    def _forget_candidate(self) -> None:
        self._candidate, self._is_probed, self._upgrade_until = None, False, math.inf

    def _drop_candidate(self) -> None:
        candidate = self._candidate
        self._forget_candidate()
        if candidate is not None:
            candidate.close()

    def socket_lost(self, socket: Socket) -> None:
        if socket is self._socket:
            self._end(CloseCause.CLIENT)
        elif socket is self._candidate:
            self._forget_candidate()

    # Input.

    def pause(self) -> None:
        """Stop reading from the WebSocket, until ``resume``."""
        self.is_paused = True
        if self._socket is not None:
            self._socket.pause()

    def resume(self) -> None:
        self.is_paused = False
        if self._socket is not None:
            self._socket.resume()

    def receive(self, packet: Packet, now: float) -> None:
        """A packet of the client. Raises ``InvalidPacket`` if it is one that a client cannot send: the caller calls
        ``fail`` then."""
        if not self.is_open:
            return
        self._extend_heartbeat(now)
        match packet.type:
            case PacketType.MESSAGE:
                self._listener.received(packet.data, packet.is_binary)
            case PacketType.PONG:
                if self._awaits_pong:  # others are ignored, so that they cannot postpone the next ping
                    self._awaits_pong = self._has_extended = False
                    self._heartbeat_at = now + self._settings.ping_interval
            case PacketType.CLOSE:
                self._respond(NOOP)
                self._end(CloseCause.CLIENT)
            case PacketType.NOOP:
                pass
            case PacketType.PING:
                raise InvalidPacket("invalid heartbeat direction: the server sends pings")
            case _:
                raise InvalidPacket(f"unexpected packet: {packet.type.name.lower()}")

    def _extend_heartbeat(self, now: float) -> None:
        """A long message can delay the pong behind it. Once, so that a client has to answer in the end."""
        if self._awaits_pong and not self._has_extended:
            self._has_extended, self._heartbeat_at = True, now + self._settings.ping_timeout

    def time_passed(self, now: float) -> None:
        """Send the pings that are due, and end what has taken too long."""
        if now >= self._close_at:
            self._finish()
        if now >= self._upgrade_until:
            self._drop_candidate()
        if now < self._heartbeat_at:
            return
        if self._awaits_pong and not (self.is_paused and self.is_writable):
            self.fail(CloseCause.TIMEOUT)
            return
        self._heartbeat_at = now + self._settings.ping_timeout
        if self._awaits_pong:
            return  # the answer may be in input that is not read, although the client reads
        self._awaits_pong = True
        if self._listener.complete_message():
            self.send(PING)
        else:
            self._owes_ping = True

    # Closing.

    def fail(self, cause: CloseCause) -> None:
        """Close at once. Packets that wait are dropped."""
        if self.is_open:
            self._drain()
            self._respond(CLOSE)
            self._end(cause)

    def close(self, cause: CloseCause, now: float) -> None:
        """Deliver the packets that wait, and close. Without a request that can carry them, the session waits for the
        next one, for ``CLOSE_TIMEOUT_SECONDS``. What a WebSocket cannot accept now is dropped."""
        if not self.is_open:
            return
        if self._socket is not None:
            self.flush()
        elif self._poll is None:
            self._end(cause, now + CLOSE_TIMEOUT_SECONDS)
        else:
            self._respond(*self._drain(), CLOSE)
        self._end(cause)

    def _end(self, cause: CloseCause, close_at: float = math.inf) -> None:
        if not self.is_open:
            return
        self.is_open, self._close_at, self._heartbeat_at, self.direct = False, close_at, math.inf, None
        self._drop_candidate()
        if self._socket is not None:
            self._socket.close()
        self._listener.closed(cause)
        if self.is_finished:
            self._finish()

    def _finish(self) -> None:
        self._close_at = math.inf
        self._drain()
        self._listener.finished()
