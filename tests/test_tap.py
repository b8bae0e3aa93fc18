"""The options of ``twistd sockbridge``, their help, and the service that it creates."""

import gc
import json
import re
import resource
import signal
import time
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from twisted.application.service import Application, IService, MultiService
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, Logger, LogPublisher, formatEvent, globalLogPublisher

from twistedsock import tap
from twistedsock.config import HEADINGS, OPTIONS, Settings
from twistedsock.server.logging import ConnectionLog, LogFailureReporter
from twistedsock.service import SockbridgeService
from twistedsock.speedups import IMPLEMENTATION

NAMES = [
    field.encode_name
    for field in msgspec.structs.fields(Settings)
    if field.name not in ("channels", "access", "webhook")
]


def parse(*arguments):
    options = tap.Options()
    options.parseOptions(list(arguments))
    return options.settings


@pytest.fixture
def error():
    """Return the error for some arguments, which is one sentence."""

    def refused(*arguments):
        with pytest.raises(SystemExit) as caught:
            parse(*arguments)
        words = caught.value.code
        assert isinstance(words, str), "Python prints a string to stderr, and exits with 1"
        assert words.startswith("sockbridge: ")
        assert "\n" not in words
        return words

    return refused


def test_defaults():
    assert parse() == Settings()


def test_endpoints_are_repeatable():
    settings = parse("--tcp", "tcp:1", "--web=tcp:2", "--tcp", "unix:/run/bridge")
    assert (settings.tcp, settings.web) == (("tcp:1", "unix:/run/bridge"), ("tcp:2",))


def test_none_disables_a_protocol():
    settings = parse("--tcp", "none")
    assert (settings.tcp, settings.web) == (("none",), Settings().web)


def test_origins_and_hosts_are_repeatable():
    settings = parse("--allow-origin=https://a", "--allow-origin=https://b", "--allow-host", "c", "--allow-host", "d")
    assert (settings.allow_origin, settings.allow_host) == (("https://a", "https://b"), ("c", "d"))


def test_proxies_are_repeatable():
    lines, web = Settings().tcp[0], Settings().web[0]
    trusted, proxied = ["--trusted-proxy=::1", "--trusted-proxy=unix"], ["--proxy-protocol", lines]
    settings = parse(*trusted, *proxied, "--proxy-protocol", web)
    assert (settings.trusted_proxy, settings.proxy_protocol) == (("::1", "unix"), (lines, web))


def test_parses_do_not_share_lists():
    parse("--tcp", "tcp:1")
    assert parse().tcp == Settings().tcp


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_is_an_option(name):
    default = msgspec.to_builtins(Settings())[name]
    required = {
        "proxy-protocol": "trusted-proxy=::1",
        "backplane-password-file": "backplane=redis://host",
        "backplane-sentinel-password-file": "backplane=redis+sentinel://host/mymaster",
    }
    values = {
        "allow-insecure": [],
        "slow-consumer": ["close"],
        "log-format": ["json"],
        "trusted-proxy": ["::1"],
        "allow-origin": ["http://a"],
        "socketio-channel": ["chat"],
        "state": ["/state"],
        "state-sync": ["1s"],
        "backplane": ["redis://host"],
    }.get(name)
    if name in required:
        values = ["/file" if name.endswith("-file") else Settings().tcp[0], f"--{required[name]}"]
    if values is None:
        values = ["tcp:1"] if isinstance(default, tuple) else [str(default + 1)]
    changed = msgspec.to_builtins(parse(f"--{name}", *values))
    different = {key for key, value in changed.items() if value != msgspec.to_builtins(Settings())[key]}
    assert different == {name, *[option.partition("=")[0] for other, option in required.items() if other == name]}


