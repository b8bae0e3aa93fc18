"""From a key to a client with rights, as docs/how-to/access.md describes: keygen, check, token, nc, page."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.end_to_end

CHECKOUT = Path(__file__).parents[2]
ACCESS = CHECKOUT / "docs" / "how-to" / "access.md"
FIRST_STEPS = CHECKOUT / "docs" / "tutorial" / "first-five-minutes.md"
CHROMIUM = "/usr/bin/chromium"
PROGRAM = "import sys; from twistedsock.cli.main import main; sys.exit(main())"


def section() -> str:
    return ACCESS.read_text(encoding="utf-8")


def fenced(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", section(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run shell commands in the directory of the server."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "sockbridge"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{PROGRAM}' \"$@\"\n")
    script.chmod(0o700)
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def run(lines: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-ec", lines]
        return subprocess.run(command, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def prepared(shell: Callable[[str], subprocess.CompletedProcess[str]], start: Any) -> Any:
    """The server with the configuration of the page."""
    first = fenced("sh")[0]
    *commands, twistd = first.strip().splitlines()
    assert twistd == "twistd -n sockbridge --config sockbridge.toml"
    done = shell("\n".join(commands))
    assert (done.returncode, done.stderr) == (0, "")
    assert "without a token: read news; read and publish on lobby.*" in done.stdout
    assert "Warnings" not in done.stdout
    return start("--config", "sockbridge.toml")


def test_commands_of_the_page_give_the_documented_output(prepared: Any, shell: Any) -> None:
    port = prepared.lines[0].rpartition(":")[2]
    done = shell(fenced("sh")[1].replace("8081", port))
    assert (done.returncode, done.stderr) == (0, "")
    (documented,) = re.findall(r"^(WELCOME .*?)^```$", section(), flags=re.DOTALL | re.MULTILINE)
    assert len(done.stdout.splitlines()) == len(documented.splitlines())
    for line, expected in zip(done.stdout.splitlines()[1:], documented.splitlines()[1:], strict=True):
        assert re.sub(r"36[0-9]{2}$", "3629", line) == expected


def test_javascript_of_the_page_authenticates(prepared: Any, shell: Any) -> None:
    (script,) = (block for block in fenced("js") if "import(" in block)
    token = shell("sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw'").stdout.strip()
    with sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        window = browser.new_page()
        window.goto(prepared.page)
        with window.expect_console_message(lambda message: message.text == "21.5", timeout=20_000):
            window.evaluate(f"(async () => {{ {script.replace('eyJ…', token)}\nclient.publish('kitchen', 21.5); }})()")
        browser.close()
    assert token.partition(".")[2] not in prepared.log()


def test_replaced_key_disconnects_clients(prepared: Any, shell: Any, line_client: Any, tmp_path: Path) -> None:
    """The file of the key is replaced, and the server reloads."""
    token = shell("sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw'").stdout.strip()
    peer, bystander = line_client(prepared.lines[0]), line_client(prepared.lines[0])
    assert peer.request(f"AUTH {token}").startswith("OK ann expires=")
    assert peer.request("SUB kitchen").startswith("OK kitchen")
    shell("rm key; sockbridge keygen")
    prepared.process.send_signal(signal.SIGHUP)
    assert "was removed" in peer.receive_rest()[0]
    assert bystander.request("SUB lobby.a").startswith("OK lobby.a")
    assert "invalid token: wrong signature" in bystander.request(f"AUTH {token}")
    fresh = shell("sockbridge token --config sockbridge.toml --sub ann").stdout.strip()
    assert bystander.request(f"AUTH {fresh}").startswith("OK ann")
    assert token.rpartition(".")[2] not in prepared.log()


def test_commands_of_the_first_steps_restrict_publishing(shell: Any, start: Any, tmp_path: Path) -> None:
    text = FIRST_STEPS.read_text(encoding="utf-8").partition("\n## 6. Control access\n")[2].partition("\n## ")[0]
    first, second = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    *commands, twistd = first.strip().splitlines()
    assert twistd == "twistd -n sockbridge --config sockbridge.toml"
    done = shell("\n".join(commands))
    assert (done.returncode, done.stderr) == (0, "")
    assert "other machines can connect" in done.stdout and "without a token: read kitchen" in done.stdout
    server = start("--config", "sockbridge.toml")
    twice = second.replace("8081", server.lines[0].rpartition(":")[2]).replace("while sleep 1", "for _ in 1 2")
    assert "for _ in 1 2" in twice
    done = shell(twice.replace("| nc", "| nc -N"))
    assert re.sub(r"\d{7}", "…", done.stdout.partition("\n")[2]) == "OK thermometer expires=…\nOK 1\nOK 2\nBYE\n"
    for secret in ("key", "token"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600


def test_check_and_server_reject_the_same_files(shell: Any, tmp_path: Path) -> None:
    for text in (
        'tcp = "tcp:0"\nweb = "none"',
        "tcp = 'pigeon:1'",
        '[[access.key]]\nid = "a"\nalgorithm = "HS256"\nfile = "nowhere"',
        '[[access.listener]]\nendpoint = "tcp:1"',
        "colour = 1",
    ):
        (tmp_path / "sockbridge.toml").write_text(text)
        assert shell("sockbridge check sockbridge.toml").returncode == 1, text
        twistd = Path(sys.executable).parent / "twistd"
        done = shell(f"timeout 30 {twistd} -n --pidfile= sockbridge --config sockbridge.toml")
        assert done.returncode == 1, (text, done.stdout)
