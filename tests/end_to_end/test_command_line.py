"""The commands for clients, with a real server: their output and exit statuses, pipes and lost connections."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.end_to_end.conftest import TCP, TLS
from tests.end_to_end.programs import TIMEOUT_SECONDS
from tests.end_to_end.terminal import Terminal
from twistedsock.cli.main import COMMANDS

pytestmark = pytest.mark.end_to_end

SOCKBRIDGE = str(Path(sys.executable).parent / "sockbridge")


@pytest.fixture
def command(server, tmp_path):
    """Run a command to its end. Returns its status, and what it has printed."""

    def run(*words, input=b"", address=f"tcp://127.0.0.1:{server.line_port}"):
        finished = subprocess.run(
            [SOCKBRIDGE, *words, "--server", address] if words[0] != "pipe" else [SOCKBRIDGE, *words],
            input=input,
            capture_output=True,
            cwd=tmp_path,
            timeout=TIMEOUT_SECONDS,
            env={"PATH": "/usr/bin:/bin", "SOCKBRIDGE_SERVER": address},
        )
        return finished.returncode, finished.stdout.decode(), finished.stderr.decode()

    return run


def test_events_can_be_published_read_and_counted(command, channel):
    assert command("pub", channel, '{"celsius": 21.5}', "--nick", "ann") == (0, "1\n", "")
    assert command("pub", channel, "21.5", "--json", "--name", "reading", "--quiet") == (0, "", "")
    status, out, errors = command("history", channel, "--json")
    assert (status, errors) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert (first["data"], first["from"], second["data"], second["name"]) == ({"celsius": 21.5}, "ann", 21.5, "reading")
    assert command("history", channel, "--after", "1", "--raw") == (0, "21.5\n", "")
    assert command("sub", channel, "--last", "1", "--count", "1", "--raw") == (0, "21.5\n", "")
    assert command("who", channel) == (0, "", f"sockbridge who: no subscribers of {channel}\n")
    assert command("channels", channel) == (0, f"{channel} 0 2\n", "")


def test_lines_of_standard_input_are_events_in_their_order(command, channel):
    lines = "".join(f"line {number}\n" for number in range(2000))
    status, out, errors = command("pub", channel, input=lines.encode())
    assert (status, out) == (0, "") and errors.startswith("2000 published, ")
    assert command("history", channel, "--raw") == (0, lines, "")


def test_line_of_standard_input_is_published_when_it_is_written_until_ctrl_c(server, channel, line_client):
    other = line_client(server.lines[0])
    other.request(f"SUB {channel}")
    command = (SOCKBRIDGE, "pub", channel, "-", "--quiet", "--server", f"tcp://127.0.0.1:{server.line_port}")
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as publishing:
        for number, line in enumerate(["first", "second"], 1):
            publishing.stdin.write(f"{line}\n".encode())
            assert other.receive_until(f"MSG {channel} {number} ")[-1].endswith(f" {line}")
        publishing.send_signal(signal.SIGINT)
        assert publishing.wait(TIMEOUT_SECONDS) == 130


def test_line_that_is_refused_does_not_stop_the_others(command, channel):
    status, _, errors = command("pub", channel, "-", "--json", input=b"1\nx\n3")
    assert status == 1 and "line 2: not JSON" in errors and "2 published, 1 failed" in errors
    assert command("history", channel, "--raw") == (0, "1\n3\n", "")


@pytest.mark.parametrize("port", ["line_port", "web_port"])
def test_repeated_command_with_a_key_publishes_once(server, command, channel, port):
    scheme = {"line_port": "tcp", "web_port": "ws"}[port]
    address = f"{scheme}://127.0.0.1:{getattr(server, port)}"
    for _ in range(2):
        assert command("pub", channel, "ring", "--key", "7c1f4e", address=address) == (0, "1\n", "")
        assert command("pub", channel, "--key", "lines", input=b"a\nb\na", address=address)[0] == 0
    status, out, errors = command("pub", channel, "other", "--key", "7c1f4e", address=address)
    assert (status, out, errors) == (1, "", "sockbridge pub: this key has been used for another request\n")
    status, _, errors = command("pub", channel, "--key", "lines", input=b"a\nc", address=address)
    assert status == 1 and errors.startswith("sockbridge pub: line 2: this key has been used for another request\n")
    assert command("history", channel, "--raw") == (0, "ring\na\nb\na\n", "")


def test_commands_use_each_kind_of_address_with_a_token(start, issuer, command, tmp_path):
    Authority(tmp_path).issue("server", "localhost")
    (tmp_path / "rules.toml").write_text(issuer.access("anonymous = {}") + issuer.make_key("hs"))
    (tmp_path / "ann.token").write_text(f"{issuer.token(sub='ann', channels={'kitchen': 'rw'})}\n")
    server = start("--config", "rules.toml", tcp=(TCP, TLS, "unix:lines"), web=(TCP, TLS))
    tcp, tls, unix = server.lines
    web, secure_web = (page.removesuffix("/").rpartition(":")[2] for page in server.pages)
    addresses = [
        f"tcp://{tcp}",
        f"tls://localhost:{tls.rpartition(':')[2]}",
        f"unix://{tmp_path}/lines",
        f"ws://localhost:{web}",
        f"wss://localhost:{secure_web}",
    ]
    assert command("pub", "kitchen", "1", address=addresses[0])[0] == 1
    options = ("--token-file", "ann.token", "--authorities", "authority.pem")
    for address in addresses:
        assert command("pub", "kitchen", address, "--quiet", *options, address=address) == (0, "", "")
    assert command("history", "kitchen", "--raw", *options, address=addresses[0])[1].splitlines() == addresses


def test_files_are_published_as_bytes(command, channel):
    data = bytes(range(256))
    assert command("pub", channel, "--file", "-", input=data)[0] == 0
    assert "<256 bytes>" in command("history", channel)[1]


def test_refused_command_has_status_1(command):
    status, out, errors = command("pub", "kit*chen", "1")
    assert (status, out) == (1, "") and errors.startswith("sockbridge pub: invalid channel: ")
    assert command("sub", "kit*chen")[0] == 1


def test_server_that_is_not_there_has_status_3(command):
    status, out, errors = command("pub", "kitchen", "1", address="tcp://127.0.0.1:1")
    assert (status, out) == (3, "") and errors.startswith("sockbridge pub: cannot connect to tcp://127.0.0.1:1: ")


OPERANDS = {"history": "a", "who": "a", "sub": "a", "pub": "a b", "pipe": "a -- true", "disconnect": "a"} | {
    "completion": "bash",
    "token": "--sub ann",
    "state": "directory",
    "check": "/dev/null",
}
"""What the commands need, if not nothing."""


@pytest.mark.parametrize(
    ("redirection", "commands", "error"),
    [
        ("<&-", ["pub a -", "pub a", "pub a --file -"], "standard input: closed"),
        ("<&-", ["watch"], "watch needs a terminal: use sockbridge sub in scripts"),
        (
            ">&-",
            [f"{name} {OPERANDS.get(name, '')}" for name in COMMANDS],
            "standard output is closed: to discard the output, use >/dev/null",
        ),
        (">/dev/full", ["man", "completion bash", "check /dev/null"], "output: no space left on device"),
    ],
)
def test_stream_that_cannot_be_used_is_one_error(tmp_path, redirection, commands, error):
    running = [
        subprocess.Popen(f"{SOCKBRIDGE} {words} {redirection}", shell=True, cwd=tmp_path, stderr=subprocess.PIPE)
        for words in commands
    ]
    for words, process in zip(commands, running, strict=True):
        errors = process.communicate(timeout=TIMEOUT_SECONDS)[1].decode()
        assert (errors, process.returncode) == (f"sockbridge {words.split()[0]}: {error}\n", 2)


def test_socket_is_not_in_the_place_of_a_closed_stream(command, server, channel):
    """An error that is written to a closed standard error must not reach the server."""
    address = f"tcp://127.0.0.1:{server.line_port}"
    words = f"{SOCKBRIDGE} pub {channel} - --json --server {address}"
    finished = subprocess.run(f"{words} 2>&-", shell=True, input=b"1\nx\n3", timeout=TIMEOUT_SECONDS)
    assert finished.returncode == 1
    assert command("history", channel, "--raw") == (0, "1\n3\n", "")


def test_programs_of_a_command_without_streams_have_streams():
    """`sockbridge serve` becomes twistd, and `pipe` starts a program."""
    program = """
