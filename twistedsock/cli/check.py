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
from twistedsock.config import Settings, SettingsError, listeners, read_settings
from twistedsock.limits.principal import is_loopback
from twistedsock.webhooks.config import WebhookError, read_targets

SUMMARY = "explain a configuration file: who can do what, and what is risky"

DESCRIPTION = """\
Reads a configuration file as the server does, without opening a port, and shows
what each client can do, what is risky, and how much memory the limits allow.
The exit status is 0 if the server would start with the file, and 1 if not."""

EXAMPLE = "  sockbridge check /etc/sockbridge.toml"

WAYS = {"r": "read", "w": "publish on", "rw": "read and publish on"}

PROBES = (b"q", b"q.w/e:r")
"""If all these are matched, everything is, as far as people would write it."""


class _Recorder:
    """In the place of a reactor: notes where an endpoint would listen."""

    where = ""
    host = ""

    def listenTCP(self, port: int, factory: object, backlog: int = 0, interface: str = "") -> None:
        self.host = interface or "0.0.0.0"
        self.where = f"{interface or 'every address'}, port {port}"

    def listenSSL(
        self, port: int, factory: object, contextFactory: object, backlog: int = 0, interface: str = ""
    ) -> None:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: object, **how: Any) -> None:
        self.where = address


class Door(msgspec.Struct, frozen=True):
    """A listener as it would be. ``reach`` says who can connect."""

    kind: str
    endpoint: str
    reach: str
    is_public: bool
    is_secure: bool
    asks_for_certificates: bool
    has_proxy: bool
    """Whether a trusted proxy may bring others in."""


class Report(msgspec.Struct):
    """What is said, besides what would keep a bridge from starting, and what is dangerous."""

    lines: list[str]
    faults: list[str]
    dangers: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the configuration file (TOML)")


