"""The service: listeners, start, periodic work and shutdown, without sockets and with a fake clock."""

import re
import socket
import sys
from types import SimpleNamespace

import pytest
import txaio
from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from tests.authority import Authority
from tests.memory_reactor import LOOPBACK, Reactor, connect
from twistedsock.auth.config import AccessTable
from twistedsock.auth.expiry import ExpiryWatcher
from twistedsock.backplane_builder import draw_epoch, draw_id
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.config import Settings, SettingsError
from twistedsock.metrics.pages import STATISTICS_CHANNEL
from twistedsock.metrics.sys_channels import TICK_SECONDS, Monitor
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Batch, ChannelState, Payloads, Position
from twistedsock.server.drain import ANSWERS_SHARE
from twistedsock.server.listeners import BACKLOG
from twistedsock.server.transport import DirectTCPTransport, Reachability
from twistedsock.service import EXPIRY_SECONDS, SWEEP_SECONDS, SockbridgeService, StartFailed
from twistedsock.testing import LateBackplane
from twistedsock.webhooks.delivery import DeliveryStatistics

STOP_NOW = "Ctrl-C or SIGTERM again stops now"


@pytest.fixture
def reactor(monkeypatch):
    reactor = Reactor()
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)
    return reactor


@pytest.fixture
def make(reactor):
    """Create a service: ``make(tcp=[…], web=[…], …)``. By default, it listens for lines only."""

    def make(tcp=(LOOPBACK,), web=("none",), backplane=None, **settings):
        settings = Settings(tcp=tuple(tcp), web=tuple(web), **settings)
        return SockbridgeService(settings, reactor, "1.2", backplane=backplane)

    return make


@pytest.fixture
def start(make):
    """Create and start a service."""

    def start(*arguments, **settings):
        service = make(*arguments, **settings)
        service.privilegedStartService()
        service.startService()
        return service

    return start


def test_is_a_named_service(make):
    service = make()
    assert IService.providedBy(service)
    assert service.name == "sockbridge"


def test_listens_on_all_configured_endpoints(start, reactor):
    service = start(
        tcp=[LOOPBACK, "unix:/run/bridge", "tcp6:8083:interface=\\:\\:1"], web=["tcp:8082:interface=127.0.0.1"]
    )
    assert [port.getHost() for port in reactor.ports] == [
        IPv4Address("TCP", "127.0.0.1", 8081),
        UNIXAddress(b"/run/bridge"),
        IPv6Address("TCP", "::1", 8083),
        IPv4Address("TCP", "127.0.0.1", 8082),
    ]
    assert all(factory.context is service.context for factory in reactor.factories)


def test_each_factory_has_its_endpoint(start, reactor, certificate):
    lines = [LOOPBACK, "unix:/run/bridge", f"ssl:8443:interface=127.0.0.1:{certificate}"]
    web = ["tcp:8082:interface=127.0.0.1", "unix:/run/web"]
    start(tcp=lines, web=web)
    factories = [getattr(factory, "wrappedFactory", factory) for factory in reactor.factories]
    assert [factory.listening.endpoint for factory in factories] == lines + web
    assert [factory.websockets.listening.endpoint for factory in factories[3:]] == web
    assert factories[3].origin_policy is factories[4].origin_policy, "each error is logged once"


def test_does_not_listen_on_none(start, reactor):
    start(tcp=["none"], web=["none"])
    assert reactor.ports == []


def test_opens_no_port_before_start(make, reactor):
    make()
    assert reactor.ports == []


def test_opens_ports_before_twistd_drops_privileges(make, reactor):
    service = make()
    service.privilegedStartService()
    assert len(reactor.ports) == 1
    service.startService()
    assert len(reactor.ports) == 1


@pytest.mark.parametrize(
    ("endpoint", "backlog"),
    [
        (LOOPBACK, BACKLOG),
        ("unix:/run/bridge", BACKLOG),
        ("tcp6:8081:interface=\\:\\:1", BACKLOG),
        ("tcp:8081:interface=127.0.0.1:backlog=7", 7),
        ("unix:/run/bridge:backlog=7", 7),
    ],
)
def test_default_backlog_is_4096(start, reactor, endpoint, backlog):
    start(tcp=[endpoint])
    assert BACKLOG == 4096
    assert reactor.backlogs == [backlog]


