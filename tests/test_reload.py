"""Reload: the settings that change, those that require a restart, and errors, which change nothing."""

import itertools
import os
import resource
import signal
from datetime import UTC, datetime, timedelta

import pytest
import txaio
from twisted import internet
from twisted.logger import LogLevel, formatEvent

from tests.authority import Authority
from tests.memory_reactor import LOOPBACK, Reactor, connect
from twistedsock import reload as reload_module
from twistedsock import tap
from twistedsock.auth.identity import RIGHTS, Right
from twistedsock.auth.origins import ListenerScope
from twistedsock.config import ChannelTable
from twistedsock.reload import POLICY_REMOVED, Reloader
from twistedsock.session.context import ServerContext
from twistedsock.webhooks.collector import EventCollector

TLS = "ssl:8443:interface=127.0.0.1:privateKey=server.key:certKey=server.pem"
HERE = ListenerScope(True, 8082)


@pytest.fixture
def authority(tmp_path):
    authority = Authority(tmp_path)
    authority.issue("server", "localhost", until=datetime.now(UTC) + timedelta(days=50))
    return authority


@pytest.fixture
def reactor(monkeypatch):
    reactor = Reactor()
    reactor.callFromThread = lambda call: call()
    monkeypatch.setattr(reload_module, "RELOAD_PAUSE_SECONDS", 0)  # the clock is not the fake one
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    reactor.stopped = 0
    monkeypatch.setattr(reactor, "stop", lambda: setattr(reactor, "stopped", reactor.stopped + 1))
    monkeypatch.setattr(internet, "reactor", reactor, raising=False)
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)
    return reactor


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Write the configuration file into the current directory."""
    monkeypatch.chdir(tmp_path)

    def configure(*lines):
        (tmp_path / "bridge.toml").write_text("\n".join(lines))

    return configure


@pytest.fixture
def start(reactor, tmp_path, monkeypatch):
    """Start a service with the configuration file and these arguments."""
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)

    def start(*words):
        options = tap.Options()
        options.parseOptions(["--config", "bridge.toml", *words])
        service = tap.makeService(options)
        service.privilegedStartService()
        service.startService()
        monkeypatch.chdir("/")  # as a daemon does
        return service

    return start


@pytest.fixture
def new_messages(logged):
    """Return the messages since the last call, without the usual ones of the start."""

    def new_messages(level=None):
        events = [(event["log_level"], formatEvent(event)) for event in logged]
        logged.clear()
        usual = ("lines on", "lines over", "web on", "Starting")
        return [words for its, words in events if level in (None, its) and not words.startswith(usual)]

    return new_messages


@pytest.fixture
def reload(configure, new_messages):
    """Write these lines into the configuration file, reload, and return the messages."""

    def reload(service, *lines, level=None):
        configure(*lines)
        new_messages()
        service.reloader.reload()
        return new_messages(level)

    return reload


RELOADED, UNCHANGED = "reloaded: configuration", "reload failed, configuration unchanged: "
NO_WEB = 'web = "none"'


def test_changes_hosts_and_origins(configure, start, reload):
    listens = [f'tcp = "{LOOPBACK}"', 'web = "tcp:8082:interface=127.0.0.1"']
    configure(*listens, 'allow-host = ["old.example"]')
    service = start()
    gate = service.web[0].factory.origin_policy
    assert gate.check_host("old.example:8082", HERE) is None
    assert reload(service, *listens, 'allow-host = ["new.example"]') == [RELOADED]
    assert gate.check_host("new.example:8082", HERE) is None
    assert gate.check_host("old.example:8082", HERE) is not None


def test_names_settings_that_require_a_restart(configure, start, reload):
    configure(NO_WEB)
    service = start()
    for _ in range(2):
        changed = ['tcp = "tcp:9999:interface=127.0.0.1"', "max-line-bytes = 1000", 'allow-host = ["new.example"]']
        assert reload(service, NO_WEB, *changed) == [RELOADED, "restart required to change: max-line-bytes, tcp"]
    assert reload(service, NO_WEB) == [RELOADED]


def test_command_line_overrides_file(configure, start, reload):
    configure(NO_WEB)
    service = start("--max-line-bytes", "1000", "--tcp", LOOPBACK)
    assert reload(service, NO_WEB, "max-line-bytes = 2000", 'tcp = "tcp:9999"') == [RELOADED]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tcp = [", "bridge.toml is not valid TOML: "),
        ('colour = "blue"', "bridge.toml: unknown option 'colour'"),
        ("max-line-bytes = 1", "bridge.toml: max-line-bytes: expected int >= 512"),
    ],
)
def test_invalid_file_changes_nothing(configure, start, reload, authority, tmp_path, line, words):
    configure(f'tcp = "{TLS}"', NO_WEB, 'allow-host = ["old.example"]')
    service = start()
    before = service.lines[0].certificates.expires_at
    authority.issue("server", "localhost")
    (message,) = reload(service, 'allow-host = ["new.example"]', line)
    assert message.startswith(f"{UNCHANGED}{tmp_path}/{words}")
    assert service.lines[0].certificates.expires_at == before
    assert service.origin_policy.check_host("old.example", HERE) is None


def test_missing_file_changes_nothing(configure, start, new_messages, tmp_path):
    configure(NO_WEB)
    service = start()
    (tmp_path / "bridge.toml").unlink()
    new_messages()
    service.reloader.reload()
    file = tmp_path / "bridge.toml"
    assert new_messages() == [f"{UNCHANGED}cannot read {file}: No such file or directory"]


def test_unreadable_key_changes_nothing(configure, start, reload, tmp_path):
    configure(NO_WEB)
    service = start()
    key = '[[access.key]]\nid = "1"\nalgorithm = "HS256"\nfile = "gone"'
    words = f"access.key[0].file: cannot read {tmp_path}/gone: No such file or directory"
    assert reload(service, NO_WEB, 'allow-host = ["new.example"]', key) == [f"{UNCHANGED}{words}"]
    assert service.origin_policy.check_host("new.example", HERE) is not None


def test_logs_exception_of_a_session_and_continues(configure, start, reload, monkeypatch):
    configure(NO_WEB, "[access]")
    service = start()

    def change_policy(context, policy):
        raise ExceptionGroup("some peers", [RuntimeError("a fault")])

    monkeypatch.setattr(ServerContext, "change_policy", change_policy)
    messages = reload(service, NO_WEB, 'allow-host = ["new.example"]', "[access]")
    assert messages == ["checking the rights of connected clients failed", RELOADED]
    assert service.origin_policy.check_host("new.example", HERE) is None


def test_removing_allow_insecure_changes_nothing(configure, start, reload):
    configure('tcp = "tcp:8081"', NO_WEB, "allow-insecure = true")
    (message,) = reload(start(), 'tcp = "tcp:8081"', NO_WEB)
    assert message.startswith(f"{UNCHANGED}tcp:8081 accepts clients from other machines")


def test_removing_the_policy_changes_nothing(configure, start, reload):
    configure("[access]", 'anonymous = { lobby = "rw" }')
    service = start()
    policy = service.context.policy
    assert reload(service, "") == [f"{UNCHANGED}{POLICY_REMOVED}"]
    assert service.context.policy is policy is not None


def test_reads_certificates_again(configure, start, new_messages, authority, tmp_path):
    configure(f'tcp = "{TLS}"', f'web = "{TLS.replace("8443", "8444")}"')
    service = start()
    assert new_messages(LogLevel.warn) == []
    until = datetime.now(UTC) + timedelta(days=80)
    authority.issue("server", "localhost", until=until)
    service.reloader.reload()
    assert new_messages() == [f"reloaded: configuration, certificate {tmp_path}/server.pem (until {until:%Y-%m-%d})"]
    assert (
        service.lines[0].certificates.expires_at
        == service.web[0].certificates.expires_at
        == until.replace(microsecond=0)
    )


def test_invalid_certificate_leaves_the_old_one(configure, start, new_messages, authority, tmp_path):
    configure(f'tcp = "{TLS}"', NO_WEB)
    service = start()
    before = service.lines[0].certificates.expires_at
    (tmp_path / "server.key").write_text("not yet")
    new_messages()
    service.reloader.reload()
    assert new_messages() == [
        f"certificate of {TLS} unchanged: no private key in {tmp_path}/server.key",
        RELOADED,
    ]
    assert service.lines[0].certificates.expires_at == before


def test_warns_of_certificate_that_expires_soon(configure, start, new_messages, authority, tmp_path):
    configure(f'tcp = "{TLS}"', f'web = "{TLS.replace("8443", "8444")}"')
    until = datetime.now(UTC) + timedelta(days=10)
    authority.issue("server", "localhost", until=until)
    words = f"the certificate {tmp_path}/server.pem expires at {until:%Y-%m-%d %H:%M} UTC"
    service = start()
    assert new_messages(LogLevel.warn) == [words]
    service.reloader.reload()
    assert new_messages(LogLevel.warn) == [words]
    authority.issue("server", "localhost", until=datetime(2021, 2, 3, tzinfo=UTC))
    service.reloader.reload()
    assert new_messages(LogLevel.warn) == [f"the certificate {tmp_path}/server.pem expired at 2021-02-03 00:00 UTC"]


def with_clients_of(authorities):
    return ["[[access.listener]]", f'endpoint = "{TLS}"', f'client-ca = "{authorities}"']


def allowing(endpoint, rights):
    return ["[[access.listener]]", f'endpoint = "{endpoint}"', f'allow = {{ lobby = "{rights}" }}']


def test_changes_client_authorities(configure, start, reload, authority, tmp_path):
    listens = [f'tcp = "{TLS}"', NO_WEB]
    configure(*listens, *with_clients_of("authority.pem"))
    service = start()
    certificates = service.lines[0].certificates
    assert certificates.authorities == tmp_path / "authority.pem"
    Authority(tmp_path, "other")
    reload(service, *listens, *with_clients_of("other.pem"))
    assert certificates.authorities == tmp_path / "other.pem"
    # The rights in the file may depend on the new authorities.
    words = f"client-ca of {TLS}: {tmp_path}/none.pem: No such file or directory"
    assert reload(service, *listens, *with_clients_of("none.pem")) == [f"{UNCHANGED}{words}"]
    assert certificates.authorities == tmp_path / "other.pem"
    (tmp_path / "other.pem").write_text("not yet")
    words = f"certificate of {TLS} unchanged: no certificate in {tmp_path}/other.pem"
    assert reload(service, *listens, *with_clients_of("other.pem")) == [words, RELOADED]
    reload(service, *listens, "[access]")
    assert certificates.authorities is None


def test_removed_endpoint_keeps_its_client_authorities(configure, start, reload, authority, tmp_path):
    configure(f'tcp = "{TLS}"', NO_WEB, *with_clients_of("authority.pem"))
    service = start()
    messages = reload(service, f'tcp = "{LOOPBACK}"', NO_WEB, "[access]")
    assert messages[-1] == "restart required to change: tcp"
    assert service.lines[0].certificates.authorities == tmp_path / "authority.pem"


def test_removed_endpoint_keeps_its_rights(configure, start, reload):
    public = "tcp:8083:interface=127.0.0.1"
    access = ["[access]", 'anonymous = { ">" = "rw" }']
    configure(f'tcp = ["{LOOPBACK}", "{public}"]', NO_WEB, *access, *allowing(public, "r"))
    service = start()
    for rights in ("rw", "r"):
        messages = reload(service, f'tcp = "{LOOPBACK}"', NO_WEB, *access, *allowing(LOOPBACK, rights))
        assert messages == [RELOADED, "restart required to change: tcp"]
        policy = service.context.policy
        assert policy.anonymous(public).grants.on(b"lobby") == Right.READ
        assert policy.anonymous(LOOPBACK).grants.on(b"lobby") == RIGHTS[rights]


@pytest.fixture
def hang_up(monkeypatch, start, reactor, configure):
    """Start with or without a terminal, and return a function that sends SIGHUP."""
    handlers = {}
    done = []
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(Reloader, "reload", lambda reloader: done.append("reload"))
    configure(NO_WEB)

    def begin(terminal, ignored=False, before_it_runs=lambda: None):
        before = signal.SIG_IGN if ignored else signal.SIG_DFL
        monkeypatch.setattr(signal, "getsignal", lambda number: before)
        monkeypatch.setattr(tap, "has_terminal", lambda: terminal)
        start()
        assert set(handlers) == {signal.SIGHUP}, "before the reactor runs"
        before_it_runs()
        reactor.run()
        reactor.stopped = 0
        return lambda: handlers[signal.SIGHUP](signal.SIGHUP, None)

    begin.handlers, begin.done = handlers, done
    return begin


def pause_of(reactor):
    """The call that ends the pause after a reload."""
    calls = reactor.getDelayedCalls()
    (pause,) = [call for call in calls if getattr(call.func, "__name__", "") == "_reload_if_requested"]
    return pause


@pytest.mark.parametrize("terminal", [True, False])
def test_sighup_reloads(hang_up, reactor, terminal):
    send = hang_up(terminal)
    send()
    reactor.advance(0)
    send()
    assert (hang_up.done, reactor.stopped) == (["reload"] * 2, 0)


def test_several_signals_are_one_reload(hang_up, reactor, monkeypatch):
    send = hang_up(False)
    monkeypatch.setattr(reload_module, "RELOAD_PAUSE_SECONDS", 3600)
    send()
    reactor.advance(0)
    for _ in range(5):
        send()
    assert hang_up.done == ["reload"]
    pause_of(reactor).reset(0)
    monkeypatch.setattr(reload_module, "RELOAD_PAUSE_SECONDS", 0)
    for _ in range(3):
        reactor.advance(0)
        assert hang_up.done == ["reload"] * 2
    send()
    assert hang_up.done == ["reload"] * 3


@pytest.mark.parametrize("access", [(), ("[access]", 'anonymous = { "a" = "r" }')], ids=["no policy", "policy"])
def test_constant_signals_are_one_reload_per_pause(configure, start, new_messages, reactor, access, monkeypatch):
    configure(NO_WEB, f'tcp = "{LOOPBACK}"', *access)
    service = start()
    monkeypatch.setattr(reload_module, "RELOAD_PAUSE_SECONDS", 3600)
    new_messages()
    for _ in range(3):
        for _ in range(5):
            service.reloader.request()
        assert new_messages() == [RELOADED]
        pause_of(reactor).reset(0)
        reactor.advance(0)


def test_reload_waits_until_the_last_one_has_reached_all_sessions(configure, start, new_messages, reactor):
    configure(NO_WEB, f'tcp = "{LOOPBACK}"', "[access]", 'anonymous = { "a" = "r" }')
    service = start()
    broker, clock = service.context.broker, itertools.count(1000.0)
    protocols = [connect(reactor)[0] for _ in range(3)]
    for protocol in protocols:
        protocol.dataReceived(b"SUB a\n")
    broker.clock = broker.scheduler.clock = lambda: next(clock)  # each reading ends a time slice
    configure(NO_WEB, f'tcp = "{LOOPBACK}"', "[access]", 'anonymous = { "b" = "r" }')
    new_messages()
    for _ in range(5):
        service.reloader.request()
    assert new_messages() == [RELOADED]
    while any(protocol.pipeline.session.subscriptions for protocol in protocols):
        assert new_messages() == []
        reactor.advance(0)
    for _ in range(10):
        reactor.advance(0)
    assert new_messages() == [RELOADED]


def test_continues_after_a_failed_reload(start, configure, reactor, monkeypatch):
    configure(NO_WEB)
    service = start()
    monkeypatch.setattr(service.reloader, "reload", lambda: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            service.reloader.request()
        reactor.advance(0)


def test_stops_when_its_terminal_closes(hang_up, reactor, monkeypatch):
    send = hang_up(True)
    monkeypatch.setattr(tap, "has_terminal", lambda: False)
    send()
    assert (hang_up.done, reactor.stopped) == ([], 1)
    assert hang_up.handlers[signal.SIGHUP] is signal.SIG_IGN


def test_daemon_without_terminal_reloads_on_sighup(hang_up, reactor, monkeypatch):
    def leave():
        monkeypatch.setattr(tap, "has_terminal", lambda: False)

    send = hang_up(True, before_it_runs=leave)
    send()
    assert (hang_up.done, reactor.stopped) == (["reload"], 0)


def test_nohup_keeps_it_running_without_terminal(hang_up, reactor, monkeypatch):
    send = hang_up(True, ignored=True)
    monkeypatch.setattr(tap, "has_terminal", lambda: False)
    send()
    assert (hang_up.done, reactor.stopped) == (["reload"], 0)


@pytest.mark.parametrize("there", [True, False])
def test_detects_terminal(monkeypatch, there):
    def open_(path, flags):
        assert path == "/dev/tty"
        if not there:
            raise OSError(6, "No such device or address")
        return 77

    closed = []
    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "close", closed.append)
    assert tap.has_terminal() is there
    assert closed == [77] * there


def test_changes_ages_of_channels(configure, start, reload):
    configure(NO_WEB)
    service = start()
    assert reload(service, NO_WEB, '[channels."sensors/>"]', 'age = "90d"') == [RELOADED]
    assert service.reloader.settings.channels == {"sensors/>": ChannelTable(age="90d")}
    (message,) = reload(service, NO_WEB, '[channels."sensors/>"]', 'age = "90"')
    assert message.startswith(UNCHANGED) and 'channels."sensors/>": the age must be a number and a unit' in message
    assert service.reloader.settings.channels == {"sensors/>": ChannelTable(age="90d")}


HOOK = '[[webhook]]\nurl = "http://127.0.0.1:9000/"\nevents = ["event-published"]\nsecret-file = "hook.secret"'


def hooks_of(service):
    return [observer for observer in service.context.broker.observers if isinstance(observer, EventCollector)]


def test_changes_webhooks_unless_they_are_invalid(configure, start, reload, tmp_path):
    secret = tmp_path / "hook.secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)
    configure(NO_WEB)
    service = start()
    assert hooks_of(service) == []
    assert reload(service, NO_WEB, HOOK) == [RELOADED]
    (hook,) = hooks_of(service)
    assert list(service.webhooks.statistics) == ["127.0.0.1:9000"]
    secret.write_text("short")
    words = f"webhook[0].secret-file: {secret} contains 5 bytes: a secret must have at least 16"
    assert reload(service, NO_WEB, HOOK) == [f"{UNCHANGED}{words}"]
    assert hooks_of(service) == [hook]
    secret.write_text("another secret, as long")
    secret.chmod(0o644)
    assert set(reload(service, NO_WEB, HOOK)) == {
        RELOADED,
        f"users other than the owner can read the secret in {secret} (mode 0644): chmod 600",
    }
    assert hook.target.secret == b"another secret, as long"
    reload(service, NO_WEB)
    assert hooks_of(service) == []
