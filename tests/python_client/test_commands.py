"""The commands for clients: payloads, and how events are printed."""

import argparse
import io
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sockbridge.__main__ import main
from sockbridge.commands import COMMANDS, add_commands, parse_arguments
from sockbridge.commands.common import (
    FAILED,
    UNREACHABLE,
    WRONG_USAGE,
    Printer,
    format_data,
    parse_payload,
    print_table,
)
from sockbridge.commands.pub import Count, split_lines
from sockbridge.values import Event, Lost, Member, Presence, Reset

TIME = datetime(2026, 11, 29, 12, 30, 0, 123_000, UTC)


def event(data: Any, name: str = "message") -> Event:
    return Event("kitchen", 3, TIME, "ann", name, data, "e1")


def printed(report: Any, stream: Callable[[], io.StringIO] = io.StringIO, **options: bool) -> tuple[str, str]:
    """The text on standard output and on standard error."""
    out, errors = stream(), stream()
    chosen = argparse.Namespace(**{"command": "sub", "json": False, "raw": False, "time": False, **options})
    Printer(chosen, out, errors).print(report)
    return out.getvalue(), errors.getvalue()


@pytest.mark.parametrize(
    ("text", "is_json", "value"),
    [
        ("21.5", False, "21.5"),
        ("21.5", True, 21.5),
        ('{"a": 1}', False, {"a": 1}),
        ("{not JSON", False, "{not JSON"),
        ('"text"', False, "text"),
        ("null", True, None),
        ("", False, ""),
    ],
)
def test_payload_is_json_as_on_a_line(text: str, is_json: bool, value: Any) -> None:
    assert parse_payload(text, is_json) == value


def test_payload_that_must_be_json_is_checked() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        parse_payload("hello", True)


def test_line_of_standard_input_does_not_wait_for_the_next_one() -> None:
    arriving = [b"first\n", b"\n\xc3", b"\xa9\r\nlo", b"ng", b"er\nla", b"st"]
    batches = split_lines(lambda: arriving.pop(0) if arriving else b"")
    assert (next(batches), len(arriving)) == (["first"], 5)
    assert list(batches) == [[""], ["é"], ["longer"], ["last"]]


def test_lines_that_arrive_together_stay_together() -> None:
    arriving = iter([b"1\n2\n\n3\n", b"one\x0bline\xe2\x80\xa8\n", b""])
    assert list(split_lines(lambda: next(arriving))) == [["1", "2", "", "3"], ["one\x0bline\u2028"]]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("hello", "hello"),
        (21.5, "21.5"),
        ({"a": "é"}, '{"a": "é"}'),
        ("{", '"{"'),
        ("two\nlines", '"two\\nlines"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        (["\x9b"], '["\\u009b"]'),
        (b"abc", "<3 bytes>"),
    ],
)
def test_data_is_one_line_that_cannot_control_a_terminal(data: Any, line: str) -> None:
    assert format_data(data) == line


def test_value_without_a_form_in_json_is_null() -> None:
    assert format_data([math.inf, {"a": -math.inf}, 1.5]) == '[null, {"a": null}, 1.5]'


def test_event_is_printed_with_channel_offset_and_sender() -> None:
    assert printed(event("hello")) == ("kitchen 3 ann: hello\n", "")
    assert printed(event("smoke", "alarm")) == ("kitchen 3 ann (alarm): smoke\n", "")
    assert printed(event({"a": 1}), raw=True) == ('{"a": 1}\n', "")
    assert printed(event("a"), time=True)[0].endswith(" kitchen 3 ann: a\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_a_terminal_once_a_second(is_terminal: bool) -> None:
    now = 0.0
    errors = Terminal() if is_terminal else io.StringIO()
    count = Count(argparse.Namespace(command="pub", quiet=False), errors, lambda: now)
    for line in range(5):
        now += 0.4
        count.add(line, None)
    progress = "\r3 published, 2 a second" if is_terminal else ""
    assert errors.getvalue() == progress
    count.finish()
    assert errors.getvalue() == f"{progress}{is_terminal * chr(13)}5 published, 2 a second\n"


ESCAPE = "\x1b]0;title\x07\x9b2J"


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"json": True}, {"time": True}])
@pytest.mark.parametrize("data", [ESCAPE, [ESCAPE], {ESCAPE: 1}, ESCAPE.encode("latin-1")])
def test_no_event_controls_a_terminal(data: Any, options: dict[str, bool]) -> None:
    for report in (
        Event(f"k{ESCAPE}", 3, TIME, f"ann{ESCAPE}", f"name{ESCAPE}", data, "e1"),
        Lost(f"k{ESCAPE}", 2, 4),
        Reset(f"k{ESCAPE}", "e", 2, 4),
    ):
        out, errors = printed(report, Terminal, **options)
        assert (out + errors).removesuffix("\n").isprintable()


ROWS = [("k3x9p", ESCAPE, 2), ("a", "", 40)]


