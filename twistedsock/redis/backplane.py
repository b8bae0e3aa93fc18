"""The backplane that connects several servers through one Redis or Valkey.

All that a node does in a turn of the reactor leaves in one write at its end. Replies and messages arrive on the same
connection, in the order in which the server ran the calls. So a node delivers its own events when their reply arrives,
and those of other nodes when their message arrives, and both are in the order of the offsets.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.limits.settings import Limits
from twistedsock.limits.shared_counts import Counts, SharedCounts
from twistedsock.pubsub.backplane import MessageReceiver, Node
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, ChannelState, Member, NodeCommand, Position, Publication
from twistedsock.redis import wire
from twistedsock.redis.channels import Channels
from twistedsock.redis.connection import Timing
from twistedsock.redis.connection_counts import COUNTS, ConnectionCounts
from twistedsock.redis.event_scripts import Kept
from twistedsock.redis.gatherings import REPORT, REQUEST, Gatherings
from twistedsock.redis.presence import Presence
from twistedsock.redis.publications import Publications
from twistedsock.redis.resp import Call, RedisError, Subscribe, Unsent
from twistedsock.redis.shard import Shard
from twistedsock.redis.shards import RETRY_SECONDS, Shards


class RedisBackplane:
    """``node_name`` must be random, and is part of the ids of clients. ``schedule`` calls a function after some
    seconds, or after this turn. ``report`` is called with sentences about data that this version cannot read.
    ``draw_name`` returns a random name. ``host`` is the name of this machine."""

    keeps_history = True

    def __init__(
        self,
        shards: Shards,
        node_name: bytes,
        names: wire.Names,
        limits: Limits,
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], object],
        draw_name: Callable[[], bytes],
        timing: Timing,
        host: str = "",
    ) -> None:
        self.node_name = node_name
        self.receiver: MessageReceiver | None = None
        self.gatherings = Gatherings(node_name, names, self._queue_shared, schedule, host)
        kept = Kept(limits.history_events, limits.history_bytes, int(limits.history_age * 1000))
        self._names = names
        self._own_topic = names.node_topic(node_name)
        self._shards = shards
        self._schedule = schedule
        self._report = report
        self._timing = timing
        self._presence = Presence(node_name, names, self._queue_shared, draw_name, timing)
        self._counts = ConnectionCounts(node_name, limits, self._publish_to_nodes)
        self._channels = Channels(shards, names, kept, schedule, report)
        self._publications = Publications(
            shards, node_name, names, kept, schedule, self._channels.deliver, self._stop_if_idle
        )
        # The server with the members, and the number of its connection, while they can be changed.
        self._shared: tuple[Shard, int] | None = None
        self._is_following_scheduled = False
        self._node: Node
        self._started: Future[bool] | None = None
        self._stopping: Future[bool] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether all servers are connected."""
        return self._shards.is_ready

    def _queue_shared(self, item: Call | Subscribe | Unsent) -> None:
        """Send what is not of one channel. Only while the server with the members is connected."""
        assert self._shards.shared is not None
        self._shards.shared.queue(item)

    def start(self, node: Node) -> Future[bool]:
        """The future is settled when the server is connected for the first time."""
        self._node = node
        self._presence.start(node)
        self._channels.start(node)
        self._started = started = Future[bool]()
        self._shards.start(self)
        return started

    def stop(self) -> Future[bool]:
        """The future is settled when all publications are answered, and the members of this node have left."""
        self._stopping = stopping = Future[bool]()
        if not self.is_ready:
            self._publications.end_unsure()
        self._stop_if_idle()
        return stopping

    def _stop_if_idle(self) -> None:
        stopping = self._stopping
        if stopping is None or self._publications:
            return
        self._stopping = None

        def stopped() -> None:
            self._shards.stop()
            # Not while a reply is handled: the reactor may end, and close the connection, at once.
            self._schedule(0, lambda: stopping.settle(True))

        if self._shared is not None:
            self._presence.leave_all(stopped)
        else:
            stopped()

    # Publications and channels.

    def publish(self, publisher: Client, publication: Publication) -> Error | Future[int]:
        return self._publications.publish(publisher, publication)

    def open(self, channel: bytes) -> Error | Future[ChannelState]:
        return self._channels.open(channel)

    def close(self, channel: bytes) -> None:
        self._channels.close(channel)

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        return self._channels.read(channel, after, limit)

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        return self._channels.offset_before(channel, epoch, time)

    # Presence and commands.

    def join(self, channel: bytes, member: Member) -> None:
        self._presence.change(channel, b"+", member)

    def rename(self, channel: bytes, member: Member) -> None:
        self._presence.change(channel, b"=", member)

    def leave(self, channel: bytes, member: Member) -> None:
        self._presence.change(channel, b"-", member)

    def members(self, channel: bytes) -> Error | Future[list[Member]]:
        shared = self._shards.shared
        if shared is None or not shared.is_ready:
            return UNAVAILABLE
        answer = Future[list[Member]]()

        def done(reply: Any) -> None:
            if isinstance(reply, RedisError):
                self._shards.redirect(shared, reply)
            answer.settle(shared.error(reply) if isinstance(reply, Exception) else wire.parse_members(reply))

        shared.queue(self._presence.list_call(channel, done))
        return answer

    def send(self, command: NodeCommand) -> None:
        self._publish_to_nodes(wire.encode_command(self.node_name, command))

    def _publish_to_nodes(self, message: bytes) -> None:
        if self._shared is not None:
            self._queue_shared(Call((b"PUBLISH", self._names.nodes_topic, message), _ignore))

    def send_to(self, node: bytes, content: bytes) -> bool:
        if self._shared is None:
            return False

        def published(receivers: Any) -> None:
            if receivers == 0 and self.receiver is not None:
                self.receiver.unreachable(node)

        message = wire.encode_message(self.node_name, content)
        self._queue_shared(Call((b"PUBLISH", self._names.node_topic(node), message), published))
        return True

    # Connections of addresses and identities.

    @property
    def counts(self) -> SharedCounts | None:
        return self._counts.shared

    @counts.setter
    def counts(self, shared: SharedCounts | None) -> None:
        self._counts.shared = shared

    def send_counts(self, counts: Counts) -> None:
        self._counts.report(counts)

    # Calls of the servers.

    def connected(self, shard: Shard, is_former_over: bool) -> None:
        """First all channels are followed and compared, then all else is done."""
        if not is_former_over:
            self._publications.end_unsure(shard=shard)
        self._use_shared()
        self._channels.follow_again(shard, self._publications.unsure_channels())
        self._publications.repeat_unsure()
        self._schedule(self._timing.check, partial(self._check, shard, shard.connection))
        if self._started is not None and self.is_ready:
            started, self._started = self._started, None
            started.settle(True)

    def disconnected(self, shard: Shard) -> None:
        self._use_shared()
        seconds = self._timing.unsure if self._stopping is None else 0
        self._schedule(seconds, partial(self._publications.end_unsure, self._publications.next_loss()))
        self._publications.repeat_unsure()  # in a Cluster, another server may have the channel
        self._stop_if_idle()

    def slots_changed(self) -> None:
        self._use_shared()
        self._channels.follow_moved()
        self._publications.repeat_unsure()

    def unfollowed(self, shard: Shard, topic: bytes, reply: Exception | None) -> None:
        self._channels.unfollowed(shard, topic)
        seconds = RETRY_SECONDS
        if isinstance(reply, RedisError) and self._shards.redirect(shard, reply) is None:
            shard.error(reply)
            seconds = self._timing.renew
        # Tries the same server again if no other one is known: its answer says where the slot is.
        if not self._is_following_scheduled:
            self._is_following_scheduled = True
            self._schedule(seconds, self._follow_moved)

    def _follow_moved(self) -> None:
        self._is_following_scheduled = False
        self._channels.follow_moved()

    def _use_shared(self) -> None:
        """Notice that the server with the members is another one, or has another connection, or none."""
        shard = self._shards.shared
        shared = None if shard is None or not shard.is_ready else (shard, shard.connection)
        if shared == self._shared:
            return
        former, self._shared = self._shared, shared
        if former is not None:
            self._counts.disconnected()
            self._presence.disconnected()
            self.gatherings.disconnected()
        if shared is not None:
            self._queue_shared(Subscribe([self._names.nodes_topic, self._own_topic]))
            self._counts.connected()
            self.gatherings.connected()
            self._presence.connected(shared[0].fence)
            self._channels.follow_all_members()
            self._schedule(self._timing.renew, partial(self._renew, shared))

    def received(self, topic: bytes, message: bytes) -> None:
        """A message of another node, or of this one."""
        try:
            self._handle(topic, message)
        except (ValueError, msgspec.MsgspecError) as error:
            self._report(f"cannot read a message of another server: {error}")

    def _handle(self, topic: bytes, message: bytes) -> None:
        if topic == self._names.nodes_topic:
            self._handle_to_all(message)
            return
        if topic == self._own_topic:
            if message[:1] == REPORT:
                self.gatherings.received_report(message)
            elif message[:1] == wire.MESSAGE and self.receiver is not None:
                self.receiver.received(*wire.decode_message(message))
            return
        channel = self._names.channel(topic)
        if not self._channels.is_open(channel):
            return
        if message[:1] != wire.EVENTS:
            for change in wire.parse_changes(message):
                self._node.presence_changed(channel, change)
            return
        arrival = wire.parse_arrival(message)
        if arrival.node != self.node_name:  # its own events are delivered with their reply
            for batch in wire.number(wire.decode_events(arrival.events), arrival.first, arrival.time):
                self._channels.deliver(channel, arrival.epoch, batch)

    def _handle_to_all(self, message: bytes) -> None:
        """A message to all nodes."""
        if message[:1] == COUNTS:
            self._counts.received(message)
        elif message[:1] == REQUEST:
            self.gatherings.received_request(message)
        else:
            node, command = wire.decode_command(message)
            if node != self.node_name:
                self._node.run_command(command)

    # Periodic work.

    def _renew(self, shared: tuple[Shard, int]) -> None:
        if shared == self._shared:
            self._presence.renew()
            self._counts.renew()
            self._schedule(self._timing.renew, partial(self._renew, shared))

    def _check(self, shard: Shard, connection: int) -> None:
        if connection == shard.connection and shard.is_ready:
            self._channels.check(shard)
            self._schedule(self._timing.check, partial(self._check, shard, connection))


def _ignore(reply: Any) -> None: ...
