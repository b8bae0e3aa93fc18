"""A log that cannot be written is told once, where somebody may see it."""

import sys

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher, textFileLogObserver

from twistedsock.server.logging import LogFailureReporter


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
        """Nothing waits."""


@pytest.fixture
def disk():
    return FullDisk()


@pytest.fixture
def log(disk):
    return Logger(observer=LogPublisher(textFileLogObserver(disk, timeFormat=None), LogFailureReporter()))


def test_reports_the_first_lost_line_on_stderr(log, disk, capfd):
    for number in range(10):
        log.info("line {number}", number=number)
    assert capfd.readouterr().err == "sockbridge: the log cannot be written: [Errno 28] No space left on device\n"
    disk.room = 5
    log.info("line 11")
    assert [line.split("] ")[1] for line in disk.text.splitlines()] == ["line 0", "line 11"]


def test_reports_lost_lines_once(log, disk, capfd):
    disk.room = 10
    log.warn("about an {observer}", observer="of birds")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("I/O operation on closed file")])
def test_ignores_that_stderr_cannot_be_written(log, disk, monkeypatch, error):
    class Broken:
        def write(self, text):
            raise error

    disk.room = 0
    monkeypatch.setattr(sys, "__stderr__", Broken())
    log.emit(LogLevel.error, "lost")
