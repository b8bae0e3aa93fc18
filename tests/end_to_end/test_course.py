"""Plays the course about sockets: its commands, Python sessions and programs, against one server. What the player
leaves out, because it needs root or another server, has a test of its own here."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documents import DOCS, blocks_in, fenced
from tests.end_to_end.conftest import TCP, Starter
from tests.end_to_end.lessons import Lesson, environment_for, normalized
from tests.end_to_end.programs import free_ports, path_of

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(sys.platform != "linux", reason="the course uses ss, strace and /proc of Linux"),
]

COURSE = DOCS / "tutorial" / "sockets"
CHAPTERS = sorted(page for page in COURSE.glob("*.md") if page.name != "index.md")
CALLS, HANDSHAKE, INSIDE, WEBSOCKET = (
    COURSE / f"{name}.md" for name in ("02-five-calls", "03-handshake", "12-inside-the-server", "15-websocket")
)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The server of all chapters."""
    folder = tmp_path_factory.mktemp("laboratory")
    starter = Starter(folder)
    yield starter(tcp=(TCP, f"unix:{folder}/bridge.sock"))
    starter.stop_all()


@pytest.mark.parametrize("page", [COURSE / "index.md", *CHAPTERS], ids=lambda page: page.stem)
def test_chapter_shows_what_happens(page: Path, laboratory: Any, tmp_path: Path) -> None:
    unused, *own = free_ports(5)
    replacements = {
        "8081": str(laboratory.line_port),
        "8082": str(laboratory.web_port),
        "8083": str(unused),
        **{str(port): str(free) for port, free in zip(range(9000, 9004), own, strict=True)},
        "/tmp/bridge.sock": laboratory.lines[1].removeprefix("unix:"),
    }
    lesson = Lesson(page, tmp_path, environment_for(tmp_path), replacements)
    try:
        lesson.play()
    finally:
        lesson.close()


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_chapter_has_a_quiz_with_an_answer_to_each_question(page: Path) -> None:
    quiz, _, answers = page.read_text(encoding="utf-8").partition("\n## Quiz\n")[2].partition("<details>")
    questions = re.findall(r"^(\d)\. ", quiz, re.MULTILINE)
    assert len(questions) >= 3
    assert re.findall(r"^(\d)\. ", answers.partition("</details>")[0], re.MULTILINE) == questions


