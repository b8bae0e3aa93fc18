"""The tables ``[[webhook]]`` of the configuration file, and the files that they name."""

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

EventKind = Literal["channel-occupied", "channel-vacated", "member-joined", "member-left", "event-published"]

EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)

MAX_WEBHOOKS = 32
"""Each one is called for each event. With more receivers, let one of them forward the events."""

MAX_PATTERNS = 100
"""All are tried for each new channel."""

MAX_URL_LENGTH = 2_000
"""More than most servers accept."""

MAX_HOST_LENGTH = 253
"""Characters of a host name in the DNS (RFC 1035 section 3.1)."""

MIN_SECRET_BYTES = 16
"""128 bits, because one captured delivery allows to try secrets offline."""

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
    """A ``[[webhook]]``. Times are in seconds, sizes in bytes."""

    url: str
    events: Annotated[tuple[EventKind, ...], Meta(min_length=1)]
    channels: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_PATTERNS)] = (">",)
    secret_file: str | None = None
    secret: str | None = None
    name: str = ""
    """Its name in deliveries, the log and metrics. Empty: the host and port of the URL."""
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
            raise ValueError("it requires either secret-file or secret: deliveries are signed with it")
        if self.secret is not None and len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret must have at least {MIN_SECRET_BYTES} bytes: openssl rand -hex 32")
        if self.name and not _NAME.fullmatch(self.name):
            raise ValueError("the name must be 1 to 64 visible ASCII characters")
        for text in self.channels:
            pattern(text)
        if self.ca_file is not None and not self.is_secure:
            raise ValueError("ca-file requires a url that begins with https:")

    def __repr__(self) -> str:
        """Without the secret and the URL, which can contain another one."""
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
        """The URL of requests: the configured one, with characters that are invalid in URLs percent-encoded."""
        parts = urlsplit(self.url)
        target = (parts.path or "/") + ("?" + parts.query if "?" in self.url else "")
        return f"{parts.scheme}://{parts.netloc.lower()}{quote(target, safe=_TARGET_SAFE)}".encode("ascii")

    @property
    def shown_url(self) -> str:
        """The URL without its query, which can contain a secret."""
        address, mark, _ = self.url.partition("?")
        return address + "?…" if mark else address

    def patterns(self) -> tuple[list[Pattern], list[Pattern]]:
        """The patterns for channels under ``$sys/``, and those for all other channels."""
        own = [pattern(text) for text in self.channels if text.startswith(RESERVED.decode())]
        return own, [pattern(text) for text in self.channels if not text.startswith(RESERVED.decode())]

    def with_absolute_paths(self, folder: Path) -> "WebhookTable":
        """A copy in which file names relative to ``folder`` are absolute, because a daemon changes its folder."""
        files = {name: value for name in ("secret_file", "ca_file") if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(self, **{name: str(folder / value) for name, value in files.items()})


class ChannelMatcher:
    """Tests whether a webhook is for a channel. Results are cached."""

    MAX_CACHED = 10_000
    """Up to 3 MiB with the longest names."""

    def __init__(self, table: WebhookTable) -> None:
        self._own, self._others = table.patterns()
        self._known: dict[bytes, bool] = {}

    def __call__(self, channel: bytes) -> bool:
        known = self._known.get(channel)
        if known is None:
            wanted = self._own if is_reserved(channel) else self._others
            known = any(one.matches(channel) for one in wanted)
            if len(self._known) >= self.MAX_CACHED:
                self._known.clear()
            self._known[channel] = known
        return known


def check_names(tables: tuple[WebhookTable, ...]) -> None:
    """Raises ``ValueError`` if there are too many webhooks, or two with the same name."""
    if len(tables) > MAX_WEBHOOKS:
        raise ValueError(f"too many webhooks: {len(tables)}, the maximum is {MAX_WEBHOOKS}")
    titles = [table.title for table in tables]
    for place, title in enumerate(titles):
        if title in titles[:place]:
            raise ValueError(f"two webhooks have the name {title!r}: set a unique name for each")


def _check_url(url: str) -> None:
    if len(url) > MAX_URL_LENGTH or not _VISIBLE.fullmatch(url):
        raise ValueError(f"the url must be at most {MAX_URL_LENGTH:,} visible ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the url is malformed") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("the url must be https:// or http:// and a host")
    if "@" in parts.netloc:
        raise ValueError("the url must not contain a user or password: receivers check the signature")
    if not _is_reachable(parts.netloc):
        raise ValueError(
            "the url has an invalid host or port: write a host name, an IPv4 address or an IPv6 address in brackets, "
            "then :PORT if it is not the usual one"
        )
    if "#" in url:
        raise ValueError("the url must not contain a fragment (#), which would never be sent")


def _is_reachable(netloc: str) -> bool:
    """True if requests can be sent to this host and port. Otherwise each delivery would fail."""
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
    return len(name) <= MAX_HOST_LENGTH and all(_LABEL.fullmatch(label) for label in labels)


MAX_FILE_BYTES = 1024 * 1024
"""Several times the size of all public certificate authorities. A larger file is a wrong path."""


class WebhookError(Exception):
    """Invalid configuration of a webhook. The message is for the operator."""


class WebhookTarget(msgspec.Struct, frozen=True):
    """A webhook with the content of its files. Two are equal if nothing has changed."""

    table: WebhookTable
    secret: bytes
    authorities: bytes | None = None
    """Trusted certificate authorities as PEM. None: those of the system."""
    warning: str = ""
    """A warning for the operator about the file of the secret, or empty."""

    def __repr__(self) -> str:
        return f"WebhookTarget({self.table.title!r})"


def read_targets(tables: Iterable[WebhookTable]) -> list[WebhookTarget]:
    """Read the files of all webhooks. Raises ``WebhookError`` with the name of the option if one is unusable."""
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
        assert table.secret is not None, "checked by WebhookTable"
        return table.secret.encode(), ""
    path = Path(table.secret_file)
    content, mode = _read(path)
    secret = strip_line_end(content)
    if len(secret) < MIN_SECRET_BYTES:
        raise WebhookError(f"{path} contains {len(secret)} bytes: a secret must have at least {MIN_SECRET_BYTES}")
    return secret, warn_of_readers(path, mode)


def _authorities(path: Path) -> bytes:
    from cryptography.x509 import load_pem_x509_certificates

    content, _ = _read(path)
    try:
        load_pem_x509_certificates(content)
    except ValueError:
        raise WebhookError(f"{path} contains no PEM certificates (-----BEGIN CERTIFICATE-----)") from None
    return content


def _read(path: Path) -> tuple[bytes, int]:
    too_large = f"{path} is larger than {MAX_FILE_BYTES:,} bytes: is it the right file?"
    return read_file(path, MAX_FILE_BYTES, too_large, WebhookError)
