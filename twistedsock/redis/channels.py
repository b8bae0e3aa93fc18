"""The channels that this node follows, and what it reads of any channel.

The node follows the topic of a channel first, and reads the newest events of its log then, so it misses none. Positions
are compared with the server after each new connection, and regularly for channels without events.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Batch, ChannelState, Position, cost
from twistedsock.redis import event_scripts, wire
from twistedsock.redis.event_scripts import Kept
from twistedsock.redis.resp import Call, RedisError, ScriptCall, Subscribe, Unsubscribe
from twistedsock.redis.scripts import Script
from twistedsock.redis.shard import Shard
from twistedsock.redis.shards import MAX_RETRIES, RETRY_SECONDS, Shards

TAIL_BYTES = 256 * 1024
"""Size of the newest events that a node gets when it opens a channel. It reads older ones when they are needed."""

TOPICS_PER_CALL = 500
"""Channels that are followed or compared at a time, so that other calls are not delayed for long."""


class _Followed:
    """A channel that the node has open, or is opening. ``position`` is that of the newest event that was delivered,
    None until it is open. ``shard`` is the server on which its topic is followed, None if it is on none. ``is_active``
    means that it had an event since the last comparison."""

    __slots__ = ("is_active", "position", "shard")

    def __init__(self, shard: Shard) -> None:
        self.shard: Shard | None = shard
        self.position: Position | None = None
        self.is_active = True


class Channels:
    """``report`` is called with sentences about data that this version cannot read."""

    def __init__(
        self,
        shards: Shards,
        names: wire.Names,
        kept: Kept,
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], object],
    ) -> None:
        self._shards = shards
        self._schedule = schedule
        self._names = names
        self._kept = kept
        self._report = report
        self._node: Node
        self._followed: dict[bytes, _Followed] = {}

    def start(self, node: Node) -> None:
        self._node = node

    def is_open(self, channel: bytes) -> bool:
        """Whether the node has its position. Until then, the reply to ``open`` has what arrives."""
        followed = self._followed.get(channel)
        return followed is not None and followed.position is not None

    # Open and close.

    def open(self, channel: bytes) -> Error | Future[ChannelState]:
        shard = self._shards.of(channel)
        if shard is None or not shard.is_ready:
            return UNAVAILABLE
        followed = self._followed.get(channel)
        if followed is None:
            followed = self._followed[channel] = _Followed(shard)
            shard.follow([self._names.topic(channel)])
            self._follow_members([channel])
        answer = Future[ChannelState]()
        self._call_open(channel, None, partial(self._opened, channel, followed, answer))
        return answer

    def _follow_members(self, channels: Sequence[bytes]) -> None:
        """In a Cluster, changes of members have topics of their own: the server with the members sends them."""
        shared = self._shards.shared
        if self._names.is_cluster and shared is not None and channels:
            shared.queue(Subscribe([self._names.members_topics + channel for channel in channels]))

    def _call_open(self, channel: bytes, known: Position | None, done: Callable[[Shard, Any], None]) -> None:
        position = (b"", 0) if known is None else (known.epoch, known.offset)

        def make(shard: Shard, replied: Callable[[Any], None]) -> Call:
            arguments = (shard.fence, *self._kept, TAIL_BYTES, *position)
            return ScriptCall(event_scripts.OPEN, [self._names.log(channel)], arguments, replied)

        self._call(channel, make, done)

    def _call(
        self,
        channel: bytes,
        make: Callable[[Shard, Callable[[Any], None]], Call],
        done: Callable[[Shard, Any], None],
        former: Shard | None = None,
        retries: int = 0,
    ) -> None:
        """Send a call to the server of a channel, and to another one if the slot of the channel has moved."""
        shard = self._shards.of(channel) or former
        if shard is None:
            return

        def replied(shard: Shard, reply: Any) -> None:
            redirect = self._shards.redirect(shard, reply) if isinstance(reply, RedisError) else None
            if redirect is None or retries >= MAX_RETRIES:
                done(shard, reply)
            elif redirect.is_ask and redirect.shard is not None and redirect.shard.is_ready:
                redirect.queue(make(redirect.shard, partial(replied, redirect.shard)))
            elif redirect.shard is not None and redirect.shard.is_ready:
                self._call(channel, make, done, shard, retries + 1)
            else:
                self._schedule(RETRY_SECONDS, partial(self._call, channel, make, done, shard, retries + 1))

        shard.queue(make(shard, partial(replied, shard)))

    def _opened(
        self, channel: bytes, followed: _Followed, answer: Future[ChannelState], shard: Shard, reply: Any
    ) -> None:
        is_current = self._followed.get(channel) is followed
        state = self._state(channel, followed.position, shard, reply)
        if not isinstance(state, Error):
            followed.position = state.position
        elif is_current and followed.position is None:
            self.close(channel)
        answer.settle(state)

    def _state(self, channel: bytes, known: Position | None, shard: Shard, reply: Any) -> ChannelState | Error:
        if isinstance(reply, Exception):
            return shard.error(reply)
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
        followed = self._followed.pop(channel, None)
        if followed is None:
            return
        if followed.shard is not None:
            followed.shard.unfollow(self._names.topic(channel))
        shared = self._shards.shared
        if self._names.is_cluster and shared is not None:
            shared.queue(Unsubscribe([self._names.members_topics + channel]))

    # Events.

    def deliver(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        """Pass events to the node if it has the channel open."""
        followed = self._followed.get(channel)
        if followed is None or followed.position is None:
            return
        followed.is_active = True
        known = followed.position
        # With another epoch, the node opens the channel again, and must learn what is valid of the one that it has.
        if known.epoch == epoch and known.offset < batch.end:
            followed.position = Position(epoch, batch.end - 1)
        self._node.deliver(channel, epoch, batch)

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        def found(reply: Any) -> Sequence[Batch]:
            batches: list[Batch] = []
            size = 0
            for batch in [batch for entry in reply for batch in self._read_entry(channel, entry)]:
                if batch.end > after.offset + 1 and size < limit:
                    batches.append(batch.part(after.offset + 1, batch.end))
                    size += cost(batches[-1])
            return batches

        arguments = (after.epoch, after.offset, self._kept.milliseconds, limit)
        return self._ask(event_scripts.READ, channel, arguments, found)

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        return self._ask(event_scripts.FIND, channel, (epoch, time, self._kept.milliseconds), int)

    def _ask(
        self, script: Script, channel: bytes, arguments: Sequence[bytes | int], convert: Callable[[Any], Any]
    ) -> Error | Future[Any]:
        shard = self._shards.of(channel)
        if shard is None or not shard.is_ready:
            return UNAVAILABLE
        answer = Future[Any]()

        def done(shard: Shard, reply: Any) -> None:
            answer.settle(shard.error(reply) if isinstance(reply, Exception) else convert(reply))

        def make(shard: Shard, replied: Callable[[Any], None]) -> Call:
            return ScriptCall(script, [self._names.log(channel)], arguments, replied)

        self._call(channel, make, done)
        return answer

    # Comparison.

    def follow_again(self, shard: Shard, first: Sequence[bytes]) -> None:
        """Follow all channels of a server on a new connection, and compare their positions: those of ``first`` before
        the others."""
        names = [name for name in dict.fromkeys([*first, *self._followed]) if self._is_of(name, shard)]
        for name in names:
            self._followed[name].shard = shard
        self._compare(shard, shard.connection, names, 0, is_new=True)

    def _is_of(self, name: bytes, shard: Shard) -> bool:
        return name in self._followed and self._shards.of(name) is shard

    def follow_all_members(self) -> None:
        """Follow the changes of members on another server, or on another connection."""
        names = list(self._followed)
        for start in range(0, len(names), TOPICS_PER_CALL):
            self._follow_members(names[start : start + TOPICS_PER_CALL])

    def unfollowed(self, shard: Shard, topic: bytes) -> None:
        """The topic of a channel is not followed on this server any more."""
        followed = self._followed.get(self._names.channel(topic))
        if followed is not None and followed.shard is shard:
            followed.shard = None

    def follow_moved(self) -> None:
        """Follow channels on the servers that have them now, and compare their positions."""
        moved: dict[Shard, list[bytes]] = {}
        for name, followed in self._followed.items():
            shard = self._shards.of(name)
            if shard is not followed.shard and shard is not None and shard.is_ready:
                if followed.shard is not None:
                    followed.shard.unfollow(self._names.topic(name))
                followed.shard = shard
                moved.setdefault(shard, []).append(name)
        for shard, names in moved.items():
            self._compare(shard, shard.connection, names, 0, is_new=True)

    def check(self, shard: Shard) -> None:
        """Compare the channels of a server that had no events, in case that it has lost them."""
        silent = []
        for name, followed in self._followed.items():
            if followed.shard is not shard:
                continue
            if followed.is_active:
                followed.is_active = False
            elif followed.position is not None:
                silent.append(name)
        self._compare(shard, shard.connection, silent, 0, is_new=False)

    def _compare(self, shard: Shard, connection: int, names: Sequence[bytes], start: int, is_new: bool) -> None:
        """Compare positions: some of them, and the next when these have answered on this connection."""
        following = start + TOPICS_PER_CALL
        part = [name for name in names[start:following] if name in self._followed]
        if part and is_new:
            shard.follow([self._names.topic(name) for name in part])

        def compared(name: bytes, followed: _Followed, replier: Shard, reply: Any) -> None:
            self._compared(name, followed, replier, reply)
            if name == part[-1] and following < len(names) and connection == shard.connection and shard.is_ready:
                self._compare(shard, connection, names, following, is_new)

        for name in part:
            followed = self._followed[name]
            self._call_open(name, followed.position, partial(compared, name, followed))

    def _compared(self, name: bytes, followed: _Followed, shard: Shard, reply: Any) -> None:
        known = followed.position
        if known is None or self._followed.get(name) is not followed:
            return
        state = self._state(name, known, shard, reply)
        if not isinstance(state, Error) and state.position != known:
            followed.position = state.position
            self._node.reset(name, state)
