"""How many may be connected: in all, and from one address."""

import pytest

from twistedsock.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, TOO_MANY_OF_IDENTITY
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.settings import Limits


def test_connections_in_all_are_bounded() -> None:
    admission = ConnectionLimiter(Limits(max_connections=2))
    assert admission.enter("127.0.0.1") is None
    assert admission.enter("") is None
    assert admission.enter("10.0.0.1") == TOO_MANY_CONNECTIONS
    assert admission.connections == 2


def test_who_goes_makes_room() -> None:
    admission = ConnectionLimiter(Limits(max_connections=1))
    admission.enter("10.0.0.1")
    admission.leave("10.0.0.1")
    assert admission.connections == 0
    assert admission.enter("10.0.0.2") is None


def test_connections_from_one_address_are_bounded() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_address=2))
    assert [admission.enter("10.0.0.1") for _ in range(3)] == [None, None, TOO_MANY_FROM_ADDRESS]
    assert admission.enter("10.0.0.2") is None
    assert admission.connections == 3


def test_who_was_refused_is_not_counted() -> None:
    admission = ConnectionLimiter(Limits(max_connections=2, max_connections_per_address=1))
    admission.enter("10.0.0.1")
    admission.enter("10.0.0.1")
    assert admission.enter("10.0.0.2") is None
    assert admission.enter("10.0.0.3") == TOO_MANY_CONNECTIONS
    admission.leave("10.0.0.2")
    assert admission.enter("10.0.0.3") is None


def test_an_address_has_room_again_for_each_that_goes() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_address=2))
    admission.enter("10.0.0.1")
    admission.enter("10.0.0.1")
    admission.leave("10.0.0.1")
    assert admission.enter("10.0.0.1") is None
    assert admission.enter("10.0.0.1") == TOO_MANY_FROM_ADDRESS


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_and_unix_sockets_are_not_counted_by_address(address: str) -> None:
    """Behind them stand many users, or a proxy."""
    admission = ConnectionLimiter(Limits(max_connections_per_address=1))
    assert [admission.enter(address) for _ in range(3)] == [None] * 3
    assert admission.connections == 3
    admission.leave(address)
    assert admission.connections == 2


@pytest.mark.parametrize(
    "other", ["2001:db8::2", "2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:DB8::1", "2001:db8::1%eth0"]
)
def test_the_addresses_of_one_ipv6_network_are_counted_as_one(other: str) -> None:
    """A host there has 2^64 of them."""
    admission = ConnectionLimiter(Limits(max_connections_per_address=1))
    assert admission.enter("2001:db8::1") is None
    assert admission.enter(other) == TOO_MANY_FROM_ADDRESS
    assert admission.enter("2001:db8:0:1::1") is None
    admission.leave("2001:db8::1")
    assert admission.enter(other) is None
    admission.leave(other)
    admission.leave("2001:db8:0:1::1")
    assert admission._by_address == {}


def test_ipv4_in_ipv6_is_counted_as_ipv4() -> None:
    """A listener of both would count one client as two, and all clients of IPv4 as one network of IPv6."""
    admission = ConnectionLimiter(Limits(max_connections_per_address=1))
    assert admission.enter("::ffff:192.0.2.1") is None
    assert admission.enter("192.0.2.1") == TOO_MANY_FROM_ADDRESS
    assert admission.enter("::ffff:192.0.2.2") is None


def test_addresses_are_forgotten_with_their_last_connection() -> None:
    """A table by address would be a leak that anybody could fill."""
    admission = ConnectionLimiter(Limits())
    for number in range(100):
        admission.enter(f"10.0.0.{number}")
        admission.leave(f"10.0.0.{number}")
    assert admission._by_address == {}


def test_connections_of_one_identity_are_bounded() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_identity=2))
    assert [admission.identify(b"ann") for _ in range(3)] == [None, None, TOO_MANY_OF_IDENTITY]
    assert admission.identify(b"bob") is None
    admission.forget(b"ann")
    assert admission.identify(b"ann") is None
    assert admission.identify(b"ann") == TOO_MANY_OF_IDENTITY


def test_nobody_is_not_counted() -> None:
    admission = ConnectionLimiter(Limits(max_connections_per_identity=1))
    assert [admission.identify(b"") for _ in range(3)] == [None, None, None]
    admission.forget(b"")