def test_ports_use_transports_with_direct_writes(start, reactor, certificate):
    start(tcp=[LOOPBACK, f"ssl:8443:interface=127.0.0.1:{certificate}"], web=[LOOPBACK])
    assert all(issubclass(port.transport, DirectTCPTransport) for port in reactor.ports) and len(reactor.ports) == 3


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("carrier-pigeon:x", "the endpoint 'carrier-pigeon:x': write an endpoint such as tcp:8081:interface="),
        ("tcp:http-alt-or-so", "cannot use the endpoint 'tcp:http-alt-or-so': invalid literal for int()"),
        ("tcp:65536", "cannot use the endpoint 'tcp:65536': invalid port 65536: at most 65535"),
        ("ssl:port=99999:privateKey=a:certKey=b", "': invalid port 99999: at most 65535"),
        *(
            (text, "': write tcp:8081:interface=127.0.0.1 for this machine only, or tcp:8081 for every interface")
            for text in ("8081", ":8081", "8081/tcp")
        ),
        *(
            (text, "': write tcp:8081:interface=127.0.0.1 for this machine only, or tcp:8081 for every")
            for text in ("LocalHost:8081", "http://localhost:8081/", "tcp:localhost:8081")
        ),
        ("10.0.0.1:8081", "cannot use the endpoint '10.0.0.1:8081': write tcp:8081:interface=10.0.0.1"),
        ("0.0.0.0:8081", "cannot use the endpoint '0.0.0.0:8081': write tcp:8081"),
        ("[::1]:8081", r"cannot use the endpoint '[::1]:8081': write tcp6:8081:interface=\:\:1"),
        ("/run/lines", "cannot use the endpoint '/run/lines': write unix:/run/lines"),
        ("tcp:8081:colour=blue", "cannot use the endpoint 'tcp:8081:colour=blue': "),
        ("", "cannot use the endpoint '': "),
        ("ssl:8443:privateKey=none.pem:certKey=none.pem", "none.pem"),
        ("systemd:domain=INET:index=0", "': systemd passed no such socket: start the server by a unit with sockets"),
        ("systemd:domain=INET:name=x", "': systemd passed no such socket: start the server by a unit with sockets"),
    ],
)
def test_rejects_invalid_endpoint_before_any_port_opens(make, reactor, endpoint, words):
    with pytest.raises(SettingsError) as caught:
        make(web=[LOOPBACK, endpoint])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert reactor.ports == []


@pytest.mark.parametrize(
    ("family", "configured", "words"),
    [
        (socket.AF_INET6, socket.AF_INET, "the socket is of the family INET6: write domain=INET6"),
        (socket.AF_INET, socket.AF_INET6, "the socket is of the family INET: write domain=INET"),
        (socket.AF_INET, socket.AF_UNIX, "the socket is of the family INET: write domain=INET"),
        (socket.AF_UNIX, socket.AF_INET, "the socket is of the family UNIX: write domain=UNIX"),
        (socket.AF_UNIX, socket.AF_UNIX, "the socket does not listen for streams: write ListenStream= and Accept=no"),
    ],
)
def test_rejects_adopted_socket_of_wrong_type(make, monkeypatch, family, configured, words):
    endpoint = "systemd:domain=…:index=0"
    with socket.socket(family) as handle:
        adopted = AdoptedStreamServerEndpoint(None, handle.fileno(), configured)
        monkeypatch.setattr("twistedsock.server.listeners.serverFromString", lambda reactor, words: adopted)
        with pytest.raises(SettingsError) as caught:
            make(tcp=[endpoint])
        assert str(caught.value).startswith(f"cannot use the endpoint {endpoint!r}: {words}")
        assert handle.fileno() >= 0


