"""Comments that keep silent streams from being taken for dead ones, by proxies above all."""

from typing import Any, Protocol

PARTS = 30
"""An interval has at most so many: in each of them, its share of the streams is written to, however many began at
once."""


class Living(Protocol):
    def keep_alive(self) -> None:
        """Say that it is still there, if nothing waits to be said."""


class KeepAlive:
    """Each of its streams is written to once in ``interval`` seconds; 0: never."""

    def __init__(self, reactor: Any, interval: int) -> None:
        self._reactor = reactor
        self._parts: list[dict[Living, None]] = [{} for _ in range(min(PARTS, interval))]
        self._period = interval / max(1, len(self._parts))
        self._added = self._turn = self._count = 0
        self._timer: Any = None

    def add(self, stream: Living) -> None:
        if not self._parts:
            return
        self._parts[self._added % len(self._parts)][stream] = None
        self._added += 1
        self._count += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(self._period, self._tick)

    def remove(self, stream: Living) -> None:
        """Also what has been removed before."""
        for part in self._parts:
            if stream in part:
                del part[stream]
                self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(self._period, self._tick)
        self._turn = (self._turn + 1) % len(self._parts)
        for stream in list(self._parts[self._turn]):
            stream.keep_alive()
