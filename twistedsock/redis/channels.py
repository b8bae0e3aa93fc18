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
from twistedsock.redis.resp import Call, ScriptCall, Subscribe, Unsubscribe
from twistedsock.redis.scripts import Script
from twistedsock.redis.shard import Shard

TAIL_BYTES = 256 * 1024
"""Size of the newest events that a node gets when it opens a channel. It reads older ones when they are needed."""

TOPICS_PER_CALL = 500
"""Channels that are followed or compared at a time, so that other calls are not delayed for long."""


class _Followed:
    """A channel that the node has open, or is opening. ``position`` is that of the newest event that was delivered,
    None until it is open. ``is_active`` means that it had an event since the last comparison."""

    __slots__ = ("is_active", "position")

    def __init__(self) -> None:
        self.position: Position | None = None
        self.is_active = True


class Channels:
    """``report`` is called with sentences about data that this version cannot read."""

    def __init__(self, shard: Shard, names: wire.Names, kept: Kept, report: Callable[[str], object]) -> None:
        self._shard = shard
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
        if not self._shard.is_ready:
            return UNAVAILABLE
        followed = self._followed.get(channel)
        if followed is None:
            followed = self._followed[channel] = _Followed()
            self._shard.queue(Subscribe([self._names.topic(channel)]))
        answer = Future[ChannelState]()
        self._shard.queue(self._open_call(channel, None, partial(self._opened, channel, followed, answer)))
        return answer

    def _open_call(self, channel: bytes, known: Position | None, done: Callable[[Any], None]) -> Call:
        position = (b"", 0) if known is None else (known.epoch, known.offset)
        arguments = (self._shard.fence, *self._kept, TAIL_BYTES, *position)
        return ScriptCall(event_scripts.OPEN, [self._names.log(channel)], arguments, done)

    def _opened(self, channel: bytes, followed: _Followed, answer: Future[ChannelState], reply: Any) -> None:
        is_current = self._followed.get(channel) is followed
        state = self._state(channel, followed.position, reply)
        if not isinstance(state, Error):
            followed.position = state.position
        elif is_current and followed.position is None:
            self.close(channel)
        answer.settle(state)

    def _state(self, channel: bytes, known: Position | None, reply: Any) -> ChannelState | Error:
        if isinstance(reply, Exception):
            return self._shard.error(reply)
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
        if self._followed.pop(channel, None) is not None and self._shard.is_ready:
            self._shard.queue(Unsubscribe([self._names.topic(channel)]))

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
        if not self._shard.is_ready:
            return UNAVAILABLE
        answer = Future[Any]()

        def done(reply: Any) -> None:
            answer.settle(self._shard.error(reply) if isinstance(reply, Exception) else convert(reply))

        self._shard.queue(ScriptCall(script, [self._names.log(channel)], arguments, done))
        return answer

    # Comparison.

    def follow_again(self, first: Sequence[bytes]) -> None:
        """Follow all channels on a new connection, and compare their positions: those of ``first`` before the
        others."""
        names = dict.fromkeys([name for name in [*first, *self._followed] if name in self._followed])
        self._compare(self._shard.connection, list(names), 0, is_new=True)

    def check(self) -> None:
        """Compare the channels without events with the server, in case that it has lost them."""
        silent = []
        for name, followed in self._followed.items():
            if followed.is_active:
                followed.is_active = False
            elif followed.position is not None:
                silent.append(name)
        self._compare(self._shard.connection, silent, 0, is_new=False)

    def _compare(self, connection: int, names: Sequence[bytes], start: int, is_new: bool) -> None:
        """Compare positions: some of them, and the next when these have answered on this connection."""
        following = start + TOPICS_PER_CALL
        part = [name for name in names[start:following] if name in self._followed]
        if part and is_new:
            self._shard.queue(Subscribe([self._names.topic(name) for name in part]))

        def compared(name: bytes, followed: _Followed, reply: Any) -> None:
            self._compared(name, followed, reply)
            is_last = name == part[-1]
            if is_last and following < len(names) and connection == self._shard.connection and self._shard.is_ready:
                self._compare(connection, names, following, is_new)

        for name in part:
            followed = self._followed[name]
            self._shard.queue(self._open_call(name, followed.position, partial(compared, name, followed)))

    def _compared(self, name: bytes, followed: _Followed, reply: Any) -> None:
        known = followed.position
        if known is None or self._followed.get(name) is not followed:
            return
        state = self._state(name, known, reply)
        if not isinstance(state, Error) and state.position != known:
            followed.position = state.position
            self._node.reset(name, state)
