"""What the bounds come to, and that nothing costs more than the sum says."""

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from twistedsock.core.footprint import CHANNEL, CONNECTION, SUBSCRIPTION, TLS, footprint
from twistedsock.core.limits import MEMBERS_HELD, Limits
from twistedsock.testing import Hall, LinePeer

KIB, MIB = 1024, 1024 * 1024


def test_the_sum_is_that_of_its_parts() -> None:
    whole = footprint(Limits(max_connections=100, max_channels_per_peer=10))
    parts = (whole.process, whole.logs, whole.channels, whole.connections, whole.subscriptions)
    assert whole.total == sum(parts) and all(parts)
    assert whole.connections == 100 * whole.a_connection + 8 * MEMBERS_HELD


@pytest.mark.parametrize(
    ("bound", "part"),
    [
        ("log_bytes", "logs"),
        ("max_channels", "channels"),
        ("max_connections", "connections"),
        ("max_line", "connections"),
        ("max_message", "connections"),
        ("max_members_told", "connections"),
        ("max_subscriptions", "subscriptions"),
    ],
)
def test_a_larger_bound_is_a_larger_sum(bound: str, part: str) -> None:
    before = getattr(Limits(), bound)
    more = footprint(Limits(**{bound: 2 * before}))
    assert getattr(more, part) > getattr(footprint(Limits()), part) and more.total > footprint(Limits()).total


def test_tls_costs_more() -> None:
    limits = Limits(max_connections=10)
    assert footprint(limits, tls=True).a_connection - footprint(limits).a_connection == TLS


def test_a_small_bridge_is_small() -> None:
    """A hundred peers fit into a quarter of a gigabyte, whatever they do."""
    limits = Limits(max_connections=100, log_bytes=16 * MIB, max_channels=1_000, max_channels_per_peer=10)
    assert footprint(limits).total < 256 * MIB


def taken(act: Callable[[], object]) -> int:
    """Bytes that are held after it, and were not before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        act()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def names(count: int) -> list[str]:
    return [f"{'c' * 194}{number:06d}" for number in range(count)]


def says(hall: Hall, peer: LinePeer, *lines: str) -> None:
    for line in lines:
        peer.says(line)
        hall.turn()
    peer.hears()
    peer.outlet.sent.clear()
    peer._looked = 0


def test_nothing_costs_more_than_the_sum_says() -> None:
    """With the longest names; what is measured here is that which no bound in bytes counts."""
    hall = Hall()
    publisher, reader = hall.line_peer(), hall.line_peer()
    says(hall, reader, "PING")
    channels = taken(lambda: says(hall, publisher, *(f"PUB {name} x" for name in names(500))))
    assert CHANNEL / 2 < (channels - hall.broker.log_bytes) / 500 < CHANNEL
    subscriptions = taken(lambda: says(hall, reader, *(f"SUB {name} presence=on" for name in names(500))))
    assert SUBSCRIPTION / 2 < subscriptions / 500 < SUBSCRIPTION
    peers: list[LinePeer] = []
    connections = taken(lambda: peers.extend(hall.line_peer() for _ in range(100)))
    assert connections / 100 < CONNECTION / 2