def test_accepts_adopted_socket(make, monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as handle:
        handle.bind(str(tmp_path / "lines"))
        handle.listen()
        adopted = AdoptedStreamServerEndpoint(None, handle.fileno(), socket.AF_UNIX)
        monkeypatch.setattr("twistedsock.server.listeners.serverFromString", lambda reactor, words: adopted)
        (listener,) = make(tcp=["systemd:domain=UNIX:index=0"]).lines
        assert listener.endpoint is adopted
        assert handle.getsockname() == str(tmp_path / "lines"), "the socket stays open"


def test_reports_port_in_use(make, reactor):
    reactor.taken = {8082}
    service = make(web=["tcp:8082:interface=127.0.0.1"])
    with pytest.raises(StartFailed) as caught:
        service.privilegedStartService()
    words = "sockbridge: cannot listen on tcp:8082:interface=127.0.0.1: Address already in use"
    assert (str(caught.value), caught.value.code) == (words, words)
    assert isinstance(caught.value, SystemExit)
    assert isinstance(caught.value, Exception), "so that twistd cleans up"


@pytest.mark.parametrize(
    "endpoint", ["tcp:8081", "tcp:8081:interface=192.0.2.1", "tcp6:8081", "tcp6:8081:interface=\\:\\:"]
)
@pytest.mark.parametrize("kind", ["tcp", "web"])
def test_rejects_public_endpoint_without_policy(make, kind, endpoint):
    ends = {"tcp": ["none"], "web": ["none"], kind: [endpoint]}
    with pytest.raises(StartFailed) as caught:
        make(**ends).privilegedStartService()
    assert endpoint in str(caught.value)
    assert "allow-insecure" in str(caught.value)
    make(**ends, allow_insecure=True).privilegedStartService()


def test_rejects_trusted_proxy_without_policy(make):
    words = r"trusted-proxy accepts clients from other machines .* \[access\] .* allow-insecure"
    with pytest.raises(StartFailed, match=words):
        make(trusted_proxy=["127.0.0.1"]).privilegedStartService()
    make(trusted_proxy=["127.0.0.1"], allow_insecure=True).privilegedStartService()
    make(trusted_proxy=["127.0.0.1"], access=AccessTable()).privilegedStartService()


@pytest.mark.parametrize("kind", ["tcp", "web"])
def test_accepts_public_endpoint_with_policy(make, kind):
    ends = {"tcp": ["none"], "web": ["none"], kind: ["tcp:8081"]}
    make(**ends, access=AccessTable()).privilegedStartService()


def test_ids_are_longer_with_policy(make):
    assert len(make().context.sessions.new_id()) == 5
    assert len(make(access=AccessTable()).context.sessions.new_id()) == 10


@pytest.mark.parametrize(
    "endpoint", ["tcp:8081:interface=127.0.0.2", "tcp6:8081:interface=\\:\\:1", "unix:/run/bridge"]
)
def test_accepts_local_endpoint_without_policy(make, endpoint):
    make(tcp=[endpoint]).privilegedStartService()


@pytest.fixture
def certificate(tmp_path):
    """Create a certificate, and return its part of an ssl: endpoint."""
    Authority(tmp_path).issue("server", "localhost")
    return f"privateKey={tmp_path}/server.key:certKey={tmp_path}/server.pem"


def test_logs_a_command_to_try_for_each_port(start, logged, certificate):
    service = start(
        tcp=[
            "tcp:0:interface=127.0.0.1",
            "tcp:8083",
            "tcp6:8084:interface=\\:\\:",
            "unix:/run/bridge",
            f"ssl:8443:interface=127.0.0.1:{certificate}",
        ],
        web=["tcp:8082:interface=127.0.0.1", "tcp6:8085:interface=\\:\\:1", f"ssl:8444:{certificate}", "unix:/run/web"],
        allow_insecure=True,
    )
    hints = [
        "lines on 127.0.0.1:50000: telnet 127.0.0.1 50000",
        "lines on 0.0.0.0:8083: telnet 127.0.0.1 8083",
        "lines on [::]:8084: telnet ::1 8084",
        "lines on unix:/run/bridge: nc -U /run/bridge",
        "lines over TLS on 127.0.0.1:8443: openssl s_client -quiet -connect 127.0.0.1:8443",
        "web on 127.0.0.1:8082: open http://127.0.0.1:8082/",
        "web on [::1]:8085: open http://[::1]:8085/",
        "web on 0.0.0.0:8444: open https://127.0.0.1:8444/",
        "web on unix:/run/web: curl --unix-socket /run/web http://localhost/bridge.json",
    ]
    assert service.hints() == hints
    said = [formatEvent(event) for event in logged]
    assert [words for words in said if words in hints] == hints


def test_line_ports_describe_listeners(start, certificate):
    service = start(tcp=[LOOPBACK, f"ssl:8443:interface=127.0.0.1:{certificate}", "unix:/run/bridge"])
    assert service.line_ports() == [
        {"kind": "tcp", "host": "127.0.0.1", "port": 8081},
        {"kind": "ssl", "host": "127.0.0.1", "port": 8443},
        {"kind": "unix", "path": "/run/bridge"},
    ]


def test_line_ports_have_no_host_for_wildcard_addresses(start):
    service = start(tcp=["tcp:8081", "tcp6:8084:interface=\\:\\:"], allow_insecure=True)
    assert service.line_ports() == [
        {"kind": "tcp", "host": "", "port": 8081},
        {"kind": "tcp", "host": "", "port": 8084},
    ]


@pytest.mark.parametrize(
    ("web", "words"),
    [
        ("none", b"no web port"),
        ("tcp:0:interface=127.0.0.1", b"http://127.0.0.1:50000/"),
        ("unix:/run/web", b"unix:/run/web"),
    ],
)
def test_line_port_refers_browsers_to_web_port(start, reactor, web, words):
    start(web=[web])
    protocol, transport = connect(reactor)
    protocol.dataReceived(b"GET / HTTP/1.1\r\n")
    assert words in transport.value()


def test_delivers_events_at_the_end_of_the_turn(start, reactor):
    start()
    protocol, transport = connect(reactor)
    protocol.dataReceived(b"SUB kitchen\nPUB kitchen 21.5\n")
    assert b"MSG" not in transport.value()
    reactor.turn()
    assert re.search(rb"OK 1\nMSG kitchen 1 \w+ 21.5\n$", transport.value())


def test_drops_old_history(start, reactor):
    service = start(history_age=60.0)
    protocol, _ = connect(reactor)
    protocol.dataReceived(b"PUB kitchen 21.5\n")
    reactor.turn()
    reactor.advance(59)
    assert b"kitchen" in service.context.broker.channels
    reactor.advance(1 + SWEEP_SECONDS)
    assert b"kitchen" not in service.context.broker.channels


def test_logs_each_gap_of_the_backplane_once(start, reactor, logged):
    broker = start().context.broker
    for first in (1, 4, 5):
        broker.deliver(b"kitchen", b"e1", Batch(first, first + 1, b"p", b"p", b"message", Payloads((b"x",), 1)))
    broker.reset(b"kitchen", ChannelState(Position(b"e2", 0)))
    assert [line for line in map(formatEvent, logged) if line is not None and "backplane" in line] == [
        "the backplane has lost events 2 to 3 of kitchen: its subscribers receive LOST",
        "the backplane has a new epoch for kitchen: its subscribers receive RESET",
    ]


def test_publishes_statistics_each_second(start, reactor):
    service = start()
    reactor.pump([1] * 3)
    assert service.context.broker.channels[STATISTICS_CHANNEL].head == 3


@pytest.mark.parametrize(
    ("owner", "name", "interval", "message"),
    [
        (Broker, "expire_histories", SWEEP_SECONDS, "dropping old history failed"),
        (Monitor, "tick", TICK_SECONDS, "publishing the statistics failed"),
        (ExpiryWatcher, "check", EXPIRY_SECONDS, "checking token expiry failed"),
        (Reachability, "check", 5, "checking for unreachable clients failed"),
    ],
)
def test_periodic_work_continues_after_an_exception(
    start, reactor, logged, monkeypatch, owner, name, interval, message
):
    monkeypatch.setattr(owner, name, lambda self: 1 / 0)
    start(unreachable_timeout=20)
    reactor.pump([interval] * 3)
    failures = [event for event in logged if "log_failure" in event]
    assert [formatEvent(event) for event in failures] == [message] * 3
    logged[:] = [event for event in logged if event not in failures]


def test_checks_reachability_four_times_per_timeout(start, reactor, monkeypatch):
    checks = []
    monkeypatch.setattr(Reachability, "check", lambda reachability: checks.append(reactor.seconds()))
    start(unreachable_timeout=20)
    reactor.pump([1] * 20)
    assert checks == [5, 10, 15, 20]


def test_does_not_check_reachability_without_timeout(start, reactor, monkeypatch):
    monkeypatch.setattr(Reachability, "check", lambda reachability: pytest.fail("checked"))
    start(unreachable_timeout=0)
    reactor.pump([1] * 200)


def test_closes_ports_before_it_notifies_clients(start, reactor):
    service = start()
    _, transport = connect(reactor)
    received = []
    reactor.ports[0].stopListening = lambda: succeed(received.append(transport.value()))
    service.stopService()
    assert received == [b""]
    assert transport.value() == b"NOTICE the server is going away\nBYE\n"
    assert transport.half_closed


def test_stop_waits_until_all_clients_have_disconnected(start, reactor):
    service = start()
    one, other = connect(reactor)[0], connect(reactor)[0]
    ended = []
    service.stopService().addCallback(ended.append)
    one.connectionLost(Failure(ConnectionDone()))
    assert ended == []
    other.connectionLost(Failure(ConnectionDone()))
    assert ended == [None]
    assert not reactor.getDelayedCalls()
    assert not reactor.ports[0].listening


def test_stop_aborts_clients_after_shutdown_timeout(start, reactor, logged):
    service = start(shutdown_timeout=2.0)
    protocol, _ = connect(reactor)
    ended = []
    service.stopService().addCallback(ended.append)
    reactor.advance(1.9)
    assert ended == []
    reactor.advance(0.1)
    assert ended == [None]
    assert "shutdown timeout: aborted clients: 1" in [formatEvent(event) for event in logged]
    protocol.connectionLost(Failure(ConnectionDone()))
    assert ended == [None]


def test_stop_waits_for_answers_half_of_the_time(start, reactor, logged):
    backplane = LateBackplane(MemoryBackplane(draw_epoch, lambda: 0.0))
    service = start(shutdown_timeout=2.0, backplane=backplane)
    (one, first), (other, second) = connect(reactor), connect(reactor)
    one.dataReceived(b"PUB a 1\n")
    reactor.turn()
    first.clear(), second.clear()
    service.stopService()
    reactor.advance(2.0 * ANSWERS_SHARE - 0.1)
    assert (first.value(), second.value()) == (b"", b"NOTICE the server is going away\nBYE\n")
    reactor.advance(0.1)
    reactor.turn()
    assert first.value() == b"NOTICE the server is going away\nBYE\n"
    for protocol in (one, other):
        protocol.connectionLost(Failure(ConnectionDone()))
    assert not reactor.getDelayedCalls()


def test_stop_now_ends_the_wait(start, reactor, logged):
    service = start(shutdown_timeout=3600.0)
    service.stop_now()
    connect(reactor)
    ended = []
    service.stopService().addCallback(ended.append)
    assert ended == []
    service.stop_now()
    reactor.turn()
    assert ended == [None]
    service.stop_now()


@pytest.mark.parametrize(("clients", "words"), [(1, "1 client"), (2, "2 clients")])
def test_stop_logs_what_it_waits_for(start, reactor, logged, clients, words):
    service = start(shutdown_timeout=2.0)
    for _ in range(clients):
        connect(reactor)
    service.stopService()
    assert f"stopping: waiting up to 2 s for {words} to disconnect; {STOP_NOW}" in map(formatEvent, logged)


def test_stop_waits_for_unanswered_requests(start, reactor, logged, monkeypatch):
    service = start(web=("tcp:0:interface=127.0.0.1",))
    monkeypatch.setattr(type(service.web[0].factory.site), "running_requests", property(lambda site: 3))
    service.stopService()
    assert f"stopping: waiting up to 5 s for 3 clients to disconnect; {STOP_NOW}" in map(formatEvent, logged)


def test_stop_logs_queued_webhook_events(start, reactor, logged):
    service = start(shutdown_timeout=2.0)
    protocol, _ = connect(reactor)
    queued = DeliveryStatistics(2, 300, 0, 0, 0, 0)
    service.webhooks = SimpleNamespace(
        statistics={"one": queued}, drain=lambda seconds: None, stop=lambda: succeed(None)
    )
    service.stopService()
    reactor.advance(0.5)
    assert len([event for event in map(formatEvent, logged) if event.startswith("stopping")]) == 1
    protocol.connectionLost(Failure(ConnectionDone()))
    assert f"stopping: waiting up to 1.5 s for 2 webhook events to be delivered; {STOP_NOW}" in map(formatEvent, logged)


@pytest.mark.parametrize(("shutdown_timeout", "clients"), [(0.0, 1), (5.0, 0)])
def test_stop_without_wait_logs_nothing(start, reactor, logged, shutdown_timeout, clients):
    service = start(shutdown_timeout=shutdown_timeout)
    for _ in range(clients):
        connect(reactor)
    service.stopService()
    assert not [event for event in map(formatEvent, logged) if event.startswith("stopping")]


def test_stop_without_clients_ends_at_once(start, reactor):
    ended = []
    start().stopService().addCallback(ended.append)
    assert ended == [None]
    assert not reactor.getDelayedCalls()


@pytest.mark.parametrize("settings", [{"state": "/state"}, {"backplane": "redis://host"}])
def test_a_program_has_one_backplane(reactor, settings):
    (name,) = settings
    with pytest.raises(SettingsError, match=f"^{name}: the program has a backplane of its own$"):
        SockbridgeService(Settings(**settings), reactor, "1.0", backplane=MemoryBackplane(draw_epoch, lambda: 0.0))


def test_a_redis_backplane_without_its_library_is_an_error(reactor, monkeypatch):
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(SettingsError, match=r"^backplane: requires hiredis: pip install 'sockbridge\[redis\]'$"):
        SockbridgeService(Settings(backplane="redis://host"), reactor, "1.0")


def test_stop_ends_when_the_backplane_has_stopped(start, monkeypatch):
    stopped, ended = Future(), []
    monkeypatch.setattr(MemoryBackplane, "stop", lambda backplane: stopped)
    start().stopService().addCallback(ended.append)
    assert not ended
    stopped.settle(True)
    assert ended == [None]


def test_stop_notifies_other_clients_after_an_exception(start, reactor, logged):
    service = start()
    (broken, _), (_, transport) = connect(reactor), connect(reactor)
    broken.transport.loseWriteConnection = None
    broken.transport.loseConnection = None
    service.stopService()
    assert transport.value().endswith(b"BYE\n")
    (event,) = [event for event in logged if "log_failure" in event]
    logged.remove(event)
    assert formatEvent(event) == "notifying the clients of the shutdown failed"


def test_can_stop_after_failed_start(make, reactor):
    """twistd calls stopService then."""
    reactor.taken = {8082}
    parent = MultiService()
    service = make(web=["tcp:8082:interface=127.0.0.1"])
    service.setServiceParent(parent)
    with pytest.raises(StartFailed):
        parent.privilegedStartService()
    ended = []
    service.stopService().addCallback(ended.append)
    assert ended == [None]
    assert not reactor.ports[0].listening


def test_ids_and_epochs_are_short_and_random():
    for draw in (draw_id, draw_epoch):
        drawn = {draw() for _ in range(1_000)}
        assert len(drawn) > 990
        assert all(4 <= len(name) <= 8 and name.isalnum() for name in drawn)


def test_letters_of_ids_are_equally_likely():
    letters = b"".join(draw_id() for _ in range(6_200))
    counts = [letters.count(letter) for letter in set(letters)]
    assert len(counts) == 31
    assert 800 < min(counts) <= max(counts) < 1_200  # six standard deviations from 1,000
