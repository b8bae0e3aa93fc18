"""Publishes statistics and connection states on the channels under ``$sys/``.

``$sys/figures`` has an event each second. Everything else is computed only while a channel for it has subscribers, in
short steps between other work.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from twistedsock.codecs.payload import build_payloads
from twistedsock.errors import Error
from twistedsock.metrics.connection_journal import CLOCK_DIFFERENCE_SECONDS, ConnectionJournal
from twistedsock.metrics.merged_pages import Part, encode_part, merged_page, own_part
from twistedsock.metrics.pages import (
    CLOSED_CHANNEL,
    CLOSED_ROWS_PER_PAGE,
    MAX_CLOSED_KEPT,
    PEER_PREFIX,
    STATISTICS_CHANNEL,
    Topic,
    encode_closed_page,
    encode_log_entries,
    encode_top_page,
    log_entries,
    page_count,
    parse_topic,
)
from twistedsock.metrics.processes import StatisticsOfAll
from twistedsock.metrics.statistics import ServerStatistics, read_statistics
from twistedsock.metrics.tables import ChannelTable, ConnectionTable, Steps, max_name_bytes
from twistedsock.metrics.timelines import UNKNOWN, subscription_rows, timeline
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import JSON, Member, Publication
from twistedsock.session.connection_info import (
    ClosedConnectionInfo,
    ConnectionInfo,
    closed_connection_info,
    connection_info,
)
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.session import Session
from twistedsock.session.timeline import Step

TICK_SECONDS = 1.0
"""Interval of statistics."""

SNAPSHOT_INTERVAL_SECONDS = 2.0
"""Minimum interval between two snapshots of all channels or connections. People do not look more often."""

MAX_CPU_SHARE = 0.015
"""Share of a CPU for snapshots and pages. If there is more to do, snapshots become less frequent."""

SLICE_SECONDS = 0.001
"""Time for this work in one turn."""

TIMELINE_INTERVAL_SECONDS = 0.25
"""Minimum interval between two events about one connection, because some fall behind and catch up continuously."""

CLOCK_STEP_SECONDS = 0.5
"""Difference of the wall clock from its expected value that means that it has been set."""

MAX_CLOSED_PER_TICK = 50
"""Closed connections that are published each second. An operator cannot read more."""

PUBLISHER_ID = b"$sys"

_encode = msgspec.json.Encoder().encode


class EndedSession(msgspec.Struct, frozen=True):
    """A session that has ended, for its page and the list of closed connections."""

    record: ClosedConnectionInfo
    info: ConnectionInfo
    steps: list[Step]


class Monitor:
    """Observes the presence of the broker and the events of connections. Call ``tick`` each second.
    ``memory_bytes`` and ``cpu_seconds`` return the usage of the process. ``others`` has the statistics of the other
    processes of this server, if there are any."""

    def __init__(
        self,
        context: ServerContext,
        memory_bytes: Callable[[], int],
        cpu_seconds: Callable[[], float],
        others: StatisticsOfAll | None = None,
    ) -> None:
        self._others = others
        self.journal = _build_journal(context, others)
        self._published_number = 0
        self._context = context
        self._broker = context.broker
        self._memory_bytes = memory_bytes
        self._cpu_seconds = cpu_seconds
        self._publisher = Client(PUBLISHER_ID)
        # Channels with subscribers, at most as many as there are subscriptions.
        self._topics: dict[bytes, Topic] = {}
        # Channels to publish as soon as possible, in this order.
        self._due: dict[bytes, None] = {}
        # Timelines with new steps, which are published at the next tick.
        self._changed: set[bytes] = set()
        self._published_at: dict[bytes, float] = {}
        # Last pages of connections that have closed.
        self._last_pages: dict[bytes, bytes] = {}
        self._closed: list[bytes] = []
        self._closed_left = MAX_CLOSED_PER_TICK
        # The sessions that ended last, the newest at the end.
        self._ended: deque[EndedSession] = deque(maxlen=MAX_CLOSED_KEPT)
        self._has_new_ended = False
        # Timelines with subscribers that will not change any more, because their sessions have ended.
        self._final: set[bytes] = set()
        # Pages whose last subscriber has left. Their history is useless.
        self._unread: list[bytes] = []
        self._channels: ChannelTable | None = None
        self._connections: ConnectionTable | None = None
        self._steps: Steps[None] | None = None
        # Work for other processes, and with their reports: some for each page that has subscribers in any of them.
        self._jobs: deque[Steps[None]] = deque()
        # When others have asked for a kind of list. Its table is kept, because rates need two.
        self._asked_at: dict[str, float] = {}
        # The last merged pages of lists that seldom change.
        self._merged: dict[bytes, bytes] = {}
        self._cpu_seconds_spent = self._snapshot_at = self._next_snapshot_at = 0.0
        self._known_epoch = 0.0
        # Maximum over all connections so far: computing it for each page would cost more than anything else.
        self._max_name_bytes = 0

    def attach(self) -> None:
        """Start to observe. Call this before the first connection."""
        self._broker.presence_observers.append(self)
        self._context.connection_events.listeners.append(self)

    # Time.

    def tick(self) -> None:
        """Publish the statistics, and start a snapshot if one is due."""
        self._closed_left = MAX_CLOSED_PER_TICK
        self._publish_statistics()
        now = self._broker.clock()
        kinds = {topic.kind for topic in self._topics.values()}
        kinds |= {kind for kind, at in self._asked_at.items() if now - at < 3 * SNAPSHOT_INTERVAL_SECONDS}
        if kinds.isdisjoint(("channels", "top")):
            self._channels = None
        if kinds.isdisjoint(("peers", "top")):
            self._connections = None
        if self._steps is None and not self._due and now + TICK_SECONDS / 2 >= self._next_snapshot_at:
            self._snapshot_at = now
            self._next_snapshot_at = now + max(SNAPSHOT_INTERVAL_SECONDS, self._cpu_seconds_spent / MAX_CPU_SHARE)
            self._cpu_seconds_spent = 0.0
            self._due.update(
                dict.fromkeys([name for name, topic in self._topics.items() if self._changes_unnoticed(topic)])
            )
        else:
            self._due.update(dict.fromkeys([channel for channel in self._changed if channel in self._topics]))
        self._changed.clear()
        if self._has_new_ended:
            self._has_new_ended = False
            self._due.update(dict.fromkeys([name for name, topic in self._topics.items() if topic.kind == "closed"]))
        if self._published_number != self.journal.newest:
            self._published_number = self.journal.newest
            self._due.update(dict.fromkeys([name for name, topic in self._topics.items() if topic.kind == "log"]))
        if self._due:
            self._schedule()

    def _changes_unnoticed(self, topic: Topic) -> bool:
        """Whether a page is published with each snapshot, because this process does not notice that it has changed."""
        return topic.kind not in ("closed", "log") or self._others is not None

    def statistics(self) -> ServerStatistics:
        """The statistics of this process."""
        statistics = read_statistics(self._context, self._memory_bytes(), self._cpu_seconds())
        return statistics if self._others is None else self._others.with_process(statistics)

    def report_statistics(self, asked: bytes) -> bytes:
        """Another process asks for the statistics of this one."""
        return _encode(self.statistics())

    def _publish_statistics(self) -> None:
        statistics, others = self.statistics(), self._others
        self._context.stats.longest_turn = 0.0
        payload = _encode(statistics if others is None else others.of_all(statistics))
        self._publish(STATISTICS_CHANNEL, b"figures", [payload])
        if others is None:
            return
        if others.is_one_server or self._has_subscribers(STATISTICS_CHANNEL):
            others.refresh()
        else:
            others.forget()
        self._context.connection_limiter.elsewhere = others.connections_elsewhere

    def _has_subscribers(self, name: bytes) -> bool:
        channel = self._broker.channels.get(name)
        return channel is not None and bool(channel.subscriptions)

    # Presence, called by the broker.

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        """A page is published as soon as it has a subscriber."""
        topic = parse_topic(channel)
        if channel == STATISTICS_CHANNEL and self._others is not None:
            self._others.refresh()
        if topic is not None:
            self._topics[channel] = topic
            self._due[channel] = None
            self._final.discard(channel)
            self._schedule()

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        if not readers and channel in self._topics:
            if self._topics.pop(channel).kind != "peer":
                self._unread.append(channel)
                self._schedule()
            self._published_at.pop(channel, None)
            self._merged.pop(channel, None)
            self._final.discard(channel)

    # Connections, called by their journal.

    def opened(self, session: Session) -> None:
        self.journal.opened(session)
        self._max_name_bytes = max(self._max_name_bytes, max_name_bytes(session))

    def stepped(self, session: Session, step: Step) -> None:
        """Publish the timeline soon, if it has subscribers."""
        self.journal.stepped(session, step)
        if step.name == "authenticated":
            self._max_name_bytes = max(self._max_name_bytes, max_name_bytes(session))
        channel = PEER_PREFIX + session.client.id
        if channel not in self._topics:
            return
        if self._broker.clock() - self._published_at.get(channel, 0.0) < TIMELINE_INTERVAL_SECONDS:
            self._changed.add(channel)
        else:
            self._due[channel] = None
            self._schedule()

    def closed(self, session: Session) -> None:
        """Encode the last page of the connection now, because its session is about to be freed."""
        now, channel = self._broker.clock(), PEER_PREFIX + session.client.id
        epoch = self._epoch(now)
        ended = EndedSession(
            closed_connection_info(session, now, epoch), connection_info(session, now), session.timeline.steps
        )
        self._ended.append(ended)
        self.journal.closed(session, ended.record)
        self._has_new_ended = True
        if channel in self._topics:
            self._last_pages[channel] = timeline(ended.info, ended.steps, epoch)
            self._final.add(channel)
            self._schedule()
        if self._closed_left and self._has_subscribers(CLOSED_CHANNEL):
            self._closed_left -= 1
            self._closed.append(_encode(ended.record))
            self._schedule()

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str) -> None:
        self.journal.refused(endpoints, protocol, error, about)

    # Work in turns of its own.

    def _schedule(self) -> None:
        self._broker.scheduler.defer(self._work)

    def _work(self) -> None:
        started_at, cpu_before = self._broker.clock(), self._cpu_seconds()
        self._publish_closed()
        while self._steps is not None or self._jobs or self._due:
            if self._steps is None and self._jobs:
                self._steps = self._jobs.popleft()
            elif self._steps is None:
                channel = next(iter(self._due))
                del self._due[channel]
                self._steps = self._publish_page(channel)
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None
            if self._broker.clock() - started_at >= SLICE_SECONDS:
                self._schedule()
                break
        self._cpu_seconds_spent += self._cpu_seconds() - cpu_before

    def _publish_closed(self) -> None:
        unread, self._unread = self._unread, []
        for name in unread:
            channel = self._broker.channels.get(name)
            if channel is not None and not channel.subscriptions:
                self._broker.histories.clear(channel)
        pages, self._last_pages = self._last_pages, {}
        for name, page in pages.items():
            self._publish(name, b"steps", [page])
        if self._closed:
            closed, self._closed = self._closed, []
            self._publish(CLOSED_CHANNEL, b"closed", closed)

    def _publish_page(self, channel: bytes) -> Steps[None]:
        topic = self._topics.get(channel)
        if topic is None:  # the last subscriber has left
            return
        now = self._broker.clock()
        if self._others is not None and topic.kind != "peer":
            own = yield from self._part(topic, now)
            self._others.gather_pages(channel, partial(self._merge_later, channel, topic, own))
            return
        if self._others is not None and self._context.sessions.is_remote_id(topic.text):
            self._others.gather_pages(channel, partial(self._publish_remote_timeline, channel))
            return
        if topic.kind == "channels":
            page = yield from (yield from self._channel_table(now)).page(topic)
        elif topic.kind == "peers":
            page = yield from (yield from self._connection_table(now)).page(topic, now)
        elif topic.kind == "top":
            busiest = yield from (yield from self._channel_table(now)).busiest()
            slowest = yield from (yield from self._connection_table(now)).slowest(now)
            page = encode_top_page(busiest, slowest)
        elif topic.kind == "closed":
            page = self._closed_page(topic.page)
        elif topic.kind == "log":
            page = encode_log_entries(topic, log_entries(self.journal, topic))
        elif channel in self._final:
            return
        else:
            self._published_at[channel] = now
            page = self._timeline_page(channel, topic.text, now)
        self._publish(channel, b"steps" if topic.kind == "peer" else topic.kind.encode(), [page])

    def _newest_closed(self) -> list[ClosedConnectionInfo]:
        return [ended.record for ended in reversed(self._ended)]

    def _closed_page(self, page: int) -> bytes:
        newest = self._newest_closed()
        start = page * CLOSED_ROWS_PER_PAGE
        rows = newest[start : start + CLOSED_ROWS_PER_PAGE]
        return encode_closed_page(page, page_count(len(newest), CLOSED_ROWS_PER_PAGE), len(newest), rows)

    def _timeline_page(self, channel: bytes, id: bytes, now: float) -> bytes:
        """The timeline of a present or recent session, or the page of an unknown id."""
        if not isinstance(self._context.sessions.get(id), Session):
            self._final.add(channel)
        return self._find_timeline(id, now) or UNKNOWN

    def _find_timeline(self, id: bytes, now: float) -> bytes:
        """The timeline of a session, empty for an unknown id."""
        session = self._context.sessions.get(id)
        if isinstance(session, Session):
            info, steps = connection_info(session, now), session.timeline.steps
            return timeline(info, steps, self._epoch(now), subscription_rows(session))
        for ended in reversed(self._ended):
            if ended.info.id == id.decode():
                return timeline(ended.info, ended.steps, self._epoch(now))
        return b""

    # Several processes.

    def report(self, channel: bytes) -> bytes | Future[bytes]:
        """Another process asks for the part of this one in a page."""
        topic, now = parse_topic(channel), self._broker.clock()
        if topic is None:
            return b""
        if topic.kind == "peer":
            return self._find_timeline(topic.text, now)
        self._asked_at[topic.kind] = now
        if now - self._snapshot_at >= SNAPSHOT_INTERVAL_SECONDS:
            self._snapshot_at = now
        answer = Future[bytes]()
        self._add_job(self._answer(topic, answer))
        return answer

    def _answer(self, topic: Topic, answer: Future[bytes]) -> Steps[None]:
        part = yield from self._part(topic, self._broker.clock())
        answer.settle(encode_part(part))

    def _part(self, topic: Topic, now: float) -> Steps[Part]:
        return own_part(topic, now, self._channel_table, self._connection_table, self._newest_closed, self.journal)

    def _merge(self, channel: bytes, topic: Topic, own: Part, reports: Sequence[bytes]) -> Steps[None]:
        page = yield from merged_page(topic, own, reports)
        if channel in self._topics and self._merged.get(channel) != page:
            if topic.kind in ("closed", "log"):
                self._merged[channel] = page
            self._publish(channel, topic.kind.encode(), [page])

    def _merge_later(self, channel: bytes, topic: Topic, own: Part, reports: Sequence[bytes]) -> None:
        self._add_job(self._merge(channel, topic, own, reports))

    def _publish_remote_timeline(self, channel: bytes, reports: Sequence[bytes]) -> None:
        """Only the process of the client has its timeline."""
        if channel in self._topics:
            self._publish(channel, b"steps", [reports[0] if reports else UNKNOWN])

    def _add_job(self, job: Steps[None]) -> None:
        self._jobs.append(job)
        self._schedule()

    def _channel_table(self, now: float) -> Steps[ChannelTable]:
        table = self._channels
        if table is None or table.at < self._snapshot_at:
            previous, table = table, ChannelTable(now)
            yield from table.fill(self._broker.channels.values(), previous)
            self._channels = table
        return table

    def _connection_table(self, now: float) -> Steps[ConnectionTable]:
        table = self._connections
        if table is None or table.at < self._snapshot_at:
            previous, table = table, ConnectionTable(now, self._max_name_bytes)
            table.fill([session for session in self._context.sessions if isinstance(session, Session)], previous)
            self._connections = table
            yield
        return table

    def _epoch(self, now: float) -> float:
        """The time when the broker's clock was 0, in seconds since 1970. It is constant until the wall clock is
        set, so that a step has the same time in each event."""
        epoch = self._context.wall_clock() - now
        if abs(epoch - self._known_epoch) > CLOCK_STEP_SECONDS:
            self._known_epoch = epoch
        return self._known_epoch

    def _publish(self, channel: bytes, name: bytes, payloads: list[bytes]) -> None:
        self._broker.publish(self._publisher, Publication(channel, build_payloads(payloads, JSON), name))


def _build_journal(context: ServerContext, others: StatisticsOfAll | None) -> ConnectionJournal:
    if others is None:
        return ConnectionJournal(context)
    return ConnectionJournal(context, others.index, 0.0 if others.is_one_server else CLOCK_DIFFERENCE_SECONDS)
