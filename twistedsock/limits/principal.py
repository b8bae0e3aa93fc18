"""Principals: what counts as one client, for every rate, limit and shared table.

A client that has proved an identity is counted by the subject of that identity. Any other client is counted by its
address, because an address is what a client cannot renew at will: an IPv4 address, or the /64 network of an IPv6
address. Clients on this machine (loopback and Unix sockets) are one principal, ``LOCAL``.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

Principal = bytes
"""An opaque key: compare it and use it in tables. It can be shown to administrators."""

LOCAL: Principal = b"local"
"""All clients on this machine that have proved no identity."""

ELSEWHERE: Principal = b"elsewhere"
"""All clients of other nodes, because only the node that a client is connected to can determine its principal."""

NETWORK_BITS = 64
"""Bits of an IPv6 address that identify a client. A network has at least one /64 to itself (RFC 4291 section 2.5.1),
and each host can use any of its 2^64 addresses (RFC 8981)."""


def is_loopback(host: str) -> bool:
    """Whether a literal address is a loopback address. IPv4 in IPv6 counts as IPv4; a host name is never one."""
    if host == "127.0.0.1":  # the most frequent case; parsing an address takes microseconds
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@lru_cache(maxsize=1024)
def address_principal(address: str) -> Principal:
    """The principal of a client at a literal IP address, ``""`` for a Unix socket, that has proved no identity. Cached,
    because parsing an address takes microseconds, and a connection needs this several times."""
    if not address or is_loopback(address):
        return LOCAL
    if ":" in address:
        whole = IPv6Address(address.partition("%")[0])
        network = IPv6Address(int(whole) >> 128 - NETWORK_BITS << 128 - NETWORK_BITS)
        address = str(whole.ipv4_mapped or f"{network}/{NETWORK_BITS}")
    return b"@" + address.encode()


def subject_principal(subject: bytes) -> Principal:
    """The principal of all clients that have proved the identity with this subject."""
    return b"=" + subject


def is_subject(principal: Principal) -> bool:
    """Whether a principal is an identity, not an address."""
    return principal.startswith(b"=")


def client_principal(client: bytes, subject: bytes = b"") -> Principal:
    """The principal of a client by its address, written as in ``Endpoints.client``. ``subject`` is the
    subject of the identity that the client has proved, or empty."""
    if subject:
        return subject_principal(subject)
    if client.startswith((b"127.0.0.1:", b"unix:")):
        return LOCAL
    return address_principal(client.rpartition(b":")[0].strip(b"[]").decode())


def is_remote(client: bytes) -> bool:
    """Whether a client, written as in ``Endpoints.client``, is remote: not on this machine."""
    return client_principal(client) != LOCAL
