"""Runs every file in examples/ against a real server."""

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.end_to_end

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CHROMIUM = "/usr/bin/chromium"


class Program:
    """A running example and its output."""

    def __init__(self, folder: Path, command: list[str], eventually: Callable[..., Any]) -> None:
        self._output = folder / "output"
        self._eventually = eventually
        with self._output.open("wb") as output:
            # A process group of its own, because a shell script has children.
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def prints(self, text: str) -> None:
        self._eventually(lambda: text in self.output(), f"{text!r} in the output: {self.output()}")

    def output(self) -> str:
        return self._output.read_text()

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Run]:
    """Start an example: ``run(*command)``."""
    programs = []

    def running(*command: str) -> Program:
        programs.append(Program(tmp_path, [*command], eventually))
        return programs[-1]

    yield running
    for program in programs:
        program.stop()


def port_of(address: str) -> str:
    return address.rstrip("/").rpartition(":")[2]


def test_thermometer_publishes_temperatures(server: Any, line_client: Any, run: Run, channel: str) -> None:
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    run("sh", str(EXAMPLES / "thermometer.sh"), channel, "127.0.0.1", port_of(server.lines[0]))
    for offset in (1, 2):
        received = reader.receive()
        assert received.startswith(f'MSG {channel} {offset} thermometer {{"celsius": '), received


def test_thermometer_uses_only_standard_shell_syntax() -> None:
    """Checked with dash, which supports no extensions."""
    checked = subprocess.run(["dash", "-n", EXAMPLES / "thermometer.sh"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_python_socket_prints_events(
    server: Any, line_client: Any, run: Run, channel: str, wait_for_subscriber: Any
) -> None:
    reader = run(sys.executable, str(EXAMPLES / "python_socket.py"), channel, "127.0.0.1", port_of(server.lines[0]))
    writer = line_client(server.lines[0])
    wait_for_subscriber(writer)
    writer.send("NICK ann", f"PUB {channel} hello  there", f"EMIT {channel} alarm smoke")
    reader.prints("1 ann: hello  there\n2 ann (alarm): smoke\n")


def test_twisted_client_replies(
    server: Any, line_client: Any, run: Run, channel: str, wait_for_subscriber: Any
) -> None:
    run(sys.executable, str(EXAMPLES / "twisted_client.py"), channel, f"tcp:127.0.0.1:{port_of(server.lines[0])}")
    writer = line_client(server.lines[0])
    wait_for_subscriber(writer)
    writer.send("NICK ann", f"SUB {channel}", f"PUB {channel} ping")
    assert writer.receive_until("MSG ")[-1] == f"MSG {channel} 1 ann ping"
    assert writer.receive() == f"MSG {channel} 2 pong pong, ann"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("python_socket.py", "kitchen 127.0.0.1 {port}"), ("twisted_client.py", "kitchen tcp:127.0.0.1:{port}")],
)
def test_resumes_after_a_lost_connection(script: str, arguments: str, run: Run) -> None:
    """The test acts as the server, because a real one does not drop connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        client = run(sys.executable, str(EXAMPLES / script), *arguments.format(port=port).split())
        with accept(listener) as first:
            assert subscription(first) == "SUB kitchen"
            first.write("WELCOME …\nOK kitchen offset=6 epoch=5f2c1a\nMSG kitchen 7 ann seven\n")
            first.flush()
            client.prints("seven")
        with accept(listener) as second:
            assert subscription(second) == "SUB kitchen since=7 epoch=5f2c1a"
            second.write("WELCOME …\nOK kitchen offset=9 epoch=5f2c1a recovered=yes\nMSG kitchen 8 ann eight\n")
            second.flush()
            client.prints("eight")


def accept(listener: socket.socket) -> Any:
    """Return the next connection as a text file."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    with connection:  # the file keeps it open
        return connection.makefile("rw", encoding="utf-8", newline="\n")


def subscription(client: Any) -> str:
    """Return the first SUB command, without ``echo=off``."""
    for line in client:
        if line.startswith("SUB"):
            return str(line.strip().removesuffix(" echo=off"))
    raise AssertionError("the client disconnected without SUB")


