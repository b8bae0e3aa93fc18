"""Listeners: endpoint strings, the ports that they open, and hints how to connect to them."""

import os
import re
import socket
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from twistedsock.server.sockets import format_address
from twistedsock.server.tls import Certificates, TLSEndpoint
from twistedsock.server.twisted_internals import adopt_unix_port

BACKLOG = 4096
"""Connections that wait to be accepted: the maximum that Linux allows (net.core.somaxconn), so that a thousand browsers
that reconnect at the same time are not rejected. Twisted's default is 50."""


class EndpointError(Exception):
    """An endpoint cannot be used. The message is for the operator and suggests what to write instead."""


def parse_endpoint(description: str, reactor: Any, authorities: Path | None = None) -> IStreamServerEndpoint:
    """Return the endpoint that a string describes. Its backlog is ``BACKLOG`` if the string has none. ``authorities``
    is a file of certificates: if it is given, TLS clients need a certificate that one of them signed. Raises
    EndpointError."""
    kind = description.partition(":")[0]
    port = _PORT.match(description)
    if port is not None and int(port[1]) > 65535:
        raise EndpointError(f"cannot use the endpoint {description!r}: invalid port {port[1]}: at most 65535")
    needs_backlog = kind in ("tcp", "tcp6", "ssl", "unix") and ":backlog=" not in description
    completed = f"{description}:backlog={BACKLOG}" if needs_backlog else description
    try:
        if kind == "ssl":
            return TLSEndpoint(reactor, Certificates(completed, Path.cwd(), authorities))
        endpoint = serverFromString(reactor, completed)
        if isinstance(endpoint, AdoptedStreamServerEndpoint):
            _check_adopted_socket(endpoint.fileno, endpoint.addressFamily)
        return endpoint
    except Exception as error:  # each kind of endpoint has its own errors, OpenSSL's among them
        reason = _suggestion(description) or str(error) or type(error).__name__
        if kind == "systemd" and isinstance(error, IndexError | KeyError):
            reason = "systemd passed no such socket: start the server by a unit with sockets"
        raise EndpointError(f"cannot use the endpoint {description!r}: {reason}") from None


class PassedPort(NamedTuple):
    """A listening socket that another process has opened and passed to this one. ``number`` is its file descriptor."""

    number: int
    family: int


def adopt_port(
    description: str, reactor: Any, port: PassedPort, authorities: Path | None = None
) -> IStreamServerEndpoint:
    """Return an endpoint that accepts the connections of a socket of another process. ``description`` is the endpoint
    by which that has opened it. Raises EndpointError."""
    if description.startswith("ssl:"):
        try:
            return PassedTLSEndpoint(reactor, Certificates(description, Path.cwd(), authorities), port)
        except Exception as error:
            raise EndpointError(f"cannot use the endpoint {description!r}: {error}") from None
    return PassedEndpoint(reactor, port)


@implementer(IStreamServerEndpoint)
class PassedEndpoint:
    """The socket stays open in the process that has opened it: that one removes the file of a Unix socket."""

    def __init__(self, reactor: Any, port: PassedPort) -> None:
        self._reactor = reactor
        self._port = port

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: Any) -> IListeningPort:
        number, family = self._port
        if family == socket.AF_UNIX:
            adopted = adopt_unix_port(self._reactor, number, factory)
        else:
            adopted = self._reactor.adoptStreamPort(number, family, factory)
        os.close(number)  # the port has a duplicate
        return adopted


class PassedTLSEndpoint(TLSEndpoint):
    """The same with TLS."""

    def __init__(self, reactor: Any, certificates: Certificates, port: PassedPort) -> None:
        super().__init__(reactor, certificates)
        self._passed = PassedEndpoint(reactor, port)

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        return self._passed.listen(TLSMemoryBIOFactory(self.certificates, False, protocolFactory))


def _check_adopted_socket(number: int, expected: int) -> None:
    """Raise OSError if a socket of systemd does not match its endpoint. Twisted assumes the address family that the
    endpoint names: if that is wrong, the addresses of all clients are invalid."""
    with socket.socket(fileno=os.dup(number)) as handle:
        if hasattr(socket, "SO_DOMAIN"):
            family = socket.AddressFamily(handle.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN))
            if family != expected:
                name = family.name.removeprefix("AF_")
                raise OSError(f"the socket is of the family {name}: write domain={name}")
        if not handle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("the socket does not listen for streams: write ListenStream= and Accept=no in its unit")


_PORT = re.compile(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)(?::|$)")

_ADDRESS = re.compile(
    r"(?:(?:tcp6?|https?|wss?):(?://)?)?(?:(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.*-]*):)?([0-9]{1,5})(?:/tcp|/)?",
    re.IGNORECASE,
)
"""How other programs write addresses to listen on: a port, perhaps with a host."""


def _suggestion(description: str) -> str:
    """What to write instead of an endpoint that cannot be used. Empty if that is not clear."""
    if description.startswith(("/", "./")):
        return f"write unix:{description}"
    found = _ADDRESS.fullmatch(description)
    if found is None:
        is_endpoint = description.partition(":")[0] in ("tcp", "tcp6", "ssl", "unix", "systemd")
        return "" if is_endpoint else "write an endpoint such as tcp:8081:interface=127.0.0.1"
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
    """One configured endpoint, and the port that it opened."""

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
    def has_port(self) -> bool:
        """True if the address has a port number. A Unix socket has a path."""
        return hasattr(self.address, "port")

    @property
    def secure(self) -> bool:
        return self.certificates is not None

    @property
    def certificates(self) -> Certificates | None:
        return self.endpoint.certificates if isinstance(self.endpoint, TLSEndpoint) else None

    def page_address(self) -> str:
        """The address of the page, for a browser on this machine."""
        if not self.has_port:
            return format_address(self.address)
        return f"http{'s' if self.secure else ''}://{self._local_address()}/"

    def page_entry(self) -> dict[str, object]:
        """The address of the listener, for the page. The host is empty if it listens on all addresses: then the host by
        which a client has reached the page is right."""
        if not self.has_port:
            return {"kind": "unix", "path": format_address(self.address).removeprefix("unix:")}
        host, port = self.address.host, self.address.port
        host = "" if host in ("0.0.0.0", "::") else host
        return {"kind": "ssl" if self.secure else "tcp", "host": host, "port": port}

    def line_hint(self) -> str:
        """A command that connects to this listener and speaks lines."""
        address = format_address(self.address)
        if not self.has_port:
            return f"lines on {address}: nc -U {address.removeprefix('unix:')}"
        if self.secure:
            return f"lines over TLS on {address}: openssl s_client -quiet -connect {self._local_address()}"
        host, port = self._local_host_and_port()
        return f"lines on {address}: telnet {host} {port}"

    def web_hint(self) -> str:
        """How to open the page of this listener."""
        address = format_address(self.address)
        if self.has_port:
            return f"web on {address}: open {self.page_address()}"
        return f"web on {address}: curl --unix-socket {address.removeprefix('unix:')} http://localhost/bridge.json"

    def _local_host_and_port(self) -> tuple[str, int]:
        """For a client on this machine."""
        host = self.address.host
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), self.address.port

    def _local_address(self) -> str:
        host, port = self._local_host_and_port()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
