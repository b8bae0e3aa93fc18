"""Fixtures: ``twistd sockbridge`` in an empty folder, and clients on real sockets. Tests wait for conditions with a
timeout instead of sleeping."""

import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.end_to_end.browser import MonitoredPage, monitored_pages, running_chromium
from tests.end_to_end.bystander import run_bystander
from tests.end_to_end.programs import TIMEOUT_SECONDS, CuttingProxy, Program, serving, wait_until
from tests.issuer import Issuer

TWISTD = Path(sys.executable).parent / "twistd"
TCP = "tcp:0:interface=127.0.0.1"
TLS = "ssl:0:interface=127.0.0.1:privateKey=server.key:certKey=server.pem"
"""With a certificate in the folder of the server."""
TROUBLE = re.compile(r"Traceback|Unhandled|#(?:error|critical)\]")


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """Restore SIGINT: shells ignore it in background processes, and the servers would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment without PYTHONPATH, so that the checkout is not imported by chance."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more


class ServerProcess:
    """A server process. ``lines`` and ``pages`` are the addresses from its log."""

    def __init__(self, folder: Path, endpoints: int, command: list[str], **how: Any) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), **how
            )
        try:
            self._read_addresses(endpoints)
        except BaseException:
            self.kill()
            raise

    def _read_addresses(self, endpoints: int) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, self.log()
            return len(re.findall(r"#info\] (?:lines|web) .*\n", self.log())) == endpoints

        wait_until(listens, "the addresses of the server in its log")
        self.lines: list[str] = re.findall(r"\] lines (?:over TLS )?on (\S+): ", self.log())
        self.pages: list[str] = re.findall(r"\] web on \S+: open (\S+)", self.log())

    @property
    def page(self) -> str:
        return self.pages[0]

    @property
    def authority(self) -> str:
        """Host and port of the page."""
        return self.page.partition("://")[2].rstrip("/")

    @property
    def line_port(self) -> int:
        return int(self.lines[0].rpartition(":")[2])

    @property
    def web_port(self) -> int:
        return int(self.authority.rpartition(":")[2])

    def log(self) -> str:
        return self._log.read_text()

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop the server and check that it logged no errors."""
        self.process.send_signal(signal_number)
        self.wait_for_exit(signal_number)

    def wait_for_exit(self, signal_number: int = signal.SIGTERM) -> None:
        """Wait until the server has exited. twistd exits with the signal that stopped it, as is usual on Unix."""
        assert self.process.wait(TIMEOUT_SECONDS) == -signal_number, self.log()
        assert not TROUBLE.search(self.log()), self.log()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Starter:
    """Starts servers, which are stopped and checked at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[ServerProcess] = []

    def __call__(
        self,
        *options: str,
        tcp: tuple[str, ...] = (TCP,),
        web: tuple[str, ...] = (TCP,),
        twistd: tuple[str, ...] = (),
        launcher: Iterable[str] = (),
        **how: Any,
    ) -> ServerProcess:
        endpoints = [word for kind, ends in (("--tcp", tcp), ("--web", web)) for end in ends for word in (kind, end)]
        count = sum(end != "none" for end in (*tcp, *web))
        command = [*launcher, str(TWISTD), "-n", "--pidfile=", *twistd, "sockbridge", *endpoints, *options]
        server = ServerProcess(self._folder, count, command, **how)
        self._servers.append(server)
        return server

    def application(self, name: str, text: str, endpoints: int = 2) -> ServerProcess:
        """Write a .tac file with the server in it, and start it."""
        (self._folder / name).write_text(text)
        server = ServerProcess(self._folder, endpoints, [str(TWISTD), "-noy", name, "--pidfile="])
        self._servers.append(server)
        return server

    def again(self, stopped: ServerProcess, *options: str, **how: Any) -> ServerProcess:
        """Start a server on the ports of one that was stopped."""
        lines, pages = stopped.lines and [stopped.line_port], stopped.pages and [stopped.web_port]
        tcp, web = (tuple(f"tcp:{port}:interface=127.0.0.1" for port in ports) for ports in (lines, pages))
        return self(*options, tcp=tcp or ("none",), web=web or ("none",), **how)

    def stop_all(self) -> None:
        running = [server for server in self._servers if server.process.poll() is None]
        for server in running:
            server.process.send_signal(signal.SIGTERM)
        try:
            for server in running:
                server.wait_for_exit()
        finally:
            for server in running:
                server.kill()


class LineClient:
    """A client of the line port."""

    def __init__(self, address: str, tls: bool | ssl.SSLContext = False, source: str = "") -> None:
        self.socket = connect(address, tls, source=source)
        self._buffer = b""
        self.welcome = self.receive()
        assert self.welcome.startswith("WELCOME sockbridge/1 id="), self.welcome
        self.id = self.welcome.split()[2].removeprefix("id=")

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, *lines: str) -> None:
        self.send_bytes("".join(line + "\n" for line in lines).encode())

    def request(self, line: str) -> str:
        """Send a command and return the next message."""
        self.send(line)
        return self.receive()

    def receive(self) -> str:
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"the server closed the connection, {self._buffer!r} was left over")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def receive_until(self, beginning: str) -> list[str]:
        """Return all lines up to the first with this beginning."""
        lines = [self.receive()]
        while not lines[-1].startswith(beginning):
            lines.append(self.receive())
        return lines

    def receive_rest(self) -> list[str]:
        """Return all remaining lines up to the end of the stream."""
        lines = []
        while True:
            try:
                lines.append(self.receive())
            except EOFError:
                return lines

    def close(self) -> None:
        self.socket.close()


def receive_until(connection: socket.socket, words: bytes) -> bytes:
    """Everything up to the data that contains ``words``."""
    received = bytearray()
    while words not in received:
        data = connection.recv(65536)
        assert data, bytes(received)
        received += data
    return bytes(received)


def receive_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def unverified_tls(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A TLS context that accepts every certificate, for one version or for all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def connect(
    address: str, tls: bool | ssl.SSLContext = False, timeout: float = TIMEOUT_SECONDS, source: str = ""
) -> socket.socket:
    """Connect to ``127.0.0.1:8081``, ``[::1]:8081`` or ``unix:/run/sockbridge``, from the address ``source``. ``tls``
    can be a context. True does not verify the certificate."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout, (source, 0) if source else None)
    if not tls:
        return connection
    return (unverified_tls() if isinstance(tls, bool) else tls).wrap_socket(connection)


