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
from twistedsock.redis.resp import Call, ConnectionLost, ScriptCall, Unsent
from twistedsock.redis.shard import Shard

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
    cannot have been written."""

    __slots__ = (
        "answers",
        "batches",
        "channel",
        "events",
        "fingerprint",
        "key",
        "publications",
        "since",
        "size",
        "token",
    )

    def __init__(self, publications: "Publications", channel: bytes, key: bytes, fingerprint: bytes) -> None:
        self.publications = publications
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
        return [self.publications.first_call(self)]

    def abandon(self) -> None:
        self.publications.abandon(self)


class Publications:
    """``deliver`` is called with the channel, the epoch and a batch of this node that has got its offsets, before it is
    answered. ``on_answer`` is called when publications were answered."""

    def __init__(
        self,
        shard: Shard,
        node_name: bytes,
        names: wire.Names,
        kept: Kept,
        deliver: Callable[[bytes, bytes, Batch], None],
        on_answer: Callable[[], None],
    ) -> None:
        self._shard = shard
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
        self._tokens = count(1)

    def __len__(self) -> int:
        """How many entries have no reply."""
        return len(self._waiting)

    def publish(self, publisher: Client, publication: Publication) -> Error | Future[int]:
        """Send a publication at the end of the turn. Only while the server is connected."""
        channel, payloads = publication.channel, publication.payloads
        size = BATCH_COST + EVENT_COST * len(payloads.items) + payloads.size
        if self._waiting_bytes + size > MAX_WAITING_BYTES and self._waiting:
            return REDIS_TOO_SLOW
        group = None if publication.key else self._growing.get(channel)
        if group is None or group.size + size > MAX_ENTRY_BYTES:
            group = _Group(self, channel, publication.key, publication.fingerprint)
            self._waiting[group] = None
            self._shard.queue(group)
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

    def first_call(self, group: _Group) -> Call:
        """Called at the end of the turn."""
        if self._growing.get(group.channel) is group:
            del self._growing[group.channel]
        group.token = b"%b%d" % (self._node_name, next(self._tokens))
        group.events = wire.encode_events(group.batches)
        group.since = self._shard.time
        return self._call(group, b"")

    def _call(self, group: _Group, since: bytes) -> Call:
        channel, names = group.channel, self._names
        keys = [names.log(channel)]
        if group.key:
            keys.append(names.publication_key(channel, group.key))
        events = sum([len(batch.payloads) for batch in group.batches])
        place = (self._shard.fence, names.topic(channel), self._node_name, *self._kept)
        arguments = (*place, events, group.token, since, group.events, group.fingerprint)
        return ScriptCall(event_scripts.PUBLISH, keys, arguments, partial(self._published, group), is_ordered=True)

    def _published(self, group: _Group, reply: Any) -> None:
        if isinstance(reply, ConnectionLost):
            self._unsure.append(group)
            return
        if isinstance(reply, Exception):
            self._answer(group, [self._shard.error(reply)] * len(group.answers))
            return
        self._shard.has_succeeded()
        first, epoch, time, source = reply[0], reply[1], int(reply[2]), reply[3]
        self._shard.note_time(int(reply[4]))
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
        self._waiting_bytes -= group.size
        for answer, outcome in zip(group.answers, outcomes, strict=True):
            answer.settle(outcome)
        self._on_answer()

    # Another connection.

    def unsure_channels(self) -> list[bytes]:
        """The channels of publications whose replies were lost."""
        return [group.channel for group in self._unsure]

    def repeat_unsure(self) -> None:
        """Look publications whose replies were lost up on the new connection, and make those that are not there."""
        unsure, self._unsure = self._unsure, []
        for group in unsure:
            # The clock of this server can be behind that of the former one, and this attempt may be repeated too.
            group.since = min(group.since, self._shard.time)
            self._shard.queue(self._call(group, b"%d" % group.since))

    def end_unsure(self) -> None:
        """Do not look for publications whose replies were lost any more."""
        unsure, self._unsure = self._unsure, []
        for group in unsure:
            self._answer(group, [MAY_BE_PUBLISHED] * len(group.answers))
