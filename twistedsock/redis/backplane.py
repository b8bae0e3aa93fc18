"""The backplane that connects several servers through one Redis or Valkey.

All that a node does in a turn of the reactor leaves in one write at its end: the publications of a channel are one call
of a script, and one entry of its log. Replies and messages arrive on the same connection, in the order in which the
server ran the calls. So a node delivers its own events when their reply arrives, and those of other nodes when their
message arrives, and both are in the order of the offsets.

When the connection is lost, publications fail at once. Those whose replies were lost with it wait for the next
connection, because the entry of each has a token by which the server finds it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

import msgspec

from twistedsock.errors import UNAVAILABLE, Error, ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    BATCH_COST,
    EVENT_COST,
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Position,
    Publication,
    cost,
)
from twistedsock.redis import scripts, wire
from twistedsock.redis.link import LinkUser, Timing
from twistedsock.redis.presence import Presence
from twistedsock.redis.resp import Call, ConnectionLost, Item, RedisError, ScriptCall, Subscribe, Unsent, Unsubscribe
from twistedsock.redis.server import Server

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Cost of the publications without a reply. It is reached if Redis is slower than the publishers, or is away: then they
get an error. A quarter of the default limit of Redis for a reader of messages."""

MAX_ENTRY_BYTES = 256 * 1024
"""Cost of the publications in one entry, unless a single one is larger: a script that handles more would keep Redis
busy for longer than a millisecond."""

TAIL_BYTES = 256 * 1024
"""Size of the newest events that a node gets when it opens a channel. It reads older ones when they are needed."""

TOPICS_PER_CALL = 500
"""Channels that are followed or compared at a time, so that other calls are not delayed for long."""

REDIS_TOO_SLOW = Error(ErrorCode.UNAVAILABLE, "Redis too slow for the publications that wait: try again later")

OUT_OF_MEMORY = Error(ErrorCode.UNAVAILABLE, "Redis is out of memory: try again later")

MAY_BE_PUBLISHED = Error(
    ErrorCode.UNAVAILABLE, "may have been published: the connection to Redis was lost before the reply"
)


class Link(Protocol):
    """The connection to the server."""

    def start(self, user: LinkUser) -> None: ...

    def stop(self) -> None: ...

    def send(self, items: Sequence[Item]) -> None: ...

    def fail(self, reason: str) -> None: ...


class _Followed:
    """A channel that the node has open, or is opening. ``position`` is that of the newest event that was delivered,
    None until it is open. ``is_active`` means that it had an event since the last comparison."""

    __slots__ = ("is_active", "position")

    def __init__(self) -> None:
        self.position: Position | None = None
        self.is_active = True


class _Group(Unsent):
    """Publications that become one entry, with their answers. ``since`` is the time of the server before which they
    cannot have been written."""

    __slots__ = ("answers", "backplane", "batches", "channel", "events", "key", "since", "size", "token")

    def __init__(self, backplane: "RedisBackplane", channel: bytes, key: bytes) -> None:
        self.backplane = backplane
        self.channel = channel
        self.key = key
        self.batches: list[wire.StoredBatch] = []
        self.answers: list[Future[int]] = []
        self.size = 0
        self.token = b""
        self.events = b""
        self.since = 0

    def build(self) -> Sequence[Call]:
        return [self.backplane.first_call(self)]

    def abandon(self) -> None:
        self.backplane.abandon(self)


