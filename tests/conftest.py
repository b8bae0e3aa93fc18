"""What holds for every test: errors that are logged and databases that stay open are failures, and chance is not left
to chance."""

import gc
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.fakes import Logged

# Derandomized: a failure is reproducible, and builds do not fail at random. HYPOTHESIS_PROFILE=deep tests more.
settings.register_profile("usual", derandomize=True, database=None, deadline=None, max_examples=100)
settings.register_profile(
    "short",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("deep", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    """The events that are logged during a test. Errors in this list fail the test, so a test that causes one removes
    it."""
    events: Logged = []
    globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events.append)  # type: ignore[arg-type]
    errors = [event for event in events if event["log_level"] in (LogLevel.error, LogLevel.critical)]
    if errors:
        pytest.fail("\n".join(_show(event) for event in errors), pytrace=False)


@pytest.fixture(autouse=True)
def databases_are_closed() -> Iterator[None]:
    """A test that leaves a database open fails. Python 3.13 itself warns of it, but in a later test."""
    connect, opened = sqlite3.connect, list[sqlite3.Connection]()

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    sqlite3.connect = recorded  # type: ignore[assignment]
    try:
        yield
    finally:
        sqlite3.connect = connect
    left = [connection for connection in opened if _is_open(connection)]
    for connection in left:
        connection.close()
    assert not left, f"{len(left)} of {len(opened)} databases were not closed"


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:  # it is closed, or belongs to another thread
        return False
    return True


Messages = Callable[..., list[str]]
TROUBLE = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@pytest.fixture
def messages(logged: Logged) -> Messages:
    """``messages(*levels)``: the messages since the last call of these levels, by default warnings and errors."""

    def messages(*levels: Any) -> list[str]:
        found = [formatEvent(event) for event in logged if event["log_level"] in (levels or TROUBLE)]
        logged.clear()
        return found

    return messages


def _show(event: dict[str, Any]) -> str:
    failure = event.get("log_failure")
    return f"logged as {event['log_level'].name}: {formatEvent(event)}\n{failure.getTraceback() if failure else ''}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--show-failures-at-once", action="store_true", help="show a failure when it happens, not at the end"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--show-failures-at-once"):
        config.option.tbstyle = "short"
        config.option.no_summary = True  # the failures are not repeated at the end
        config.pluginmanager.register(FailuresAtOnce(config))


def pytest_collection_finish() -> None:
    """Exclude the tests themselves, 400 MB, from garbage collection: ``gc.collect`` in a test would take 0.4 s."""
    gc.collect()
    gc.freeze()


class FailuresAtOnce:
    """Prints the traceback of a failed test, or of a file that cannot be imported, at once, before the end of a long
    run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._print(report, "ERROR")

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._print(report, "FAILED" if report.when == "call" else "ERROR")

    def _print(self, report: pytest.CollectReport | pytest.TestReport, result: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line("")
            terminal.write_line(f"{result} {report.nodeid}")
            terminal.write_line(report.longreprtext)
            for title, content in report.sections:
                terminal.write_sep("-", title)
                terminal.write_line(content)
