"""The shapes of load: who publishes where, and who reads it."""

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from twistedsock.bench.clients import CountedStream, Driver, Expected, Stream, Target, ask, connect, payloads, perform
from twistedsock.bench.generator import Load, Outcome, Publisher, Room, Told, window


@dataclass(frozen=True)
class Shape:
    """``publishers`` and ``readers`` of each of ``channels``, each on a connection of its own; each publisher publishes
    ``events`` of ``size`` bytes, flat out or at ``rate`` a second (one publisher then). Publishers speak one wire,
    readers maybe another. ``strangers`` are readers of each channel that are none of ours."""

    publishing: Target
    reading: Target
    channels: int = 1
    publishers: int = 1
    readers: int = 1
    events: int = 10_000
    size: int = 32
    rate: float | None = None
    strangers: int = 0

    def run(
        self,
        name: str,
        around: Callable[[Callable[[], Outcome]], Outcome] = lambda load: load(),
        told: Told = lambda part: None,
    ) -> Outcome:
        """Connect, load, disconnect. ``name`` begins the channels' names, and must be new to the server. ``around``
        is given the load to run when all are connected, to read the server's clock before and after."""
        with self.opened() as crowd:
            load = crowd.load(name, self.events, told)
            return around(lambda: load.run(self.rate))

    @contextmanager
    def opened(self) -> Iterator["Crowd"]:
        """Connect; disconnect at the end. Every load in between has channels of its own."""
        with ExitStack() as stack:
            yield Crowd(self, stack)


class Crowd:
    """The connections of a shape."""

    def __init__(self, shape: Shape, stack: ExitStack) -> None:
        self.shape = shape
        # Before there are a thousand connections: see Load.
        self._poll = stack.enter_context(select.epoll())
        self._loads = 0
        self._readers = [connect(shape.reading, shape.readers, stack) for _ in range(shape.channels)]
        self._publishers = [connect(shape.publishing, shape.publishers, stack) for _ in range(shape.channels)]
        for publishers in self._publishers:
            perform(publishers, shape.publishing.driver.prepare())

    def load(self, name: str, events: int, told: Told = lambda part: None) -> Load:
        """Subscribe to new channels, whose names begin with ``name``; then a load of so many events of each publisher
        is ready to run."""
        self._loads += 1
        rooms, replies = [], []
        texts = self._payloads(events)
        for number, (readers, publishers) in enumerate(zip(self._readers, self._publishers, strict=True)):
            room, heard = self._room(f"{name}-{number:05d}".encode(), texts, readers, publishers)
            rooms.append(room)
            replies += heard
        return Load(rooms, replies, told, self._poll)

    def _room(
        self,
        channel: bytes,
        texts: Sequence[bytes],
        readers: Sequence[socket.socket],
        publishers: Sequence[socket.socket],
    ) -> tuple[Room, list[Stream]]:
        driver, publishing = self.shape.reading.driver, self.shape.publishing.driver
        perform(readers, [driver.subscribe(channel, self._loads)])
        told = driver.deliveries(channel, list(texts) * len(publishers), self._loads)
        expected = Expected(told, driver.foretold)
        frames = publishing.publish(channel, texts)
        room = Room(
            [Publisher(each, frames) for each in publishers],
            reader_streams(driver, readers, expected, in_order=len(publishers) == 1),
            window(self.shape.size, self.shape.channels),
        )
        alone, heard_by = len(publishers) == 1, len(readers) + self.shape.strangers
        return room, [reply_stream(publishing, each, channel, len(texts), heard_by, alone) for each in publishers]

    def _payloads(self, events: int) -> list[bytes]:
        if self.shape.publishers > 1:
            # In which order the events of several publishers come is not known, so they are all alike.
            return payloads(1, self.shape.size) * events
        return payloads(events, self.shape.size)


