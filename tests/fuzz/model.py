"""The server that clients of all kinds share in a test, what was published on it, and what a client must have read.

A client keeps its own account, from nothing but what it was sent: the next offset of each channel that it reads. Every
event is compared with what was published, every ``LOST`` with what the log still has, and at the end no client may have
stopped before the newest event.
"""

from random import Random
from typing import Any

from twisted.internet.task import Clock

from twistedsock.auth.origins import AllowedOrigins
from twistedsock.pubsub.values import Batch
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER
from twistedsock.testing import FakeServer

CHANNELS = ("a", "b", "c", "d")
"""The last one has no subscribers, so that it vanishes with its history."""
SIZES = (1, 1, 1, 300, 1_000, 3_000)
"""Bytes of a payload: three of the longest fill an answer."""

Position = tuple[int, str]
"""An offset, and the epoch that it belongs to."""


class Model:
    """The server, and the truth: what its broker was told, by the backplane."""

    def __init__(self, random: Random, clock: Clock, late: bool, **limits: Any) -> None:
        self.random = random
        self.clock = clock
        self.server = FakeServer(late, **limits)
        self.late = late
        self.heads: dict[tuple[str, str], int] = {}
        """The newest offset of each channel and epoch."""
        self.found: dict[str, tuple[str, str, int]] = {}
        """Channel, epoch and offset of each payload."""
        self.promised: list[tuple[str, str, int]] = []
        """Payload, channel and offset of each publish that was answered."""
        self.skipped = False
        self._published = 0
        routes = Routes(build_routes(self.server.context, clock, list))
        self.site = HTTPSite(clock, self.server.context, OriginPolicy(AllowedOrigins()), routes, DEFAULT_LISTENER)
        self._deliver, self.server.broker.deliver = self.server.broker.deliver, self._witness  # type: ignore[method-assign]

    def _witness(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        channel = name.decode()
        for event in batch.events():
            place = channel, epoch.decode(), event.offset
            assert self.found.setdefault(event.payload.decode(), place) == place, "published twice"
        key = channel, epoch.decode()
        self.heads[key] = max(self.heads.get(key, 0), batch.end - 1)
        self._deliver(name, epoch, batch)

    def payload(self) -> str:
        """Another one each time."""
        self._published += 1
        return f"n{self._published}".ljust(self.random.choice(SIZES), ".")

    def has_let_go(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether nobody can get an event any more."""
        known = self.server.broker.channels.get(channel.encode())
        return known is None or known.epoch.decode() != epoch or known.history.first > offset

    def check(self, channel: str, epoch: str, offset: int, data: str) -> None:
        """An event that somebody has read."""
        where = self.found[data]
        assert where == (channel, epoch, offset), f"{data[:9]} is {where}, and was read as {offset}"

    def check_lost(self, channel: str, epoch: str, gap: tuple[int, int]) -> None:
        """Events that somebody was told were lost."""
        assert 1 <= gap[0] <= gap[1]
        assert self.has_let_go(channel, epoch, gap[1]), f"{gap} of {channel} is said to be lost, and is there"

    def check_promises(self) -> None:
        for payload, channel, offset in self.promised:
            if payload in self.found:
                assert self.found[payload][::2] == (channel, offset)
            else:
                assert self.skipped, f"{payload[:9]} was answered with {offset}, and was never delivered"

    # What happens to all.

    def turn(self) -> None:
        self.server.turn()
        self.clock.advance(0)

    def step(self) -> None:
        self.server.turns.step()
        self.clock.advance(0)

    def age(self) -> None:
        seconds = self.random.choice((0.1, 1, 4, 11))
        self.server.now += seconds
        self.clock.advance(seconds)
        if self.random.random() < 0.7:
            self.server.broker.expire_histories()

    def release(self) -> None:
        if self.late:
            self.server.backplane.release(self.random.choice((1, 1, 2, 9)), self.random.random() < 0.3)

    def break_down(self) -> None:
        """The backplane does what it must not do."""
        if not self.late:
            return
        fault = self.random.choice(("failing", "failing", "skipping", "repeating", "restart"))
        if fault == "restart":
            self.server.restart_backplane()
        else:
            self.skipped |= fault == "skipping"
            setattr(self.server.backplane, fault, self.random.choice((1, 2)))

    def mend(self) -> None:
        if self.late:
            self.server.backplane.failing = self.server.backplane.skipping = self.server.backplane.repeating = 0


class Cursor:
    """What a client knows of a channel that it reads: which offset must come next."""

    def __init__(self, model: Model, channel: str, epoch: str, next: int) -> None:
        self.model = model
        self.channel = channel
        self.epoch = epoch
        self.next = next
        self.earliest = next
        """A replay with ``last`` may begin anywhere from here to ``next``, if nothing between them can be had."""
        self.must_lose = False

    @classmethod
    def begin(cls, model: Model, answer: dict[str, Any], asked: Position | None, last: int | None = None) -> "Cursor":
        """As the answer to a subscription says. ``asked`` is the place that it was to go on from."""
        head, epoch, recovered = answer["offset"], answer["epoch"], answer.get("recovered")
        assert (recovered is None) is (asked is None)
        cursor = cls(model, answer["channel"], epoch, head + 1)
        if asked is not None and asked[1] == epoch and asked[0] <= head:
            cursor.next = cursor.earliest = asked[0] + 1
            cursor.must_lose = not recovered
        else:
            assert not recovered, "where from?"
            cursor.earliest = max(1, head + 1 - (last or 0))
        return cursor

    @property
    def position(self) -> Position:
        return self.next - 1, self.epoch

    def event(self, offset: int, data: str) -> None:
        assert not self.must_lose, "not recovered, but nothing was lost"
        self._go_to(offset)
        self.model.check(self.channel, self.epoch, offset, data)
        self.next = self.earliest = offset + 1

    def lost(self, first: int, last: int) -> None:
        self._go_to(first)
        self.model.check_lost(self.channel, self.epoch, (first, last))
        self.must_lose = False
        self.next = self.earliest = last + 1

    def _go_to(self, offset: int) -> None:
        if self.earliest <= offset < self.next:
            assert offset == self.earliest or self.model.has_let_go(self.channel, self.epoch, offset - 1)
            return
        assert offset == self.next, f"{self.channel}: {offset} came, and {self.next} was next"

    def check_complete(self) -> None:
        assert not self.must_lose
        head = self.model.heads.get((self.channel, self.epoch), 0)
        if self.model.skipped and self.next > head:
            return  # it began behind events that were never delivered
        assert self.next == head + 1 or (
            self.earliest < self.next and self.model.has_let_go(self.channel, self.epoch, head)
        ), f"{self.channel}: {self.next} is next, and {head} was the last"


def check_history(
    model: Model,
    channel: str,
    asked: dict[str, Any],
    events: list[tuple[int, str]],
    gaps: list[tuple[int, int]],
    position: Position | None = None,
) -> None:
    """A whole answer: nothing that was asked for may be missing from it. ``position`` is where the answer
    ends, if it says so."""
    epochs = {model.found[data][1] for _, data in events} if position is None else {position[1]}
    assert len(epochs) <= 1
    if not epochs:
        return  # a line does not say where the channel stands, nor of which epoch its gaps are
    epoch = epochs.pop()
    for offset, data in events:
        model.check(channel, epoch, offset, data)
    for gap in gaps:
        model.check_lost(channel, epoch, gap)
    told = sorted([(offset, offset) for offset, _ in events] + gaps)
    assert [offset for offset, _ in events] == sorted(offset for offset, _ in events)
    for (_, end), (begin, _) in zip(told, told[1:], strict=False):
        assert begin == end + 1, f"{channel}: {begin} follows {end} in a history"
    since, last = asked.get("since"), asked.get("last")
    head = told[-1][1] if position is None else position[0]
    assert not told or told[-1][1] == head
    begin = told[0][0] if told else head + 1
    least = max(0 if since is None else since, 0 if last is None else head - last) + 1
    if since is not None:
        assert begin == min(least, head + 1), f"{channel}: a history begins at {begin}, not at {least}, of {head}"
    else:
        is_whole = begin == least or (begin > least and model.has_let_go(channel, epoch, begin - 1))
        assert is_whole, f"{channel}: a history begins at {begin}, not at {least}, of {head}"
