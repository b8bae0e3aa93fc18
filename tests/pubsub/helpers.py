"""Channels, and subscribers with fake sockets, for the tests of the classes below the broker."""

from collections.abc import Callable, Sequence

from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.limits.settings import Limits
from twistedsock.limits.shares import MemoryBudget
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.subscription import Client, Subscriber, Subscription
from twistedsock.pubsub.values import Batch, ChannelState, Lost, Payloads, Position
from twistedsock.session.encoder import Encoder
from twistedsock.stats import Stats
from twistedsock.testing import FakeOutlet, FakeServer, LineClient

MAX_MISSED = 1_000


def channel(head: int = 0, **limits: object) -> Channel:
    return Channel(b"c", ChannelState(Position(b"e1", head)), Limits(**limits), Stats())  # type: ignore[arg-type]


class RecordingCallbacks:
    """Records calls. ``on_loss`` decides whether lost events are accepted."""

    def __init__(self, on_loss: Callable[[], bool]) -> None:
        self.calls: list[str] = []
        self._on_loss = on_loss

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        self.calls.append(f"lost {channel.decode()} {first} to {last}")
        return self._on_loss()

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        self.calls.append(f"behind {channel.decode()} {cursor}")

    def caught_up(self, channel: bytes) -> None:
        self.calls.append(f"caught up {channel.decode()}")


def callback_calls(subscriber: Subscriber) -> list[str]:
    """The calls of the subscriber's callbacks, in order."""
    assert isinstance(subscriber.callbacks, RecordingCallbacks)
    return subscriber.callbacks.calls


def subscriber(id: bytes, encoder: Encoder = LINE_ENCODER, on_loss: Callable[[], bool] = lambda: True) -> Subscriber:
    return Subscriber(
        Client(id),
        encoder,
        FakeOutlet(),
        RecordingCallbacks(on_loss),
        MemoryBudget(Limits().max_buffered_bytes),
        Stats(),
    )


def subscribe(
    channel: Channel, subscriber: Subscriber, echo: bool = True, presence: bool = False, live: bool = True
) -> Subscription:
    subscription = Subscription(subscriber, channel, echo, presence)
    channel.subscriptions[subscriber.client.id] = subscription
    if live:
        channel.add_subscription(subscription)
    return subscription


def publish(channel: Channel, *payloads: bytes, publisher: bytes = b"p0", now: float = 0.0) -> None:
    """Publish and deliver events, then send waiting presence changes."""
    for payload in payloads:
        await_flush(channel, payload, publisher)
    channel.deliver(channel.prepare_delivery(now))
    channel.send_changes()


def await_flush(channel: Channel, payload: bytes, publisher: bytes = b"p0") -> None:
    """Publish an event that waits for the next delivery."""
    channel.head += 1
    payloads = Payloads((payload,), len(payload))
    channel.pending.append(Batch(channel.head, channel.head + 1, publisher, publisher, b"message", payloads))


def outlet_of(subscriber: Subscriber) -> FakeOutlet:
    assert isinstance(subscriber.outlet, FakeOutlet)
    return subscriber.outlet


def received(subscriber: Subscriber) -> list[str]:
    """The complete lines that the subscriber has received since the last call."""
    outlet = outlet_of(subscriber)
    data, outlet.sent = bytes(outlet.sent), bytearray()
    return data.decode().splitlines()


# Whole servers, whose backplane is the test.


def deliver(server: FakeServer, first: int, count: int = 1, epoch: bytes = b"e1", size: int = 1) -> None:
    """The backplane delivers a batch on the channel ``a``."""
    payloads = [b"x" * size] * count
    content = Payloads(payloads, size * count)
    server.broker.deliver(b"a", epoch, Batch(first, first + count, b"p", b"p", b"message", content))


def subscribed(server: FakeServer, options: str = "") -> LineClient:
    peer = server.line_client()
    peer.send(f"SUB a {options}".rstrip())
    server.turn()
    peer.received()
    return peer


def received_heads(peer: LineClient) -> list[str]:
    """Without payloads."""
    return [" ".join(line.split(" ")[:4]) for line in peer.received()]


def reported(server: FakeServer) -> list[tuple[bytes, Lost | None]]:
    breaks: list[tuple[bytes, Lost | None]] = []
    server.broker.report_gap = lambda channel, lost: breaks.append((channel, lost))
    return breaks


def msg(*offsets: int) -> list[str]:
    return [f"MSG a {offset} p" for offset in offsets]


def batches(*offsets: int, time: int = 0, size: int = 1) -> list[Batch]:
    """Events that were published one by one."""
    payloads = Payloads((b"x" * size,), size)
    return [Batch(offset, offset + 1, b"p", b"p", b"message", payloads, time) for offset in offsets]


def reset(
    server: FakeServer, position: Position, previous: Position | None = None, begin: int = 0, tail: Sequence[Batch] = ()
) -> None:
    server.broker.reset(b"a", ChannelState(position, tail, begin=begin, previous=previous))
    server.turn()
