"""Requests for a part of a history, and the checks of what they return: compared with all events that were stored."""

from typing import TYPE_CHECKING, Any

from tests.simulation.world import FIRST_WALL_SECONDS, Violation, World

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode
    from tests.simulation.record import EpochRecord, Record

Bounds = dict[str, Any]
"""``since``, ``last``, and ``after`` and ``before``: offsets, or times in milliseconds since 1970 if they are larger
than any offset."""


def is_time(bound: int) -> bool:
    return bound > FIRST_WALL_SECONDS


def draw_bounds(world: World, epoch: "EpochRecord | None") -> Bounds:
    """Bounds at or near offsets and times of events, so that they fall on all kinds of edges."""
    random, bounds = world.random, Bounds()
    head = 0 if epoch is None else epoch.head

    def draw_bound() -> int:
        if epoch is None or not epoch.batches or random.random() < 0.5:
            return max(0, head - random.choice((0, 1, 2, 5, 12, 30, 100)))
        return random.choice(epoch.batches[-40:]).time + random.choice((-1, 0, 0, 1))

    if random.random() < 0.4:
        bounds["since"] = max(0, head - random.choice((0, 1, 5, 30, 100)))
    elif random.random() < 0.6:
        bounds["after"] = draw_bound()
    if random.random() < 0.3:
        bounds["before"] = draw_bound()
    if random.random() < 0.3:
        bounds["last"] = random.choice((0, 1, 5, 30))
    return bounds


class HistoryCheck:
    """Of one request, which is being sent to ``node``."""

    def __init__(self, record: "Record", node: "SimulatedNode", channel: str, bounds: Bounds) -> None:
        self._record = record
        self._node = node
        self._channel = channel
        self._bounds = bounds
        self._head = node.head(channel)

    def check(self, items: list[dict[str, Any]]) -> None:
        """Each event is there, or reported as lost in its place. ``items`` are in order: events and lost ranges."""
        self._check_order(items)
        epochs = [epoch for (channel, _), epoch in self._record.epochs.items() if channel == self._channel]
        fitting = [epoch for epoch in epochs if all(self._has(epoch, item) for item in items)]
        if not fitting:
            self._fail(f"{items} is not the history of any epoch")
        if len(epochs) == 1 and self._head:
            self._check_completeness(epochs[0], items)

    def _check_order(self, items: list[dict[str, Any]]) -> None:
        last, events = self._bounds.get("last"), sum(item["type"] == "event" for item in items)
        if last is not None and events > last:
            self._fail(f"more than {last} events")
        after = self._bounds.get("since", self._bounds.get("after"))
        if after is not None and (is_time(after) or last is not None):
            after = None
        for item in items:
            if after is not None and _first(item) != after + 1:
                self._fail(f"{_first(item)} after {after}")
            after = _last(item)

    def _has(self, epoch: "EpochRecord", item: dict[str, Any]) -> bool:
        if item["type"] != "event":
            return True
        try:
            self._record.check_event(self._channel, epoch.name.decode(), item["offset"], item["name"], item["data"])
        except Violation:
            return False
        return True

    def _check_completeness(self, epoch: "EpochRecord", items: list[dict[str, Any]]) -> None:
        """Every event that matches the bounds is in the reply if it can be, and no other one is."""
        name, last = epoch.name.decode(), self._bounds.get("last")
        wanted = [offset for offset in range(1, self._head + 1) if self._matches(epoch, offset)]
        covered = {offset for item in items for offset in range(_first(item), _last(item) + 1)}
        for item in items:
            if item["type"] == "event" and not self._matches(epoch, item["offset"]):
                self._fail(f"{item['offset']} was not requested")
            elif item["type"] == "lost" and not self._node.is_lost(self._channel, name, item["last"]):
                self._fail(f"{item['last']} was reported as lost, but is not")
        has_lower = "since" in self._bounds or "after" in self._bounds
        if not self._bounds or last == 0:
            return
        if last is not None:
            # Newer events, which were stored after the request was sent, can count.
            newer = [offset for offset in covered if offset > self._head]
            wanted = wanted[max(0, len(wanted) + len(newer) - last) :] if len(newer) < last else []
        missing = [offset for offset in wanted if offset not in covered]
        if not has_lower:
            missing = [one for one in missing if not self._node.is_deleted(self._channel, name, one)]
        if missing:
            self._fail(f"{missing} are missing")

    def _matches(self, epoch: "EpochRecord", offset: int) -> bool:
        batch = epoch.batch_at(offset)
        assert batch is not None
        for name, sign in (("since", 1), ("after", 1), ("before", -1)):
            bound = self._bounds.get(name)
            if bound is not None and ((batch.time if is_time(bound) else offset) - bound) * sign <= 0:
                return False
        return True

    def _fail(self, message: str) -> None:
        raise Violation(f"{self._channel}: the history {self._bounds} has {message}", self._channel)


def _first(item: dict[str, Any]) -> int:
    first: int = item["offset"] if item["type"] == "event" else item["first"]
    return first


def _last(item: dict[str, Any]) -> int:
    last: int = item["offset"] if item["type"] == "event" else item["last"]
    return last