import os
from sockbridge.commands.streams import open_closed_streams
open_closed_streams()
os.execvp("sh", ["sh", "-ec", "echo a; echo b >&2; cat"])
"""
    words = ["sh", "-c", f'exec {sys.executable} -c "$0" <&- >&- 2>&-', program]
    assert subprocess.run(words, timeout=TIMEOUT_SECONDS).returncode == 0


def test_ends_with_the_program_that_reads_it(server, channel, line_client, tmp_path):
    publisher = line_client(server.lines[0])
    publisher.request(f"PUB {channel} 1")
    address = f"tcp://127.0.0.1:{server.line_port}"
    script = f"{SOCKBRIDGE} sub {channel} --last 1 --server {address} | head -1; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert (finished.stdout.splitlines()[1], finished.stderr) == ("0", "")


def test_sub_continues_after_a_restart(start, run, line_client):
    server = start("--state", "state")
    following = run(
        SOCKBRIDGE, "sub", "kitchen", "--raw", "--last", "9", "--server", f"tcp://127.0.0.1:{server.line_port}"
    )
    line_client(server.lines[0]).request("PUB kitchen before")
    following.prints("^before$")
    server.kill()
    following.prints("sockbridge sub: the connection ended: trying again")
    server = start.again(server, "--state", "state")
    line_client(server.lines[0]).request("PUB kitchen after")
    following.prints("^after$")
    following.stop(2)
    assert following.process.returncode == 130
    assert "lost" not in following.output() and following.output().count("before") == 1


def test_sub_begins_after_an_offset_or_a_time_and_continues(server, channel, command, run, line_client):
    publisher = line_client(server.lines[0])
    for number in range(1, 5):
        publisher.request(f"PUB {channel} event {number}")
    assert command("sub", channel, "--after", "2", "--count", "2", "--raw") == (0, "event 3\nevent 4\n", "")
    assert command("sub", channel, "--after", "-1h", "--last", "1", "--count", "1", "--raw") == (0, "event 4\n", "")
    words = ("sub", channel, "--after", "-1h", "--raw", "--server", f"tcp://127.0.0.1:{server.line_port}")
    following = run(SOCKBRIDGE, *words)
    following.prints("^event 4$")
    publisher.request(f"PUB {channel} event 5")
    following.prints("^event 5$")
    following.stop(2)
    assert following.output().split("\n")[:5] == [f"event {number}" for number in range(1, 6)]


def test_pipe_connects_a_program_and_has_its_status(server, channel, command, run, line_client):
    program = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin: print(len(line), flush=True)"
    address = f"tcp://127.0.0.1:{server.line_port}"
    piped = run(SOCKBRIDGE, "pipe", channel, "--server", address, "--", sys.executable, "-c", program)
    other = line_client(server.lines[0])
    other.request(f"SUB {channel} last=1")
    other.receive_until(f"MSG {channel} 1 ")
    other.send(f"PUB {channel} hello")
    assert other.receive_until(f"MSG {channel} 3 ")[-1].endswith(" 6")
    piped.stop()
    assert command("pipe", channel, "--", "sh", "-c", "exit 7")[0] == 7


def test_client_alone_has_the_commands(server, channel):
    address = f"tcp://127.0.0.1:{server.line_port}"
    words = [sys.executable, "-m", "sockbridge", "pub", channel, "x", "--server", address]
    assert subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS).stdout == "1\n"


@pytest.fixture
def watch(server):
    """Start `sockbridge watch` in a terminal."""
    terminals = []

    def start(*words, terminal="xterm", **more):
        address = f"tcp://127.0.0.1:{server.line_port}"
        variables = {"PATH": "/usr/bin:/bin", "TERM": terminal, "LANG": "C.UTF-8"} | more
        command = (SOCKBRIDGE, "watch", *words, "--server", address)
        terminals.append(Terminal(*command, size=(80, 24), env=variables))
        return terminals[-1]

    yield start
    for each in terminals:
        each.close()


CLEARED = r"\x1b\[\?1049l"
"""What an xterm receives at the end, to show again what it showed before."""


def test_watch_shows_values_in_a_terminal_of_any_size_and_restores_it(watch, server, channel, line_client):
    client = line_client(server.lines[0])
    client.request(f"PUB {channel} \x1b]0;stolen\x07")
    terminal = watch(channel)
    mode = terminal.mode
    terminal.sees("newest values")
    terminal.sees(r'"\\u001b\]0;stolen')
    client.request(f"PUB {channel} 21.5")
    terminal.sees(r"21\.5")
    terminal.resize(30, 8)
    terminal.sees("last value")
    terminal.sees("q quit")
    terminal.resize(0, 0)
    terminal.sees("newest values")
    terminal.type("q")
    assert terminal.process.wait(TIMEOUT_SECONDS) == 0
    terminal.sees(CLEARED)
    assert terminal.mode == mode


def test_watch_finds_channels_and_ends_with_ctrl_c(watch, server, channel, line_client):
    line_client(server.lines[0]).request(f"PUB {channel} hello")
    terminal = watch("--prefix", channel[:-1])
    mode = terminal.mode
    terminal.sees(rf"{channel[:12]}\S* +hello")
    terminal.type("\x03")
    assert terminal.process.wait(TIMEOUT_SECONDS) == 130
    terminal.sees(CLEARED)
    assert terminal.mode == mode


def test_watch_restores_the_terminal_when_it_is_terminated(watch):
    terminal = watch("kitchen")
    terminal.sees("newest values")
    os.kill(terminal.process.pid, signal.SIGTERM)
    assert terminal.process.wait(TIMEOUT_SECONDS) == 143
    terminal.sees(CLEARED)


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}])
def test_watch_shows_errors_in_red_unless_no_color_is_set(watch, variables):
    shown = watch("kit*chen", **variables).sees("(?s)^.*invalid channel")[0]
    assert ("\x1b[31m" in shown) == (not variables)


def test_watch_needs_a_terminal_that_can_be_drawn_on(command, watch):
    assert command("watch") == (2, "", "sockbridge watch: watch needs a terminal: use sockbridge sub in scripts\n")
    watch(terminal="dumb").sees("terminal type 'dumb' is not supported: set TERM")


def test_administrator_lists_and_disconnects_clients(command, server, line_client):
    client = line_client(server.lines[0])
    client.request("NICK gretel")
    status, out, errors = command("peers", "gretel", "--json")
    assert (status, errors) == (0, "")
    id = json.loads(out)["id"]
    listed = command("peers", "--nick", "hansel")[1]
    assert re.search(rf"^{id} ~?gretel line 127", listed, re.M) and "hansel" not in listed
    web = f"ws://127.0.0.1:{server.web_port}"
    assert command("disconnect", id, "--reason", "the party is over", address=web) == (0, "", "")
    assert client.receive() == "NOTICE disconnected by an administrator: the party is over"
    status, _, errors = command("disconnect", "unknown", address=web)
    assert (status, errors) == (1, "sockbridge disconnect: no client has this id\n")
    line_port = f"ws://127.0.0.1:{server.line_port}"
    assert command("disconnect", id, address=line_port)[0] == 3


def test_others_do_not(start, command, tmp_path):
    (tmp_path / "rules.toml").write_text('[access]\nanonymous = { ">" = "rw" }\n')
    server = start("--config", "rules.toml")
    error = "only administrators can do this: give the token of one, as in --token-file admin.token"
    for words, port in ((("peers",), f"tcp://127.0.0.1:{server.line_port}"), (("disconnect", "a"), server.web_port)):
        address = port if isinstance(port, str) else f"ws://127.0.0.1:{port}"
        assert command(*words, address=address) == (1, "", f"sockbridge {words[0]}: {error}\n")


COMPLETIONS = {
    "wat": "watch",
    "sub --la": "sub --last",
    "sub kit": "sub kitchen",
    "peers --order l": "peers --order lag",
    "completion f": "completion fish",
    "state dir exp": "state dir export",
    "pub kitchen --file pho": "pub kitchen --file photo",
    "sub --server tcp://a kit": "sub --server tcp://a kit",
}
"""What is typed, and what it is after Tab."""


@pytest.fixture
def completing(tmp_path):
    """A folder with the completion of a shell, and a program that the shell runs as `sockbridge`: it prints its
    arguments, or channels. Clients choose the names of channels, and a completed word becomes part of a command."""
    names = "'kit$(touch${IFS}owned)' 'kit;id' kitchen -kit"
    program = f"""#!/bin/sh
