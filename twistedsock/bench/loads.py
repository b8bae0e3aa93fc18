"""Scenarios: which connections publish to which channels, and which subscribe to them."""

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from twistedsock.bench.clients import (
    CountedStream,
    Driver,
    ExpectedData,
    SizedStream,
    Stream,
    Target,
    connect,
    exchange,
    payloads,
    perform,
)
from twistedsock.bench.generator import ChannelLoad, Load, LoadResult, OnProgress, Publisher, window


@dataclass(frozen=True)
class ChannelScenario:
    """Publishers and subscribers of each channel, each on its own connection. Each publisher publishes ``events`` of
    ``size`` bytes, as fast as possible or, with one publisher, at ``rate`` per second. Publishers and subscribers can
    use different protocols. ``other_readers`` are subscribers of each channel that the scenario does not open."""

    publishing: Target
    reading: Target
    channels: int = 1
    publishers: int = 1
    readers: int = 1
    events: int = 10_000
    size: int = 32
    rate: float | None = None
    other_readers: int = 0

    def run(
        self,
        name: str,
        around: Callable[[Callable[[], LoadResult]], LoadResult] = lambda load: load(),
        on_progress: OnProgress = lambda part: None,
    ) -> LoadResult:
        """Connect, run the load, disconnect. ``name`` is the beginning of the channel names, and must be new to the
        server. ``around`` runs the load after all have connected, for example between two readings of a clock."""
        with self.opened() as crowd:
            load = crowd.load(name, self.events, on_progress)
            return around(lambda: load.run(self.rate))

    @contextmanager
    def opened(self) -> Iterator["ChannelConnections"]:
        """Connect, and disconnect at the end. Every load in between uses new channels."""
        with ExitStack() as stack:
            yield ChannelConnections(self, stack)


class ChannelConnections:
    """The connections of a ``ChannelScenario``."""

    def __init__(self, shape: ChannelScenario, stack: ExitStack) -> None:
        self.shape = shape
        # Before a thousand connections are open: see Load.
        self._poll = stack.enter_context(select.epoll())
        self._loads = 0
        self._readers = [connect(shape.reading, shape.readers, stack) for _ in range(shape.channels)]
        self._publishers = [connect(shape.publishing, shape.publishers, stack) for _ in range(shape.channels)]
        for publishers in self._publishers:
            perform(publishers, shape.publishing.driver.prepare())

    def load(self, name: str, events: int, on_progress: OnProgress = lambda part: None) -> Load:
        """Subscribe to new channels, whose names begin with ``name``, and return a load of ``events`` per publisher."""
        self._loads += 1
        rooms, replies = [], []
        texts = self._payloads(events)
        for number, (readers, publishers) in enumerate(zip(self._readers, self._publishers, strict=True)):
            room, reply_streams = self._channel_load(f"{name}-{number:05d}".encode(), texts, readers, publishers)
            rooms.append(room)
            replies += reply_streams
        return Load(rooms, replies, on_progress, self._poll)

    def _channel_load(
        self,
        channel: bytes,
        texts: Sequence[bytes],
        readers: Sequence[socket.socket],
        publishers: Sequence[socket.socket],
    ) -> tuple[ChannelLoad, list[Stream]]:
        driver, publishing = self.shape.reading.driver, self.shape.publishing.driver
        perform(readers, [driver.subscribe(channel, self._loads)])
        deliveries = driver.deliveries(channel, list(texts) * len(publishers), self._loads)
        frames = publishing.publish(channel, texts)
        room = ChannelLoad(
            [Publisher(each, frames) for each in publishers],
            reader_streams(driver, readers, deliveries, in_order=len(publishers) == 1),
            window(self.shape.size, self.shape.channels),
        )
        alone, reader_count = len(publishers) == 1, len(readers) + self.shape.other_readers
        return room, [reply_stream(publishing, each, channel, len(texts), reader_count, alone) for each in publishers]

    def _payloads(self, events: int) -> list[bytes]:
        if self.shape.publishers > 1:
            # The order of events of several publishers is unknown, so all are equal.
            return payloads(1, self.shape.size) * events
        return payloads(events, self.shape.size)


