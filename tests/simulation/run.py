"""One run of the simulation: some nodes and clients, a backplane, and hours of virtual time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.simulation.backplanes import Backplanes
from tests.simulation.clients import Client
from tests.simulation.cluster import ClusterBackplanes
from tests.simulation.disk import DiskBackplanes
from tests.simulation.faults import FaultRates, draw_rates
from tests.simulation.hub import HubBackplanes
from tests.simulation.memory import MemoryBackplanes
from tests.simulation.node import SimulatedNode
from tests.simulation.record import Record
from tests.simulation.redis import RedisBackplanes
from tests.simulation.request_clients import RequestProgram
from tests.simulation.sentinel import SentinelBackplanes
from tests.simulation.session_clients import JsonSessionClient, LineSessionClient, MessageSessionClient
from tests.simulation.shared import SharedBackplanes
from tests.simulation.stream_clients import StreamClient
from tests.simulation.world import Violation, World
from twistedsock.errors import Error
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.values import Member

KINDS: tuple[type[Client], ...] = (
    LineSessionClient,
    LineSessionClient,
    MessageSessionClient,
    JsonSessionClient,
    JsonSessionClient,
    StreamClient,
    StreamClient,
    RequestProgram,
)

STEPS = (200, 600, 1_500)
"""Actions of a run."""

QUIET_SECONDS = 120.0
"""Time for the system to become quiet after the last fault: links connect again and compare positions."""

LAST_SECONDS = 5.0
"""Time for the last events to arrive."""

MakeBackplanes = Callable[[World, FaultRates], Backplanes]

STORES: tuple[MakeBackplanes, ...] = (*[SharedBackplanes] * 7, *[DiskBackplanes] * 2, MemoryBackplanes)
"""Those with which most can happen in little time: what no backplane is to blame for is found there."""


def make_redis(world: World, rates: FaultRates) -> Backplanes:
    """One server, servers with Sentinels, or a Cluster."""
    return world.random.choice((RedisBackplanes, SentinelBackplanes, ClusterBackplanes))(world, rates)


BACKPLANES: tuple[MakeBackplanes, ...] = (*STORES, make_redis, HubBackplanes)

ENGINES: dict[str, MakeBackplanes] = {
    "shared": SharedBackplanes,
    "disk": DiskBackplanes,
    "memory": MemoryBackplanes,
    "redis": RedisBackplanes,
    "sentinel": SentinelBackplanes,
    "cluster": ClusterBackplanes,
    "hub": HubBackplanes,
}
"""By the name that the command has for them."""


def make_store(world: World, rates: FaultRates) -> Backplanes:
    """One of ``STORES``."""
    return world.random.choice(STORES)(world, rates)


@dataclass(frozen=True)
class Totals:
    """What runs have done. ``seconds`` are virtual; ``received`` counts the deliveries that were checked."""

    runs: int = 0
    seconds: float = 0.0
    steps: int = 0
    events: int = 0
    received: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.runs + other.runs,
            self.seconds + other.seconds,
            self.steps + other.steps,
            self.events + other.events,
            self.received + other.received,
        )

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.seconds / 3600:.0f} simulated hours, {self.steps:,} actions, "
            f"{self.events:,} events, {self.received:,} checked deliveries"
        )


def draw_limits(random: Random) -> Limits:
    return Limits(
        history_events=random.choice((3, 12, 40, 1_000)),
        history_bytes=random.choice((6_000, 100_000)),
        history_total_bytes=random.choice((20_000, 1_000_000)),
        history_age=random.choice((20.0, 300.0)),
        slow_consumer=random.choice(("skip", "skip", "close")),
        max_pending_presence=random.choice((0, 3, 1_000)),
    )


class Run:
    """``make_backplanes`` makes the backplane of the nodes, by default one of several kinds. ``steps`` is the number of
    actions, random by default."""

    def __init__(self, seed: int, make_backplanes: MakeBackplanes | None = None, steps: int | None = None) -> None:
        self.world = World(seed)
        random = self.world.random
        self.rates = draw_rates(random)
        self.limits = draw_limits(random)
        make_backplanes = make_backplanes or random.choice(BACKPLANES)
        self.backplanes = make_backplanes(self.world, self.rates)
        self.record: Record = self.backplanes.record
        self.channels = ["a", "b", "c", "d"][: random.choice((1, 2, 4))]
        rates = self.rates
        self.had_faults = any((rates.fail, rates.lose_answer, rates.disconnect, rates.roll_back, rates.forget))
        self._clock_step = random.choice((0.0, 0.0, 0.0, 0.002))
        self.nodes: list[SimulatedNode] = []
        for number in range(1, random.randint(1, self.backplanes.max_nodes) + 1):
            self._start_node(f"n{number}")
        self.clients: list[Client] = []
        for number in range(1, random.choice((2, 4, 8)) + 1):
            kind = random.choice(KINDS)
            self.clients.append(kind(self, f"c{number} {kind.__name__[:4].lower()}"))
        self._pace = random.choice((0.3, 1.0, 3.0))
        self._steps = steps or random.choice(STEPS)

    def simulate(self) -> Totals:
        """Raises ``Violation`` if a property does not hold."""
        world, random = self.world, self.world.random
        for _ in range(self._steps):
            world.run_until(world.now + self._pause())
            self._work()
            if world.fault(self.rates.crash):
                self._restart_node(random.choice(self.nodes))
            if world.fault(self.rates.set_clock):
                world.wall_offset += random.uniform(-60, 60)
            random.choice(self.clients).act()
        self._end()
        return Totals(1, world.now, self._steps, self.record.events, sum(client.received for client in self.clients))

    def _pause(self) -> float:
        """The time to the next action: they are in bursts."""
        kind = self.world.random.random()
        if kind < 0.25:
            return 0.0
        if kind < 0.8:
            return self.world.delay(0.02 * self._pace)
        if kind < 0.98:
            return self.world.delay(5.0 * self._pace)
        return self.world.delay(200.0 * self._pace)

    def _work(self) -> None:
        self.backplanes.step()
        for node in self.nodes:
            node.step()

    def _end(self) -> None:
        """End all faults, let everything arrive, and check that nothing is missing."""
        world = self.world
        world.has_faults = False
        world.note("run", "all faults end")
        for _ in range(int(QUIET_SECONDS / 2)):
            world.run_until(world.now + 2.0)
            self._work()
            for client in self.clients:
                client.finish()
        for client in self.clients:
            client.check_end()
        self._publish_last()
        for client in self.clients:
            client.check_end()
        if self.backplanes.shares_members:
            self._check_members()

    def _publish_last(self) -> None:
        """All is quiet, so new events reach all subscribers at once, and not only when positions are compared."""
        world, events = self.world, self.record.events
        publisher = LineSessionClient(self, "last")
        self.clients.append(publisher)
        for channel in self.channels:
            publisher.publish(channel, 1)
        world.run_until(world.now + LAST_SECONDS)
        for client in self.clients:
            client.finish()
        if self.record.events != events + len(self.channels):
            raise Violation("the last publications have failed")

    def _check_members(self) -> None:
        """Each node knows the members of each channel on all nodes, and no other ones."""
        answers: list[tuple[str, str, set[bytes]]] = []

        def add(channel: str, name: str, outcome: list[Member] | Error) -> None:
            answers.append((channel, name, set() if isinstance(outcome, Error) else {one.id for one in outcome}))

        for channel in self.channels:
            for node in self.nodes:
                on_result(node.context.broker.members(channel.encode()), partial(add, channel, node.name))
        self.world.run_until(self.world.now + LAST_SECONDS)
        for channel, name, found in answers:
            expected = {one.id for node in self.nodes for one in node.context.broker.local_members(channel.encode())}
            if found != expected:
                raise Violation(f"{name} has the members {found} of {channel} instead of {expected}", channel)
        if len(answers) != len(self.channels) * len(self.nodes):
            raise Violation("not all requests of members were answered")

    def _start_node(self, name: str) -> None:
        self.nodes.append(SimulatedNode(self.world, name, self.backplanes, self.limits, self._clock_step))

    def _restart_node(self, node: SimulatedNode) -> None:
        self.world.note(node.name, "stops, and starts again")
        self.nodes.remove(node)
        self._start_node(node.name)
        node.stop()

    # What clients check.

    def head(self, channel: str) -> int:
        """The newest offset of a channel."""
        epoch = self.record.channels.get(channel)
        return 0 if epoch is None else epoch.head
