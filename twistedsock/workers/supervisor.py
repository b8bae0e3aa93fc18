"""The parent of several workers: opens the ports, starts the hub and the workers, restarts what has ended, and stops
all of them together.

The hub is a process of its own. So this one has nothing to do but to watch, and if the hub fails, the clients stay
connected while another one is started.
"""

import atexit
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.backplane_builder import check_state
from twistedsock.config import Settings, SettingsError
from twistedsock.service import LoggingService, SockbridgeService, StartFailed
from twistedsock.workers.assignment import (
    MAX_WORKERS,
    STARTED,
    Assignment,
    command_of,
    environment,
    worker_name,
)
from twistedsock.workers.relayed_logs import log_event, log_output
from twistedsock.workers.watchdog import ALIVE, Watchdog

FIRST_PAUSE_SECONDS = 0.1

MAX_PAUSE_SECONDS = 10.0
"""The longest pause before a process is started again. The pause doubles each time, unless the process has worked for
as long as this."""

MAX_FAILED_STARTS = 3
"""How often the first start of a process can fail before the server gives up."""

KILL_SECONDS = 10.0
"""The time that a process has to end beside the shutdown timeout. Then it is killed."""


class Supervisor(LoggingService):
    """``settings`` have two workers or more. ``read_settings`` returns those that the configuration file ``config`` and
    the options ``given`` contain now, or raises SettingsError."""

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        version: str,
        read_settings: Callable[[], Settings],
        config: str | None,
        given: dict[str, Any],
    ) -> None:
        if settings.plugin:
            raise SettingsError("plugin: not available with several workers")
        self._settings = settings
        self._reactor = reactor
        self._read_settings = read_settings
        self._config = config
        self._given = given
        # Checks the settings, and opens the ports. It is not started.
        self._server = SockbridgeService(msgspec.structs.replace(settings, state=""), reactor, version, read_settings)
        self._ports: list[Any] = []
        self._folder = ""
        self._hub_socket: socket.socket | None = None
        self._hub: _Process | None = None
        self._workers: list[_Process] = []
        self.is_stopping = False
        self.reloads = 0
        self.has_served = False
        """Whether all workers have worked: then the server continues, whatever happens to them."""

    # Start.

    def privilegedStartService(self) -> None:
        """Open the ports, before twistd drops its privileges."""
        super().privilegedStartService()
        self._server.privilegedStartService()
        self._ports = self._server.stop_accepting()

    def startService(self) -> None:
        super().startService()
        try:
            check_state(self._settings)
        except OSError as error:
            raise StartFailed(f"sockbridge: cannot start the backplane: {error.strerror or error}") from None
        try:
            self._open_hub_socket()
        except OSError as error:
            raise StartFailed(f"sockbridge: cannot start the workers: {error.strerror or error}") from None
        assert self._hub_socket is not None
        self._server.reloader.log_warnings()
        self._hub = _Process(self, "hub", self._reactor, self._hub_assignment, [self._hub_socket.fileno()])
        numbers = [port.fileno() for port in self._ports]
        for index in range(self._settings.workers):
            name = worker_name(index)
            build = partial(self._worker_assignment, name)
            self._workers.append(_Process(self, f"worker {name}", self._reactor, build, numbers))
        for process in (self._hub, *self._workers):  # workers wait for the hub
            process.start()

    def _open_hub_socket(self) -> None:
        """Listen for the hub, so that workers can connect while it is being started again. Only this user can reach
        the socket."""
        self._folder = tempfile.mkdtemp(prefix="sockbridge-", dir=_folder_for_sockets())
        self._hub_socket = socket.socket(socket.AF_UNIX)
        self._hub_socket.bind(self._hub_path)
        self._hub_socket.listen(MAX_WORKERS)
        self._hub_socket.setblocking(False)

    def _hub_assignment(self) -> Assignment:
        return Assignment(
            role="hub",
            reactor=type(self._reactor).__module__,
            settings=self._settings,
            config=self._config,
            given=self._given,
            hub_path=self._hub_path,
            families=(int(socket.AF_UNIX),),
        )

    @property
    def _hub_path(self) -> str:
        return os.path.join(self._folder, "hub")

    def _worker_assignment(self, name: str) -> Assignment:
        return Assignment(
            role="worker",
            name=name,
            reactor=type(self._reactor).__module__,
            settings=self._settings,
            config=self._config,
            given=self._given,
            hub_path=self._hub_path,
            families=tuple([int(port.addressFamily) for port in self._ports]),
        )

    def has_started(self) -> None:
        """A process works."""
        if not self.has_served and all([worker.works for worker in self._workers]):
            self.has_served = True
            for hint in self._server.hints():
                self._log.info("{hint}", hint=hint)
            self._log.info("{count} workers serve these addresses", count=self._settings.workers)

    def give_up(self, process: "_Process") -> None:
        """A process cannot be started. Stop, with an exit status that is not 0."""
        self._log.error("{process} cannot be started: stopping", process=process.name)
        atexit.register(_exit_with_failure)
        self._reactor.stop()

    # Reload.

    def reload(self) -> None:
        """Let all workers read the configuration file, keys and certificates again."""
        try:
            settings = self._read_settings()
        except SettingsError as error:
            self._log.warn("reload failed, configuration unchanged: {error}", error=str(error))
            return
        self._settings = self._server.reloader.with_reloaded(self._settings, settings)
        self.reloads += 1
        for process in (self._hub, *self._workers):
            if process is not None:
                process.reload()

    # Stop.

    def stopService(self) -> Deferred[None]:
        """Let the workers close their connections, then stop the hub."""
        super().stopService()
        self.is_stopping = True
        closed = DeferredList([maybeDeferred(port.stopListening) for port in self._ports], consumeErrors=True)
        ended = closed.addCallback(lambda result: DeferredList([worker.stop() for worker in self._workers]))
        if self._hub is not None:
            hub = self._hub
            ended.addCallback(lambda result: hub.stop())
        return ended.addCallback(lambda result: self._remove_hub_socket())

    def _remove_hub_socket(self) -> None:
        if self._hub_socket is not None:
            self._hub_socket.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def stop_now(self) -> None:
        """End the wait of ``stopService``."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)

    @property
    def seconds_to_stop(self) -> float:
        """After these, a process that has not ended is killed. Clients, and then webhooks, have the shutdown timeout
        each."""
        return 2 * self._settings.shutdown_timeout + KILL_SECONDS


class _Process:
    """A process that is started again when it ends."""

    _log = Logger()

    def __init__(
        self,
        supervisor: Supervisor,
        name: str,
        reactor: Any,
        build: Callable[[], Assignment],
        descriptors: list[int],
    ) -> None:
        self.name = name
        self.works = False
        self._supervisor = supervisor
        self._reactor = reactor
        self._build = build
        self._descriptors = descriptors
        self._transport: Any = None
        self._restart: Any = None
        self._kill: Any = None
        self._timeout = 0.0
        self._watchdog: Watchdog | None = None
        self._stopped: Deferred[None] | None = None
        self._started_at = 0.0
        self._starts = 0
        self._pause = FIRST_PAUSE_SECONDS
        self._failed_starts = 0
        self._reloads = 0

    def start(self) -> None:
        self._restart = None
        assignment = msgspec.structs.replace(self._build(), restarts=self._starts)
        self._starts += 1
        self._timeout = assignment.settings.worker_timeout
        self._reloads = self._supervisor.reloads
        self._started_at = self._reactor.seconds()
        files: dict[int, Any] = {0: "w", 1: "r", 2: "r"}
        files.update(enumerate(self._descriptors, 3))
        command = command_of(assignment)
        protocol = _ProcessOutput(self)
        self._transport = self._reactor.spawnProcess(protocol, sys.executable, command, environment(), childFDs=files)
        self._transport.write(msgspec.json.encode(assignment) + b"\n")

    def stop(self) -> Deferred[None]:
        """Let the process end, and kill it if it does not. The result arrives when it has ended."""
        self._stopped = stopped = Deferred[None]()
        self._stop_watchdog()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._transport is None:
            stopped.callback(None)
        else:
            self.signal(signal.SIGTERM)
            self._kill = self._reactor.callLater(self._supervisor.seconds_to_stop, self._kill_now)
        return stopped

    def _kill_now(self) -> None:
        self._kill = None
        self._log.error("{process} has not ended: killed", process=self.name)
        self.signal(signal.SIGKILL)

    def _watch(self) -> None:
        self._watchdog = Watchdog(self._timeout, self._reactor, self._warn_of_silence, self._kill_silent)

    def _stop_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None

    def _warn_of_silence(self) -> None:
        self._log.warn(
            "{process} has not responded for {seconds:g} s: killed if that lasts as long again",
            process=self.name,
            seconds=self._timeout / 2,
        )

    def _kill_silent(self) -> None:
        self._log.error(
            "{process} has not responded for {seconds:g} s: killed", process=self.name, seconds=self._timeout
        )
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        if self._transport is not None:
            try:
                self._transport.signalProcess(number)
            except ProcessExitedAlready:
                pass

    def reload(self) -> None:
        """A process that is being started does this later."""
        if self.works and self._reloads != self._supervisor.reloads:
            self._reloads = self._supervisor.reloads
            self.signal(signal.SIGHUP)

    # Called by its output.

    def line_received(self, line: bytes) -> None:
        if line == ALIVE:
            if self._watchdog is not None:
                self._watchdog.received()
        elif line == STARTED:
            self.works = True
            if self._stopped is None:
                self._watch()
            self._failed_starts = 0
            self.reload()
            self._supervisor.has_started()
        else:
            log_event(line, self.name)

    def ended(self, reason: Failure) -> None:
        worked, self.works, self._transport = self.works, False, None
        self._stop_watchdog()
        if self._kill is not None:
            self._kill.cancel()
            self._kill = None
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        if self._supervisor.is_stopping:
            return
        self._failed_starts += not worked
        if self._failed_starts >= MAX_FAILED_STARTS and not self._supervisor.has_served:
            self._supervisor.give_up(self)
            return
        if self._reactor.seconds() - self._started_at > MAX_PAUSE_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self._log.warn(
            "{process} has ended ({reason}): started again in {pause:g} s",
            process=self.name,
            reason=_reason_of_end(reason),
            pause=self._pause,
        )
        self._restart = self._reactor.callLater(self._pause, self.start)
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)


class _ProcessOutput(ProcessProtocol):
    """Logs what a process writes."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._streams = {1: _Lines(process.line_received), 2: _Lines(self._complaint)}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._streams[childFD].feed(data)

    def _complaint(self, line: bytes) -> None:
        log_output(line, self._process.name)

    def processEnded(self, reason: Failure) -> None:
        self._process.ended(reason)


class _Lines:
    """Splits a stream into lines."""

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._received(line)


def _reason_of_end(reason: Failure) -> str:
    error: Any = reason.value
    if error.signal is not None:
        return f"signal {signal.Signals(error.signal).name}"
    return f"exit status {error.exitCode}"


def _folder_for_sockets() -> str | None:
    """A folder whose path is short enough for the address of a Unix socket; None for the usual one."""
    return None if len(tempfile.gettempdir()) < 60 else "/tmp"


def _exit_with_failure() -> None:
    """twistd exits with 0 after ``reactor.stop``. This is called when it has removed its pid file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
