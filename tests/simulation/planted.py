"""Planted faults: small mistakes in the server that the simulation must find.

A fault is a function that gets ``patch``, which replaces an attribute of the product until the run ends. Its docstring
says what is wrong.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import msgspec

from tests.simulation.run import Run
from tests.simulation.world import Violation
from twistedsock.codecs import json_encoder, line_encoder, sse
from twistedsock.errors import Error
from twistedsock.pubsub import broker, channel, encoding_group, subscription
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.future import Future, map_result
from twistedsock.pubsub.history import History
from twistedsock.pubsub.history_budget import HistoryBudget
from twistedsock.pubsub.rereading import OlderEvents, ReadQueue, Repairs
from twistedsock.pubsub.undelivered import Undelivered
from twistedsock.pubsub.values import Batch, Event, Lost, Position, Publication, Reset
from twistedsock.session import commands, handlers, history_reader, request
from twistedsock.session.replies import PendingReplies

MAX_RUNS = 150
"""A fault that so many runs do not find counts as missed: they take some seconds."""

Patch = Callable[[Any, str, Any], None]

PLANTED: dict[str, Callable[[Patch], None]] = {}


def plant(fault: Callable[[Patch], None]) -> Callable[[Patch], None]:
    PLANTED[fault.__name__.replace("_", "-")] = fault
    return fault


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The server has this fault."""
    with ExitStack() as stack:
        PLANTED[name](lambda owner, attribute, value: stack.enter_context(mock.patch.object(owner, attribute, value)))
        yield


def find(name: str, seed: int) -> tuple[int, Exception] | None:
    """Search a fault in the runs with the seeds from ``seed`` on. Returns the number of runs that this took, and what
    was found: a violation, or an exception in the server."""
    for number in range(1, MAX_RUNS + 1):
        try:
            with planted(name):
                Run(seed + number - 1).simulate()
        except Violation as violation:
            return number, violation
        except Exception as error:
            if traceback.extract_tb(error.__traceback__)[-1].filename == __file__:
                raise  # the patch does not fit the server
            return number, error
    return None


def every(count: int) -> Callable[[], bool]:
    """A function that returns True in each ``count``-th call."""
    calls = 0

    def is_due() -> bool:
        nonlocal calls
        calls += 1
        return calls % count == 0

    return is_due


# Publishing.


@plant
def ok_before_commit(patch: Patch) -> None:
    """A publication is confirmed before the backplane has stored it."""
    publish = Broker.publish

    def publish_early(self: Broker, publisher: Any, publication: Any) -> int | Error | Future[int]:
        answer, known = publish(self, publisher, publication), self.channels.get(publication.channel)
        return known.head + 1 if isinstance(answer, Future) and known is not None else answer

    patch(Broker, "publish", publish_early)


@plant
def ok_with_wrong_offset(patch: Patch) -> None:
    """The OK of the last of several publications names the offset after its own."""
    published = line_encoder.LineEncoder.published
    patch(
        line_encoder.LineEncoder,
        "published",
        lambda self, tags, first: published(self, tags, first if len(tags) == 1 else first + 1),
    )


@plant
def oks_in_order_of_answers(patch: Patch) -> None:
    """Replies are written in the order of the backplane's answers, not of the commands."""

    def resolve(self: PendingReplies, reply: Any, outcome: Any) -> Any:
        return [(reply.tags, outcome)]

    patch(PendingReplies, "resolve", resolve)


@plant
def joined_different_names(patch: Patch) -> None:
    """Publications that follow each other are joined although their event names differ."""
    patch(Publication, "can_join", lambda self, other: self.payloads.kind is other.payloads.kind)


@plant
def batch_not_published(patch: Patch) -> None:
    """The last payload of several is dropped, and confirmed."""
    publish = Broker.publish

    def publish_less(self: Broker, publisher: Any, publication: Any) -> Any:
        if len(publication.payloads) > 3:
            payloads = publication.payloads.part(0, len(publication.payloads) - 1)
            publication = Publication(publication.channel, payloads, publication.name)
        return publish(self, publisher, publication)

    patch(Broker, "publish", publish_less)


# Delivery.


@plant
def skipped_batch(patch: Patch) -> None:
    """The first of several batches of one turn is not delivered."""
    broadcast = encoding_group.EncodingGroup.broadcast
    patch(
        encoding_group.EncodingGroup,
        "broadcast",
        lambda self, name, batches, gathered=None: broadcast(
            self, name, batches[1:] if len(batches) > 2 else batches, gathered
        ),
    )


