"""`sockbridge` without a command, and the help of each command."""

import re
from importlib.metadata import version

import pytest

from twistedsock.cli import serve
from twistedsock.cli.main import COMMANDS, main
from twistedsock.config import OPTIONS
from twistedsock.speedups import IMPLEMENTATION


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_each_command_in_one_line(run_command, words):
    outcome = run_command(*words)
    assert (outcome.status, outcome.errors) == (0, "")
    listed = re.findall(r"^  (\w+) +(\S.*)$", outcome.out.partition("Options:\n")[0], re.M)
    assert dict(listed) == {name: module.SUMMARY for name, module in COMMANDS.items()} | {"serve": serve.SUMMARY}
    assert "\n  sockbridge keygen >> sockbridge.toml\n" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_command_ends_with_example(run_command, name):
    outcome = run_command(name, "--help")
    assert (outcome.status, outcome.errors) == (0, "")
    assert f"\nexample:\n  sockbridge {name}" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_serve_becomes_the_server_with_all_options(monkeypatch):
    executed = []
    monkeypatch.setattr("os.execv", lambda program, words: executed.append((program.name, words[1:])))
    main(["serve", "--help", "--web", "none"])
    assert executed == [("twistd", ["-n", "--pidfile=", "sockbridge", "--help", "--web", "none"])]


def test_shows_version(run_command):
    assert run_command("--version").out == f"sockbridge/{version('sockbridge')} {IMPLEMENTATION}\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("chek", "did you mean check?"),
        ("server", "did you mean serve?"),
        ("pubb", "did you mean pub?"),
        ("xyz", "sockbridge --help lists the commands"),
    ],
)
def test_unknown_command_is_an_error_that_suggests_the_nearest(run_command, word, hint):
    outcome = run_command(word)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.errors.splitlines()[-1] == f"sockbridge: error: unknown command {word}: {hint}"


def test_completion_and_pages_have_the_options_of_the_server(run_command):
    page, script = run_command("man", "serve").out, run_command("completion", "bash").out
    for option in OPTIONS:
        assert f"--{option.name}".replace("-", r"\-") in page
        assert re.search(rf'[ "]--{option.name}[ "]', script)
    assert all(f"sockbridge\\-{name}" in run_command("man").out for name in COMMANDS)
