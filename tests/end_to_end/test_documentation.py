"""Runs the commands, programs and pages of the documentation."""

import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.documents import CHECKOUT, DOCS, fenced
from tests.end_to_end.programs import Program

pytestmark = pytest.mark.end_to_end

FIRST_STEPS = DOCS / "tutorial" / "first-five-minutes.md"
SOCKETS = DOCS / "tutorial" / "sockets.md"
README = CHECKOUT / "README.md"

RUNNABLE = ("printf ", "curl ")
"""Beginnings of commands that can run unchanged. The remaining ones need a terminal or root."""


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
    return text.replace("8081", str(server.line_port)).replace("8082", str(server.web_port))


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
    ["reference/line-protocol.md", "reference/json-protocol.md", "tutorial/sockets.md", "reference/http-api.md"],
)
def test_commands_print_the_documented_output(page, start, environment, tmp_path):
    found = sessions(DOCS / page)
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
def test_server_makes_the_documented_system_calls(start, line_client, eventually, tmp_path):
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
def serve(run: Any, tmp_path: Path) -> Iterator[Callable[[str], tuple[Program, Callable[[], socket.socket]]]]:
    """Start a server of the course: returns the program and a function that connects to it."""
    with ExitStack() as stack:

        def serving(name: str) -> tuple[Program, Callable[[], socket.socket]]:
            (tmp_path / name).write_text(programs()[name])
            program = run(sys.executable, name)
            port = int(program.prints(r"^listening on port (\d+)$")[1])
            return program, lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))

        yield serving


def test_blocking_server_serves_one_client_and_exits(serve):
    program, connect = serve("blocking.py")
    client = connect()
    client.sendall(b"hello")
    assert client.recv(100) == b"you said hello"
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b""
    assert program.process.wait(20) == 0


def test_iterative_server_makes_the_second_client_wait(serve):
    _, connect = serve("iterative.py")
    first, second = connect(), connect()
    second.sendall(b"and me?")
    first.sendall(b"hello")
    assert first.recv(100) == b"you said hello"
    assert not select.select([second], [], [], 0.2)[0]
    first.close()
    assert second.recv(100) == b"you said and me?"


def test_event_driven_server_sends_data_of_one_client_to_all(serve):
    _, connect = serve("event_driven.py")
    first, second = connect(), connect()
    second.sendall(b"here ")  # so that the second has certainly been accepted
    assert second.recv(100) == first.recv(100) == b"here "
    first.sendall(b"hello")
    assert second.recv(100) == first.recv(100) == b"hello"
    first.close()
    second.sendall(b"alone")
    assert second.recv(100) == b"alone"


def test_frame_program_prints_the_documented_output(tmp_path):
    ran = subprocess.run([sys.executable, "-c", programs()["frame.py"]], capture_output=True, text=True, check=True)
    assert f"It prints `{ran.stdout.strip()}`" in SOCKETS.read_text(encoding="utf-8")


def test_every_program_of_the_course_is_run():
    assert set(programs()) == {"blocking.py", "iterative.py", "event_driven.py", "frame.py"}


def test_manual_websocket_receives_the_documented_bytes(server):
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


def test_first_steps_work_with_telnet_and_curl(start, environment, tmp_path):
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


def expect_moving_chart(page):
    chart = page.locator("#value-chart .plot")
    expect(chart.locator("canvas")).to_be_visible()
    points = int(chart.get_attribute("aria-valuemax"))
    # A busy machine may show several readings at once.
    page.wait_for_function(
        "least => document.querySelector('#value-chart .plot').getAttribute('aria-valuemax') >= least", arg=points + 2
    )


def test_first_steps_show_the_thermometer_on_a_page(start, run, serve_folder, open_page, tmp_path):
    origin = serve_folder(tmp_path)
    server = start("--allow-origin", origin)
    (page,) = fenced(FIRST_STEPS, "html")
    (tmp_path / "kitchen.html").write_text(use_ports(page, server))
    (thermometer,) = (script for script in fenced(FIRST_STEPS, "sh") if "celsius" in script)
    run("sh", "-c", use_ports(thermometer, server))
    expect_moving_chart(open_page().open(f"{server.page}#kitchen"))
    window = open_page().page
    window.goto(f"{origin}/kitchen.html")
    window.get_by_text(re.compile(r"^2[0-3]\.\d °C$")).wait_for()


def test_the_programs_of_the_readme_read_the_same_event(start, run, serve_folder, open_page, tmp_path):
    origin = serve_folder(tmp_path)
    server = start("--allow-origin", origin)
    (script,), (program,) = fenced(README, "js"), fenced(README, "python")
    (tmp_path / "page.html").write_text(
        f'<meta charset="utf-8"><script type="module">{use_ports(script, server)}</script>'
    )
    window = open_page().page
    with window.expect_console_message(lambda message: "celsius: 21.5" in message.text):
        window.goto(f"{origin}/page.html")
    reader = run(sys.executable, "-u", "-c", use_ports(program, server))
    assert reader.prints(r"^\w+ {'celsius': 21.5}$").start() == 0, "the first line"


def test_the_readme_reaches_a_moving_chart_in_three_commands(start, run, open_page):
    first, second, thermometer = fenced(README, "sh")
    assert first == "make run\n"
    assert second == "curl -d 'the bread is ready' localhost:8082/channels/kitchen/events\n"
    server = start()
    run("sh", "-c", use_ports(thermometer, server))
    expect_moving_chart(open_page().open(f"{server.page}#kitchen"))


def test_first_steps_have_no_other_commands():
    """Those above, and those of section 6, which test_access.py runs."""
    beginnings = ["make run", ". .venv/bin/activate", "while sleep 1", "python3 -m http.server", "make run ARGS="]
    beginnings += ["cat >", "(umask"]
    blocks = fenced(FIRST_STEPS, "sh")
    assert [
        beginning for beginning, block in zip(beginnings, blocks, strict=True) if not block.startswith(beginning)
    ] == []