def test_command_line_overrides_file(tmp_path):
    file = tmp_path / "bridge.toml"
    file.write_text('tcp = "tcp:1"\nweb = "tcp:2"\nmax-line-bytes = 1024\nallow-insecure = true\n')
    settings = parse("--config", str(file), "--tcp", "tcp:3", "--max-line-bytes", "2048")
    assert (settings.tcp, settings.web) == (("tcp:3",), ("tcp:2",))
    assert (settings.max_line_bytes, settings.allow_insecure) == (2048, True)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--colour", "blue"], "colour"),
        (["--drain", "5"], "option --drain was renamed: use --shutdown-timeout; "),
        (["--max-line=1000"], "option --max-line was renamed: use --max-line-bytes; "),
        (["--tcp"], "tcp"),
        (["8081"], "8081"),
        (["--max-line-bytes", "long"], "max-line-bytes"),
        (["--config", "/nowhere/bridge.toml"], "/nowhere/bridge.toml"),
    ],
)
def test_error_is_one_sentence_that_refers_to_help(error, arguments, word):
    words = error(*arguments)
    assert word in words
    assert "--help" in words


URLS_WITH_PASSWORDS = [
    "redis://ann:secret@host",
    "redis://:secret@host/x",
    "unix://:secret@/run/redis",
    "redis+sentinel://host/main?sentinel_password=secret",
]


@pytest.mark.parametrize("url", URLS_WITH_PASSWORDS)
def test_rejects_a_password_that_other_users_could_read(error, url):
    words = error("--backplane", url)
    assert "contains a password" in words and "SOCKBRIDGE_BACKPLANE_PASSWORD" in words and "secret" not in words


@pytest.fixture
def help_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code in (None, 0)
    return capsys.readouterr().out


def test_help_groups_options_under_headings(help_text):
    sections = dict(part.split(":\n", 1) for part in help_text.split("\n\n") if re.match(r"[A-Z]\w+:\n", part))
    for heading in HEADINGS:
        named = re.findall(r"^  --([a-z-]+)", sections[heading], re.M)
        assert named == [option.name for option in OPTIONS if option.heading == heading]
    assert re.findall(r"^  (?:-c, )?--([a-z-]+)", sections["Other"], re.M) == ["config", "version", "help"]


def test_help_fits_into_terminal_and_shows_units_and_defaults(help_text):
    assert max(map(len, help_text.splitlines())) <= 80
    words = " ".join(help_text.split())
    for shown in (
        "--history-age SECONDS how long a channel keeps an event [300]",
        "--max-buffered-bytes BYTES maximum size of unfinished input and unsent output of all connections "
        "[1073741824 = 1 GiB]",
        "repeatable; none: disable [tcp:8081:interface=127.0.0.1]",
        "--slow-consumer ACTION",
        "--bytes-burst BYTES bytes that a remote client can send at once after a pause [8388608 = 8 MiB]",
    ):
        assert shown in words


def test_help_has_example_and_address_of_documentation(help_text):
    assert "Example:\n  twistd -n sockbridge --config sockbridge.toml" in help_text
    page = re.search(r"^Documentation: (\S+)", help_text, re.M)[1]
    assert (Path(__file__).parent.parent / page).exists()


def test_version_lists_dependencies(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--version")
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"sockbridge/{version('sockbridge')} twisted/{version('twisted')} ")
    assert "autobahn/" in said and "python/3." in said and said.endswith(f" {IMPLEMENTATION}\n")


@pytest.fixture
def machine(monkeypatch):
    """A fake reactor, and fake limits of open files."""
    from twisted import internet

    reactor = MemoryReactorClock()
    monkeypatch.setattr(internet, "reactor", reactor, raising=False)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    reactor.callFromThread = lambda call: call()
    reactor.files = (100_000, 100_000)
    monkeypatch.setattr(resource, "getrlimit", lambda which: reactor.files)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: setattr(reactor, "files", limits))
    return reactor


def make(*arguments):
    options = tap.Options()
    options.parseOptions(list(arguments))
    return tap.makeService(options)


def test_creates_service_from_settings(machine):
    service = make("--tcp", "tcp:1:interface=127.0.0.1", "--web", "none")
    assert IService.providedBy(service)
    assert isinstance(service, SockbridgeService)
    assert [listener.description for listener in service.lines] == ["tcp:1:interface=127.0.0.1"]
    assert service.context.version.decode() == version("sockbridge")
    assert machine.tcpServers == []


def test_error_names_invalid_endpoint(machine):
    with pytest.raises(SystemExit) as caught:
        make("--tcp", "carrier-pigeon:8081")
    assert caught.value.code.startswith("sockbridge: cannot use the endpoint 'carrier-pigeon:8081': ")