class RedisBackplane:
    """``node_name`` must be random, and is part of the ids of clients. ``schedule`` calls a function after some
    seconds, or after this turn. ``report`` is called with sentences about data that this version cannot read.
    ``draw_name`` returns a random name."""

    keeps_history = True

    def __init__(
        self,
        link: Link,
        node_name: bytes,
        database: int,
        limits: Limits,
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], object],
        draw_name: Callable[[], bytes],
        timing: Timing,
    ) -> None:
        self.node_name = node_name
        self.is_ready = False
        self._link = link
        self._names = wire.Names(database)
        self._history = (limits.history_events, limits.history_bytes, int(limits.history_age * 1000))
        self._schedule = schedule
        self._report = report
        self._timing = timing
        self._presence = Presence(node_name, self._names, self._queue, draw_name, timing)
        self._node: Node
        self._channels: dict[bytes, _Followed] = {}
        # Calls for the end of this turn, and the groups among them that can grow, by channel.
        self._outgoing: list[Item | Unsent] = []
        self._growing: dict[bytes, _Group] = {}
        self._is_flush_scheduled = False
        # Groups without a reply, and those of them whose connection was lost.
        self._waiting: dict[_Group, None] = {}
        self._waiting_bytes = 0
        self._unsure: list[_Group] = []
        self._tokens = count(1)
        self._reported_error = ""
        self._fence = b""
        self._server_time = 0
        self._connections = 0
        self._started: Future[bool] | None = None
        self._stopping: Future[bool] | None = None

    def start(self, node: Node) -> Future[bool]:
        """The future is settled when the server is connected for the first time."""
        self._node = node
        self._presence.start(node)
        self._started = started = Future[bool]()
        self._link.start(self)
        return started

    def stop(self) -> Future[bool]:
        """The future is settled when all publications are answered, and the members of this node have left."""
        self._stopping = stopping = Future[bool]()
        if not self.is_ready:
            self._end_unsure(self._connections)
        self._stop_if_idle()
        return stopping

    def _stop_if_idle(self) -> None:
        stopping = self._stopping
        if stopping is None or self._waiting:
            return
        self._stopping = None

        def stopped() -> None:
            self.is_ready = False
            self._link.stop()
            # Not while a reply is handled: the reactor may end, and close the connection, at once.
            self._schedule(0, lambda: stopping.settle(True))

        if self.is_ready:
            self._presence.leave_all(stopped)
        else:
            stopped()

    # Publications.

    def publish(self, publisher: Client, publication: Publication) -> Error | Future[int]:
        if not self.is_ready:
            return UNAVAILABLE
        channel, payloads = publication.channel, publication.payloads
        size = BATCH_COST + EVENT_COST * len(payloads.items) + payloads.size
        if self._waiting_bytes + size > MAX_WAITING_BYTES and self._waiting:
            return REDIS_TOO_SLOW
        group = None if publication.key else self._growing.get(channel)
        if group is None or group.size + size > MAX_ENTRY_BYTES:
            group = _Group(self, channel, publication.key)
            self._waiting[group] = None
            self._queue(group)
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
        group.token = b"%b%d" % (self.node_name, next(self._tokens))
        group.events = wire.encode_events(group.batches)
        group.since = self._server_time
        return self._publish_call(group, b"")

    def _repeated_call(self, group: _Group) -> Call:
        return self._publish_call(group, b"%d" % group.since)

    def _publish_call(self, group: _Group, since: bytes) -> Call:
        channel, names = group.channel, self._names
        keys = [names.log(channel)]
        if group.key:
            keys.append(names.publication_key(channel, group.key))
        events = sum([len(batch.payloads) for batch in group.batches])
        history = self._history
        arguments = (self._fence, names.topic(channel), self.node_name, *history, events, group.token, since)
        return ScriptCall(scripts.PUBLISH, keys, (*arguments, group.events), partial(self._published, group))

    def _published(self, group: _Group, reply: Any) -> None:
        if isinstance(reply, ConnectionLost):
            self._unsure.append(group)
            return
        if isinstance(reply, RedisError):
            self._answer(group, [self._error(reply)] * len(group.answers))
            return
        self._reported_error = ""
        first, epoch, time = reply[0], reply[1], int(reply[2])
        self._server_time = max(self._server_time, time)
        if not first:
            self._answer(group, [MAY_BE_PUBLISHED] * len(group.answers))
            return
        followed = self._channels.get(group.channel)
        outcomes = []
        for batch in wire.number(group.batches, first, time):
            outcomes.append(batch.first)
            # Without an epoch, the events were published before, and have been delivered then.
            if epoch and followed is not None and followed.position is not None:
                self._deliver(group.channel, followed, epoch, batch)
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
        self._stop_if_idle()

    def _end_unsure(self, connections: int) -> None:
        """Publications whose replies were lost with a connection have waited for long enough."""
        if connections == self._connections:
            groups, self._unsure = self._unsure, []
            for group in groups:
                self._answer(group, [MAY_BE_PUBLISHED] * len(group.answers))

    def _error(self, error: RedisError) -> Error:
        """The answer to a call that had no effect."""
        text = str(error)
        if "READONLY" in text:
            self._schedule(0, partial(self._link.fail, "the server has become a replica"))
        elif text != self._reported_error:  # until a publication succeeds, not for each one
            self._reported_error = text
            self._report(f"Redis has rejected a call: {text}")
        if "OOM" in text:
            return OUT_OF_MEMORY
        return UNAVAILABLE

    # Channels.

    def open(self, channel: bytes) -> Error | Future[ChannelState]:
        if not self.is_ready:
            return UNAVAILABLE
        followed = self._channels.get(channel)
        if followed is None:
            followed = self._channels[channel] = _Followed()
            self._queue(Subscribe([self._names.topic(channel)]))
        answer = Future[ChannelState]()
        self._queue(self._open_call(channel, None, partial(self._opened, channel, followed, answer)))
        return answer

    def _open_call(self, channel: bytes, known: Position | None, done: Callable[[Any], None]) -> Call:
        position = (b"", 0) if known is None else (known.epoch, known.offset)
        arguments = (self._fence, *self._history, TAIL_BYTES, *position)
        return ScriptCall(scripts.OPEN, [self._names.log(channel)], arguments, done)

    def _opened(self, channel: bytes, followed: _Followed, answer: Future[ChannelState], reply: Any) -> None:
        is_current = self._channels.get(channel) is followed
        state = self._state(channel, followed.position, reply)
        if not isinstance(state, Error):
            followed.position = state.position
        elif is_current and followed.position is None:
            self.close(channel)
        answer.settle(state)

    def _state(self, channel: bytes, known: Position | None, reply: Any) -> ChannelState | Error:
        if isinstance(reply, Exception):
            return self._error(reply) if isinstance(reply, RedisError) else UNAVAILABLE
        epoch, offset, chain, time, entries = reply
        tail: list[Batch] = []
        for entry in reversed(entries):
            tail += self._read_entry(channel, entry)
        former = wire.parse_chain(chain)
        begin, previous = (former[0].offset, former[0]) if former else (0, None)
        for position in former:
            # The node knows an older epoch. All since its last valid event are one sequence.
            if known is not None and known.epoch == position.epoch:
                begin, previous = position.offset, position
        return ChannelState(Position(epoch, offset), tail, int(time), begin, previous)

    def _read_entry(self, channel: bytes, entry: Sequence[Any]) -> list[Batch]:
        first, _, time, events = entry
        try:
            return list(wire.number(wire.decode_events(events), first, int(time)))
        except msgspec.MsgspecError as error:
            self._report(f"cannot read events of {channel.decode()}: {error}")
            return []

    def close(self, channel: bytes) -> None:
        if self._channels.pop(channel, None) is not None and self.is_ready:
            self._queue(Unsubscribe([self._names.topic(channel)]))

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        if not self.is_ready:
            return UNAVAILABLE
        answer = Future[Sequence[Batch]]()

        def done(reply: Any) -> None:
            if isinstance(reply, Exception):
                answer.settle(self._error(reply) if isinstance(reply, RedisError) else UNAVAILABLE)
                return
            found: list[Batch] = []
            size = 0
            for batch in [batch for entry in reply for batch in self._read_entry(channel, entry)]:
                if batch.end > after.offset + 1 and size < limit:
                    found.append(batch.part(after.offset + 1, batch.end))
                    size += cost(found[-1])
            answer.settle(found)

        arguments = (after.epoch, after.offset, self._history[2], limit)
        self._queue(ScriptCall(scripts.READ, [self._names.log(channel)], arguments, done))
        return answer

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        if not self.is_ready:
            return UNAVAILABLE
        answer = Future[int]()

        def done(reply: Any) -> None:
            if isinstance(reply, Exception):
                answer.settle(self._error(reply) if isinstance(reply, RedisError) else UNAVAILABLE)
            else:
                answer.settle(int(reply))

        arguments = (epoch, time, self._history[2])
        self._queue(ScriptCall(scripts.FIND, [self._names.log(channel)], arguments, done))
        return answer

    def _deliver(self, channel: bytes, followed: _Followed, epoch: bytes, batch: Batch) -> None:
        followed.is_active = True
        known = followed.position
        if known is not None and (known.epoch != epoch or known.offset < batch.end):
            followed.position = Position(epoch, batch.end - 1)
        self._node.deliver(channel, epoch, batch)

    # Presence and commands.

    def join(self, channel: bytes, member: Member) -> None:
        self._presence.change(channel, b"+", member)

    def rename(self, channel: bytes, member: Member) -> None:
        self._presence.change(channel, b"=", member)

    def leave(self, channel: bytes, member: Member) -> None:
        self._presence.change(channel, b"-", member)

    def members(self, channel: bytes) -> Error | Future[list[Member]]:
        if not self.is_ready:
            return UNAVAILABLE
        answer = Future[list[Member]]()

        def done(reply: Any) -> None:
            if isinstance(reply, Exception):
                answer.settle(self._error(reply) if isinstance(reply, RedisError) else UNAVAILABLE)
            else:
                answer.settle(wire.parse_members(reply))

        self._queue(self._presence.list_call(channel, done))
        return answer

    def send(self, command: NodeCommand) -> None:
        if self.is_ready:
            message = wire.encode_command(self.node_name, command)
            self._queue(Call((b"PUBLISH", self._names.nodes_topic, message), _ignore))

    # The connection.

    def connected(self, server: Server, time: int, is_former_over: bool) -> None:
        """Called by the link. First all channels are followed and compared, then all else is done."""
        self._fence, self._server_time = server.fence, max(self._server_time, time)
        self._connections += 1
        self.is_ready = True
        unsure, self._unsure = self._unsure, []
        if not is_former_over:
            for group in unsure:
                self._answer(group, [MAY_BE_PUBLISHED] * len(group.answers))
            unsure = []
        self._queue(Subscribe([self._names.nodes_topic]))
        self._presence.connected()
        first = dict.fromkeys([group.channel for group in unsure if group.channel in self._channels])
        names = [*first, *[name for name in self._channels if name not in first]]
        self._follow(self._connections, names, 0)
        for group in unsure:
            self._queue(self._repeated_call(group))
        self._schedule(self._timing.renew, partial(self._renew, self._connections))
        self._schedule(self._timing.check, partial(self._check, self._connections))
        if self._started is not None:
            started, self._started = self._started, None
            started.settle(True)

    def _follow(self, connection: int, names: Sequence[bytes], start: int) -> None:
        """Follow channels again, and compare their positions: some of them, and the next when these have answered."""
        part = [name for name in names[start : start + TOPICS_PER_CALL] if name in self._channels]
        if part:
            self._queue(Subscribe([self._names.topic(name) for name in part]))
        self._compare_all(connection, part, partial(self._follow_next, connection, names, start + TOPICS_PER_CALL))

    def _follow_next(self, connection: int, names: Sequence[bytes], start: int) -> None:
        if start < len(names):
            self._follow(connection, names, start)

    def _compare_all(self, connection: int, names: Sequence[bytes], done: Callable[[], None]) -> None:
        """Compare positions. ``done`` is called when the last one has been answered on this connection."""

        def compared(name: bytes, followed: _Followed, is_last: bool, reply: Any) -> None:
            self._compared(name, followed, reply)
            if is_last and connection == self._connections and self.is_ready:
                done()

        for name in names:
            followed = self._channels[name]
            step = partial(compared, name, followed, name == names[-1])
            self._queue(self._open_call(name, followed.position, step))

    def _compared(self, name: bytes, followed: _Followed, reply: Any) -> None:
        known = followed.position
        if known is None or self._channels.get(name) is not followed:
            return
        state = self._state(name, known, reply)
        if not isinstance(state, Error) and state.position != known:
            followed.position = state.position
            self._node.reset(name, state)

    def disconnected(self) -> None:
        """Called by the link."""
        self.is_ready = False
        self._presence.disconnected()
        outgoing, self._outgoing = self._outgoing, []
        for item in outgoing:
            if isinstance(item, Unsent):
                item.abandon()
            elif isinstance(item, Call):
                item.done(ConnectionLost())
        self._schedule(self._timing.unsure, partial(self._end_unsure, self._connections))
        if self._stopping is not None:
            self._end_unsure(self._connections)
        self._stop_if_idle()

    def received(self, topic: bytes, message: bytes) -> None:
        """Called by the link with a message of another node, or of this one."""
        try:
            self._handle(topic, message)
        except (ValueError, msgspec.MsgspecError) as error:
            self._report(f"cannot read a message of another server: {error}")

    def _handle(self, topic: bytes, message: bytes) -> None:
        if topic == self._names.nodes_topic:
            node, command = wire.decode_command(message)
            if node != self.node_name:
                self._node.run_command(command)
            return
        channel = topic.removeprefix(self._names.channel_topics)
        followed = self._channels.get(channel)
        if followed is None or followed.position is None:  # the reply to ``open`` will have it
            return
        if message[:1] != wire.EVENTS:
            for change in wire.parse_changes(message):
                self._node.presence_changed(channel, change)
            return
        arrival = wire.parse_arrival(message)
        if arrival.node != self.node_name:  # its own events are delivered with their reply
            for batch in wire.number(wire.decode_events(arrival.events), arrival.first, arrival.time):
                self._deliver(channel, followed, arrival.epoch, batch)

    # Periodic work.

    def _renew(self, connection: int) -> None:
        if connection == self._connections and self.is_ready:
            self._presence.renew()
            self._schedule(self._timing.renew, partial(self._renew, connection))

    def _check(self, connection: int) -> None:
        """Compare the channels without events with the server, in case that it has lost them."""
        if connection != self._connections or not self.is_ready:
            return
        silent = []
        for name, followed in self._channels.items():
            if followed.is_active:
                followed.is_active = False
            elif followed.position is not None:
                silent.append(name)
        self._check_part(connection, silent, 0)
        self._schedule(self._timing.check, partial(self._check, connection))

    def _check_part(self, connection: int, names: Sequence[bytes], start: int) -> None:
        part = [name for name in names[start : start + TOPICS_PER_CALL] if name in self._channels]
        following = start + TOPICS_PER_CALL

        def go_on() -> None:
            if following < len(names):
                self._check_part(connection, names, following)

        self._compare_all(connection, part, go_on)

    # The end of a turn.

    def _queue(self, item: Item | Unsent) -> None:
        self._outgoing.append(item)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._schedule(0, self._flush)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        outgoing, self._outgoing = self._outgoing, []
        items: list[Item] = []
        for item in outgoing:
            if isinstance(item, Unsent):
                items += item.build()
            else:
                items.append(item)
        if items:
            self._link.send(items)


def _ignore(reply: Any) -> None: ...
