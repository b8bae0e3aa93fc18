"""What the shells want of a connection's socket, and how its two ends are written."""

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twistedsock.core.dialect import Ends


def tune(transport: Any, send_buffer: int) -> None:
    """Small messages leave at once, dead peers are noticed, and a peer that stalls holds at most twice
    ``send_buffer`` bytes of the kernel's memory here (0 leaves that to the kernel, which gives it megabytes)."""
    lowest = transport
    while hasattr(lowest, "transport"):  # below TLS
        lowest = lowest.transport
    handle = getattr(lowest, "socket", None)
    if not isinstance(handle, socket.socket):
        return
    if handle.family != socket.AF_UNIX:
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Telnet sends its Ctrl-C as urgent data; it is to be read where it stands.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if send_buffer:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)


def host_of(address: Any) -> str:
    """The literal address of one end, "" for a Unix socket."""
    return address.host if isinstance(address, IPv4Address | IPv6Address) else ""


def show(address: Any) -> str:
    """One end as people write it: ``127.0.0.1:8081``, ``[::1]:8081``, ``unix:/run/bridge`` or ``unix:-``."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress) and address.name:
        return "unix:" + address.name.decode(errors="replace").replace(" ", "%20")
    return "unix:-"


def ends_of(transport: Any) -> Ends:
    """Both ends of a connection."""
    return Ends(show(transport.getPeer()).encode(), show(transport.getHost()).encode())
