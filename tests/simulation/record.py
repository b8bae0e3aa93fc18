"""The record of a run: which events the backplane has stored, and which of them it has lost again.

The checks compare what clients receive with this record, and with nothing that the server computes.
"""

from bisect import bisect_right
from typing import Any

from tests.simulation.world import Violation
from twistedsock.pubsub.values import Batch


class EpochRecord:
    """All events of one channel in one epoch, as they were stored. No event is removed: ``good`` is the offset of the
    last one that is still valid after the next epoch has begun, and ``kept_from`` that of the first one that nodes can
    still read."""

    __slots__ = ("batches", "begin", "firsts", "good", "kept_from", "name", "previous", "times")

    def __init__(self, name: bytes, begin: int, previous: "EpochRecord | None") -> None:
        self.name = name
        self.begin = begin
        """The offset before the first event of the epoch."""
        self.previous = previous
        """The epoch before, if the backplane still knows it."""
        self.good: int | None = None
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
        return self.previous is not None and self.previous.good == self.begin and self.begin > 0

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
    """A publication of one event, as its client sent it. ``position`` is the epoch and the offset that it got."""

    __slots__ = ("channel", "name", "position", "value")

    def __init__(self, channel: str, name: str, value: Any) -> None:
        self.channel = channel
        self.name = name
        self.value = value
        self.position: tuple[str, int] | None = None


def number_of(value: Any) -> int:
    """The number of a publication, which is a part of its payload."""
    try:
        if isinstance(value, str):
            return int(value.partition(":")[0])
        return int(value["n"] if isinstance(value, dict) else value[0])
    except (ValueError, KeyError, IndexError, TypeError):
        return -1


class Record:
    """``channels`` are the current epochs. ``events`` counts the stored events."""

    def __init__(self) -> None:
        self.channels: dict[str, EpochRecord] = {}
        self.epochs: dict[tuple[str, str], EpochRecord] = {}
        self.sent: dict[int, Sent] = {}
        self.events = 0

    def begin_epoch(self, channel: str, epoch: EpochRecord) -> None:
        self.channels[channel] = epoch
        self.epochs[channel, epoch.name.decode()] = epoch

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
            if sent.position is not None:
                raise Violation(f"{channel}: {value!r} was published twice", channel)
            sent.position = epoch.name.decode(), offset

    def check_event(self, channel: str, epoch: str, offset: int, name: str, value: Any) -> Batch:
        """Check an event that a client received. Returns its batch."""
        sent = self.sent.get(number_of(value))
        if sent is None or sent.position is None:
            raise Violation(f"received {value!r} as {offset} of {channel}, which was never published", channel)
        batch = self.epoch(channel, epoch).batch_at(offset)
        found = None if batch is None else batch.part(offset, offset + 1)
        if found is None:
            raise Violation(f"received {offset} of {channel}, but its epoch {epoch} has no such event", channel)
        stored = self.epoch(channel, sent.position[0]).batch_at(sent.position[1])
        if sent.channel != channel or stored is not batch or sent.position[1] != offset:
            raise Violation(
                f"received {value!r} as {offset} of {channel} in {epoch}, but it is {sent.position} of {sent.channel}",
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
        position = self.sent[number_of(value)].position
        if position is None:
            raise Violation(f"{channel}: {value!r} was confirmed as {offset} before it was stored", channel)
        if position[1] != offset:
            raise Violation(f"{channel}: {value!r} was confirmed as {offset}, but is {position}", channel)
        return position[0]

    def is_newer(self, epoch: str, other: str) -> bool:
        """Whether an epoch has begun after another one of the same channel."""
        return int(epoch[1:]) > int(other[1:])

    def publisher(self, channel: str, epoch: str, offset: int) -> str:
        """The id of the client that published an event, "" if there is no such event."""
        batch = self.epoch(channel, epoch).batch_at(offset)
        return "" if batch is None else batch.publisher.decode()
