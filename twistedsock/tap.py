"""The options of ``twistd sockbridge``."""

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, get_type_hints

from twisted.application.service import IService
from twisted.logger import Logger, globalLogPublisher
from twisted.python import usage

from twistedsock.config import RENAMED_OPTIONS, Settings, SettingsError, read_settings
from twistedsock.server.logging import ConnectionLog, UnwrittenLog, json_observer
from twistedsock.server.reactor import go_by_steady_clock

_LISTS = ("tcp", "web", "allow-origin", "allow-host", "trusted-proxy", "proxy-protocol")

_FLAGS = ("allow-insecure",)

_FILE_ONLY = ("access", "webhook")
"""What takes more than a value to say."""


def _parameters() -> list[list[Any]]:
    """The options that take a value once, as the settings describe them."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    parameters: list[list[Any]] = []
    for field, hint in hints.items():
        name = field.replace("_", "-")
        if name in _LISTS or name in _FLAGS or name in _FILE_ONLY:
            continue
        words = hint.__metadata__[0].description
        parameters.append([name, None, None, f"{words} [{getattr(defaults, field)}]"])
    return parameters


class Options(usage.Options):
    """What was said on the command line; ``settings`` is what it comes to."""

    synopsis = "[options]"  # twistd writes what stands before it
    longdesc = (
        "sockbridge lets anything that can open a socket talk to anything that runs in a browser: lines over TCP and "
        "WebSocket, on the same channels. Without options: lines on 127.0.0.1:8081, the page and the WebSocket on "
        "127.0.0.1:8082. An ENDPOINT is a Twisted endpoint string, such as tcp:8081:interface=127.0.0.1, "
        "ssl:8443:privateKey=key.pem:certKey=cert.pem, unix:/run/sockbridge or systemd:domain=INET:index=0. Who may do "
        "what is said under [access] in the file; `sockbridge keygen`, `sockbridge token` and `sockbridge check` help "
        "with that. Without it everybody may do everything, and only this machine is let in."
    )
    optParameters = [
        ["config", "c", None, "a TOML file with the same names; the command line wins"],
        *_parameters(),
    ]

    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self._lists: dict[str, list[str]] = {}
        self._open = False

    def opt_tcp(self, endpoint: str) -> None:
        """Listen for lines on this ENDPOINT; can be given several times; none: do not
        [tcp:8081:interface=127.0.0.1]"""
        self._lists.setdefault("tcp", []).append(endpoint)

    def opt_web(self, endpoint: str) -> None:
        """Listen for browsers on this ENDPOINT; can be given several times; none: do not
        [tcp:8082:interface=127.0.0.1]"""
        self._lists.setdefault("web", []).append(endpoint)

    def opt_allow_origin(self, origin: str) -> None:
        """Let pages of this origin connect, such as https://example.org; can be given several times"""
        self._lists.setdefault("allow-origin", []).append(origin)

    def opt_allow_host(self, host: str) -> None:
        """A name of this server, as browsers ask for it; can be given several times"""
        self._lists.setdefault("allow-host", []).append(host)

    def opt_trusted_proxy(self, address: str) -> None:
        """Believe the proxy at this address, or those in this network such as 10.0.0.0/8, or those that come by a Unix
        socket (unix), when they tell whom they speak for; can be given several times"""
        self._lists.setdefault("trusted-proxy", []).append(address)

    def opt_proxy_protocol(self, endpoint: str) -> None:
        """An ENDPOINT where connections of trusted proxies begin with a PROXY header; can be given several times"""
        self._lists.setdefault("proxy-protocol", []).append(endpoint)

    def opt_allow_insecure(self) -> None:
        """Listen where other machines reach it, though nobody is asked who they are"""
        self._open = True

    def opt_version(self) -> None:
        """Say which version this is, and leave"""
        parts = " ".join(f"{name}/{version(name)}" for name in ("sockbridge", "twisted", "autobahn"))
        print(f"{parts} python/{sys.version.split()[0]}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """One sentence and exit status 1, where twistd would print all its help and leave with 0."""
        try:
            # getopt would take the old name for an abbreviation of the new one, or for a typo.
            for argument in sys.argv[1:] if options is None else options:
                old = argument.partition("=")[0].removeprefix("--")
                if argument.startswith("--") and old in RENAMED_OPTIONS:
                    raise usage.UsageError(f"option --{old} was renamed: use --{RENAMED_OPTIONS[old]}")
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"sockbridge: {error}; twistd sockbridge --help tells what can be said") from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is no option")

    def postOptions(self) -> None:
        given: dict[str, Any] = {name: value for name, value in self.items() if value is not None and name != "config"}
        given.update(self._lists)
        if self._open:
            given["allow-insecure"] = True
        self._given = given
        try:
            self.settings = self.read()
        except SettingsError as error:
            raise usage.UsageError(str(error)) from None
        if self["config"] is not None:  # twistd may go to another folder
            self["config"] = os.path.abspath(self["config"])

    def read(self) -> Settings:
        """What was said, with what the file says by now; SettingsError if that cannot be meant."""
        return read_settings(self["config"], dict(self._given))


def makeService(options: Options) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    from twistedsock.service import BridgeService

    go_by_steady_clock(reactor)
    globalLogPublisher.addObserver(UnwrittenLog())
    try:
        service = BridgeService(options.settings, reactor, version("sockbridge"), options.read)
    except SettingsError as error:
        raise SystemExit(f"sockbridge: {error}") from None
    if options.settings.log_format == "json":
        service.log_observer = _json_observer(options.parent or {}, reactor)
    connections = ConnectionLog(service.context.broker.clock, reactor.callLater)
    service.context.journal.watchers.append(connections)
    reactor.addSystemEventTrigger("after", "shutdown", connections.tell_left_out)
    _allow_files(options.settings.max_connections)
    reactor.callWhenRunning(_spare_the_collector)
    _listen_for_hangup(service.ask_to_reload, reactor)
    reactor.addSystemEventTrigger("before", "shutdown", _listen_for_impatience, service.hurry, reactor)
    return service


def _json_observer(twistd: Mapping[str, Any], reactor: Any) -> Any:
    """What writes the log as JSON where twistd would write it as text; None if it was told of somebody's own logger, or
    if something else than twistd runs us."""
    if "nodaemon" not in twistd or twistd.get("logger"):
        return None
    try:
        return json_observer(twistd, reactor.callFromThread)
    except OSError as error:
        raise SystemExit(f"sockbridge: cannot log to {error.filename}: {error.strerror}") from None


def _listen_for_hangup(reload: Callable[[], None], reactor: Any) -> None:
    """SIGHUP asks to read again what can be read again. It also comes where the terminal that we were started in is
    closed; then it ends us as ever, unless whoever started us does not want that (nohup)."""
    may_end = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    tied = False

    def look() -> None:  # not before we have become a daemon
        nonlocal tied
        tied = may_end and _has_terminal()

    def hang_up(*event: Any) -> None:
        if tied and not _has_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a shell sends one, and the kernel another
            reactor.callFromThread(reactor.stop)
        else:
            reactor.callFromThread(reload)

    # Who started a daemon may send it as soon as its ports are open, which is before the reactor runs.
    signal.signal(signal.SIGHUP, hang_up)
    reactor.callWhenRunning(look)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _listen_for_impatience(hurry: Callable[[], None], reactor: Any) -> None:
    """Who asks for the end once more while it is coming does not want to wait; Twisted would log a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *event: reactor.callFromThread(hurry))


def _allow_files(connections: int) -> None:
    """Each connection is a file: raise our own limit as far as we may, and say so if it does not reach."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 100
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            Logger().warn(
                "max-connections is {connections}, but this process may open {soft} files (ulimit -n)",
                connections=connections,
                soft=soft,
            )


def _spare_the_collector() -> None:
    """A full collection with 5,000 connections takes 25 to 100 ms, and finds nothing: what is there at the start stays,
    and what comes and goes is freed by counting references."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
