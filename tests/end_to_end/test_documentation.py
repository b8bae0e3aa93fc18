"""Runs the commands, programs and pages of the documentation."""

import contextlib
import functools
import os
import re
import select
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

CHECKOUT = Path(__file__).parent.parent.parent
FIRST_STEPS = CHECKOUT / "docs" / "tutorial" / "first-five-minutes.md"
SOCKETS = CHECKOUT / "docs" / "tutorial" / "sockets.md"
README = CHECKOUT / "README.md"
CHROMIUM = "/usr/bin/chromium"

RUNNABLE = ("printf ", "curl ")
"""Beginnings of commands that can run unchanged. The remaining ones need a terminal or root."""


def fenced(page: Path, kind: str) -> list[str]:
    # Reads all blocks in order: the end of one looks like the beginning of one without a kind.
    blocks = re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text for its_kind, text in blocks if its_kind == kind]


def sessions(page: Path) -> list[list[tuple[str, str]]]:
    """The ``console`` blocks that can be run: commands, each with its output."""
    found = []
    for block in fenced(page, "console"):
        commands = [
            (command, output) for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
        ]
        if all(command.startswith(RUNNABLE) for command, _ in commands):
            found.append(commands)
    return found


def use_ports(text: str, server: Any) -> str:
    """Replace the ports of the documentation by those of the server."""
    return text.replace("8081", port_of(server.lines[0])).replace("8082", port_of(server.page))


def port_of(address: str) -> str:
    return address.rstrip("/").rpartition(":")[2]


def normalized(text: str) -> str:
    """Replace the parts that differ from one run to the next."""
    text = re.sub(r"id=\w+", "id=…", text)
    text = re.sub(r"Content-Length: \d+", "Content-Length: …", text)
    text = re.sub(r'"title":"[^"]*"', '"title":"…"', text)  # newer Pythons have other titles for some
    text = re.sub(r'"epoch":"\w+"', '"epoch":"…"', text)
    text = re.sub(r'"next":"\w+:', '"next":"…:', text)
    text = re.sub(r'"time":\d{13}', '"time":…', text)
    text = re.sub(r'"from":"[a-z0-9]{5}"', '"from":"…"', text)
    return re.sub(r"(127\.0\.0\.1[: ])\d+", r"\1…", text)


@pytest.mark.parametrize(
    "page",
    [
        "reference/line-protocol.md",
        "reference/json-protocol.md",
        "tutorial/sockets.md",
        "reference/http-api.md",
    ],
)
def test_commands_print_the_documented_output(
    page: str, start: Any, environment: dict[str, str], tmp_path: Path
) -> None:
    found = sessions(CHECKOUT / "docs" / page)
    assert found, "no block of this page can be run"
    run_sessions(found, start(), environment, tmp_path)


