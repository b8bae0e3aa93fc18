"""Each file in examples/ does what its first lines say, against a real bridge."""

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
    """A running example and what it has said so far."""

    def __init__(self, folder: Path, command: list[str], eventually: Callable[..., Any]) -> None:
        self._output = folder / "output"
        self._eventually = eventually
        with self._output.open("wb") as output:
            # A group of its own, as a shell script has children.
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def send(self, words: str) -> None:
        self._eventually(lambda: words in self.output(), f"{words!r} from the example, which said: {self.output()}")

    def output(self) -> str:
        return self._output.read_text()

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Run]:
    """Start an example by the words of its command."""
    programs = []

    def running(*command: str) -> Program:
        programs.append(Program(tmp_path, [*command], eventually))
        return programs[-1]

    yield running
    for program in programs:
        program.stop()


def port_of(address: str) -> str:
    return address.rstrip("/").rpartition(":")[2]


def test_the_thermometer_publishes_what_it_measures(server: Any, line_client: Any, run: Run, channel: str) -> None:
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    run("sh", str(EXAMPLES / "thermometer.sh"), channel, "127.0.0.1", port_of(server.lines[0]))
    for offset in (1, 2):
        heard = reader.receive()
        assert heard.startswith(f'MSG {channel} {offset} thermometer {{"celsius": '), heard


def test_the_thermometer_keeps_to_what_every_shell_knows() -> None:
    """dash is the strictest there is here; it says what it cannot read."""
    checked = subprocess.run(["dash", "-n", EXAMPLES / "thermometer.sh"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_python_socket_shows_what_is_published(
    server: Any, line_client: Any, run: Run, channel: str, wait_for_a_reader: Any
) -> None:
    reader = run(sys.executable, str(EXAMPLES / "python_socket.py"), channel, "127.0.0.1", port_of(server.lines[0]))
    writer = line_client(server.lines[0])
    wait_for_a_reader(writer)
    writer.send("NICK ann", f"PUB {channel} hello  there", f"EMIT {channel} alarm smoke")
    reader.send("1 ann: hello  there\n2 ann (alarm): smoke\n")


def test_the_twisted_client_answers(
    server: Any, line_client: Any, run: Run, channel: str, wait_for_a_reader: Any
) -> None:
    run(sys.executable, str(EXAMPLES / "twisted_client.py"), channel, f"tcp:127.0.0.1:{port_of(server.lines[0])}")
    writer = line_client(server.lines[0])
    wait_for_a_reader(writer)
    writer.send("NICK ann", f"SUB {channel}", f"PUB {channel} ping")
    assert writer.receive_until("MSG ")[-1] == f"MSG {channel} 1 ann ping"
    assert writer.receive() == f"MSG {channel} 2 pong pong, ann"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("python_socket.py", "kitchen 127.0.0.1 {port}"), ("twisted_client.py", "kitchen tcp:127.0.0.1:{port}")],
)
def test_a_client_that_was_cut_off_goes_on_where_it_was(script: str, arguments: str, run: Run) -> None:
    """The bridge is played by the test here, as a real one does not cut anybody off."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        client = run(sys.executable, str(EXAMPLES / script), *arguments.format(port=port).split())
        with accept(listener) as first:
            assert subscription(first) == "SUB kitchen"
            first.write("WELCOME …\nOK kitchen offset=6 epoch=5f2c1a\nMSG kitchen 7 ann seven\n")
            first.flush()
            client.send("seven")
        with accept(listener) as second:
            assert subscription(second) == "SUB kitchen since=7 epoch=5f2c1a"
            second.write("WELCOME …\nOK kitchen offset=9 epoch=5f2c1a recovered=yes\nMSG kitchen 8 ann eight\n")
            second.flush()
            client.send("eight")


def accept(listener: socket.socket) -> Any:
    """The next connection, as a text file."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    with connection:  # the file keeps it open
        return connection.makefile("rw", encoding="utf-8", newline="\n")


def subscription(client: Any) -> str:
    """The first SUB, without the wish to be left out oneself."""
    for line in client:
        if line.startswith("SUB"):
            return str(line.strip().removesuffix(" echo=off"))
    raise AssertionError("the client has gone without a SUB")


def test_the_node_client_speaks_lines(server: Any, line_client: Any, run: Run, channel: str) -> None:
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    ports = port_of(server.lines[0]), port_of(server.page)
    node = run("node", str(EXAMPLES / "node_client.mjs"), channel, "127.0.0.1", *ports)
    assert reader.receive() == f"MSG {channel} 1 node hello over TCP"
    node.send(f"lines: MSG {channel} 1 node hello over TCP")


@pytest.mark.parametrize("options", [[], ["--experimental-websocket"]])
def test_the_node_client_speaks_as_pages_do(
    server: Any, line_client: Any, run: Run, channel: str, options: list[str]
) -> None:
    """Over a WebSocket or its stand-in, as this Node can. Node 20 and 21 hide their WebSocket behind an option, which
    older ones, as Debian 12 has, do not know."""
    node = ["node", *options]
    probe = subprocess.run([*node, "-e", "console.log(!!globalThis.WebSocket)"], capture_output=True, text=True)
    if "bad option" in probe.stderr:
        return
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    ports = port_of(server.lines[0]), port_of(server.page)
    program = run(*node, str(EXAMPLES / "node_client.mjs"), channel, "127.0.0.1", *ports)
    heard = [reader.receive(), reader.receive()]
    assert any(line.endswith(' {"hello":"as pages say it"}') for line in heard), heard
    program.send("page: published as ")
    program.send(f" by {'websocket' if 'true' in probe.stdout else 'stream'}, from 127.0.0.1:")


