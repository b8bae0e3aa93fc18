"""The record of a run: which events the backplane has stored, and which of them it has lost again.

The checks compare what clients receive with this record, and with nothing that the server computes.
"""

from bisect import bisect_right
from typing import Any

from tests.simulation.world import Violation
from twistedsock.pubsub.values import Batch


class EpochRecord:
    """All events of one channel in one epoch, as they were stored. No event is removed: ``good`` is the offset of the
    last event of the epoch before that is still valid, and ``kept_from`` that of the first event that nodes can still
    read. A store that is in two halves for a while has two epochs that follow the same one."""

    __slots__ = ("batches", "begin", "firsts", "good", "kept_from", "name", "number", "previous", "times")

    def __init__(self, name: bytes, begin: int, previous: "EpochRecord | None", good: int = 0) -> None:
        self.name = name
        self.number = 0
        """Epochs that begin later have higher numbers."""
        self.begin = begin
        """The offset before the first event of the epoch."""
        self.previous = previous
        """The epoch before, if the backplane still knows it."""
        self.good = good
        self.kept_from = begin + 1
        self.batches: list[Batch] = []
        self.firsts: list[int] = []
        self.times: list[float] = []
        """When each batch was stored."""

    @property
    def head(self) -> int:
        return self.batches[-1].end - 1 if self.batches else self.begin

    @property
    def continues(self) -> bool:
        """Whether the numbers continue those of the valid part of the epoch before."""
        return self.previous is not None and self.good == self.begin and self.begin > 0

    def valid_of(self, former: "EpochRecord", max_links: int) -> int | None:
        """The last event of a former epoch that is still valid in this one, None if that epoch does not precede it, or
        is more than ``max_links`` epochs away."""
        epoch: EpochRecord | None = self
        for _ in range(max_links):
            assert epoch is not None
            if epoch.previous is former:
                return epoch.good
            epoch = epoch.previous
            if epoch is None:
                break
        return None

    def append(self, batch: Batch, time: float) -> None:
        self.batches.append(batch)
        self.firsts.append(batch.first)
        self.times.append(time)

    def batch_at(self, offset: int) -> Batch | None:
        """The batch with this offset, also if it belongs to the valid part of an epoch before."""
        if offset <= self.begin:
            return self.previous.batch_at(offset) if self.previous is not None and self.continues else None
        index = bisect_right(self.firsts, offset) - 1
        batch = self.batches[index] if index >= 0 else None
        return batch if batch is not None and offset < batch.end else None

    def offset_before(self, time: int) -> int:
        """The newest event that was published before a time and can still be read, 0 if there is none."""
        older = [batch.end - 1 for batch in self.batches_from(self.kept_from) if batch.time < time]
        return older[-1] if older and older[-1] >= self.kept_from else 0

    def batches_from(self, offset: int) -> list[Batch]:
        """The events from this offset on, also those of the valid part of epochs before."""
        found: list[Batch] = []
        if offset <= self.begin and self.previous is not None and self.continues:
            found = [
                batch.part(offset, self.begin + 1)
                for batch in self.previous.batches_from(offset)
                if batch.first <= self.begin
            ]
        start = bisect_right(self.firsts, offset) - 1
        return found + [batch.part(offset, batch.end) for batch in self.batches[max(0, start) :] if batch.end > offset]


class Sent:
    """A publication of one event, as its client sent it. ``positions`` are the epochs and offsets that it got: the
    newest one last. It gets another one if the store has lost it before the client could be answered."""

    __slots__ = ("channel", "name", "positions", "value")

    def __init__(self, channel: str, name: str, value: Any) -> None:
        self.channel = channel
        self.name = name
        self.value = value
        self.positions: list[tuple[EpochRecord, int]] = []


def number_of(value: Any) -> int:
    """The number of a publication, which is a part of its payload."""
    try:
        if isinstance(value, str):
            return int(value.partition(":")[0])
        return int(value["n"] if isinstance(value, dict) else value[0])
    except (ValueError, KeyError, IndexError, TypeError):
        return -1


ALL_EPOCHS = 1_000_000
"""More than there are."""


