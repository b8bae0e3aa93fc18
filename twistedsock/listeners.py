"""Where the bridge listens: endpoints, the ports that they become, and what people can do there."""

import os
import re
import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

from twistedsock.config import SettingsError
from twistedsock.server.sockets import format_address
from twistedsock.server.tls import Certificates, TLSEndpoint

BACKLOG = 4096
"""Connections that wait to be accepted: what Linux allows at most (net.core.somaxconn), so that a thousand browsers
that come back at once are not turned away. Twisted's own default is 50."""


def parse_endpoint(description: str, reactor: Any, authorities: Path | None = None) -> IStreamServerEndpoint:
    """An endpoint from its string, with our backlog where it names none; SettingsError where it is none. With TLS, its
    clients need a certificate of one of ``authorities``, a file, unless that is None."""
    kind = description.partition(":")[0]
    port = _PORT.match(description)
    if port is not None and int(port[1]) > 65535:
        raise SettingsError(f"cannot use the endpoint {description!r}: {port[1]} is no port, they end at 65535")
    more = kind in ("tcp", "tcp6", "ssl", "unix") and ":backlog=" not in description
    whole = f"{description}:backlog={BACKLOG}" if more else description
    try:
        if kind == "ssl":
            return TLSEndpoint(reactor, Certificates(whole, Path.cwd(), authorities))
        endpoint = serverFromString(reactor, whole)
        if isinstance(endpoint, AdoptedStreamServerEndpoint):
            _check_handed_over(endpoint.fileno, endpoint.addressFamily)
        return endpoint
    except Exception as error:  # each kind of endpoint has its own errors, OpenSSL's among them
        words = _suggest(description) or str(error) or type(error).__name__
        if kind == "systemd" and isinstance(error, IndexError | KeyError):
            words = "no such socket was handed over: start the server by a unit with sockets"
        raise SettingsError(f"cannot use the endpoint {description!r}: {words}") from None


def _check_handed_over(number: int, told: int) -> None:
    """OSError if a socket that another program hands over is not what its endpoint says. Twisted takes it as the family
    that the endpoint names: if that is wrong, the addresses of all clients are garbage."""
    with socket.socket(fileno=os.dup(number)) as handle:
        if hasattr(socket, "SO_DOMAIN"):
            family = socket.AddressFamily(handle.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN))
            if family != told:
                name = family.name.removeprefix("AF_")
                raise OSError(f"the socket is of the family {name}: write domain={name}")
        if not handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("the socket does not listen for streams: write ListenStream= and Accept=no in its unit")


_PORT = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)(?::|$)")

_ADDRESS = re.compile(
    r"(?:(?:tcp6?|https?|wss?):(?://)?)?(?:(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.*-]*):)?([0-9]{1,5})(?:/tcp|/)?",
    re.IGNORECASE,
)
"""How other programs write where to listen: a port, perhaps with a host."""


def _suggest(description: str) -> str:
    """What to write in place of an endpoint that cannot be used; empty if that is not clear."""
    if description.startswith(("/", "./")):
        return f"write unix:{description}"
    found = _ADDRESS.fullmatch(description)
    if found is None:
        known = description.partition(":")[0] in ("tcp", "tcp6", "ssl", "unix", "systemd")
        return "" if known else "write an endpoint such as tcp:8081:interface=127.0.0.1"
    host, port = found[1] or "", int(found[2])
    if host in ("0.0.0.0", "*"):
        return f"write tcp:{port}"
    if host.startswith("["):
        address = host.strip("[]").replace(":", "\\:")
        return f"write tcp6:{port}:interface={address}"
    if host and host.lower() != "localhost":
        return f"write tcp:{port}:interface={host}"
    return f"write tcp:{port}:interface=127.0.0.1 for this machine only, or tcp:{port} for every interface"


class Listener:
    """One endpoint and the port it became."""

    def __init__(self, description: str, endpoint: IStreamServerEndpoint, factory: Any) -> None:
        self.description = description
        self.endpoint = endpoint
        self.factory = factory
        self.port: IListeningPort | None = None

    @property
    def address(self) -> Any:
        assert self.port is not None
        return self.port.getHost()

    @property
    def secure(self) -> bool:
        return self.certificates is not None

    @property
    def certificates(self) -> Certificates | None:
        return self.endpoint.certificates if isinstance(self.endpoint, TLSEndpoint) else None

    def reachable(self) -> tuple[str, int]:
        """Host and port for a client on this machine."""
        host = self.address.host
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), self.address.port

    @property
    def has_port(self) -> bool:
        """Whether it has a number; a Unix socket has a path."""
        return hasattr(self.address, "port")

    def shown(self) -> str:
        """Host and port, for a client on this machine."""
        host, port = self.reachable()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def page(self) -> str:
        """The address of the page."""
        return f"http{'s' if self.secure else ''}://{self.shown()}/" if self.has_port else format_address(self.address)

    def for_page(self) -> dict[str, object]:
        """Where lines are spoken, as the page wants to know it. The host is empty where it listens on all addresses:
        then the one by which the page is reached is right, from whatever machine."""
        if not self.has_port:
            return {"kind": "unix", "path": format_address(self.address).removeprefix("unix:")}
        host, port = self.address.host, self.address.port
        host = "" if host in ("0.0.0.0", "::") else host
        return {"kind": "ssl" if self.secure else "tcp", "host": host, "port": port}

    def try_lines(self) -> str:
        """What to type to speak lines here."""
        where = format_address(self.address)
        if not self.has_port:
            return f"lines on {where}: nc -U {where.removeprefix('unix:')}"
        if self.secure:
            return f"lines over TLS on {where}: openssl s_client -quiet -connect {self.shown()}"
        host, port = self.reachable()
        return f"lines on {where}: telnet {host} {port}"

    def try_web(self) -> str:
        """What to open to see the page."""
        where = format_address(self.address)
        if self.has_port:
            return f"web on {where}: open {self.page()}"
        return f"web on {where}: curl --unix-socket {where.removeprefix('unix:')} http://localhost/bridge.json"
