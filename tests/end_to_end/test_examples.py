"""Runs every file in examples/ against a real server."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.documents import CHECKOUT
from tests.end_to_end.programs import Program

pytestmark = pytest.mark.end_to_end

EXAMPLES = CHECKOUT / "examples"
Run = Callable[..., Program]


def test_thermometer_publishes_temperatures(server, line_client, run, channel):
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    run("sh", str(EXAMPLES / "thermometer.sh"), channel, "127.0.0.1", str(server.line_port))
    for offset in (1, 2):
        received = reader.receive()
        assert received.startswith(f'MSG {channel} {offset} thermometer {{"celsius": '), received


def test_thermometer_uses_only_standard_shell_syntax():
    """Checked with dash, which supports no extensions."""
    checked = subprocess.run(["dash", "-n", EXAMPLES / "thermometer.sh"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_python_socket_prints_events(server, line_client, run, channel, wait_for_subscriber):
    reader = run(sys.executable, str(EXAMPLES / "python_socket.py"), channel, "127.0.0.1", str(server.line_port))
    writer = line_client(server.lines[0])
    wait_for_subscriber(writer)
    writer.send("NICK ann", f"PUB {channel} hello  there", f"EMIT {channel} alarm smoke")
    reader.prints(r"^1 ann: hello  there\n2 ann \(alarm\): smoke$")


def test_twisted_client_replies(server, line_client, run, channel, wait_for_subscriber):
    run(sys.executable, str(EXAMPLES / "twisted_client.py"), channel, f"tcp:127.0.0.1:{server.line_port}")
    writer = line_client(server.lines[0])
    wait_for_subscriber(writer)
    writer.send("NICK ann", f"SUB {channel}", f"PUB {channel} ping")
    assert writer.receive_until("MSG ")[-1] == f"MSG {channel} 1 ann ping"
    assert writer.receive() == f"MSG {channel} 2 pong pong, ann"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("python_socket.py", "kitchen 127.0.0.1 {port}"), ("twisted_client.py", "kitchen tcp:127.0.0.1:{port}")],
)
def test_resumes_after_a_lost_connection(script, arguments, run):
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


def test_node_client_uses_lines(server, line_client, run, channel):
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    ports = str(server.line_port), str(server.web_port)
    node = run("node", str(EXAMPLES / "node_client.mjs"), channel, "127.0.0.1", *ports)
    assert reader.receive() == f"MSG {channel} 1 node hello over TCP"
    node.prints(f"lines: MSG {channel} 1 node hello over TCP")


@pytest.mark.parametrize("options", [[], ["--experimental-websocket"]])
def test_node_client_uses_the_javascript_client(server, line_client, run, channel, options):
    """Uses WebSocket or the stream, depending on the version of Node.js: 20 and 21 need an option for WebSocket, which
    older versions, as in Debian 12, do not know."""
    node = ["node", *options]
    probe = subprocess.run([*node, "-e", "console.log(!!globalThis.WebSocket)"], capture_output=True, text=True)
    if "bad option" in probe.stderr:
        return
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    ports = str(server.line_port), str(server.web_port)
    program = run(*node, str(EXAMPLES / "node_client.mjs"), channel, "127.0.0.1", *ports)
    received = [reader.receive(), reader.receive()]
    assert any(line.endswith(' {"hello":"from the client"}') for line in received), received
    program.prints("client: published with offset ")
    program.prints(f" by {'websocket' if 'true' in probe.stdout else 'stream'}, from 127.0.0.1:")


def test_application_with_sensors_publishes_datagrams(start, line_client, eventually):
    """In an empty folder, on free ports."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free_port:
        free_port.bind(("127.0.0.1", 0))
        port = free_port.getsockname()[1]
    text = (EXAMPLES / "sensors.tac").read_text()
    for ours, free in (("tcp:8081", "tcp:0"), ("tcp:8082", "tcp:0"), ("UDPServer(9000", f"UDPServer({port}")):
        assert ours in text
        text = text.replace(ours, free)
    application = start.application("sensors.tac", text)
    reader = line_client(f"127.0.0.1:{application.line_port}")
    reader.request("SUB sensors.kitchen")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sensor:
        for datagram in (b"kitchen 21.5\n", b"kitchen warm", b"a*b 5", b"freezer -18"):
            sensor.sendto(datagram, ("127.0.0.1", port))
    assert reader.receive() == 'MSG sensors.kitchen 1 udp {"celsius":21.5}'
    assert reader.request("PUB sensors.kitchen 5").startswith("ERR unauthorized ")
    eventually(lambda: "freezer: {'celsius': -18.0}" in application.log(), "the callback")
    assert "no number from " in application.log() and "#warn] bad-channel: " in application.log()