Restart = Callable[[Any], Any]

# A client that a server sent away several times waits up to 30 seconds before it tries again.
LONGEST_DELAY = 30.0


@pytest.fixture
def start_again(start: Any) -> Restart:
    """Start a bridge on the ports of one that was stopped."""

    def starting(server: Any) -> Any:
        tcp, web = (f"tcp:{port_of(address)}:interface=127.0.0.1" for address in (server.lines[0], server.page))
        return start(tcp=(tcp,), web=(web,))

    return starting


def wait_for_the_example(
    name: str, server: Any, line_client: Any, program: Program, eventually: Any, words: str
) -> None:
    """Wait until the example does what it is for, with an event whose payload is ``words``."""
    client = line_client(server.lines[0])
    client.request("SUB kitchen")

    def works() -> bool:
        client.send(f"PUB kitchen {words}")
        heard = client.receive_until("MSG ")
        if name == "thermometer.sh":
            return '"celsius"' in heard[-1]
        if name == "twisted_client.py":
            client.send("PUB kitchen ping")
            return " pong pong, " in client.receive_until("MSG ")[-1]
        seen = [line for line in program.output().splitlines() if words in line]
        beginnings = ("lines: ", "page: ") if name == "node_client.mjs" else ("",)
        return all(any(line.startswith(beginning) for line in seen) for beginning in beginnings)

    eventually(works, f"{name} to work; it said {program.output()}", patience=LONGEST_DELAY + 15)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("thermometer.sh", "sh thermometer.sh kitchen 127.0.0.1 {line}"),
        ("python_socket.py", "{python} python_socket.py kitchen 127.0.0.1 {line}"),
        ("twisted_client.py", "{python} twisted_client.py kitchen tcp:127.0.0.1:{line}"),
        ("node_client.mjs", "node node_client.mjs kitchen 127.0.0.1 {line} {web}"),
    ],
)
def test_a_program_waits_for_a_bridge_that_is_away_and_survives_its_restart(
    start: Any, start_again: Restart, line_client: Any, run: Run, eventually: Any, name: str, command: str
) -> None:
    server = start()
    server.stop()
    ports = {"line": port_of(server.lines[0]), "web": port_of(server.page)}
    words = command.format(python=sys.executable, **ports).split()
    program = run(*[str(EXAMPLES / word) if word == name else word for word in words])
    eventually(program.output, "a word about the bridge that is away")
    server = start_again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "one")
    server.stop()
    server = start_again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "two")
    assert program.process.poll() is None
    # Killed, it says no farewell, and its kernel answers with a reset.
    server.kill()
    server = start_again(server)
    wait_for_the_example(name, server, line_client, program, eventually, "three")


@pytest.fixture
def wait_for_a_reader(eventually: Callable[..., Any], channel: str) -> Callable[[Any], None]:
    """Wait until somebody reads the test's channel; the client given asks who."""

    def somebody(client: Any) -> bool:
        client.send(f"WHO {channel}")
        return client.receive_until("OK ")[-1] != "OK 0"

    return lambda client: eventually(lambda: somebody(client), f"a reader of {channel}")


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another server that has the examples: its origin."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(EXAMPLES))) as web_server:
        thread = threading.Thread(target=web_server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web_server.server_port}"
        web_server.shutdown()
        thread.join()


def test_the_chat_is_served_from_elsewhere_and_talks_with_a_terminal(
    start: Any, line_client: Any, elsewhere: str
) -> None:
    server = start("--allow-origin", elsewhere)
    terminal = line_client(server.lines[0])
    terminal.request("NICK bob")
    terminal.request("SUB chat")
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{elsewhere}/chat.html?bridge={server.page.rstrip('/')}")
        page.get_by_text("open · 2 are here").wait_for()
        page.get_by_label("your name").fill("ann")
        page.get_by_label("say something").fill("<b>hello</b>")
        page.get_by_role("button").click()
        assert terminal.receive() == "MSG chat 1 ann <b>hello</b>"
        terminal.send("PUB chat hello yourself")
        page.get_by_text("hello yourself").wait_for()
        assert page.get_by_text("<b>hello</b>").is_visible()
        browser.close()


def test_the_chat_waits_for_a_bridge_that_is_away_and_survives_its_restart(
    start: Any, line_client: Any, elsewhere: str
) -> None:
    server = start("--allow-origin", elsewhere)
    server.stop()
    again = {
        "tcp": (f"tcp:{port_of(server.lines[0])}:interface=127.0.0.1",),
        "web": (f"tcp:{port_of(server.page)}:interface=127.0.0.1",),
    }
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{elsewhere}/chat.html?bridge={server.page.rstrip('/')}")
        page.get_by_text("no bridge, trying again").wait_for()
        for _ in range(2):
            server = start("--allow-origin", elsewhere, **again)
            page.get_by_text("open · nobody else is here").wait_for()
            terminal = line_client(server.lines[0])
            terminal.request("SUB chat")
            page.get_by_label("say something").fill("hello again")
            page.get_by_role("button").click()
            assert terminal.receive().endswith(" hello again")
            server.stop()
            page.get_by_text("waiting ·").wait_for()
        browser.close()


def test_every_example_is_listed_and_run() -> None:
    """A new one needs a line in the README, and a test here."""
    here = Path(__file__)
    tests = (
        here,
        here.with_name("test_proxies.py"),
        here.with_name("test_publishing.py"),
        here.with_name("test_metrics.py"),
    )
    ours = "".join(file.read_text(encoding="utf-8") for file in tests)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.name not in ("README.md", "__pycache__"):
            assert f"]({path.name})" in listed
            assert path.name in ours
