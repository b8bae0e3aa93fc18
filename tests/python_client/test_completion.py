"""Completions and manual pages: they have what ``--help`` has."""

import argparse
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sockbridge.__main__ import main
from sockbridge.commands import COMMANDS, add_commands
from sockbridge.commands.completion import bash, fish, quote, zsh
from sockbridge.commands.description import Command, describe
from sockbridge.commands.man import pages

DAY = date(2026, 11, 30)


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sockbridge")
    add_commands(parser, COMMANDS)
    return parser


def flags_in_help(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    options = capsys.readouterr().out.partition("options:\n")[2].partition("example:\n")[0]
    return set(re.findall(r"^ +(?:-h, )?(--[a-z-]+)", options, re.M))


@pytest.mark.parametrize("name", COMMANDS)
def test_completion_and_page_have_all_options_of_the_help(
    name: str, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = flags_in_help(name, capsys)
    commands = [each for each in describe(parser) if each.name == name]
    assert "--help" in flags
    for flag in flags:
        assert re.search(rf"[ \"]{flag}[ \"]", bash(commands))
        assert f"{flag}[" in zsh(commands)
        assert f" -l {flag[2:]} " in fish(commands)
        assert flag.replace("-", r"\-") in pages(parser, DAY)[f"sockbridge-{name}"]
    for script in (bash, zsh, fish):
        assert (COMMANDS[name].SUMMARY in script(commands)) == (script is not bash)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_command_prints_the_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"for {shell}." in out and all(name in out for name in COMMANDS)


def test_values_of_options_are_completed(parser: argparse.ArgumentParser) -> None:
    commands = [each for each in describe(parser) if each.name == "peers"]
    for script in (bash, zsh, fish):
        assert "newest lag sent id" in script(commands)


def described(**options: Any) -> Command:
    """The description of a command with one option."""
    parser = argparse.ArgumentParser("sockbridge")
    commands = parser.add_subparsers()
    commands.add_parser("try", description=".it's\n\n.here").add_argument("--file", "-f", **options)
    (found,) = describe(parser)
    return found


def test_help_is_quoted() -> None:
    command = described(help="it's 5%% [of: all]", metavar="FILE")
    assert "it'\\''s 5% \\[of\\: all\\]" in zsh([command])
    assert "-r -d 'it'\\''s 5% [of: all]'" in fish([command])
    assert quote("a'b") == "'a'\\''b'"


def test_page_has_no_requests_of_the_text() -> None:
    parser = argparse.ArgumentParser("sockbridge")
    add = parser.add_subparsers().add_parser("try", description=".it\n\n'is", help=".so").add_argument
    add("--file", help=r".a\b")
    page = pages(parser, DAY)["sockbridge-try"]
    assert re.findall(r"^[.'](?!TH|SH|TP|P\b|nf|fi)", page, re.M) == []
    assert r"\&.a\eb" in page and page.startswith(".TH SOCKBRIDGE-TRY 1 2026-11-30 sockbridge")


def test_all_pages_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1796000000")
    assert main(["man", "--directory", str(tmp_path / "man1")]) == 0
    names = {path.name for path in (tmp_path / "man1").iterdir()}
    assert names == {"sockbridge.1", *(f"sockbridge-{name}.1" for name in COMMANDS)}
    capsys.readouterr()
    assert main(["man", "sub"]) == 0
    assert capsys.readouterr().out == (tmp_path / "man1" / "sockbridge-sub.1").read_text()
    assert " 1 2026-11-30 " in (tmp_path / "man1" / "sockbridge-sub.1").read_text()
    assert main(["man", "--directory", str(tmp_path / "man1" / "sockbridge.1")]) == 2
    assert main(["man", "nothing"]) == 2
