"""The interface that the comparison requires of each server."""

from collections.abc import Mapping
from typing import Protocol

from twistedsock.bench.clients import Target

TCP, WEBSOCKET = "tcp", "websocket"
"""The protocols that are compared, as each server uses them by default."""

QUIET_TCP, QUIET_WEBSOCKET = "quiet tcp", "quiet websocket"
"""The same if successful publications are not replied to, and their publishers."""

ACKNOWLEDGED_TCP, ACKNOWLEDGED_WEBSOCKET = "acknowledged tcp", "acknowledged websocket"
"""The same if each publication is replied to."""

SOCKETIO = "socket.io"
"""Socket.IO over WebSocket, from the start."""


class Contestant(Protocol):
    """A server that the comparison starts and stops. ``start`` returns when the server listens; its other properties
    are valid from then on. Each start is a new process without state."""

    name: str
    """One lower-case word, as written on the command line."""

    wires: frozenset[str]
    """The protocols that it supports, known before the start."""

    def missing(self) -> str:
        """Why it cannot take part, for example because it is not installed. Empty if it can."""

    def version(self) -> str:
        """The version that it reports."""

    def start(self) -> None:
        """Start it on free loopback ports. Raises OSError or RuntimeError with the reason."""

    def stop(self) -> None:
        """End it and all processes that it started. Does nothing if it is not running."""

    def restart(self) -> None:
        """End it, and start it again with the same ports and files."""

    def pids(self) -> tuple[int, ...]:
        """The processes of the server."""

    def targets(self) -> Mapping[str, Target]:
        """Its address for each protocol."""