# Clients wait up to this time between two attempts.
MAX_RECONNECT_DELAY_SECONDS = 30.0


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
def test_program_waits_for_the_server_and_survives_restarts(start, line_client, run, eventually, name, command):
    server = start()
    server.stop()
    words = command.format(python=sys.executable, line=server.line_port, web=server.web_port).split()
    program = run(*[str(EXAMPLES / word) if word == name else word for word in words])
    eventually(program.output, "a message that the server is down")
    server = start.again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "one")
    server.stop()
    server = start.again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "two")
    assert program.process.poll() is None
    # A killed server closes nothing, and its kernel replies with a reset.
    server.kill()
    server = start.again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "three")


@pytest.fixture
def wait_for_subscriber(eventually: Callable[..., Any], channel: str) -> Callable[[Any], None]:
    """Wait until the channel of the test has a subscriber, as seen by the given client."""

    def has_subscriber(client: Any) -> bool:
        client.send(f"WHO {channel}")
        return client.receive_until("OK ")[-1] != "OK 0"

    return lambda client: eventually(lambda: has_subscriber(client), f"a subscriber of {channel}")


@pytest.fixture
def chat(open_page: Any, serve_folder: Any) -> Iterator[Any]:
    """Open the chat on another origin: ``chat.open(server)``, which must allow ``chat.origin``."""
    monitored = open_page()

    class Chat:
        origin = serve_folder(EXAMPLES)
        page = monitored.page

        def open(self, server: Any) -> Any:
            self.page.goto(f"{self.origin}/chat.html?server={server.page.rstrip('/')}")
            return self.page

        def send(self, text: str) -> None:
            self.page.get_by_label("Message").fill(text)
            self.page.get_by_role("button").click()

    yield Chat()
    monitored.errors.clear()  # the browser reports each failed attempt to connect


def test_chat_on_another_origin_exchanges_messages_with_a_terminal(start, line_client, chat):
    server = start("--allow-origin", chat.origin)
    terminal = line_client(server.lines[0])
    terminal.request("NICK bob")
    terminal.request("SUB chat")
    page = chat.open(server)
    page.get_by_text("connected · 2 people").wait_for()
    page.get_by_label("Your name").fill("ann")
    chat.send("<b>hello</b>")
    assert terminal.receive() == "MSG chat 1 ann <b>hello</b>"
    terminal.send("PUB chat hello yourself")
    page.get_by_text("hello yourself").wait_for()
    assert page.get_by_text("<b>hello</b>").is_visible()


def test_chat_waits_for_a_server_that_is_down_and_survives_restarts(start, line_client, chat):
    server = start("--allow-origin", chat.origin)
    server.stop()
    page = chat.open(server)
    page.get_by_text("server not reachable, trying again").wait_for()
    for _ in range(2):
        server = start.again(server, "--allow-origin", chat.origin)
        page.get_by_text("connected · only you").wait_for()
        terminal = line_client(server.lines[0])
        terminal.request("SUB chat")
        chat.send("hello again")
        assert terminal.receive().endswith(" hello again")
        server.stop()
        page.get_by_text("reconnecting ·").wait_for()
        chat.send("see you later")
        page.locator(".pending", has_text="see you later").wait_for()


def test_day_of_a_thermometer_is_charted_from_the_directory(start, open_page, tmp_path):
    """Memory has an hour of it."""
    state, day = tmp_path / "state", tmp_path / "day.jsonl"
    server = start("--state", str(state))
    server.stop()
    with day.open("wb") as file:
        subprocess.run([sys.executable, EXAMPLES / "thermometer_day.py"], stdout=file, check=True, timeout=60)
    program = Path(sys.executable).with_name("sockbridge")
    subprocess.run([program, "state", state, "import", "kitchen", day], check=True, timeout=60)
    server = start.again(server, "--state", str(state), "--history-age", "3600")
    page = open_page().open(f"{server.page}#kitchen")
    expect(page.locator("#value-chart .plot")).to_be_visible()
    page.locator('#value-chart input[value="all"]').check(force=True)
    readings = [json.loads(line)["data"]["celsius"] for line in day.read_text().splitlines()]
    chip = page.locator('#value-chart .chip[data-field="celsius"] .chip-range')
    expect(chip).to_have_text(f"{min(readings):g}–{max(readings):g}")
    page.wait_for_function(
        "() => document.querySelector('#value-chart .plot').getAttribute('aria-valuemax') === '1439'"
    )


def test_every_example_is_documented_and_tested():
    """A new example needs a row in its README and a test."""
    modules = [*Path(__file__).parent.glob("test_*.py"), Path(__file__).parent.parent / "test_documentation.py"]
    tests = "".join(module.read_text(encoding="utf-8") for module in modules)
    documentation = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name not in ("README.md", "__pycache__"):
            assert f"]({path.name})" in documentation
            assert path.stem in tests
