"""A model of delivery: predicts what each client of a server must receive, and compares it with what it received.

The ``Model`` wraps the broker of a real server and records each event that is published. Each client has a ``Cursor``
for each channel that it reads, with the next offset that it must receive. The cursor is computed from the messages that
the server sent to this client, and from nothing else. Three rules are checked:

- A received event is the one that was published with this epoch and offset, and its offset is the next one.
- A reported gap starts at the next offset, and the history of the server no longer contains its events.
- At the end of the test, each cursor is behind the newest event of its channel.
"""

from datetime import datetime
from random import Random
from typing import Any

from twisted.internet.task import Clock

from twistedsock.auth.origins import AllowedOrigins
from twistedsock.codecs.times import format_time
from twistedsock.pubsub.values import Batch
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER
from twistedsock.testing import FakeServer

CHANNELS = ("a", "b", "c", "d")
"""The last one has no subscribers, so that the server deletes it when its history is empty."""
SIZES = (1, 1, 1, 300, 1_000, 3_000)
"""Bytes of a payload: three of the longest fill a response."""

Position = tuple[int, str]
"""An offset and its epoch."""


class Model:
    """A server and its clock, the events that its backplane delivered, and the faults that a test injects.

    With ``late``, the backplane answers only when ``release`` is called."""

    def __init__(self, random: Random, clock: Clock, late: bool, **limits: Any) -> None:
        self.random = random
        self.clock = clock
        self.server = FakeServer(late, **limits)
        self.late = late
        self.heads: dict[tuple[str, str], int] = {}
        """The newest offset of each channel and epoch."""
        self.published: dict[str, tuple[str, str, int]] = {}
        """Channel, epoch and offset of each payload. All payloads are different."""
        self.times: dict[str, int] = {}
        """The time of each payload."""
        self.publishers: dict[tuple[str, str, int], bytes] = {}
        """The session that published each event."""
        self.failed: set[str] = set()
        """Payloads that the server did not publish, by its reply."""
        self.confirmed: list[tuple[str, str, int]] = []
        """Payload, channel and offset of each publication that the server confirmed to its client."""
        self.has_restarted = False
        """Whether the backplane has restarted, with other epochs."""
        self.has_skipped = False
        """Whether the backplane has left out events, so that confirmed events can be missing."""
        self._newest_times: dict[tuple[str, str], int] = {}
        self._payloads = 0
        routes = Routes(build_routes(self.server.context, clock, list))
        self.site = HTTPSite(clock, self.server.context, OriginPolicy(AllowedOrigins()), routes, DEFAULT_LISTENER)
        self._deliver, self.server.broker.deliver = self.server.broker.deliver, self._record_delivery  # type: ignore[method-assign]

    def _record_delivery(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        channel = name.decode()
        for event in batch.events():
            entry = channel, epoch.decode(), event.offset
            assert self.published.setdefault(event.payload.decode(), entry) == entry, "published twice"
            self.publishers[entry] = event.publisher
            self.times[event.payload.decode()] = event.time
        key = channel, epoch.decode()
        if batch.first > self.heads.get(key, 0):  # otherwise it was delivered before
            assert batch.time >= self._newest_times.get(key, 0), "the time has gone back"
            self._newest_times[key] = batch.time
        self.heads[key] = max(self.heads.get(key, 0), batch.end - 1)
        self._deliver(name, epoch, batch)

    def payload(self) -> str:
        """A new payload, different from all before."""
        self._payloads += 1
        return f"n{self._payloads}".ljust(self.random.choice(SIZES), ".")

    def bound(self, head: int) -> int | str:
        """A random bound for a history: an offset near the newest one, or a time near that of an event, or now."""
        if self.random.random() < 0.5 or self.has_skipped:
            return max(0, head - self.random.choice((0, 1, 3, 9)))
        time = self.random.choice([int(self.server.wall * 1000), *list(self.times.values())[-20:]])
        return format_time(time + self.random.choice((-1, 0, 1))).decode()

    def has_dropped(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether the history of the server no longer contains this event."""
        known = self.server.broker.channels.get(channel.encode())
        return known is None or known.epoch.decode() != epoch or known.history.first > offset

    def check_event(self, channel: str, epoch: str, offset: int, data: str) -> None:
        """Compare an event that a client received with the publications."""
        expected = self.published[data]
        assert expected == (channel, epoch, offset), f"{data[:9]} is {expected}, but was received as {offset}"

    def check_time(self, event: dict[str, Any]) -> None:
        """Compare the time of an event that a client received, if it was sent, with that of the publication."""
        data, time = event["data"], event.get("time")
        assert time in (None, self.times[data]), f"{data[:9]} was received with the time {time}"

    def check_gap(self, channel: str, epoch: str, gap: tuple[int, int]) -> None:
        """Check a gap that the server reported to a client: first and last offset of the lost events."""
        assert 1 <= gap[0] <= gap[1]
        assert self.has_dropped(channel, epoch, gap[1]), (
            f"{gap} of {channel} was reported as lost, but the history contains it"
        )

    def check_confirmations(self) -> None:
        """Each confirmed event has been delivered, with the confirmed offset, and no failed one: unless the backplane
        restarted, because a publication is answered with an error if its epoch cannot be opened."""
        assert self.has_restarted or not self.failed & self.published.keys()
        for payload, channel, offset in self.confirmed:
            if payload in self.published:
                assert self.published[payload][::2] == (channel, offset)
            else:
                assert self.has_skipped, f"{payload[:9]} was confirmed as {offset}, but never delivered"

    def check_server(self) -> None:
        """The server counts the bytes of all histories, and keeps encoding groups only while they have subscribers."""
        broker = self.server.broker
        assert broker.histories.size == sum(channel.history.size for channel in broker.channels.values())
        for channel in broker.channels.values():
            encoders = {subscription.encoder for subscription in channel.subscriptions.values()}
            assert set(channel.encoding_groups) <= encoders

    # Time, and the backplane.

    def turn(self) -> None:
        self.server.turn()
        self.clock.advance(0)

    def step(self) -> None:
        self.server.turns.step()
        self.clock.advance(0)

    def pass_time(self) -> None:
        seconds = self.random.choice((0.1, 1, 4, 11))
        self.server.now += seconds
        self.server.wall += self.random.choice((seconds, seconds, seconds, -seconds))
        self.clock.advance(seconds)
        if self.random.random() < 0.7:
            self.server.broker.expire_histories()

    def release(self) -> None:
        if self.late:
            self.server.backplane.release(self.random.choice((1, 1, 2, 9)), self.random.random() < 0.3)

    def inject_fault(self) -> None:
        """Make the backplane fail, leave out or repeat the next events, or restart."""
        if not self.late:
            return
        fault = self.random.choice(("failing", "failing", "skipping", "repeating", "restart"))
        if fault == "restart":
            self.has_restarted = True
            self.server.restart_backplane()
        else:
            self.has_skipped |= fault == "skipping"
            setattr(self.server.backplane, fault, self.random.choice((1, 2)))

    def end_faults(self) -> None:
        if self.late:
            self.server.backplane.failing = self.server.backplane.skipping = self.server.backplane.repeating = 0


class Cursor:
    """The next offset that one client must receive of one channel, and its epoch. ``own`` is the session whose events
    the client does not receive, with ``echo=off``."""

    def __init__(self, model: Model, channel: str, epoch: str, next: int, own: bytes | None = None) -> None:
        self.model = model
        self.channel = channel
        self.epoch = epoch
        self.next = next
        self.own = own
        self.optional: set[int] = set()
        """Own events that an earlier subscription with ``echo=off`` may have skipped."""
        self.earliest = next
        """A replay with ``last`` can start at any offset from this one to ``next``, if the history has dropped those
        before it."""
        self.must_lose = False
        """Whether a gap must be reported before the next event, because the reply said ``recovered: false``."""

    @classmethod
    def from_reply(
        cls,
        model: Model,
        reply: dict[str, Any],
        since: Position | None,
        last: int | None = None,
        own: bytes | None = None,
    ) -> "Cursor":
        """The cursor after the reply to a subscription that asked for the events after ``since``, or the ``last``
        events."""
        head, epoch, recovered = reply["offset"], reply["epoch"], reply.get("recovered")
        assert (recovered is None) is (since is None)
        cursor = cls(model, reply["channel"], epoch, head + 1, own)
        if since is not None and since[1] == epoch and since[0] <= head:
            cursor.next = cursor.earliest = since[0] + 1
            cursor.must_lose = not recovered
        else:
            assert not recovered, "recovered from an unknown position"
            cursor.earliest = max(1, head + 1 - (last or 0))
        return cursor

    @property
    def position(self) -> Position:
        return self.next - 1, self.epoch

    def follow(self, before: "Cursor", head: int, client: bytes) -> None:
        """Replace the cursor ``before`` of the same client, when the newest offset was ``head``: the new subscription
        also receives the events that the old one has not received yet."""
        assert not before.must_lose
        self.optional = set(before.optional)
        if before.own is not None:
            own = {offset for offset in range(before.earliest, head + 1) if self._publisher(offset) == client}
            self.optional |= own
        self.next = min(self.next, before.next)
        self.earliest = min(self.earliest, before.earliest)

    def receive_event(self, offset: int, data: str) -> None:
        assert not self.must_lose, "the reply said that events were lost, but no gap was reported"
        assert self.own is None or self._publisher(offset) != self.own, "an own event, with echo=off"
        self._check_next(offset)
        self.model.check_event(self.channel, self.epoch, offset, data)
        self.next = self.earliest = offset + 1

    def receive_gap(self, first: int, last: int) -> None:
        self._check_next(first)
        self.model.check_gap(self.channel, self.epoch, (first, last))
        self.must_lose = False
        self.next = self.earliest = last + 1

    def receive_reset(self, epoch: str, good: int, offset: int) -> None:
        """The channel has a new epoch. The backplane of this model knows nothing of the former one."""
        assert (epoch != self.epoch, good, offset) == (True, 0, 0)
        self.epoch, self.next, self.earliest = epoch, 1, 1
        self.must_lose, self.optional = False, set()

    def _publisher(self, offset: int) -> bytes | None:
        return self.model.publishers.get((self.channel, self.epoch, offset))

    def _can_skip(self, offset: int) -> bool:
        """Whether the client need not receive an event, because it published the event itself."""
        return offset in self.optional or (self.own is not None and self._publisher(offset) == self.own)

    def _check_next(self, offset: int) -> None:
        assert offset >= self.earliest, f"{self.channel}: received {offset} again, after {self.earliest - 1}"
        for each in range(self.earliest, min(self.next, offset)):
            assert self._can_skip(each) or self.model.has_dropped(self.channel, self.epoch, each), (
                f"{self.channel}: a replay started at {offset}, but the history contains {each}"
            )
        for each in range(self.next, offset):
            assert self._can_skip(each), f"{self.channel}: received {offset} instead of {each}"

    def check_complete(self) -> None:
        """The client has received the newest event of the channel."""
        assert not self.must_lose
        head = self.model.heads.get((self.channel, self.epoch), 0)
        if not self.model.has_skipped or self.next <= head:
            self._check_next(head + 1)


def check_history(
    model: Model,
    channel: str,
    request: dict[str, Any],
    events: list[tuple[int, str]],
    gaps: list[tuple[int, int]],
    position: Position | None = None,
) -> None:
    """Check the complete reply to a request for the history: each requested event is in it, or reported as lost.
    ``request`` can have ``since``, ``after``, ``before`` and ``last``. ``position`` is that of the channel, if the
    protocol sends it."""
    epochs = {model.published[data][1] for _, data in events} if position is None else {position[1]}
    assert len(epochs) <= 1
    if not epochs:
        return  # the line protocol sends no position, so the epoch of the gaps is unknown
    epoch = epochs.pop()
    for offset, data in events:
        model.check_event(channel, epoch, offset, data)
    for gap in gaps:
        model.check_gap(channel, epoch, gap)
    items = sorted([(offset, offset) for offset, _ in events] + gaps)
    assert [offset for offset, _ in events] == sorted(offset for offset, _ in events)
    for (_, end), (start, _) in zip(items, items[1:], strict=False):
        assert start == end + 1, f"{channel}: {start} follows {end} in a history"
    times = {
        offset: model.times[data] for data, (*place, offset) in model.published.items() if place == [channel, epoch]
    }
    head = items[-1][1] if position is None else position[0]
    matching = [offset for offset in range(1, head + 1) if matches(request, offset, times.get(offset))]
    last = request.get("last")
    requested = {*(matching if last is None else matching[len(matching) - min(last, len(matching)) :])}
    sent, lost = {offset for offset, _ in events}, {each for gap in gaps for each in range(gap[0], gap[1] + 1)}
    assert sent <= requested, f"{channel}: {min(sent - requested)} was not requested"
    missing = requested - sent - lost
    if request.keys() & {"since", "after"}:
        assert not missing, f"{channel}: {min(missing)} is missing in a history"
    else:
        assert all(model.has_dropped(channel, epoch, offset) for offset in missing)
        assert max(missing, default=0) < min(sent | lost, default=head + 1)
    if has_times(request):
        # The times of dropped events are not known, so some more can be reported as lost.
        requested |= {offset for offset in range(1, head + 1) if matches(request, offset, None)}
    assert lost <= requested, f"{channel}: {min(lost - requested)} was not requested, but reported as lost"


def has_times(request: dict[str, Any]) -> bool:
    return any(isinstance(request.get(name), str) for name in ("after", "before"))


def matches(request: dict[str, Any], offset: int, time: int | None) -> bool:
    """Whether an event is requested. The bounds that are times count only if its time is known."""

    def is_beyond(bound: int | str, direction: int) -> bool:
        if isinstance(bound, int):
            return direction * offset > direction * bound
        milliseconds = round(datetime.fromisoformat(bound).timestamp() * 1000)
        return time is None or direction * time > direction * milliseconds

    after = [request[name] for name in ("since", "after") if name in request]
    before = [request[name] for name in ("before",) if name in request]
    return all(is_beyond(bound, 1) for bound in after) and all(is_beyond(bound, -1) for bound in before)
