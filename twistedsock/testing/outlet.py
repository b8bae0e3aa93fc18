"""A socket for tests, and the turns of a reactor."""

from collections.abc import Callable

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.pubsub.subscription import SOCKET_FULL, DrainListener
from twistedsock.session.encoder import Endpoints
from twistedsock.stats import TcpStats

ENDS = Endpoints(b"127.0.0.1:50000", b"127.0.0.1:8081")


class FakeOutlet:
    """A socket that accepts ``room`` bytes (None: all) and keeps the rest in ``waiting``. ``stats`` are its TCP
    statistics."""

    def __init__(self) -> None:
        self.blocked = 0
        self.principal: Principal = LOCAL
        self.room: int | None = None
        self.sent = bytearray()
        self.waiting = bytearray()
        self.sends = 0
        self.drain_listener: DrainListener | None = None
        self.stats: TcpStats | None = None

    def tcp_stats(self) -> TcpStats | None:
        return self.stats

    def try_write(self, data: bytes) -> bool:
        if self.blocked:
            return False
        self.write(data)
        return True

    def write(self, data: bytes) -> None:
        self.sends += 1
        if self.blocked & SOCKET_FULL:
            self.waiting += data
            return
        taken = len(data) if self.room is None else min(self.room, len(data))
        self.sent += data[:taken]
        if self.room is not None:
            self.room -= taken
        if taken < len(data):
            self.waiting += data[taken:]
            self.blocked |= SOCKET_FULL

    def drain(self, room: int | None = None) -> None:
        """The client reads, so that the socket accepts ``room`` more bytes (None: all from now on)."""
        self.room = room
        waiting, self.waiting = bytes(self.waiting), bytearray()
        self.blocked &= ~SOCKET_FULL
        if waiting:
            self.sends -= 1
            self.write(waiting)
            if not self.blocked & SOCKET_FULL and self.drain_listener is not None:
                self.drain_listener.resume_writing()


class Turns:
    """The calls for the end of the turn."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def schedule(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def step(self) -> None:
        """Run one turn."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def run(self, most: int = 10_000) -> None:
        """Run turns until there are no calls left."""
        for _ in range(most):
            if not self._calls:
                return
            self.step()
        raise AssertionError("the server does not become idle")
