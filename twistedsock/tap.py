"""The options of ``twistd sockbridge``, and the service that they describe."""

import gc
import os
import resource
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.logger import Logger, globalLogPublisher
from twisted.python import usage

from twistedsock.config import HEADINGS, OPTIONS, RENAMED_OPTIONS, Option, Settings, SettingsError, read_settings
from twistedsock.redis.address import has_password
from twistedsock.server.logging import ConnectionLog, LogFailureReporter, json_observer
from twistedsock.server.reactor import use_monotonic_clock
from twistedsock.speedups import IMPLEMENTATION

if TYPE_CHECKING:
    from twistedsock.service import SockbridgeService

HELP = """
Publish-subscribe between anything that can open a socket and anything that runs
in a browser. Without options, the server accepts lines on 127.0.0.1:8081, and
HTTP and WebSocket on 127.0.0.1:8082."""

HELP_END = """\
ENDPOINT is a Twisted endpoint, for example tcp:8081:interface=127.0.0.1,
ssl:8443:privateKey=key.pem:certKey=cert.pem or unix:/run/sockbridge/lines.

Example:
  twistd -n sockbridge --config sockbridge.toml --history-age 3600

The file has the same names without dashes, and the access policy, which decides
what each client can do. `sockbridge check` explains a file; `sockbridge keygen`
and `sockbridge token` create keys and tokens.

Documentation: docs/reference/options.md in the source code of sockbridge
"""

PASSWORD_ON_COMMAND_LINE = (
    "backplane: contains a password, which all users of this machine can read in the list of processes: use "
    "backplane-password-file or the environment variable SOCKBRIDGE_BACKPLANE_PASSWORD, and for the Sentinels "
    "backplane-sentinel-password-file or SOCKBRIDGE_BACKPLANE_SENTINEL_PASSWORD"
)

HELP_COLUMN = 34
"""The column in which the descriptions of the options begin."""