def test_table_on_a_terminal_has_a_heading_and_aligned_columns() -> None:
    out = Terminal()
    print_table(("id", "nick", "lag"), ROWS, out)
    assert out.getvalue().splitlines() == [
        "id     nick           lag",
        "k3x9p  ?]0;title??2J  2",
        "a      -              40",
    ]


def test_table_for_scripts_is_fields_with_a_space_between_them() -> None:
    out = io.StringIO()
    print_table(("id", "nick", "lag"), ROWS, out)
    assert out.getvalue() == "k3x9p ?]0;title??2J 2\na - 40\n"


@pytest.mark.parametrize(("data", "content"), [({"a": 1}, {"data": {"a": 1}}), (b"\x00", {"base64": "AA=="})])
def test_json_has_the_fields_of_the_protocol(data: Any, content: dict[str, Any]) -> None:
    assert json.loads(printed(event(data), json=True)[0]) == {
        "channel": "kitchen",
        "offset": 3,
        "epoch": "e1",
        "time": "2026-11-29T12:30:00.123Z",
        "from": "ann",
        "name": "message",
        **content,
    }


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (Lost("kitchen", 2, 4, "e1"), "sockbridge sub: kitchen: events 2 to 4 are lost\n"),
        (Lost("kitchen", 2, None, "e1"), "sockbridge sub: kitchen: events are lost\n"),
        (Reset("kitchen", "e2", 7, 0), "sockbridge sub: kitchen: events after 7 are void\n"),
        (Presence("kitchen", Member("p1", "ann"), True), ""),
    ],
)
def test_reports_go_to_standard_error(report: Any, words: str) -> None:
    assert printed(report) == ("", words)


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_commands(parser, COMMANDS)
    return parser


@pytest.mark.parametrize("words", [["--after", "-90s", "--before", "-1m"], ["--after=-90s", "--before=-1m"]])
def test_bound_of_history_can_be_an_age(parser: argparse.ArgumentParser, words: list[str]) -> None:
    options = parse_arguments(parser, ["history", "kitchen", *words, "--last", "5"])
    assert (options.after, options.before, options.last) == ("-90s", "-1m", 5)
    assert parse_arguments(parser, ["sub", "kitchen", *words[:-2], "--after", "-5m"]).after == "-5m"


def test_bound_of_history_is_no_option(parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(parser, ["history", "kitchen", "--after", "--json"])
    assert "--after: expected one argument" in capsys.readouterr().err


def test_program_of_pipe_keeps_its_own_options(parser: argparse.ArgumentParser) -> None:
    options = parse_arguments(parser, ["pipe", "kitchen", "--to", "garden", "--", "sed", "-u", "--", "s/a/b/"])
    assert (options.channel, options.to, options.program) == ("kitchen", "garden", ["sed", "-u", "--", "s/a/b/"])
    assert parse_arguments(parser, ["pub", "kitchen", "--", "-5"]).payload == "-5"


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["pub", "kitchen", "{", "--json"], WRONG_USAGE, "sockbridge pub: the payload is not JSON: "),
        (["pub", "kitchen", "1", "--file", "a"], WRONG_USAGE, "sockbridge pub: give either a payload or --file"),
        (
            ["pub", "kitchen", "--file", "/nowhere/a"],
            WRONG_USAGE,
            "sockbridge pub: /nowhere/a: no such file or directory",
        ),
        (["pipe", "kitchen"], WRONG_USAGE, "sockbridge pipe: no program: give it after --, "),
        (
            ["disconnect", "a", "--server", "tcp://a:81"],
            WRONG_USAGE,
            "sockbridge disconnect: disconnect needs the web ",
        ),
        (
            ["disconnect", "a", "--server", "ws://127.0.0.1:1"],
            UNREACHABLE,
            "sockbridge disconnect: cannot connect to ws",
        ),
        (["watch"], WRONG_USAGE, "sockbridge watch: watch needs a terminal"),
        (["who", "kitchen", "--server", "ftp://a"], WRONG_USAGE, "sockbridge who: invalid address 'ftp://a': "),
        (["who", "kitchen", "--server", "unix:///nowhere/a"], UNREACHABLE, "sockbridge who: cannot connect to unix:"),
        (
            ["who", "kitchen", "--server", "unix:///nowhere/a", "--token-file", "/nowhere/a"],
            WRONG_USAGE,
            "sockbridge who: /nowhere/a: no such file or directory",
        ),
        (
            ["disconnect", "a", "--token-file", "/nowhere/a"],
            WRONG_USAGE,
            "sockbridge disconnect: /nowhere/a: no such file or directory",
        ),
        (
            ["disconnect", "a", "--token-file", __file__],
            WRONG_USAGE,
            f"sockbridge disconnect: {__file__}: contains no token",
        ),
    ],
)
def test_mistake_is_one_line_with_a_status(
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, error: str
) -> None:
    assert main(words) == status != FAILED
    out, errors = capsys.readouterr()
    assert out == "" and errors.startswith(error) and errors.count("\n") == 1
