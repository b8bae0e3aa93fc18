"""The hub's end of the connection to a worker: frames in, frames out, and flow control.

All that is sent in a turn leaves in one write. While a worker does not read its answers, its requests wait.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub_messages import FrameReader, ProtocolError, encode

MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""The most that waits for a worker that does not read. Beyond that, its connection is closed: it reads what it has
missed when it connects again."""

PAUSE_BYTES = 1024 * 1024
"""While so much waits for a worker, its requests wait too: their answers would be added."""


class Outlet(Protocol):
    """Writes to the other end. It calls ``pause`` and ``resume`` of the link as a Twisted transport calls its
    producer."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Close the connection, and discard what has not been written."""


class LinkUser(Protocol):
    """Handles the requests of links."""

    is_handling: bool
    """Set while the requests of one read are handled: ``flush`` follows."""
    report: Callable[[str], object]

    def handle(self, link: "Link", request: int, message: Any) -> None:
        """Raises ProtocolError."""

    def add_dirty(self, link: "Link") -> None:
        """Something waits to be written: ``flush`` of the link must be called at the end of the turn."""

    def flush(self) -> None:
        """Write what waits for all workers."""

    def forget(self, link: "Link", has_stopped: bool) -> None:
        """The connection has ended. ``has_stopped`` means that the worker has announced it."""


class Link:
    """The connection of a worker. ``prefix`` is how the ids of its clients begin."""

    def __init__(self, user: LinkUser, outlet: Outlet) -> None:
        self.node_name = b""
        self.prefix = b"-"  # no id begins with a hyphen
        self.is_connected = True
        self.announces_joins = True
        """Whether the members that the worker reports have joined, and were not members of another hub before."""
        self.has_stopped = False
        self.channels: dict[bytes, None] = {}
        """Those that it has open."""
        self._user = user
        self._outlet = outlet
        self._reader = FrameReader(messages.ToHub)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_dirty = False
        self._is_paused = False
        self._is_handling = False

    # Called by the connection.

    def received(self, data: bytes) -> None:
        """Handle the requests of a worker, as far as it reads their answers. Memory has answered when this returns: so
        all is written now, and not at the end of the turn."""
        self._reader.feed(data)
        self._user.is_handling = True
        try:
            self._handle_requests()
        finally:
            self._user.is_handling = False
            self._user.flush()

    def pause(self) -> None:
        """The worker does not read as fast as the hub writes."""
        self._is_paused = True

    def resume(self) -> None:
        """All has been written."""
        self._is_paused = False
        self.flush()
        self._handle_requests()

    def lost(self) -> None:
        """The connection has ended."""
        if self.is_connected:
            self.is_connected = False
            self._waiting.clear()
            self._user.forget(self, self.has_stopped)

    def cut(self, reason: str) -> None:
        """End the connection."""
        if self.is_connected:
            self._user.report(f"worker {self.node_name.decode(errors='replace') or '?'}: connection closed: {reason}")
            self.lost()
            self._outlet.close()

    def _handle_requests(self) -> None:
        if self._is_handling or self._is_blocked:  # an answer was there at once; or the worker does not read
            return
        self._is_handling = True
        try:
            for request, message in self._reader:
                self._user.handle(self, request, message)
                if self._is_blocked or not self.is_connected:
                    break
        except ProtocolError as error:
            self.cut(str(error))
        finally:
            self._is_handling = False

    @property
    def _is_blocked(self) -> bool:
        return self._is_paused or self._waiting_bytes > PAUSE_BYTES

    # Called by the hub.

    def answer(self, request: int, message: messages.Message) -> None:
        if self.is_connected:
            self.send_body(encode(message), request)

    def send(self, message: messages.Message, request: int = 0) -> None:
        self.send_body(encode(message), request)

    def send_body(self, body: bytes, request: int = 0) -> None:
        """Send a message at the end of this turn."""
        if not self._is_dirty:
            self._is_dirty = True
            self._user.add_dirty(self)
        self._waiting += (messages.HEADER.pack(len(body), request), body)
        self._waiting_bytes += len(body)

    def flush(self) -> None:
        """Write all that waits, if the worker reads."""
        self._is_dirty = False
        if self._is_paused:
            if self._waiting_bytes > MAX_UNREAD_BYTES:
                self.cut(f"it does not read: {self._waiting_bytes} bytes wait for it")
            return
        if self._waiting:
            data, was_blocked = b"".join(self._waiting), self._waiting_bytes > PAUSE_BYTES
            self._waiting.clear()
            self._waiting_bytes = 0
            self._outlet.write(data)
            if was_blocked:
                self._handle_requests()
