"""One run: a server, the load, a sample each second, and the check at the end that nothing is left."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.contestant import TCP, WEBSOCKET
from bench.peers.process import Server
from bench.soak import floods
from bench.soak.load import Load
from bench.soak.samples import Sample, memory, open_files
from bench.soak.verdict import Verdict, judge
from bench.soak.world import World
from twistedsock.bench.measurement import ProcessUsage

TROUBLE = re.compile(r"^.*(?:Traceback|Unhandled|#(?:error|critical)\]).*$", re.MULTILINE)

SWEPT = 6.0
"""Seconds after which the server has swept its silent channels: it does so every five."""

PATIENCE = 30.0
"""Seconds until the server must have closed every connection that its client closed: it lingers for ten at most."""

REACHED = (
    "floods of channels",
    "floods of connections",
    "floods of subscriptions",
    "logs gave way to history-total-bytes",
    "slow readers that received LOST",
    "stalled readers that received LOST",
    "watchers asked to send WHO",
)
"""Limits that a whole run must have reached: all that have no error of its own in the counts below."""


@dataclass
class Outcome:
    """``before`` and ``after`` are samples of the idle server."""

    samples: list[Sample] = field(default_factory=list)
    before: Sample | None = None
    after: Sample | None = None
    verdict: Verdict | None = None

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(sample.at, float(sample.resident)) for sample in self.samples]


class Soak:
    """``on_sample`` is called with each sample."""

    def __init__(self, server: Server, world: World, on_sample: Callable[[Sample], object]) -> None:
        self.outcome = Outcome()
        self._server = server
        self._world = world
        self._on_sample = on_sample
        (self._pid,) = server.pids()
        self._usage = ProcessUsage([self._pid])
        self._start = self._last = time.monotonic()
        self._counted = self._counts()

    async def run(self) -> Outcome:
        """Run the load, let the server rest, and check what is left. Faults are added to the tally of the world."""
        outcome = self.outcome
        outcome.before = self._sample()
        load = Load(self._world)
        load.start()
        try:
            await self._watch()
        finally:
            await load.stop()
        outcome.verdict = judge(outcome.points)
        await self._rest(outcome.before)
        outcome.after = self._sample()
        self._check_reached()
        for words in TROUBLE.findall(self._server.log())[:5]:
            self._world.tally.blame(f"in the bridge's log: {words}")
        return outcome

    async def _watch(self) -> None:
        due = self._start
        while (due := due + 1.0) <= self._start + self._world.bounds.seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.outcome.samples.append(self._sample())
            self._on_sample(self.outcome.samples[-1])

    async def _rest(self, before: Sample) -> None:
        """All clients have disconnected: everything that they used must be free again. Using it once more proves it."""
        world = self._world
        await self._close_files(before)
        let_in = await floods.connections(world, hold=0.0)
        if let_in != world.bounds.max_connections:
            world.tally.blame(f"all had gone, and {let_in} of {world.bounds.max_connections} were let in")
        await asyncio.sleep(world.bounds.history_age * 1.05 + SWEPT)
        made = await floods.channels(world)
        if made != world.bounds.max_channels:
            world.tally.blame(
                f"all logs were too old, and {made} of {world.bounds.max_channels} channels could be made"
            )
        await self._close_files(before)
        await asyncio.sleep(world.bounds.history_age * 1.05 + SWEPT)

    async def _close_files(self, before: Sample) -> None:
        deadline = time.monotonic() + PATIENCE
        while (now := open_files(self._pid)) != before.files:
            if time.monotonic() > deadline:
                self._world.tally.blame(f"{before.files} files were open before, {now} are when all have gone")
                return
            await asyncio.sleep(0.1)

    def _check_reached(self) -> None:
        """Only a whole run reaches every limit."""
        if self.outcome.verdict is not None:
            for what in REACHED:
                if not self._world.tally.seen[what]:
                    self._world.tally.blame(f"never happened: {what}")

    def _counts(self) -> tuple[float, ...]:
        tally = self._world.tally
        return (self._usage.cpu(), tally.events, tally.deliveries, tally.visits, time.process_time())

    def _sample(self) -> Sample:
        now, counts = time.monotonic(), self._counts()
        seconds = max(1e-3, now - self._last)
        cpu, *rest = [(count - before) / seconds for count, before in zip(counts, self._counted, strict=True)]
        self._last, self._counted = now, counts
        tally = self._world.tally
        channels = min(self._world.names.alive(now), self._world.bounds.max_channels)
        return Sample(
            round(now - self._start, 2),
            *memory(self._pid),
            round(cpu, 4),
            open_files(self._pid),
            tally.connections,
            channels,
            *[round(each, 3) for each in rest],
        )


def addresses(server: Server) -> tuple[tuple[str, int], tuple[str, int]]:
    """The addresses of the line port and of the web port."""
    targets = server.targets()
    return targets[TCP].address, targets[WEBSOCKET].address
