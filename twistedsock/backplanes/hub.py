"""The hub: joins the worker processes of one machine through one backplane, without input or output.

Each worker has a link, which the hub is given bytes from and writes bytes to. The hub is the node of the backplane: an
event that is delivered to it is encoded once, and sent to all workers that have its channel open. The
requests of one read, or one commit of a store, cause one write for each link.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub_counts import ConnectionCounts, News
from twistedsock.backplanes.hub_keys import PublicationKeys
from twistedsock.backplanes.hub_link import Link, Outlet
from twistedsock.backplanes.hub_members import HubMembers
from twistedsock.backplanes.hub_messages import ProtocolError, encode
from twistedsock.backplanes.hub_reports import Gatherings
from twistedsock.errors import Error
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Backplane
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    PresenceChange,
    RepeatedOffset,
)

HUB_NAME = "hub"
"""The name of the hub in reports of processes."""

LEASE_SECONDS = 3.0
"""The time after the end of a connection in which a worker can connect again before its members leave. A process that
has ended does not; one that was interrupted connects within a second."""


class _Channel:
    """A channel that a worker has open. ``opening`` counts requests that wait."""

    __slots__ = ("followers", "is_open", "opening")

    def __init__(self) -> None:
        self.followers: dict[Link, None] = {}
        self.opening = 0
        self.is_open = False


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
        self._schedule = schedule
        self._links: dict[bytes, Link] = {}
        self._channels: dict[bytes, _Channel] = {}
        self._members = HubMembers(self._announce)
        self._keys = PublicationKeys(clock)
        self._gatherings = Gatherings(schedule)
        self._dirty: dict[Link, None] = {}
        self._is_flush_scheduled = False
        self.is_handling = False
        """Whether requests are being handled: a flush follows."""
        # The delivery to the worker that has published the event: it becomes the answer, if that follows at once.
        self._held: tuple[Link, int, bytes] | None = None
        self._was_ready = True
        self.reports_members = False
        """Whether one worker is notified of each join and leave, for its observers: always the one whose name is the
        first, because it can then recognise members that have reconnected."""
        self.counts = ConnectionCounts(Limits())
        self.reports: dict[bytes, Callable[[], bytes]] = {}
        """The reports of the hub itself, by topic. Its name in answers is ``HUB_NAME``."""

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

    def connect(self, outlet: Outlet) -> Link:
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

    def handle(self, link: Link, request: int, message: Any) -> None:
        """Handle a request. Raises ProtocolError."""
        if not link.node_name and type(message) is not messages.Hello:
            raise ProtocolError("the first message is not Hello")
        _HANDLERS[type(message)](self, link, request, message)

    def add_dirty(self, link: Link) -> None:
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

    def _hello(self, link: Link, request: int, message: messages.Hello) -> None:
        """A worker has said its name. If it has another connection, that one has ended, which is not known yet."""
        name = message.node_name
        if link.node_name or not name:
            raise ProtocolError("Hello without a name, or repeated")
        link.node_name, link.prefix = name, name + b"-"
        link.announces_joins = message.hub in (b"", self.name)
        former = self._links.get(name)
        if former is not None:
            former.cut("connected again")
        self._links[name] = link
        self._members.node_connected(name)
        self._was_ready = self.backplane.is_ready
        link.send(messages.Welcome(self.name, self._was_ready))
        counts = self.counts.connect(name)
        if counts:
            link.send(messages.CountsElsewhere(dict(counts)))

    def _goodbye(self, link: Link, request: int, message: messages.Goodbye) -> None:
        link.has_stopped = True

    def forget(self, link: Link, has_stopped: bool) -> None:
        """A connection has ended."""
        self._dirty.pop(link, None)
        name = link.node_name
        if self._links.get(name) is not link:
            return
        del self._links[name]
        self._members.node_disconnected(name)
        self._send_counts(self.counts.remove(name))
        for channel in list(link.channels):
            self._stop_following(link, channel)
        self._gatherings.disconnected(link)
        if has_stopped:
            self._end_lease(name)
        elif self._members.has_node(name):
            self._schedule(LEASE_SECONDS, partial(self._end_lease, name))

    def _end_lease(self, name: bytes) -> None:
        if name not in self._links:
            self._members.remove_node(name)

    # Publications.

    def _publish(self, link: Link, request: int, message: messages.PublishRequest) -> None:
        publication = message.publication
        key = (publication.channel, publication.key)
        if publication.key:
            known = self._keys.find(key, publication.fingerprint)
            if known is not None:
                on_result(known, lambda outcome: link.answer(request, _offset(outcome)))
                return
        publisher = Client(message.publisher, message.principal)
        publisher.nick = message.sender
        answer = self.backplane.publish(publisher, publication)
        if publication.key:
            answer = self._keys.remember(key, message.principal, publication.fingerprint, answer)
        on_result(answer, partial(self._published, link, request))

    def _published(self, link: Link, request: int, outcome: int | Error) -> None:
        held = self._held
        if held is not None and held[0] is link and held[1] == outcome:
            self._held = None
            link.send_body(held[2], request)
        else:
            link.answer(request, _offset(outcome))

    # Channels.

    def _open(self, link: Link, request: int, message: messages.Open) -> None:
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

    def _close(self, link: Link, request: int, message: messages.Close) -> None:
        self._stop_following(link, message.channel)

    def _stop_following(self, link: Link, name: bytes) -> None:
        link.channels.pop(name, None)
        channel = self._channels.get(name)
        if channel is not None:
            channel.followers.pop(link, None)
            self._close_if_unused(name, channel)

    def _read(self, link: Link, request: int, message: messages.Read) -> None:
        answer = self.backplane.read(message.channel, message.after, message.limit)
        on_result(
            answer,
            lambda outcome: link.answer(
                request, _failure(outcome) if isinstance(outcome, Error) else messages.Batches(list(outcome))
            ),
        )

    def _find_offset(self, link: Link, request: int, message: messages.FindOffset) -> None:
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
        if self._channels.get(name) is channel:
            del self._channels[name]

    # Members.

    def _add_members(self, link: Link, request: int, message: messages.Members) -> None:
        for member in message.members:
            self._members.join(link.node_name, message.channel, member, link.announces_joins)

    def _join(self, link: Link, request: int, message: messages.Join) -> None:
        self._members.join(link.node_name, message.channel, message.member, is_announced=True)

    def _rename(self, link: Link, request: int, message: messages.Rename) -> None:
        self._members.rename(link.node_name, message.channel, message.member)

    def _leave(self, link: Link, request: int, message: messages.Leave) -> None:
        self._members.leave(link.node_name, message.channel, message.member.id)

    def _synced(self, link: Link, request: int, message: messages.Synced) -> None:
        self._members.node_synced(link.node_name)

    def _list_members(self, link: Link, request: int, message: messages.ListMembers) -> None:
        link.answer(request, messages.Members(message.channel, self._members.list(message.channel)))

    def _announce(self, name: bytes, member: Member, joined: bool, members: int) -> None:
        reporter = self._links[min(self._links)] if self.reports_members and self._links else None
        if reporter is not None:
            reporter.send(messages.Changed(name, member, joined, members))
        channel = self._channels.get(name)
        if channel is not None and channel.followers:
            body = encode(messages.Changed(name, member, joined))
            for follower in channel.followers:
                if follower is not reporter:
                    follower.send_body(body)

    # Between workers.

    def _broadcast(self, link: Link, request: int, message: messages.Command) -> None:
        for other in self._links.values():
            if other is not link:
                other.send(message)

    def _send_to(self, link: Link, request: int, message: messages.SendToWorker) -> None:
        other = self._links.get(message.node)
        if other is None:
            link.send(messages.WorkerAway(message.node))
        else:
            other.send(messages.SentByWorker(link.node_name, message.content))

    def _gather(self, link: Link, request: int, message: messages.Gather) -> None:
        topic = message.topic
        report = self.reports.get(topic)
        reports = {HUB_NAME.encode(): b"" if report is None else report()}
        others = [other for other in self._links.values() if other is not link]
        self._gatherings.begin(link, request, topic, others, reports)

    def _reported(self, link: Link, request: int, message: messages.WorkerReport) -> None:
        self._gatherings.reported(link, request, message.content)

    def _probe(self, link: Link, request: int, message: messages.Probe) -> None:
        link.send(messages.Alive())

    def _report_counts(self, link: Link, request: int, message: messages.ReportCounts) -> None:
        self._send_counts(self.counts.report(link.node_name, message.counts))

    def _send_counts(self, news: News) -> None:
        for name, counts in news.items():
            self._links[name].send(messages.CountsElsewhere(counts))

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


_HANDLERS: dict[type, Callable[[Hub, Link, int, Any], None]] = {
    messages.Hello: Hub._hello,
    messages.Synced: Hub._synced,
    messages.Members: Hub._add_members,
    messages.PublishRequest: Hub._publish,
    messages.Open: Hub._open,
    messages.Close: Hub._close,
    messages.Read: Hub._read,
    messages.FindOffset: Hub._find_offset,
    messages.Join: Hub._join,
    messages.Rename: Hub._rename,
    messages.Leave: Hub._leave,
    messages.ListMembers: Hub._list_members,
    messages.Gather: Hub._gather,
    messages.WorkerReport: Hub._reported,
    messages.Goodbye: Hub._goodbye,
    messages.ReportCounts: Hub._report_counts,
    messages.Probe: Hub._probe,
    messages.SendToWorker: Hub._send_to,
    messages.Command: Hub._broadcast,
}


def _offset(outcome: int | Error) -> messages.Message:
    if isinstance(outcome, Error):
        return _failure(outcome)
    return messages.Offset(int(outcome), isinstance(outcome, RepeatedOffset))


def _failure(error: Error) -> messages.Failure:
    return messages.Failure(error.code.value, error.message)
