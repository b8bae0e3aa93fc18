"""The server as a part of another program: ``make_service``, and the names of the Python API."""

import hmac
import re
import subprocess
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import iscoroutine
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import txaio
from twisted import internet
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

import twistedsock
from tests import fakes
from tests.fakes import FakeTransport
from tests.memory_reactor import LOOPBACK, Reactor, connect
from tests.server.clients import request_bytes
from twistedsock import (
    Bridge,
    BridgeEvent,
    BridgeObserver,
    Error,
    ErrorCode,
    IBridgeEndpoint,
    IBridgeEndpointPlugin,
    Identity,
    Policy,
    Settings,
    SettingsError,
    endpoints,
    grants,
    make_service,
)
from twistedsock.backplane_builder import draw_epoch
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import UNAVAILABLE
from twistedsock.pubsub.future import Future
from twistedsock.reload import TWO_POLICIES
from twistedsock.service import SockbridgeService, StartFailed
from twistedsock.socketio import SocketIO
from twistedsock.testing import FakeServer

Make = Callable[..., SockbridgeService]

EVERYWHERE = {"tcp": "tcp:8081", "web": "none"}


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Reactor:
    reactor = Reactor()
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)
    return reactor


@pytest.fixture
def make(reactor: Reactor) -> Make:
    """``make_service``, on ports without sockets, by default for lines on this machine only."""

    def make(settings: Any = None, **options: Any) -> SockbridgeService:
        service = make_service(settings or {"tcp": LOOPBACK, "web": "none"}, reactor=reactor, **options)
        assert IService.providedBy(service)
        return service

    return make


@pytest.fixture
def start(make: Make) -> Make:
    def start(*arguments: Any, **options: Any) -> SockbridgeService:
        service = make(*arguments, **options)
        service.privilegedStartService()
        service.startService()
        return service

    return start


class ReadOnly(Policy):
    """Every client can read one channel."""

    def __init__(self, channel: str = "kitchen") -> None:
        self._anonymous = Identity(grants({channel: "r"}))

    def anonymous(self, listener: str) -> Identity:
        return self._anonymous


# The API.


def test_package_has_the_names_of_the_api() -> None:
    assert set(twistedsock.__all__) <= set(dir(twistedsock))
    for name in twistedsock.__all__:
        assert getattr(twistedsock, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'twistedsock' has no attribute 'gone'"):
        twistedsock.gone  # noqa: B018


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import twistedsock", "twisted autobahn msgspec twistedsock.service"),
        ("from twistedsock import *", "twisted.internet.reactor"),
        ("from twistedsock import make_service\nmake_service({})", "sqlite3 hiredis"),
    ],
)
def test_importing_the_package_loads_little(tmp_path: Path, program: str, unwanted: str) -> None:
    command = [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules)"]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & set(unwanted.split())


PAGE = Path(__file__).parent.parent / "docs/how-to/embed.md"


