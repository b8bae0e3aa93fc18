"""The publications of this node that have no reply yet.

Those of a turn to the same channel are one call of a script, and one entry of the log. When the connection is lost,
those whose replies were lost with it wait for the next connection, because the entry of each has a token by which the
server finds it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error, ErrorCode
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Publication, RepeatedOffset
from twistedsock.redis import event_scripts, wire
from twistedsock.redis.event_scripts import Kept
from twistedsock.redis.resp import Call, ConnectionLost, RedisError, ScriptCall, Unsent
from twistedsock.redis.shard import Shard
from twistedsock.redis.shards import MAX_RETRIES, RETRY_SECONDS, Redirect, Shards

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Cost of the publications without a reply. It is reached if Redis is slower than the publishers, or is away: then they
get an error. A quarter of the default limit of Redis for a reader of messages."""

MAX_ENTRY_BYTES = 256 * 1024
"""Cost of the publications in one entry, unless a single one is larger: a script that handles more would keep Redis
busy for longer than a millisecond."""

REDIS_TOO_SLOW = Error(ErrorCode.UNAVAILABLE, "Redis too slow for the publications that wait: try again later")

MAY_BE_PUBLISHED = Error(
    ErrorCode.UNAVAILABLE, "may have been published: the connection to Redis was lost before the reply"
)


class _Group(Unsent):
    """Publications that become one entry, with their answers. ``since`` is the time of the server before which they
    cannot have been written. ``shard`` is the server to which they were sent, None while they are held back."""

    __slots__ = (
        "answers",
        "batches",
        "channel",
        "events",
        "fingerprint",
        "key",
        "lost",
        "number",
        "publications",
        "redirects",
        "shard",
        "since",
        "size",
        "token",
    )

    def __init__(
        self, publications: "Publications", number: int, channel: bytes, key: bytes, fingerprint: bytes
    ) -> None:
        self.publications = publications
        self.number = number
        self.shard: Shard | None = None
        self.lost = 0
        self.redirects = 0
        self.channel = channel
        self.key = key
        self.fingerprint = fingerprint
        self.batches: list[wire.StoredBatch] = []
        self.answers: list[Future[int]] = []
        self.size = 0
        self.token = b""
        self.events = b""
        self.since = 0

    def build(self) -> Sequence[Call]:
        return self.publications.first_calls(self)

    def abandon(self) -> None:
        self.publications.abandon(self)


class _Move:
    """A channel whose slot moves to another server of a Cluster. Publications are held back until those that were sent
    before have been answered, so that the order stays."""

    __slots__ = ("groups", "redirect", "retries")

    def __init__(self) -> None:
        self.groups: list[_Group] = []
        self.redirect = Redirect(None, False)
        self.retries = 0


