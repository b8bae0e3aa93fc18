"""A backplane for several nodes: one ``Store``, and a ``Link`` of each node to it.

The store is a log for each channel, as a Redis or a database would keep it. A link is the backplane that the node's
broker uses. Its messages take time; they keep their order within a channel, but not between channels. Both fail as
``tests.simulation.faults`` describes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.simulation.backplanes import READ_BYTES, values_of
from tests.simulation.faults import FaultRates
from tests.simulation.record import EpochRecord, Record
from tests.simulation.world import World
from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Position,
    PresenceChange,
    Publication,
)

CHECK_SECONDS = 30.0
"""How often a link compares its positions with those of the store, because the last batch may have been skipped."""

MAX_DELAY_SECONDS = 20.0
"""The longest time that a message takes, or that a node has no connection: less than the time at the end of a run in
which the system becomes quiet."""


class Store:
    """The logs of all channels, and the links that follow them. ``kept`` is the number of events that nodes can read of
    each, ``tail`` the number of those that they get when they open it."""

    def __init__(self, world: World, record: Record, kept: int, tail: int) -> None:
        self.world = world
        self.record = record
        self.kept = kept
        self.tail = min(kept, tail)
        self._read_bytes = world.random.choice(READ_BYTES)
        self.followers: dict[bytes, dict[Link, None]] = {}
        self._epochs = 0
        # The time of the newest event of each channel.
        self._times: dict[str, int] = {}

    def append(self, publisher: Client, publication: Publication) -> tuple[bytes, Batch]:
        """Store events. Returns their epoch, and the batch with their offsets."""
        name, payloads = publication.channel.decode(), publication.payloads
        epoch = self.current(name)
        first = epoch.head + 1
        end = first + len(payloads.items)
        time = self._times[name] = max(self._times.get(name, 0), int(self.world.wall() * 1000))
        batch = Batch(first, end, publisher.id, publisher.nick, publication.name, payloads, time)
        self.record.store(name, epoch, batch, values_of(batch), self.world.now)
        epoch.kept_from = max(epoch.kept_from, end - self.kept)
        self.world.note("store", f"stores {_range(batch)} of {epoch.name.decode()} from {publisher.id.decode()}", name)
        return epoch.name, batch

    def state(self, channel: bytes) -> ChannelState:
        """The state of a channel for a node that opens it."""
        epoch = self.current(channel.decode())
        first = max(epoch.kept_from, epoch.head + 1 - self.tail)
        tail = epoch.batches_from(first)
        before = epoch.batch_at(first - 1)
        previous = epoch.previous
        good = None if previous is None else Position(previous.name, epoch.good)
        return ChannelState(
            Position(epoch.name, epoch.head), tail, 0 if before is None else before.time, epoch.begin, good
        )

    def read(self, channel: bytes, after: Position, limit: int) -> list[Batch]:
        """The events after a position, about ``limit`` bytes."""
        epoch, found = self.current(channel.decode()), list[Batch]()
        limit = min(limit, self._read_bytes)
        if epoch.name == after.epoch:
            for batch in epoch.batches_from(max(epoch.kept_from, after.offset + 1)):
                found.append(batch)
                limit -= batch.payloads.size
                if limit <= 0:
                    break
        return found

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int:
        current = self.current(channel.decode())
        return current.offset_before(time) if current.name == epoch else 0

    def current(self, channel: str) -> EpochRecord:
        """The current epoch of a channel. The first one begins now."""
        epoch = self.record.channels.get(channel)
        return epoch if epoch is not None else self._begin_epoch(channel, 0, None)

    def roll_back(self, seconds: float, continues: bool) -> None:
        """Lose all events of the last ``seconds``, and begin new epochs. Their numbers go on after the last event that
        is left if the numbering ``continues``, and otherwise start again."""
        for channel, epoch in list(self.record.channels.items()):
            left = [
                batch
                for batch, time in zip(epoch.batches, epoch.times, strict=True)
                if time <= self.world.now - seconds
            ]
            good = left[-1].end - 1 if left else epoch.begin
            begin = good if continues else 0
            following = self._begin_epoch(channel, begin, epoch, good)
            if following.continues:
                following.kept_from = min(epoch.kept_from, begin + 1)
            self.world.note(
                "store",
                f"loses {seconds:.2f} s: {epoch.name.decode()} is good to {good} of {epoch.head}, "
                f"{following.name.decode()} begins after {begin}",
                channel,
            )

    def forget(self, channel: str) -> None:
        """Lose all of a channel, also its position."""
        epoch = self._begin_epoch(channel, 0, None)
        self.world.note("store", f"forgets the channel: {epoch.name.decode()} begins", channel)

    def _begin_epoch(self, channel: str, begin: int, previous: EpochRecord | None, good: int = 0) -> EpochRecord:
        self._epochs += 1
        epoch = EpochRecord(b"e%d" % self._epochs, begin, previous, good)
        self.record.begin_epoch(channel, epoch)
        return epoch


def _range(batch: Batch) -> str:
    return str(batch.first) if len(batch) == 1 else f"{batch.first} to {batch.end - 1}"


def _show(position: Position) -> str:
    return f"{position.epoch.decode()}:{position.offset}"


class Request:
    """A question of a node that has no answer yet."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future = Future[Any]()


