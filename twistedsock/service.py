"""The server: builds all parts from the settings, starts them, and drains connections when it stops. This is also the
API for programs that embed the server."""

import random
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version as version_of
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from twistedsock.auth.identity import Policy
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.backplane_builder import ID_LENGTH, State, build_redis, draw_epoch, draw_id
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.backplanes.reserved import ReservedChannelsBackplane
from twistedsock.bridge.api import Bridge
from twistedsock.bridge.observers import BridgeObserver
from twistedsock.config import Settings, SettingsError, listeners, read_settings, trusted_proxies
from twistedsock.endpoints import load_endpoints
from twistedsock.errors import Error
from twistedsock.limits.shared_counts import KeepsCounts, SharedCounts
from twistedsock.metrics.processes import PAGES, STATISTICS, OtherProcesses, StatisticsOfAll
from twistedsock.metrics.prometheus import StateStatistics
from twistedsock.metrics.statistics import ProcessStatistics
from twistedsock.metrics.sys_channels import TICK_SECONDS, Monitor
from twistedsock.pubsub.backplane import Backplane, SendsToNodes
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Lost
from twistedsock.reload import TWO_POLICIES, Reloader, client_authorities, read_policy, read_webhooks
from twistedsock.server.accept_errors import install_accept_backoff
from twistedsock.server.drain import Drain
from twistedsock.server.engineio import EngineEndpoint
from twistedsock.server.http.docs_site import built_docs, docs_files
from twistedsock.server.http.engineio import PollingRequests
from twistedsock.server.http.hosted import hosted_routes, own_segments
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.relay import Relay
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.listeners import EndpointError, Listener, PassedPort, adopt_port, parse_endpoint
from twistedsock.server.new_connections import NewConnections, limit_accepts, new_connections
from twistedsock.server.proxy_protocol import expect_proxy_headers
from twistedsock.server.resource import WebPortResource
from twistedsock.server.socketio import BrokerApplication
from twistedsock.server.sockets import ListenerConfig, prepare_listening_socket
from twistedsock.server.tcp import LineFactory
from twistedsock.server.transport import Reachability, install_direct_writes
from twistedsock.server.twisted_internals import install_half_close_tls, share_port
from twistedsock.server.web import WebFactory
from twistedsock.session.backplane_notices import BackplaneNotices
from twistedsock.session.context import ServerContext, build_context
from twistedsock.socketio.server import SocketIO, generate_id
from twistedsock.webhooks.manager import WebhookManager

SWEEP_SECONDS = 5.0
"""How often history that is too old is dropped from channels without new events."""

NOTICE_CHECK_SECONDS = 1.0
"""How often the server checks whether its backplane is away."""

EXPIRY_SECONDS = 1.0
"""How often expired tokens are looked for, which expire in whole seconds."""

_ID_LENGTH_WITH_POLICY = 10
"""With an access policy, a client must not be able to reconnect until its random id equals a verified nickname."""


class StartFailed(SystemExit, Exception):
    """The server cannot start. The message is one sentence. As a SystemExit, it ends the process without a traceback.
    As an Exception, it lets twistd clean up: remove the pid file, and notify the waiting parent process."""

    # twistd shows the first 100 bytes of a daemon's error, which begin with this name. Without the module, more of the
    # message is left.
    __module__ = "builtins"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Python would print the message to stderr, which twistd has redirected to the log.
        if sys.stderr is not sys.__stderr__:
            print(message, file=sys.__stderr__)


class LoggingService(Service):
    """The service that twistd starts. ``log_observer`` writes the log in place of twistd's own observer."""

    name = "sockbridge"
    log_observer: Any = None

    def setServiceParent(self, parent: Any) -> None:
        """twistd asks the application for its log observer before it begins to log."""
        super().setServiceParent(parent)
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)


