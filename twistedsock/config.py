"""The settings of a server: options of the command line and names in a TOML file. Access policies, webhooks and ages
of channels are tables of the file only."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec

from twistedsock.auth.config import AccessTable
from twistedsock.auth.origins import normalize_host, normalize_origin
from twistedsock.auth.trusted_proxies import TrustedProxies, parse_trusted
from twistedsock.limits.settings import Limits, option
from twistedsock.pubsub.names import check_channel, pattern
from twistedsock.redis.address import parse_address
from twistedsock.webhooks.config import WebhookTable, check_names

HEADINGS = ("Listening", "Access", "History", "State", "Backplane", "Limits", "Timeouts", "Proxies", "Logging")
"""The order of the headings in ``--help``."""

DEFAULT_TCP = ("tcp:8081:interface=127.0.0.1",)

DEFAULT_WEB = ("tcp:8082:interface=127.0.0.1",)

NO_LISTENER = "none"
"""In place of an endpoint: do not listen for this protocol."""

NO_POLICY = (
    "accepts clients from other machines without an access policy: add [access] to the configuration file, or set "
    "allow-insecure"
)
"""The end of a sentence about a listener or a trusted proxy."""

RENAMED_OPTIONS = {
    "drain": "shutdown-timeout",
    "lag": "slow-consumer",
    "line-timeout": "read-timeout",
    "log-bytes": "history-total-bytes",
    "max-channels-per-peer": "max-subscriptions-per-client",
    "max-held": "max-buffered-bytes",
    "max-line": "max-line-bytes",
    "max-members-told": "max-pending-presence",
    "max-message": "max-message-bytes",
    "open": "allow-insecure",
    "send-buffer": "send-buffer-bytes",
    "unreachable-after": "unreachable-timeout",
}
"""Names of options before the first release. They are errors that name the new option, not aliases."""


MAX_CHANNEL_TABLES = 100
"""All are tried for each channel."""

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}

_AGE = re.compile(r"([0-9]{1,9})[smhdw]")


class SettingsError(Exception):
    """A setting is invalid. The message is one sentence for the operator."""


class ChannelTable(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A ``[channels."PATTERN"]``."""

    age: str
    """How long the state directory keeps an event: a number and s, m, h, d or w."""

    def __post_init__(self) -> None:
        found = _AGE.fullmatch(self.age)
        if found is None or not int(found[1]):
            raise ValueError("the age must be a number and a unit, for example 90s, 15m, 1h, 90d or 52w")

    @property
    def age_seconds(self) -> int:
        return int(self.age[:-1]) * _UNIT_SECONDS[self.age[-1]]


