"""`sockbridge check`: explains a configuration file."""

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any, TextIO

import msgspec

from twistedsock.auth.config import AccessTable
from twistedsock.auth.identity import Right, grants
from twistedsock.auth.keys import AccessError
from twistedsock.auth.policy import TablePolicy, build_policy
from twistedsock.cli.memory_estimate import estimate_memory
from twistedsock.config import NO_POLICY, Settings, SettingsError, listeners, read_settings
from twistedsock.limits.principal import is_loopback
from twistedsock.redis.address import Address, has_password, parse_address
from twistedsock.webhooks.config import WebhookError, read_targets

SUMMARY = "explain a configuration file: rights, risky settings, memory"

DESCRIPTION = """\
Reads a configuration file as the server does, without opening a port. Shows the
rights of each client, risky settings, and the maximum memory of the limits.
The exit status is 0 if the server would start with the file, and 1 if not."""

EXAMPLE = "  sockbridge check /etc/sockbridge.toml"

RIGHTS = {"r": "read", "w": "publish on", "rw": "read and publish on"}

PROBES = (b"q", b"q.w/e:r")
"""Channels that a pattern matches, in practice, only if it matches every channel."""


class PlannedListener(msgspec.Struct, frozen=True):
    """A listener as the server would open it."""

    protocol: str
    endpoint: str
    address: str
    reach: str
    is_public: bool
    is_secure: bool
    requires_certificate: bool
    has_proxy: bool
    """Whether a trusted proxy can connect for clients of other machines."""


class Report(msgspec.Struct):
    """The lines of the report, the errors that would keep the server from starting, and the warnings."""

    lines: list[str]
    errors: list[str]
    warnings: list[str]


class _RecordingReactor:
    """In the place of a reactor: records the address of an endpoint."""

    address = ""
    host = ""

    def listenTCP(self, port: int, factory: object, backlog: int = 0, interface: str = "") -> None:
        self.host = interface or "0.0.0.0"
        self.address = f"{interface or 'every address'}, port {port}"

    def listenSSL(
        self, port: int, factory: object, contextFactory: object, backlog: int = 0, interface: str = ""
    ) -> None:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: object, **options: Any) -> None:
        self.address = address


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the configuration file (TOML)")


