"""The log as JSON: each event is one line, whatever it holds, wherever it goes."""

import io
import json
import signal
import sys
import syslog

import pytest
from twisted.logger import FileLogObserver, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.python.log import LogPublisher as OldPublisher
from twisted.python.logfile import LogFile

from twistedsock.server import logging
from twistedsock.server.logging import SyslogObserver, format_json, json_observer


@pytest.fixture
def lines():
    return []


@pytest.fixture
def log(lines):
    return Logger("kitchen", observer=LogPublisher(lambda event: lines.append(format_json(event))))


def said(lines):
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
    told = said(lines)
    for name in ("time", "level", "namespace", "message"):
        del told[name]
    assert told == {**values, "bytes": "\\xffé", "endless": "inf"}


def test_fields_of_an_event_do_not_replace_those_of_the_line(log, lines):
    log.info("truth", message="lie", time=1, namespace="lie", traceback="lie")
    told = said(lines)
    assert (told["message"], told["level"], told["namespace"]) == ("truth", "info", "kitchen")
    assert "traceback" not in told


def test_omits_field_that_repeats_the_message(log, lines):
    log.info("{words}", words="the oven is hot")
    assert "words" not in said(lines)


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\x9b2J", "\u2028", "\ud800", "\0"])
def test_escapes_control_characters(log, lines, name):
    log.info("{nick} came", nick=name)
    told = said(lines)
    assert told["nick"] == name
    assert name in told["message"]


def test_traceback_is_one_string(log, lines):
    try:
        raise ValueError("flour\nis out")
    except ValueError:
        log.failure("no bread")
    told = said(lines)
    assert (told["level"], told["message"]) == ("critical", "no bread")
    assert told["traceback"].startswith("Traceback (most recent call last)")
    assert "flour\nis out" in told["traceback"]


def test_reports_failure_whose_text_cannot_be_formatted(log, lines, monkeypatch):
    def broken(self):
        raise RuntimeError

    monkeypatch.setattr(Failure, "getTraceback", broken)
    log.failure("no bread", Failure(ValueError()))
    assert said(lines)["traceback"] == "the traceback could not be written"


def test_event_without_message_is_no_line():
    assert format_json({}) is None
    assert format_json({"log_time": 1.0, "log_format": ""}) is None


def test_event_of_the_old_log_has_no_duplicate_fields(lines):
    observed = LogPublisher(lambda event: lines.append(format_json(event)))
    old = OldPublisher(observerPublisher=LogPublisher(), publishPublisher=observed)
    old.msg("the", "bread", system="oven", loaves=2)
    told = said(lines)
    assert (told["message"], told["loaves"]) == ("the bread", 2)
    assert set(told) == {"time", "level", "namespace", "message", "loaves"}


@pytest.fixture
def signals(monkeypatch):
    """The signals' table, as if this process had a fresh one."""
    table = {}
    monkeypatch.setattr(signal, "signal", table.__setitem__)
    monkeypatch.setattr(signal, "getsignal", table.get)
    return table


@pytest.fixture(autouse=True)
def files(monkeypatch):
    """The log files that are opened, closed in the end: a process keeps its own for ever."""
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
    told, opened = [], []
    monkeypatch.setattr(syslog, "openlog", opened.append)
    monkeypatch.setattr(
        logging, "SyslogObserver", lambda prefix: SyslogObserver(prefix, lambda *said: told.append(said))
    )
    observer = json_observer({"syslog": 1, "prefix": "bridge", "logfile": "b.log"}, lambda call: call())
    log = Logger("kitchen", observer=LogPublisher(observer))
    log.info("bread\nbutter")
    log.error("fire")
    observer({})
    assert opened == ["bridge"]
    assert [(priority, json.loads(line)["message"]) for priority, line in told] == [
        (syslog.LOG_INFO, "bread\nbutter"),
        (syslog.LOG_ERR, "fire"),
    ]
    assert all("\n" not in line for _, line in told)
