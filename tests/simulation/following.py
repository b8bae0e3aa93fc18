"""The messages of one channel that a client must receive, and their checks."""

from typing import Any, Protocol

from tests.simulation.record import EpochRecord, Record
from tests.simulation.world import Violation
from twistedsock.pubsub.channel import MAX_RESETS

Position = tuple[int, str]
"""An offset and its epoch."""


class Availability(Protocol):
    """Which events a client can still be sent."""

    def has_dropped(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether the history of the client's node does not contain an event."""

    def is_lost(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether neither the history nor the backplane has an event."""


class Following:
    """One subscription, from the reply to its ``SUB`` on. ``next`` is the next offset that the client must receive."""

    def __init__(
        self,
        record: Record,
        client_id: str,
        channel: str,
        reply: dict[str, Any],
        since: Position | None,
        last: int,
        available: Availability,
    ) -> None:
        self.record = record
        self.client_id = client_id
        """The id of the client if it is not sent its own events, otherwise empty."""
        self.channel = channel
        self.epoch: str = reply["epoch"]
        self.next: int = reply["offset"] + 1
        self.earliest = self.next
        """A replay of the ``last`` events starts at an offset from this one to ``next``."""
        self.lost_from = 0
        """The first event that the last message has reported as lost, 0 if it has not."""
        self.may_start_anywhere = False
        """Whether the first event can be any one between ``earliest`` and ``next``."""
        self.is_new = True
        """Whether nothing was received yet. The first gap is one of the node's history, which the reply describes."""
        self.must_lose = False
        """Whether the reply says that events are missing, so that a report of the gap must follow."""
        self._available = available
        recovered = reply.get("recovered")
        if (recovered is None) is not (since is None):
            self.fail(f"the reply to a subscription since {since} has recovered={recovered}")
        known = self.known = record.epoch(channel, self.epoch)
        if reply["offset"] > known.head:
            self.fail(f"the reply names offset {reply['offset']} of {self.epoch}, whose newest is {known.head}")
        start = None if since is None else self._resumed_at(since, known, "since" in reply or bool(recovered))
        self.since: int | None = None
        """The client's offset in the new epoch, if it continues from a position of the epoch before."""
        if start is not None and start <= self.next:
            self.since = start - 1 if since is not None and since[1] != self.epoch else None
            self.next = self.earliest = start
            self.must_lose = not recovered
        else:
            if recovered:
                self.fail(f"recovered from {since}, but the channel is at {self.position}")
            self.earliest = max(1, self.next - last)

    def _resumed_at(self, since: Position, current: EpochRecord, is_known: bool) -> int | None:
        """The offset of the first event after a position, None if the client cannot continue there. ``is_known`` means
        that the node knows the epoch before: it need not if the backplane can name several."""
        offset, name = since
        if name == self.epoch:
            return offset + 1
        max_former, former = self.record.max_former, self.record.epochs.get((self.channel, name))
        good = None if former is None else current.valid_of(former, max_former)
        if good is None or offset > good or not (is_known or max_former == 1):
            return None
        if current.continues or current.previous is not former:
            return offset + 1
        return current.begin + 1 if offset == good else None

    @property
    def position(self) -> Position:
        return self.next - 1, self.epoch

    def fail(self, message: str) -> None:
        raise Violation(f"{self.channel}: {message}", self.channel)

    def replace(self, before: "Following") -> None:
        """This is a second subscription of the same client, which is also sent what the first one was not sent yet."""
        if before.epoch != self.epoch:
            # The reply stands for a reset: the messages of the first subscription after that follow.
            self.earliest = 1
            self.may_start_anywhere = True
        else:
            self.may_start_anywhere = before.may_start_anywhere
            self.earliest = min(self.earliest, before.earliest)
            self.next = min(self.next, before.next)

    def receive_event(self, offset: int, name: str, value: Any, time: int | None) -> None:
        """``time`` is None if the protocol does not send it."""
        if self.must_lose:
            self.fail(f"received {offset}, but the reply said that events before it are missing")
        self._advance(offset)
        batch = self.record.check_event(self.channel, self.epoch, offset, name, value)
        if self._is_own(offset):
            self.fail(f"received {offset}, its own event, although it asked for echo=off")
        if time is not None and time != batch.time:
            self.fail(f"received {offset} with the time {time} instead of {batch.time}")
        self._continue_at(offset + 1)

    def receive_lost(self, first: int, last: int) -> None:
        self._advance(first)
        is_lost = self._available.has_dropped if self.is_new else self._available.is_lost
        if last < first or not is_lost(self.channel, self.epoch, last):
            self.fail(f"{first} to {last} were reported as lost, but {last} is not")
        self.must_lose = False
        self._continue_at(last + 1)
        self.lost_from = first

    def receive_reset(self, epoch: str, good: int, offset: int) -> None:
        """The channel has a new epoch. ``good`` is the newest event of the old one that the client has received and
        that is still valid, and the events of the new one follow after ``offset``."""
        self._check_identity()
        former, current = self.known, self.record.epoch(self.channel, epoch)
        if epoch == self.epoch:
            self.fail(f"received a reset to the epoch {epoch} that it has")
        first, after_own = self.lost_from or self.next, self._skipped_own(former.head + 1)
        valid = current.valid_of(former, self.record.max_former)
        continues = current.continues or (valid is not None and current.previous is not former)
        lowest, highest = 0, 0
        if valid is not None:
            lowest, highest = min(valid, first - 1), min(valid, after_own - 1)
            if not continues and after_own <= valid and self.earliest == self.next:
                self.fail(f"{self.next} to {valid} of {self.epoch} are valid, but were not reported as lost")
        is_offset_right = offset == good if valid is not None and continues else offset <= current.begin
        if self.record.epochs_after(self.channel, former) > MAX_RESETS:
            # The client receives no reset for the first ones.
            lowest, is_offset_right = 0, is_offset_right or (good == 0 and offset <= current.begin)
        is_replay = self.earliest < self.next
        if not is_replay and not (lowest <= good <= highest and is_offset_right):
            self.fail(
                f"received a reset from {self.position} to {epoch} with good={good} offset={offset} "
                f"instead of good={lowest} to {highest}, and the epoch begins after {current.begin}"
            )
        self.epoch, self.known, self.must_lose = epoch, current, False
        self._continue_at(offset + 1)

    def skip_own(self, offset: int) -> None:
        """Leave out own events before ``offset``, which are not sent."""
        is_exact = self.earliest == self.next
        self.next = self._skipped_own(offset)
        if is_exact:
            self.earliest = self.next

    def _skipped_own(self, offset: int) -> int:
        """The first offset from ``next`` on and up to ``offset`` that is not the client's own event."""
        following = self.next
        while following < offset and self._is_own(following):
            following += 1
        return following

    def _check_identity(self) -> None:
        """The store has not lost events without a new epoch, so that their offsets were given a second time."""
        current = self.record.epoch(self.channel, self.epoch)
        if current is not self.known:
            if self.next - 1 > current.begin and self.earliest == self.next:
                self.fail(
                    f"the store has lost the events after {current.begin} of {self.epoch}, and has given their offsets "
                    f"to other events, but the client, at {self.next - 1}, was told nothing"
                )
            self.known = current

    def check_caught_up(self) -> None:
        """The client has received everything. It must be called when the whole system is quiet."""
        self._check_identity()
        epoch = self.record.channels[self.channel]
        if self.epoch != epoch.name.decode():
            self.fail(f"at the end the client is at {self.position}, but the epoch is {epoch.name.decode()}")
        if self.must_lose:
            self.fail("at the end no gap was reported, although the reply said that events are missing")
        self.skip_own(epoch.head + 1)
        is_empty = self.earliest < self.next and self._available.has_dropped(self.channel, self.epoch, epoch.head)
        if self.next != epoch.head + 1 and not is_empty:
            self.fail(f"at the end the client waits for {self.next}, but {epoch.head} is the newest event")

    def _continue_at(self, offset: int) -> None:
        self.next = self.earliest = offset
        self.may_start_anywhere = self.is_new = False
        self.lost_from = 0

    def _advance(self, offset: int) -> None:
        self._check_identity()
        self.skip_own(offset)
        if self.earliest <= offset < self.next:  # a replay of the last events starts
            if offset == self.earliest or self.may_start_anywhere:
                return
            if self._available.has_dropped(self.channel, self.epoch, offset - 1) or self._is_own(offset - 1):
                return
        if offset != self.next:
            self.fail(f"received {offset} of {self.epoch} instead of {self.next}")

    def _is_own(self, offset: int) -> bool:
        return bool(self.client_id) and self.record.publisher(self.channel, self.epoch, offset) == self.client_id
