"""Reload: reads the settings, the access policy, the webhooks and the certificates again while the server runs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.logger import Logger

from twistedsock.auth.identity import Policy
from twistedsock.auth.keys import AccessError
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.auth.policy import TablePolicy, build_policy
from twistedsock.config import NO_POLICY, Settings, SettingsError
from twistedsock.limits.principal import is_loopback
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.listeners import Listener
from twistedsock.server.sockets import host_of
from twistedsock.server.tls import CertificateError, Certificates, LoadedCertificate
from twistedsock.session.context import ServerContext
from twistedsock.webhooks.config import WebhookError, WebhookTarget, read_targets
from twistedsock.webhooks.manager import WebhookManager

RELOAD_PAUSE_SECONDS = 0.5
"""The pause after a reload, which reads files and checks every session. Signals can arrive by the hundred."""

RELOADED_SETTINGS = ("allow_origin", "allow_host", "channels", "access", "webhook")
"""The settings that a reload changes. The others require a restart."""

POLICY_REMOVED = "[access] was removed from the configuration file: restart the server to run without an access policy"
"""A file that is half written, or that a full disk has emptied, must not give all rights to every client."""


TWO_POLICIES = "[access] cannot be used: the program that runs the server has an access policy of its own"


def read_policy(settings: Settings) -> TablePolicy | None:
    """Return the access policy, or None without one. Raises SettingsError if a key is invalid."""
    if settings.access is None:
        return None
    try:
        return build_policy(settings.access, time.time)
    except AccessError as error:
        raise SettingsError(str(error)) from None


def read_webhooks(settings: Settings) -> list[WebhookTarget]:
    """Return the webhooks. Raises SettingsError if one of their files is invalid."""
    try:
        return read_targets(settings.webhook)
    except WebhookError as error:
        raise SettingsError(str(error)) from None


class ReloadScheduler:
    """Runs one reload at a time, and pauses after it. Requests meanwhile become one more reload.

    A reload ends when the new policy has been applied to all sessions, which can take several reactor turns: the
    caller reports that with ``review_started`` and ``review_finished``."""

    def __init__(self, reload: Callable[[], None], reactor: Any) -> None:
        self._reload = reload
        self._reactor = reactor
        self._is_busy = self._is_requested = self._is_reviewing = False
        self._pause: Any = None

    def request(self) -> None:
        """Reload now, or after the reload or the pause that is under way."""
        self._is_requested = True
        if not self._is_busy:
            self._reload_if_requested()

    def review_started(self) -> None:
        self._is_reviewing = True

    def review_finished(self) -> None:
        self._is_reviewing = False
        if self._is_busy:
            self._start_pause()

    def _reload_if_requested(self) -> None:
        self._is_busy = self._is_requested
        if self._is_busy:
            self._is_requested = False
            try:
                self._reload()
            finally:
                if not self._is_reviewing:
                    self._start_pause()

    def _start_pause(self) -> None:
        # A review that finishes within the reload has started it already.
        if self._pause is None or not self._pause.active():
            self._pause = self._reactor.callLater(RELOAD_PAUSE_SECONDS, self._reload_if_requested)


def client_authorities(settings: Settings, endpoint: str) -> Path | None:
    """Return the file of the authorities of client certificates, or None if the listener requires none."""
    return None if settings.access is None else settings.access.client_ca(endpoint)


class Reloader:
    """Reloads the configuration, and checks it when the server starts. ``settings`` are those of the start;
    ``read_settings`` returns the present ones, or raises SettingsError. ``listeners`` are all of the server. A reload
    does not replace a policy that is not from the settings: then ``has_own_policy`` is True."""

    _log = Logger()

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        settings: Settings,
        read_settings: Callable[[], Settings],
        listeners: Sequence[Listener],
        origin_policy: OriginPolicy,
        webhooks: WebhookManager,
        has_own_policy: bool,
    ) -> None:
        self._context = context
        self._settings = settings
        self._read_settings = read_settings
        self._listeners = listeners
        self._origin_policy = origin_policy
        self._webhooks = webhooks
        self._has_own_policy = has_own_policy
        self._scheduler = ReloadScheduler(lambda: self.reload(), reactor)

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return self._settings

    def request(self) -> None:
        """Reload soon. Several requests in quick succession become one reload."""
        self._scheduler.request()

    def reload(self) -> None:
        """Read the settings, the access policy, the webhooks and the certificates again. Connections stay open. If the
        settings are invalid, nothing changes. If a certificate is invalid, the old one stays. Logs the result."""
        try:
            settings = self._read_settings()
            if error := self.find_insecure_listener(settings):
                raise SettingsError(error)
            self._check_policy(settings)
            settings = self._keep_rights_of_unlisted(settings)
            certificates = self._read_certificates(settings)
            targets = read_webhooks(settings)
            policy = read_policy(settings)
        except SettingsError as error:
            self._log.warn("reload failed, configuration unchanged: {error}", error=str(error))
            return
        if not self._has_own_policy:
            self._apply_policy(policy)
        before = self._settings
        self._settings = self.with_reloaded(before, settings)
        self._origin_policy.origins = AllowedOrigins(settings.allow_origin, settings.allow_host)
        for used, loaded in certificates:
            used.replace(loaded)
        self._webhooks.configure(targets)
        reloaded = dict.fromkeys(f"certificate {used.description}" for used, _ in certificates)
        self._log.info("reloaded: {parts}", parts=", ".join(["configuration", *reloaded]))
        others = [field for field in msgspec.structs.fields(Settings) if field.name not in RELOADED_SETTINGS]
        changed = [one.encode_name for one in others if getattr(settings, one.name) != getattr(before, one.name)]
        if changed:
            self._log.warn("restart required to change: {names}", names=", ".join(changed))
        self.log_warnings()

    @staticmethod
    def with_reloaded(before: Settings, settings: Settings) -> Settings:
        """The settings after a reload of others: those that it does not change are kept."""
        return msgspec.structs.replace(before, **{name: getattr(settings, name) for name in RELOADED_SETTINGS})

    def find_insecure_listener(self, settings: Settings) -> str | None:
        """Return an error if other machines can connect although there is no access policy."""
        if settings.allow_insecure or settings.access is not None or self._has_own_policy:
            return None
        if settings.trusted_proxy:
            return f"trusted-proxy {NO_POLICY}"
        for listener in self._listeners:
            host = host_of(listener.address) if listener.port is not None else ""
            if host and not is_loopback(host):
                return f"{listener.description} {NO_POLICY}"
        return None

    def log_warnings(self) -> None:
        """Log what is wrong with certificates, keys and webhooks, although the server can use them."""
        for warning in (*self._key_warnings(), *self._webhooks.warnings, *self._certificate_warnings()):
            self._log.warn("{warning}", warning=warning)

    def change_policy(self, policy: Policy) -> None:
        """Replace the policy by one that is not from the settings, and check all clients again."""
        self._has_own_policy = True
        self._apply_policy(policy)

    def _check_policy(self, settings: Settings) -> None:
        """Raise SettingsError if these settings would remove the policy, or add a second one."""
        if self._has_own_policy and settings.access is not None:
            raise SettingsError(TWO_POLICIES)
        if not self._has_own_policy and self._context.policy is not None and settings.access is None:
            raise SettingsError(POLICY_REMOVED)

    def _keep_rights_of_unlisted(self, settings: Settings) -> Settings:
        """Return the settings with the old rights of listeners that were removed from the file. They stay open until a
        restart, and must not fall back to other rights."""
        before, access = self._settings.access, settings.access
        if before is None or access is None:
            return settings
        unlisted = {listener.description for listener in self._listeners} - {*settings.tcp, *settings.web}
        kept = tuple(listener for listener in before.listener if listener.endpoint in unlisted)
        access = msgspec.structs.replace(access, listener=access.listener + kept)
        return msgspec.structs.replace(settings, access=access)

    def _read_certificates(self, settings: Settings) -> list[tuple[Certificates, LoadedCertificate]]:
        """Read the certificates again, and return the valid ones. Raises SettingsError if a listener cannot use a new
        file of client authorities, because the new policy may depend on it."""
        read = []
        for listener in self._listeners:
            certificates = listener.certificates
            if certificates is None:
                continue
            # A listener that was removed from the file stays open until a restart, with its old authorities.
            listed = listener.description in settings.tcp + settings.web
            authorities = client_authorities(settings, listener.description) if listed else certificates.authorities
            try:
                read.append((certificates, certificates.load(authorities)))
            except CertificateError as error:
                if authorities != certificates.authorities:
                    raise SettingsError(f"client-ca of {listener.description}: {error}") from None
                self._log.warn(
                    "certificate of {endpoint} unchanged: {error}", endpoint=listener.description, error=str(error)
                )
        return read

    def _apply_policy(self, policy: Policy | None) -> None:
        try:
            self._scheduler.review_started()
            self._context.change_policy(policy, self._scheduler.review_finished)
        except Exception:  # about single sessions: the policy has changed nevertheless
            self._log.failure("checking the rights of connected clients failed")

    def _certificate_warnings(self) -> list[str]:
        used = [listener.certificates for listener in self._listeners]
        warnings = [certificates.expiry_warning(time.time()) for certificates in used if certificates is not None]
        return [warning for warning in dict.fromkeys(warnings) if warning is not None]

    def _key_warnings(self) -> tuple[str, ...]:
        policy = self._context.policy
        return policy.warnings if isinstance(policy, TablePolicy) else ()