class Publications:
    """``deliver`` is called with the channel, the epoch and a batch of this node that has got its offsets, before it is
    answered. ``on_answer`` is called when publications were answered."""

    def __init__(
        self,
        shards: Shards,
        node_name: bytes,
        names: wire.Names,
        kept: Kept,
        schedule: Callable[[float, Callable[[], None]], object],
        deliver: Callable[[bytes, bytes, Batch], None],
        on_answer: Callable[[], None],
    ) -> None:
        self._shards = shards
        self._schedule = schedule
        self._node_name = node_name
        self._names = names
        self._kept = kept
        self._deliver = deliver
        self._on_answer = on_answer
        # The groups that can grow, by channel.
        self._growing: dict[bytes, _Group] = {}
        # Groups without a reply, and those of them whose connection was lost.
        self._waiting: dict[_Group, None] = {}
        self._waiting_bytes = 0
        self._unsure: list[_Group] = []
        # How many groups of a channel were sent and have no reply. Counted, because in a failover of a Cluster each of
        # thousands of channels is released again and again.
        self._sent: dict[bytes, int] = {}
        self._losses = 0
        self._moves: dict[bytes, _Move] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        """How many entries have no reply."""
        return len(self._waiting)

    def publish(self, publisher: Client, publication: Publication) -> Error | Future[int]:
        """Send a publication at the end of the turn."""
        channel, payloads = publication.channel, publication.payloads
        shard = self._shards.of(channel)
        if shard is None or not shard.is_ready:
            return UNAVAILABLE
        size = BATCH_COST + EVENT_COST * len(payloads.items) + payloads.size
        if self._waiting_bytes + size > MAX_WAITING_BYTES and self._waiting:
            return REDIS_TOO_SLOW
        group = None if publication.key else self._growing.get(channel)
        if group is None or group.size + size > MAX_ENTRY_BYTES:
            group = _Group(self, next(self._numbers), channel, publication.key, publication.fingerprint)
            self._waiting[group] = None
            self._set_shard(group, shard)
            shard.queue(group)
        if publication.key:
            self._growing.pop(channel, None)  # later publications must come after it
        else:
            self._growing[channel] = group
        answer = Future[int]()
        group.batches.append(wire.store(publisher.id, publisher.nick, publication))
        group.answers.append(answer)
        group.size += size
        self._waiting_bytes += size
        return answer

    def first_calls(self, group: _Group) -> list[Call]:
        """Called at the end of the turn."""
        if self._growing.get(group.channel) is group:
            del self._growing[group.channel]
        shard = group.shard
        assert shard is not None
        group.token = b"%b%d" % (self._node_name, group.number)
        group.events = wire.encode_events(group.batches)
        group.since = shard.time
        if group.channel in self._moves:
            self._hold(group)
            return []
        return [self._call(group, shard, b"")]

    def _call(self, group: _Group, shard: Shard, since: bytes, is_asked: bool = False) -> Call:
        """``is_asked``: the slot is moving, and other nodes follow the channel on the server that had it before. All
        servers of a Cluster pass on a message about members, so this one is sent as those are."""
        self._set_shard(group, shard)
        channel, names = group.channel, self._names
        is_sharded = shard.has_shard_topics and not is_asked
        topic = names.members_topics + channel if is_asked else names.topic(channel)
        keys = [names.log(channel)]
        if group.key:
            keys.append(names.publication_key(channel, group.key))
        events = sum([len(batch.payloads) for batch in group.batches])
        place = (shard.fence, topic, self._node_name, *self._kept)
        arguments: tuple[bytes | int, ...] = (*place, events, group.token, since, group.events, group.fingerprint)
        if is_sharded:
            arguments = (*arguments, 1)
        return ScriptCall(
            event_scripts.PUBLISH, keys, arguments, partial(self._published, group, shard), is_ordered=True
        )

    def _published(self, group: _Group, shard: Shard, reply: Any) -> None:
        self._settle(group, shard, reply)
        if group.channel in self._moves:
            self._release(group.channel)

    def _settle(self, group: _Group, shard: Shard, reply: Any) -> None:
        if isinstance(reply, ConnectionLost):
            group.lost = self._losses
            self._unsure.append(group)
            return
        redirect = self._shards.redirect(shard, reply) if isinstance(reply, RedisError) else None
        if redirect is not None and group.redirects < MAX_RETRIES:
            group.redirects += 1
            self._hold(group, redirect)
            return
        if isinstance(reply, Exception):
            self._answer(group, [shard.error(reply)] * len(group.answers))
            return
        shard.has_succeeded()
        first, epoch, time, source = reply[0], reply[1], int(reply[2]), reply[3]
        shard.note_time(int(reply[4]))
        if not first:
            error = KEY_REUSED if source == event_scripts.OTHER_FINGERPRINT else MAY_BE_PUBLISHED
            self._answer(group, [error] * len(group.answers))
            return
        if source == event_scripts.OTHER_REQUEST:
            self._answer(group, [RepeatedOffset(first)])
            return
        outcomes = []
        for batch in wire.number(group.batches, first, time):
            outcomes.append(batch.first)
            if epoch:  # without, the events were published before, and have been delivered then
                self._deliver(group.channel, epoch, batch)
        self._answer(group, outcomes)

    def abandon(self, group: _Group) -> None:
        """The connection was lost before the group was sent."""
        self._growing.pop(group.channel, None)
        self._answer(group, [UNAVAILABLE] * len(group.answers))

    def _answer(self, group: _Group, outcomes: Sequence[int | Error]) -> None:
        del self._waiting[group]
        self._set_shard(group, None)
        self._waiting_bytes -= group.size
        for answer, outcome in zip(group.answers, outcomes, strict=True):
            answer.settle(outcome)
        self._on_answer()

    def _set_shard(self, group: _Group, shard: Shard | None) -> None:
        """The group is sent to a server, or it is held back or answered."""
        channel = group.channel
        count = self._sent.pop(channel, 0) + (shard is not None) - (group.shard is not None)
        if count:
            self._sent[channel] = count
        group.shard = shard

    # A slot that moves.

    def _hold(self, group: _Group, redirect: Redirect | None = None) -> None:
        move = self._moves.setdefault(group.channel, _Move())
        move.groups.append(group)
        self._set_shard(group, None)
        if redirect is not None:
            move.redirect = redirect

    def _release(self, channel: bytes) -> None:
        """Send the publications that were held back, when no other one of the channel waits for an answer."""
        move = self._moves[channel]
        if channel in self._sent:
            return
        shard = move.redirect.shard
        if shard is not None and shard.is_ready:
            del self._moves[channel]
            for group in sorted(move.groups, key=lambda group: group.number):
                group.since = min(group.since, shard.time)  # its clock can be behind that of the former server
                move.redirect.queue(self._call(group, shard, b"", move.redirect.is_ask))
        elif move.retries < MAX_RETRIES:
            move.retries += 1
            self._schedule(RETRY_SECONDS, partial(self._release_later, channel, move))
        else:
            del self._moves[channel]
            for group in move.groups:
                self._answer(group, [UNAVAILABLE] * len(group.answers))

    def _release_later(self, channel: bytes, move: _Move) -> None:
        if self._moves.get(channel) is not move:
            return
        if move.redirect.shard is None:
            move.redirect = Redirect(self._shards.of(channel), False)
        self._release(channel)

    # Another connection.

    def unsure_channels(self) -> list[bytes]:
        """The channels of publications whose replies were lost."""
        return [group.channel for group in self._unsure]

    def repeat_unsure(self) -> None:
        """Look publications whose replies were lost up on a new connection, and make those that are not there."""
        unsure, self._unsure = self._unsure, []
        for group in unsure:
            shard = self._shards.of(group.channel)
            if shard is not None and shard.is_ready:
                # The clock of this server can be behind that of the former one, and this attempt may be repeated too.
                group.since = min(group.since, shard.time)
                shard.queue(self._call(group, shard, b"%d" % group.since))
            else:
                self._unsure.append(group)

    def next_loss(self) -> int:
        """A connection was lost. Returns a number for ``end_unsure``."""
        self._losses += 1
        return self._losses - 1

    def end_unsure(self, loss: int | None = None, shard: Shard | None = None) -> None:
        """Do not look for publications any more whose replies were lost: all, or those of one lost connection, or those
        that were sent to one server."""
        unsure, self._unsure = self._unsure, []
        for group in unsure:
            if (loss is None or group.lost == loss) and (shard is None or group.shard is shard):
                self._answer(group, [MAY_BE_PUBLISHED] * len(group.answers))
            else:
                self._unsure.append(group)
