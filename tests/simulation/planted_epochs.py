"""Planted faults of gaps, histories and new epochs."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tests.simulation.planting import Patch, plant
from twistedsock.pubsub import channel, encoding_group, subscription
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.future import map_result
from twistedsock.pubsub.history_budget import HistoryBudget
from twistedsock.pubsub.rereading import OlderEvents, ReadQueue, Repairs
from twistedsock.pubsub.values import Batch, Event, Lost, Position, Reset
from twistedsock.session import commands, handlers, history_reader, request

# Gaps.


@plant
def gap_not_reported(patch: Patch) -> None:
    """Events that the backplane has skipped, and does not keep, are left out without a report."""
    patch(encoding_group.EncodingGroup, "report_lost", lambda self, channel, lost: None)


@plant
def gap_not_read(patch: Patch) -> None:
    """Events that the backplane has skipped are reported as lost, although it keeps them."""

    def hold(self: Repairs, at: Any, epoch: bytes, batch: Batch) -> None:
        if epoch == at.epoch:
            self._node.deliver_after_loss(at.name, epoch, batch)
        else:
            original(self, at, epoch, batch)

    original = Repairs.hold
    patch(Repairs, "hold", hold)


@plant
def gap_ignored(patch: Patch) -> None:
    """A batch is delivered although events before it are missing."""

    def deliver(self: Broker, name: bytes, epoch: bytes, batch: Batch) -> None:
        known = self.channels.get(name)
        if known is not None and known.epoch == epoch and batch.first > known.head + 1:
            known.head = batch.first - 1
        original(self, name, epoch, batch)

    original = Broker.deliver
    patch(Broker, "deliver", deliver)


@plant
def read_batches_dropped(patch: Patch) -> None:
    """Missing events that were read from the backplane are dropped, and only the batches that waited are delivered."""
    was_read = Repairs._was_read
    patch(Repairs, "_was_read", lambda self, name, repair, at, outcome: was_read(self, name, repair, at, ()))


@plant
def older_events_cut(patch: Patch) -> None:
    """The first batch that was read from the backplane for a slow reader is dropped."""
    send = subscription.Subscriber.send_older
    patch(subscription.Subscriber, "send_older", lambda self, one, batches, cache: send(self, one, batches[1:], cache))


@plant
def older_events_past_a_hole(patch: Patch) -> None:
    """Events that were read from the backplane are sent although events before them are missing."""
    send = subscription.Subscriber.send_older

    def send_all(self: Any, one: Any, batches: Any, cache: Any) -> bool:
        if batches and batches[0].first > one.cursor:
            one.cursor = batches[0].first
        return send(self, one, batches, cache)

    patch(subscription.Subscriber, "send_older", send_all)


@plant
def older_events_not_read(patch: Patch) -> None:
    """Events that a slow reader has missed are reported as lost, although the backplane keeps them."""

    def lose(self: OlderEvents, one: Any) -> None:
        if one.subscriber.send_older(one, (), {}):
            self._resume(one.subscriber)

    patch(OlderEvents, "read_for", lose)


@plant
def tail_cut(patch: Patch) -> None:
    """The first batch of the tail of a channel is dropped when it is opened."""
    load = HistoryBudget.load
    patch(
        HistoryBudget,
        "load",
        lambda self, at, batches, ages: load(self, at, batches[1:] or batches, list(ages)[1:] or ages),
    )


# Histories that reach back further than the memory of the node.


def _patch_histories(patch: Patch, change: Callable[[Any, bool], list[Any]]) -> None:
    """``change`` is called with each item, and whether it is the first event after those of the backplane."""
    events = history_reader._Reader.events

    def changed(self: Any, start: int, stop: int, batches: Any = ()) -> Iterator[Any]:
        seam = self._history.first if start < self._history.first else 0
        for item in events(self, start, stop, batches):
            yield from change(item, isinstance(item, Event) and item.offset == seam)

    patch(history_reader._Reader, "events", changed)


@plant
def history_skips_at_the_seam(patch: Patch) -> None:
    """The first event in memory is left out of a history that begins with events of the backplane."""
    _patch_histories(patch, lambda item, is_seam: [] if is_seam else [item])


@plant
def history_doubles_at_the_seam(patch: Patch) -> None:
    """The first event in memory is there twice in a history that begins with events of the backplane."""
    _patch_histories(patch, lambda item, is_seam: [item, item] if is_seam else [item])


@plant
def history_forgets_gaps(patch: Patch) -> None:
    """Events that are deleted, or cannot be read, while a history is sent are left out without a report."""
    _patch_histories(patch, lambda item, is_seam: [] if isinstance(item, Lost) else [item])


def _patch_parts(patch: Patch, change: Callable[[Any], Any]) -> None:
    read = history_reader.read_part

    def changed(*arguments: Any) -> Any:
        part = yield from read(*arguments)
        return change(part)

    patch(handlers, "read_part", changed)
    patch(request, "read_part", changed)


@plant
def history_forgets_what_was_deleted(patch: Patch) -> None:
    """Events that the backplane has deleted before a history is requested are not reported as lost."""
    _patch_parts(patch, lambda part: msgspec.structs.replace(part, lost=None))


@plant
def history_not_read(patch: Patch) -> None:
    """Events that are not in memory are reported as lost in a history, although the backplane keeps them."""

    def read(self: Any, start: int) -> Any:
        return ()
        yield

    patch(history_reader._Reader, "read", read)


@plant
def time_found_too_early(patch: Patch) -> None:
    """The search for a time finds the event before the right one."""
    find = ReadQueue.offset_before

    def offset_before(self: Any, *arguments: Any) -> Any:
        return map_result(find(self, *arguments), lambda offset: max(0, offset - 1))

    patch(ReadQueue, "offset_before", offset_before)


# New epochs.


@plant
def reset_forgotten(patch: Patch) -> None:
    """Subscribers are not sent a reset when the channel has a new epoch."""
    restart = channel.Channel.restart

    def restart_silently(self: Any, state: Any) -> None:
        restart(self, state)
        self.resets = None

    patch(channel.Channel, "restart", restart_silently)


@plant
def reset_only_for_fast_readers(patch: Patch) -> None:
    """A subscriber that is behind is not sent a reset."""
    restart = channel.Channel.restart

    def restart_for_some(self: Any, state: Any) -> None:
        behind = [one for one in self.subscriptions.values() if one in one.subscriber.behind]
        restart(self, state)
        for one in behind:
            self.pop_resets(one)

    patch(channel.Channel, "restart", restart_for_some)


def _patch_resets(patch: Patch, change: Callable[[Reset], Reset]) -> None:
    pop = channel.Channel.pop_resets
    patch(channel.Channel, "pop_resets", lambda self, one: [change(reset) for reset in pop(self, one)])


@plant
def wrong_good(patch: Patch) -> None:
    """A reset says that one event more of the old epoch is valid."""
    _patch_resets(patch, lambda reset: msgspec.structs.replace(reset, good=reset.good + 1))


@plant
def reset_with_wrong_offset(patch: Patch) -> None:
    """A reset names the offset after the one at which the new epoch continues."""
    _patch_resets(patch, lambda reset: msgspec.structs.replace(reset, offset=reset.offset + 1))


@plant
def reset_without_gap(patch: Patch) -> None:
    """Valid events of the old epoch that a slow reader has missed are not reported as lost before the reset."""
    _patch_resets(patch, lambda reset: msgspec.structs.replace(reset, lost=None))


@plant
def epoch_not_changed_in_reply(patch: Patch) -> None:
    """The reply to a subscription names the former epoch."""

    def position(self: Any) -> Position:
        return Position(self.epoch if self.previous is None else self.previous.epoch, self.head)

    patch(channel.Channel, "position", property(position))


@plant
def reply_without_offset_in_new_epoch(patch: Patch) -> None:
    """The reply to a client that continues from the former epoch does not name its offset in the new one."""
    patch(handlers, "changes_epoch", lambda command, at: False)


@plant
def new_epoch_taken_for_the_old(patch: Patch) -> None:
    """Events of a new epoch are delivered as if they were of the old one."""
    deliver = Broker.deliver

    def deliver_anyway(self: Broker, name: bytes, epoch: bytes, batch: Batch) -> None:
        known = self.channels.get(name)
        deliver(self, name, epoch if known is None else known.epoch, batch)

    patch(Broker, "deliver", deliver_anyway)


@plant
def ok_before_reset(patch: Patch) -> None:
    """A publication is confirmed with an offset of a new epoch before the publisher is sent the reset."""
    patch(handlers, "_send_resets", lambda session: None)


@plant
def ok_while_epoch_changes(patch: Patch) -> None:
    """A publication is confirmed while the node is still asking for the new epoch."""
    patch(Repairs, "hold_answer", lambda self, at, publisher, answer: answer)


@plant
def recovered_although_rolled_back(patch: Patch) -> None:
    """A client whose newest events were rolled back is recovered as if it had not received them."""

    def offset(at: Any, position: Position) -> int | None:
        previous = at.previous
        if previous is not None and position.epoch == previous.epoch and previous.offset == at.begin:
            return min(position.offset, at.head)
        return original(at, position)

    original = commands.offset_in_epoch
    patch(commands, "offset_in_epoch", offset)


@plant
def numbers_taken_for_one_sequence(patch: Patch) -> None:
    """A client of the former epoch continues at its offset, although the numbers have started again."""

    def offset(at: Any, position: Position) -> int | None:
        previous = at.previous
        if (
            previous is not None
            and position.epoch == previous.epoch
            and position.offset <= min(previous.offset, at.head)
        ):
            return position.offset
        return original(at, position)

    original = commands.offset_in_epoch
    patch(commands, "offset_in_epoch", offset)
