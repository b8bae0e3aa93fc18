"""A channel: its place in the numbers, its log, its readers by encoding, and who comes and goes."""

from collections.abc import Callable

from twistedsock.core.dialect import Dialect, Position
from twistedsock.core.events import Batch, Lost, Member, PresenceChange
from twistedsock.core.lane import Gathered, Lane
from twistedsock.core.limits import Limits
from twistedsock.core.log import Log
from twistedsock.core.principal import ELSEWHERE, Principal
from twistedsock.core.reader import Reader, Subscription
from twistedsock.core.tally import Tally


class Channel:
    """It exists while somebody reads it or its log is not empty; the broker sees to that."""

    __slots__ = (
        "bells",
        "changes",
        "contested",
        "epoch",
        "head",
        "lanes",
        "log",
        "name",
        "owner",
        "pending",
        "readers",
        "tally",
        "watchers",
    )

    def __init__(
        self, name: bytes, position: Position, limits: Limits, tally: Tally, owner: Principal = ELSEWHERE
    ) -> None:
        self.name = name
        self.owner = owner
        """The principal that the channel and its log are counted for. It changes by ``Broker.own`` only."""
        self.contested = 0
        """Bytes that other principals have written since then."""
        self.epoch = position.epoch
        self.head = position.head
        self.log = Log(limits, position.head + 1)
        # Published, but not yet flushed: neither in the log nor with the readers.
        self.pending: list[Batch] = []
        self.changes: list[PresenceChange] = []
        self.lanes: dict[Dialect, Lane] = {}
        self.readers: dict[bytes, Subscription] = {}
        self.watchers: dict[Subscription, None] = {}
        # Who wants to be called when something has come; mostly nobody.
        self.bells: dict[Callable[[], None], None] | None = None
        self.tally = tally

    @property
    def is_history_only(self) -> bool:
        """Whether nothing would be lost with it but the events in its log."""
        return not (self.readers or self.bells or self.pending or self.changes)

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.head)

    def join_lane(self, subscription: Subscription) -> None:
        encoding = subscription.reader.encoding
        lane = self.lanes.get(encoding)
        if lane is None:
            lane = self.lanes[encoding] = Lane(encoding, self.tally, self.epoch)
        lane.join(subscription)

    def leave_lane(self, subscription: Subscription) -> None:
        lane = self.lanes.get(subscription.reader.encoding)
        if lane is not None:
            lane.leave(subscription)

    def forget_lane(self, subscription: Subscription) -> None:
        """The reader has gone, and its lane with it where nobody else is on it: some have an encoding of their own."""
        self.leave_lane(subscription)
        encoding = subscription.reader.encoding
        if encoding in self.lanes and not self.lanes[encoding]:
            del self.lanes[encoding]

    def members(self) -> list[Member]:
        return [subscription.reader.peer.member() for subscription in self.readers.values()]

    def skip(self, lost: Lost) -> None:
        """Events that follow the newest one will never come. Nothing may be pending. What the log holds before them is
        let go of, as it is contiguous. Readers that have caught up are told at once, the others when they get there."""
        self.log.skip_to(lost.last + 1)
        for lane in self.lanes.values():
            lane.skip(self.name, lost)

    def restart(self, position: Position, limits: Limits) -> list[Reader]:
        """The epoch is another one. Nothing may be pending. Gives the readers: they get nothing more, as they would
        take the new numbers for old ones."""
        self.log.shrink(0)  # for those who read it still
        self.epoch, self.head = position.epoch, position.head
        self.log = Log(limits, position.head + 1)
        self.lanes.clear()
        self.watchers.clear()
        for subscription in self.readers.values():
            subscription.reader.forget_lag(subscription)
        return [subscription.reader for subscription in self.readers.values()]

    def flush(self, now: float, most_missed: int, gathered: Gathered | None = None) -> None:
        """Tell who came and went; then put what was published since into the log, and offer it to the lanes, or let
        them note it in ``gathered``."""
        if self.changes:
            changes, self.changes = self.changes, []
            self._tell(changes, most_missed)
        if self.pending:
            batches, self.pending = self.pending, []
            self.log.extend(batches, now)
            # A lane whose last reader falls behind stays, empty, while that reads on: it will be back.
            for lane in self.lanes.values():
                lane.deliver(self.name, batches, gathered)
            if self.bells is not None:
                bells, self.bells = self.bells, None
                for ring in bells:
                    ring()

    def _tell(self, changes: list[PresenceChange], most_missed: int) -> None:
        """Tell the watchers about others. Each change is encoded once an encoding, for those among them too."""
        ids = {change.member.id for change in changes}
        encoded: dict[Dialect, tuple[bytes, list[bytes]]] = {}
        for subscription in list(self.watchers):
            reader, told = subscription.reader, changes
            known = encoded.get(reader.encoding)
            if known is None:
                each = [reader.encoding.presence(self.name, [change]) for change in changes]
                known = encoded[reader.encoding] = b"".join(each), each
            data, each = known
            if reader.peer.id in ids:
                others = [place for place, change in enumerate(changes) if change.member.id != reader.peer.id]
                told = [changes[place] for place in others]
                data = b"".join([each[place] for place in others])
            if told and (subscription in reader.lagging or not reader.outlet.offer(data)):
                subscription.miss(told, most_missed)
