"""What the shells want of a connection's socket, and how its two ends are written."""

import socket
import struct
import sys
from typing import Any
from urllib.parse import quote

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol, ServerFactory

from twistedsock.auth.origins import ListenerScope
from twistedsock.auth.trusted_proxies import NOBODY, TrustedProxies
from twistedsock.limits.principal import is_loopback
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import HandshakeInfo, Step
from twistedsock.stats import TcpStats

_INHERITS = sys.platform == "linux"
"""Whether a TCP connection has the options of the socket that it was accepted from (Linux: tcp(7) and socket(7))."""

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None

_OF_TCP_INFO = struct.Struct("=68xI48xQQ8xI")
"""Of ``struct tcp_info`` in Linux's <linux/tcp.h>, which only ever grows at its end: tcpi_rtt at 68 (microseconds),
tcpi_bytes_acked at 120, tcpi_bytes_received at 128, tcpi_notsent_bytes at 144. The last came with Linux 4.6."""

_UNANSWERED = struct.Struct("=2xBB52xI")
"""Of the same: tcpi_retransmits at 2 and tcpi_probes at 3, which begin at 0 again with each answer;
tcpi_last_ack_recv at 56 (milliseconds since then)."""


class LocalAddress(msgspec.Struct, frozen=True):
    """Our end of a connection: as people write it, and as the rules for origins ask for it."""

    shown: bytes
    door: ListenerScope


def prepare_listening_socket(port: Any, send_buffer_bytes: int, unreachable_timeout: int = 0) -> None:
    """Do once for a listening port what each of its connections would need: ``tune_socket`` its socket where that is
    inherited, and find out where its connections come in, if that is one address. To be called before the first one.
    The two facts are kept on the port, as that is what a connection knows of where it came from."""
    handle = getattr(port, "socket", None)
    if _INHERITS and isinstance(handle, socket.socket) and handle.family != socket.AF_UNIX:
        _set_options(handle, send_buffer_bytes, unreachable_timeout)
        port.connections_are_tuned = True
    address = port.getHost()
    # A scope's name is known of a connection only.
    if host_of(address) not in ("", "0.0.0.0", "::") and not getattr(address, "scopeID", 0):
        port.connections_come_in = _here(address)


def tune_socket(transport: Any, send_buffer_bytes: int, unreachable_timeout: int = 0) -> None:
    """Small messages leave at once; a peer that has not answered for ``unreachable_timeout`` seconds is gone (0 leaves
    that to the kernel, which takes hours); and a peer that stalls holds at most twice ``send_buffer_bytes`` of the
    kernel's memory here (0 leaves that to it too, and it gives megabytes)."""
    if getattr(_port(transport), "connections_are_tuned", False):
        return
    handle = getattr(innermost_transport(transport), "socket", None)
    if isinstance(handle, socket.socket):
        _set_options(handle, send_buffer_bytes, unreachable_timeout)


def innermost_transport(transport: Any) -> Any:
    """The transport that has the socket: it may be below TLS."""
    while hasattr(transport, "transport"):
        transport = transport.transport
    return transport


def handshake_info(transport: Any, now: float, handshake: str = "", accepted_at: float | None = None) -> HandshakeInfo:
    """How a connection came in whose session begins ``now``, ``handshake`` being the last of what came before; its port
    took it at ``accepted_at``, or now. Who was told of it by a proxy first, had noted the time on the lowest
    transport."""
    proxied = getattr(innermost_transport(transport), "accepted_at", None)
    began = now if accepted_at is None else accepted_at
    if proxied is None:
        return HandshakeInfo(began, handshake)
    return HandshakeInfo(proxied, handshake, (Step(began, "proxied"),))


def traffic_of(transport: Any) -> TcpStats | None:
    """What has gone through a connection, as Linux tells of TCP (tcp(7), TCP_INFO); None for other sockets and on other
    platforms. Of a connection that has ended, what it had been in the end, if its transport has kept that. It costs a
    system call, and nobody anything who does not ask."""
    innermost_transport, waiting = transport, 0
    while hasattr(innermost_transport, "transport"):
        # Twisted's TLS keeps here what its connection has not taken.
        waiting += sum(map(len, getattr(innermost_transport, "_appSendBuffer", ())))
        innermost_transport = innermost_transport.transport
    handle = getattr(innermost_transport, "socket", None)
    if handle is None or _TCP_INFO is None:
        last: TcpStats | None = getattr(innermost_transport, "last_traffic", None)
        return last
    try:
        told = handle.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _OF_TCP_INFO.size)
    except OSError:  # a Unix socket
        return None
    if len(told) < _OF_TCP_INFO.size:  # an older kernel
        return None
    microseconds, acknowledged, received, unsent = _OF_TCP_INFO.unpack(told)
    # And Twisted's transports what the socket has not taken.
    waiting += len(innermost_transport.dataBuffer) - innermost_transport.offset + innermost_transport._tempDataLen
    return TcpStats(acknowledged, received, waiting + unsent, microseconds / 1e6)