def test_node_client_uses_lines(server: Any, line_client: Any, run: Run, channel: str) -> None:
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    ports = port_of(server.lines[0]), port_of(server.page)
    node = run("node", str(EXAMPLES / "node_client.mjs"), channel, "127.0.0.1", *ports)
    assert reader.receive() == f"MSG {channel} 1 node hello over TCP"
    node.prints(f"lines: MSG {channel} 1 node hello over TCP")


@pytest.mark.parametrize("options", [[], ["--experimental-websocket"]])
def test_node_client_uses_the_javascript_client(
    server: Any, line_client: Any, run: Run, channel: str, options: list[str]
) -> None:
    """Uses WebSocket or the stream, depending on the version of Node.js: 20 and 21 need an option for WebSocket, which
    older versions, as in Debian 12, do not know."""
    node = ["node", *options]
    probe = subprocess.run([*node, "-e", "console.log(!!globalThis.WebSocket)"], capture_output=True, text=True)
    if "bad option" in probe.stderr:
        return
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    ports = port_of(server.lines[0]), port_of(server.page)
    program = run(*node, str(EXAMPLES / "node_client.mjs"), channel, "127.0.0.1", *ports)
    received = [reader.receive(), reader.receive()]
    assert any(line.endswith(' {"hello":"from the client"}') for line in received), received
    program.prints("client: published with offset ")
    program.prints(f" by {'websocket' if 'true' in probe.stdout else 'stream'}, from 127.0.0.1:")


def test_application_with_sensors_publishes_datagrams(start: Any, line_client: Any, eventually: Any) -> None:
    """In an empty folder, on free ports."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free_port:
        free_port.bind(("127.0.0.1", 0))
        port = free_port.getsockname()[1]
    text = (EXAMPLES / "sensors.tac").read_text()
    for ours, free in (("tcp:8081", "tcp:0"), ("tcp:8082", "tcp:0"), ("UDPServer(9000", f"UDPServer({port}")):
        assert ours in text
        text = text.replace(ours, free)
    application = start.application("sensors.tac", text)
    reader = line_client(f"127.0.0.1:{port_of(application.lines[0])}")
    reader.request("SUB sensors.kitchen")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sensor:
        for datagram in (b"kitchen 21.5\n", b"kitchen warm", b"a*b 5", b"freezer -18"):
            sensor.sendto(datagram, ("127.0.0.1", port))
    assert reader.receive() == 'MSG sensors.kitchen 1 udp {"celsius":21.5}'
    assert reader.request("PUB sensors.kitchen 5").startswith("ERR unauthorized ")
    eventually(lambda: "freezer: {'celsius': -18.0}" in application.log(), "the callback")
    assert "no number from " in application.log() and "#warn] bad-channel: " in application.log()


Restart = Callable[[Any], Any]

# Clients wait up to this time between two attempts.
MAX_RECONNECT_DELAY_SECONDS = 30.0


@pytest.fixture
def start_again(start: Any) -> Restart:
    """Start a server on the ports of one that was stopped."""

    def restart(server: Any) -> Any:
        tcp, web = (f"tcp:{port_of(address)}:interface=127.0.0.1" for address in (server.lines[0], server.page))
        return start(tcp=(tcp,), web=(web,))

    return restart


def wait_for_the_example(
    name: str, server: Any, line_client: Any, program: Program, eventually: Any, payload: str
) -> None:
    """Wait until the example works, using an event with ``payload``."""
    client = line_client(server.lines[0])
    client.request("SUB kitchen")

    def works() -> bool:
        client.send(f"PUB kitchen {payload}")
        received = client.receive_until("MSG ")
        if name == "thermometer.sh":
            return '"celsius"' in received[-1]
        if name == "twisted_client.py":
            client.send("PUB kitchen ping")
            return " pong pong, " in client.receive_until("MSG ")[-1]
        seen = [line for line in program.output().splitlines() if payload in line]
        beginnings = ("lines: ", "client: ") if name == "node_client.mjs" else ("",)
        return all(any(line.startswith(beginning) for line in seen) for beginning in beginnings)

    eventually(works, f"{name} to work; output: {program.output()}", timeout=MAX_RECONNECT_DELAY_SECONDS + 15)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("thermometer.sh", "sh thermometer.sh kitchen 127.0.0.1 {line}"),
        ("python_socket.py", "{python} python_socket.py kitchen 127.0.0.1 {line}"),
        ("twisted_client.py", "{python} twisted_client.py kitchen tcp:127.0.0.1:{line}"),
        ("node_client.mjs", "node node_client.mjs kitchen 127.0.0.1 {line} {web}"),
    ],
)
def test_program_waits_for_a_server_that_is_down_and_survives_restarts(
    start: Any, start_again: Restart, line_client: Any, run: Run, eventually: Any, name: str, command: str
) -> None:
    server = start()
    server.stop()
    ports = {"line": port_of(server.lines[0]), "web": port_of(server.page)}
    words = command.format(python=sys.executable, **ports).split()
    program = run(*[str(EXAMPLES / word) if word == name else word for word in words])
    eventually(program.output, "a message that the server is down")
    server = start_again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "one")
    server.stop()
    server = start_again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "two")
    assert program.process.poll() is None
    # A killed server closes nothing, and its kernel replies with a reset.
    server.kill()
    server = start_again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "three")


@pytest.fixture
def wait_for_subscriber(eventually: Callable[..., Any], channel: str) -> Callable[[Any], None]:
    """Wait until the channel of the test has a subscriber, as seen by the given client."""

    def has_subscriber(client: Any) -> bool:
        client.send(f"WHO {channel}")
        return client.receive_until("OK ")[-1] != "OK 0"

    return lambda client: eventually(lambda: has_subscriber(client), f"a subscriber of {channel}")


@pytest.fixture
def other_origin() -> Iterator[str]:
    """The origin of another web server with the examples."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(EXAMPLES))) as web_server:
        thread = threading.Thread(target=web_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web_server.server_port}"
        web_server.shutdown()
        thread.join()


