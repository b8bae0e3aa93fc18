"""Addresses, client certificates, listeners' configuration, socket options, and TCP statistics of connections."""

import socket
import struct
import sys
from typing import Any
from urllib.parse import quote

import msgspec
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol, ServerFactory

from twistedsock.auth.origins import ListenerScope
from twistedsock.auth.trusted_proxies import NO_PROXIES, TrustedProxies
from twistedsock.limits.principal import is_loopback
from twistedsock.server.twisted_internals import unencrypted_bytes, unsent_bytes
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import HandshakeInfo, Step
from twistedsock.stats import TcpStats

# The configuration of a listener, and its factory.


class ListenerConfig(msgspec.Struct, frozen=True):
    """The common properties of the connections of one listener. ``endpoint`` is its endpoint string as configured,
    empty for other ports. ``trusted`` are the proxies that may report the address of their client; if the listener is
    ``proxied``, their connections begin with a PROXY header."""

    endpoint: str = ""
    proxied: bool = False
    trusted: TrustedProxies = NO_PROXIES

    @property
    def secure(self) -> bool:
        """True if connections begin with a TLS handshake."""
        return self.endpoint.startswith("ssl:")


DEFAULT_LISTENER = ListenerConfig()
"""For connections that no configured listener accepted."""


class ListenerFactory(ServerFactory):
    """Creates the protocols of one listener."""

    noisy = False
    listening: ListenerConfig

    def buildProtocol(self, address: Any) -> Protocol | None:
        """``address`` is the client's: the one in the PROXY header if there is one."""
        protocol: Any = super().buildProtocol(address)
        if self.listening.proxied:
            protocol.proxied_address = address
        return protocol


# Addresses.


class LocalAddress(msgspec.Struct, frozen=True):
    """The server's end of a connection, as text and as the origin rules need it."""

    text: bytes
    scope: ListenerScope


_IP_ADDRESSES = (IPv4Address, IPv6Address)
"""A tuple, because a union would be built by each call, which takes longer than the rest of it."""


def host_of(address: Any) -> str:
    """The IP address of one end, empty for a Unix socket."""
    return address.host if isinstance(address, _IP_ADDRESSES) else ""


def format_address(address: Any) -> str:
    """An address as text: ``127.0.0.1:8081``, ``[::1]:8081``, ``unix:/run/bridge`` or ``unix:-``. A client chooses the
    path of its own Unix socket, and addresses appear in lines, logs and terminals. Therefore spaces and characters that
    cannot be printed are percent-encoded."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress) and address.name:
        return "unix:" + "".join(map(_escape, address.name.decode(errors="replace")))
    return "unix:-"


def _escape(character: str) -> str:
    return character if character.isprintable() and character != " " else quote(character)


def local_address_of(transport: Any) -> LocalAddress:
    """The server's end of a connection."""
    known = getattr(_port_of(transport), "local_address", None)
    return known if known is not None else _local_address(transport.getHost())


def _local_address(address: Any) -> LocalAddress:
    scope = ListenerScope(is_loopback(host_of(address)), getattr(address, "port", 0))
    return LocalAddress(format_address(address).encode(), scope)


def endpoints_of(transport: Any, client_address: Any) -> Endpoints:
    """Both ends of a connection."""
    return Endpoints(format_address(client_address).encode(), local_address_of(transport).text)


MAX_COMMON_NAME_BYTES = 200
"""X.520 allows 64 characters; some authorities write more."""


def subject_of(transport: Any) -> bytes | None:
    """The common name in the certificate of a client, or None if it has no certificate or one without exactly one
    printable common name. Must not be called before the handshake is complete: only then is the certificate
    verified."""
    get_certificate = getattr(transport, "getPeerCertificate", None)
    certificate: X509 | None = get_certificate() if get_certificate is not None else None
    if certificate is None:
        return None
    try:
        names = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:  # cryptography rejects some certificates that OpenSSL accepts
        return None
    if len(names) != 1:
        return None
    name = names[0].value
    if not isinstance(name, str) or not name or not name.isprintable():
        return None
    subject = name.encode()
    return subject if len(subject) <= MAX_COMMON_NAME_BYTES else None


def handshake_info(transport: Any, now: float, handshake: str = "", accepted_at: float | None = None) -> HandshakeInfo:
    """How a connection began, for its timeline. ``handshake`` names the last handshake, which ends ``now``; the
    protocol accepted the connection at ``accepted_at``, or now. If a PROXY header came first, the innermost transport
    has the time before it."""
    before_header = getattr(innermost_transport(transport), "accepted_at", None)
    began = now if accepted_at is None else accepted_at
    if before_header is None:
        return HandshakeInfo(began, handshake)
    return HandshakeInfo(before_header, handshake, (Step(began, "proxied"),))


# Transports and ports.


def innermost_transport(transport: Any) -> Any:
    """The transport that has the socket. It may be below TLS."""
    while hasattr(transport, "transport"):
        transport = transport.transport
    return transport


def hand_over(transport: Any, protocol: Any) -> None:
    """Let another protocol receive the input and the end of a connection from now on. Its previous protocol is no
    longer called."""
    transport.protocol = protocol