def run(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Print the report and return the exit status."""
    try:
        settings = read_settings(given.config, {})
    except SettingsError as error:
        print(f"sockbridge check: {error}", file=errors)
        return 1
    report = build_report(settings, time.time())
    _check_inline_secrets(settings, given.config, report)
    for line in report.lines:
        print(line, file=out)
    for title, sentences in (("Warnings", report.warnings), ("The server would not start", report.errors)):
        if sentences:
            print(f"\n{title}", *(f"  {sentence}" for sentence in sentences), sep="\n", file=out)
    return 1 if report.errors else 0


def build_report(settings: Settings, now: float) -> Report:
    """Explain the settings. ``now`` is the wall clock in seconds since 1970."""
    report = Report([], [], [])
    planned = [
        *_plan_listeners("lines", settings, settings.tcp, now, report),
        *_plan_listeners("web", settings, settings.web, now, report),
    ]
    report.lines += [
        "Listeners",
        *(f"  {_describe_listener(one)}" for one in planned),
        *([] if planned else ["  none"]),
    ]
    access = settings.access
    if access is None:
        _explain_missing_policy(settings, planned, report)
    else:
        policy: TablePolicy | None = None
        try:
            policy = build_policy(access, lambda: now)
        except AccessError as error:
            report.errors.append(str(error))
        _explain_rights(access, planned, report)
        _explain_keys(access, policy, report)
    _explain_backplane(settings, report)
    _explain_webhooks(settings, report)
    report.lines += _explain_memory(settings, planned)
    if access is not None:
        _warn_of_risks(settings, access, planned, report)
    return report


def _plan_listeners(
    protocol: str, settings: Settings, endpoints: tuple[str, ...], now: float, report: Report
) -> list[PlannedListener]:
    # These import Twisted. Without it, the other commands start faster.
    from twisted.internet.protocol import Factory

    from twistedsock.server.listeners import EndpointError, parse_endpoint
    from twistedsock.server.tls import TLSEndpoint

    planned = []
    for endpoint in listeners(endpoints):
        authorities = None if settings.access is None else settings.access.client_ca(endpoint)
        has_proxy = bool(settings.trusted_proxy) and (protocol == "web" or endpoint in settings.proxy_protocol)
        if endpoint.startswith("systemd:"):
            address, reach = "a socket of systemd", "its socket unit decides which machines can connect"
            planned.append(PlannedListener(protocol, endpoint, address, reach, False, False, False, has_proxy))
            continue
        recorder = _RecordingReactor()
        try:
            parsed = parse_endpoint(endpoint, recorder, authorities)
            parsed.listen(Factory())
        except EndpointError as error:
            report.errors.append(str(error))
            continue
        warning = parsed.certificates.expiry_warning(now) if isinstance(parsed, TLSEndpoint) else None
        if warning is not None:
            report.warnings.append(warning)
        is_public = recorder.host != "" and not is_loopback(recorder.host)
        reach = "other machines can connect" if is_public else "only this machine can connect"
        if recorder.host == "":
            reach = "its file permissions decide which users can connect"
        secure, has_authorities = endpoint.startswith("ssl:"), authorities is not None
        planned.append(
            PlannedListener(protocol, endpoint, recorder.address, reach, is_public, secure, has_authorities, has_proxy)
        )
    return planned


def _describe_listener(listener: PlannedListener) -> str:
    parts = [listener.reach]
    if listener.has_proxy:
        parts.append("trusted proxies connect for other machines")
    parts.append("TLS" if listener.is_secure else "no TLS")
    if listener.requires_certificate:
        parts.append("client certificate required")
    return f"{listener.protocol} on {listener.address}: {', '.join(parts)}"


def _explain_missing_policy(settings: Settings, planned: list[PlannedListener], report: Report) -> None:
    report.lines += ["Rights", "  every client: everything, because there is no [access]"]
    open_to_others = ["trusted-proxy"] if settings.trusted_proxy else []
    open_to_others += [listener.endpoint for listener in planned if listener.is_public]
    for name in open_to_others:
        if settings.allow_insecure:
            report.warnings.append(f"{name} gives all rights to clients from other machines (allow-insecure)")
        else:
            report.errors.append(f"{name} {NO_POLICY}")


def _explain_rights(access: AccessTable, planned: list[PlannedListener], report: Report) -> None:
    report.lines += ["Rights", f"  without a token: {_describe_rights(access.anonymous)}"]
    for listener in access.listener:
        if listener.allow is not None:
            report.lines.append(f"  without a token, at {listener.endpoint}: {_describe_rights(listener.allow)}")
    if access.key:
        report.lines.append("  with a token: in addition, its claim channels; everything with the claim admin")
    if any(listener.requires_certificate for listener in planned):
        report.lines.append("  with a client certificate: in addition, the rights of its common name")
    for subject in access.subject:
        report.lines.append(
            f"  {subject.name}, by token or certificate: in addition, {_describe_rights(subject.allow)}"
        )


def _explain_keys(access: AccessTable, policy: TablePolicy | None, report: Report) -> None:
    report.lines.append("Keys")
    for entry in access.key:
        key = policy.keys[entry.id] if policy is not None else None
        fingerprint = f", fingerprint {key.fingerprint[:8]}" if key is not None else ""
        report.lines.append(f"  {entry.id}: {entry.algorithm}, {entry.file}{fingerprint}")
    if not access.key:
        report.lines.append("  none: tokens are not accepted")
        return
    report.lines += [
        "Tokens",
        f"  {'must expire' if access.expiry_required else 'need not expire'}, leeway {access.leeway:g} s, "
        + (f"audience {access.audience}" if access.audience else "no audience")
        + (f", also accepted in the cookie {access.cookie}" if access.cookie else ""),
    ]
    if policy is not None:
        report.warnings += policy.warnings


def _explain_backplane(settings: Settings, report: Report) -> None:
    if not settings.backplane:
        return
    address = parse_address(settings.backplane)
    report.lines += ["Backplane", f"  Redis at {address}, database {address.database}: {_describe_protection(address)}"]
    is_local = all(is_loopback(host) or host == "localhost" for host in address.hosts)
    if not (address.path or address.is_tls or is_local):
        report.warnings.append(
            "backplane sends events and the password without encryption: use rediss:// or rediss+sentinel://"
        )


def _describe_protection(address: Address) -> str:
    return "Unix socket" if address.path else "TLS" if address.is_tls else "no TLS"


def _explain_webhooks(settings: Settings, report: Report) -> None:
    if not settings.webhook:
        return
    report.lines.append("Webhooks")
    for table in settings.webhook:
        channels = ", ".join("every channel outside $sys/" if text == ">" else text for text in table.channels)
        report.lines += [
            f"  {table.title}: {table.shown_url}",
            f"    channels: {channels}",
            f"    events: {', '.join(table.events)}",
            f"    queue: up to {table.queue_events:,} events and {table.queue_bytes / 2**20:,.1f} MiB",
        ]
        if not table.is_secure and not (is_loopback(table.host) or table.host == "localhost"):
            report.warnings.append(f"webhook {table.title} sends events without encryption: use https")
    try:
        report.warnings += [target.warning for target in read_targets(settings.webhook) if target.warning]
    except WebhookError as error:
        report.errors.append(str(error))


def _check_inline_secrets(settings: Settings, file: str, report: Report) -> None:
    """Warn of secrets in the configuration file itself, if other users can read it."""
    found = []
    if any(table.secret is not None for table in settings.webhook):
        found.append("the secret of a webhook: chmod 600, or use secret-file")
    if has_password(settings.backplane):
        found.append("the password of Redis: chmod 600, or use backplane-password-file")
    if os.stat(file).st_mode & 0o077:
        report.warnings += [f"users other than the owner can read {file}, which contains {secret}" for secret in found]


def _explain_memory(settings: Settings, planned: list[PlannedListener]) -> list[str]:
    maximum = estimate_memory(settings, any(listener.is_secure for listener in planned))
    parts = {
        f"{settings.max_connections:,} connections": maximum.connections,
        "their buffers": maximum.buffered,
        "history": maximum.history,
        f"{settings.max_channels:,} channels": maximum.channels,
        "subscriptions": maximum.subscriptions,
        "the process": maximum.process,
    }
    shown = ", ".join(f"{size / 2**20:,.0f} for {name}" for name, size in parts.items())
    lines = ["Memory", f"  at most {maximum.total / 2**20:,.0f} MiB if all limits are reached at once: {shown}"]
    if settings.workers > 1:
        lines.append(f"  up to {settings.workers} times this, for each worker, and the history once more in the hub")
    return lines


def _warn_of_risks(settings: Settings, access: AccessTable, planned: list[PlannedListener], report: Report) -> None:
    at_listener: Mapping[str, dict[str, str] | None] = {one.endpoint: one.allow for one in access.listener}
    for listener in planned:
        allow = at_listener.get(listener.endpoint)
        has_remote_clients = listener.is_public or listener.has_proxy
        if has_remote_clients and _can_publish_everywhere(access.anonymous if allow is None else allow):
            report.warnings.append(f"{listener.endpoint} lets clients without a token publish on every channel")
        if listener.is_public and not listener.is_secure and access.key:
            report.warnings.append(
                f"{listener.endpoint} receives tokens without encryption: use ssl:, or let only a proxy connect to it"
            )
    if not access.expiry_required:
        report.warnings.append("expiry-required = false: revoking a token that never expires requires a new key")
    has_identities = bool(access.key) or any(listener.requires_certificate for listener in planned)
    if not has_identities and access.subject:
        report.warnings.append("the rights of subjects have no effect: configure a key or a client-ca")
    if not (access.key or access.anonymous or any(at_listener.values()) or (has_identities and access.subject)):
        report.warnings.append("no client has any rights: configure anonymous, a key or a listener")
    if settings.allow_insecure:
        report.warnings.append("allow-insecure has no effect with [access]: remove it")


def _describe_rights(allow: Mapping[str, str]) -> str:
    parts = []
    for rights, description in RIGHTS.items():
        names = ["every channel" if text == ">" else text for text, granted in allow.items() if granted == rights]
        if names:
            parts.append(f"{description} {', '.join(names)}")
    return "; ".join(parts) or "nothing"


def _can_publish_everywhere(allow: Mapping[str, str]) -> bool:
    granted = grants(allow)
    return all(granted.on(probe) & Right.WRITE for probe in PROBES)
