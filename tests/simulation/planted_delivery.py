"""Planted faults of publications, delivery, slow readers and recovery."""

from collections.abc import Callable
from typing import Any

import msgspec

from tests.simulation.planting import Patch, every, plant
from twistedsock.codecs import json_encoder, line_encoder, sse
from twistedsock.errors import Error
from twistedsock.pubsub import broker, channel, encoding_group, subscription
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.history import History
from twistedsock.pubsub.undelivered import Undelivered
from twistedsock.pubsub.values import Batch, Position, Publication
from twistedsock.session import handlers
from twistedsock.session.replies import PendingReplies

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