def run(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Print the report and return the exit status."""
    try:
        settings = read_settings(given.config, {})
    except SettingsError as error:
        print(f"sockbridge check: {error}", file=errors)
        return 1
    report = look_at(settings, time.time())
    _look_at_secrets(settings, given.config, report)
    for line in report.lines:
        print(line, file=out)
    for title, sentences in (("Dangers", report.dangers), ("A bridge would not start", report.faults)):
        if sentences:
            print(f"\n{title}", *(f"  {sentence}" for sentence in sentences), sep="\n", file=out)
    return 1 if report.faults else 0


def look_at(settings: Settings, now: float) -> Report:
    """All there is to say about some settings."""
    report = Report([], [], [])
    doors = [
        *_doors("lines", settings, settings.tcp, now, report),
        *_doors("web", settings, settings.web, now, report),
    ]
    report.lines += ["Listeners", *(f"  {_door(door)}" for door in doors), *([] if doors else ["  none"])]
    if settings.access is None:
        _without_policy(settings, doors, report)
        _webhooks(settings, report)
        report.lines += _memory(settings, doors)
        return report
    policy: TablePolicy | None = None
    try:
        policy = build_policy(settings.access, lambda: now)
    except AccessError as error:
        report.faults.append(str(error))
    _rights(settings.access, doors, report)
    _proofs(settings.access, policy, report)
    _webhooks(settings, report)
    report.lines += _memory(settings, doors)
    _dangers(settings, settings.access, doors, report)
    return report


def _doors(kind: str, settings: Settings, endpoints: tuple[str, ...], now: float, report: Report) -> list[Door]:
    # These load Twisted, without which the other commands start in no time.
    from twisted.internet.protocol import Factory

    from twistedsock.listeners import parse_endpoint
    from twistedsock.server.tls import TLSEndpoint

    found = []
    for endpoint in listeners(endpoints):
        authorities = None if settings.access is None else settings.access.client_ca(endpoint)
        has_proxy = bool(settings.trusted_proxy) and (kind == "web" or endpoint in settings.proxy_protocol)
        recorder = _Recorder()
        if endpoint.startswith("systemd:"):
            found.append(Door(kind, endpoint, "where the socket unit of systemd says", False, False, False, has_proxy))
            continue
        try:
            parsed = parse_endpoint(endpoint, recorder, authorities)
            parsed.listen(Factory())
        except SettingsError as error:
            report.faults.append(str(error))
            continue
        worry = parsed.certificates.expiry_warning(now) if isinstance(parsed, TLSEndpoint) else None
        if worry is not None:
            report.dangers.append(worry)
        is_public = recorder.host != "" and not is_loopback(recorder.host)
        reach = "other machines can reach it" if is_public else "only this machine can reach it"
        if recorder.host == "":
            reach = "its file rights say who can reach it"
        secure = endpoint.startswith("ssl:")
        reach = f"{recorder.where}; {reach}"
        found.append(Door(kind, endpoint, reach, is_public, secure, authorities is not None, has_proxy))
    return found


def _door(door: Door) -> str:
    words = [f"{door.kind} on {door.reach}"]
    if door.has_proxy:
        words.append("and a trusted proxy brings others")
    words.append("TLS" if door.is_secure else "no TLS")
    if door.asks_for_certificates:
        words.append("clients need a certificate")
    return ", ".join(words)


def _without_policy(settings: Settings, doors: list[Door], report: Report) -> None:
    report.lines += ["Who may do what", "  everybody: everything, as there is no [access]"]
    if settings.trusted_proxy:
        if settings.allow_insecure:
            report.dangers.append("whoever comes through a trusted-proxy may do everything, as allow-insecure = true")
        else:
            report.faults.append(
                "trusted-proxy would let other machines in, and nobody is asked who they are: say who may do what "
                "under [access], or allow-insecure = true if that is meant"
            )
    for door in doors:
        if not door.is_public:
            continue
        if settings.allow_insecure:
            report.dangers.append(f"whoever reaches {door.endpoint} may do everything, as allow-insecure = true")
        else:
            report.faults.append(
                f"{door.endpoint} would let other machines in, and nobody is asked who they are: say who may do what "
                "under [access], or allow-insecure = true if that is meant"
            )


def _rights(access: AccessTable, doors: list[Door], report: Report) -> None:
    report.lines += ["Who may do what", f"  without a token: {_allowed(access.anonymous)}"]
    for listener in access.listener:
        if listener.allow is not None:
            report.lines.append(f"  without a token, at {listener.endpoint}: {_allowed(listener.allow)}")
    if access.key:
        report.lines.append("  with a token: that, and what its claim channels says; with admin in it, everything")
    if any(door.asks_for_certificates for door in doors):
        report.lines.append("  with a certificate: that, and what is said of its common name")
    for subject in access.subject:
        report.lines.append(f"  {subject.name}, by token or certificate: also {_allowed(subject.allow)}")


def _proofs(access: AccessTable, policy: TablePolicy | None, report: Report) -> None:
    report.lines.append("Keys")
    for told in access.key:
        key = policy.keys[told.id] if policy is not None else None
        words = f"  {told.id}: {told.algorithm}, {told.file}"
        report.lines.append(words + (f", fingerprint {key.fingerprint[:8]}" if key is not None else ""))
    if not access.key:
        report.lines.append("  none, so no token is taken")
        return
    report.lines += [
        "Tokens",
        f"  {'must expire' if access.expiry_required else 'may be without an end'}; {access.leeway:g} s of leeway; "
        + (f"for the audience {access.audience}" if access.audience else "without an audience")
        + (f"; also in the cookie {access.cookie}" if access.cookie else ""),
    ]
    if policy is not None:
        report.dangers += policy.warnings


def _webhooks(settings: Settings, report: Report) -> None:
    if not settings.webhook:
        return
    report.lines.append("Webhooks")
    for table in settings.webhook:
        channels = ", ".join("every channel but the server's own" if text == ">" else text for text in table.channels)
        report.lines += [
            f"  {table.title}: tells {table.shown_url}",
            f"    of {channels}: {', '.join(table.events)}",
            f"    up to {table.queue_events:,} events, or {table.queue_bytes / 2**20:,.1f} MiB, wait for it",
        ]
        if not table.is_secure and not (is_loopback(table.host) or table.host == "localhost"):
            report.dangers.append(f"what webhook {table.title} tells travels in clear: use https")
    try:
        report.dangers += [target.warning for target in read_targets(settings.webhook) if target.warning]
    except WebhookError as error:
        report.faults.append(str(error))


def _look_at_secrets(settings: Settings, file: str, report: Report) -> None:
    """Those that stand in the file of options itself."""
    if any(table.secret is not None for table in settings.webhook) and os.stat(file).st_mode & 0o077:
        report.dangers.append(
            f"others than its owner can read {file}, and the secret of a webhook in it: chmod 600, or use secret-file"
        )


def _memory(settings: Settings, doors: list[Door]) -> list[str]:
    most = estimate_memory(settings, any(door.is_secure for door in doors))
    parts = {
        f"{settings.max_connections:,} connections": most.connections,
        "what they hold": most.held,
        "logs": most.logs,
        f"{settings.max_channels:,} channels": most.channels,
        "subscriptions": most.subscriptions,
        "the process itself": most.process,
    }
    shown = ", ".join(f"{size / 2**20:,.0f} for {name}" for name, size in parts.items())
    return ["Memory", f"  at most {most.total / 2**20:,.0f} MiB, with every limit reached at once: {shown}"]


def _dangers(settings: Settings, access: AccessTable, doors: list[Door], report: Report) -> None:
    at_listener: Mapping[str, dict[str, str] | None] = {one.endpoint: one.allow for one in access.listener}
    for door in doors:
        allow = at_listener.get(door.endpoint)
        strangers = door.is_public or door.has_proxy
        if strangers and _publishes_everywhere(access.anonymous if allow is None else allow):
            report.dangers.append(f"whoever reaches {door.endpoint} may publish on every channel without a token")
        if door.is_public and not door.is_secure and access.key:
            report.dangers.append(f"tokens travel to {door.endpoint} in clear: use ssl:, or let only a proxy reach it")
    if not access.expiry_required:
        report.dangers.append("a token without an end can be taken back only with its key: expiry-required = false")
    may_prove = bool(access.key) or any(door.asks_for_certificates for door in doors)
    if not may_prove and access.subject:
        report.dangers.append("nobody can prove to be one of the subjects: there is no key, and no client-ca")
    if not (access.key or access.anonymous or any(at_listener.values()) or (may_prove and access.subject)):
        report.dangers.append("nobody may do anything: there is no key, and nothing is said of those without a token")
    if settings.allow_insecure:
        report.dangers.append(
            "allow-insecure = true is not needed with [access], and would let all in if that went away"
        )


def _allowed(allow: Mapping[str, str]) -> str:
    """In words, what may be read only first."""
    parts = []
    for rights, way in WAYS.items():
        names = ["every channel" if text == ">" else text for text, told in allow.items() if told == rights]
        if names:
            parts.append(f"{way} {', '.join(names)}")
    return "; ".join(parts) or "nothing"


def _publishes_everywhere(allow: Mapping[str, str]) -> bool:
    granted = grants(allow)
    return all(granted.on(probe) & Right.WRITE for probe in PROBES)