@pytest.mark.parametrize(
    ("before", "after", "warns"),
    [
        ((1_024, 100_000), (1_100, 100_000), False),
        ((1_024, resource.RLIM_INFINITY), (1_100, resource.RLIM_INFINITY), False),
        ((1_024, 1_050), (1_050, 1_050), True),
        ((4_096, 4_096), (4_096, 4_096), False),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY), False),
    ],
)
def test_raises_limit_of_open_files(machine, logged, before, after, warns):
    machine.files = before
    make("--web=none", "--max-connections=1000")
    assert machine.files == after
    said = [formatEvent(event) for event in logged]
    words = f"max-connections is 1000, but this process can open {after[0]} files only (ulimit -n)"
    assert said == ([words] if warns else [])


def test_timers_use_the_monotonic_clock(machine):
    service = make("--web=none")
    assert machine.seconds is time.monotonic
    assert service.context.broker.clock is time.monotonic


def test_installs_reporter_of_log_failures(machine, monkeypatch):
    observers = []
    monkeypatch.setattr(globalLogPublisher, "addObserver", observers.append)
    make("--web=none")
    assert [type(observer) for observer in observers] == [LogFailureReporter]


def test_tunes_garbage_collector_when_the_reactor_runs(machine, monkeypatch):
    done = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: done.append("threshold"))
    make("--web=none")
    assert done == []
    machine.run()
    assert done == ["collect", "freeze", "threshold"]


def test_second_signal_stops_now(machine, monkeypatch):
    """The first signal is handled by the reactor, and starts the shutdown."""
    handlers, hurried = {}, []
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(SockbridgeService, "stop_now", lambda service: hurried.append(service))
    service = make("--web=none")
    machine.run()
    assert set(handlers) == {signal.SIGHUP}
    (end,) = machine.triggers["before"]["shutdown"]
    call, arguments, options = end
    call(*arguments, **options)
    assert set(handlers) == {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert hurried == [service]


class Twistd:
    """The options of twistd."""

    def __init__(self, **given):
        self.given = given

    def make(self, *arguments):
        options = tap.Options()
        options.parent = self.given
        options.parseOptions([*arguments, "--web=none"])
        return tap.makeService(options)


def observer_of(service):
    """Return the observer that twistd finds."""
    application = Application("sockbridge")
    service.setServiceParent(application)
    return application.getComponent(ILogObserver)


def test_logs_text_by_default(machine):
    assert observer_of(Twistd(nodaemon=1).make()) is None
    assert observer_of(Twistd(nodaemon=1).make("--log-format=text")) is None


def test_logs_json_if_configured(machine, capsys):
    observer = observer_of(Twistd(nodaemon=1).make("--log-format=json"))
    Logger("kitchen", observer=LogPublisher(observer)).info("bread")
    assert json.loads(capsys.readouterr().out)["message"] == "bread"


@pytest.mark.parametrize("kind", ["json", "text"])
def test_logs_number_of_omitted_disconnects_at_exit(machine, logged, kind):
    service = Twistd(nodaemon=1).make(f"--log-format={kind}")
    (watcher,) = [one for one in service.context.connection_events.listeners if isinstance(one, ConnectionLog)]
    watcher.omitted = 3
    (end,) = machine.triggers["after"]["shutdown"]
    end[0](*end[1], **end[2])
    assert formatEvent(logged[-1]) == "3 more clients disconnected"


def test_keeps_custom_logger_of_twistd(machine):
    assert observer_of(Twistd(nodaemon=1, logger=lambda: None).make("--log-format=json")) is None


def test_does_not_change_log_of_other_programs(machine, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert observer_of(Twistd(reactor="default").make("--log-format=json")) is None
    assert list(tmp_path.iterdir()) == []


def test_works_without_application(machine):
    service = Twistd(nodaemon=1).make("--log-format=json")
    service.setServiceParent(MultiService())
    assert service.parent is not None


def test_error_names_unwritable_log(machine):
    with pytest.raises(SystemExit) as caught:
        Twistd(nodaemon=0, logfile="/nowhere/bridge.log").make("--log-format=json")
    assert caught.value.code == "sockbridge: cannot log to /nowhere/bridge.log: No such file or directory"