def test_chapters_are_listed_in_their_order_and_lead_to_the_next() -> None:
    names = [page.name for page in CHAPTERS]
    index = (COURSE / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[\d+\..*\]\((.*)\)", index, re.MULTILINE) == names
    following = [re.findall(r"^Next: \[.*\]\((.*)\)\.$", page.read_text(encoding="utf-8"), re.M) for page in CHAPTERS]
    assert following == [*([name] for name in names[1:]), []]


def estimated_minutes(page: Path) -> float:
    """The time to read, type and think, as the index of the course describes it."""
    text = page.read_text(encoding="utf-8")
    blocks = blocks_in(text)
    words = len(re.sub(r"^```.*?^```$|\]\([^)]*\)", "", text, flags=re.DOTALL | re.MULTILINE).split())
    statements = len(re.findall(r"^(?:>>>|\.\.\.) ", text, re.MULTILINE))
    commands = len(re.findall(r"^\$ ", text, re.MULTILINE)) + len(fenced(page, "sh"))
    lines = sum(len(block.splitlines()) for _, block in blocks) - statements - commands
    questions = len(re.findall(r"^\d\. ", text.partition("\n## Quiz\n")[2].partition("<details>")[0], re.MULTILINE))
    seconds = words / 150 * 60 + commands * 45 + statements * 15 + lines * 3
    return seconds / 60 + questions + len(fenced(page, "python"))


def test_chapters_and_index_show_the_same_minutes_near_the_estimate() -> None:
    index = (COURSE / "index.md").read_text(encoding="utf-8")
    listed = [int(minutes) for minutes in re.findall(r"^\| \[\d+\..*?\) \| (\d+) \|", index, re.MULTILINE)]
    shown = [int(*re.findall(r"^\*(\d+) minutes\.\*", page.read_text(encoding="utf-8"), re.M)) for page in CHAPTERS]
    assert listed == shown
    assert [
        page.name for page, minutes in zip(CHAPTERS, shown, strict=True) if abs(estimated_minutes(page) - minutes) > 4
    ] == []


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_programs_of_more_than_15_lines_are_examples(page: Path) -> None:
    assert all(len([line for line in program.splitlines() if line]) <= 15 for program in fenced(page, "python"))


def test_diagram_has_the_states_of_tcp() -> None:
    """RFC 9293, section 3.3.2."""
    states = re.findall(r"^\| ([A-Z0-9-]+) \|", (COURSE / "10-states.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(states) == 11
    drawn = re.findall(r">([A-Z][A-Z0-9-]+)</text>", (DOCS / "images" / "tcp-states.svg").read_text(encoding="utf-8"))
    assert set(drawn) == set(states)


def calls(trace: str) -> list[str]:
    """System calls as strace prints them, without the parts that differ from one run to the next."""
    lines = [re.sub(r"^\d+ +", "", line) for line in trace.splitlines() if "EAGAIN" not in line]
    lines = [line for line in lines if re.match(r"bind|listen|setsockopt|accept4|sendto|recvfrom", line)]
    lines = [re.sub(r" += \d+$", "", normalized(line)) for line in lines]
    chance = r"(?<=\()\d+(?=, )|htons\(\d+\)|epoch=\w+|(?<=MSG balcony 1 )\w+|\d+(?=, 0, NULL)"
    return [re.sub(chance, "…", line) for line in lines]


def test_server_makes_the_documented_system_calls(start, line_client, eventually, tmp_path):
    """Those of the start, of a client that subscribes, and of one that publishes."""
    (started,), (published,) = (
        [block for block in fenced(page, "console") if "strace " in block] for page in (CALLS, INSIDE)
    )
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-s", "100", "-o", str(tmp_path / "trace")]
    kinds = "trace=bind,listen,setsockopt,accept4,sendto,recvfrom"
    server = start(web=("none",), launcher=[*strace, "-e", kinds])
    reader, writer = line_client(server.lines[0]), line_client(server.lines[0])
    reader.request("SUB balcony\r")
    writer.request("PUB balcony 21.5\r")
    reader.receive()
    shown = calls(published)
    welcome = shown[:2]
    # strace writes the end of a line when the call returns, which can be after the reader has received the event.
    eventually(lambda: (tmp_path / "trace").read_text().endswith(" = 25\n"), "the end of the last line")
    assert calls((tmp_path / "trace").read_text()) == calls(started) + welcome + welcome + shown[2:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can capture packets")
def test_handshake_has_the_documented_packets(laboratory, run, line_client):
    (command,) = (block for block in fenced(HANDSHAKE, "console") if "tcpdump" in block)
    (shown,) = (block for block in fenced(HANDSHAKE, "") if block.startswith("IP 127.0.0.1"))
    assert command.startswith("$ sudo tcpdump -i lo -n -t -c 3 'port 8081'")
    arguments = ["-i", "lo", "-n", "-t", "-l", "--immediate-mode", f"port {laboratory.line_port}"]
    capture = run(path_of("tcpdump"), *arguments)
    capture.prints("listening on lo")
    line_client(laboratory.lines[0])
    packets = capture.prints(r"(IP .*\n){3}")[0]
    assert flags_of(packets) == flags_of(shown) == ["[S]", "[S.]", "[.]"]


def flags_of(packets: str) -> list[str]:
    return re.findall(r"Flags (\[.*?\])", packets)


def test_frame_program_prints_the_documented_output():
    (program,) = (text for text in fenced(WEBSOCKET, "python") if text.startswith("# frame.py:"))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"It prints `{ran.stdout.strip()}`" in WEBSOCKET.read_text(encoding="utf-8")


def test_manual_websocket_receives_the_documented_bytes(laboratory):
    """The second dump is compared unchanged. In the first, addresses and versions differ."""
    dumps = [block for block in fenced(WEBSOCKET, "") if block.startswith("00000000: ")]
    scripts = [text.replace("8082", str(laboratory.web_port)) for text in fenced(WEBSOCKET, "sh")]
    waiting = [script.replace("sleep 1\n", "sleep 0.3\n") for script in scripts]
    printed = [
        subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout for script in waiting
    ]
    assert printed[1] == dumps[1]
    assert normalized_in_dump(printed[0]) == normalized_in_dump(dumps[0])


def normalized_in_dump(dump: str) -> bytes:
    """The bytes of a dump by xxd, without the parts that differ from one run to the next."""
    data = b"".join(bytes.fromhex(line[10:49]) for line in dump.splitlines())
    # The length of the frame depends on the length of the ports.
    head, welcome = data.split(b"\r\n\r\n")
    head = re.sub(rb"AutobahnPython/\S+", b"AutobahnPython", head)
    return head + re.sub(rb'\d+"', b'"', re.sub(rb'"id":"\w+"', b"", welcome))[2:]
