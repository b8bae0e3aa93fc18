"""From a key to a client with rights, as docs/how-to/access.md describes: keygen, check, token, nc, page."""

import re
import signal
import stat
from typing import Any

import pytest

from tests.documents import DOCS, fenced, fenced_in

pytestmark = pytest.mark.end_to_end

ACCESS = DOCS / "how-to" / "access.md"
FIRST_STEPS = DOCS / "tutorial" / "first-five-minutes.md"
TOKEN_OF_ANN = "sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw'"


def prepare(shell: Any, block: str) -> str:
    """Run the commands of a block of the documentation but the last, which starts the server. Returns their output."""
    commands, twistd = block.strip().rsplit("\n", 1)
    assert twistd == "twistd -n sockbridge --config sockbridge.toml"
    done = shell(commands)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


@pytest.fixture
def prepared(shell: Any, start: Any) -> Any:
    """The server with the configuration of the page."""
    printed = prepare(shell, fenced(ACCESS, "sh")[0])
    assert "without a token: read news; read and publish on lobby.*" in printed
    assert "Warnings" not in printed
    return start("--config", "sockbridge.toml")


def test_commands_of_the_page_give_the_documented_output(prepared, shell):
    done = shell(fenced(ACCESS, "sh")[1].replace("8081", str(prepared.line_port)))
    assert (done.returncode, done.stderr) == (0, "")
    (documented,) = (block for block in fenced(ACCESS, "") if block.startswith("WELCOME "))
    assert len(done.stdout.splitlines()) == len(documented.splitlines())
    for line, expected in zip(done.stdout.splitlines()[1:], documented.splitlines()[1:], strict=True):
        assert re.sub(r"36[0-9]{2}$", "3629", line) == expected


def test_javascript_of_the_page_authenticates(prepared, shell, open_page):
    (script,) = (block for block in fenced(ACCESS, "js") if "import(" in block)
    token = shell(TOKEN_OF_ANN).stdout.strip()
    window = open_page().open(prepared.page)
    with window.expect_console_message(lambda message: message.text == "21.5"):
        window.evaluate(f"(async () => {{ {script.replace('eyJ…', token)}\nclient.publish('kitchen', 21.5); }})()")
    assert token.partition(".")[2] not in prepared.log()


def test_replaced_key_disconnects_clients(prepared, shell, line_client):
    """The file of the key is replaced, and the server reloads."""
    token = shell(TOKEN_OF_ANN).stdout.strip()
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


def test_commands_of_the_first_steps_restrict_publishing(shell, start, tmp_path):
    text = FIRST_STEPS.read_text(encoding="utf-8").partition("\n## 6. Control access\n")[2].partition("\n## ")[0]
    first, second = fenced_in(text, "sh")
    printed = prepare(shell, first)
    assert "other machines can connect" in printed and "without a token: read kitchen" in printed
    server = start("--config", "sockbridge.toml")
    twice = second.replace("8081", str(server.line_port)).replace("while sleep 1", "for _ in 1 2")
    assert "for _ in 1 2" in twice
    done = shell(twice.replace("| nc", "| nc -N"))
    assert re.sub(r"\d{7}", "…", done.stdout.partition("\n")[2]) == "OK thermometer expires=…\nOK 1\nOK 2\nBYE\n"
    for secret in ("key", "token"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600


def test_check_and_server_reject_the_same_files(shell, tmp_path):
    for text in (
        'tcp = "tcp:0"\nweb = "none"',
        "tcp = 'pigeon:1'",
        '[[access.key]]\nid = "a"\nalgorithm = "HS256"\nfile = "nowhere"',
        '[[access.listener]]\nendpoint = "tcp:1"',
        "colour = 1",
    ):
        (tmp_path / "sockbridge.toml").write_text(text)
        assert shell("sockbridge check sockbridge.toml").returncode == 1, text
        done = shell("timeout 30 twistd -n --pidfile= sockbridge --config sockbridge.toml")
        assert done.returncode == 1, (text, done.stdout)
