"""Readers on fake sockets, and channels to read from, for the tests of what lies below the broker."""

from collections.abc import Callable

from twistedsock.core.channel import Channel
from twistedsock.core.dialect import Dialect, Position
from twistedsock.core.events import Batch, Content
from twistedsock.core.holdings import Holdings
from twistedsock.core.limits import Limits
from twistedsock.core.reader import Peer, Reader, Subscription
from twistedsock.core.tally import Tally
from twistedsock.testing import FakeOutlet
from twistedsock.wire.dialects import LINES

MOST_MISSED = 1_000


def channel(head: int = 0, **limits: object) -> Channel:
    return Channel(b"c", Position(b"e1", head), Limits(**limits), Tally())  # type: ignore[arg-type]


class Owner:
    """Notes what it is told; it may skip where ``on_lag`` says so."""

    def __init__(self, on_lag: Callable[[], bool]) -> None:
        self.told: list[str] = []
        self._on_lag = on_lag

    def may_skip(self, channel: bytes, first: int, last: int) -> bool:
        self.told.append(f"lost {channel.decode()} {first} to {last}")
        return self._on_lag()

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        self.told.append(f"behind {channel.decode()} {cursor}")

    def caught_up(self, channel: bytes) -> None:
        self.told.append(f"caught up {channel.decode()}")


def told(reader: Reader) -> list[str]:
    """What its owner was told."""
    assert isinstance(reader.owner, Owner)
    return reader.owner.told


def reader(id: bytes, dialect: Dialect = LINES, on_lag: Callable[[], bool] = lambda: True) -> Reader:
    return Reader(Peer(id), dialect, FakeOutlet(), Owner(on_lag), Holdings(Limits().max_held), Tally())


def subscribe(
    channel: Channel, reader: Reader, echo: bool = True, presence: bool = False, live: bool = True
) -> Subscription:
    subscription = Subscription(reader, channel, echo, presence)
    channel.readers[reader.peer.id] = subscription
    if live:
        channel.add_reader(subscription)
    return subscription


def publish(channel: Channel, *payloads: bytes, publisher: bytes = b"p0", now: float = 0.0) -> None:
    """Events get their place and are flushed, then watchers are told of what waits."""
    for payload in payloads:
        await_flush(channel, payload, publisher)
    channel.deliver(channel.write_and_send_ahead(now, MOST_MISSED))
    channel.tell_watchers(MOST_MISSED, lambda: False)


def await_flush(channel: Channel, payload: bytes, publisher: bytes = b"p0") -> None:
    """An event gets its place."""
    channel.head += 1
    content = Content((payload,), len(payload))
    channel.pending.append(Batch(channel.head, channel.head + 1, publisher, publisher, b"message", content))


def outlet_of(reader: Reader) -> FakeOutlet:
    assert isinstance(reader.outlet, FakeOutlet)
    return reader.outlet


def heard(reader: Reader) -> list[str]:
    """Whole lines that have come since the last look."""
    outlet = outlet_of(reader)
    data, outlet.sent = bytes(outlet.sent), bytearray()
    return data.decode().splitlines()
