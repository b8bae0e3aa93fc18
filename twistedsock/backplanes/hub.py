"""The hub: joins the worker processes of one machine through one backplane, without input or output.

Each worker has a link, which the hub is given bytes from and writes bytes to. The hub is the node of the backplane: an
event that is delivered to it is encoded once, and sent to all workers that have its channel open. The
requests of one read, or one commit of a store, cause one write for each link.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub_messages import FrameReader, ProtocolError, encode
from twistedsock.errors import Error
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.backplane import Backplane
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    PresenceChange,
)

MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""The most that waits for a worker that does not read. Beyond that, its connection is closed: it reads what it has
missed when it connects again."""

PAUSE_BYTES = 1024 * 1024
"""While so much waits for a worker, its requests wait too: their answers would be added."""

LEASE_SECONDS = 3.0
"""The time after the end of a connection in which a worker can connect again before its members leave. A process that
has ended does not; one that was interrupted connects within a second."""

GATHER_SECONDS = 1.0
"""The time in which workers report. One that is busy for longer is missing in the answer."""

KEY_SECONDS = 600.0
"""How long the key of a publication is remembered, as in ``session.request.Idempotency``."""

MAX_KEYS = 50_000
"""Keys that are remembered, about 300 bytes each. The oldest one of the client that has most is forgotten first."""

Key = tuple[bytes, bytes]
"""A channel, and the key of a publication."""


class Outlet(Protocol):
    """Writes to a worker. It calls ``pause`` and ``resume`` of the link as a Twisted transport calls its producer."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Close the connection, and discard what has not been written."""


class _Channel:
    """A channel that a worker has open, or that has members. ``opening`` counts requests that wait."""

    __slots__ = ("followers", "is_open", "members", "opening")

    def __init__(self) -> None:
        self.followers: dict[Link, None] = {}
        self.members: dict[bytes, tuple[bytes, Member]] = {}
        """By their id, with the name of their node."""
        self.opening = 0
        self.is_open = False


class _Gathering:
    """Reports of workers that are being waited for."""

    __slots__ = ("link", "missing", "reports", "request")

    def __init__(self, link: "Link", request: int, missing: set["Link"], reports: dict[bytes, bytes]) -> None:
        self.link = link
        self.request = request
        self.missing = missing
        self.reports = reports