def reader_streams(
    driver: Driver, connections: Sequence[socket.socket], deliveries: Sequence[bytes], in_order: bool
) -> list[Stream]:
    """Return the stream of each subscriber. ``in_order``: one publisher numbers the payloads."""
    name = f"{driver.name} reader"
    expected = ExpectedData(deliveries, driver.is_predictable)
    if driver.is_predictable:
        return [Stream(each, expected, name, driver.keep_alive) for each in connections]
    streams: list[Stream] = [
        CountedStream(each, expected, name, driver.keep_alive, verifies_order=in_order and number == 0)
        for number, each in enumerate(connections)
    ]
    if driver.is_size_predictable:  # the contents of one are verified; counting marks in all would slow the reading
        sized = ExpectedData(deliveries, is_predictable=True)
        streams[1:] = [SizedStream(each, sized, name, driver.keep_alive) for each in connections[1:]]
    return streams


def reply_stream(
    driver: Driver, connection: socket.socket, channel: bytes, count: int, readers: int, alone: bool
) -> Stream:
    """Return the stream of a publisher that publishes ``count`` events. ``alone``: it is the only publisher."""
    name = f"{driver.name} publisher"
    expected = driver.replies(channel, count, readers)
    if not driver.reply_mark or (alone and expected):
        return Stream(connection, ExpectedData([expected], True), name, driver.keep_alive)
    counted = ExpectedData([driver.reply_mark] * count, is_predictable=False)
    return CountedStream(connection, counted, name, driver.keep_alive, mark=driver.reply_mark)


MAX_CONNECTIONS = 1_000
"""The most connections of subscribers. With more subscriptions, each has several channels."""


@dataclass(frozen=True)
class SpreadScenario:
    """Subscriptions to many channels that share connections, and one publisher that publishes to the channels in turn,
    so that each event goes to few connections. The number of channels times ``readers`` must be a multiple of the
    number of connections."""

    target: Target
    channels: int
    readers: int = 10
    size: int = 32

    @contextmanager
    def opened(self) -> Iterator["SpreadConnections"]:
        """Connect and subscribe, and disconnect at the end."""
        with ExitStack() as stack:
            yield SpreadConnections(self, stack)


class SpreadConnections:
    """The connections of a ``SpreadScenario``. The server decides the order of events of different channels, so they
    are counted. The events of the first connection are verified for each channel."""

    def __init__(self, spread: SpreadScenario, stack: ExitStack) -> None:
        self._spread = spread
        self._poll = stack.enter_context(select.epoll())
        count = min(MAX_CONNECTIONS, spread.channels * spread.readers)
        self._names = [b"spread-%05d" % number for number in range(spread.channels)]
        self._readers = connect(spread.target, count, stack)
        self._each = spread.channels * spread.readers // count
        driver = spread.target.driver
        # The subscriptions are numbered channel by channel, and dealt to the connections in turn.
        channels: list[list[bytes]] = [[] for _ in range(count)]
        for number, name in enumerate(self._names):
            for seat in range(number * spread.readers, (number + 1) * spread.readers):
                channels[seat % count].append(name)
        for turn in range(self._each):
            exchange(
                [
                    (connection, driver.subscribe(names[turn], turn + 1))
                    for connection, names in zip(self._readers, channels, strict=True)
                ]
            )
        self._publisher = connect(spread.target, 1, stack)
        perform(self._publisher, driver.prepare())

    def load(self, name: str, events: int, on_progress: OnProgress = lambda part: None) -> Load:
        """Return a load. ``events`` is rounded up to a multiple of the channels, which are the same for all loads."""
        spread, driver = self._spread, self._spread.target.driver
        rounds = -(-events // spread.channels)
        texts = payloads(rounds * spread.channels, spread.size)
        frames = [driver.publish(self._names[number % spread.channels], [text])[0] for number, text in enumerate(texts)]
        expected = ExpectedData([b""] * (rounds * self._each), is_predictable=False)
        readers = [
            CountedStream(each, expected, f"{driver.name} reader", driver.keep_alive, number == 0, spread.channels)
            for number, each in enumerate(self._readers)
        ]
        replies = reply_stream(driver, self._publisher[0], self._names[0], len(texts), spread.readers, alone=False)
        room = ChannelLoad([Publisher(self._publisher[0], frames)], readers, window(spread.size, channels=1))
        return Load([room], [replies], on_progress, self._poll)
