"""Server addresses: ``tcp://``, ``tls://``, ``unix://``, ``ws://`` and ``wss://``."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from sockbridge.errors import AddressError, explain

DEFAULT_SERVER = "tcp://127.0.0.1:8081"
"""The line port of a server on this machine."""

_PORTS = {"tcp": 8081, "tls": 8443, "ws": 80, "wss": 443}
_SAME = {"http": "ws", "https": "wss"}
_EXPECTED = "expected tcp://host:port, tls://host:port, unix:///path, ws://host:port or wss://host:port"


@dataclass(frozen=True)
class Address:
    """The address of a server. ``path`` is that of a Unix socket, or of a WebSocket."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_secure(self) -> bool:
        return self.scheme in ("tls", "wss")

    @property
    def is_websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_address(text: str) -> Address:
    """Parse the address of a server; without a scheme, it is that of a line port. Raises AddressError."""
    if "://" not in text:
        text = f"tcp://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressError(f"invalid address {text!r}: {error}; {_EXPECTED}") from None
    scheme = _SAME.get(parts.scheme, parts.scheme)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise AddressError(f"invalid address of scheme {scheme}: give a token as token, not in the address")
    if scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise AddressError(f"invalid address {text!r}: expected unix:// and an absolute path, as in unix:///run/a")
        return Address(scheme, path=parts.path)
    if scheme not in _PORTS or not parts.hostname:
        raise AddressError(f"invalid address {text!r}: {_EXPECTED}")
    path = parts.path if scheme in ("ws", "wss") else ""
    if parts.path not in ("", "/") and not path:
        raise AddressError(f"invalid address {text!r}: a path is only for ws:// and wss://")
    if scheme in ("ws", "wss") and path in ("", "/"):
        path = "/ws"
    return Address(scheme, parts.hostname, _PORTS[scheme] if port is None else port, path)


def tls_context(address: Address, authorities: str | None = None) -> ssl.SSLContext | None:
    """The TLS settings of a connection, None without TLS. ``authorities`` is a file of certificates to trust instead of
    those of the system. Raises AddressError if it cannot be read."""
    try:
        return ssl.create_default_context(cafile=authorities) if address.is_secure else None
    except OSError as error:  # ssl.SSLError is one too
        reason = "no certificates in PEM" if isinstance(error, ssl.SSLError) else explain(error)
        raise AddressError(f"cannot read the certificates in {authorities}: {reason}") from None