class WebClient:
    """A client of the web port, with a minimal WebSocket (RFC 6455)."""

    def __init__(
        self,
        page: str,
        path: str = "/ws",
        subprotocol: str = "",
        origin: str = "",
        headers: Iterable[str] = (),
        source: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        scheme, _, authority = page.rstrip("/").partition("://")
        self.socket = connect(authority, tls or scheme == "https", source=source)
        head = [f"GET {path} HTTP/1.1", f"Host: {authority}", "Upgrade: websocket", "Connection: Upgrade"]
        head += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + b64encode(os.urandom(16)).decode()]
        head += [f"Sec-WebSocket-Protocol: {subprotocol}"] * bool(subprotocol) + [f"Origin: {origin}"] * bool(origin)
        head += headers
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        self._buffer = bytearray()
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        end = self._buffer.index(b"\r\n\r\n") + 4
        self.head = self._buffer[:end].decode()
        del self._buffer[:end]
        assert self.head.startswith("HTTP/1.1 101 "), self.head

    def send_text(self, text: str) -> None:
        self.socket.sendall(_frame(0x81, text.encode()))

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def receive_text(self) -> str:
        """The next message, which may have several fragments (RFC 6455 section 5.4)."""
        kind, message = self.receive_frame()
        assert kind in (0x81, 0x01), (kind, message)
        while not kind & 0x80:
            kind, payload = self.receive_frame()
            assert kind in (0x80, 0x00), (kind, payload)
            message += payload
        return message.decode()

    def receive(self) -> dict[str, Any]:
        return json.loads(self.receive_text())

    def request(self, **message: Any) -> dict[str, Any]:
        """Send a command and return the next message."""
        self.send(**message)
        return self.receive()

    def receive_frame(self) -> tuple[int, bytes]:
        """Return the first byte and the payload of the next frame. Pings are answered and skipped."""
        while True:
            self._need(2)
            kind, size, start = self._buffer[0], self._buffer[1], 2
            if size > 125:
                start = 4 if size == 126 else 10
                self._need(start)
                size = int.from_bytes(self._buffer[2:start], "big")
            self._need(start + size)
            payload = bytes(self._buffer[start : start + size])
            del self._buffer[: start + size]
            if kind != 0x89:
                return kind, payload
            self.socket.sendall(_frame(0x8A, payload))

    def receive_rest(self) -> tuple[list[dict[str, Any]], int]:
        """Return the remaining messages and the close code of the server, and complete the close handshake."""
        messages = []
        while (frame := self.receive_frame())[0] == 0x81:
            messages.append(json.loads(frame[1]))
        assert frame[0] == 0x88, frame
        self.socket.sendall(_frame(0x88, frame[1]))
        return messages, int.from_bytes(frame[1][:2], "big")

    def close(self) -> None:
        self.socket.close()

    def _need(self, count: int) -> None:
        while len(self._buffer) < count:
            self._fill()

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the server closed the connection, {bytes(self._buffer)!r} was left over")
        self._buffer += data


