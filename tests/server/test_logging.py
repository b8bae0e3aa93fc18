"""JSON logs, the report of a log that cannot be written, and a line for each disconnected client."""

import io
import json
import signal
import sys
import syslog

import pytest
from twisted.internet.task import Clock
from twisted.logger import FileLogObserver, Logger, LogLevel, LogPublisher, formatEvent, textFileLogObserver
from twisted.python.failure import Failure
from twisted.python.log import LogPublisher as OldPublisher
from twisted.python.logfile import LogFile

from twistedsock.errors import CloseReason
from twistedsock.server import logging
from twistedsock.server.logging import (
    MAX_LINES_PER_SECOND,
    ConnectionLog,
    LogFailureReporter,
    SyslogObserver,
    format_json,
    json_observer,
)
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy


@pytest.fixture
def lines():
    return []


@pytest.fixture
def log(lines):
    return Logger("kitchen", observer=LogPublisher(lambda event: lines.append(format_json(event))))


def parse_entry(lines):
    (line,) = lines
    assert line.endswith("}\n") and line.count("\n") == 1
    assert line.isascii()
    return json.loads(line)


def test_line_has_time_level_namespace_and_message():
    event = {
        "log_time": 1_700_000_000.25,
        "log_level": LogLevel.warn,
        "log_namespace": "kitchen",
        "log_format": "{bread} is ready",
        "bread": "rye",
    }
    assert json.loads(format_json(event)) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "level": "warn",
        "namespace": "kitchen",
        "message": "rye is ready",
        "bread": "rye",
    }


def test_includes_fields_with_plain_values_only(log, lines):
    values = {"one": 1, "half": 0.5, "yes": True, "none": None, "bytes": b"\xff\xc3\xa9", "words": "é"}
    log.info("looked", thing=object(), many=[1], endless=float("inf"), **values)
    entry = parse_entry(lines)
    for name in ("time", "level", "namespace", "message"):
        del entry[name]
    assert entry == {**values, "bytes": "\\xffé", "endless": "inf"}


def test_fields_of_an_event_do_not_replace_those_of_the_line(log, lines):
    log.info("truth", message="lie", time=1, namespace="lie", traceback="lie")
    entry = parse_entry(lines)
    assert (entry["message"], entry["level"], entry["namespace"]) == ("truth", "info", "kitchen")
    assert "traceback" not in entry


def test_omits_field_that_repeats_the_message(log, lines):
    log.info("{words}", words="the oven is hot")
    assert "words" not in parse_entry(lines)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\x9b2J", "\u2028", "\ud800", "\0"])
def test_escapes_control_characters(log, lines, name):
    log.info("{nick} came", nick=name)
    entry = parse_entry(lines)
    assert entry["nick"] == name
    assert name in entry["message"]


def test_traceback_is_one_string(log, lines):
    try:
        raise ValueError("flour\nis out")
    except ValueError:
        log.failure("no bread")
    entry = parse_entry(lines)
    assert (entry["level"], entry["message"]) == ("critical", "no bread")
    assert entry["traceback"].startswith("Traceback (most recent call last)")
    assert "flour\nis out" in entry["traceback"]


def test_reports_failure_whose_text_cannot_be_formatted(log, lines, monkeypatch):
    def broken(self):
        raise RuntimeError

    monkeypatch.setattr(Failure, "getTraceback", broken)
    log.failure("no bread", Failure(ValueError()))
    assert parse_entry(lines)["traceback"] == "the traceback could not be written"


def test_event_without_message_is_no_line():
    assert format_json({}) is None
    assert format_json({"log_time": 1.0, "log_format": ""}) is None


def test_event_of_the_old_log_has_no_duplicate_fields(lines):
    observed = LogPublisher(lambda event: lines.append(format_json(event)))
    old = OldPublisher(observerPublisher=LogPublisher(), publishPublisher=observed)
    old.msg("the", "bread", system="oven", loaves=2)
    entry = parse_entry(lines)
    assert (entry["message"], entry["loaves"]) == ("the bread", 2)
    assert set(entry) == {"time", "level", "namespace", "message", "loaves"}


@pytest.fixture
def signals(monkeypatch):
    """The signal handlers of a new process."""
    table = {}
    monkeypatch.setattr(signal, "signal", table.__setitem__)
    monkeypatch.setattr(signal, "getsignal", table.get)
    return table