case $1 in channels) printf '%s 0 1\\n' {names} ;; *) echo "<$*>" ;; esac
"""
    (tmp_path / "sockbridge").write_text(program)
    (tmp_path / "sockbridge").chmod(0o755)
    (tmp_path / "photo").touch()

    def write(shell, name):
        script = subprocess.run([SOCKBRIDGE, "completion", shell], capture_output=True, check=True).stdout
        (tmp_path / name).write_bytes(script)
        return tmp_path

    yield write
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def interactive_shell(completing):
    """Start a shell, as a person who types, with the completion as docs/how-to/command-line.md installs it."""
    shells = []

    def start(command, name, setup):
        folder = completing(command[0], name)
        variables = {"PATH": f"{folder}:/usr/bin:/bin", "TERM": "dumb", "HOME": str(folder), "LANG": "C.UTF-8"}
        shells.append(Terminal(*command, size=(200, 24), env=variables, cwd=folder))
        shells[-1].type(f"{setup}; echo is-$((40 + 2))\r")
        shells[-1].sees("is-42")
        return shells[-1]

    yield start
    for each in shells:
        each.close()


@pytest.mark.parametrize(
    ("command", "name", "setup"),
    [
        (["bash", "--norc", "-i"], ".sockbridge.bash", ". ~/.sockbridge.bash"),
        # compinit -u does not ask about the owner of the folder.
        (["zsh", "-f", "-i"], "_sockbridge", "fpath+=(~); autoload -U compinit; compinit -u -D"),
    ],
    ids=["bash", "zsh"],
)
def test_shell_completes_commands_options_and_harmless_channels(interactive_shell, command, name, setup):
    terminal = interactive_shell(command, name, setup)
    for typed, completed in COMPLETIONS.items():
        terminal.type(f"sockbridge {typed}\t\r")
        assert terminal.sees("<(.*)>")[1].strip() == completed


def test_fish_completes_commands_options_and_harmless_channels(completing):
    folder = completing("fish", "sockbridge.fish")
    typed = "\n".join(f"echo (complete -C 'sockbridge {words}' | cut -f 1)" for words in COMPLETIONS)
    finished = subprocess.run(
        ["fish", "--no-config", "-c", f"source sockbridge.fish\n{typed}"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"},
        timeout=TIMEOUT_SECONDS,
    )
    expected = [words.split()[-1] if words != typed else "" for typed, words in COMPLETIONS.items()]
    assert (finished.stdout.splitlines(), finished.stderr) == (expected, "")


@pytest.mark.parametrize("formatter", ["groff -ww -man -Tutf8", "mandoc -W warning,stop -T utf8"])
def test_manual_pages_are_formatted_without_a_warning(tmp_path, formatter):
    subprocess.run([SOCKBRIDGE, "man", "--directory", "pages"], cwd=tmp_path, capture_output=True, check=True)
    pages = sorted((tmp_path / "pages").iterdir())
    for page in pages:
        finished = subprocess.run([*formatter.split(), page], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        assert (finished.returncode, finished.stderr) == (0, "")
        assert f"{page.stem.upper()}(1)" in finished.stdout
    assert {page.name for page in pages} == {"sockbridge.1", *(f"sockbridge-{name}.1" for name in [*COMMANDS, "serve"])}
