"""The shapes of load: who publishes where, and who reads it."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from twistedsock.bench.connections import connect, perform
from twistedsock.bench.driver import Driver, Target, payloads
from twistedsock.bench.generator import WINDOW, Load, Outcome, Publisher, Room
from twistedsock.bench.streams import CountedStream, Expected, Stream


@dataclass(frozen=True)
class Shape:
    """``publishers`` and ``readers`` of each of ``channels``; each publisher publishes ``events`` of ``size`` bytes,
    flat out or at ``rate`` a second (one publisher then). Publishers speak one wire, readers maybe another."""

    publishing: Target
    reading: Target
    channels: int = 1
    publishers: int = 1
    readers: int = 1
    events: int = 10_000
    size: int = 32
    rate: float | None = None
    window: int = WINDOW

    def run(
        self,
        name: str,
        around: Callable[[Callable[[], Outcome]], Outcome] = lambda load: load(),
        told: Callable[[float], object] = lambda part: None,
    ) -> Outcome:
        """Connect, load, disconnect. ``name`` begins the channels' names, and must be new to the server. ``around``
        is given the load to run when all are connected, to read the server's clock before and after."""
        with ExitStack() as connections:
            rooms, replies = [], []
            for channel in self._names(name):
                room, heard = self._room(channel, connections)
                rooms.append(room)
                replies += heard
            load = Load(rooms, replies, told)
            return around(load.flat_out if self.rate is None else lambda: load.paced(self.rate or 0.0))

    def _names(self, name: str) -> Iterator[bytes]:
        for number in range(self.channels):
            yield f"{name}-{number:05d}".encode()

    def _room(self, channel: bytes, connections: ExitStack) -> tuple[Room, list[Stream]]:
        driver, texts = self.reading.driver, self._payloads()
        readers = open_all(self.reading, self.readers, connections)
        perform(readers, [driver.subscribe(channel, 1)])
        told = driver.deliveries(channel, texts * self.publishers, 1)
        expected = Expected(told, driver.foretold)
        publishing = self.publishing.driver
        publishers = open_all(self.publishing, self.publishers, connections)
        perform(publishers, publishing.prepare())
        frames = publishing.publish(channel, texts)
        heard = publishing.replies(channel, self.events)
        replies = Expected([heard] if heard else [], foretold=self.publishers == 1 and publishing.foretold)
        return (
            Room([Publisher(each, frames) for each in publishers], streams(driver, readers, expected), self.window),
            [Stream(each, replies, f"{publishing.name} publisher", publishing.noise) for each in publishers],
        )

    def _payloads(self) -> list[bytes]:
        if self.publishers > 1:
            # In which order the events of several publishers come is not known, so they are all alike.
            return payloads(1, self.size) * self.events
        return payloads(self.events, self.size)


def streams(driver: Driver, connections: Sequence[socket.socket], expected: Expected) -> list[Stream]:
    """A reader's stream for each connection."""
    name = f"{driver.name} reader"
    if driver.foretold:
        return [Stream(each, expected, name, driver.noise) for each in connections]
    return [
        CountedStream(each, expected, name, driver.noise, closely=number == 0)
        for number, each in enumerate(connections)
    ]


def open_all(target: Target, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that the stack closes."""
    connections = connect(target, count)
    for connection in connections:
        stack.callback(connection.close)
    return connections