@pytest.fixture(autouse=True)
def files(monkeypatch):
    """Closes the opened log files at the end."""
    opened = []

    class Closing(LogFile):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.append(self)

    monkeypatch.setattr(logging, "LogFile", Closing)
    yield
    for file in opened:
        file.close()


def tell(observer, words):
    Logger("kitchen", observer=LogPublisher(observer)).info(words)


@pytest.mark.parametrize("twistd", [{"nodaemon": 1}, {"nodaemon": 1, "logfile": None}, {"nodaemon": 1, "logfile": "-"}])
def test_logs_to_stdout_in_the_foreground(monkeypatch, signals, twistd):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    observer = json_observer(twistd, lambda call: call())
    assert isinstance(observer, FileLogObserver), "a disk that is full is found out by that"
    tell(observer, "bread")
    assert json.loads(out.getvalue())["message"] == "bread"
    assert signals == {}


@pytest.mark.parametrize(
    ("twistd", "name"),
    [({}, "twistd.log"), ({"logfile": "b.log"}, "b.log"), ({"logfile": "b.log", "nodaemon": 1}, "b.log")],
)
def test_signal_rotates_the_file(monkeypatch, tmp_path, signals, twistd, name):
    monkeypatch.chdir(tmp_path)
    observer = json_observer(twistd, lambda call: call())
    tell(observer, "before")
    signals[signal.SIGUSR1](signal.SIGUSR1, None)
    tell(observer, "after")
    assert json.loads((tmp_path / f"{name}.1").read_text())["message"] == "before"
    assert json.loads((tmp_path / name).read_text())["message"] == "after"


def test_keeps_existing_signal_handler(monkeypatch, tmp_path, signals):
    monkeypatch.chdir(tmp_path)
    signals[signal.SIGUSR1] = taken = object()
    json_observer({}, lambda call: call())
    assert signals[signal.SIGUSR1] is taken


def test_rejects_stdout_for_a_daemon(signals):
    with pytest.raises(SystemExit) as caught:
        json_observer({"logfile": "-"}, lambda call: call())
    assert caught.value.code == "sockbridge: a daemon cannot log to stdout"


def test_syslog_messages_have_a_priority(monkeypatch):
    messages, opened = [], []
    monkeypatch.setattr(syslog, "openlog", opened.append)
    monkeypatch.setattr(
        logging,
        "SyslogObserver",
        lambda prefix: SyslogObserver(prefix, lambda *args: messages.append(args)),
    )
    observer = json_observer({"syslog": 1, "prefix": "bridge", "logfile": "b.log"}, lambda call: call())
    log = Logger("kitchen", observer=LogPublisher(observer))
    log.info("bread\nbutter")
    log.error("fire")
    observer({})
    assert opened == ["bridge"]
    assert [(priority, json.loads(line)["message"]) for priority, line in messages] == [
        (syslog.LOG_INFO, "bread\nbutter"),
        (syslog.LOG_ERR, "fire"),
    ]
    assert all("\n" not in line for _, line in messages)


@pytest.fixture
def time():
    return Clock()


@pytest.fixture
def watched(server, time):
    server.context.connection_events.listeners.append(ConnectionLog(server.broker.clock, time.callLater))
    return server


def logged_lines(logged):
    return [json.loads(format_json(event)) for event in logged]


def test_line_has_client_traffic_and_reason(watched, logged):
    peer = watched.line_client()
    peer.outlet.stats = TcpStats(sent=200, received=100, unsent=0, rtt=0.001)
    peer.send("NICK ann", "SUB kitchen", "PUB kitchen secret")
    watched.now += 2.5
    peer.session.connection_lost("cleanly")
    (entry,) = logged_lines(logged)
    assert {name: entry[name] for name in ("level", "namespace", "message")} == {
        "level": "info",
        "namespace": "twistedsock.server.logging.ConnectionLog",
        "message": f"line client {entry['id']} 'ann' of 127.0.0.1:50000 disconnected after 2.5 s, "
        "200 bytes sent, 100 received, by the client: 'it closed the connection'",
    }
    assert {name: value for name, value in entry.items() if name not in ("time", "level", "namespace", "message")} == {
        "id": peer.session.client.id.decode(),
        "nick": "ann",
        "subject": None,
        "dialect": "line",
        "client": "127.0.0.1:50000",
        "server": "127.0.0.1:8081",
        "seconds": 2.5,
        "received": 100,
        "sent": 200,
        "by": "peer",
        "why": "it closed the connection",
        "how": "cleanly",
    }


