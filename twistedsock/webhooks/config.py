"""The tables ``[[webhook]]`` of a file of options, as an operator writes them."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from twistedsock.auth.secret_files import read_file, strip_line_end, warn_of_readers
from twistedsock.pubsub.names import RESERVED, Pattern, is_reserved, pattern

Kind = Literal["channel-occupied", "channel-vacated", "member-joined", "member-left", "event-published"]

KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_WEBHOOKS = 32
"""Each looks at each event. Who has more receivers lets one of them tell the others."""

MAX_PATTERNS = 100
"""Each is tried when a channel is first heard of."""

MAX_URL = 2_000
"""Characters: more than servers take."""

MAX_HOST = 253
"""Characters of a host name in the DNS (RFC 1035 section 3.1)."""

SECRET_BYTES = 16
"""The least: 128 bits, as whoever sees one delivery can try secrets at leisure."""

_VISIBLE = re.compile(r"[!-~]+")

_NAME = re.compile(r"[!-~]{1,64}")

_NETLOC = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z_.-]+))(?::([0-9]{1,5}))?")
"""An IPv6 address in brackets, or a name or an IPv4 address; then the port."""

_LABEL = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?")
"""One part of a host name. Underscores are not allowed in host names (RFC 1123 section 2.1), but Docker and other
resolvers use them."""

_NUMERIC = re.compile(r"[0-9]+|0[Xx][0-9A-Fa-f]*")
"""A host whose last label is a number is an IPv4 address (WHATWG URL, "ends in a number checker")."""

_TARGET_SAFE = "%/:?#[]@!$&'()*+,;="
"""Characters of a path and query that are sent as they are, beside letters, digits and ``-._~`` (RFC 3986
section 2)."""


class WebhookTable(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """``[[webhook]]``. Times are seconds, sizes are bytes."""

    url: str
    events: Annotated[tuple[Kind, ...], Meta(min_length=1)]
    channels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_PATTERNS)] = (">",)
    secret_file: str | None = None
    secret: str | None = None
    name: str = ""
    """What it is called in deliveries, in the log and in figures: the host, unless it was said."""
    ca_file: str | None = None
    batch_events: Annotated[int, Meta(ge=1, le=1_000)] = 100
    delay: Annotated[float, Meta(ge=0, le=60)] = 0.25
    debounce: Annotated[float, Meta(ge=0, le=300)] = 3.0
    timeout: Annotated[float, Meta(ge=1, le=120)] = 10.0
    retry_for: Annotated[float, Meta(ge=0, le=7 * 86_400)] = 3_600.0
    queue_events: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    queue_bytes: Annotated[int, Meta(ge=65_536, le=1024 * 1024 * 1024)] = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        _check_url(self.url)
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("it needs secret-file, or secret, and not both: deliveries are signed with it")
        if self.secret is not None and len(self.secret.encode()) < SECRET_BYTES:
            raise ValueError(f"the secret must have {SECRET_BYTES} bytes or more: openssl rand -hex 32")
        if self.name and not _NAME.fullmatch(self.name):
            raise ValueError("the name is 1 to 64 visible ASCII characters")
        for text in self.channels:
            pattern(text)
        if self.ca_file is not None and not self.is_secure:
            raise ValueError("ca-file is for urls that begin with https: only, as certificates are shown in TLS")

    def __repr__(self) -> str:
        """Without the secret, nor what else the url may hold of that kind."""
        return f"WebhookTable({self.title!r})"

    @property
    def title(self) -> str:
        return self.name or urlsplit(self.url).netloc

    @property
    def is_secure(self) -> bool:
        return self.url.lower().startswith("https:")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def request_url(self) -> bytes:
        """The URL of the requests: that of the operator, with characters that no URL can hold percent-encoded."""
        parts = urlsplit(self.url)
        target = (parts.path or "/") + ("?" + parts.query if "?" in self.url else "")
        return f"{parts.scheme}://{parts.netloc.lower()}{quote(target, safe=_TARGET_SAFE)}".encode("ascii")

    @property
    def shown_url(self) -> str:
        """Without its query, which may hold a secret."""
        address, mark, _ = self.url.partition("?")
        return address + "?…" if mark else address

    def patterns(self) -> tuple[list[Pattern], list[Pattern]]:
        """Of which channels it tells: those for the server's own, then those for all others."""
        own = [pattern(text) for text in self.channels if text.startswith(RESERVED.decode())]
        return own, [pattern(text) for text in self.channels if not text.startswith(RESERVED.decode())]

    def beside(self, folder: Path) -> "WebhookTable":
        """The same, with the paths of its files relative to a folder made absolute: a daemon changes its own."""
        files = {name: value for name in ("secret_file", "ca_file") if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(self, **{name: str(folder / value) for name, value in files.items()})


class Matching:
    """Whether a channel is one that a webhook tells of; remembered, as the same ones come again and again."""

    MAX_KNOWN = 10_000
    """Channels: up to 3 MiB with the longest names."""

    def __init__(self, table: WebhookTable) -> None:
        self._own, self._others = table.patterns()
        self._known: dict[bytes, bool] = {}

    def __call__(self, channel: bytes) -> bool:
        known = self._known.get(channel)
        if known is None:
            wanted = self._own if is_reserved(channel) else self._others
            known = any(one.matches(channel) for one in wanted)
            if len(self._known) >= self.MAX_KNOWN:
                self._known.clear()
            self._known[channel] = known
        return known


def check_names(tables: tuple[WebhookTable, ...]) -> None:
    """ValueError with a sentence where two cannot be told from each other."""
    if len(tables) > MAX_WEBHOOKS:
        raise ValueError(f"there are {len(tables)} webhooks, and {MAX_WEBHOOKS} at most can be")
    titles = [table.title for table in tables]
    for place, title in enumerate(titles):
        if title in titles[:place]:
            raise ValueError(f"two webhooks are called {title!r}; give each a name of its own")


def _check_url(url: str) -> None:
    if len(url) > MAX_URL or not _VISIBLE.fullmatch(url):
        raise ValueError(f"the url is at most {MAX_URL:,} visible ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the url cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("the url begins with https:// or http://, then comes a host")
    if "@" in parts.netloc:
        raise ValueError("the url can hold no user and no password; the receiver knows us by the signature")
    if not _is_reachable(parts.netloc):
        raise ValueError(
            "the url has an invalid host or port: write a host name, an IPv4 address or an IPv6 address in brackets, "
            "then :PORT if it is not the usual one"
        )
    if "#" in url:
        raise ValueError("the url cannot have a #, as what is behind it is never sent")


def _is_reachable(netloc: str) -> bool:
    """Whether requests can be sent to this host and port: what is refused here would fail in each delivery."""
    matched = _NETLOC.fullmatch(netloc)
    if matched is None:
        return False
    address, name, _ = matched.groups()
    try:
        if address is not None:
            return bool(IPv6Address(address))
        labels = name.removesuffix(".").split(".")
        if _NUMERIC.fullmatch(labels[-1]):
            return bool(IPv4Address(name))
    except ValueError:
        return False
    return len(name) <= MAX_HOST and all(_LABEL.fullmatch(label) for label in labels)


MAX_FILE_BYTES = 1024 * 1024
"""Several times all authorities of the world, so that a wrong path is told at once, whatever is there."""


class WebhookError(Exception):
    """What is said about a webhook cannot be meant; its text is one sentence for the operator."""


class WebhookTarget(msgspec.Struct, frozen=True):
    """Two are equal where nothing changed."""

    table: WebhookTable
    secret: bytes
    authorities: bytes | None = None
    """As PEM; None: those of the system."""
    warning: str = ""
    """A sentence for the operator about the file of the secret; empty if all is well."""

    def __repr__(self) -> str:
        return f"Target({self.table.title!r})"


def read_targets(tables: Iterable[WebhookTable]) -> list[WebhookTarget]:
    """Reads the files; WebhookError with a sentence that names the place where one cannot be used."""
    targets = []
    for place, table in enumerate(tables):
        try:
            secret, warning = _secret(table)
        except WebhookError as error:
            raise WebhookError(f"webhook[{place}].secret-file: {error}") from None
        try:
            authorities = None if table.ca_file is None else _authorities(Path(table.ca_file))
        except WebhookError as error:
            raise WebhookError(f"webhook[{place}].ca-file: {error}") from None
        targets.append(WebhookTarget(table, secret, authorities, warning))
    return targets


def _secret(table: WebhookTable) -> tuple[bytes, str]:
    if table.secret_file is None:
        assert table.secret is not None, "one of the two is there"
        return table.secret.encode(), ""
    path = Path(table.secret_file)
    content, mode = _read(path)
    secret = strip_line_end(content)
    if len(secret) < SECRET_BYTES:
        raise WebhookError(f"{path} holds {len(secret)} bytes, and a secret has {SECRET_BYTES} or more")
    return secret, warn_of_readers(path, mode)


def _authorities(path: Path) -> bytes:
    from cryptography.x509 import load_pem_x509_certificates

    content, _ = _read(path)
    try:
        load_pem_x509_certificates(content)
    except ValueError:
        raise WebhookError(f"{path} holds no certificates as PEM (-----BEGIN CERTIFICATE-----)") from None
    return content


def _read(path: Path) -> tuple[bytes, int]:
    too_large = f"{path} is larger than {MAX_FILE_BYTES:,} bytes, so it is something else"
    return read_file(path, MAX_FILE_BYTES, too_large, WebhookError)


# TODO-MERGED-DOC: A webhook with what its files hold: the secret, and the authorities that vouch for the
# receiver.
