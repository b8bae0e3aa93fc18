"""Plays the chapters of the course in docs/tutorial/sockets against a real server, from top to bottom.

- A block ``pycon`` continues the Python session of its chapter.
- A block ``python`` whose first line is ``# name.py: …`` is a file in the folder of the shell, in all chapters.
- In a block ``console``, ``$ …`` is a command. Programs that wait (``nc``, ``python3 name.py``) stay open: of the
  lines below them, commands of the line protocol are typed, and the remaining ones are what appears. A later block that
  has no command continues the last of these terminals.
- Commands that need root or replace the server (``NOT_PLAYED``) are left out. Their output has tests of its own.

In expected output, ``…`` stands for anything, and ids, addresses, times and the like may differ.
"""

import doctest
import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.documents import CHECKOUT, blocks_in, fenced
from tests.end_to_end.programs import TIMEOUT_SECONDS, wait_until

NOT_PLAYED = ("make ", "sudo ", "strace ", "twistd ")

STAYS_OPEN = re.compile(r"(nc|telnet|python3 (?!-)\S+\.py)\b[^|]*$")
"""Commands that wait for input or clients."""

TYPED = re.compile(r"(SUB|UNSUB|PUB|EMIT|NICK|PING|QUIT|WHO|LIST|HIST)\b")
"""Beginnings of lines that are typed into a terminal."""

POLLED = ("ss ", "curl -s 'localhost")
"""Beginnings of commands that show a state, which can need a moment to be reached."""

INTERPRETER = """
import code, contextlib, io, json, sys
console = code.InteractiveConsole()
for line in sys.stdin:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for source in json.loads(line):
            console.push(source)
    print(json.dumps(printed.getvalue()), flush=True)
"""
"""Python's interactive session: reads the lines of a statement, and writes what it prints."""


def normalized(text: str) -> str:
    """Replace the parts that differ from one run to the next."""
    text = re.sub(r"id=\w+", "id=…", text)
    text = re.sub(r"Content-Length: \d+", "Content-Length: …", text)
    text = re.sub(r'"title":"[^"]*"', '"title":"…"', text)  # newer Pythons have other titles for some
    text = re.sub(r'"epoch":"\w+"', '"epoch":"…"', text)
    text = re.sub(r'"next":"\w+:', '"next":"…:', text)
    text = re.sub(r'"time":\d{13}', '"time":…', text)
    text = re.sub(r'"from":"[a-z0-9]{5}"', '"from":"…"', text)
    return re.sub(r"((?:127\.0\.0\.1|\[::1\])[: ])\d+", r"\1…", text)


def _line_normalized(line: str) -> str:
    line = re.sub(r"epoch=\w+", "epoch=…", normalized(line))
    line = re.sub(r"\b(MSG|EVENT|MEMBER) (\S+) (\d+) \w+", r"\1 \2 \3 …", line)
    line = re.sub(r"('(?:127\.0\.0\.1|0\.0\.0\.0|::1)', )\d{4,5}", r"\1…", line)
    line = line.replace("PortProcess", "Port Process")  # some versions of ss
    line = re.sub(r"\b0100007F:[0-9A-F]{4}", "0100007F:…", line)  # 127.0.0.1 in /proc/net/tcp
    line = re.sub(r"users:\(\(.*\)\)", "users:…", line)
    return " ".join(line.split())


def matches(shown: str, printed: str) -> bool:
    """True if printed lines are those that the documentation shows."""
    expected = [_line_normalized(line) for line in shown.strip().splitlines()]
    lines = [_line_normalized(line) for line in printed.replace("\r\n", "\n").strip().splitlines()]
    return len(expected) == len(lines) and all(
        re.fullmatch(re.escape(one).replace("…", ".*"), line) for one, line in zip(expected, lines, strict=True)
    )


