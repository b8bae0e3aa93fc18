"""One publisher to many channels, whose readers share connections: each event goes to few of them."""

import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from twistedsock.bench.connections import ask, connect, perform
from twistedsock.bench.driver import Target, payloads
from twistedsock.bench.generator import Load, Publisher, Room, Told, window
from twistedsock.bench.loads import reply_stream
from twistedsock.bench.streams import CountedStream, Expected

MOST_CONNECTIONS = 1_000
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
        count = min(MOST_CONNECTIONS, spread.channels * spread.readers)
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
