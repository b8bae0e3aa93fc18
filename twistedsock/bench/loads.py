"""The shapes of load: who publishes where, and who reads it."""

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from twistedsock.bench.connections import connect, perform
from twistedsock.bench.driver import Driver, Target, payloads
from twistedsock.bench.generator import Load, Outcome, Publisher, Room, Told, window
from twistedsock.bench.streams import CountedStream, Expected, Stream


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
