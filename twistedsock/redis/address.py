"""The address of a Redis server: ``redis://``, ``rediss://`` for TLS, or ``unix://`` for a Unix socket.

No message of this module contains any part of an address, because a part can be a password.
"""

from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

DEFAULT_PORT = 6379

EXAMPLES = (
    "expected redis://host:6379/0, rediss://host:6379/0 for TLS, or unix:///run/redis.sock?db=0; a user is written "
    "before the host, with an @ between them"
)


class Address(Struct, frozen=True):
    """``path`` is that of a Unix socket, and ``ca_file`` that of the certificates which TLS trusts, instead of those of
    the system. Do not log an address: use ``str``, which contains neither user nor password."""

    host: str = ""
    port: int = DEFAULT_PORT
    database: int = 0
    path: str = ""
    is_tls: bool = False
    ca_file: str = ""
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    __repr__ = __str__


def parse_address(url: str) -> Address:
    """Raises ValueError with a sentence for the operator."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(f"invalid address: {EXAMPLES}") from None
    if parts.scheme not in ("redis", "rediss", "unix") or parts.fragment:
        raise ValueError(f"invalid address: {EXAMPLES}")
    is_unix, is_tls = parts.scheme == "unix", parts.scheme == "rediss"
    database = options.pop("db", "0") if is_unix else parts.path.strip("/") or "0"
    ca_file = options.pop("ca", "") if is_tls else ""
    if is_unix and (host or not parts.path.strip("/")):
        raise ValueError("invalid address: unix:// needs an absolute path, for example unix:///run/redis.sock")
    if not (is_unix or host):
        raise ValueError(f"invalid address: no host; {EXAMPLES}")
    if not (database.isascii() and database.isdigit()):
        raise ValueError("invalid address: the database must be a number, for example redis://host:6379/0")
    if options:
        raise ValueError("invalid address: after ? only db (with unix://) and ca (with rediss://) are known")
    return Address(
        host,
        DEFAULT_PORT if port is None else port,
        int(database),
        parts.path if is_unix else "",
        is_tls,
        ca_file,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def has_password(url: str) -> bool:
    """Whether an address, valid or not, may contain a password."""
    return ":" in url.partition("://")[2].rpartition("@")[0]
