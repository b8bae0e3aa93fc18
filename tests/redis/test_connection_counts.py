"""The connections of an address to several servers, which they send to each other, without Redis."""

from collections.abc import Callable

from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.settings import Limits
from twistedsock.limits.shared_counts import SharedCounts
from twistedsock.redis.connection_counts import MAX_SILENT_RENEWALS, ConnectionCounts

ADDRESS = "10.0.0.1"


class Servers:
    """Servers of one Redis, by name. Messages that are sent while one is received arrive afterwards."""

    def __init__(self, maximum: int) -> None:
        self.limits = Limits(max_connections_per_address=maximum)
        self.messages: list[bytes] = []
        self.by_name: dict[bytes, Server] = {}
        self.scheduled: list[Callable[[], None]] = []

    def start(self, name: bytes) -> "Server":
        self.by_name[name] = server = Server(self, name)
        server.counts.connected()
        self.settle()
        return server

    def settle(self) -> None:
        """Let the servers report what has changed, and receive it."""
        while self.scheduled or self.messages:
            scheduled, self.scheduled = self.scheduled, []
            for call in scheduled:
                call()
            messages, self.messages = self.messages, []
            for message in messages:
                for server in self.by_name.values():
                    server.counts.received(message)

    def renew(self, times: int = 1) -> None:
        for _ in range(times):
            for server in self.by_name.values():
                server.counts.renew()
            self.settle()


class Server:
    def __init__(self, servers: Servers, name: bytes) -> None:
        self.servers = servers
        self.limiter = ConnectionLimiter(servers.limits)
        self.counts = ConnectionCounts(name, servers.limits, lambda message: servers.messages.append(message))
        self.counts.shared = SharedCounts(self.limiter, self._schedule, self.counts.report)

    def _schedule(self, seconds: float, call: Callable[[], None]) -> None:
        self.servers.scheduled.append(call)

    def open(self, count: int) -> int:
        """Open connections. Returns how many were accepted."""
        accepted = [self.limiter.acquire(ADDRESS) for _ in range(count)].count(None)
        self.servers.settle()
        return accepted

    def close(self, count: int) -> None:
        for _ in range(count):
            self.limiter.release(ADDRESS)
        self.servers.settle()

    @property
    def elsewhere(self) -> int:
        return self.limiter.elsewhere_of.get(b"@10.0.0.1", 0)


def test_a_limit_is_that_of_all_servers() -> None:
    servers = Servers(maximum=6)
    one, two, three = (servers.start(name) for name in (b"a", b"b", b"c"))
    assert (one.open(2), two.open(3), three.open(3)) == (2, 3, 1)
    assert (one.elsewhere, two.elsewhere, three.elsewhere) == (4, 3, 5)
    two.close(2)
    assert (one.open(5), three.elsewhere) == (2, 5)


def test_servers_report_those_that_have_a_part_of_their_limit() -> None:
    servers = Servers(maximum=64)
    one, two = servers.start(b"a"), servers.start(b"b")
    one.open(3)
    assert two.elsewhere == 0
    one.open(1)
    assert two.elsewhere == 4
    one.close(1)
    assert two.elsewhere == 0 and not two.limiter.elsewhere_of


def test_a_server_that_connects_learns_the_counts_of_all() -> None:
    servers = Servers(maximum=4)
    servers.start(b"a").open(3)
    two = servers.start(b"b")
    assert two.elsewhere == 3
    two.counts.disconnected()
    assert two.open(4) == 4, "alone"
    two.counts.connected()
    servers.settle()
    assert (servers.by_name[b"a"].elsewhere, two.elsewhere) == (4, 3)


def test_the_counts_of_a_server_that_is_killed_are_dropped() -> None:
    servers = Servers(maximum=4)
    servers.start(b"a").open(4)
    two = servers.start(b"b")
    servers.renew(MAX_SILENT_RENEWALS + 2)
    assert two.elsewhere == 4, "it gives signs of life"
    del servers.by_name[b"a"]
    servers.renew(MAX_SILENT_RENEWALS)
    assert two.elsewhere == 4
    servers.renew()
    assert two.elsewhere == 0 and two.open(5) == 4


def test_a_server_that_connects_again_replaces_what_was_known_about_it() -> None:
    servers = Servers(maximum=4)
    one, two = servers.start(b"a"), servers.start(b"b")
    one.open(4)
    one.counts.disconnected()
    one.close(4)
    assert two.elsewhere == 4
    one.counts.connected()
    servers.settle()
    assert two.elsewhere == 0


def test_a_server_without_limits_to_share_ignores_messages() -> None:
    servers = Servers(maximum=4)
    one, two = servers.start(b"a"), servers.start(b"b")
    two.counts.shared = None
    one.open(4)
    two.counts.connected()
    two.counts.disconnected()
    assert two.elsewhere == 0
