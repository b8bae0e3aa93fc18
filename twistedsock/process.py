"""A process that the supervisor of several workers has started: a worker, or the hub that joins them."""

import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, globalLogBeginner
from twisted.python.reflect import namedModule

from twistedsock.backplane_builder import State, draw_epoch
from twistedsock.backplanes.hub import HUB_NAME, Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.hub_counts import ConnectionCounts
from twistedsock.backplanes.hub_messages import MAX_TAIL_BYTES
from twistedsock.backplanes.memory_history import MemoryHistoryBackplane
from twistedsock.config import Settings, SettingsError, read_settings
from twistedsock.metrics.processes import METRICS, STATISTICS, hub_statistics
from twistedsock.metrics.prometheus import HubMetrics
from twistedsock.metrics.statistics import ProcessStatistics
from twistedsock.reload import Reloader
from twistedsock.server.listeners import PassedPort
from twistedsock.server.reactor import use_monotonic_clock
from twistedsock.server.twisted_internals import adopt_unix_port
from twistedsock.service import SWEEP_SECONDS, SockbridgeService, StartFailed
from twistedsock.tap import prepare_process
from twistedsock.workers.assignment import FIRST_PORT, STARTED, Assignment, worker_name, worker_settings
from twistedsock.workers.hub_sockets import HubConnector, HubFactory
from twistedsock.workers.relayed_logs import PipeObserver, write_line
from twistedsock.workers.watchdog import report_life

WAIT_FOR_WORKERS_SECONDS = 0.2

_log = Logger()


def main() -> None:
    """Run until the supervisor ends this process, or ends itself."""
    os.setsid()  # Ctrl-C in the terminal is for the supervisor
    line = sys.stdin.buffer.readline()
    if not line:
        return
    assignment = msgspec.json.decode(line, type=Assignment)
    namedModule(assignment.reactor).install()
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    globalLogBeginner.beginLoggingTo([PipeObserver()], redirectStandardIO=False)
    reactor.callWhenRunning(report_life, write_line, assignment.settings.worker_timeout, reactor)
    run = _run_worker if assignment.role == "worker" else _run_hub
    try:
        run(assignment, reactor)
    except (SettingsError, StartFailed, OSError) as error:
        raise SystemExit(str(error)) from None
    reactor.run()


class _SupervisorWatch:
    """Waits for the end of stdin. ``ended`` is called once."""

    def __init__(self, reactor: Any, ended: Callable[[], object]) -> None:
        self._reactor = reactor
        self._ended = ended
        reactor.addReader(self)

    def fileno(self) -> int:
        return 0

    def logPrefix(self) -> str:
        return "supervisor"

    def doRead(self) -> None:
        if not os.read(0, 1024):
            self.connectionLost(None)

    def connectionLost(self, reason: object) -> None:
        """Some reactors report the end of a pipe like this. It is also called when the reactor stops."""
        self._reactor.removeReader(self)
        self._ended()


def _stop(reactor: Any) -> None:
    if reactor.running:
        reactor.stop()


def _run_worker(assignment: Assignment, reactor: Any) -> None:
    backplane = WorkerBackplane(assignment.name.encode(), partial(reactor.callLater, 0))
    backplane.names = [*map(worker_name, range(assignment.settings.workers)), HUB_NAME]
    backplane.restarts = assignment.restarts
    connector = HubConnector(backplane, assignment.hub_path, reactor)
    ports = [PassedPort(FIRST_PORT + index, family) for index, family in enumerate(assignment.families)]
    settings = worker_settings(assignment.settings)

    def read() -> Settings:
        return worker_settings(read_settings(assignment.config, dict(assignment.given)))

    service = SockbridgeService(
        settings, reactor, version("sockbridge"), read, backplane=backplane, ports=ports, others=backplane
    )
    prepare_process(service, settings, reactor)

    def start() -> None:
        try:
            service.privilegedStartService()
            service.startService()
        except StartFailed as error:
            _log.error("{error}", error=str(error))
            _stop(reactor)
        else:
            write_line(STARTED)

    def stop() -> Deferred[None]:
        stopped = maybeDeferred(service.stopService) if service.running else maybeDeferred(lambda: None)
        return stopped.addBoth(lambda result: connector.stop())

    backplane.on_ready = start
    reactor.callWhenRunning(connector.start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    _SupervisorWatch(reactor, partial(_stop, reactor))


def _run_hub(assignment: Assignment, reactor: Any) -> None:
    given = assignment.settings
    present = given
    settings = msgspec.structs.replace(given, history_bytes=min(given.history_bytes, MAX_TAIL_BYTES))
    state = State(settings, reactor, lambda: present, lambda: hub.announce_ready()) if settings.state else None
    if state is not None:
        backplane: Any = state.backplane
        seconds, call = state.trim_seconds, state.trim
    else:
        backplane = MemoryHistoryBackplane(draw_epoch, time.time, reactor.seconds, settings)
        seconds, call = SWEEP_SECONDS, backplane.expire
    hub = Hub(
        backplane,
        secrets.token_hex(8).encode(),
        reactor.seconds,
        reactor.callLater,
        lambda sentence: _log.warn("{sentence}", sentence=sentence),
    )

    def history_bytes() -> int:
        return 0 if state is not None else backplane.history_bytes

    max_bytes = 0 if state is not None else settings.history_total_bytes
    metrics = HubMetrics(
        lambda: hub.channels, history_bytes, max_bytes, None if state is None else state.backplane.statistics
    )
    process, started = ProcessStatistics(), reactor.seconds()

    def statistics() -> bytes:
        return msgspec.json.encode(
            hub_statistics(
                round(time.time(), 3),
                round(reactor.seconds() - started, 1),
                version("sockbridge"),
                hub.channels,
                history_bytes(),
                process.memory_bytes(),
                round(process.cpu_seconds(), 3),
                assignment.restarts,
            )
        )

    hub.counts = ConnectionCounts(settings)
    hub.reports_members = bool(present.webhook)
    hub.reports.update({METRICS: metrics.report, STATISTICS: statistics})
    hub.start()
    factory = HubFactory(hub)
    adopt_unix_port(reactor, FIRST_PORT, factory)
    loop = LoopingCall(call)
    loop.clock = reactor
    loop.start(seconds, now=False).addErrback(lambda failure: _log.failure("dropping old events failed", failure))

    def stop() -> Deferred[bool]:
        stopped = Deferred[bool]()
        stopping = hub.stop()
        if stopping is None:
            stopped.callback(True)
        else:
            stopping.then(lambda outcome: stopped.callback(True))
        return stopped

    def reload(*event: Any) -> None:
        """The supervisor has read the settings: they are valid."""
        nonlocal present
        with suppress(SettingsError):
            present = Reloader.with_reloaded(present, read_settings(assignment.config, dict(assignment.given)))
        hub.reports_members = bool(present.webhook)

    signal.signal(signal.SIGHUP, reload)

    def stop_after_workers() -> None:
        """The supervisor has ended. The workers close their connections first."""
        if hub.workers:
            reactor.callLater(WAIT_FOR_WORKERS_SECONDS, stop_after_workers)
        elif reactor.running:
            shutil.rmtree(os.path.dirname(assignment.hub_path), ignore_errors=True)
            reactor.stop()

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.callWhenRunning(write_line, STARTED)
    _SupervisorWatch(reactor, stop_after_workers)


if __name__ == "__main__":
    main()