def test_chat_on_another_origin_exchanges_messages_with_a_terminal(
    start: Any, line_client: Any, other_origin: str
) -> None:
    server = start("--allow-origin", other_origin)
    terminal = line_client(server.lines[0])
    terminal.request("NICK bob")
    terminal.request("SUB chat")
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{other_origin}/chat.html?server={server.page.rstrip('/')}")
        page.get_by_text("connected · 2 people").wait_for()
        page.get_by_label("Your name").fill("ann")
        page.get_by_label("Message").fill("<b>hello</b>")
        page.get_by_role("button").click()
        assert terminal.receive() == "MSG chat 1 ann <b>hello</b>"
        terminal.send("PUB chat hello yourself")
        page.get_by_text("hello yourself").wait_for()
        assert page.get_by_text("<b>hello</b>").is_visible()
        browser.close()


def test_chat_waits_for_a_server_that_is_down_and_survives_restarts(
    start: Any, line_client: Any, other_origin: str
) -> None:
    server = start("--allow-origin", other_origin)
    server.stop()
    again = {
        "tcp": (f"tcp:{port_of(server.lines[0])}:interface=127.0.0.1",),
        "web": (f"tcp:{port_of(server.page)}:interface=127.0.0.1",),
    }
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{other_origin}/chat.html?server={server.page.rstrip('/')}")
        page.get_by_text("server not reachable, trying again").wait_for()
        for _ in range(2):
            server = start("--allow-origin", other_origin, **again)
            page.get_by_text("connected · only you").wait_for()
            terminal = line_client(server.lines[0])
            terminal.request("SUB chat")
            page.get_by_label("Message").fill("hello again")
            page.get_by_role("button").click()
            assert terminal.receive().endswith(" hello again")
            server.stop()
            page.get_by_text("reconnecting ·").wait_for()
            page.get_by_label("Message").fill("see you later")
            page.get_by_role("button").click()
            page.locator(".pending", has_text="see you later").wait_for()
        browser.close()


def test_every_example_is_documented_and_tested() -> None:
    """A new example needs a row in its README and a test."""
    names = ("test_examples.py", "test_proxies.py", "test_publishing.py", "test_metrics.py", "../test_documentation.py")
    tests = "".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)
    documentation = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name not in ("README.md", "__pycache__"):
            assert f"]({path.name})" in documentation
            assert path.name in tests