def reader_streams(
    driver: Driver, connections: Sequence[socket.socket], expected: Expected, in_order: bool
) -> list[Stream]:
    """A reader's stream for each connection; ``in_order`` when one publisher numbers the payloads."""
    name = f"{driver.name} reader"
    if driver.foretold:
        return [Stream(each, expected, name, driver.noise) for each in connections]
    return [
        CountedStream(each, expected, name, driver.noise, closely=in_order and number == 0)
        for number, each in enumerate(connections)
    ]


def reply_stream(
    driver: Driver, connection: socket.socket, channel: bytes, count: int, readers: int, alone: bool
) -> Stream:
    """A publisher's stream, when it publishes so many events to so many readers; ``alone``, nobody else does there."""
    name = f"{driver.name} publisher"
    if alone or not driver.reply_mark:
        return Stream(connection, Expected([driver.replies(channel, count, readers)], True), name, driver.noise)
    counted = Expected([driver.reply_mark] * count, foretold=False)
    return CountedStream(connection, counted, name, driver.noise, mark=driver.reply_mark)


MAX_CONNECTIONS = 1_000
"""Connections of readers; each reads several channels where there are more readers."""


@dataclass(frozen=True)
class Spread:
    """``readers`` of each of ``channels``, spread evenly over connections; the publisher takes the channels in turn.
    The number of channels times that of readers must be a multiple of that of connections."""

    target: Target
    channels: int
    readers: int = 10
    size: int = 32

    @contextmanager
    def opened(self) -> Iterator["SpreadCrowd"]:
        """Connect and subscribe; disconnect at the end."""
        with ExitStack() as stack:
            yield SpreadCrowd(self, stack)


class SpreadCrowd:
    """The connections of a spread. In which order events of different channels come is up to the server, so they are
    counted; those of the first connection are looked at, channel by channel."""

    def __init__(self, spread: Spread, stack: ExitStack) -> None:
        self._spread = spread
        self._poll = stack.enter_context(select.epoll())
        count = min(MAX_CONNECTIONS, spread.channels * spread.readers)
        self._names = [b"spread-%05d" % number for number in range(spread.channels)]
        self._readers = connect(spread.target, count, stack)
        self._each = spread.channels * spread.readers // count
        driver = spread.target.driver
        # Connection r has the channels c, for which one of c * readers … c * readers + readers - 1 is r, modulo.
        channels: list[list[bytes]] = [[] for _ in range(count)]
        for number, name in enumerate(self._names):
            for seat in range(number * spread.readers, (number + 1) * spread.readers):
                channels[seat % count].append(name)
        for turn in range(self._each):
            ask(
                [
                    (connection, driver.subscribe(names[turn], turn + 1))
                    for connection, names in zip(self._readers, channels, strict=True)
                ]
            )
        self._publisher = connect(spread.target, 1, stack)
        perform(self._publisher, driver.prepare())

    def load(self, name: str, events: int, told: Told = lambda part: None) -> Load:
        """``events`` is rounded up to the same for each channel. All loads go to the same channels, so ``name`` is of
        no account."""
        spread, driver = self._spread, self._spread.target.driver
        rounds = -(-events // spread.channels)
        texts = payloads(rounds * spread.channels, spread.size)
        frames = [driver.publish(self._names[number % spread.channels], [text])[0] for number, text in enumerate(texts)]
        expected = Expected([b""] * (rounds * self._each), foretold=False)
        readers = [
            CountedStream(each, expected, f"{driver.name} reader", driver.noise, number == 0, spread.channels)
            for number, each in enumerate(self._readers)
        ]
        replies = reply_stream(driver, self._publisher[0], self._names[0], len(texts), spread.readers, alone=False)
        room = Room([Publisher(self._publisher[0], frames)], readers, window(spread.size, channels=1))
        return Load([room], [replies], told, self._poll)


# TODO-MERGED-DOC: One publisher to many channels, whose readers share connections: each event goes to few of
# them.
