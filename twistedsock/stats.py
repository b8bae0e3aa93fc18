"""What has happened since the start, in plain numbers: cheap enough to be counted where events pass by the million.

Nothing is counted for each reader on its own where it can be counted for all of a lane at once.
"""

from bisect import bisect_left

import msgspec

from twistedsock.errors import ErrorCode

SPANS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds. A turn at rest takes less than the first; more than the sixth is more than the share that one peer has."""

METHODS = (b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS")
"""Methods that are counted under their names; a client can make up as many others as it likes."""

OTHER_METHOD = b"other"
"""Those together, and what could not be read."""


class Histogram:
    """How long something took, each time: a histogram. ``counts`` has one more place than ``bounds``, for what took
    longer than all of them; a time that equals a bound counts below it, as Prometheus wants it (``le``)."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SPANS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Stats:
    """Events and bytes are those of this node. An event that goes to ten readers is published once and delivered ten
    times. ``opened`` and ``closed`` count sessions by the title of their dialect."""

    __slots__ = (
        "behind",
        "closed",
        "delivered",
        "flushes",
        "longest_turn",
        "lost",
        "opened",
        "published",
        "received",
        "errors",
        "requests",
        "sent",
        "turns",
    )

    def __init__(self) -> None:
        self.published = 0
        self.delivered = 0
        self.lost = 0
        """Events that a reader was told it had missed, each for each reader."""
        self.behind = 0
        """Peers that have not read all yet on some channel: a state, and no total."""
        self.received = 0
        """Bytes that peers have sent, of HTTP too."""
        self.sent = 0
        """Bytes that were written to peers, of HTTP too."""
        self.errors: dict[ErrorCode, int] = {}
        self.opened: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.requests: dict[tuple[bytes, int], int] = {}
        """Requests of HTTP, by method and status."""
        self.turns = Histogram()
        self.flushes = Histogram()
        self.longest_turn = 0.0
        """The longest turn, in seconds, since somebody has set this back to 0."""

    def count_error(self, code: ErrorCode, times: int = 1) -> None:
        """Something was refused, for that reason."""
        self.errors[code] = self.errors.get(code, 0) + times

    def count_response(self, method: bytes, status: int) -> None:
        """A request of HTTP was answered."""
        key = (method if method in METHODS else OTHER_METHOD, status)
        self.requests[key] = self.requests.get(key, 0) + 1

    def count_turn(self, seconds: float) -> None:
        """A turn took so long."""
        self.turns.observe(seconds)
        if seconds > self.longest_turn:
            self.longest_turn = seconds

    def count_session_opened(self, title: str) -> None:
        """A session of that dialect has begun."""
        self.opened[title] = self.opened.get(title, 0) + 1

    def count_session_closed(self, title: str) -> None:
        """A session of that dialect is over."""
        self.closed[title] = self.closed.get(title, 0) + 1


class TcpStats(msgspec.Struct, frozen=True, gc=False):
    """Bytes of the connection itself: with TLS, of what is encrypted."""

    sent: int
    """Bytes that the peer's machine has acknowledged."""
    received: int
    """Bytes that have come in order, read or not."""
    unsent: int
    """Bytes that wait here: for the peer's machine to have room, or for the network."""
    rtt: float
    """Seconds from here to the peer and back, smoothed (RFC 6298)."""


# TODO-MERGED-DOC: What has gone through one connection, as its machine counts it.
