"""Runs the commands, programs and pages of the documentation."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.documents import CHECKOUT, DOCS, fenced
from tests.end_to_end.lessons import normalized

pytestmark = pytest.mark.end_to_end

FIRST_STEPS = DOCS / "tutorial" / "first-five-minutes.md"
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


@pytest.mark.parametrize(
    "page",
    ["reference/line-protocol.md", "reference/json-protocol.md", "reference/http-api.md"],
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
    run("sh", "-c", use_ports(thermometer, server).replace("sleep 1", "sleep 0.2"))
    expect_moving_chart(open_page().open(f"{server.page}#kitchen"))
    window = open_page().page
    window.goto(f"{origin}/kitchen.html")
    window.get_by_text(re.compile(r"^2[0-3]\.\d °C$")).wait_for()


def test_the_programs_of_the_readme_read_events_of_each_other(start, run, serve_folder, open_page, tmp_path):
    origin = serve_folder(tmp_path)
    server = start("--allow-origin", origin)
    (script,), (program,) = fenced(README, "js"), fenced(README, "python")
    (tmp_path / "page.html").write_text(
        f'<meta charset="utf-8"><script type="module">{use_ports(script, server)}</script>'
    )
    window = open_page().page
    with window.expect_console_message(lambda message: "celsius: 21.5" in message.text):
        window.goto(f"{origin}/page.html")
    with window.expect_console_message(lambda message: "celsius: 22.5" in message.text):
        reader = run(sys.executable, "-u", "-c", use_ports(program, server))
    assert reader.prints(r"^\w+ {'celsius': 22.5}$").start() == 0, "the first line"
    window.reload()
    reader.prints(r"^\w+ {'celsius': 21.5}$")


def test_the_readme_reaches_a_moving_chart_in_three_commands(start, run, open_page):
    first, second, thermometer = fenced(README, "sh")
    assert first == "make run\n"
    assert second == "curl -d 'the bread is ready' localhost:8082/channels/kitchen/events\n"
    server = start()
    run("sh", "-c", use_ports(thermometer, server).replace("sleep 1", "sleep 0.2"))
    expect_moving_chart(open_page().open(f"{server.page}#kitchen"))


def test_first_steps_have_no_other_commands():
    """Those above, and those of section 6, which test_access.py runs."""
    beginnings = ["make run", ". .venv/bin/activate", "while sleep 1", "python3 -m http.server", "make run ARGS="]
    beginnings += ["cat >", "(umask"]
    blocks = fenced(FIRST_STEPS, "sh")
    assert [
        beginning for beginning, block in zip(beginnings, blocks, strict=True) if not block.startswith(beginning)
    ] == []
