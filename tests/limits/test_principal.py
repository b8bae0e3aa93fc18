"""What counts as one client: an identity, an IPv4 address, an IPv6 network, or this machine."""

import pytest

from twistedsock.limits.principal import LOCAL, address_principal, client_principal, is_loopback, is_remote
from twistedsock.testing import ENDS, FakePolicy, FakeServer


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.255.255.254", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::1%lo"],
)
def test_recognizes_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "127.1", "127.0.0.1.example.org", "10.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "::ffff:10.0.0.1"],
)
def test_recognizes_other_addresses(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("address", "principal"),
    [
        *((address, LOCAL) for address in ("", "127.0.0.1", "127.9.9.9", "::1", "::1%lo", "::ffff:127.0.0.1")),
        ("192.0.2.1", b"@192.0.2.1"),
        ("::ffff:192.0.2.1", b"@192.0.2.1"),
        ("2001:db8::1", b"@2001:db8::/64"),
        ("2001:DB8:0:0:ffff:ffff:ffff:ffff", b"@2001:db8::/64"),
        ("2001:db8:0:1::1", b"@2001:db8:0:1::/64"),
        ("fe80::1%eth0", b"@fe80::/64"),
    ],
)
def test_this_machine_an_ipv4_address_or_an_ipv6_network_is_a_principal(address: str, principal: bytes) -> None:
    assert address_principal(address) == principal


@pytest.mark.parametrize(
    ("client", "principal"),
    [
        (b"127.0.0.1:5000", LOCAL),
        (b"127.0.0.9:5000", LOCAL),
        (b"[::1]:5000", LOCAL),
        (b"[::ffff:127.0.0.1]:5000", LOCAL),
        (b"unix:-", LOCAL),
        (b"unix:/run/bridge:1", LOCAL),
        (b"192.0.2.1:5000", b"@192.0.2.1"),
        (b"[2001:db8::1]:5000", b"@2001:db8::/64"),
        (b"[fe80::1%eth0]:5000", b"@fe80::/64"),
    ],
)
def test_the_far_end_of_a_connection_has_the_principal_of_its_address(client: bytes, principal: bytes) -> None:
    assert client_principal(client) == principal
    assert is_remote(client) is (principal != LOCAL)


def test_an_identity_is_one_principal_wherever_it_connects_from() -> None:
    assert client_principal(b"192.0.2.1:5000", b"ann") == client_principal(b"unix:-", b"ann") == b"=ann"


@pytest.mark.parametrize("subject", [b"local", b"@192.0.2.1", b"=ann"])
def test_no_subject_can_be_mistaken_for_another_principal(subject: bytes) -> None:
    others = {LOCAL, b"@192.0.2.1", client_principal(b"", b"ann")}
    assert client_principal(b"127.0.0.1:1", subject) not in others


def test_a_session_has_the_principal_of_its_identity_while_it_is_authenticated() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"t1": ("ann", {">": "rw"}, None)}))
    peer = server.line_client()
    assert ENDS.client.startswith(b"127.0.0.1:") and peer.session.client.principal == LOCAL
    peer.send("AUTH wrong")
    assert peer.session.client.principal == LOCAL
    peer.send("AUTH t1")
    assert peer.session.client.principal == b"=ann"
    server.context.change_policy(None)
    assert peer.session.client.principal == LOCAL