class SockbridgeService(LoggingService):
    """The whole server. ``reactor`` provides time, endpoints and turns. ``read_settings`` returns the settings that the
    configuration file contains now, or raises SettingsError. ``ports`` are listening sockets that another process has
    opened, those of ``tcp`` first; it logs the hints. ``others`` are the other processes of this server. The remaining
    arguments are those of ``make_service``."""

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        version: str,
        read_settings: Callable[[], Settings] | None = None,
        *,
        policy: Policy | None = None,
        backplane: Backplane | None = None,
        observers: Iterable[BridgeObserver] = (),
        endpoints: Iterable[Any] = (),
        resources: Mapping[str, IResource] | None = None,
        socketio: SocketIO | None = None,
        ports: Sequence[PassedPort] | None = None,
        others: OtherProcesses | None = None,
    ) -> None:
        if policy is not None and settings.access is not None:
            raise SettingsError(TWO_POLICIES)
        self._settings = settings
        self._reactor = reactor
        self._passed_ports = None if ports is None else iter(ports)
        self._loops: list[tuple[float, LoopingCall]] = []
        self._endpoints = [*load_endpoints(settings.plugin), *endpoints]
        self._state_statistics: Callable[[], StateStatistics] | None = None
        if settings.state:
            if backplane is not None:
                raise SettingsError("state: the program has a backplane of its own")
            backplane = self._build_state(settings, reactor)
        elif settings.backplane:
            if backplane is not None:
                raise SettingsError("backplane: the program has a backplane of its own")
            backplane = redis = build_redis(settings, reactor)
            others = redis.gatherings
        own = MemoryBackplane(draw_epoch, time.time)
        self._backplane = own if backplane is None else ReservedChannelsBackplane(backplane, own)
        self._is_backplane_started = False
        self.context: ServerContext = build_context(
            self._backplane, settings, version, reactor.seconds, self._call_in_next_turn, self._draw_id, time.time
        )
        if isinstance(backplane, KeepsCounts):
            send_counts = backplane.send_counts
            backplane.counts = SharedCounts(self.context.connection_limiter, reactor.callLater, send_counts)
        self.context.policy = read_policy(settings) if policy is None else policy
        self.context.broker.report_gap = self._log_gap
        self.webhooks = WebhookManager(
            self.context.broker.observers,
            reactor,
            version,
            time.time,
            lambda: secrets.token_hex(16),
            random.random,
            self.context.broker.channels.owner_of,
        )
        self.webhooks.configure(read_webhooks(settings))
        self.bridge = Bridge(self.context)
        for observer in observers:
            self.bridge.observe(observer)
        process = ProcessStatistics()
        whole = None if others is None else StatisticsOfAll(others)
        monitor = Monitor(self.context, process.memory_bytes, process.cpu_seconds, whole)
        monitor.attach()
        if others is not None:
            others.reports |= {PAGES: monitor.report, STATISTICS: monitor.report_statistics}
        notices = BackplaneNotices(self.context)
        self._reachability = Reachability(settings.unreachable_timeout, self.context.broker.scheduler.defer)
        self._loops += [
            (SWEEP_SECONDS, self._loop(lambda: self.context.broker.expire_histories(), "dropping old history failed")),
            (EXPIRY_SECONDS, self._loop(lambda: self.context.expiry_watcher.check(), "checking token expiry failed")),
            (NOTICE_CHECK_SECONDS, self._loop(lambda: notices.check(), "notifying about the backplane failed")),
            (TICK_SECONDS, self._loop(lambda: monitor.tick(), "publishing the statistics failed")),
        ]
        if self._reachability.interval:
            check = self._loop(lambda: self._reachability.check(), "checking for unreachable clients failed")
            self._loops.append((self._reachability.interval, check))
        self._new_connections: NewConnections | None = None
        self._backplane_stopped: Deferred[None] | None = None
        self.origin_policy = OriginPolicy(AllowedOrigins(settings.allow_origin, settings.allow_host))
        relay = None
        if isinstance(backplane, SendsToNodes):
            relay = Relay(backplane, self.context.memory_budget, reactor.callLater, secrets.randbits(62))
        routes = build_routes(
            self.context,
            reactor,
            self.line_ports,
            lambda: self.webhooks.statistics,
            settings.ping_interval,
            self._state_statistics,
            monitor.journal,
            others,
            relay,
        )
        new_sid = generate_id if relay is None else lambda: relay.id_with_owner(generate_id())
        application: Any = socketio or BrokerApplication(self.context, reactor, settings.socketio_channel.encode())
        self._engine = EngineEndpoint(self.context, reactor, application, new_sid, application.engine_settings)
        routes += PollingRequests(self._engine, relay).routes()
        self._routes = Routes([*routes, *hosted_routes(resources or {}, own_segments(routes))])
        self._trusted = trusted_proxies(settings)
        self.lines = self._build_listeners(settings.tcp, self._line_factory)
        self.web = self._build_listeners(settings.web, self._web_factory)
        self._sites: list[HTTPSite] = [listener.factory.site for listener in self.web]
        # The connections of the broker's own application are closed with their sessions.
        close_engine = (lambda: None) if socketio is None else self._engine.close_all
        self._drain = Drain(self.context, reactor, settings.shutdown_timeout, self._sites, close_engine)
        documentation = docs_files(built_docs())
        for site in self._sites:
            site.files = {**site.files, **documentation}
        self.reloader = Reloader(
            self.context,
            reactor,
            settings,
            read_settings or (lambda: settings),
            self._listeners,
            self.origin_policy,
            self.webhooks,
            policy is not None,
        )

    def _build_state(self, settings: Settings, reactor: Any) -> Backplane:
        state = State(settings, reactor, lambda: self.reloader.settings)
        self._state_statistics = state.backplane.statistics
        self._loops.append((state.trim_seconds, self._loop(state.trim, "deleting old events from the state failed")))
        return state.backplane

    # Listeners.

    def line_ports(self) -> list[dict[str, object]]:
        """Return the listeners for lines, for the page."""
        return [listener.page_entry() for listener in self.lines]

    def hints(self) -> list[str]:
        """Return a line for each listener, with a command to try it."""
        return [listener.line_hint() for listener in self.lines] + [listener.web_hint() for listener in self.web]

    def resource(self) -> WebPortResource:
        """Return the web port as a resource for a ``Site`` of your own."""
        factory = self._web_factory(ListenerConfig(trusted=self._trusted))
        self._sites.append(factory.site)
        return WebPortResource(factory, self._settings.allow_insecure)

    @property
    def _listeners(self) -> list[Listener]:
        return [*self.lines, *self.web]

    def _build_listeners(
        self, descriptions: tuple[str, ...], build_factory: Callable[[ListenerConfig], Any]
    ) -> list[Listener]:
        built = []
        for description in listeners(descriptions):
            authorities = client_authorities(self._settings, description)
            try:
                if self._passed_ports is None:
                    endpoint = parse_endpoint(description, self._reactor, authorities)
                else:
                    endpoint = adopt_port(description, self._reactor, next(self._passed_ports), authorities)
            except EndpointError as error:
                raise SettingsError(str(error)) from None
            config = ListenerConfig(description, description in self._settings.proxy_protocol, self._trusted)
            built.append(Listener(description, endpoint, build_factory(config)))
        return built

    def _line_factory(self, config: ListenerConfig) -> LineFactory:
        return LineFactory(self.context, self._reactor, self._settings.send_buffer_bytes, listening=config)

    def _web_factory(self, config: ListenerConfig) -> WebFactory:
        settings = self._settings
        return WebFactory(
            self.context,
            self._reactor,
            self.origin_policy,
            settings.send_buffer_bytes,
            settings.ping_interval,
            settings.ping_timeout,
            self.line_ports,
            config,
            self._routes,
            self._engine,
        )

    # Start.

    def privilegedStartService(self) -> None:
        """Open the ports, before twistd drops its privileges."""
        super().privilegedStartService()
        self._new_connections = new_connections(self._reactor)
        if self._new_connections is not None:
            self._new_connections.start()
        for listener in self._listeners:
            failures: list[Failure] = []
            listening = listener.endpoint.listen(listener.factory)
            listening.addCallbacks(lambda port, listener=listener: self._prepare_port(listener, port), failures.append)
            for failure in failures:
                raise StartFailed(f"sockbridge: cannot listen on {listener.description}: {_reason(failure)}")
        if error := self.reloader.find_insecure_listener(self._settings):
            raise StartFailed(f"sockbridge: {error}")
        if self.web:
            page = self.web[0].page_address()
            for listener in self.lines:
                listener.factory.web_address = page
        for endpoint in self._endpoints:
            try:
                endpoint.start(self.bridge, self._reactor)
            except (CannotListenError, OSError) as error:
                raise StartFailed(f"sockbridge: cannot start {endpoint!r}: {_reason(Failure(error))}") from None

    def _start_backplane(self) -> None:
        """Start the backplane. If it connects later, its own ``is_ready`` is False until then."""
        self._is_backplane_started = True
        try:
            _when_settled(self._backplane.start(self.context.broker), self._backplane_started)
        except OSError as error:
            raise StartFailed(f"sockbridge: cannot start the backplane: {_reason(Failure(error))}") from None

    def _backplane_started(self, outcome: bool | Error) -> None:
        if isinstance(outcome, Error):
            self._log.error("the backplane has not started: {error}", error=outcome.message)
        self.bridge.start()

    def startService(self) -> None:
        super().startService()
        self._start_backplane()  # with the rights that the server keeps, because it can create files
        for seconds, loop in self._loops:
            loop.start(seconds, now=False)
        if self._passed_ports is None:
            for hint in self.hints():
                self._log.info("{hint}", hint=hint)
            self.reloader.log_warnings()

    def stop_accepting(self) -> list[Any]:
        """Leave the connections of all ports to other processes. Returns the ports, those of ``tcp`` first."""
        ports: list[Any] = [listener.port for listener in self._listeners]
        for port in ports:
            port.stopReading()
            share_port(port)
        return ports

    def _prepare_port(self, listener: Listener, port: IListeningPort) -> None:
        install_direct_writes(port, self.context.memory_budget, self._reachability, self._new_connections)
        limit_accepts(port)
        install_half_close_tls(port)
        prepare_listening_socket(port, self._settings.send_buffer_bytes, self._settings.unreachable_timeout)
        expect_proxy_headers(port, self._reactor, listener.factory.listening, self._settings.handshake_timeout)
        install_accept_backoff(port, self._reactor)
        listener.port = port

    # Periodic work.

    def _loop(self, function: Callable[[], object], failure: str) -> LoopingCall:
        """Return a loop that continues after an exception, and logs it."""

        def call() -> None:
            try:
                function()
            except Exception:
                self._log.failure(failure)

        loop = LoopingCall(call)
        loop.clock = self._reactor
        return loop

    def _log_gap(self, channel: bytes, lost: Lost | None) -> None:
        """Log a gap in the events of the backplane once, however many subscribers are notified."""
        name = channel.decode()
        if lost is None:
            self._log.warn("the backplane has a new epoch for {channel}: its subscribers receive RESET", channel=name)
        else:
            self._log.warn(
                "the backplane has lost events {first} to {last} of {channel}: its subscribers receive LOST",
                first=lost.first,
                last=lost.last,
                channel=name,
            )

    def _draw_id(self) -> bytes:
        return draw_id(ID_LENGTH if self.context.policy is None else _ID_LENGTH_WITH_POLICY)

    def _call_in_next_turn(self, turn: Callable[[], None]) -> None:
        self._reactor.callLater(0, turn)

    # Reload.

    def reload(self) -> None:
        """Read the configuration file, keys and certificates again, soon. Connections stay open."""
        self.reloader.request()

    def change_policy(self, policy: Policy) -> None:
        """Replace the access policy. Connected clients are checked again, and lose what it does not allow."""
        self.reloader.change_policy(policy)

    # Drain and stop.

    def stopService(self) -> Deferred[None]:
        """Close the ports, notify the clients, and wait until all have disconnected, or for ``shutdown_timeout``
        seconds."""
        super().stopService()
        self._drain.announce()
        self.webhooks.drain(self._settings.shutdown_timeout)
        for _, loop in self._loops:
            if loop.running:
                loop.stop()
        ports = [listener.port for listener in self._listeners if listener.port is not None]
        stops = [port.stopListening for port in ports] + [endpoint.stop for endpoint in self._endpoints]
        closed = DeferredList([maybeDeferred(stop).addErrback(self._log_failed_stop) for stop in stops])
        drained = closed.addCallback(lambda result: self._ports_closed())
        drained.addCallback(lambda result: self._stop_webhooks())
        return drained.addCallback(lambda result: self._stop_backplane())

    def _log_failed_stop(self, failure: Failure) -> None:
        self._log.failure("stopping a port or an endpoint failed", failure)

    def _ports_closed(self) -> Deferred[None]:
        if self._new_connections is not None:
            self._new_connections.stop()
        return self._drain.start()

    def stop_now(self) -> None:
        """End the wait of ``stopService``."""
        self.webhooks.abort()
        self._drain.end_now()
        self._end_wait_for_backplane()

    def _stop_webhooks(self) -> Deferred[Any]:
        queued = sum(statistics.queued for statistics in self.webhooks.statistics.values())
        self._drain.log_wait(queued, "webhook event", "to be delivered")
        return self.webhooks.stop()

    def _stop_backplane(self) -> Deferred[None]:
        """Wait until all that was published is safe."""
        self._backplane_stopped = stopped = Deferred[None]()
        stopping = self._backplane.stop() if self._is_backplane_started else None
        _when_settled(stopping, self._backplane_has_stopped)
        return stopped

    def _backplane_has_stopped(self, outcome: bool | Error) -> None:
        if isinstance(outcome, Error):
            self._log.error("the backplane has not stopped: {error}", error=outcome.message)
        self._end_wait_for_backplane()

    def _end_wait_for_backplane(self) -> None:
        self.bridge.stop()
        stopped, self._backplane_stopped = self._backplane_stopped, None
        if stopped is not None:
            stopped.callback(None)