class Options(usage.Options):
    """The command line. ``settings`` is the result, together with the file that ``--config`` names."""

    synopsis = "[options]"  # twistd writes its own name in front of it
    optParameters = [["config", "c", None, "read a TOML file with the same names; the command line wins"]]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}
        """The values of the command line, by the names of the options."""

    def opt_version(self) -> None:
        parts = " ".join(f"{name}/{version(name)}" for name in ("sockbridge", "twisted", "autobahn"))
        print(f"{parts} python/{sys.version.split()[0]} {IMPLEMENTATION}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Report an error in one sentence and with exit status 1. By itself, twistd would print its whole help and
        exit with 0."""
        try:
            _check_renamed(sys.argv[1:] if options is None else options)
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"sockbridge: {error}; twistd sockbridge --help lists the options") from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        if has_password(self.given.get("backplane", "")):
            raise usage.UsageError(PASSWORD_ON_COMMAND_LINE)
        try:
            self.settings = self.read()
        except SettingsError as error:
            raise usage.UsageError(str(error)) from None
        if self["config"] is not None:  # twistd can change to another directory
            self["config"] = os.path.abspath(self["config"])

    def read(self) -> Settings:
        """Return the settings, with what the file contains now. Raises SettingsError."""
        return read_settings(self["config"], dict(self.given))

    def getUsage(self, width: int | None = None) -> str:
        """Return the help: the options under their headings. Twisted would sort them by name."""
        width = width or int(os.environ.get("COLUMNS", "80"))
        parts = [HELP, ""]
        for heading in HEADINGS:
            parts += [f"{heading}:", *(_help_of(option, width) for option in OPTIONS if option.heading == heading), ""]
        parts.append("Other:")
        for name, description in (
            ("-c, --config FILE", "read a TOML file with the same names; the command line wins"),
            ("--version", "show the versions of sockbridge, Twisted, Autobahn and Python"),
            ("--help", "show this help"),
        ):
            parts.append(_two_columns(name, description, width))
        return "\n".join([*parts, "", HELP_END])


def _add_option(option: Option) -> None:
    """Add the method to ``Options`` from which Twisted derives an option. With a parameter, the option has a value."""

    def set_flag(self: Options) -> None:
        self.given[option.name] = True

    def set_value(self: Options, value: str) -> None:
        self.given[option.name] = value

    def append_value(self: Options, value: str) -> None:
        self.given.setdefault(option.name, []).append(value)

    method = append_value if option.is_repeatable else set_value if option.unit else set_flag
    setattr(Options, f"opt_{option.name.replace('-', '_')}", method)


for _option in OPTIONS:
    _add_option(_option)


def _check_renamed(arguments: Sequence[str]) -> None:
    """Raise UsageError for an option with an old name. getopt accepts some as abbreviations of the new ones."""
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and name in RENAMED_OPTIONS:
            raise usage.UsageError(f"option --{name} was renamed: use --{RENAMED_OPTIONS[name]}")


def _help_of(option: Option, width: int) -> str:
    description = option.description
    if option.is_repeatable:
        description += f" [{', '.join(option.default)}]" if option.default else ""
    elif option.unit:
        description += f" [{_default_of(option)}]" if option.default != "" else ""
    return _two_columns(f"--{option.name} {option.unit}".rstrip(), description, width)


def _default_of(option: Option) -> str:
    if option.unit != "BYTES" or option.default < 1024:
        return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)
    power = (option.default.bit_length() - 1) // 10
    return f"{option.default} = {option.default >> 10 * power} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _two_columns(name: str, description: str, width: int) -> str:
    wrapped = textwrap.wrap(description, width - HELP_COLUMN, break_long_words=False, break_on_hyphens=False)
    lines = [f"{'':{HELP_COLUMN}}{line}" for line in wrapped]
    name = f"  {name}"
    if len(name) < HELP_COLUMN - 1:
        lines[0] = name.ljust(HELP_COLUMN) + wrapped[0]
    else:
        lines.insert(0, name)
    return "\n".join(lines)


def makeService(options: Options) -> IService:
    """Return the service that twistd runs."""
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    globalLogPublisher.addObserver(LogFailureReporter())
    gc.disable()  # imports make many objects and little garbage: looking for it takes a tenth of the time
    try:
        settings, service = options.settings, _build_service(options, reactor)
    finally:
        gc.enable()
    if settings.log_format == "json":
        service.log_observer = _json_observer(options.parent or {}, reactor)
    return service


def _build_service(options: Options, reactor: Any) -> Any:
    from twistedsock.service import SockbridgeService
    from twistedsock.workers.supervisor import Supervisor

    settings = options.settings
    try:
        if settings.workers > 1:
            supervisor = Supervisor(
                settings, reactor, version("sockbridge"), options.read, options["config"], options.given
            )
            handle_signals(supervisor.reload, supervisor.stop_now, reactor)
            return supervisor
        service = SockbridgeService(settings, reactor, version("sockbridge"), options.read)
    except SettingsError as error:
        raise SystemExit(f"sockbridge: {error}") from None
    prepare_process(service, settings, reactor)
    return service


def prepare_process(service: "SockbridgeService", settings: Settings, reactor: Any) -> None:
    """Prepare this process to run the service: log its connections, open enough files, and handle signals."""
    connections = ConnectionLog(service.context.broker.clock, reactor.callLater)
    service.context.connection_events.listeners.append(connections)
    reactor.addSystemEventTrigger("after", "shutdown", connections.log_omitted)
    _raise_file_limit(settings.max_connections)
    reactor.callWhenRunning(_tune_garbage_collector)
    handle_signals(service.reloader.request, service.stop_now, reactor)


def handle_signals(reload: Callable[[], None], stop_now: Callable[[], None], reactor: Any) -> None:
    """Reload on SIGHUP, and stop at once on a second SIGINT or SIGTERM."""
    _handle_hangup(reload, reactor)
    reactor.addSystemEventTrigger("before", "shutdown", _handle_second_signal, stop_now, reactor)


def _json_observer(twistd: Mapping[str, Any], reactor: Any) -> Any:
    """Return the observer that writes the log as JSON in place of twistd's. Returns None if twistd has the option
    --logger, or if another program runs the service."""
    if "nodaemon" not in twistd or twistd.get("logger"):
        return None
    try:
        return json_observer(twistd, reactor.callFromThread)
    except OSError as error:
        raise SystemExit(f"sockbridge: cannot log to {error.filename}: {error.strerror}") from None


def _handle_hangup(reload: Callable[[], None], reactor: Any) -> None:
    """Reload on SIGHUP. When the terminal of the process closes, SIGHUP stops the process as usual, unless its parent
    ignores the signal (nohup)."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    started_in_terminal = False

    def check_terminal() -> None:  # after twistd has become a daemon
        nonlocal started_in_terminal
        started_in_terminal = not is_ignored and has_terminal()

    def hang_up(*event: Any) -> None:
        if started_in_terminal and not has_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the shell sends one, and the kernel another
            reactor.callFromThread(reactor.stop)
        else:
            reactor.callFromThread(reload)

    # Programs that start a daemon can send SIGHUP as soon as its ports are open, which is before the reactor runs.
    signal.signal(signal.SIGHUP, hang_up)
    reactor.callWhenRunning(check_terminal)


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _handle_second_signal(stop_now: Callable[[], None], reactor: Any) -> None:
    """Stop at once on another SIGINT or SIGTERM during the shutdown. Twisted would log a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *event: reactor.callFromThread(stop_now))


def _raise_file_limit(connections: int) -> None:
    """Raise the soft limit of open files to one for each connection. Warn if the hard limit does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 100
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            Logger().warn(
                "max-connections is {connections}, but this process can open {soft} files only (ulimit -n)",
                connections=connections,
                soft=soft,
            )


def _tune_garbage_collector() -> None:
    """Exclude the objects of the start from garbage collection, and collect less often. A full collection takes 25 to
    100 ms with 5,000 connections and finds nothing, because reference counts free the objects of a connection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
