"""A Redis Cluster: simulated servers with the slots of their channels, which move from one to the other, key by key.

A server answers MOVED, ASK and TRYAGAIN as those of Redis do. The slot with the members does not move.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from tests.simulation.faults import FaultRates
from tests.simulation.record import EpochRecord
from tests.simulation.redis import LogAsSteps, Node, RedisBackplanes, RedisFaults, Route, draw_faults
from tests.simulation.redis_scripts import Data, Entry
from tests.simulation.redis_server import OK, Failed, Process, Push, Server, ServerConnection, Words, encode
from tests.simulation.world import World
from twistedsock.redis.address import DEFAULT_PORT, Address, Place
from twistedsock.redis.cluster import ClusterShards
from twistedsock.redis.connection import Surroundings
from twistedsock.redis.wire import SHARED_TAG, SLOTS, Names, slot

NAMES = Names(0, is_cluster=True)

SERVERS = 2

MAX_STEP_SECONDS = 3.0
"""Until the next key of a slot moves."""


@dataclass
class ClusterFaults(RedisFaults):
    move: float = 0.0
    """That the slot of a channel begins to move."""


def draw_cluster_faults(random: Random) -> ClusterFaults:
    """Servers are not replaced: ``tests.simulation.sentinel`` does that."""
    drawn = draw_faults(random)
    kept = {name: getattr(drawn, name) for name in ("reset", "silence", "stall", "pause", "forget_scripts")}
    return ClusterFaults(**kept, move=random.choice((0.0, 0.01, 0.03)))


def slot_of(key: bytes) -> int:
    return slot(key.partition(b"{")[2].partition(b"}")[0])


class Slots:
    """Which server has which slot. ``moving`` are those that move, each with the server that gets it."""

    def __init__(self) -> None:
        self.servers: list[ClusterServer] = []
        self.moving: dict[int, ClusterServer] = {}
        self._moved: dict[int, ClusterServer] = {}

    def owner(self, number: int) -> "ClusterServer":
        return self._moved.get(number) or self.servers[number * len(self.servers) // SLOTS]

    def move(self, number: int) -> None:
        self._moved[number] = self.moving.pop(number)

    def ranges(self) -> list[list[Any]]:
        """The reply to CLUSTER SLOTS."""
        count = len(self.servers)
        firsts = {-(-number * SLOTS // count) for number in range(count)}
        for moved in self._moved:
            firsts |= {moved, moved + 1}
        starts = sorted(firsts - {SLOTS})
        ends = [start - 1 for start in starts[1:]] + [SLOTS - 1]
        return [
            [start, end, [self.owner(start).host.encode(), DEFAULT_PORT]]
            for start, end in zip(starts, ends, strict=True)
        ]


class ClusterServer(Server):
    def __init__(
        self, world: World, name: str, data: Data, added: Callable[[bytes, Entry, bool], None], slots: Slots
    ) -> None:
        super().__init__(world, name, data, added)
        self.host = f"10.0.0.{len(slots.servers) + 1}"
        self._slots = slots
        slots.servers.append(self)
        self._asking: set[int] = set()
        self._followers: dict[bytes, dict[int, ServerConnection]] = {}

    def check(self, connection: ServerConnection, keys: Sequence[bytes]) -> None:
        """Raises Failed if another server has the keys of a command."""
        is_asking = connection.number in self._asking
        self._asking.discard(connection.number)
        number = slot_of(keys[0])
        owner, target = self._slots.owner(number), self._slots.moving.get(number)
        missing = [key for key in keys if key not in self.data.values]
        if owner is self:
            if target is not None and len(missing) == len(keys):
                raise Failed(f"ASK {number} {target.host}:{DEFAULT_PORT}")
            if target is not None and missing:
                raise Failed("TRYAGAIN Multiple keys request during rehashing of slot")
        elif not (is_asking and target is self):
            raise Failed(f"MOVED {number} {owner.host}:{DEFAULT_PORT}")
        elif missing and len(keys) > 1:
            raise Failed("TRYAGAIN Multiple keys request during rehashing of slot")

    def slot_has_moved(self, number: int) -> None:
        """End the subscriptions to topics of a slot, and report that to their clients."""
        for topic in [topic for topic in self._followers if slot_of(topic) == number]:
            for connection in self._followers.pop(topic).values():
                if connection.is_open:
                    connection.write(encode(Push([b"sunsubscribe", topic, 0])))

    def _publish(self, connection: ServerConnection, own: list[bytes], topic: bytes, message: bytes) -> None:
        if not topic.startswith(NAMES.channel_topics):
            super()._publish(connection, own, topic, message)
            for server in self._slots.servers:
                if server is not self:
                    Server._publish(server, connection, [], topic, message)
            return
        data = encode(Push([b"smessage", topic, message]))
        for follower in list(self._followers.get(topic, {}).values()):
            if follower is connection:
                own.append(data)
            elif follower.is_open:
                follower.write(data)

    def _on_info(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return super()._on_info(connection, words, publish) + b"redis_mode:cluster\r\n"

    def _on_cluster(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        """CLUSTER SLOTS"""
        return self._slots.ranges()

    def _on_asking(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        self._asking.add(connection.number)
        return OK

    def _on_evalsha(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        self.check(connection, words[2 : 2 + int(words[1])])
        return super()._on_evalsha(connection, words, publish)

    def _on_ssubscribe(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        number = slot_of(words[0])
        owner = self._slots.owner(number)
        if owner is not self:
            raise Failed(f"MOVED {number} {owner.host}:{DEFAULT_PORT}")
        self._followers.setdefault(words[0], {})[connection.number] = connection
        connection.write(encode(Push([b"ssubscribe", words[0], 1])))

    def _on_sunsubscribe(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        self._followers.get(words[0], {}).pop(connection.number, None)
        connection.write(encode(Push([b"sunsubscribe", words[0], 0])))


class ClusterBackplanes(RedisBackplanes):
    names = NAMES

    def __init__(self, world: World, rates: FaultRates, faults: ClusterFaults | None = None) -> None:
        self._slots = Slots()
        super().__init__(world, rates, faults or draw_cluster_faults(world.random))
        while len(self._slots.servers) < SERVERS:
            self._make_server(Data())

    def build_server(self, name: str, data: Data, added: Callable[..., None]) -> Server:
        return ClusterServer(self._world, name, data, added, self._slots)

    def make_shards(self, surroundings: Surroundings, log: LogAsSteps) -> ClusterShards:
        address = Address(nodes=tuple(Place(server.host, DEFAULT_PORT) for server in self._slots.servers))
        return ClusterShards(address, NAMES, lambda: "", surroundings, log)

    def route(self, route: Route, host: str) -> Process | None:
        return next(server for server in self._slots.servers if server.host == host)

    def server_of(self, backplane: Node, key: bytes) -> Server:
        """The server that has a log."""
        servers = self._slots.servers
        return next((server for server in servers if key in server.data.values), servers[0])

    def step(self) -> None:
        self.master = self._world.random.choice(self._slots.servers)  # faults of one server are those of any
        super().step()

    def _begin(self, server: Server, channel: str, epoch: EpochRecord) -> None:
        super()._begin(self.master, channel, epoch)

    def _move(self) -> None:
        """A slot begins to move, and its keys follow one by one."""
        channels = list(self.record.channels)
        if not channels:
            return
        channel, slots = self._world.random.choice(channels).encode(), self._slots
        number = NAMES.slot(channel)
        source = slots.owner(number)
        if number in slots.moving or number == slot(SHARED_TAG):
            return
        target = self._world.random.choice([server for server in slots.servers if server is not source])
        self._world.note(source.name, f"begins to move the slot {number} to {target.name}", channel.decode())
        slots.moving[number] = target
        self._soon(partial(self._move_next, number, source, target))

    def _soon(self, call: Callable[[], None]) -> None:
        self._world.after(min(MAX_STEP_SECONDS, self._world.delay(0.5)), call)

    def _move_next(self, number: int, source: ClusterServer, target: ClusterServer) -> None:
        if source.is_paused or target.is_paused:
            self._world.after(1, partial(self._move_next, number, source, target))
            return
        keys = [key for key in source.data.values if b"{" in key and slot_of(key) == number]
        if keys:
            value, end = source.data.values.pop(keys[0]), source.data.ends.pop(keys[0], None)
            target.data.set(keys[0], value)
            if end is not None:
                target.data.ends[keys[0]] = end - source.clock_error + target.clock_error
            self._soon(partial(self._move_next, number, source, target))
            return
        self._world.note(source.name, f"has moved the slot {number}")
        self._slots.move(number)
        source.slot_has_moved(number)