def seconds_unanswered(transport: Any) -> float:
    """Seconds since the other machine has acknowledged anything, if it has been asked twice in vain since: by what was
    sent again, or by probes whether it has room (once may be a lost packet). 0 if it owes no answer, and where that is
    not known."""
    handle = getattr(transport, "socket", None)
    if handle is None or _TCP_INFO is None:
        return 0.0
    told = handle.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _UNANSWERED.size)
    if len(told) < _UNANSWERED.size:  # an older kernel
        return 0.0
    retransmits, probes, milliseconds = _UNANSWERED.unpack(told)
    return milliseconds / 1000 if retransmits + probes > 1 else 0.0


def _port(transport: Any) -> Any:
    """The listening port that a connection came in by, None if its transport has no such thing."""
    return getattr(transport, "server", None)


def _set_options(handle: socket.socket, send_buffer_bytes: int, unreachable_timeout: int) -> None:
    if handle.family != socket.AF_UNIX:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _keepalive(unreachable_timeout):
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
        # Telnet sends its Ctrl-C as urgent data; it is to be read where it stands.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if send_buffer_bytes:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)


def _keepalive(seconds: int) -> list[tuple[int, int]]:
    """Options of TCP (tcp(7)) with which a connection at rest is closed after ``seconds`` if the other machine does not
    answer: after half of it in silence it is probed three times, an eighth apart. Linux sends no such probes while
    something waits to be acknowledged or sent: that is what ``reachability`` is for. A platform may lack some."""
    if not seconds:
        return []
    wanted = {"TCP_KEEPIDLE": max(1, seconds // 2), "TCP_KEEPINTVL": max(1, seconds // 8), "TCP_KEEPCNT": 3}
    return [(getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)]


def host_of(address: Any) -> str:
    """The literal address of one end, "" for a Unix socket."""
    return address.host if isinstance(address, IPv4Address | IPv6Address) else ""


def format_address(address: Any) -> str:
    """One end as people write it: ``127.0.0.1:8081``, ``[::1]:8081``, ``unix:/run/bridge`` or ``unix:-``. A client
    chooses the path of its own Unix socket, and that is written in lines, logs and terminals, so spaces and characters
    that cannot be printed are percent-encoded."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress) and address.name:
        return "unix:" + "".join(map(_escape, address.name.decode(errors="replace")))
    return "unix:-"


def _escape(character: str) -> str:
    return character if character.isprintable() and character != " " else quote(character)


def _here(address: Any) -> LocalAddress:
    return LocalAddress(
        format_address(address).encode(), ListenerScope(is_loopback(host_of(address)), getattr(address, "port", 0))
    )


def local_address_of(transport: Any) -> LocalAddress:
    """Our end of a connection."""
    known = getattr(_port(transport), "connections_come_in", None)
    return known if known is not None else _here(transport.getHost())


def endpoints_of(transport: Any, peer: Any) -> Endpoints:
    """Both ends of a connection, of which ``peer`` is the far one."""
    return Endpoints(format_address(peer).encode(), local_address_of(transport).shown)


class ListenerConfig(msgspec.Struct, frozen=True):
    """Each listener has factories of its own, which hold this. ``endpoint`` is its endpoint string as configured, ""
    where there is none. ``trusted`` are those that may tell whom they speak for; where it is ``proxied``, their
    connections begin with a PROXY header."""

    endpoint: str = ""
    proxied: bool = False
    trusted: TrustedProxies = NOBODY

    @property
    def secure(self) -> bool:
        """Whether its connections begin with a handshake of TLS."""
        return self.endpoint.startswith("ssl:")


DEFAULT_LISTENER = ListenerConfig()
"""Of connections that no listener of ours accepted."""


class ListenerFactory(ServerFactory):
    """Makes the protocols of one listener."""

    noisy = False
    listening: ListenerConfig

    def buildProtocol(self, address: Any) -> Protocol | None:
        """``address`` is the far end of the connection, as a proxy tells it where one does."""
        protocol: Any = super().buildProtocol(address)
        if self.listening.proxied:
            protocol.told = address
        return protocol


# TODO-MERGED-DOC: What the connections of one listener have in common.
