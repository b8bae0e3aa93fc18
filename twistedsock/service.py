"""Builds the bridge and its listeners; starts them, and lets the peers go in peace when they stop."""

import random
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from twistedsock.auth.keys import AccessError
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.auth.policy import TablePolicy, build_policy
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.config import NO_POLICY, Settings, SettingsError, listeners, trusted_proxies
from twistedsock.errors import CloseReason
from twistedsock.limits.principal import is_loopback
from twistedsock.metrics.statistics import ProcessStatistics
from twistedsock.metrics.sys_channels import TICK_SECONDS, Monitor
from twistedsock.pubsub.values import Lost
from twistedsock.server.accept_errors import install_accept_backoff
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.listeners import EndpointError, Listener, parse_endpoint
from twistedsock.server.proxy_protocol import expect_proxy_headers
from twistedsock.server.sockets import ListenerConfig, host_of, prepare_listening_socket
from twistedsock.server.tcp import LineFactory
from twistedsock.server.tls import CertificateError, Certificates, LoadedCertificate
from twistedsock.server.transport import Reachability, install_direct_writes
from twistedsock.server.twisted_internals import install_half_close_tls
from twistedsock.server.web import WebFactory
from twistedsock.session.registry import ServerContext, build_context
from twistedsock.webhooks.config import WebhookError, WebhookTarget, read_targets
from twistedsock.webhooks.manager import WebhookManager

SWEEP_SECONDS = 5.0
"""How often silent channels are looked at, for what has become too old."""

NO_POLICY_ANY_LONGER = (
    "the file does not say any longer who may do what, under [access]; if everybody shall do everything, restart"
)
"""A file that is half written, or emptied by a full disk, must open no door."""

READ_AGAIN = ("allow_origin", "allow_host", "access", "webhook")
"""The settings that ``reload`` changes; the others take a restart."""

RELOAD_PAUSE_SECONDS = 0.5
"""Between two reloads: each reads files and looks at every session, and signals can come by the hundred."""

EXPIRY_SECONDS = 1.0
"""How often tokens that have run out are looked for: they count in seconds."""

_ID_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"

_ID_LENGTH = 5
"""31 letters that cannot be mistaken for each other: 28 million ids, so that two draws hardly ever meet."""

_ID_LENGTH_WITH_POLICY = 10
"""Where nicks are vouched for, nobody must become somebody's namesake by drawing ids until one is that name."""


class StartFailed(SystemExit, Exception):
    """The bridge cannot start; its text is one sentence. As a SystemExit it ends the process without a traceback, as an
    Exception it passes twistd's own tidying up (pid file, word to the waiting parent) on the way."""

    # Of a daemon's error twistd shows 100 bytes, this name first: without its module the reason is still among them.
    __module__ = "builtins"

    def __init__(self, words: str) -> None:
        super().__init__(words)
        # What Python says at the end goes to the log by now: twistd has put it in the place of stderr.
        if sys.stderr is not sys.__stderr__:
            print(words, file=sys.__stderr__)


def draw_id(length: int = _ID_LENGTH) -> bytes:
    """A name for a peer. Chance is asked once, as each time is a system call."""
    number = secrets.randbelow(len(_ID_LETTERS) ** length)
    letters = []
    for _ in range(length):
        number, letter = divmod(number, len(_ID_LETTERS))
        letters.append(_ID_LETTERS[letter])
    return "".join(letters).encode()


def draw_epoch() -> bytes:
    """A name for a run of numbers."""
    return secrets.token_hex(4).encode()


def read_policy(settings: Settings) -> TablePolicy | None:
    """Who may do what, by the settings; None where all may do everything. SettingsError if a key cannot be used."""
    if settings.access is None:
        return None
    try:
        return build_policy(settings.access, time.time)
    except AccessError as error:
        raise SettingsError(str(error)) from None


def read_webhooks(settings: Settings) -> list[WebhookTarget]:
    """Whom the bridge tells what happens, by the settings. SettingsError if one of their files cannot be used."""
    try:
        return read_targets(settings.webhook)
    except WebhookError as error:
        raise SettingsError(str(error)) from None


