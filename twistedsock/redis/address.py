"""The address of Redis: ``redis://``, ``rediss://`` for TLS, ``unix://`` for a Unix socket, ``redis+sentinel://`` or
``redis+cluster://``.

The form with Sentinels is that of the Python package redis-sentinel-url, which several programs use. No message of this
module contains any part of an address, because a part can be a password.
"""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

DEFAULT_PORT = 6379

DEFAULT_SENTINEL_PORT = 26379

EXAMPLES = (
    "expected redis://host:6379/0, rediss://host:6379/0 for TLS, unix:///run/redis.sock?db=0, "
    "redis+sentinel://host1:26379,host2:26379/mymaster/0, or redis+cluster://host1:6379,host2:6379; a user is written "
    "before the host, with an @ between them"
)

_PARTS = re.compile(
    r"(redis|rediss|unix|redis\+sentinel|rediss\+sentinel|redis\+cluster|rediss\+cluster)://([^/?#]*)([^?#]*)(?:\?([^#]*))?"
)
"""Scheme, user and hosts, path, options."""

_OPTIONS = {
    "redis": set[str](),
    "rediss": {"ca"},
    "unix": {"db"},
    "redis+sentinel": {"sentinel_username", "sentinel_password"},
    "rediss+sentinel": {"ca", "sentinel_username", "sentinel_password"},
    "redis+cluster": set(),
    "rediss+cluster": {"ca"},
}


class Place(Struct, frozen=True):
    """The address of a Sentinel, or of a node of a Cluster."""

    host: str
    port: int

    def __str__(self) -> str:
        return _join(self.host, self.port)


class Address(Struct, frozen=True):
    """``path`` is that of a Unix socket, and ``ca_file`` that of the certificates which TLS trusts, instead of those of
    the system. With ``sentinels``, they know the host: that of the server which they call ``master``. ``nodes`` are
    some of a Cluster, which know all others. Do not log an address: use ``str``, which contains neither user nor
    password."""

    host: str = ""
    port: int = DEFAULT_PORT
    database: int = 0
    path: str = ""
    is_tls: bool = False
    ca_file: str = ""
    user: str = ""
    password: str = ""
    sentinels: tuple[Place, ...] = ()
    master: str = ""
    sentinel_user: str = ""
    sentinel_password: str = ""
    nodes: tuple[Place, ...] = ()

    def __str__(self) -> str:
        if self.path:
            return self.path
        if self.sentinels and not self.host:
            return f"{self.master} of {','.join(map(str, self.sentinels))}"
        if self.nodes and not self.host:
            return f"the Cluster of {','.join(map(str, self.nodes))}"
        return _join(self.host, self.port)

    __repr__ = __str__

    @property
    def hosts(self) -> list[str]:
        """The hosts that it names."""
        return [place.host for place in (*self.sentinels, *self.nodes)] or [self.host]


def parse_address(url: str) -> Address:
    """Raises ValueError with a sentence for the operator."""
    found = _PARTS.fullmatch(url)
    try:
        if found is None:
            raise ValueError
        scheme, place, path, query = found.groups()
        login, _, hosts = place.rpartition("@")
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        servers = [_split(host) for host in hosts.split(",")] if hosts else []
    except ValueError:
        raise ValueError(f"invalid address: {EXAMPLES}") from None
    if options.keys() - _OPTIONS[scheme]:
        known = ", ".join(sorted(_OPTIONS[scheme])) or "nothing"
        raise ValueError(f"invalid address: {scheme}:// accepts {known} after the ?")
    user, _, password = login.partition(":")
    options_of_all = {
        "is_tls": scheme.startswith("rediss"),
        "ca_file": options.get("ca", ""),
        "user": unquote(user),
        "password": unquote(password),
    }
    if scheme == "unix":
        if servers or not path.strip("/"):
            raise ValueError("invalid address: unix:// needs an absolute path, for example unix:///run/redis.sock")
        return Address(path=path, database=_database(options.get("db", "0")), **options_of_all)
    if not servers or not all(host for host, _ in servers):
        raise ValueError(f"invalid address: no host; {EXAMPLES}")
    if scheme.endswith("+sentinel"):
        master, _, database = path.strip("/").partition("/")
        if not master:
            raise ValueError("invalid address: no name of the master, for example redis+sentinel://host:26379/mymaster")
        return Address(
            database=_database(database or "0"),
            sentinels=tuple(Place(host, port or DEFAULT_SENTINEL_PORT) for host, port in servers),
            master=unquote(master),
            sentinel_user=options.get("sentinel_username", ""),
            sentinel_password=options.get("sentinel_password", ""),
            **options_of_all,
        )
    if scheme.endswith("+cluster"):
        if path.strip("/") not in ("", "0"):
            raise ValueError("invalid address: a Cluster has only database 0")
        return Address(nodes=tuple(Place(host, port or DEFAULT_PORT) for host, port in servers), **options_of_all)
    if len(servers) > 1:
        raise ValueError(f"invalid address: only one host can be given; {EXAMPLES}")
    ((host, port),) = servers
    return Address(host, port or DEFAULT_PORT, _database(path.strip("/") or "0"), **options_of_all)


def has_password(url: str) -> bool:
    """Whether an address, valid or not, may contain a password."""
    return ":" in url.partition("://")[2].rpartition("@")[0] or "sentinel_password=" in url


def _split(server: str) -> tuple[str, int]:
    """Host, and port or 0. Raises ValueError."""
    parts = urlsplit("//" + server)
    return parts.hostname or "", parts.port or 0


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("invalid address: the database must be a number, for example redis://host:6379/0")
    return int(text)