def run_sessions(found: list[list[tuple[str, str]]], server: Any, environment: dict[str, str], tmp_path: Path) -> None:
    # In a pipe, curl would show its progress.
    (tmp_path / ".curlrc").write_text("silent\nshow-error\n")
    for command, output in [pair for commands in found for pair in commands]:
        ran = subprocess.run(
            ["bash", "-c", use_ports(command, server)],
            env=environment | {"CURL_HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
        )
        printed = normalized(ran.stdout.decode().replace("\r\n", "\n"))
        assert printed.strip() == normalized(use_ports(output, server)).strip(), command


def calls(trace: str) -> list[str]:
    """System calls as strace prints them, without the parts that differ from one run to the next."""
    lines = [re.sub(r"^\d+ +", "", line) for line in trace.splitlines() if "EAGAIN" not in line]
    lines = [line for line in lines if re.match(r"bind|listen|setsockopt|accept4|sendto|recvfrom", line)]
    lines = [re.sub(r" += \d+$", "", normalized(line)) for line in lines]
    chance = r"(?<=\()\d+(?=, )|htons\(\d+\)|epoch=\w+|(?<=MSG kitchen 1 )\w+|\d+(?=, 0, NULL)"
    return [re.sub(chance, "…", line) for line in lines]


@pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux's")
def test_server_makes_the_documented_system_calls(
    start: Any, line_client: Any, eventually: Any, tmp_path: Path
) -> None:
    """Those of the start, of a client that subscribes, and of one that publishes."""
    published, started = [block for block in fenced(SOCKETS, "console") if "strace " in block]
    strace = ["strace", "-D", "-f", "-s", "100", "-o", str(tmp_path / "trace")]
    kinds = "trace=bind,listen,setsockopt,accept4,sendto,recvfrom"
    server = start(web=("none",), launcher=[*strace, "-e", kinds])
    reader, writer = line_client(server.lines[0]), line_client(server.lines[0])
    reader.request("SUB kitchen\r")
    writer.request("PUB kitchen 21.5\r")
    reader.receive()
    shown = calls(published)
    welcome = shown[:2]
    # strace writes the end of a line when the call returns, which can be after the reader has received the event.
    eventually(lambda: (tmp_path / "trace").read_text().endswith(" = 25\n"), "the end of the last line")
    assert calls((tmp_path / "trace").read_text()) == calls(started) + welcome + welcome + shown[2:]


def programs() -> dict[str, str]:
    """The Python programs of the course, by the name in their first line."""
    return {program.split(":")[0].removeprefix("# "): program for program in fenced(SOCKETS, "python")}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], tuple[Any, Any]]]:
    """Start a server of the course: returns its process and a function that connects to it."""
    opened: list[Any] = []

    def serving(name: str) -> tuple[Any, Any]:
        (tmp_path / name).write_text(programs()[name])
        process = subprocess.Popen([sys.executable, name], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        opened.append(process)
        assert process.stdout is not None
        port = int(process.stdout.readline().removeprefix("listening on port "))

        def connect() -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            opened.append(connection)
            return connection

        return process, connect

    yield serving
    for thing in reversed(opened):
        if isinstance(thing, socket.socket):
            thing.close()
        else:
            thing.kill()
            thing.communicate()


def test_blocking_server_serves_one_client_and_exits(serve: Any) -> None:
    process, connect = serve("blocking.py")
    client = connect()
    client.sendall(b"hello")
    assert client.recv(100) == b"you said hello"
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b""
    assert process.wait(20) == 0


def test_iterative_server_makes_the_second_client_wait(serve: Any) -> None:
    _, connect = serve("iterative.py")
    first, second = connect(), connect()
    second.sendall(b"and me?")
    first.sendall(b"hello")
    assert first.recv(100) == b"you said hello"
    assert not select.select([second], [], [], 0.2)[0]
    first.close()
    assert second.recv(100) == b"you said and me?"


def test_event_driven_server_sends_data_of_one_client_to_all(serve: Any) -> None:
    _, connect = serve("event_driven.py")
    first, second = connect(), connect()
    second.sendall(b"here ")  # so that the second has certainly been accepted
    assert second.recv(100) == first.recv(100) == b"here "
    first.sendall(b"hello")
    assert second.recv(100) == first.recv(100) == b"hello"
    first.close()
    second.sendall(b"alone")
    assert second.recv(100) == b"alone"


def test_frame_program_prints_the_documented_output(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", programs()["frame.py"]], capture_output=True, text=True, check=True)
    assert f"It prints `{ran.stdout.strip()}`" in SOCKETS.read_text(encoding="utf-8")


def test_every_program_of_the_course_is_run() -> None:
    assert set(programs()) == {"blocking.py", "iterative.py", "event_driven.py", "frame.py"}


def test_manual_websocket_receives_the_documented_bytes(server: Any) -> None:
    """The second dump is compared unchanged. In the first, addresses and versions differ."""
    handshake, frames = fenced(SOCKETS, "sh")
    dumps = [block for block in fenced(SOCKETS, "") if block.startswith("00000000: ")]
    printed = [
        subprocess.run(["bash", "-c", use_ports(script, server)], capture_output=True, text=True, check=True).stdout
        for script in (handshake, frames)
    ]
    assert printed[1] == dumps[1]
    received, shown = (normalized_in_dump(dump) for dump in (printed[0], dumps[0]))
    assert received == shown


def normalized_in_dump(dump: str) -> bytes:
    """The bytes of a dump by xxd, without the parts that differ from one run to the next."""
    data = b"".join(bytes.fromhex(line[10:49]) for line in dump.splitlines())
    # The length of the frame depends on the length of the ports.
    head, welcome = data.split(b"\r\n\r\n")
    head = re.sub(rb"AutobahnPython/\S+", b"AutobahnPython", head)
    return head + re.sub(rb'\d+"', b'"', re.sub(rb'"id":"\w+"', b"", welcome))[2:]


@pytest.fixture
def folder_of_pages(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a second web server delivers, and the origin of that server."""
    folder = tmp_path / "pages"
    folder.mkdir()
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder))) as web_server:
        thread = threading.Thread(target=web_server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{web_server.server_port}"
        web_server.shutdown()
        thread.join()


def test_first_steps_work_with_telnet_and_curl(start: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """The same server for both: the event of curl gets the offset after that of telnet."""
    server = start()
    (session,) = (use_ports(block, server) for block in fenced(FIRST_STEPS, "") if "$ telnet" in block)
    command, *shown = session.splitlines()
    telnet = subprocess.Popen(
        command.removeprefix("$ ").split(), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert telnet.stdin is not None and telnet.stdout is not None
    try:
        for line in shown:
            if line.startswith(("SUB ", "PUB ")):
                telnet.stdin.write(f"{line}\n")
                telnet.stdin.flush()
            else:
                printed = telnet.stdout.readline()
                chance = r"epoch=\w+|(?<=MSG kitchen 1 )\w+"
                assert re.sub(chance, "…", normalized(printed.strip())) == re.sub(chance, "…", normalized(line))
        run_sessions(sessions(FIRST_STEPS), server, environment, tmp_path)
    finally:
        telnet.kill()
        telnet.communicate()


@contextlib.contextmanager
def browser_window() -> Iterator[Any]:
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Any]:
    """A program and all that it starts, until the block ends."""
    program = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)
    try:
        yield program
    finally:
        os.killpg(program.pid, signal.SIGTERM)
        program.communicate()


def test_first_steps_show_the_thermometer_on_a_page(start: Any, folder_of_pages: tuple[Path, str]) -> None:
    folder, origin = folder_of_pages
    server = start("--allow-origin", origin)
    (page,) = fenced(FIRST_STEPS, "html")
    (folder / "kitchen.html").write_text(use_ports(page, server))
    (thermometer,) = (script for script in fenced(FIRST_STEPS, "sh") if "celsius" in script)
    with running(["sh", "-c", use_ports(thermometer, server)]), browser_window() as window:
        window.goto(f"{origin}/kitchen.html")
        window.get_by_text(re.compile(r"^2[0-3]\.\d °C$")).wait_for()


def test_the_programs_of_the_readme_read_the_same_event(start: Any, folder_of_pages: tuple[Path, str]) -> None:
    folder, origin = folder_of_pages
    server = start("--allow-origin", origin)
    (script,), (program,) = fenced(README, "js"), fenced(README, "python")
    (folder / "page.html").write_text(
        f'<meta charset="utf-8"><script type="module">{use_ports(script, server)}</script>'
    )
    with browser_window() as window:
        with window.expect_console_message(lambda message: "celsius: 21.5" in message.text):
            window.goto(f"{origin}/page.html")
        with running([sys.executable, "-u", "-c", use_ports(program, server)]) as reader:
            assert re.fullmatch(r'\w+ {"celsius":21.5}\n', reader.stdout.readline())


def test_the_readme_starts_the_server_in_two_commands() -> None:
    assert fenced(README, "sh") == [
        "make run\n",
        "curl -d 'the bread is ready' localhost:8082/channels/kitchen/events\n",
    ]


def test_first_steps_have_no_other_commands() -> None:
    """Those above, and those of section 6, which test_access.py runs."""
    beginnings = [
        "make run",
        ". .venv/bin/activate",
        "while sleep 1",
        "python3 -m http.server",
        "make run ARGS=",
        "cat >",
        "(umask",
    ]
    blocks = fenced(FIRST_STEPS, "sh")
    assert [
        beginning for beginning, block in zip(beginnings, blocks, strict=True) if not block.startswith(beginning)
    ] == []