class BridgeService(Service):
    """The whole server. ``reactor`` gives time, endpoints and turns. ``read_again`` gives the settings as they are told
    by now, or raises SettingsError."""

    name = "sockbridge"
    log_observer: Any = None
    """Who writes the log instead of twistd's own."""
    _log = Logger()

    def __init__(
        self, settings: Settings, reactor: Any, version: str, read_again: Callable[[], Settings] | None = None
    ) -> None:
        self._settings = settings
        self._read_again = read_again or (lambda: settings)
        self._reactor = reactor
        backplane = MemoryBackplane(draw_epoch)
        self.context: ServerContext = build_context(
            backplane, settings, version, reactor.seconds, self._schedule, self._draw_id, time.time
        )
        self.context.policy = read_policy(settings)
        backplane.attach(self.context.broker)
        self.context.broker.report_gap = self._log_break
        self.webhooks = WebhookManager(
            self.context.broker.observers,
            reactor,
            version,
            time.time,
            lambda: secrets.token_hex(16),
            random.random,
            self.context.broker.owner_of,
        )
        self.webhooks.configure(read_webhooks(settings))
        self._sweep = LoopingCall(self.context.broker.expire_histories)
        self._sweep.clock = reactor
        self._reachability = Reachability(settings.unreachable_timeout, self.context.broker.scheduler.defer)
        self._checks = LoopingCall(self._check_reachability)
        self._checks.clock = reactor
        process = ProcessStatistics()
        self._monitor = Monitor(self.context, process.memory_bytes, process.cpu_seconds)
        self._monitor.attach()
        self._figures = LoopingCall(self._tell_figures)
        self._figures.clock = reactor
        self._expiries = LoopingCall(self._look_at_expiries)
        self._expiries.clock = reactor
        self._patience: Any = None
        # A reload is under way; another has been asked for; sessions are being reviewed by a new policy.
        self._reloading = self._reload_asked = self._reviewing = False
        self._next_reload: Any = None
        self._stop_by = 0.0
        self._gate = OriginPolicy(AllowedOrigins(settings.allow_origin, settings.allow_host))
        self._routes = Routes(
            build_routes(
                self.context, reactor, self.line_ports, lambda: self.webhooks.statistics, settings.ping_interval
            )
        )
        self._trusted = trusted_proxies(settings)
        self.lines = self._listeners(settings.tcp, self._line_factory)
        self.web = self._listeners(settings.web, self._web_factory)

    def setServiceParent(self, parent: Any) -> None:
        """Twistd asks the application for who writes its log, before it begins to log."""
        super().setServiceParent(parent)
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)

    def privilegedStartService(self) -> None:
        """Open the ports: before twistd gives up its rights, and before it says that it has started."""
        super().privilegedStartService()
        for listener in [*self.lines, *self.web]:
            failures: list[Failure] = []
            listening = listener.endpoint.listen(listener.factory)
            listening.addCallbacks(lambda port, listener=listener: self._opened(listener, port), failures.append)
            for failure in failures:
                self._fail(listener, failure)
        self._check_reach()
        if self.web:
            page = self.web[0].page_address()
            for listener in self.lines:
                listener.factory.web_address = page

    def startService(self) -> None:
        super().startService()
        self._sweep.start(SWEEP_SECONDS, now=False).addErrback(
            lambda failure: self._log.failure("sweeping the channels failed", failure)
        )
        self._expiries.start(EXPIRY_SECONDS, now=False)
        self._figures.start(TICK_SECONDS, now=False)
        if self._reachability.interval:
            self._checks.start(self._reachability.interval, now=False)
        for words in self.hints():
            self._log.info("{words}", words=words)
        self._warn_of_certificates()
        self._warn_of_keys()
        self._warn_of_webhooks()

    def stopService(self) -> Deferred[None]:
        """Accept no more, tell everybody, and wait until all have gone, or for ``shutdown_timeout`` seconds."""
        super().stopService()
        self.context.draining = True
        self._stop_by = self._reactor.seconds() + self._settings.shutdown_timeout
        self._log_wait(self._connected(), "client", "to disconnect")
        self.webhooks.drain(self._settings.shutdown_timeout)
        for repeated in (self._sweep, self._expiries, self._figures, self._checks):
            if repeated.running:
                repeated.stop()
        ports = [listener.port for listener in [*self.lines, *self.web] if listener.port is not None]
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        gone = closed.addCallback(lambda result: self._dismiss_all())
        return gone.addCallback(lambda nothing: self._end_webhooks())

    def reload(self) -> None:
        """Read the options, the access policy and the certificates again, and drop nobody. Where the options cannot be
        used, nothing changes; where a certificate cannot, that one stays. All of it is logged."""
        try:
            settings = self._read_again()
            if words := self._too_open(settings):
                raise SettingsError(words)
            if self.context.policy is not None and settings.access is None:
                raise SettingsError(NO_POLICY_ANY_LONGER)
            settings = self._with_unlisted(settings)
            fresh = self._read_certificates(settings)
            targets = read_webhooks(settings)
            self._apply_access(settings)
        except SettingsError as error:
            self._log.warn("nothing was read again, all stays as it was: {words}", words=str(error))
            return
        before = self._settings
        self._settings = msgspec.structs.replace(before, **{name: getattr(settings, name) for name in READ_AGAIN})
        self._gate.origins = AllowedOrigins(settings.allow_origin, settings.allow_host)
        for certificates, reading in fresh:
            certificates.replace(reading)
        self.webhooks.configure(targets)
        self._warn_of_webhooks()
        read = dict.fromkeys(f"the certificate {certificates.description}" for certificates, _ in fresh)
        self._log.info("read again: {read}", read=", ".join(["the options", *read]))
        others = [field for field in msgspec.structs.fields(Settings) if field.name not in READ_AGAIN]
        changed = [one.encode_name for one in others if getattr(settings, one.name) != getattr(before, one.name)]
        if changed:
            self._log.warn("needs a restart: {names}", names=", ".join(changed))
        self._warn_of_certificates()

    def ask_to_reload(self) -> None:
        """Reload now, or, if the last reload was a moment ago or is still being applied to sessions, after that: so
        requests in quick succession become one."""
        self._reload_asked = True
        if not self._reloading:
            self._reload_if_asked()

    def _reload_if_asked(self) -> None:
        self._reloading = self._reload_asked
        if self._reloading:
            self._reload_asked = False
            try:
                self.reload()
            finally:
                if not self._reviewing:
                    self._pause_reloads()

    def _reviewed(self) -> None:
        self._reviewing = False
        if self._reloading:
            self._pause_reloads()

    def _pause_reloads(self) -> None:
        """A reload has been applied. Sessions may have been reviewed within it, and then this is called twice."""
        if self._next_reload is None or not self._next_reload.active():
            self._next_reload = self._reactor.callLater(RELOAD_PAUSE_SECONDS, self._reload_if_asked)

    def _with_unlisted(self, settings: Settings) -> Settings:
        """Other settings, and what was said of endpoints that are not listed there: they listen on until the restart,
        and must not be opened to more than before by what everybody may elsewhere."""
        before, access = self._settings.access, settings.access
        if before is None or access is None:
            return settings
        unlisted = {listener.description for listener in [*self.lines, *self.web]} - {*settings.tcp, *settings.web}
        kept = tuple(listener for listener in before.listener if listener.endpoint in unlisted)
        return msgspec.structs.replace(
            settings, access=msgspec.structs.replace(access, listener=access.listener + kept)
        )

    def _apply_access(self, settings: Settings) -> None:
        """Let the policy of other settings hold; SettingsError if there is something wrong with it."""
        policy = read_policy(settings)
        try:
            self._reviewing = True
            self.context.change_policy(policy, self._reviewed)
        except Exception:  # of single peers; the policy holds all the same
            self._log.failure("not every peer could be reviewed")
        self._warn_of_keys()

    def _tell_figures(self) -> None:
        try:
            self._monitor.tick()
        except Exception:  # an end of the loop would be the end of the figures
            self._log.failure("the figures could not be told")

    def _check_reachability(self) -> None:
        try:
            self._reachability.check()
        except Exception:  # an end of the loop would keep all connections whose machines are gone
            self._log.failure("not every connection could be checked for an answer")

    def _log_break(self, channel: bytes, lost: Lost | None) -> None:
        """Called once for each break in what the backplane delivers, however many subscribers are told."""
        name = channel.decode()
        if lost is None:
            self._log.warn(
                "the backplane numbers the events of {channel} anew: its readers must reconnect", channel=name
            )
        else:
            self._log.warn(
                "the backplane has skipped events {first} to {last} of {channel}: its readers are told LOST",
                first=lost.first,
                last=lost.last,
                channel=name,
            )

    def _look_at_expiries(self) -> None:
        try:
            self.context.expiry_watcher.check()
        except Exception:  # an end of the loop would let all later tokens last for ever
            self._log.failure("not every peer could be told that its token runs out")

    def _warn_of_keys(self) -> None:
        policy = self.context.policy
        for words in policy.warnings if isinstance(policy, TablePolicy) else ():
            self._log.warn("{words}", words=words)

    def _warn_of_webhooks(self) -> None:
        for words in self.webhooks.warnings:
            self._log.warn("{words}", words=words)

    def _draw_id(self) -> bytes:
        return draw_id(_ID_LENGTH if self.context.policy is None else _ID_LENGTH_WITH_POLICY)

    def _read_certificates(self, settings: Settings) -> list[tuple[Certificates, LoadedCertificate]]:
        """Read them again; gives those that could be read. SettingsError where a listener is to ask its clients for
        other certificates than before, and cannot: the new policy may count on it."""
        read = []
        for listener in [*self.lines, *self.web]:
            certificates = listener.certificates
            if certificates is None:
                continue
            # An endpoint that is not listed any longer listens on until the restart, and asks what it asked.
            listed = listener.description in settings.tcp + settings.web
            authorities = _authorities(settings, listener.description) if listed else certificates.authorities
            try:
                read.append((certificates, certificates.load(authorities)))
            except CertificateError as error:
                if authorities != certificates.authorities:
                    raise SettingsError(f"the clients of {listener.description}: {error}") from None
                self._log.warn(
                    "the certificate of {endpoint} stays as it was: {words}",
                    endpoint=listener.description,
                    words=str(error),
                )
        return read

    def _warn_of_certificates(self) -> None:
        used = [listener.certificates for listener in [*self.lines, *self.web]]
        worries = [certificates.expiry_warning(time.time()) for certificates in used if certificates is not None]
        for words in dict.fromkeys(worries):
            if words is not None:
                self._log.warn("{words}", words=words)

    def hurry(self) -> None:
        """While it stops: wait no longer for those who have not left."""
        self.webhooks.abort()
        if self._patience is not None and self._patience.active():
            self._patience.reset(0)

    def _end_webhooks(self) -> Deferred[Any]:
        queued = sum(statistics.queued for statistics in self.webhooks.statistics.values())
        self._log_wait(queued, "webhook event", "to be delivered")
        return self.webhooks.stop()

    def _connected(self) -> int:
        """How many clients have a session or an HTTP request that is not answered yet."""
        return len(self.context.sessions) + sum(listener.factory.site.running_requests for listener in self.web)

    def _log_wait(self, count: int, noun: str, event: str) -> None:
        """Log what a shutdown waits for, and how to end the wait: it would look like a hang otherwise."""
        seconds = self._stop_by - self._reactor.seconds()
        if count and seconds > 0:
            self._log.info(
                "stopping: waiting up to {seconds:.3g} s for {count} {noun} {event}; Ctrl-C or SIGTERM again stops now",
                seconds=seconds,
                count=count,
                noun=noun if count == 1 else f"{noun}s",
                event=event,
            )

    def _dismiss_all(self) -> Deferred[None]:
        try:
            self.context.close_all(CloseReason.GOING_AWAY, b"the server is going away")
        except Exception:  # whoever runs us would not tell
            self._log.failure("not every peer could be told that the server is going away")
        gone: Deferred[None] = Deferred()
        self._patience = patience = self._reactor.callLater(self._settings.shutdown_timeout, self._give_up, gone)

        waiting: set[object] = {self.context.sessions, *self.web}

        def is_gone(one: object) -> None:
            waiting.discard(one)
            if not waiting and patience.active():
                patience.cancel()
                gone.callback(None)

        for listener in self.web:
            listener.factory.site.shut_down(lambda listener=listener: is_gone(listener))
        self.context.sessions.when_empty(lambda: is_gone(self.context.sessions))
        return gone

    def _schedule(self, turn: Callable[[], None]) -> None:
        self._reactor.callLater(0, turn)

    def line_ports(self) -> list[dict[str, object]]:
        """Where lines are spoken, for the page."""
        return [listener.page_entry() for listener in self.lines]

    def hints(self) -> list[str]:
        """One line for each thing to try, with the real addresses."""
        return [listener.line_hint() for listener in self.lines] + [listener.web_hint() for listener in self.web]

    def _listeners(
        self, descriptions: tuple[str, ...], build_factory: Callable[[ListenerConfig], Any]
    ) -> list[Listener]:
        built = []
        for description in listeners(descriptions):
            authorities = _authorities(self._settings, description)
            try:
                endpoint = parse_endpoint(description, self._reactor, authorities)
            except EndpointError as error:
                raise SettingsError(str(error)) from None
            built.append(Listener(description, endpoint, build_factory(self._listening(description))))
        return built

    def _listening(self, description: str) -> ListenerConfig:
        return ListenerConfig(description, description in self._settings.proxy_protocol, self._trusted)

    def _line_factory(self, listening: ListenerConfig) -> LineFactory:
        return LineFactory(self.context, self._reactor, self._settings.send_buffer_bytes, listening=listening)

    def _web_factory(self, listening: ListenerConfig) -> WebFactory:
        settings = self._settings
        return WebFactory(
            self.context,
            self._reactor,
            self._gate,
            settings.send_buffer_bytes,
            settings.ping_interval,
            settings.ping_timeout,
            self.line_ports,
            listening,
            self._routes,
        )

    def _opened(self, listener: Listener, port: IListeningPort) -> None:
        install_direct_writes(port, self.context.memory_budget, self._reachability)
        install_half_close_tls(port)
        prepare_listening_socket(port, self._settings.send_buffer_bytes, self._settings.unreachable_timeout)
        expect_proxy_headers(port, self._reactor, listener.factory.listening, self._settings.handshake_timeout)
        install_accept_backoff(port, self._reactor)
        listener.port = port

    def _fail(self, listener: Listener, failure: Failure) -> None:
        error: Any = failure.value
        reason = error.socketError if isinstance(error, CannotListenError) else error
        words = getattr(reason, "strerror", None) or str(reason)
        raise StartFailed(f"sockbridge: cannot listen on {listener.description}: {words}")

    def _check_reach(self) -> None:
        if words := self._too_open(self._settings):
            raise StartFailed(f"sockbridge: {words}")

    def _too_open(self, settings: Settings) -> str | None:
        """Without a policy that says who may do what, only this machine may reach us, unless that is asked for."""
        if settings.allow_insecure or settings.access is not None:
            return None
        if settings.trusted_proxy:
            return f"trusted-proxy {NO_POLICY}"
        for listener in [*self.lines, *self.web]:
            host = host_of(listener.address) if listener.port is not None else ""
            if host and not is_loopback(host):
                return f"{listener.description} {NO_POLICY}"
        return None

    def _give_up(self, gone: Deferred[None]) -> None:
        self._log.info("clients that did not leave in time: {count}", count=self._connected())
        for listener in self.web:
            listener.factory.site.abort_unfinished()
        # The resets are sent in the next turn, before this.
        self._reactor.callLater(0, gone.callback, None)


def _authorities(settings: Settings, description: str) -> Path | None:
    """The file of those whose certificates the clients of an endpoint need, None where they need none."""
    return None if settings.access is None else settings.access.client_ca(description)
