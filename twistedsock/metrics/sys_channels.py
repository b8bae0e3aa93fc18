"""Publishes what the bridge tells about itself: the figures always, all else only while somebody reads it."""

import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable

import msgspec

from twistedsock.codecs.payload import build_payloads
from twistedsock.metrics.tables import (
    CLOSED,
    ENDS,
    ENDS_ROWS,
    FIGURES,
    PEER,
    ChannelTable,
    ConnectionTable,
    Topic,
    Work,
    ends_page,
    longest_names,
    pages_for,
    parse_topic,
)
from twistedsock.metrics.timelines import UNKNOWN, timeline
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import JSON, Member, Publication
from twistedsock.session.registry import ServerContext
from twistedsock.session.session import Session
from twistedsock.session.timeline import (
    ClosedConnectionInfo,
    ConnectionInfo,
    Step,
    closed_connection_info,
    connection_info,
)

TITLES = ("line", "json", "events")
"""The dialects that are told even where nobody speaks them."""


class Figures(msgspec.Struct, frozen=True):
    """All are totals since the start, but for those that are a state: peers, connections, channels, subscriptions,
    behind and the bytes of memory. ``time`` is in seconds since 1970; ``turn_longest`` is the longest turn since the
    figures before."""

    time: float
    uptime: float
    version: str
    peers: dict[str, int]
    connections: int
    channels: int
    subscriptions: int
    behind: int
    published: int
    delivered: int
    lost: int
    received_bytes: int
    sent_bytes: int
    refused: dict[str, int]
    log_bytes: int
    held_bytes: int
    memory_bytes: int
    cpu_seconds: float
    turns: int
    turn_seconds: float
    turn_longest: float


def count_peers(context: ServerContext) -> dict[str, int]:
    """By dialect, and in all."""
    stats = context.stats
    peers = {title: stats.opened.get(title, 0) - stats.closed.get(title, 0) for title in (*TITLES, *stats.opened)}
    return {"total": sum(peers.values()), **peers}


def take_figures(context: ServerContext, memory_bytes: int, cpu_seconds: float) -> Figures:
    """As they are now; what is the server's own does not count."""
    broker, stats = context.broker, context.stats
    return Figures(
        time=round(context.expiry_watcher.wall_clock(), 3),
        uptime=round(broker.clock() - context.started, 1),
        version=context.version.decode(),
        peers=count_peers(context),
        connections=context.connection_limiter.connections,
        channels=len(broker.channels) - broker.own_channels,
        subscriptions=broker.subscriptions,
        behind=stats.behind,
        published=stats.published,
        delivered=stats.delivered,
        lost=stats.lost,
        received_bytes=stats.received,
        sent_bytes=stats.sent,
        refused={code.value.decode(): times for code, times in stats.errors.items()},
        log_bytes=broker.history_bytes,
        held_bytes=broker.memory_budget.held,
        memory_bytes=memory_bytes,
        cpu_seconds=round(cpu_seconds, 3),
        turns=sum(stats.turns.counts),
        turn_seconds=round(stats.turns.total, 6),
        turn_longest=round(stats.longest_turn, 6),
    )


TICK = 1.0
"""Seconds between two events with figures."""

PERIOD = 2.0
"""Seconds between two looks at all channels and peers, while somebody reads of them: as often as people look."""

PART_OF_TIME = 0.015
"""How much of a CPU the looks may take. Where they take more, as there is more to look at, they are as much rarer."""

BIT = 0.001
"""Seconds of one turn that are spent on looking: others have their turn then."""

HASTE = 0.25
"""Seconds between two events about one peer, unless it is gone: some fall behind and catch up all the time."""

CLOCK_SET = 0.5
"""Seconds by which the clock on the wall differs from what it should be, where it has been set."""

CLOSED_EACH_TICK = 50
"""Connections whose ends are told each second: where more end, nobody reads each."""

NAME = b"$sys"
"""Who publishes."""

_encode = msgspec.json.Encoder().encode


class Ended(msgspec.Struct, frozen=True):
    """What is kept of a session that has ended."""

    record: ClosedConnectionInfo
    peer: ConnectionInfo
    steps: list[Step]


