"""Everything that an operator can say, on the command line or in a TOML file under the same names; who may do what, and
whom it tells, in such a file only."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from twistedsock.auth.config import AccessTable
from twistedsock.auth.origins import normalize_host, normalize_origin
from twistedsock.auth.trusted_proxies import TrustedProxies, parse_trusted
from twistedsock.limits.settings import Limits
from twistedsock.webhooks.config import WebhookTable, check_names

DEFAULT_TCP = ("tcp:8081:interface=127.0.0.1",)

DEFAULT_WEB = ("tcp:8082:interface=127.0.0.1",)

NO_LISTENER = "none"
"""In place of an endpoint: do not listen for this kind."""


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


class SettingsError(Exception):
    """What was said cannot be meant; its text is one sentence for the operator."""


class Settings(Limits, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """``tcp`` and ``web`` are Twisted endpoint strings. Times are seconds, sizes are bytes."""

    tcp: tuple[str, ...] = DEFAULT_TCP
    web: tuple[str, ...] = DEFAULT_WEB
    allow_insecure: Annotated[
        bool, Meta(description="listen where other machines reach it, though nobody is asked who they are")
    ] = False
    allow_origin: tuple[str, ...] = ()
    allow_host: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    proxy_protocol: tuple[str, ...] = ()
    send_buffer_bytes: Annotated[
        int,
        Meta(
            ge=0, le=16 * 1024 * 1024, description="bytes of the kernel's send buffer a connection; 0: its own default"
        ),
    ] = 128 * 1024
    ping_interval: Annotated[
        int, Meta(ge=0, description="seconds between pings to a WebSocket peer, or comments on a stream; 0: none")
    ] = 30
    ping_timeout: Annotated[
        int, Meta(ge=3, description="seconds that a WebSocket peer has for its pong, 3 at least")
    ] = 30
    shutdown_timeout: Annotated[float, Meta(ge=0, description="seconds at the end for what is queued to leave")] = 5.0
    log_format: Annotated[
        Literal["text", "json"], Meta(description="how the log is written: text, or json with one object a line")
    ] = "text"
    access: AccessTable | None = None
    """None: everybody may do everything. Its files are absolute paths."""
    webhook: tuple[WebhookTable, ...] = ()
    """Whom the bridge tells what happens on its channels. Their files are absolute paths."""


def read_settings(file: str | None, given: dict[str, Any]) -> Settings:
    """Settings from a TOML file, if there is one, and from the command line, which wins."""
    told: dict[str, Any] = {}
    if file is not None:
        try:
            told = tomllib.loads(Path(file).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} is no TOML: {error}") from None
        _convert(told, f"{file}: ", strict=True)
    settings = _convert({**told, **given}, "", strict=False)
    trusted_proxies(settings)
    if not listeners(settings.tcp + settings.web):
        raise SettingsError("nothing to listen on: give tcp or web an endpoint")
    if file is None:
        return settings
    folder = Path(file).absolute().parent
    try:
        check_names(settings.webhook)
    except ValueError as error:
        raise SettingsError(f"{file}: webhook: {error}") from None
    settings = msgspec.structs.replace(settings, webhook=tuple(hook.beside(folder) for hook in settings.webhook))
    if settings.access is None:
        return settings
    _check_listeners(settings.access, listeners(settings.tcp + settings.web), file)
    return msgspec.structs.replace(settings, access=settings.access.beside(folder))


def _convert(values: dict[str, Any], where: str, strict: bool) -> Settings:
    for kind in ("tcp", "web", "trusted-proxy", "proxy-protocol"):
        if isinstance(values.get(kind), str):  # one needs no list
            values[kind] = [values[kind]]
    known = {field.encode_name for field in msgspec.structs.fields(Settings)}
    for name in values:
        if name in RENAMED_OPTIONS:
            raise SettingsError(f"{where}option {name!r} was renamed: use {RENAMED_OPTIONS[name]!r}")
        if name not in known:
            raise SettingsError(f"{where}unknown option {name!r}")
    try:
        settings = msgspec.convert(values, Settings, strict=strict)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        name = place.rstrip("`")
        raise SettingsError(f"{where}{name}: {words[:1].lower()}{words[1:].replace('`', '')}") from None
    return msgspec.structs.replace(
        settings,
        allow_origin=_normalize("allow-origin", normalize_origin, settings.allow_origin, where),
        allow_host=_normalize("allow-host", normalize_host, settings.allow_host, where),
    )


def _normalize(name: str, normalize: Callable[[str], str], values: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Values as they are compared with what browsers send; SettingsError if one could match nothing."""
    try:
        return tuple(map(normalize, values))
    except ValueError as error:
        raise SettingsError(f"{where}{name}: {error}") from None


def _check_listeners(access: AccessTable, endpoints: list[str], file: str) -> None:
    for place, listener in enumerate(access.listener):
        if listener.endpoint not in endpoints:
            raise SettingsError(
                f"{file}: access.listener[{place}].endpoint: nothing listens on {listener.endpoint!r}; it must be "
                f"written exactly as one of these: {', '.join(endpoints)}"
            )


def trusted_proxies(settings: Settings) -> TrustedProxies:
    """The proxies that are believed; SettingsError where what is said of them cannot be meant."""
    try:
        trusted = parse_trusted(settings.trusted_proxy)
    except ValueError as error:
        raise SettingsError(f"trusted-proxy: {error}") from None
    for endpoint in settings.proxy_protocol:
        if endpoint not in listeners(settings.tcp + settings.web):
            raise SettingsError(f"proxy-protocol: {endpoint!r} is given neither under tcp nor under web")
    if settings.proxy_protocol and not settings.trusted_proxy:
        raise SettingsError("proxy-protocol: without trusted-proxy nobody is believed")
    return trusted


def listeners(endpoints: tuple[str, ...]) -> list[str]:
    """The endpoints to listen on: none at all where it was said so."""
    return [endpoint for endpoint in endpoints if endpoint != NO_LISTENER]