class Record:
    """``channels`` are the current epochs. ``events`` counts the stored events. ``max_former`` is how many epochs
    before the current one a node can know: if it is more than one, some nodes know fewer."""

    def __init__(self, max_former: int = 1) -> None:
        self.max_former = max_former
        self.channels: dict[str, EpochRecord] = {}
        self.epochs: dict[tuple[str, str], EpochRecord] = {}
        self.sent: dict[int, Sent] = {}
        self.events = 0

    def add_epoch(self, channel: str, epoch: EpochRecord) -> None:
        epoch.number = len(self.epochs)
        self.epochs[channel, epoch.name.decode()] = epoch

    def begin_epoch(self, channel: str, epoch: EpochRecord) -> None:
        """Add an epoch that is the current one from now on."""
        self.add_epoch(channel, epoch)
        self.channels[channel] = epoch

    def epochs_after(self, channel: str, epoch: EpochRecord) -> int:
        """How many epochs of a channel have begun since another one began."""
        return sum(other.number > epoch.number for (name, _), other in self.epochs.items() if name == channel)

    def epoch(self, channel: str, name: str) -> EpochRecord:
        known = self.epochs.get((channel, name))
        if known is None:
            raise Violation(f"the server names the epoch {name}, which {channel} never had", channel)
        return known

    def send(self, channel: str, name: str, value: Any) -> None:
        """A client is about to publish."""
        self.sent[number_of(value)] = Sent(channel, name, value)

    def store(self, channel: str, epoch: EpochRecord, batch: Batch, values: list[Any], time: float) -> None:
        """The backplane has stored events. ``values`` are their payloads."""
        epoch.append(batch, time)
        self.events += len(batch)
        for offset, value in enumerate(values, batch.first):
            sent = self.sent.get(number_of(value))
            if sent is None or (sent.channel, sent.name, sent.value) != (channel, batch.name.decode(), value):
                raise Violation(f"{channel}: {value!r} reached the backplane, but no client has published it", channel)
            if any(self._is_valid(epoch, *position) for position in sent.positions):
                raise Violation(f"{channel}: {value!r} was published twice", channel)
            sent.positions.append((epoch, offset))

    def _is_valid(self, epoch: EpochRecord, former: EpochRecord, offset: int) -> bool:
        """Whether an event belongs to an epoch or to the valid part of those before."""
        valid = former.head if former is epoch else epoch.valid_of(former, ALL_EPOCHS)
        return valid is not None and offset <= valid

    def check_event(self, channel: str, epoch: str, offset: int, name: str, value: Any) -> Batch:
        """Check an event that a client received. Returns its batch."""
        sent = self.sent.get(number_of(value))
        if sent is None or not sent.positions:
            raise Violation(f"received {value!r} as {offset} of {channel}, which was never published", channel)
        batch = self.epoch(channel, epoch).batch_at(offset)
        found = None if batch is None else batch.part(offset, offset + 1)
        if found is None:
            raise Violation(f"received {offset} of {channel}, but its epoch {epoch} has no such event", channel)
        if sent.channel != channel or not any(
            stored.batch_at(place) is batch and place == offset for stored, place in sent.positions
        ):
            positions = [f"{stored.name.decode()}:{place}" for stored, place in sent.positions]
            raise Violation(
                f"received {value!r} as {offset} of {channel} in {epoch}, but it is {positions} of {sent.channel}",
                channel,
            )
        if (sent.name, sent.value) != (name, value):
            raise Violation(
                f"{channel}: {offset} was published as {sent.name} {sent.value!r}, but received as {name} {value!r}",
                channel,
            )
        assert batch is not None
        return batch

    def check_confirmed(self, value: Any, channel: str, offset: int) -> str:
        """Check the offset with which the server has confirmed a publication. Returns its epoch."""
        positions = self.sent[number_of(value)].positions
        if not positions:
            raise Violation(f"{channel}: {value!r} was confirmed as {offset} before it was stored", channel)
        epochs = [epoch for epoch, place in positions if place == offset]
        if not epochs:
            raise Violation(f"{channel}: {value!r} was confirmed as {offset}, but is {positions[-1][1]}", channel)
        return epochs[-1].name.decode()

    def is_newer(self, channel: str, epoch: str, other: str) -> bool:
        """Whether an epoch has begun after another one of the same channel."""
        return self.epoch(channel, epoch).number > self.epoch(channel, other).number

    def publisher(self, channel: str, epoch: str, offset: int) -> str:
        """The id of the client that published an event, "" if there is no such event."""
        batch = self.epoch(channel, epoch).batch_at(offset)
        return "" if batch is None else batch.publisher.decode()
