"""Counters and histograms of the server, and the statistics of a TCP connection.

They are plain attributes, so that millions of events can be counted. Deliveries are counted once for a whole encoding
group if possible, and not for each subscription.
"""

from bisect import bisect_left

import msgspec

from twistedsock.errors import ErrorCode

SPANS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds. A turn of an idle server takes less than the first. The sixth is the time slice of one client."""

METHODS = (b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS")
"""The HTTP methods that are counted by name, because a client can send any number of other names."""

OTHER_METHOD = b"other"
"""All other methods, and requests that could not be parsed."""


class Histogram:
    """A histogram of durations. ``counts`` has one more entry than ``bounds``, for durations above all of them. A
    duration that equals a bound counts below it, as the label ``le`` of Prometheus requires."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SPANS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Stats:
    """Events and bytes of this node. An event that is sent to ten subscriptions is published once and delivered ten
    times. ``opened`` and ``closed`` count sessions by the title of their encoder."""

    __slots__ = (
        "behind",
        "closed",
        "delivered",
        "errors",
        "flushes",
        "longest_turn",
        "lost",
        "opened",
        "published",
        "received",
        "requests",
        "sent",
        "turns",
    )

    def __init__(self) -> None:
        self.published = 0
        self.delivered = 0
        self.lost = 0
        """Events that were reported as lost, counted for each subscription."""
        self.behind = 0
        """Clients with a subscription that is behind now."""
        self.received = 0
        """Bytes that clients have sent, HTTP included."""
        self.sent = 0
        """Bytes that were written to clients, HTTP included."""
        self.errors: dict[ErrorCode, int] = {}
        self.opened: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.requests: dict[tuple[bytes, int], int] = {}
        """HTTP requests by method and status."""
        self.turns = Histogram()
        self.flushes = Histogram()
        self.longest_turn = 0.0
        """The longest turn in seconds since this was last set to 0."""

    def count_error(self, code: ErrorCode, times: int = 1) -> None:
        self.errors[code] = self.errors.get(code, 0) + times

    def count_response(self, method: bytes, status: int) -> None:
        key = (method if method in METHODS else OTHER_METHOD, status)
        self.requests[key] = self.requests.get(key, 0) + 1

    def count_turn(self, seconds: float) -> None:
        self.turns.observe(seconds)
        if seconds > self.longest_turn:
            self.longest_turn = seconds

    def count_session_opened(self, title: str) -> None:
        self.opened[title] = self.opened.get(title, 0) + 1

    def count_session_closed(self, title: str) -> None:
        self.closed[title] = self.closed.get(title, 0) + 1


class TcpStats(msgspec.Struct, frozen=True, gc=False):
    """The counters of one TCP connection in the system. With TLS, they count encrypted bytes."""

    sent: int
    """Bytes that the client's machine has acknowledged."""
    received: int
    """Bytes that have been received in order, read or not."""
    unsent: int
    """Bytes that wait on this machine to be sent."""
    rtt: float
    """The smoothed round-trip time in seconds (RFC 6298)."""
