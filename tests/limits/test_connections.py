"""Limits of connections: total, by address, by identity."""

import pytest

from twistedsock.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, TOO_MANY_OF_IDENTITY
from twistedsock.limits.connections import ConnectionLimiter, is_many
from twistedsock.limits.principal import address_principal, subject_principal
from twistedsock.limits.settings import Limits


def test_rejects_connections_over_the_total_limit() -> None:
    admission = ConnectionLimiter(Limits(max_connections=2))
    assert admission.acquire("127.0.0.1") is None
    assert admission.acquire("") is None
    assert admission.acquire("10.0.0.1") == TOO_MANY_CONNECTIONS
    assert admission.connections == 2


def test_rejects_connections_over_the_limit_of_an_address() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_address=2))
    assert [admission.acquire("10.0.0.1") for _ in range(3)] == [None, None, TOO_MANY_FROM_ADDRESS]
    assert admission.acquire("10.0.0.2") is None
    assert admission.connections == 3


def test_rejected_connection_is_not_counted() -> None:
    admission = ConnectionLimiter(Limits(max_connections=2, max_connections_per_address=1))
    admission.acquire("10.0.0.1")
    admission.acquire("10.0.0.1")
    assert admission.acquire("10.0.0.2") is None
    assert admission.acquire("10.0.0.3") == TOO_MANY_CONNECTIONS
    admission.release("10.0.0.2")
    assert admission.acquire("10.0.0.3") is None


def test_released_connection_makes_room_for_its_address() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_address=2))
    admission.acquire("10.0.0.1")
    admission.acquire("10.0.0.1")
    admission.release("10.0.0.1")
    assert admission.acquire("10.0.0.1") is None
    assert admission.acquire("10.0.0.1") == TOO_MANY_FROM_ADDRESS


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_and_unix_sockets_are_not_counted_by_address(address: str) -> None:
    """Behind them stand many users, or a proxy."""
    admission = ConnectionLimiter(Limits(max_connections_per_address=1))
    assert [admission.acquire(address) for _ in range(3)] == [None] * 3
    assert admission.connections == 3
    admission.release(address)
    assert admission.connections == 2


@pytest.mark.parametrize(
    "other", ["2001:db8::2", "2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:DB8::1", "2001:db8::1%eth0"]
)
def test_the_addresses_of_one_ipv6_network_are_counted_as_one(other: str) -> None:
    """A host there has 2^64 of them."""
    admission = ConnectionLimiter(Limits(max_connections_per_address=1))
    assert admission.acquire("2001:db8::1") is None
    assert admission.acquire(other) == TOO_MANY_FROM_ADDRESS
    assert admission.acquire("2001:db8:0:1::1") is None
    admission.release("2001:db8::1")
    assert admission.acquire(other) is None
    admission.release(other)
    admission.release("2001:db8:0:1::1")
    assert admission.counts == {}


def test_ipv4_in_ipv6_is_counted_as_ipv4() -> None:
    """A listener of both would count one client as two, and all clients of IPv4 as one network of IPv6."""
    admission = ConnectionLimiter(Limits(max_connections_per_address=1))
    assert admission.acquire("::ffff:192.0.2.1") is None
    assert admission.acquire("192.0.2.1") == TOO_MANY_FROM_ADDRESS
    assert admission.acquire("::ffff:192.0.2.2") is None


def test_addresses_are_forgotten_with_their_last_connection() -> None:
    """A table by address would be a leak that anybody could fill."""
    admission = ConnectionLimiter(Limits())
    for number in range(100):
        admission.acquire(f"10.0.0.{number}")
        admission.release(f"10.0.0.{number}")
    assert admission.counts == {}


def test_rejects_connections_over_the_limit_of_an_identity() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_identity=2))
    assert [admission.acquire_identity(b"ann") for _ in range(3)] == [None, None, TOO_MANY_OF_IDENTITY]
    assert admission.acquire_identity(b"bob") is None
    admission.release_identity(b"ann")
    assert admission.acquire_identity(b"ann") is None
    assert admission.acquire_identity(b"ann") == TOO_MANY_OF_IDENTITY


def test_anonymous_clients_are_not_counted() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_identity=1))
    assert [admission.acquire_identity(b"") for _ in range(3)] == [None, None, None]
    admission.release_identity(b"")


def test_connections_to_other_processes_count_in_total() -> None:
    admission = ConnectionLimiter(Limits(max_connections=3, max_connections_per_address=1))
    admission.elsewhere = 2
    assert admission.acquire("10.0.0.1") is None
    assert admission.acquire("10.0.0.2") == TOO_MANY_CONNECTIONS
    assert admission.connections == 1


def test_connections_of_an_address_to_other_processes_count() -> None:
    admission, changed = ConnectionLimiter(Limits(max_connections_per_address=3)), list[bytes]()
    admission.changed = changed.append
    admission.elsewhere_of[b"@10.0.0.1"] = 2
    assert [admission.acquire("10.0.0.1") for _ in range(2)] == [None, TOO_MANY_FROM_ADDRESS]
    admission.elsewhere_of[b"@10.0.0.1"] = 1
    assert admission.acquire("10.0.0.1") is None
    admission.release("10.0.0.1")
    assert changed == [b"@10.0.0.1"] * 4, "the rejected one too: what was known may be old"
    assert admission.acquire("127.0.0.1") is None and len(changed) == 4


def test_an_address_and_an_identity_of_the_same_name_are_counted_apart() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_address=1, max_connections_per_identity=1))
    assert admission.acquire("10.0.0.1") is None and admission.acquire_identity(b"10.0.0.1") is None
    assert admission.counts == {b"@10.0.0.1": 1, b"=10.0.0.1": 1}


@pytest.mark.parametrize(("count", "of_address", "of_identity"), [(1, False, False), (2, True, False), (3, True, True)])
def test_half_of_the_limit_must_be_known_to_all_processes(count: int, of_address: bool, of_identity: bool) -> None:
    limits = Limits(max_connections_per_address=4, max_connections_per_identity=6)
    assert is_many(address_principal("192.0.2.1"), count, limits) is of_address
    assert is_many(subject_principal(b"ann"), count, limits) is of_identity