@plant
def repeated_batch_delivered(patch: Patch) -> None:
    """A batch that the backplane repeats is delivered twice."""
    deliver = Broker.deliver

    def deliver_again(self: Broker, name: bytes, epoch: bytes, batch: Batch, *more: Any) -> None:
        known = self.channels.get(name)
        if known is not None and known.epoch == epoch and batch.end == known.head + 1:
            self._unflushed[known] = None
            known.pending.append(batch)
            self._request_turn()
        else:
            deliver(self, name, epoch, batch, *more)

    patch(Broker, "deliver", deliver_again)


@plant
def echo_lost(patch: Patch) -> None:
    """A subscriber that is behind is not sent its own events."""
    patch(
        subscription.Subscription,
        "wants",
        lambda self, batch: batch.publisher != self.subscriber.client.id,
    )
    patch(subscription.Subscriber, "_read_chunk", _read_chunk_without_cache)


def _read_chunk_without_cache(self: Any, behind: Any, cache: Any, read: Any) -> bytes:
    at, batches = behind.channel, read(behind.cursor)
    if batches:
        behind.cursor = batches[-1].end
    wanted = [batch for batch in batches if behind.wants(batch)]
    return b"".join([behind.encoder.batch(at.name, batch, at.epoch) for batch in wanted])


@plant
def echo_off_ignored(patch: Patch) -> None:
    """A subscriber that is behind is sent its own events although it asked for echo=off."""
    patch(subscription.Subscription, "wants", lambda self, batch: True)


@plant
def payload_not_escaped(patch: Patch) -> None:
    """A text with control characters is written on a line as it is."""
    patch(line_encoder, "payload_to_line", lambda payload, kind: payload.replace(b"\n", b" "))


@plant
def payloads_declared_plain(patch: Patch) -> None:
    """JSON messages copy texts without escaping them."""
    patch(json_encoder, "payload_to_json", lambda payload, kind: payload if kind.value == "json" else b'"%b"' % payload)
    patch(sse, "event_message", json_encoder.event_message)


@plant
def end_of_batch_lost(patch: Patch) -> None:
    """The last event of a batch is not delivered to the subscribers that are caught up."""
    encode = encoding_group.encode

    def encode_less(encoder: Any, channel: bytes, batch: Batch, epoch: bytes = b"") -> Any:
        return encode(encoder, channel, batch.part(batch.first, batch.end - (len(batch) > 3)), epoch)

    patch(encoding_group, "encode", encode_less)


@plant
def time_lost(patch: Patch) -> None:
    """The events of a part of a batch have no time."""
    part = Batch.part

    def part_without_time(self: Batch, start: int, stop: int) -> Batch:
        found = part(self, start, stop)
        return found if found is self else msgspec.structs.replace(found, time=0)

    patch(Batch, "part", part_without_time)


# Slow readers.


@plant
def cursor_off_by_one(patch: Patch) -> None:
    """A subscription that falls behind misses the first event that its socket did not accept."""
    fall_behind = subscription.Subscription.fall_behind

    def skip_one(self: Any, cursor: int) -> None:
        fall_behind(self, cursor)
        self.cursor = cursor + 1

    patch(subscription.Subscription, "fall_behind", skip_one)


@plant
def cursor_too_low(patch: Patch) -> None:
    """A subscription that falls behind is sent the event before once more."""
    fall_behind = subscription.Subscription.fall_behind
    patch(subscription.Subscription, "fall_behind", lambda self, cursor: fall_behind(self, max(1, cursor - 1)))


@plant
def lost_not_reported(patch: Patch) -> None:
    """Events that a slow reader has missed for good are skipped without a report."""
    for encoder in (line_encoder.LineEncoder, json_encoder.JsonEncoder, sse.MultiChannelSSEEncoder):
        patch(encoder, "lost", lambda self, channel, first, last: b"")


@plant
def lost_too_short(patch: Patch) -> None:
    """A report of lost events names one too few."""
    for encoder in (line_encoder.LineEncoder, json_encoder.JsonEncoder):
        _patch_lost(patch, encoder, -1)


@plant
def lost_too_long(patch: Patch) -> None:
    """A report of lost events names one too many."""
    for encoder in (line_encoder.LineEncoder, json_encoder.JsonEncoder):
        _patch_lost(patch, encoder, 1)