class Hub:
    """``name`` is a random name of this hub. ``clock`` is monotonic; ``schedule`` calls a function after some seconds,
    or at the end of this turn if they are 0. ``report`` is called with a sentence about a worker."""

    def __init__(
        self,
        backplane: Backplane,
        name: bytes,
        clock: Callable[[], float],
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], object],
    ) -> None:
        self.name = name
        self.backplane = backplane
        self.report = report
        self._clock = clock
        self._schedule = schedule
        self._links: dict[bytes, Link] = {}
        self._channels: dict[bytes, _Channel] = {}
        # Channels with members, by the name of their node.
        self._memberships: dict[bytes, dict[tuple[bytes, bytes], None]] = {}
        # Those of a node that has connected again and has not confirmed them yet.
        self._unconfirmed: dict[bytes, dict[tuple[bytes, bytes], None]] = {}
        self._dirty: dict[Link, None] = {}
        self._is_flush_scheduled = False
        self.is_handling = False
        """Whether requests are being handled: a flush follows."""
        # The delivery to the worker that has published the event: it becomes the answer, if that follows at once.
        self._held: tuple[Link, int, bytes] | None = None
        self._keys: OrderedDict[Key, tuple[float, bytes, Future[int]]] = OrderedDict()
        self._key_queue = EvictionQueue[Key](MAX_KEYS)
        self._gatherings: dict[int, _Gathering] = {}
        self._gathered = 0
        self._was_ready = True
        self.reports_members = False
        """Whether one worker is notified of each join and leave, for its observers: always the one whose name is the
        first, because it can then recognise members that have reconnected."""
        self.reports: dict[bytes, Callable[[], bytes]] = {}
        """The reports of the hub itself, by topic. Its name in answers is ``hub``."""

    def start(self) -> Future[bool] | None:
        return self.backplane.start(self)

    def stop(self) -> Future[bool] | None:
        """The future is settled when all publications that the hub has received have been answered."""
        return self.backplane.stop()

    @property
    def channels(self) -> int:
        """How many channels workers have open."""
        return len(self._channels)

    @property
    def workers(self) -> int:
        """How many workers are connected."""
        return len(self._links)

    def connect(self, outlet: Outlet) -> "Link":
        """A worker has connected."""
        return Link(self, outlet)

    def announce_ready(self) -> None:
        """Tell the workers whether the backplane can answer, if that has changed."""
        is_ready = self.backplane.is_ready
        if is_ready != self._was_ready:
            self._was_ready = is_ready
            for link in self._links.values():
                link.send(messages.Ready(is_ready))

    # Links.

    def add_dirty(self, link: "Link") -> None:
        self._dirty[link] = None
        if not (self._is_flush_scheduled or self.is_handling):
            self._is_flush_scheduled = True
            self._schedule(0, self._flush_later)

    def _flush_later(self) -> None:
        self._is_flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write what waits for all workers."""
        self._release_held()
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            link.flush()

    def welcome(self, link: "Link") -> None:
        """A worker has said its name. If it has another connection, that one has ended, which is not known yet."""
        name = link.node_name
        former = self._links.get(name)
        if former is not None:
            former.cut("connected again")
        self._links[name] = link
        self._unconfirmed[name] = dict(self._memberships.get(name, ()))
        self._was_ready = self.backplane.is_ready
        link.send(messages.Welcome(self.name, self._was_ready))

    def forget(self, link: "Link", has_stopped: bool) -> None:
        """A connection has ended."""
        self._dirty.pop(link, None)
        name = link.node_name
        if self._links.get(name) is not link:
            return
        del self._links[name]
        self._unconfirmed.pop(name, None)
        for channel in list(link.channels):
            self.close(link, channel)
        for number in [number for number, gathering in self._gatherings.items() if link in gathering.missing]:
            self._reported(number, link)
        if has_stopped:
            self._end_lease(name)
        elif name in self._memberships:
            self._schedule(LEASE_SECONDS, partial(self._end_lease, name))

    def _end_lease(self, name: bytes) -> None:
        if name not in self._links:
            for channel, id in list(self._memberships.get(name, ())):
                self.leave(name, channel, id)

    # Publications.

    def publish(self, link: "Link", request: int, message: messages.PublishRequest) -> None:
        publication = message.publication
        key = (publication.channel, publication.key)
        if publication.key:
            self._forget_old_keys()
            known = self._keys.get(key)
            if known is not None:
                known[2].then(lambda outcome: link.answer(request, _offset(outcome)))
                return
        publisher = Client(message.publisher, message.principal)
        publisher.nick = message.sender
        answer = self.backplane.publish(publisher, publication)
        if publication.key:
            answer = self._remember(key, message.principal, answer)
        on_result(answer, partial(self._published, link, request))

    def _published(self, link: "Link", request: int, outcome: int | Error) -> None:
        held = self._held
        if held is not None and held[0] is link and held[1] == outcome:
            self._held = None
            link.send_body(held[2], request)
        else:
            link.answer(request, _offset(outcome))

    def _remember(self, key: Key, principal: bytes, answer: int | Error | Future[int]) -> Future[int]:
        remembered = Future[int]()
        self._keys[key] = (self._clock(), principal, remembered)
        self._key_queue.add(principal, key)
        while self._key_queue.is_full:
            self._forget_key(self._key_queue.next_victim())

        def settle(outcome: int | Error) -> None:
            if isinstance(outcome, Error) and self._keys.get(key, (0, b"", None))[2] is remembered:
                self._forget_key(key)  # the next attempt can succeed
            remembered.settle(outcome)

        on_result(answer, settle)
        return remembered

    def _forget_old_keys(self) -> None:
        oldest = self._clock() - KEY_SECONDS
        while self._keys:
            key, (at, _, _) = next(iter(self._keys.items()))
            if at > oldest:
                return
            self._forget_key(key)

    def _forget_key(self, key: Key) -> None:
        self._key_queue.remove(self._keys.pop(key)[1], key)

    # Channels.

    def open(self, link: "Link", request: int, message: messages.Open) -> None:
        name, known = message.channel, message.known
        channel = self._channel(name)
        channel.opening += 1

        def opened(outcome: ChannelState | Error) -> None:
            channel.opening -= 1
            if isinstance(outcome, Error):
                link.answer(request, _failure(outcome))
            else:
                channel.is_open = True
                if link.is_connected:
                    channel.followers[link] = None
                    link.channels[name] = None
                    link.answer(request, messages.OpenedChannel(messages.newer_than(known, outcome)))
            self._close_if_unused(name, channel)

        on_result(self.backplane.open(name), opened)

    def close(self, link: "Link", name: bytes) -> None:
        link.channels.pop(name, None)
        channel = self._channels.get(name)
        if channel is not None:
            channel.followers.pop(link, None)
            self._close_if_unused(name, channel)

    def read(self, link: "Link", request: int, message: messages.Read) -> None:
        answer = self.backplane.read(message.channel, message.after, message.limit)
        on_result(
            answer,
            lambda outcome: link.answer(
                request, _failure(outcome) if isinstance(outcome, Error) else messages.Batches(list(outcome))
            ),
        )

    def find_offset(self, link: "Link", request: int, message: messages.FindOffset) -> None:
        answer = self.backplane.offset_before(message.channel, message.epoch, message.time)
        on_result(
            answer,
            lambda outcome: link.answer(
                request, _failure(outcome) if isinstance(outcome, Error) else messages.Offset(outcome)
            ),
        )

    def _channel(self, name: bytes) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel()
        return channel

    def _close_if_unused(self, name: bytes, channel: _Channel) -> None:
        if channel.followers or channel.opening:
            return
        if channel.is_open:
            channel.is_open = False
            self.backplane.close(name)
        if not channel.members and self._channels.get(name) is channel:
            del self._channels[name]

    # Members.

    def join(self, link: "Link", name: bytes, member: Member, is_announced: bool = True) -> None:
        channel, place = self._channel(name), (name, member.id)
        is_new = member.id not in channel.members
        channel.members[member.id] = (link.node_name, member)
        self._memberships.setdefault(link.node_name, {})[place] = None
        self._unconfirmed.get(link.node_name, {}).pop(place, None)
        if is_new and is_announced:
            self._announce(channel, name, member, joined=True)

    def rename(self, link: "Link", name: bytes, member: Member) -> None:
        channel = self._channels.get(name)
        if channel is not None and member.id in channel.members:
            channel.members[member.id] = (link.node_name, member)

    def leave(self, node_name: bytes, name: bytes, id: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None or id not in channel.members or channel.members[id][0] != node_name:
            return
        _, member = channel.members.pop(id)
        memberships = self._memberships[node_name]
        memberships.pop((name, id), None)
        if not memberships:
            del self._memberships[node_name]
        self._announce(channel, name, member, joined=False)
        self._close_if_unused(name, channel)

    def synced(self, link: "Link") -> None:
        """The members of a worker that has connected again are complete: its other former members have left."""
        for name, id in self._unconfirmed.pop(link.node_name, ()):
            self.leave(link.node_name, name, id)

    def list_members(self, link: "Link", request: int, name: bytes) -> None:
        channel = self._channels.get(name)
        members = [] if channel is None else [member for _, member in channel.members.values()]
        link.answer(request, messages.Members(name, members))

    def _announce(self, channel: _Channel, name: bytes, member: Member, joined: bool) -> None:
        reporter = self._links[min(self._links)] if self.reports_members and self._links else None
        if reporter is not None:
            reporter.send(messages.Changed(name, member, joined, len(channel.members)))
        if channel.followers:
            body = encode(messages.Changed(name, member, joined))
            for follower in channel.followers:
                if follower is not reporter:
                    follower.send_body(body)

    # Between workers.

    def broadcast(self, link: "Link", message: messages.Command) -> None:
        for other in self._links.values():
            if other is not link:
                other.send(message)

    def gather(self, link: "Link", request: int, topic: bytes) -> None:
        others = {other for other in self._links.values() if other is not link}
        reports = {b"hub": self.reports[topic]()} if topic in self.reports else {}
        if not others:
            link.answer(request, messages.Reports(reports))
            return
        self._gathered = number = self._gathered % 0xFFFFFFFF + 1
        self._gatherings[number] = _Gathering(link, request, others, reports)
        for other in others:
            other.send(messages.Ask(topic), number)
        self._schedule(GATHER_SECONDS, partial(self._end_gathering, number))

    def reported(self, link: "Link", number: int, content: bytes) -> None:
        gathering = self._gatherings.get(number)
        if gathering is not None and link in gathering.missing:
            gathering.reports[link.node_name] = content
            self._reported(number, link)

    def _reported(self, number: int, link: "Link") -> None:
        gathering = self._gatherings[number]
        gathering.missing.discard(link)
        if not gathering.missing:
            self._end_gathering(number)

    def _end_gathering(self, number: int) -> None:
        gathering = self._gatherings.pop(number, None)
        if gathering is not None:
            gathering.link.answer(gathering.request, messages.Reports(gathering.reports))

    # The node of the backplane.

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        """Send events to all workers that have their channel open."""
        self._release_held()
        channel = self._channels.get(name)
        if channel is None or not channel.followers:
            return
        body = encode(messages.Deliver(name, epoch, batch))
        for follower in channel.followers:
            if batch.publisher.startswith(follower.prefix):
                self._held = (follower, batch.first, body)
            else:
                follower.send_body(body)

    def reset(self, name: bytes, state: ChannelState) -> None:
        channel = self._channels.get(name)
        if channel is not None and channel.followers:
            body = encode(messages.ResetChannel(name, state))
            for follower in channel.followers:
                follower.send_body(body)

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        """Not called: the hub itself keeps the members."""

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None:
        """Not called either."""

    def local_members(self, name: bytes) -> list[Member]:
        return []

    def run_command(self, command: NodeCommand) -> None:
        """Not called: the backplane of a hub has one node."""

    def _release_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held[0].send_body(held[2])


class Link:
    """The connection of a worker. ``prefix`` is how the ids of its clients begin."""

    def __init__(self, hub: Hub, outlet: Outlet) -> None:
        self.node_name = b""
        self.prefix = b"-"  # no id begins with a hyphen
        self.is_connected = True
        self.channels: dict[bytes, None] = {}
        """Those that it has open."""
        self._hub = hub
        self._outlet = outlet
        self._reader = FrameReader(messages.ToHub)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_dirty = False
        self._is_paused = False
        self._is_handling = False
        self._has_stopped = False
        self._announces_joins = True

    # Called by the connection.

    def received(self, data: bytes) -> None:
        """Handle the requests of a worker, as far as it reads their answers. Memory has answered when this returns: so
        all is written now, and not at the end of the turn."""
        self._reader.feed(data)
        self._hub.is_handling = True
        try:
            self._handle_requests()
        finally:
            self._hub.is_handling = False
            self._hub.flush()

    def pause(self) -> None:
        """The worker does not read as fast as the hub writes."""
        self._is_paused = True

    def resume(self) -> None:
        """All has been written."""
        self._is_paused = False
        self.flush()
        self._handle_requests()

    def lost(self) -> None:
        """The connection has ended."""
        if self.is_connected:
            self.is_connected = False
            self._waiting.clear()
            self._hub.forget(self, self._has_stopped)

    def cut(self, reason: str) -> None:
        """End the connection."""
        if self.is_connected:
            self._hub.report(f"worker {self.node_name.decode(errors='replace') or '?'}: connection closed: {reason}")
            self.lost()
            self._outlet.close()

    def _handle_requests(self) -> None:
        if self._is_handling or self._is_blocked:  # an answer was there at once; or the worker does not read
            return
        self._is_handling = True
        try:
            for request, message in self._reader:
                self._handle(request, message)
                if self._is_blocked or not self.is_connected:
                    break
        except ProtocolError as error:
            self.cut(str(error))
        finally:
            self._is_handling = False

    @property
    def _is_blocked(self) -> bool:
        return self._is_paused or self._waiting_bytes > PAUSE_BYTES

    def _handle(self, request: int, message: Any) -> None:
        if not self.node_name and type(message) is not messages.Hello:
            raise ProtocolError("the first message is not Hello")
        _HANDLERS[type(message)](self, request, message)

    def _hello(self, request: int, message: messages.Hello) -> None:
        if self.node_name or not message.node_name:
            raise ProtocolError("Hello without a name, or repeated")
        self.node_name, self.prefix = message.node_name, message.node_name + b"-"
        self._announces_joins = message.hub in (b"", self._hub.name)
        self._hub.welcome(self)

    def _members(self, request: int, message: messages.Members) -> None:
        for member in message.members:
            self._hub.join(self, message.channel, member, self._announces_joins)

    def _goodbye(self, request: int, message: messages.Goodbye) -> None:
        self._has_stopped = True

    # Called by the hub.

    def answer(self, request: int, message: messages.Message) -> None:
        if self.is_connected:
            self.send_body(encode(message), request)

    def send(self, message: messages.Message, request: int = 0) -> None:
        self.send_body(encode(message), request)

    def send_body(self, body: bytes, request: int = 0) -> None:
        """Send a message at the end of this turn."""
        if not self._is_dirty:
            self._is_dirty = True
            self._hub.add_dirty(self)
        self._waiting += (messages.HEADER.pack(len(body), request), body)
        self._waiting_bytes += len(body)

    def flush(self) -> None:
        """Write all that waits, if the worker reads."""
        self._is_dirty = False
        if self._is_paused:
            if self._waiting_bytes > MAX_UNREAD_BYTES:
                self.cut(f"it does not read: {self._waiting_bytes} bytes wait for it")
            return
        if self._waiting:
            data, was_blocked = b"".join(self._waiting), self._waiting_bytes > PAUSE_BYTES
            self._waiting.clear()
            self._waiting_bytes = 0
            self._outlet.write(data)
            if was_blocked:
                self._handle_requests()


_HANDLERS: dict[type, Callable[[Link, int, Any], None]] = {
    messages.Hello: Link._hello,
    messages.Synced: lambda link, request, message: link._hub.synced(link),
    messages.Members: Link._members,
    messages.PublishRequest: lambda link, request, message: link._hub.publish(link, request, message),
    messages.Open: lambda link, request, message: link._hub.open(link, request, message),
    messages.Close: lambda link, request, message: link._hub.close(link, message.channel),
    messages.Read: lambda link, request, message: link._hub.read(link, request, message),
    messages.FindOffset: lambda link, request, message: link._hub.find_offset(link, request, message),
    messages.Join: lambda link, request, message: link._hub.join(link, message.channel, message.member),
    messages.Rename: lambda link, request, message: link._hub.rename(link, message.channel, message.member),
    messages.Leave: lambda link, request, message: link._hub.leave(link.node_name, message.channel, message.member.id),
    messages.ListMembers: lambda link, request, message: link._hub.list_members(link, request, message.channel),
    messages.Gather: lambda link, request, message: link._hub.gather(link, request, message.topic),
    messages.WorkerReport: lambda link, request, message: link._hub.reported(link, request, message.content),
    messages.Goodbye: Link._goodbye,
    messages.Command: lambda link, request, message: link._hub.broadcast(link, message),
}


def _offset(outcome: int | Error) -> messages.Message:
    return _failure(outcome) if isinstance(outcome, Error) else messages.Offset(outcome)


def _failure(error: Error) -> messages.Failure:
    return messages.Failure(error.code.value, error.message)
