"""A real ``twistd sockbridge`` in an empty folder, and clients on real sockets. Everything waits for what it needs to
see, with a deadline; nothing sleeps and hopes."""

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
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.browser import Watched, chromium_running, watching
from tests.end_to_end.bystander import bystanding
from tests.issuer import Issuer

TIMEOUT_SECONDS = 20.0
"""Seconds until a test gives up: not what is normal, but what a machine needs that is busy with other things."""

TWISTD = Path(sys.executable).parent / "twistd"
TCP = "tcp:0:interface=127.0.0.1"
TROUBLE = re.compile(r"Traceback|Unhandled|#(?:error|critical)\]")


def wait_until(condition: Callable[[], Any], what: str, patience: float = TIMEOUT_SECONDS) -> Any:
    """What ``condition`` gives once it is true."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)
    return result


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """A shell that starts us in the background lets us ignore SIGINT, and our servers would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def clean_environment(**more: str) -> dict[str, str]:
    """An environment in which the checkout is not on Python's path by chance."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more


class ServerProcess:
    """A server process. ``lines`` and ``pages`` are the addresses that it says it listens on."""

    def __init__(self, folder: Path, endpoints: int, command: list[str], **how: Any) -> None:
        self._log = folder / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), **how
            )
        self._read_addresses(endpoints)

    def _read_addresses(self, endpoints: int) -> None:
        def listens() -> bool:
            assert self.process.poll() is None, self.log()
            return len(re.findall(r"#info\] (?:lines|web) .*\n", self.log())) == endpoints

        wait_until(listens, "the addresses of the bridge in its log")
        self.lines: list[str] = re.findall(r"\] lines (?:over TLS )?on (\S+): ", self.log())
        self.pages: list[str] = re.findall(r"\] web on \S+: open (\S+)", self.log())

    @property
    def page(self) -> str:
        return self.pages[0]

    def log(self) -> str:
        return self._log.read_text()

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it and see that all was well."""
        self.process.send_signal(signal_number)
        self.is_over(signal_number)

    def is_over(self, signal_number: int = signal.SIGTERM) -> None:
        """After an orderly end twistd dies of the signal that asked for it, as Unix would have it."""
        assert self.process.wait(TIMEOUT_SECONDS) == -signal_number, self.log()
        assert not TROUBLE.search(self.log()), self.log()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., ServerProcess]


class Starter:
    """Starts bridges that are stopped, and looked at, at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridges: list[ServerProcess] = []

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
        self._bridges.append(server)
        return server

    def stop_all(self) -> None:
        running = [server for server in self._bridges if server.process.poll() is None]
        for server in running:
            server.process.send_signal(signal.SIGTERM)
        try:
            for server in running:
                server.is_over()
        finally:
            for server in running:
                server.kill()


class LineClient:
    """A peer on the line port. ``receive`` gives the next line."""

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
        """Say one command and hear its one reply."""
        self.send(line)
        return self.receive()

    def receive(self) -> str:
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"the bridge has closed, {self._buffer!r} was left")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def receive_until(self, beginning: str) -> list[str]:
        """All lines up to the first with that beginning."""
        lines = [self.receive()]
        while not lines[-1].startswith(beginning):
            lines.append(self.receive())
        return lines

    def receive_rest(self) -> list[str]:
        """All lines that are left, up to the end of the stream."""
        lines = []
        while True:
            try:
                lines.append(self.receive())
            except EOFError:
                return lines

    def close(self) -> None:
        self.socket.close()


def connect(
    address: str, tls: bool | ssl.SSLContext = False, patience: float = TIMEOUT_SECONDS, source: str = ""
) -> socket.socket:
    """A connected socket: ``127.0.0.1:8081``, ``[::1]:8081`` or ``unix:/run/bridge``; from the address ``source``.
    ``tls`` may be a context; True looks at no certificate."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(patience)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), patience, (source, 0) if source else None)
    if not tls:
        return connection
    if isinstance(tls, bool):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls.wrap_socket(connection)


class WebClient:
    """A peer on the web port, its WebSocket written by hand (RFC 6455), as small as a test can have it."""

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
        kind, payload = self.receive_frame()
        assert kind == 0x81, (kind, payload)
        return payload.decode()

    def receive(self) -> dict[str, Any]:
        return json.loads(self.receive_text())

    def request(self, **message: Any) -> dict[str, Any]:
        """Say one command and hear its one reply."""
        self.send(**message)
        return self.receive()

    def receive_frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the next frame; pings are answered and passed over."""
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
        """What is left, and the code with which the bridge closes; the close is answered."""
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
            raise EOFError(f"the bridge has closed, {bytes(self._buffer)!r} was left")
        self._buffer += data


def _frame(first: int, payload: bytes) -> bytes:
    """A frame of a client's: masked, with a mask of zeros, which changes nothing."""
    size = len(payload)
    head = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + size.to_bytes(2)
        if size < 65536
        else b"\xff" + size.to_bytes(8)
    )
    return bytes([first]) + head + bytes(4) + payload


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start bridges: ``start(*options, tcp=…, web=…, twistd=…, launcher=…)``."""
    starter = Starter(tmp_path)
    yield starter
    starter.stop_all()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One bridge for all tests that do nothing to it but talk; each takes a channel of its own."""
    starter = Starter(tmp_path_factory.mktemp("bridge"))
    yield starter()
    starter.stop_all()


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    """A channel that no other test has."""
    return re.sub(r"[^a-z0-9_-]", "-", request.node.name)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The middle of an endpoint string: a key and a certificate that it signed itself."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return f"privateKey={folder}/key.pem:certKey={folder}/cert.pem"


@pytest.fixture
def line_client() -> Iterator[Callable[..., LineClient]]:
    """Connect line clients: ``line_client(address, tls=False)``."""
    yield from _connecting(LineClient)


@pytest.fixture
def web_client() -> Iterator[Callable[..., WebClient]]:
    """Connect WebSocket clients: ``web_client(page, path="/ws", subprotocol="", origin="")``; they have heard it."""

    def welcomed(*arguments: Any, **options: Any) -> WebClient:
        client = WebClient(*arguments, **options)
        client.welcome = client.receive_text()  # type: ignore[attr-defined]
        return client

    yield from _connecting(welcomed)


def _connecting(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    clients = []

    def connecting(*arguments: Any, **options: Any) -> Any:
        clients.append(make(*arguments, **options))
        return clients[-1]

    yield connecting
    for client in clients:
        client.close()


@pytest.fixture
def open_socket() -> Iterator[Callable[..., socket.socket]]:
    """Connect bare sockets: ``open_socket(address, tls=False)``."""
    yield from _connecting(connect)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """``eventually(condition, "what it is")``: what the condition gives once it is true."""
    return wait_until


@pytest.fixture
def environment() -> dict[str, str]:
    return clean_environment()


@pytest.fixture
def twistd() -> str:
    """The program."""
    return str(TWISTD)


@pytest.fixture
def bystander(line_client: Callable[..., LineClient], web_client: Callable[..., WebClient]) -> Callable[..., Any]:
    """``with bystander(server, *sentences):`` sees that others are served while the block runs, that it leaves no
    connection behind, and that it makes the bridge log these sentences and nothing else."""
    return lambda server, *sentences, **how: bystanding(server, line_client, web_client, *sentences, **how)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Makes keys, and tokens that they have signed."""
    return Issuer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser."""
    with chromium_running() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """Open pages: ``open_page(**options of the context)``. One that complains fails the test."""
    yield from watching(chromium)