def _when_settled(future: Future[bool] | None, callback: Callable[[bool | Error], None]) -> None:
    if future is None:
        callback(True)
    else:
        future.then(callback)


def _reason(failure: Failure) -> str:
    error: Any = failure.value
    reason = error.socketError if isinstance(error, CannotListenError) else error
    return getattr(reason, "strerror", None) or str(reason)


def make_service(
    settings: Settings | Mapping[str, Any] | str | PathLike[str],
    *,
    policy: Policy | None = None,
    backplane: Backplane | None = None,
    observers: Iterable[BridgeObserver] = (),
    endpoints: Iterable[Any] = (),
    resources: Mapping[str, IResource] | None = None,
    socketio: SocketIO | None = None,
    reactor: Any = None,
) -> SockbridgeService:
    """Return the server as a service for your own application. Its attribute ``bridge`` publishes and subscribes.

    ``settings`` are a TOML file, which a reload reads again, or a dictionary with the names of the options, or
    ``Settings``. ``policy`` decides who a client is and what it can do, in place of ``[access]`` in the file.
    ``backplane`` orders the events; by default, they are in memory. Each of ``observers`` is a ``BridgeObserver``, each
    of ``endpoints`` provides ``IBridgeEndpoint``. ``resources`` are resources of twisted.web for the web port, by the
    first segment of their paths. ``socketio`` is an application for Socket.IO clients. Raises ``SettingsError``."""
    if reactor is None:
        from twisted.internet import reactor
    read = _settings_reader(settings)
    return SockbridgeService(
        read(),
        reactor,
        version_of("sockbridge"),
        read,
        policy=policy,
        backplane=backplane,
        observers=observers,
        endpoints=endpoints,
        resources=resources,
        socketio=socketio,
    )


def _settings_reader(settings: Settings | Mapping[str, Any] | str | PathLike[str]) -> Callable[[], Settings]:
    if isinstance(settings, Settings):
        return lambda: settings
    if isinstance(settings, Mapping):
        options = {name.replace("_", "-"): value for name, value in settings.items()}
        return lambda: read_settings(None, dict(options))
    file = str(Path(fspath(settings)).absolute())  # twistd can change to another directory
    return lambda: read_settings(file, {})