class Monitor:
    """To be told of readers by the broker, and of connections by the journal. ``tick`` is to be called each second.
    ``memory_bytes`` and ``cpu_seconds`` tell what the process takes."""

    def __init__(
        self, context: ServerContext, memory_bytes: Callable[[], int], cpu_seconds: Callable[[], float]
    ) -> None:
        self._context = context
        self._broker = context.broker
        self._memory_bytes = memory_bytes
        self._cpu_seconds = cpu_seconds
        self._self = Client(NAME)
        # What is read now. As many entries as there are subscriptions at most.
        self._topics: dict[bytes, Topic] = {}
        # What is to be told as soon as may be, in this order.
        self._due: dict[bytes, None] = {}
        # Peers that have gone a step further, and are told of a little later.
        self._changed: set[bytes] = set()
        self._told: dict[bytes, float] = {}
        # The last words about those who are gone.
        self._last: dict[bytes, bytes] = {}
        self._closed: list[bytes] = []
        self._closed_left = CLOSED_EACH_TICK
        # The sessions that ended last, the newest at the end, and whether there are new ones since the tick before.
        self._ended: deque[Ended] = deque(maxlen=ENDS)
        self._has_new_ends = False
        # Timelines that are read and do not change any more: their sessions have ended.
        self._final: set[bytes] = set()
        # Pages that the last reader has left: their logs are of no use.
        self._unread: list[bytes] = []
        self._channels: ChannelTable | None = None
        self._peers: ConnectionTable | None = None
        self._work: Work[None] | None = None
        self._spent = self._looked_at = self._next_look = 0.0
        self._known_epoch = 0.0
        # Bytes that the names of one peer had at most, of all that ever came: to look at all of them each time would
        # cost more than anything else.
        self._longest = 0

    def attach(self) -> None:
        """Begin to look on. Before the first connection."""
        self._broker.presence_observers.append(self)
        self._context.connection_events.watchers.append(self)

    # What time tells.

    def tick(self) -> None:
        """Tell the figures, and begin the next look where it is due."""
        self._closed_left = CLOSED_EACH_TICK
        self._tell_figures()
        now = self._broker.clock()
        kinds = {topic.kind for topic in self._topics.values()}
        if "channels" not in kinds:
            self._channels = None
        if "peers" not in kinds:
            self._peers = None
        if self._work is None and not self._due and now + TICK / 2 >= self._next_look:
            self._looked_at = now
            self._next_look = now + max(PERIOD, self._spent / PART_OF_TIME)
            self._spent = 0.0
            self._due.update(dict.fromkeys([name for name, topic in self._topics.items() if topic.kind != "closed"]))
        else:
            self._due.update(dict.fromkeys([channel for channel in self._changed if channel in self._topics]))
        self._changed.clear()
        if self._has_new_ends:
            self._has_new_ends = False
            self._due.update(dict.fromkeys([name for name, topic in self._topics.items() if topic.kind == "closed"]))
        if self._due:
            self._ask_for_turn()

    def _tell_figures(self) -> None:
        figures = take_figures(self._context, self._memory_bytes(), self._cpu_seconds())
        self._context.stats.longest_turn = 0.0
        self._publish(FIGURES, b"figures", [_encode(figures)])

    # What the broker tells.

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        """Somebody subscribes; what is told only to those who read it is told at once."""
        topic = parse_topic(channel)
        if topic is not None:
            self._topics[channel] = topic
            self._due[channel] = None
            self._final.discard(channel)
            self._ask_for_turn()

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        """Somebody reads it no longer."""
        if not readers and channel in self._topics:
            if self._topics.pop(channel).kind != "peer":
                self._unread.append(channel)
                self._ask_for_turn()
            self._told.pop(channel, None)
            self._final.discard(channel)

    # What the journal tells.

    def opened(self, session: Session) -> None:
        """Somebody came, whose names may be longer than those before."""
        self._longest = max(self._longest, longest_names(session))

    def stepped(self, session: Session, step: Step) -> None:
        """Who reads of a peer hears soon what has become of it."""
        if step.name == "authenticated":
            self._longest = max(self._longest, longest_names(session))
        channel = PEER + session.client.id
        if channel not in self._topics:
            return
        if self._broker.clock() - self._told.get(channel, 0.0) < HASTE:
            self._changed.add(channel)
        else:
            self._due[channel] = None
            self._ask_for_turn()

    def closed(self, session: Session) -> None:
        """There is nobody to look at any more, so the last words are made now."""
        now, channel = self._broker.clock(), PEER + session.client.id
        epoch = self._epoch(now)
        ended = Ended(closed_connection_info(session, now, epoch), connection_info(session, now), session.steps)
        self._ended.append(ended)
        self._has_new_ends = True
        if channel in self._topics:
            self._last[channel] = timeline(ended.peer, ended.steps, epoch)
            self._final.add(channel)
            self._ask_for_turn()
        readers = self._broker.channels.get(CLOSED)
        if readers is not None and readers.subscriptions and self._closed_left:
            self._closed_left -= 1
            self._closed.append(_encode(ended.record))
            self._ask_for_turn()

    # What is done in turns of its own.

    def _ask_for_turn(self) -> None:
        self._broker.postpone(self._go_on)

    def _go_on(self) -> None:
        began, spent = self._broker.clock(), self._cpu_seconds()
        self._tell_ends()
        while self._work is not None or self._due:
            if self._work is None:
                channel = next(iter(self._due))
                del self._due[channel]
                self._work = self._tell(channel)
            try:
                next(self._work)
            except StopIteration:
                self._work = None
            if self._broker.clock() - began >= BIT:
                self._ask_for_turn()
                break
        self._spent += self._cpu_seconds() - spent

    def _tell_ends(self) -> None:
        unread, self._unread = self._unread, []
        for name in unread:
            channel = self._broker.channels.get(name)
            if channel is not None and not channel.subscriptions:
                self._broker.clear_history(channel)
        last, self._last = self._last, {}
        for name, page in last.items():
            self._publish(name, b"steps", [page])
        if self._closed:
            ends, self._closed = self._closed, []
            self._publish(CLOSED, b"closed", ends)

    def _tell(self, channel: bytes) -> Work[None]:
        topic = self._topics.get(channel)
        if topic is None:  # nobody reads it any longer
            return
        now = self._broker.clock()
        if topic.kind == "channels":
            page = yield from (yield from self._look_at_channels(now)).answer(topic)
        elif topic.kind == "peers":
            page = yield from (yield from self._look_at_peers(now)).answer(topic, now)
        elif topic.kind == "closed":
            page = self._page_of_ends(topic.page)
        elif channel in self._final:
            return
        else:
            self._told[channel] = now
            page = self._timeline(channel, topic.text, now)
        self._publish(channel, b"steps" if topic.kind == "peer" else topic.kind.encode(), [page])

    def _page_of_ends(self, page: int) -> bytes:
        newest = [ended.record for ended in reversed(self._ended)]
        start = page * ENDS_ROWS
        return ends_page(page, pages_for(len(newest), ENDS_ROWS), len(newest), newest[start : start + ENDS_ROWS])

    def _timeline(self, channel: bytes, id: bytes, now: float) -> bytes:
        """That of a session, of one that ended not long ago, or of none."""
        session = self._context.sessions.get(id)
        if isinstance(session, Session):
            return timeline(connection_info(session, now), session.steps, self._epoch(now))
        self._final.add(channel)
        for ended in reversed(self._ended):
            if ended.peer.id == id.decode():
                return timeline(ended.peer, ended.steps, self._epoch(now))
        return UNKNOWN

    def _look_at_channels(self, now: float) -> Work[ChannelTable]:
        known = self._channels
        if known is not None and known.at >= self._looked_at:
            return known
        census = ChannelTable(now)
        yield from census.take(self._broker.channels.values(), known)
        self._channels = census
        return census

    def _look_at_peers(self, now: float) -> Work[ConnectionTable]:
        known = self._peers
        if known is not None and known.at >= self._looked_at:
            return known
        census = ConnectionTable(now, self._longest)
        census.take([guest for guest in self._context.sessions if isinstance(guest, Session)], known)
        self._peers = census
        yield
        return census

    def _epoch(self, now: float) -> float:
        """When the broker's clock stood at 0, in seconds since 1970. It stays what it was, so that a step is told with
        the very same time again, unless somebody has set the clock."""
        epoch = self._context.expiry_watcher.wall_clock() - now
        if abs(epoch - self._known_epoch) > CLOCK_SET:
            self._known_epoch = epoch
        return self._known_epoch

    def _publish(self, channel: bytes, name: bytes, payloads: list[bytes]) -> None:
        self._broker.publish(self._self, Publication(channel, build_payloads(payloads, JSON), name))


_PAGE = os.sysconf("SC_PAGE_SIZE")

_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which getrusage(2) counts memory."""


def memory_bytes(statm: str = "/proc/self/statm") -> int:
    """Resident bytes (proc(5)); where that is not told, the most that they have been."""
    try:
        with open(statm, "rb", buffering=0) as told:
            return int(told.read().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def cpu_seconds() -> float:
    """Seconds of CPU since the start, the kernel's part included."""
    return time.process_time()


# TODO-MERGED-DOC: The figures of the whole bridge, from counts that are kept anyway: they cost the same for one
# peer as for many.

# TODO-MERGED-DOC: What this process costs, as its machine accounts for it.
