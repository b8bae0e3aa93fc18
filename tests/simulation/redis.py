"""The real backplane for Redis, with its real connection, on a simulated network and simulated servers.

At each time there is one master, and for a while perhaps a former one that some nodes still reach. It is killed and
starts again with all its data, with an old snapshot or with none. A replica that lags becomes the master, also twice in
a row. The master is paused, loses a channel or all of them; connections break, are silent, or deliver late.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from tests.simulation.backplanes import FailedReads, values_of
from tests.simulation.faults import FaultRates
from tests.simulation.record import EpochRecord, Record
from tests.simulation.redis_scripts import Data, Entry, Log, former_epochs
from tests.simulation.redis_server import Process, Server
from tests.simulation.sockets import Reactor
from tests.simulation.world import World
from twistedsock.errors import Error
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Batch, Position
from twistedsock.redis import wire
from twistedsock.redis.address import Address
from twistedsock.redis.backplane import RedisBackplane
from twistedsock.redis.connection import Surroundings, Timing
from twistedsock.redis.link import RedisLink
from twistedsock.redis.scripts import MAX_FORMER_EPOCHS
from twistedsock.redis.shard import Shard
from twistedsock.redis.shards import OneShard, Shards

MAX_AWAY_SECONDS = 15.0
"""The longest time without a server or a connection: less than the time in which a run becomes quiet."""

MAX_SNAPSHOTS = 60

CLOCK_MARGIN_SECONDS = 10.0
"""By which the clocks of servers differ at most: the age of an event is not more exact."""


@dataclass
class RedisFaults:
    """Probabilities in each step of a run."""

    reset: float = 0.0
    """That a connection is reset."""
    silence: float = 0.0
    """That nothing arrives any more on a connection, in either direction."""
    stall: float = 0.0
    """That everything on a connection arrives some seconds later."""
    pause: float = 0.0
    restart: float = 0.0
    """That the master is killed, and starts again with all its data."""
    restore: float = 0.0
    """That it starts again with an old snapshot, or with nothing."""
    promote: float = 0.0
    """That a replica that lags takes its place."""
    split: float = 0.0
    """That the former master continues meanwhile for the nodes that still reach it."""
    flush: float = 0.0
    """That a channel is deleted, or all data."""
    forget_scripts: float = 0.0


def draw_faults(random: Random) -> RedisFaults:
    faults = RedisFaults()
    kinds = {
        "reset": (0.003, 0.02),
        "silence": (0.002, 0.005),
        "stall": (0.003, 0.01),
        "pause": (0.002, 0.005),
        "restart": (0.001, 0.005),
        "restore": (0.001, 0.01),
        "promote": (0.001, 0.01),
        "split": (0.001, 0.005),
        "flush": (0.001, 0.003),
        "forget_scripts": (0.005,),
    }
    share = random.choice((0.0, 0.3, 0.3, 0.6))
    for kind, choices in kinds.items():
        if random.random() < share:
            setattr(faults, kind, random.choice(choices))
    return faults


class Route:
    """The network of one node."""

    def __init__(self, backplanes: "RedisBackplanes") -> None:
        self.former: Server | None = None
        """The former master, which the node still takes for the master."""
        self._backplanes = backplanes

    def route(self, host: str) -> Process | None:
        return self._backplanes.route(self, host)

    def delay(self) -> float:
        return self._backplanes.delay()


class Node(RedisBackplane):
    """Notes the channels of which a request to read has failed."""

    def __init__(self, reactor: Reactor, route: Route, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reactor = reactor
        self.network = route
        self.failed_reads = FailedReads()
        self.losses = 0

    def disconnected(self, shard: Shard) -> None:
        self.losses += 1
        super().disconnected(shard)

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        return self.failed_reads.watch(channel, super().read(channel, after, limit))

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        return self.failed_reads.watch(channel, super().offset_before(channel, epoch, time))

    @property
    def server(self) -> Server | None:
        """The server to which it is connected."""
        servers = [connection.server for connection in self.reactor.connections]
        return next((server for server in reversed(servers) if isinstance(server, Server)), None)


class RedisBackplanes:
    names = wire.Names(0)
    max_nodes = 3
    shares_members = True

    def __init__(self, world: World, rates: FaultRates, faults: RedisFaults | None = None) -> None:
        random = world.random
        self.record = Record(max_former=MAX_FORMER_EPOCHS)
        self._world = world
        self._rates = rates
        self.faults = draw_faults(random) if faults is None else faults
        rates.disconnect = rates.disconnect or 0.001  # nodes that start are not connected at once either
        self._limits = Limits(
            history_events=random.choice((5, 30, 1_000)),
            history_bytes=random.choice((3_000, 100_000)),
            history_age=random.choice((20.0, 300.0)),
        )
        slowness = random.choice((1.0, 1.0, 4.0))
        self._timing = Timing(
            probe=3 * slowness, connect=10, unsure=random.choice((1.0, 10.0)), lease=10 * slowness, renew=3 * slowness
        )
        self._nodes: dict[Node, None] = {}
        # Copies of the data of masters, the newest last.
        self._snapshots: deque[Data] = deque(maxlen=MAX_SNAPSHOTS)
        self._stored = 0
        self._formers: list[Server] = []
        self.master = self._make_server(Data())

    # The interface of the simulation.

    def keeps(self, backplane: Node, channel: str, epoch: str, offset: int) -> bool:
        key = self.names.log(channel.encode())
        server = self.server_of(backplane, key)
        log: Log = server.data.get(key, ())
        if not log or b"%d" % log[-1].epoch != epoch.encode():
            return False
        oldest = server.microseconds // 1_000 - 1_000 * (self._limits.history_age - CLOCK_MARGIN_SECONDS)
        return any(entry.first <= offset <= entry.last and entry.time >= oldest for entry in log)

    def server_of(self, backplane: Node, key: bytes) -> Server:
        """The server that a node asks for a log."""
        return backplane.server or self.master

    def has_failed_to_read(self, backplane: Node, channel: str) -> bool:
        return channel.encode() in backplane.failed_reads

    def losses(self, backplane: Node) -> int:
        return backplane.losses

    def connect(self, name: str, after_call: Callable[[], None]) -> Node:
        world, route = self._world, Route(self)
        reactor = Reactor(world, route, after_call)
        shards = self.make_shards(Surroundings(reactor, world.random.random, self._timing), LogAsSteps(world, name))
        node_name = b"%06d" % world.serial()
        node = Node(
            reactor,
            route,
            shards,
            node_name,
            self.names,
            self._limits,
            reactor.callLater,
            partial(world.note, name),
            lambda: b"r%d" % world.serial(),
            self._timing,
        )
        self._nodes[node] = None
        return node

    def make_shards(self, surroundings: Surroundings, log: "LogAsSteps") -> Shards:
        return OneShard(self.make_link(surroundings, log), surroundings.reactor.callLater, log.danger)

    def make_link(self, surroundings: Surroundings, log: "LogAsSteps") -> RedisLink:
        return RedisLink(Address("127.0.0.1"), lambda: "", surroundings, log)

    def route(self, route: Route, host: str) -> Process | None:
        """The process that a node reaches at an address."""
        return route.former or self.master

    def disconnect(self, backplane: Node) -> None:
        backplane.reactor.stop()
        del self._nodes[backplane]

    def step(self) -> None:
        if self._stored != self.record.events and self.master.is_running:
            self._stored = self.record.events
            self._snapshots.append(self.master.data.copy())
        world, faults = self._world, self.faults
        for name in vars(faults):
            if world.fault(getattr(faults, name)):
                getattr(self, f"_{name}")()

    def delay(self) -> float:
        world = self._world
        delay = world.delay(self._rates.request_delay)
        return min(MAX_AWAY_SECONDS, delay * 1_000) if world.fault(self._rates.slow) else delay

    # Faults of connections.

    def _connection(self) -> Any:
        """One of those that are open, or None."""
        connections = [connection for node in self._nodes for connection in node.reactor.connections]
        return self._world.random.choice(connections) if connections else None

    def _reset(self) -> None:
        connection = self._connection()
        if connection is not None:
            self._note("resets a connection")
            connection.reset()

    def _silence(self) -> None:
        connection = self._connection()
        if connection is not None:
            self._note("is silent on a connection")
            connection.is_silent = True

    def _stall(self) -> None:
        connection = self._connection()
        if connection is not None:
            self._note("delivers late on a connection")
            connection.stall(self._world.delay(3))

    # Faults of servers.

    def _pause(self) -> None:
        master, seconds = self.master, min(MAX_AWAY_SECONDS, self._world.delay(5))
        if master.is_running and not master.is_paused:
            self._note(f"is paused for {seconds:.3f} s")
            master.is_paused = True
            self._world.after(seconds, master.resume)

    def _restart(self) -> None:
        self._note("is killed, and starts again with its data")
        self._start_again(self.master.data)

    def _restore(self) -> None:
        data = Data() if self._world.chance(0.2) else self._old_data()
        self._note(f"is killed, and starts again with {'an old snapshot' if data.values else 'nothing'}")
        self._start_again(data)

    def _start_again(self, data: Data) -> None:
        self.master.end()
        self._replace_master(data)
        master = self.master
        master.is_running = False
        self._world.after(min(MAX_AWAY_SECONDS, self._world.delay(1)), lambda: setattr(master, "is_running", True))

    def _promote(self) -> None:
        self._note("is replaced by a replica")
        self.master.end()
        self._replace_master(self._old_data())

    def _split(self) -> None:
        """The former master continues for some nodes, until it is made a replica of the new one, or killed."""
        former, random, seconds = self.master, self._world.random, min(MAX_AWAY_SECONDS, self._world.delay(5))
        if not former.is_running:
            return
        self._note(f"is replaced by a replica, but continues for {seconds:.3f} s")
        self._replace_master(self._old_data())
        self._formers.append(former)
        for node in self._nodes:
            if random.random() < 0.5:
                node.network.former = former
            else:
                for connection in list(node.reactor.connections):
                    connection.reset()
        self._world.after(seconds, partial(self._end_split, former))

    def _end_split(self, former: Server) -> None:
        for node in self._nodes:
            if node.network.former is former:
                node.network.former = None
        if former.is_running and self._world.chance(0.5):
            self._world.note(former.name, "becomes a replica")
            former.become_replica(self.master)
        else:
            self._world.note(former.name, "is killed")
            former.end()

    def _flush(self) -> None:
        data, channels = self.master.data, list(self.record.channels)
        if self._world.chance(0.3):
            self._note("loses all data")
            for key in list(data.values):
                data.set(key, ())
        elif channels:
            channel = self._world.random.choice(channels)
            self._world.note(self.master.name, "loses the channel", channel)
            data.set(self.names.log(channel.encode()), ())

    def _forget_scripts(self) -> None:
        self._note("forgets its scripts")
        self.master.forget_scripts()

    # Servers.

    def _old_data(self) -> Data:
        """The data of a snapshot or a replica: of a short or a long time ago."""
        age = self._world.random.choice((1, 2, 3, 5, 20, 60))
        return self._snapshots[-min(age, len(self._snapshots))].copy() if self._snapshots else Data()

    def _make_server(self, data: Data) -> Server:
        name = f"redis{self._world.serial()}"
        server = self.build_server(name, data, lambda *entry: self._added(server, *entry))
        server.clock_error = self._world.random.choice((0.0, 0.0, 0.0, -4.0, 4.0))
        return server

    def build_server(self, name: str, data: Data, added: Callable[..., None]) -> Server:
        return Server(self._world, name, data, added)

    def _replace_master(self, data: Data) -> None:
        formers, self._formers = self._formers, []
        for former in formers:  # they are not replicas of the new one
            self._end_split(former)
            former.end()
        self.master = self._make_server(data)
        for channel in list(self.record.channels):
            log: Log = data.get(self.names.log(channel.encode()), ())
            if log:
                self.record.channels[channel] = self.record.epoch(channel, str(log[-1].epoch))
            else:
                del self.record.channels[channel]

    def _added(self, server: Server, key: bytes, entry: Entry, is_new: bool) -> None:
        """A server has written an entry into a log."""
        channel = key.removeprefix(wire.KEY_PREFIX + b"log:").decode().removeprefix("{:").removesuffix("}")
        name = b"%d" % entry.epoch
        epoch = self.record.epochs.get((channel, name.decode()))
        if epoch is None:
            epoch = EpochRecord(name, entry.first - 1, None)
            for former, good in former_epochs(entry.chain)[:1]:
                epoch = EpochRecord(name, entry.first - 1, self.record.epoch(channel, str(former)), good)
            self._begin(server, channel, epoch)
        elif entry.first != epoch.head + 1:  # the server has lost events, but has not begun another epoch
            self._begin(server, channel, EpochRecord(name, entry.first - 1, epoch, entry.first - 1))
        epoch = self.record.epoch(channel, name.decode())
        if entry.count:
            note = f"stores {entry.first} to {entry.last} of {name.decode()}"
            self._world.note(server.name, note, channel)
            for batch in wire.number(wire.decode_events(entry.events), entry.first, entry.time):
                self.record.store(channel, epoch, batch, values_of(batch), self._world.now)

    def _begin(self, server: Server, channel: str, epoch: EpochRecord) -> None:
        self._world.note(server.name, f"begins the epoch {epoch.name.decode()} after {epoch.begin}", channel)
        if server is self.master:
            self.record.begin_epoch(channel, epoch)
        else:
            self.record.add_epoch(channel, epoch)

    def _note(self, action: str) -> None:
        self._world.note(self.master.name, action)


class LogAsSteps:
    """The reports of a link, as steps of the run."""

    def __init__(self, world: World, name: str) -> None:
        self._note = partial(world.note, name)

    def connected(self, server: str) -> None:
        self._note(f"is connected to {server}")

    def unavailable(self, reason: str) -> None:
        self._note(f"is not connected: {reason}")

    def danger(self, sentence: str) -> None:
        self._note(sentence)