class Settings(Limits, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """All settings. ``tcp`` and ``web`` are Twisted endpoint strings; times are seconds, sizes are bytes."""

    tcp: Annotated[
        tuple[str, ...],
        option("Listening", "ENDPOINT", "listen for the line protocol on this endpoint; repeatable; none: disable"),
    ] = DEFAULT_TCP
    web: Annotated[
        tuple[str, ...],
        option("Listening", "ENDPOINT", "listen for HTTP and WebSocket on this endpoint; repeatable; none: disable"),
    ] = DEFAULT_WEB
    plugin: Annotated[
        tuple[str, ...],
        option("Listening", "NAME:ARGUMENTS", "start an endpoint that another package provides; repeatable"),
    ] = ()
    socketio_channel: Annotated[
        str,
        option("Listening", "CHANNEL", "let Socket.IO clients use this channel on the main namespace, beside commands"),
    ] = ""
    workers: Annotated[
        int, option("Listening", "N", "processes that serve clients; with 2 or more, another one joins them", 1, 32)
    ] = 1
    allow_insecure: Annotated[
        bool, option("Access", "", "allow listening on non-loopback addresses without an access policy")
    ] = False
    allow_origin: Annotated[
        tuple[str, ...],
        option("Access", "ORIGIN", "accept pages of this origin, for example https://example.org; repeatable"),
    ] = ()
    allow_host: Annotated[
        tuple[str, ...],
        option("Access", "HOST", "accept browsers that ask for this host name; repeatable"),
    ] = ()
    trusted_proxy: Annotated[
        tuple[str, ...],
        option(
            "Proxies",
            "ADDRESS",
            "trust X-Forwarded-For and PROXY headers from this address, network (10.0.0.0/8) or Unix sockets (unix); "
            "repeatable",
        ),
    ] = ()
    proxy_protocol: Annotated[
        tuple[str, ...],
        option(
            "Proxies",
            "ENDPOINT",
            "expect a PROXY header from trusted proxies on this endpoint of --tcp or --web; repeatable",
        ),
    ] = ()
    send_buffer_bytes: Annotated[
        int,
        option("Limits", "BYTES", "kernel send buffer of a connection; 0: the kernel decides", 0, 16 * 1024 * 1024),
    ] = 128 * 1024
    ping_interval: Annotated[
        int, option("Timeouts", "SECONDS", "time between pings to a WebSocket or comments on a stream; 0: none", 0)
    ] = 30
    ping_timeout: Annotated[
        int, option("Timeouts", "SECONDS", "time for a WebSocket client to answer a ping; minimum 3", 3)
    ] = 30
    shutdown_timeout: Annotated[
        float, option("Timeouts", "SECONDS", "time to deliver queued data when the server stops", 0)
    ] = 5.0
    worker_timeout: Annotated[
        float,
        option(
            "Timeouts", "SECONDS", "time without a sign of life of a worker or hub, before it is killed; 0: no limit", 0
        ),
    ] = 30.0
    log_format: Annotated[
        Literal["text", "json"],
        option("Logging", "FORMAT", "format of the log: text, or json with one object per line"),
    ] = "text"
    state: Annotated[str, option("State", "DIR", "keep events in this directory, so that they survive a restart")] = ""
    state_sync: Annotated[
        Literal["full", "1s"],
        option("State", "WHEN", "write events to the disk before they are answered (full), or once a second (1s)"),
    ] = "full"
    state_age: Annotated[int, option("State", "SECONDS", "how long the directory keeps an event", 0)] = 2_592_000
    state_bytes: Annotated[
        int,
        option(
            "State", "BYTES", "size of the directory's file; beyond that, the oldest events are deleted", 1024 * 1024
        ),
    ] = 10 * 1024 * 1024 * 1024
    channels: dict[str, ChannelTable] = {}
    """What differs for channels that match a pattern. The first one counts."""
    backplane: Annotated[
        str,
        option(
            "Backplane",
            "URL",
            "join other servers through Redis or Valkey: redis://host:6379/0, rediss:// for TLS, unix:///path, "
            "redis+sentinel://host1,host2/mymaster/0",
        ),
    ] = ""
    backplane_password_file: Annotated[
        str,
        option(
            "Backplane", "FILE", "read the password of Redis from this file, not from SOCKBRIDGE_BACKPLANE_PASSWORD"
        ),
    ] = ""
    backplane_sentinel_password_file: Annotated[
        str,
        option(
            "Backplane",
            "FILE",
            "read the password of the Sentinels from this file, not from SOCKBRIDGE_BACKPLANE_SENTINEL_PASSWORD",
        ),
    ] = ""
    access: AccessTable | None = None
    """The access policy. None: every client can do everything. Its files are absolute paths."""
    webhook: tuple[WebhookTable, ...] = ()
    """Servers that are notified of events. Their files are absolute paths."""


class Option(NamedTuple):
    """A setting that can be given on the command line."""

    name: str
    heading: str
    unit: str
    """The placeholder of its value in ``--help``. Empty: a flag without a value."""
    description: str
    default: Any

    @property
    def is_repeatable(self) -> bool:
        return isinstance(self.default, tuple)


def _list_options() -> tuple[Option, ...]:
    defaults = Settings()
    options = []
    for field, hint in get_type_hints(Settings, include_extras=True).items():
        for meta in getattr(hint, "__metadata__", ()):
            heading, unit = meta.extra["heading"], meta.extra["unit"]
            options.append(Option(field.replace("_", "-"), heading, unit, meta.description, getattr(defaults, field)))
    return tuple(options)


OPTIONS = _list_options()


def read_settings(file: str | None, given: dict[str, Any]) -> Settings:
    """Return the settings of a TOML file, if there is one, overridden by those of the command line."""
    in_file: dict[str, Any] = {}
    if file is not None:
        try:
            in_file = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} is not valid TOML: {error}") from None
        _convert(in_file, f"{file}: ", strict=True)
    settings = _convert({**in_file, **given}, "", strict=False)
    trusted_proxies(settings)
    _check_backplane(settings)
    invalid = check_channel(settings.socketio_channel.encode()) if settings.socketio_channel else None
    if invalid is not None:
        raise SettingsError(f"socketio-channel: {invalid.message}")
    if not listeners(settings.tcp + settings.web):
        raise SettingsError("nothing to listen on: give an endpoint for tcp or web")
    if file is None:
        return _with_absolute_paths(settings, given, Path.cwd())
    folder = Path(file).absolute().parent
    settings = _with_absolute_paths(settings, given, folder)
    try:
        check_names(settings.webhook)
    except ValueError as error:
        raise SettingsError(f"{file}: webhook: {error}") from None
    settings = msgspec.structs.replace(
        settings, webhook=tuple(hook.with_absolute_paths(folder) for hook in settings.webhook)
    )
    if settings.access is None:
        return settings
    _check_listeners(settings.access, listeners(settings.tcp + settings.web), file)
    return msgspec.structs.replace(settings, access=settings.access.resolve_files(folder))


