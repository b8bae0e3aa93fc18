"""A namespace of an application: its handlers, its sockets and its rooms."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.codecs.socketio import MAX_NAMESPACE_BYTES
from twistedsock.socketio.socket import Socket, engine_packets, event_packet

Handler = TypeVar("Handler", bound=Callable[..., Any])

MAX_ROOMS_PER_SOCKET = 1_000
"""An application may let clients choose the rooms that they join."""

LOG_INTERVAL_SECONDS = 60.0


class Namespace:
    """A part of an application with its own handlers and rooms. ``name`` begins with a slash."""

    _log = Logger()

    def __init__(self, name: str) -> None:
        if not name.startswith("/") or "," in name or "?" in name or len(name.encode()) > MAX_NAMESPACE_BYTES:
            raise ValueError(f"invalid namespace {name!r}: it begins with a slash, and has no comma or question mark")
        self.name = name
        self.sockets: dict[str, Socket] = {}
        """Those that are connected, by their ids. Read only."""
        self._rooms: dict[str, dict[Socket, None]] = {}
        self._handlers: dict[str, Callable[..., Any]] = {}
        self._logged: dict[str, float] = {}
        """When a handler has last failed and was logged, by its event."""

    def on(self, event: str) -> Callable[[Handler], Handler]:
        """Decorate the handler of an event; there is one for each event.

        It is called with the ``Socket`` and the arguments of the event. What it returns answers the client: None, a
        value, or a tuple of several. It can be a coroutine or return a Deferred. ``connect`` is called with the socket
        and its ``auth``, and refuses the client with ``ConnectionRefused``. ``disconnect`` is called with the socket
        and the reason."""

        def register(handler: Handler) -> Handler:
            if event in self._handlers:
                raise ValueError(f"the event {event!r} of {self.name} has a handler already")
            self._handlers[event] = handler
            return handler

        return register

    def emit(
        self, event: str, *arguments: Any, room: str | Collection[str] | None = None, skip: Socket | None = None
    ) -> None:
        """Send an event to all sockets, or to those in a room or in any of several. ``skip`` does not receive it."""
        packets = engine_packets(event_packet(self.name, event, arguments))
        for socket in self._recipients(room):
            if socket is not skip:
                socket.send(*packets)

    def _recipients(self, room: str | Collection[str] | None) -> list[Socket]:
        if room is None:
            return list(self.sockets.values())
        rooms = (room,) if isinstance(room, str) else room
        found: dict[Socket, None] = {}
        for name in rooms:
            found.update(self._rooms.get(name, {}))
        return list(found)

    def room(self, name: str) -> list[Socket]:
        """The sockets in a room."""
        return list(self._rooms.get(name, ()))

    def join(self, socket: Socket, room: str) -> None:
        """Called by ``Socket.join``."""
        if not socket.is_connected or room in socket.rooms:
            return
        if len(socket.rooms) >= MAX_ROOMS_PER_SOCKET:
            raise ValueError(f"too many rooms: a socket can join {MAX_ROOMS_PER_SOCKET}")
        socket.rooms.add(room)
        self._rooms.setdefault(room, {})[socket] = None

    def leave(self, socket: Socket, room: str) -> None:
        """Called by ``Socket.leave``."""
        if room in socket.rooms:
            socket.rooms.discard(room)
            sockets = self._rooms[room]
            del sockets[socket]
            if not sockets:
                del self._rooms[room]

    # Called by the connections.

    def add(self, socket: Socket) -> None:
        self.sockets[socket.id] = socket

    def remove(self, socket: Socket) -> None:
        self.sockets.pop(socket.id, None)
        for room in list(socket.rooms):
            self.leave(socket, room)

    def call(self, event: str, *arguments: Any) -> Deferred[Any] | None:
        """Call the handler of an event. Returns None if there is none."""
        handler = self._handlers.get(event)
        return None if handler is None else maybeDeferred(handler, *arguments)

    def log_failure(self, failure: Failure, event: str, now: float) -> None:
        """Log an exception of a handler. A client can cause any number of them, so one is logged for each handler and
        ``LOG_INTERVAL_SECONDS``. ``now`` is in seconds."""
        if event in self._logged and now < self._logged[event] + LOG_INTERVAL_SECONDS:
            return
        self._logged[event] = now
        self._log.failure("the handler of {event!r} in {namespace} failed", failure, event=event, namespace=self.name)
