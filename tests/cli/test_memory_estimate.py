"""The estimate of the maximum memory, and measurements that stay below it."""

import gc
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from twistedsock.cli.memory_estimate import CHANNEL, CONNECTION, RATE_LIMITER, READ, SUBSCRIPTION, TLS, estimate_memory
from twistedsock.limits.principal import address_principal
from twistedsock.limits.rate import RateLimiterPool
from twistedsock.limits.settings import CHUNK_BYTES, MAX_MEMBERS_HELD, Limits
from twistedsock.limits.shares import with_reserve
from twistedsock.testing import FakeServer, LineClient

KIB, MIB = 1024, 1024 * 1024


def test_total_is_sum_of_parts() -> None:
    whole = estimate_memory(Limits(max_connections=100, max_subscriptions_per_client=10))
    parts = (whole.process, whole.history, whole.channels, whole.connections, whole.buffered, whole.subscriptions)
    assert whole.total == sum(parts) and all(parts)
    assert whole.connections == 100 * CONNECTION + 8 * with_reserve(MAX_MEMBERS_HELD)


@pytest.mark.parametrize(
    ("bound", "part"),
    [
        ("history_total_bytes", "history"),
        ("max_channels", "channels"),
        ("max_connections", "connections"),
        ("max_buffered_bytes", "buffered"),
        ("max_subscriptions", "subscriptions"),
    ],
)
def test_larger_limit_gives_larger_estimate(bound: str, part: str) -> None:
    before = getattr(Limits(), bound)
    more = estimate_memory(Limits(**{bound: 2 * before}))
    assert (
        getattr(more, part) > getattr(estimate_memory(Limits()), part) and more.total > estimate_memory(Limits()).total
    )


@pytest.mark.parametrize("bound", ["max_connections", "max_line_bytes", "max_message_bytes", "max_pending_presence"])
def test_buffers_of_few_connections_are_limited_per_connection(bound: str) -> None:
    few = Limits(max_connections=10)
    more = msgspec.structs.replace(few, **{bound: 2 * getattr(few, bound)})
    assert estimate_memory(few).buffered < estimate_memory(more).buffered < estimate_memory(Limits()).buffered
    assert estimate_memory(few).buffered > 10 * (CHUNK_BYTES + READ)


def test_tls_adds_to_each_connection() -> None:
    limits = Limits(max_connections=10)
    assert estimate_memory(limits, tls=True).total - estimate_memory(limits).total == 10 * TLS


def test_small_limits_fit_into_256_mib() -> None:
    few = {"max_connections": 100, "max_channels": 1_000, "max_subscriptions_per_client": 10}
    limits = Limits(history_total_bytes=16 * MIB, max_buffered_bytes=32 * MIB, **few)
    assert estimate_memory(limits).total < 256 * MIB


def allocated(act: Callable[[], object]) -> int:
    """Return the bytes that ``act`` has allocated and not freed."""
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


def send(server: FakeServer, client: LineClient, *lines: str) -> None:
    for line in lines:
        client.send(line)
        server.turn()
    client.outlet.sent.clear()


@pytest.mark.slow
def test_objects_cost_no_more_than_estimated() -> None:
    """With the longest names, and without history and buffers, which have limits in bytes."""
    server = FakeServer()
    publisher, reader = server.line_client(), server.line_client()
    send(server, reader, "PING")
    channels = allocated(lambda: send(server, publisher, *(f"PUB {name} x" for name in names(500))))
    assert CHANNEL / 2 < (channels - server.broker.histories.size) / 500 < CHANNEL
    subscriptions = allocated(lambda: send(server, reader, *(f"SUB {name} presence=on" for name in names(500))))
    assert SUBSCRIPTION / 2 < subscriptions / 500 < SUBSCRIPTION
    clients: list[LineClient] = []
    connections = allocated(lambda: clients.extend(server.line_client() for _ in range(100)))
    assert connections / 100 < CONNECTION / 2


@pytest.mark.slow
def test_channels_of_many_clients_cost_no_more_than_estimated() -> None:
    server = FakeServer()
    publisher = server.line_client()
    send(server, publisher, "PING")

    def publish() -> None:
        for number, name in enumerate(names(500)):
            publisher.session.client.principal = b"@2001:db8:%d:%d::/64" % (number, number)
            send(server, publisher, f"PUB {name} x")

    assert (allocated(publish) - server.broker.histories.size) / 500 < CHANNEL


@pytest.mark.slow
def test_rate_limiters_cost_no_more_than_estimated() -> None:
    meters, count = RateLimiterPool(Limits()), 3_000
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            meter = meters.get(address_principal(f"2001:db8:{number:04x}:ffff:ffff:ffff:ffff:ffff"), 0.5 + number)
            assert meter is not None
            meter.count_bytes(3, 1.5 + number)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used <= count * RATE_LIMITER