MASK = b"mask"


def _frame(first: int, payload: bytes) -> bytes:
    """Return a masked client frame. Firefox takes a mask of zeros for a missing one."""
    size = len(payload)
    mask = int.from_bytes((MASK * (size // 4 + 1))[:size])
    head = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + size.to_bytes(2)
        if size < 65536
        else b"\xff" + size.to_bytes(8)
    )
    return bytes([first]) + head + MASK + (int.from_bytes(payload) ^ mask).to_bytes(size)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start servers: ``start(*options, tcp=…, web=…, twistd=…, launcher=…)``, ``start.again(stopped, *options)``."""
    starter = Starter(tmp_path)
    yield starter
    starter.stop_all()


@pytest.fixture
def failover_server(start: Starter) -> ServerProcess:
    return start.application("failover.tac", (Path(__file__).parent / "failover.py").read_text())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only exchange events. Each test uses its own channel."""
    starter = Starter(tmp_path_factory.mktemp("server"))
    yield starter()
    starter.stop_all()


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """A channel for this test only."""
    return re.sub(r"[^a-z0-9_-]", "-", request.node.name)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Part of an endpoint string with a key and a certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    Authority(folder).issue("server", "localhost")
    return f"privateKey={folder}/server.key:certKey={folder}/server.pem"


@pytest.fixture
def clients() -> Iterator[list[Any]]:
    """All clients of a test, which are closed at its end."""
    clients: list[Any] = []
    yield clients
    for client in clients:
        client.close()


def connecting(make: Callable[..., Any], clients: list[Any]) -> Callable[..., Any]:
    def connect(*arguments: Any, **options: Any) -> Any:
        clients.append(make(*arguments, **options))
        return clients[-1]

    return connect


@pytest.fixture
def line_client(clients: list[Any]) -> Callable[..., LineClient]:
    """Connect line clients: ``line_client(address, tls=False)``."""
    return connecting(LineClient, clients)


@pytest.fixture
def web_client(clients: list[Any]) -> Callable[..., WebClient]:
    """Connect WebSocket clients: ``web_client(page, path="/ws", subprotocol="", origin="")``. Waits for the welcome."""

    def welcomed(*arguments: Any, **options: Any) -> WebClient:
        client = WebClient(*arguments, **options)
        client.welcome = client.receive_text()  # type: ignore[attr-defined]
        return client

    return connecting(welcomed, clients)


@pytest.fixture
def open_socket(clients: list[Any]) -> Callable[..., socket.socket]:
    """Connect sockets: ``open_socket(address, tls=False)``."""
    return connecting(connect, clients)


@contextmanager
def guarded_server(folder: Path, issuer: Issuer, configuration: str, **how: Any) -> Iterator[ServerProcess]:
    """A server with this configuration and a key of the issuer. At the end, its log must not contain a token."""
    (folder / "bridge.toml").write_text(configuration + issuer.make_key("hs"))
    starter = Starter(folder)
    server = starter("--config", "bridge.toml", **how)
    yield server
    starter.stop_all()
    issuer.assert_absent_from(server.log())


@pytest.fixture
def reload() -> Callable[..., str]:
    """``reload(server, *words)`` sends SIGHUP, waits for these words in the log, and returns the log since then."""

    def reload(server: ServerProcess, *words: str) -> str:
        before = len(server.log())
        server.process.send_signal(signal.SIGHUP)
        wanted = words or ("reloaded: configuration",)
        wait_until(lambda: all(word in server.log()[before:] for word in wanted), f"{wanted} in the log")
        return server.log()[before:]

    return reload


class Daemon:
    """A server that runs in the background, with the line port only."""

    def __init__(self, folder: Path, options: tuple[str, ...], twistd: tuple[str, ...]) -> None:
        self.log, self.pidfile = folder / "bridge.log", folder / "bridge.pid"
        command = [str(TWISTD), f"--pidfile={self.pidfile}", f"--logfile={self.log}", *twistd, "sockbridge"]
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 30}
        started = subprocess.run([*command, "--web=none", *options], cwd=folder, env=clean_environment(), **how)
        assert (started.returncode, started.stderr) == (0, "")
        # The parent exits when the daemon has its ports.
        self.pid = int(self.pidfile.read_text())

    def logs(self, pattern: str) -> re.Match[str]:
        """Wait until the log contains the pattern."""
        found: re.Match[str] = wait_until(lambda: re.search(pattern, self.log.read_text()), pattern)
        return found

    def has_ended(self) -> bool:
        return not Path(f"/proc/{self.pid}").exists()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon: ``start_daemon(*options, twistd=…)``."""
    with ExitStack() as stack:

        def starting(*options: str, twistd: tuple[str, ...] = ()) -> Daemon:
            daemon = Daemon(tmp_path, options, twistd)
            stack.callback(daemon.kill)
            return daemon

        yield starting


@contextmanager
def running_programs(folder: Path) -> Iterator[Callable[..., Program]]:
    """Start programs in a folder: ``run(*command, **how)``. They are stopped at the end."""
    with ExitStack() as stack:
        paths = (folder / f"output-{number}" for number in itertools.count())

        def running(*command: str, **how: Any) -> Program:
            program = Program(folder, command, next(paths), **how)
            stack.callback(program.stop)
            return program

        yield running


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start programs: ``run(*command, **how)``, by default in the folder of the servers."""
    with running_programs(tmp_path) as run:
        yield run


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run shell commands in the folder of the servers, with ``sockbridge`` on the PATH: ``shell(lines)``."""
    environment = clean_environment(PATH=f"{TWISTD.parent}:{os.environ['PATH']}")

    def run(lines: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60}
        return subprocess.run(["bash", "-ec", lines], cwd=tmp_path, env=environment, check=check, **how)

    return run


@pytest.fixture
def serve_folder() -> Iterator[Callable[[Path], str]]:
    """Start a web server that delivers the files of a folder: ``serve_folder(folder)`` returns its origin."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(serving(folder))


@pytest.fixture
def cutting_proxy() -> Iterator[Callable[[int], CuttingProxy]]:
    """Start proxies in front of a port: ``cutting_proxy(port)``."""
    with ExitStack() as stack:

        def starting(port: int) -> CuttingProxy:
            proxy = CuttingProxy(port)
            stack.callback(proxy.close)
            return proxy

        yield starting


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """``eventually(condition, "description")`` waits until the condition returns a true value, and returns it."""
    return wait_until


@pytest.fixture
def environment() -> dict[str, str]:
    return clean_environment()


@pytest.fixture
def twistd() -> str:
    """The path of twistd."""
    return str(TWISTD)


@pytest.fixture
def bystander(line_client: Any, web_client: Any, clients: list[Any]) -> Callable[..., Any]:
    """``with bystander(server, *messages):`` checks that other clients are served during the block, and that the server
    logs only these messages. It closes the clients of the block, and checks that no connections are left behind."""
    return lambda server, *logged, **how: run_bystander(server, line_client, web_client, clients, *logged, **how)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Creates keys, and tokens signed with them."""
    return Issuer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., MonitoredPage]]:
    """Open pages: ``open_page(**options of the context)``. Errors in a page fail the test."""
    yield from monitored_pages(chromium)