def _port_of(transport: Any) -> Any:
    """The listening port that accepted a connection, None for other transports."""
    return getattr(transport, "server", None)


# Socket options.

OPTIONS_ARE_INHERITED = sys.platform == "linux"
"""Whether a TCP connection has the options of the socket that accepted it (Linux: tcp(7) and socket(7))."""


def prepare_listening_socket(port: Any, send_buffer_bytes: int, unreachable_timeout: int = 0) -> None:
    """Do once for a listening port what each of its connections would need: ``tune_socket`` if options are inherited,
    and formatting the local address if it is the same for all. Must be called before the first connection. The results
    are attributes of the port, because a connection has a reference to it."""
    handle = getattr(port, "socket", None)
    if OPTIONS_ARE_INHERITED and isinstance(handle, socket.socket) and handle.family != socket.AF_UNIX:
        _set_options(handle, send_buffer_bytes, unreachable_timeout)
        port.connections_are_tuned = True
    address = port.getHost()
    # The name of a scope is known for a connection only.
    if host_of(address) not in ("", "0.0.0.0", "::") and not getattr(address, "scopeID", 0):
        port.local_address = _local_address(address)


def tune_socket(transport: Any, send_buffer_bytes: int, unreachable_timeout: int = 0) -> None:
    """Set the options of a connection's socket. Small messages are sent at once. A client that has not answered for
    ``unreachable_timeout`` seconds is disconnected (0 leaves that to the kernel, which takes hours). A client that does
    not read occupies at most twice ``send_buffer_bytes`` bytes of kernel memory (0 leaves that to the kernel, which
    allows megabytes)."""
    if getattr(_port_of(transport), "connections_are_tuned", False):
        return
    handle = getattr(innermost_transport(transport), "socket", None)
    if isinstance(handle, socket.socket):
        _set_options(handle, send_buffer_bytes, unreachable_timeout)


def _set_options(handle: socket.socket, send_buffer_bytes: int, unreachable_timeout: int) -> None:
    if handle.family != socket.AF_UNIX:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in keepalive_options(unreachable_timeout):
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
        # Telnet sends its Ctrl-C as urgent data. It must be read in its place among the other bytes.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if send_buffer_bytes:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)


def keepalive_options(seconds: int) -> list[tuple[int, int]]:
    """TCP options (tcp(7)) that close an idle connection after ``seconds`` if the remote machine does not answer: after
    half of that time it is probed three times, an eighth apart. Linux sends no such probes while data waits to be
    acknowledged or sent; ``transport.Reachability`` covers that. Options that the platform lacks are left out."""
    if not seconds:
        return []
    wanted = {"TCP_KEEPIDLE": max(1, seconds // 2), "TCP_KEEPINTVL": max(1, seconds // 8), "TCP_KEEPCNT": 3}
    return [(getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)]


# Statistics of the kernel.

TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None

# ``struct tcp_info`` in Linux's <linux/tcp.h>, which only grows at its end.
_TRAFFIC_FIELDS = struct.Struct("=68xI48xQQ8xI")
"""tcpi_rtt at 68 (microseconds), tcpi_bytes_acked at 120, tcpi_bytes_received at 128, tcpi_notsent_bytes at 144 (since
Linux 4.6)."""

_UNANSWERED_FIELDS = struct.Struct("=2xBB52xI")
"""tcpi_retransmits at 2 and tcpi_probes at 3, both reset by each answer; tcpi_last_ack_recv at 56 (milliseconds since
then)."""


def tcp_stats_of(transport: Any) -> TcpStats | None:
    """The traffic of a connection, from Linux's TCP_INFO (tcp(7)). None for other sockets and platforms. For a
    connection that has ended, the last statistics if its transport has kept them. Costs a system call."""
    inner, unsent = transport, 0
    while hasattr(inner, "transport"):
        unsent += unencrypted_bytes(inner)
        inner = inner.transport
    handle = getattr(inner, "socket", None)
    if handle is None or TCP_INFO is None:
        last: TcpStats | None = getattr(inner, "last_tcp_stats", None)
        return last
    try:
        info = handle.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _TRAFFIC_FIELDS.size)
    except OSError:  # a Unix socket
        return None
    if len(info) < _TRAFFIC_FIELDS.size:  # an older kernel
        return None
    microseconds, acknowledged, received, unsent_in_kernel = _TRAFFIC_FIELDS.unpack(info)
    unsent += unsent_bytes(inner) + unsent_in_kernel
    return TcpStats(acknowledged, received, unsent, microseconds / 1e6)


def seconds_unanswered(transport: Any) -> float:
    """Seconds since the remote machine last acknowledged anything, if two packets or more are unanswered since then:
    retransmissions, or probes for room (a single one may be lost). 0 if it owes no answer or if that is not known."""
    handle = getattr(transport, "socket", None)
    if handle is None or TCP_INFO is None:
        return 0.0
    info = handle.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _UNANSWERED_FIELDS.size)
    if len(info) < _UNANSWERED_FIELDS.size:  # an older kernel
        return 0.0
    retransmits, probes, milliseconds = _UNANSWERED_FIELDS.unpack(info)
    return milliseconds / 1000 if retransmits + probes > 1 else 0.0