def _do_nothing() -> None: ...


Answer = tuple[Any, Callable[[], None]]
"""The result of a request, and what the link does at the node right before it answers."""


class Link:
    """The connection of one node to the store: the backplane of that node. ``after_call`` is called when the link has
    called the node."""

    def __init__(
        self,
        name: str,
        world: World,
        store: Store,
        rates: FaultRates,
        keeps_history: bool,
        after_call: Callable[[], None],
    ) -> None:
        self.name = name
        self.node_name = name.encode()
        self.keeps_history = keeps_history
        self.failed_reads: set[str] = set()
        """The channels of which a request to read has failed."""
        self.is_ready = True
        self.after_call = after_call
        self._world = world
        self._store = store
        self._rates = rates
        self._node: Node
        # The channels that the node has open, and the position up to which they were delivered.
        self._open: dict[bytes, Position] = {}
        self._requests: dict[Request, None] = {}
        # When the last message of each channel in each direction arrives.
        self._arrivals: dict[tuple[bytes, bool], float] = {}
        # Counts the connections to the store. Messages of the store on a former connection are lost.
        self._connection = 0
        self._down_until = 0.0
        self._checked = 0.0

    def start(self, node: Node) -> None:
        self._node = node

    # Calls of the broker.

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        # The nick is the one of now, not of the time at which the store does it.
        now = Client(publisher.id, publisher.principal)
        now.nick = publisher.nick
        return self._ask(publication.channel, "publish", partial(self._publish, now, publication))

    def open(self, channel: bytes) -> ChannelState | Error | Future[ChannelState]:
        return self._ask(channel, "open", partial(self._follow, channel))

    def read(self, channel: bytes, after: Position, limit: int) -> list[Batch] | Error | Future[list[Batch]]:
        if not self.keeps_history:
            return []
        self._world.note(self.name, f"reads after {after.offset} of {after.epoch.decode()}", channel.decode())
        answer = self._ask(channel, "read", lambda: (self._store.read(channel, after, limit), _do_nothing))
        on_result(answer, partial(self._note_read, channel))
        return answer

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int | Error | Future[int]:
        answer = self._ask(channel, "search", lambda: (self._store.offset_before(channel, epoch, time), _do_nothing))
        on_result(answer, partial(self._note_read, channel))
        return answer

    def close(self, channel: bytes) -> None:
        self._open.pop(channel, None)
        if self.is_ready:
            self._send(channel, True, partial(self._unfollow, channel))

    def join(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=True))

    def rename(self, channel: bytes, member: Member) -> None:
        """Does nothing: ``members`` asks the node."""

    def leave(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=False))

    def members(self, channel: bytes) -> list[Member]:
        return self._node.local_members(channel)

    def send(self, command: NodeCommand) -> None:
        """Does nothing: the simulation has no commands of operators."""

    def _note_read(self, channel: bytes, outcome: object) -> None:
        if isinstance(outcome, Error):
            self.failed_reads.add(channel.decode())

    # Requests, as the store runs them.

    def _publish(self, publisher: Client, publication: Publication) -> Answer:
        channel = publication.channel
        epoch, batch = self._store.append(publisher, publication)
        deliver_own = _do_nothing
        for link in list(self._store.followers.get(channel, ())):
            if link is not self:
                link.send_delivery(channel, epoch, batch)
            else:
                deliver_own = partial(self._deliver, channel, epoch, batch)
        return batch.first, deliver_own

    def _follow(self, channel: bytes) -> Answer:
        self._store.followers.setdefault(channel, {})[self] = None
        state = self._store.state(channel)
        return state, partial(self._opened, channel, state.position)

    def _unfollow(self, channel: bytes) -> None:
        self._store.followers.get(channel, {}).pop(self, None)

    # Calls of the node.

    def _opened(self, channel: bytes, position: Position) -> None:
        self._open[channel] = position

    def _deliver(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        known = self._open.get(channel)
        if known is not None:
            if known.epoch == epoch:  # otherwise the node asks for the new epoch
                self._open[channel] = Position(epoch, batch.end - 1)
            self._node.deliver(channel, epoch, batch)

    def _deliver_again(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        if channel in self._open:
            self._world.note(self.name, f"is sent {_range(batch)} of {epoch.decode()} again", channel.decode())
            self._node.deliver(channel, epoch, batch)

    def send_delivery(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        if self._is_skipped(channel, batch):
            return
        self._send(channel, False, partial(self._deliver, channel, epoch, batch))
        if self._world.fault(self._rates.repeat):
            again = partial(self._deliver_again, channel, epoch, batch)
            self._world.after(
                self._world.delay(self._world.random.choice((0.01, 1, 30))),
                partial(self._arrive, self._connection, False, again),
            )

    def _is_skipped(self, channel: bytes, batch: Batch) -> bool:
        is_skipped = self._world.fault(self._rates.skip)
        if is_skipped:
            self._world.note(self.name, f"is not sent {_range(batch)}", channel.decode())
        return is_skipped

    # Requests and messages.

    def _ask(self, channel: bytes, what: str, act: Callable[[], Answer]) -> Any:
        world, name = self._world, channel.decode()
        if not self.is_ready:
            world.note(self.name, f"{what} fails: no connection", name)
            return UNAVAILABLE
        if world.fault(self._rates.fail):
            world.note(self.name, f"{what} fails", name)
            if world.chance(0.3):
                return UNAVAILABLE
            act = _fail
        elif self._is_silent(channel) and world.chance(self._rates.immediate):
            outcome, before = act()
            before()
            return outcome
        request = Request()
        self._requests[request] = None
        self._send(channel, True, partial(self._run, channel, request, what, act))
        return request.future

    def _is_silent(self, channel: bytes) -> bool:
        """Whether no message about a channel is on its way."""
        arrivals, now = self._arrivals, self._world.now
        return arrivals.get((channel, True), 0.0) < now and arrivals.get((channel, False), 0.0) < now

    def _run(self, channel: bytes, request: Request, what: str, act: Callable[[], Answer]) -> None:
        """The request has reached the store."""
        if request not in self._requests and self._world.chance(0.5):
            return  # the connection broke before
        outcome, before = act()
        if request not in self._requests:
            return
        if self._world.fault(self._rates.lose_answer):
            self._world.note(self.name, f"{what} fails: the answer is lost", channel.decode())
            outcome = UNAVAILABLE
        self._send(channel, False, partial(self._answer, request, outcome, before))

    def _answer(self, request: Request, outcome: Any, before: Callable[[], None]) -> None:
        if not isinstance(outcome, Error):
            before()
        del self._requests[request]
        request.future.settle(outcome)

    def _send(self, channel: bytes, to_store: bool, call: Callable[[], None]) -> None:
        """Make a call at the other end, after those that were sent before for the same channel."""
        world = self._world
        delay = world.delay(self._rates.request_delay if to_store else self._rates.delivery_delay)
        if world.fault(self._rates.slow):
            delay = min(MAX_DELAY_SECONDS, delay * 1000)
        key = channel, to_store
        arrival = self._arrivals[key] = max(self._arrivals.get(key, 0.0), world.now + delay)
        world.at(arrival, partial(self._arrive, self._connection, to_store, call))

    def _arrive(self, connection: int, to_store: bool, call: Callable[[], None]) -> None:
        if to_store:
            call()
        elif connection == self._connection:
            call()
            self.after_call()

    # The connection.

    def stop(self) -> None:
        self.is_ready = False
        self._down_until = float("inf")
        self._connection += 1
        self._requests.clear()
        self._leave_store()

    def disconnect(self, seconds: float) -> None:
        """Lose the connection, and connect again after ``seconds``. Requests without an answer fail."""
        world = self._world
        self._down_until = max(self._down_until, world.now + seconds)
        world.at(self._down_until, self._reconnect)
        if not self.is_ready:
            return
        world.note(self.name, f"loses its connection to the store for {seconds:.3f} s")
        self.is_ready = False
        self._connection += 1
        self._leave_store()
        requests, self._requests = self._requests, {}
        for request in requests:
            request.future.settle(UNAVAILABLE)
        self.after_call()

    def _leave_store(self) -> None:
        for followers in self._store.followers.values():
            followers.pop(self, None)

    def _reconnect(self) -> None:
        if not self.is_ready and self._world.now >= self._down_until:
            self._world.note(self.name, "is connected to the store again")
            self.is_ready = True
            self.compare_positions()

    def check(self) -> None:
        """Compare positions if that is due."""
        if self.is_ready and self._world.now >= self._checked + CHECK_SECONDS:
            self.compare_positions()

    def compare_positions(self) -> None:
        """Ask the store for the positions of all open channels, and deliver what is missing."""
        self._checked = self._world.now
        for channel in list(self._open):
            self._send(channel, True, partial(self._compare, self._connection, channel))

    def _compare(self, connection: int, channel: bytes) -> None:
        if connection != self._connection:
            return
        self._store.followers.setdefault(channel, {})[self] = None
        newest = self._store.current(channel.decode()).batches[-1:]
        self._send(channel, False, partial(self._catch_up, channel, self._store.state(channel), newest))

    def _catch_up(self, channel: bytes, state: ChannelState, newest: list[Batch]) -> None:
        known, position = self._open.get(channel), state.position
        if known is None or known == position:
            return
        self._world.note(
            self.name, f"is at {_show(known)}, is sent the newest position {_show(position)}", channel.decode()
        )
        if newest and self._world.chance(0.3):  # the node notices the gap or the new epoch
            self._deliver(channel, position.epoch, newest[0])
        else:
            self._open[channel] = position
            self._node.reset(channel, state)


def _fail() -> Answer:
    return UNAVAILABLE, _do_nothing


class SharedBackplanes:
    """One store, and a link for each node."""

    max_nodes = 3
    shares_members = False

    def __init__(self, world: World, rates: FaultRates) -> None:
        random = world.random
        self.record = Record()
        self._world = world
        self._rates = rates
        self._store = Store(world, self.record, kept=random.choice((5, 30, 1_000)), tail=random.choice((0, 10, 1_000)))
        self._keeps_history = random.random() < 0.8
        self._links: dict[Link, None] = {}

    def keeps(self, backplane: Link, channel: str, epoch: str, offset: int) -> bool:
        kept = self.record.channels[channel]
        return backplane.keeps_history and kept.name.decode() == epoch and kept.kept_from <= offset

    def has_failed_to_read(self, backplane: Link, channel: str) -> bool:
        return channel in backplane.failed_reads

    def losses(self, backplane: Link) -> int:
        return 0

    def connect(self, name: str, after_call: Callable[[], None]) -> Link:
        link = Link(name, self._world, self._store, self._rates, self._keeps_history, after_call)
        self._links[link] = None
        return link

    def disconnect(self, backplane: Link) -> None:
        backplane.stop()
        del self._links[backplane]

    def step(self) -> None:
        world, rates, random = self._world, self._rates, self._world.random
        for link in self._links:
            link.check()
        if world.fault(rates.disconnect):
            random.choice(list(self._links)).disconnect(min(MAX_DELAY_SECONDS, world.delay(random.choice((0.01, 3)))))
        if world.fault(rates.roll_back):
            self._store.roll_back(random.choice((0.0, 0.1, 1.0, 2.0)), random.random() < 0.5)
            for link in self._links:
                link.disconnect(min(MAX_DELAY_SECONDS, world.delay(3)))
        if world.fault(rates.forget) and self.record.channels:
            self._store.forget(random.choice(list(self.record.channels)))
