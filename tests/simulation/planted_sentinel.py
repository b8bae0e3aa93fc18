"""Planted faults of what finds the master through Sentinels."""

from typing import Any

from tests.simulation.faults import FaultRates
from tests.simulation.planting import Patch, planted_in
from tests.simulation.redis import RedisFaults
from tests.simulation.sentinel import SentinelBackplanes
from tests.simulation.world import World
from twistedsock.redis.sentinel import Master, Sentinels, SentinelWatcher

STEPS = 250


def make(world: World, rates: FaultRates) -> SentinelBackplanes:
    return SentinelBackplanes(world, rates, RedisFaults(promote=0.02), cut_off=1.0)


@planted_in(make, STEPS)
def first_sentinel_believed(patch: Patch) -> None:
    """The first Sentinel that answers counts, and not the one with the newest configuration."""

    def first(self: Sentinels) -> Master | None:
        return next((watcher.master for watcher in self._watchers if watcher.master is not None), None)

    patch(Sentinels, "_newest", first)


@planted_in(make, STEPS)
def new_master_not_noticed(patch: Patch) -> None:
    """A Sentinel is asked once: that it calls another server the master later is ignored."""
    note = SentinelWatcher._note

    def note_once(self: SentinelWatcher, reply: Any) -> bool:
        known = self.master
        is_answer = note(self, reply)
        self.master = known or self.master
        return is_answer

    patch(SentinelWatcher, "_note", note_once)
    patch(SentinelWatcher, "lost", lambda self: None)