class Terminal:
    """A program that stays open, with its output in a file."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str], number: int) -> None:
        self._path, self._seen = folder / f"terminal-{number}", 0
        with self._path.open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
            )

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def shows(self, line: str) -> None:
        """Wait for the next line of the output that is not empty, and compare it."""

        def next_line() -> re.Match[str] | None:
            return re.compile(r"\s*(\S.*)\n").match(self._path.read_text(errors="replace"), self._seen)

        found = wait_until(next_line, f"{line!r} in {self._path.read_text(errors='replace')!r}")
        assert matches(line, found[1]), f"shown {line!r}, printed {found[1]!r}"
        self._seen = found.end()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


class Lesson:
    """One chapter. ``replacements``: ports and other words of the documentation, and what this run has instead."""

    def __init__(self, page: Path, folder: Path, environment: dict[str, str], replacements: dict[str, str]) -> None:
        self._text = page.read_text(encoding="utf-8")
        self._folder = folder
        self._environment = environment
        self._replacements = replacements
        self._terminals: list[Terminal] = []
        self._python: subprocess.Popen[str] | None = None
        (folder / "examples").symlink_to(CHECKOUT / "examples")
        # Later chapters use programs of earlier ones.
        for program in (text for chapter in page.parent.glob("*.md") for text in fenced(chapter, "python")):
            name = program.split(":")[0].removeprefix("# ")
            (folder / name).write_text(self._replace(program), encoding="utf-8")

    def play(self) -> None:
        """Play all blocks. Fails with the first command whose output is not as shown."""
        for kind, block in blocks_in(self._replace(self._text)):
            if kind == "pycon":
                self._play_python(block)
            elif kind == "console":
                self._play_console(block)

    def close(self) -> None:
        if self._python is not None:
            self._python.kill()
            self._python.communicate()
        for terminal in self._terminals:
            terminal.close()

    def _replace(self, text: str) -> str:
        for shown, actual in self._replacements.items():
            text = re.sub(rf"(?<!\w){re.escape(shown)}(?!\w)", actual, text)
        return text

    def _play_python(self, block: str) -> None:
        if self._python is None:
            self._python = subprocess.Popen(
                ["python3", "-uc", INTERPRETER],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        for example in doctest.DocTestParser().get_examples(block):
            lines = example.source.splitlines()
            printed = self._run_python([*lines, ""] if len(lines) > 1 else lines)
            if "Traceback (most recent call last)" in printed:
                printed = printed.strip().rpartition("\n")[2]
            shown = example.want or (f"{example.exc_msg}" if example.exc_msg else "")
            assert matches(shown, printed), f">>> {example.source}shown {shown!r}, printed {printed!r}"

    def _run_python(self, lines: list[str]) -> str:
        assert self._python is not None and self._python.stdin is not None and self._python.stdout is not None
        self._python.stdin.write(json.dumps(lines) + "\n")
        self._python.stdin.flush()
        return str(json.loads(self._python.stdout.readline()))

    def _play_console(self, block: str) -> None:
        before, *commands = re.split(r"^\$ ", block, flags=re.MULTILINE)
        self._converse(before)
        for text in commands:
            command, _, output = text.partition("\n")
            while command.endswith("\\"):
                more, _, output = output.partition("\n")
                command = f"{command[:-1]}{more}"
            if command.startswith(NOT_PLAYED):
                continue
            if STAYS_OPEN.match(command):
                terminal = Terminal(command, self._folder, self._environment, len(self._terminals))
                self._terminals.append(terminal)
                self._converse(output)
            else:
                self._run(command, output)

    def _converse(self, text: str) -> None:
        for line in text.splitlines():
            if TYPED.match(line):
                self._terminals[-1].type(line)
            elif line:
                self._terminals[-1].shows(line)

    def _run(self, command: str, shown: str) -> None:
        printed = ""

        def runs_as_shown() -> bool:
            nonlocal printed
            ran = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_SECONDS,
            )
            printed = ran.stdout.decode(errors="replace")
            if command.startswith("ss "):  # the kernel lists sockets in no order
                return matches(_sorted(shown), _sorted(printed))
            return matches(shown, printed)

        with suppress(AssertionError):
            wait_until(runs_as_shown, command, TIMEOUT_SECONDS if command.startswith(POLLED) else 0)
            return
        raise AssertionError(f"$ {command}\nshown:\n{shown}\nprinted:\n{printed}")


def _sorted(table: str) -> str:
    head, *rows = table.strip().splitlines() or [""]
    return "\n".join([head, *sorted(rows, key=_line_normalized)])


def environment_for(folder: Path, **more: Any) -> dict[str, str]:
    """An environment with the commands of this Python on the path, in which programs do not buffer their output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    (folder / ".curlrc").write_text("silent\nshow-error\n")  # in a pipe, curl would show its progress
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return clean | {"PATH": path, "PYTHONUNBUFFERED": "1", "CURL_HOME": str(folder)} | more