def _with_absolute_paths(settings: Settings, given: dict[str, Any], folder: Path) -> Settings:
    """Absolute paths, because a daemon changes its current directory. Those of the file are relative to ``folder``."""
    for field in ("state", "backplane_password_file", "backplane_sentinel_password_file"):
        path = getattr(settings, field)
        if path:
            absolute = (Path.cwd() if field.replace("_", "-") in given else folder) / path
            settings = msgspec.structs.replace(settings, **{field: str(absolute)})
    return settings


def _check_backplane(settings: Settings) -> None:
    if not settings.backplane:
        if settings.backplane_password_file:
            raise SettingsError("backplane-password-file: requires backplane")
        if settings.backplane_sentinel_password_file:
            raise SettingsError("backplane-sentinel-password-file: requires backplane")
        return
    if settings.state:
        raise SettingsError("backplane and state cannot be used together: Redis keeps the events")
    if settings.workers > 1:
        raise SettingsError("backplane and workers cannot be used together: start several servers instead")
    try:
        address = parse_address(settings.backplane)
    except ValueError as error:
        raise SettingsError(f"backplane: {error}") from None
    if settings.backplane_sentinel_password_file and not address.sentinels:
        raise SettingsError("backplane-sentinel-password-file: requires a backplane that begins with redis+sentinel://")


def _convert(values: dict[str, Any], where: str, strict: bool) -> Settings:
    for name in ("tcp", "web", "plugin", "trusted-proxy", "proxy-protocol"):
        if isinstance(values.get(name), str):  # a single value needs no list
            values[name] = [values[name]]
    known = {field.encode_name for field in msgspec.structs.fields(Settings)}
    for name in values:
        if name in RENAMED_OPTIONS:
            raise SettingsError(f"{where}option {name!r} was renamed: use {RENAMED_OPTIONS[name]!r}")
        if name not in known:
            raise SettingsError(f"{where}unknown option {name!r}")
    _check_channels(values.get("channels"), where)
    try:
        settings = msgspec.convert(values, Settings, strict=strict)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        raise SettingsError(f"{where}{name}: {message[:1].lower()}{message[1:].replace('`', '')}") from None
    return msgspec.structs.replace(
        settings,
        allow_origin=_normalize("allow-origin", normalize_origin, settings.allow_origin, where),
        allow_host=_normalize("allow-host", normalize_host, settings.allow_host, where),
    )


def _check_channels(tables: object, where: str) -> None:
    """Name the pattern in errors, which msgspec does not."""
    if not isinstance(tables, dict):
        return
    if len(tables) > MAX_CHANNEL_TABLES:
        raise SettingsError(f"{where}channels: more than {MAX_CHANNEL_TABLES} patterns")
    for text, table in tables.items():
        try:
            pattern(text)
            msgspec.convert(table, ChannelTable)
        except (ValueError, msgspec.ValidationError) as error:
            message = str(error).partition(" - at `$")[0].replace("`", "")
            raise SettingsError(f'{where}channels."{ascii(text)[1:-1]}": {message[:1].lower()}{message[1:]}') from None


def _normalize(name: str, normalize: Callable[[str], str], values: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the values as they are compared with the headers of browsers."""
    try:
        return tuple(map(normalize, values))
    except ValueError as error:
        raise SettingsError(f"{where}{name}: {error}") from None


def _check_listeners(access: AccessTable, endpoints: list[str], file: str) -> None:
    for index, listener in enumerate(access.listener):
        if listener.endpoint not in endpoints:
            raise SettingsError(
                f"{file}: access.listener[{index}].endpoint: no listener {listener.endpoint!r}: write it "
                f"exactly as one of {', '.join(endpoints)}"
            )


def trusted_proxies(settings: Settings) -> TrustedProxies:
    """Return the proxies that the server trusts. Raises SettingsError if an address or an endpoint is invalid."""
    try:
        trusted = parse_trusted(settings.trusted_proxy)
    except ValueError as error:
        raise SettingsError(f"trusted-proxy: {error}") from None
    for endpoint in settings.proxy_protocol:
        if endpoint not in listeners(settings.tcp + settings.web):
            raise SettingsError(f"proxy-protocol: {endpoint!r} is not an endpoint of tcp or web")
    if settings.proxy_protocol and not settings.trusted_proxy:
        raise SettingsError("proxy-protocol: requires trusted-proxy")
    return trusted


def listeners(endpoints: tuple[str, ...]) -> list[str]:
    """Return the endpoints to listen on, without the placeholder ``none``."""
    return [endpoint for endpoint in endpoints if endpoint != NO_LISTENER]