def test_programs_of_the_page_run(reactor: Reactor) -> None:
    """All except whole applications, which are tested as processes."""
    server, database, counts = FakeServer(), Mock(), Counter[str]()
    names: dict[str, Any] = {name: getattr(twistedsock, name) for name in twistedsock.__all__}
    names |= {"implementer": implementer, "hmac": hmac, "SECRET": b"secret", "Sensors": Mock(), "print": Mock()}
    names |= {"settings": {"tcp": LOOPBACK}, "make_service": partial(make_service, reactor=reactor)}
    names |= {"signal": Mock(), "reactor": reactor, "datetime": datetime, "timedelta": timedelta, "UTC": UTC}
    names |= {"StatusPage": Resource, "File": lambda folder: Resource()}
    names |= {"bridge": Bridge(server.context), "database": database, "counts": counts, "watch_freezer": watch_freezer}
    database.runOperation.return_value = succeed(None)
    names["bridge"].start()
    for program in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        if "service.Application" in program:
            continue
        running = eval(compile(program, str(PAGE), "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if iscoroutine(running):
            Deferred.fromCoroutine(running)
        server.turn()
    names["bridge"].publish("kitchen", 21.5)
    server.turn()
    names["Recorder"]().published(Mock(channel="kitchen"))
    names["test_alarm_is_published_when_the_freezer_is_warm"]()
    assert names["epoch"] == "e1" and names["offset"] == 1 and names["position"] == ("e1", 1)
    assert [call.args[1] for call in database.runOperation.call_args_list] == [(2, 21.5)]
    assert counts == {"kitchen": 1}
    operators = names["Operators"]()
    assert operators.by_token(b"secret", "") is operators.operator
    assert operators.by_token(b"wrong", "").code is ErrorCode.UNAUTHORIZED


def watch_freezer(bridge: Bridge) -> None:
    """The code that the page tests."""

    def check(event: BridgeEvent) -> None:
        if event.value["celsius"] > -10:
            bridge.publish("alarms", "the freezer is warm", nick="watch")

    bridge.subscribe("sensors.freezer", check)


# Settings.


def test_settings_are_a_file_a_dictionary_or_settings(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text('tcp = "none"\nweb = "tcp:8083"\nhistory-events = 5\nallow-insecure = true')
    expected = Settings(tcp=("none",), web=("tcp:8083",), history_events=5, allow_insecure=True)
    options = {"tcp": "none", "web": ["tcp:8083"], "history-events": 5, "allow_insecure": True}
    for settings in (file, str(file), options, expected):
        assert make(settings).context.limits == expected


def test_reactor_is_the_one_of_the_process(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internet, "reactor", reactor, raising=False)
    make_service({"tcp": LOOPBACK, "web": "none"}).privilegedStartService()
    assert len(reactor.ports) == 1


@pytest.mark.parametrize("settings", [{"colour": "blue"}, {"history-events": -1}, {"tcp": "none", "web": "none"}])
def test_invalid_settings_raise_an_exception(make: Make, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        make(settings)


def test_reload_reads_the_file_again(
    start: Make, reactor: Reactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bridge.toml").write_text(f'tcp = "{LOOPBACK}"\nweb = "none"')
    service = start("bridge.toml")
    Path("bridge.toml").write_text("history-events = 0")
    monkeypatch.chdir("/")  # as a daemon does
    service.reload()
    assert "restart required to change: history-events, web" in [formatEvent(event) for event in logged]


# Bridge, backplane, observers.


def test_bridge_and_clients_share_channels(start: Make, reactor: Reactor) -> None:
    service, events = start(), list[BridgeEvent]()
    client, transport = connect(reactor)
    client.dataReceived(b"SUB kitchen\n")
    service.bridge.subscribe("kitchen", events.append)
    service.bridge.publish("kitchen", {"celsius": 21.5}, nick="oven")
    client.dataReceived(b"PUB kitchen hello\n")
    for _ in range(3):
        reactor.turn()
    assert b'MSG kitchen 1 oven {"celsius":21.5}\n' in transport.value()
    assert [event.value for event in events] == [{"celsius": 21.5}, "hello"]


def test_bridge_starts_with_the_service(make: Make, reactor: Reactor) -> None:
    service = make()
    published = service.bridge.publish("kitchen", "one")
    service.privilegedStartService()
    assert not published.called
    service.startService()
    assert published.called


@pytest.mark.parametrize("is_started", [False, True])
def test_calls_fail_if_the_server_stops_before_it_has_started(make: Make, reactor: Reactor, is_started: bool) -> None:
    backplane, failures = SlowBackplane(), list[Failure]()
    service = make(backplane=backplane)
    service.bridge.publish("kitchen", "one").addErrback(failures.append)
    if is_started:
        service.privilegedStartService()
        service.startService()
        backplane.stopped.settle(True)
    assert service.stopService().called
    assert [failure.value.code for failure in failures] == ["unavailable"]


def test_observers_receive_events_from_the_start(start: Make, reactor: Reactor) -> None:
    class Recorder(BridgeObserver):
        values: list[Any] = []

        def published(self, event: BridgeEvent) -> None:
            self.values.append(event.value)

    service = start(observers=[Recorder()])
    service.bridge.publish("kitchen", "one")
    reactor.turn()
    assert Recorder.values == ["one"]


def test_backplane_replaces_the_memory(start: Make) -> None:
    class CountingBackplane(MemoryBackplane):
        count = 0

        def publish(self, *arguments: Any) -> Any:
            self.count += 1
            return super().publish(*arguments)

    backplane = CountingBackplane(draw_epoch, lambda: 0.0)
    start(backplane=backplane).bridge.publish("kitchen", "one")
    assert backplane.count == 1


class SlowBackplane(MemoryBackplane):
    """Starts and stops when the test says so."""

    def __init__(self) -> None:
        super().__init__(draw_epoch, lambda: 0.0)
        self.started, self.stopped = Future[bool](), Future[bool]()
        self.calls: list[str] = []

    def start(self, node: Any) -> Any:
        super().start(node)
        self.calls.append("start")
        return self.started

    def stop(self) -> Any:
        self.calls.append("stop")
        return self.stopped


def test_backplane_starts_with_the_service_and_stops_after_the_clients(make: Make, reactor: Reactor) -> None:
    backplane, ended = SlowBackplane(), list[object]()
    service = make(backplane=backplane)
    assert backplane.calls == []
    service.privilegedStartService()
    service.startService()
    client, _ = connect(reactor)
    service.stopService().addCallback(ended.append)
    reactor.turn()
    assert backplane.calls == ["start"]
    client.connectionLost(Failure(ConnectionDone()))
    reactor.turn()
    assert (backplane.calls, ended) == (["start", "stop"], [])
    backplane.stopped.settle(True)
    assert ended


def test_bridge_waits_until_the_backplane_has_started(start: Make) -> None:
    backplane = SlowBackplane()
    published = start(backplane=backplane).bridge.publish("kitchen", "one")
    assert not published.called
    backplane.started.settle(True)
    assert published.called


def test_second_signal_does_not_wait_for_the_backplane(start: Make, reactor: Reactor) -> None:
    backplane, ended = SlowBackplane(), list[object]()
    service = start(backplane=backplane)
    service.stopService().addCallback(ended.append)
    assert backplane.calls == ["start", "stop"] and not ended
    service.stop_now()
    assert ended
    backplane.stopped.settle(True)


def test_errors_of_the_backplane_are_logged(start: Make, messages: Any) -> None:
    backplane = SlowBackplane()
    service = start(backplane=backplane)
    backplane.started.settle(UNAVAILABLE)
    backplane.stopped.settle(UNAVAILABLE)
    service.stopService()
    expected = [f"the backplane has not {what}: {UNAVAILABLE.message}" for what in ("started", "stopped")]
    assert messages() == expected


def test_backplane_that_cannot_start_stops_the_start(start: Make) -> None:
    class Broken(MemoryBackplane):
        def start(self, node: Any) -> None:
            raise OSError(13, "Permission denied")

    with pytest.raises(StartFailed) as caught:
        start(backplane=Broken(draw_epoch, lambda: 0.0))
    assert str(caught.value) == "sockbridge: cannot start the backplane: Permission denied"


def test_stop_does_not_count_subscriptions_of_the_program(
    start: Make, reactor: Reactor, logged: list[dict[str, Any]]
) -> None:
    service = start()
    subscription = service.bridge.subscribe("kitchen", print)
    reactor.turn()
    logged.clear()
    ended: list[object] = []
    service.stopService().addCallback(ended.append)
    for _ in range(5):
        reactor.turn()
    assert ended and not subscription.is_active
    assert logged == []


# The web port.


def test_resources_are_served_by_the_web_port(start: Make, reactor: Reactor) -> None:
    page = Resource()
    page.isLeaf = True
    page.render_GET = lambda request: b"my page"
    start({"tcp": "none", "web": LOOPBACK}, resources={"app": page})
    assert b"my page" in get(reactor.factories[0], "/app/x")
    for name in ("channels", "console", "healthz"):
        with pytest.raises(ValueError, match="invalid name of a resource"):
            start({"tcp": "none", "web": LOOPBACK}, resources={name: page})


def test_socketio_application_is_served_until_the_stop(start: Make, reactor: Reactor) -> None:
    application, reasons = SocketIO(), list[str]()
    application.on("disconnect")(lambda socket, reason: reasons.append(reason))
    settings = {"tcp": "none", "web": LOOPBACK}
    service = start(settings, socketio=application)
    opening = get(reactor.factories[0], "/socket.io/?EIO=4&transport=polling")
    sid = re.findall(rb'"sid":"([\w-]{20})"', opening)[0].decode()
    assert get(reactor.factories[0], f"/socket.io/?EIO=4&transport=polling&sid={sid}", b"40").endswith(b"ok")
    assert len(application.sockets) == 1
    service.stopService()
    assert reasons == ["server shutting down"]
    with pytest.raises(ValueError, match="invalid name of a resource"):
        start(settings, socketio=application, resources={"socket.io": Resource()})


def test_socketio_clients_use_the_channels_without_an_application(start: Make, reactor: Reactor) -> None:
    service = start({"tcp": "none", "web": LOOPBACK})
    address = "/socket.io/?EIO=4&transport=polling"
    sid = re.findall(rb'"sid":"([\w-]{20})"', get(reactor.factories[0], address))[0].decode()
    get(reactor.factories[0], f"{address}&sid={sid}", b"40/kitchen,")
    assert b'40/kitchen,{"sid":"' in get(reactor.factories[0], f"{address}&sid={sid}")
    assert [session.protocol for session in service.context.sessions] == ["socketio"]
    service.stopService()
    assert not len(service.context.sessions)


def test_site_of_the_program_serves_the_web_port(start: Make, reactor: Reactor) -> None:
    service = start()
    site = Site(service.resource(), reactor=reactor)
    site.startFactory()
    assert b"my event" in get(site, "/channels/kitchen/events", b"my event") + get(site, "/channels/kitchen/events")
    stream = open_web(site)
    stream.protocol.dataReceived(request_bytes("/events?channel=kitchen"))
    ended: list[object] = []
    service.stopService().addCallback(ended.append)
    for _ in range(5):
        reactor.turn()
    assert b"the server is going away" in stream.output() and not ended
    stream.protocol.connectionLost(Failure(ConnectionDone()))
    reactor.turn()
    assert ended


def open_web(factory: Any) -> FakeTransport:
    transport = fakes.connect(port=8082)
    transport.protocol = factory.buildProtocol(transport.getPeer())
    transport.protocol.makeConnection(transport)
    return transport


def get(factory: Any, path: str, body: bytes = b"") -> bytes:
    """Send a request on a new connection, and return the response. With a body, the method is POST."""
    transport = open_web(factory)
    transport.protocol.dataReceived(request_bytes(path, "POST" if body else "GET", body))
    return transport.output()


# Policies.


def test_policy_of_the_program_decides(start: Make, reactor: Reactor) -> None:
    class WithToken(ReadOnly):
        def by_token(self, token: bytes, listener: str) -> Identity | Error:
            if token != b"secret":
                return Error(ErrorCode.UNAUTHORIZED, "unknown token")
            return Identity(grants({">": "rw"}), subject=b"ann", proof="secret")

    start(policy=WithToken())
    client, transport = connect(reactor)
    client.dataReceived(b"PUB kitchen 1\nSUB attic\nAUTH wrong\nAUTH secret\nPUB kitchen 1\n")
    reactor.turn()
    codes = [line.split()[:2] for line in transport.value().splitlines()]
    unauthorized = [b"ERR", b"unauthorized"]
    assert codes == [unauthorized, unauthorized, unauthorized, [b"OK", b"ann"], [b"OK", b"1"]]


def test_policy_allows_to_listen_for_other_machines(make: Make) -> None:
    with pytest.raises(StartFailed, match="without an access policy"):
        make(EVERYWHERE).privilegedStartService()
    make(EVERYWHERE, policy=ReadOnly()).privilegedStartService()


def test_policy_survives_reload(start: Make, reactor: Reactor, messages: Any, tmp_path: Path) -> None:
    file, policy = tmp_path / "bridge.toml", ReadOnly()
    file.write_text('tcp = "tcp:8081"\nweb = "none"')
    service = start(file, policy=policy)
    service.reloader.reload()
    assert service.context.policy is policy
    assert messages() == []
    file.write_text('tcp = "tcp:8081"\nweb = "none"\n[access]')
    service.reloader.reload()
    assert service.context.policy is policy
    assert messages() == [f"reload failed, configuration unchanged: {TWO_POLICIES}"]


def test_policy_and_access_table_exclude_each_other(make: Make) -> None:
    with pytest.raises(SettingsError, match=r"\[access\] cannot be used"):
        make({"web": "none", "access": {}}, policy=ReadOnly())


def test_changed_policy_holds_for_connected_clients(start: Make, reactor: Reactor) -> None:
    service = start(policy=ReadOnly())
    client, transport = connect(reactor)
    client.dataReceived(b"SUB kitchen\n")
    service.change_policy(ReadOnly("attic"))
    reactor.turn()
    assert b"NOTICE right to read kitchen lost: the subscription has ended" in transport.value()
    client.dataReceived(b"SUB attic\n")
    assert b"OK attic " in transport.value()


def test_changed_policy_replaces_the_one_of_the_settings(start: Make) -> None:
    service = start({**EVERYWHERE, "access": {"anonymous": {"kitchen": "r"}}})
    policy = ReadOnly()
    service.change_policy(policy)
    assert service.context.policy is policy


# Endpoints.


@implementer(IBridgeEndpoint)
class Endpoint:
    """``failure`` is raised when it starts."""

    def __init__(self, failure: Exception | None = None, stopped: "Deferred[None] | None" = None) -> None:
        self.calls: list[Any] = []
        self._failure = failure
        self._stopped = stopped

    def start(self, bridge: Any, reactor: Any) -> None:
        self.calls.append((bridge, reactor))
        if self._failure is not None:
            raise self._failure

    def stop(self) -> "Deferred[None] | None":
        self.calls.append("stop")
        return self._stopped

    def __repr__(self) -> str:
        return "MQTT on port 1883"


def test_endpoints_start_before_privileges_are_dropped_and_stop_with_the_ports(make: Make, reactor: Reactor) -> None:
    stopped: Deferred[None] = Deferred()
    endpoint = Endpoint(stopped=stopped)
    verifyObject(IBridgeEndpoint, endpoint)
    service = make(endpoints=[endpoint])
    assert endpoint.calls == []
    service.privilegedStartService()
    assert endpoint.calls == [(service.bridge, reactor)]
    service.startService()
    ended = service.stopService()
    assert endpoint.calls[1:] == ["stop"] and not ended.called
    stopped.callback(None)
    reactor.turn()
    assert ended.called


@pytest.mark.parametrize(
    "failure",
    [CannotListenError("", 1883, OSError(98, "Address already in use")), OSError(98, "Address already in use")],
)
def test_endpoint_that_cannot_listen_stops_the_start(make: Make, failure: Exception) -> None:
    with pytest.raises(StartFailed) as caught:
        make(endpoints=[Endpoint(failure)]).privilegedStartService()
    assert str(caught.value) == "sockbridge: cannot start MQTT on port 1883: Address already in use"


@implementer(IBridgeEndpointPlugin)
class MQTTPlugin:
    name = "mqtt"

    def __init__(self) -> None:
        self.built: list[Endpoint] = []

    def build(self, arguments: str) -> Endpoint:
        int(arguments)
        self.built.append(Endpoint())
        return self.built[-1]


Plugins = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """Install plugins: ``install(*plugins)``."""

    def install(*plugins: Any) -> None:
        found = {IBridgeEndpointPlugin: plugins}
        monkeypatch.setattr(endpoints, "getPlugins", lambda interface: found[interface])

    return install


def test_plugins_build_endpoints_by_name(make: Make, reactor: Reactor, install: Plugins) -> None:
    plugin = MQTTPlugin()
    verifyObject(IBridgeEndpointPlugin, plugin)
    install(plugin)
    service = make({"tcp": LOOPBACK, "web": "none", "plugin": "mqtt:1883"})
    service.privilegedStartService()
    assert [endpoint.calls for endpoint in plugin.built] == [[(service.bridge, reactor)]]


@pytest.mark.parametrize(
    ("description", "installed", "words"),
    [
        ("mqtt:x", [MQTTPlugin()], "plugin 'mqtt:x': invalid literal for int() with base 10: 'x'"),
        ("coap", [MQTTPlugin()], "plugin: unknown name 'coap': installed are mqtt"),
        ("coap:1", [], "plugin: unknown name 'coap': no plugin is installed"),
    ],
)
def test_invalid_plugin_is_an_error(
    make: Make, install: Plugins, description: str, installed: list[Any], words: str
) -> None:
    install(*installed)
    with pytest.raises(SettingsError) as caught:
        make({"tcp": LOOPBACK, "web": "none", "plugin": [description]})
    assert str(caught.value) == words


def test_endpoint_that_fails_to_stop_does_not_block_the_stop(
    start: Make, reactor: Reactor, logged: list[dict[str, Any]]
) -> None:
    service = start(endpoints=[Endpoint(stopped=fail(RuntimeError("a fault"))), Endpoint(stopped=succeed(None))])
    logged.clear()
    assert service.stopService().called
    assert [formatEvent(event) for event in logged] == ["stopping a port or an endpoint failed"]
    logged.clear()