def _patch_lost(patch: Patch, encoder: Any, more: int) -> None:
    lost = encoder.lost
    patch(encoder, "lost", lambda self, channel, first, last: lost(self, channel, first, max(first, last + more)))


@plant
def replay_sorted_wrongly(patch: Patch) -> None:
    """The batches of a history are read backwards."""
    read = History.read
    patch(History, "read", lambda self, offset, size: list(reversed(read(self, offset, size))))


@plant
def catch_up_shared_wrongly(patch: Patch) -> None:
    """Subscribers that catch up together get what the first of them has missed."""

    def read_chunk(self: Any, behind: Any, cache: Any, read: Any) -> bytes:
        key = behind.channel, behind.encoder
        if key not in cache:
            cache[key] = _read_chunk_without_cache(self, behind, cache, read), behind.cursor
        data, behind.cursor = cache[key]
        return bytes(data)

    patch(subscription.Subscriber, "_read_chunk", read_chunk)


@plant
def drained_socket_ignored(patch: Patch) -> None:
    """A subscriber whose socket accepts data again does not catch up."""
    resume, is_due = Broker.resume, every(5)
    patch(Broker, "resume", lambda self, subscriber: None if is_due() else resume(self, subscriber))


@plant
def later_channels_forgotten(patch: Patch) -> None:
    """If a socket does not accept the events of several channels, only the first channel falls behind."""
    send_gathered = encoding_group.send_gathered

    def send(subscriber: Any, due: Any) -> None:
        behind = {*subscriber.behind}
        send_gathered(subscriber, due)
        for one in [one for one in subscriber.behind if one not in behind][1:]:
            subscriber.clear_behind(one)
            one.channel.join_group(one)

    patch(encoding_group, "send_gathered", send)
    patch(broker, "send_gathered", send)


@plant
def new_subscriber_gets_old_events(patch: Patch) -> None:
    """A new subscriber is sent the events that were published before it in the same turn."""
    patch(Undelivered, "skip", lambda self, one: None)


# Subscribing and recovery.


def _patch_resume(patch: Patch, change: Callable[[Any, Any, int, bool | None], tuple[int, bool | None]]) -> None:
    resume = handlers.resume_offset

    def changed(command: Any, at: Any, *more: Any) -> tuple[int, bool | None]:
        return change(command, at, *resume(command, at, *more))

    patch(handlers, "resume_offset", changed)


@plant
def duplicate_after_reconnect(patch: Patch) -> None:
    """A client that recovers is sent the event at its position again."""
    _patch_resume(patch, lambda command, at, start, ok: (max(1, start - 1) if ok else start, ok))


@plant
def catch_up_from_wrong_offset(patch: Patch) -> None:
    """A client that recovers misses the first event after its position."""
    _patch_resume(patch, lambda command, at, start, ok: (start + 1 if ok and start < at.head else start, ok))


@plant
def recovered_although_lost(patch: Patch) -> None:
    """The reply to a client that recovers says that nothing is missing, whatever the history contains."""
    _patch_resume(patch, lambda command, at, start, ok: (start, None if ok is None else True))


@plant
def not_recovered_although_complete(patch: Patch) -> None:
    """The reply to a client that recovers says that events are missing, although the history has all of them."""
    _patch_resume(patch, lambda command, at, start, ok: (start, None if ok is None else False))


@plant
def replay_one_too_few(patch: Patch) -> None:
    """A subscription with ``last`` starts one event late."""
    _patch_resume(
        patch,
        lambda command, at, start, ok: (start + 1 if command.last and start < at.head else start, ok),
    )


@plant
def reply_names_next_offset(patch: Patch) -> None:
    """The reply to a subscription names the offset of the next event, not of the newest."""
    patch(
        channel.Channel,
        "position",
        property(lambda self: Position(self.epoch, self.head + (self.head > 3))),
    )


@plant
def stream_id_not_rewound(patch: Patch) -> None:
    """The id of a stream of several channels names events that its socket did not accept."""
    patch(sse.MultiChannelSSEEncoder, "fell_behind", lambda self, channel, cursor: None)


@plant
def stream_id_without_gap(patch: Patch) -> None:
    """The id of a stream of several channels does not count events that were reported as lost."""
    patch(sse.MultiChannelSSEEncoder, "lost", sse.SSEEncoder.lost)


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
    """What a slow reader has missed is reported as lost, although the backplane keeps it."""

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
    """What the memory does not have is reported as lost in a history, although the backplane keeps it."""

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