@pytest.mark.parametrize(
    ("how", "by", "why"),
    [
        ("broken", "peer", "its connection broke"),
        ("aborted", "server", "it was reset"),
        ("", "peer", "it closed the connection"),
    ],
)
def test_line_has_a_default_reason(watched, logged, how, by, why):
    watched.line_client().session.connection_lost(how)
    (entry,) = logged_lines(logged)
    assert (entry["by"], entry["why"], entry["how"]) == (by, why, how)


def test_line_names_the_subject(watched, logged):
    watched.context.policy = FakePolicy({}, {"t": ("ann", {}, None)})
    anonymous, known, renamed = (watched.line_client() for _ in range(3))
    known.send("AUTH t")
    renamed.send("AUTH t")
    renamed.session.client.nick = b"balcony"
    for peer in (anonymous, known, renamed):
        peer.session.connection_lost("broken")
    end = "of 127.0.0.1:50000 disconnected after 0.0 s, by the client: 'its connection broke'"
    assert [formatEvent(event) for event in logged] == [
        f"line client p1 {end}",
        f"line client p2 'ann' {end}",
        f"line client p3 'balcony' with a token of 'ann' {end}",
    ]


def test_escapes_reasons_given_by_clients(watched, logged):
    peer = watched.json_client()
    peer.session.mark_closing("code 1000 \x1b[2J\nline client x \u202e", "peer")
    peer.session.connection_lost("cleanly")
    assert formatEvent(logged[0]).endswith(r"by the client: 'code 1000 \x1b[2J\nline client x \u202e'")


def test_line_has_the_reason_of_the_server(watched, logged):
    peer = watched.line_client()
    peer.session.close(CloseReason.GOING_AWAY, b"the server is going away")
    peer.session.connection_lost()
    (entry,) = logged_lines(logged)
    assert (entry["by"], entry["why"]) == ("server", "the server is going away")
    assert entry["sent"] is entry["received"] is None, "of a Unix socket nothing is known"


def test_line_has_no_credentials(watched, logged):
    watched.context.policy = FakePolicy({}, {"t0ken": ("ann", {}, None)})
    peer = watched.line_client()
    peer.send("AUTH t0ken", "AUTH wr0ng")
    peer.session.connection_lost()
    assert logged_lines(logged)[0]["subject"] == "ann"
    assert "t0ken" not in format_json(logged[0]) and "wr0ng" not in format_json(logged[0])


def test_omits_lines_over_the_limit_and_counts_them(watched, time, logged):
    def flood(count):
        for _ in range(count):
            watched.line_client().session.connection_lost()

    flood(MAX_LINES_PER_SECOND + 5)
    assert len(logged) == MAX_LINES_PER_SECOND
    time.advance(1)
    assert formatEvent(logged[-1]) == "5 more clients disconnected"
    flood(2)
    time.advance(1)
    assert len(logged) == MAX_LINES_PER_SECOND + 3
    flood(MAX_LINES_PER_SECOND + 1)
    time.advance(1)
    assert formatEvent(logged[-1]) == "1 more clients disconnected"
    assert time.getDelayedCalls() == []


# A log that cannot be written.


class FullDisk:
    """A file that takes ``room`` lines."""

    def __init__(self):
        self.room, self.text = 1, ""

    def write(self, text):
        if not self.room:
            raise OSError(28, "No space left on device")
        self.room -= 1
        self.text += text

    def flush(self):
        """Not buffered."""


@pytest.fixture
def disk():
    return FullDisk()


@pytest.fixture
def disk_log(disk):
    return Logger(observer=LogPublisher(textFileLogObserver(disk, timeFormat=None), LogFailureReporter()))


def test_reports_the_first_lost_line_on_stderr(disk_log, disk, capfd):
    for number in range(10):
        disk_log.info("line {number}", number=number)
    assert capfd.readouterr().err == "sockbridge: the log cannot be written: [Errno 28] No space left on device\n"
    disk.room = 5
    disk_log.info("line 11")
    assert [line.split("] ")[1] for line in disk.text.splitlines()] == ["line 0", "line 11"]


def test_reports_lost_lines_once(disk_log, disk, capfd):
    disk.room = 10
    disk_log.warn("about an {observer}", observer="of birds")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("I/O operation on closed file")])
def test_ignores_that_stderr_cannot_be_written(disk_log, disk, monkeypatch, error):
    class Broken:
        def write(self, text):
            raise error

    disk.room = 0
    monkeypatch.setattr(sys, "__stderr__", Broken())
    disk_log.emit(LogLevel.error, "lost")
