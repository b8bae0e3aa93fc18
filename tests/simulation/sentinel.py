"""Redis with Sentinels: simulated observers decide which server is the master, and nodes find it through them.

A master that is killed stays away until the Sentinels have made a replica the master. Each of them learns of that at
another time, and one of them can be cut off from the others for the rest of the run: it still calls the former master
the master, although its clients reach it. In a split, the nodes on the side of the former master reach that, and the
Sentinel that has not heard of the new one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.simulation.faults import FaultRates
from tests.simulation.redis import LogAsSteps, RedisBackplanes, RedisFaults, Route
from tests.simulation.redis_scripts import Data
from tests.simulation.redis_server import Process, Server, ServerConnection, Words
from tests.simulation.world import World
from twistedsock.redis.address import DEFAULT_PORT, DEFAULT_SENTINEL_PORT, Address, Place
from twistedsock.redis.connection import Surroundings
from twistedsock.redis.link import RedisLink
from twistedsock.redis.sentinel import SWITCHED, Sentinels

MASTER = "main"

PLACES = tuple(Place(f"10.0.0.{number}", DEFAULT_SENTINEL_PORT) for number in range(1, 4))

MAX_SECONDS_TO_DECIDE = 5.0
"""Until a master that was killed is replaced, and until a Sentinel has heard of the new one."""


class Sentinel(Process):
    """``master`` is the host that it calls the master, since the failover with the number ``epoch``."""

    def __init__(self, world: World, name: str, master: str) -> None:
        super().__init__(world, name)
        self.master = master
        self.epoch = 0
        self.is_cut_off = False

    def learn(self, master: str, epoch: int) -> None:
        """Hear of a failover."""
        if self.is_cut_off or epoch <= self.epoch:
            return
        former, self.master, self.epoch = self.master, master, epoch
        self._world.note(self.name, f"calls {master} the master")
        words = (MASTER, former, str(DEFAULT_PORT), master, str(DEFAULT_PORT))
        self._publish(self.nobody, [], SWITCHED, " ".join(words).encode())

    @property
    def nobody(self) -> ServerConnection:
        """No message is sent for a client."""
        return ServerConnection(0, lambda data: None, lambda: None)

    def _on_sentinel(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        """SENTINEL MASTER"""
        return {b"ip": self.master.encode(), b"port": b"%d" % DEFAULT_PORT, b"config-epoch": b"%d" % self.epoch}


class SentinelBackplanes(RedisBackplanes):
    def __init__(
        self, world: World, rates: FaultRates, faults: RedisFaults | None = None, cut_off: float = 0.3
    ) -> None:
        self.hosts: dict[str, Server] = {}
        super().__init__(world, rates, faults)
        self._failovers = 0
        self.sentinels = {place.host: Sentinel(world, f"sentinel {place.host}", self._host) for place in PLACES}
        # The one that nodes on the side of a former master reach.
        self._apart = world.random.choice(list(self.sentinels.values()))
        self._cut_off = cut_off

    @property
    def _host(self) -> str:
        """The host of the master."""
        return next(host for host, server in self.hosts.items() if server is self.master)

    def make_link(self, surroundings: Surroundings, log: LogAsSteps) -> RedisLink:
        address = Address(sentinels=PLACES, master=MASTER)
        return RedisLink(address, lambda: "", surroundings, log, Sentinels(address, lambda: "", surroundings, log))

    def route(self, route: Route, host: str) -> Process | None:
        if host in self.sentinels:
            sentinel = self.sentinels[host]
            return sentinel if route.former is None or sentinel is self._apart else None
        server = self.hosts[host]
        return server if route.former is None or server is route.former else None

    def _make_server(self, data: Data) -> Server:
        server = super()._make_server(data)
        self.hosts[f"10.0.1.{len(self.hosts) + 1}"] = server
        return server

    def _soon(self, call: Callable[[], None]) -> None:
        self._world.after(min(MAX_SECONDS_TO_DECIDE, self._world.delay(1)), call)

    def _announce(self) -> None:
        """A failover has been decided: the Sentinels hear of it, in any order."""
        self._failovers += 1
        if self._world.chance(self._cut_off):
            self._apart.is_cut_off = True
            self._world.note(self._apart.name, "is cut off from the other Sentinels")
        for sentinel in self.sentinels.values():
            self._soon(partial(sentinel.learn, self._host, self._failovers))

    def _start_again(self, data: Data) -> None:
        """At the same address: the Sentinels do not decide anything."""
        host = self._host
        super()._start_again(data)
        del self.hosts[self._host]
        self.hosts[host] = self.master

    def _promote(self) -> None:
        """The master is killed, and the Sentinels notice it."""
        master = self.master
        if not master.is_running:
            return
        self._note("is killed")
        master.end()

        def decide() -> None:
            if self.master is master:
                self._replace_master(self._old_data())
                self._announce()

        self._soon(decide)

    def _split(self) -> None:
        before = self.master
        super()._split()
        if self.master is not before:
            self._announce()
