"""Clients of Socket.IO, as they are, and the server of docs/how-to/socketio.md."""

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
import socketio
from playwright.sync_api import expect

from tests.documents import CHECKOUT, DOCS, fenced
from tests.end_to_end.programs import free_ports

pytestmark = pytest.mark.end_to_end

PAGE = DOCS / "how-to" / "socketio.md"

TRANSPORTS = [["polling"], ["websocket"], ["polling", "websocket"]]

ECHO = """
@sio.on("echo")
def echo(socket, *arguments):
    socket.emit("echoed", *arguments)
    return arguments


@sio.on("transport")
def transport(socket):
    return socket.transport

"""
"""Handlers for the tests, added to those of the page."""

CLIENT = """
import { io } from 'socket.io-client';
const socket = io('URL', { transports: TRANSPORTS, auth: { nick: 'ada' } });
await new Promise((resolve) => socket.on('connect', resolve));
const echoed = new Promise((resolve) => socket.on('echoed', (...values) => resolve(values)));
const [value, bytes] = [{ a: ['é', null] }, Buffer.from([1, 2, 255])];
const answer = await socket.emitWithAck('echo', bytes);
socket.emit('echo', value, bytes, 'x'.repeat(100_000));
const [first, second, third] = await echoed.then(() => new Promise((resolve) =>
  socket.on('echoed', (...values) => resolve(values))));
const moves = TRANSPORTS.length > 1;
while (moves && socket.io.engine.transport.name === 'polling') await new Promise((resolve) => setTimeout(resolve, 20));
console.log(JSON.stringify([answer, first, second, third.length, await socket.emitWithAck('transport')]));
socket.disconnect();
"""


BROWSER = """
<!doctype html>
<meta charset="utf-8">
<title>Socket.IO</title>
<link rel="icon" href="data:,">
<script src="socket.io.min.js"></script>
<output></output>
<script>
  const transports = location.search.slice(1).split('+');
  const show = (text) => (document.querySelector('output').textContent = text);
  const socket = io({ transports, auth: { nick: 'eve' } });
  socket.on('echoed', async (text, bytes) => {
    if (transports.length > 1 && socket.io.engine.transport.name === 'polling') {
      await new Promise((resolve) => socket.io.engine.on('upgrade', resolve));
    }
    show(`${text} ${[...new Uint8Array(bytes)]} ${await socket.emitWithAck('transport')}`);
  });
  socket.emit('echo', 'é', new Uint8Array([1, 2, 255]));
</script>
"""
"""A page with the client of the npm package, as it is."""


@pytest.fixture
def page(start: Any, tmp_path: Path) -> str:
    """The address of the server of the page, with the handlers of the tests, and with ``BROWSER`` at ``/app/``."""
    text = fenced(PAGE, "python")[0]
    assert text == (CHECKOUT / "examples" / "chat.tac").read_text(encoding="utf-8")
    (port,) = free_ports(1)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "index.html").write_text(BROWSER, encoding="utf-8")
    copy(CHECKOUT / "node_modules/socket.io-client/dist/socket.io.min.js", tmp_path / "app")
    for before, after in {
        "application =": ECHO + "\nfrom twisted.web.static import File\napplication =",
        "socketio=sio": f"socketio=sio, resources={{'app': File({str(tmp_path / 'app')!r})}}",
        "tcp:8082:": f"tcp:{port}:",
    }.items():
        text = text.replace(before, after)
    start.application("chat.tac", text, endpoints=1)
    return f"http://127.0.0.1:{port}"


def node(program: str) -> str:
    """Run a program in the folder with the packages. Returns its output."""
    command = ["node", "--input-type=module", "--eval", program]
    finished = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


def test_program_of_the_page(page: str) -> None:
    (program,) = fenced(PAGE, "js")
    assert sorted(node(program.replace("http://127.0.0.1:8082", page)).split("\n")) == ["", "ada hello", "ok"]


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_client_for_node(page: str, transports: list[str]) -> None:
    program = CLIENT.replace("URL", page).replace("TRANSPORTS", str(transports))
    buffer = '{"type":"Buffer","data":[1,2,255]}'
    expected = f'[{buffer},{{"a":["é",null]}},{buffer},100000,"{transports[-1]}"]\n'
    assert node(program) == expected


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_client_in_chromium(page: str, open_page: Any, transports: list[str]) -> None:
    opened = open_page().page
    opened.goto(f"{page}/app/?{'+'.join(transports)}")
    expect(opened.locator("output")).to_have_text(f"é 1,2,255 {transports[-1]}")


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_client_for_python(page: str, transports: list[str]) -> None:
    with socketio.SimpleClient() as client:
        client.connect(page, auth={"nick": "bob"}, transports=transports)
        assert client.call("echo", ("é", b"\x01\xff", {"a": [None]})) == ("é", b"\x01\xff", {"a": [None]})
        assert client.receive(timeout=10) == ["echoed", "é", b"\x01\xff", {"a": [None]}]
        assert client.call("say", "hello") == "ok"
        assert client.receive(timeout=10) == ["said", "bob", "hello"]
        assert client.call("transport") == transports[-1]


def test_asyncio_client_for_python(page: str) -> None:
    async def converse() -> Any:
        async with socketio.AsyncSimpleClient() as client:
            await client.connect(page, auth={"nick": "bob"})
            await client.emit("echo", b"\x01")
            return await client.receive(timeout=10), await client.call("transport")

    with ThreadPoolExecutor() as threads:  # playwright has an event loop in this one
        outcome = threads.submit(asyncio.run, converse()).result()
    assert outcome == (["echoed", b"\x01"], "websocket")


def test_refused_client_for_python(page: str) -> None:
    client, errors = socketio.Client(), list[Any]()
    client.on("connect_error", errors.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(page, wait_timeout=10)
    assert errors == [{"message": "nick required"}]
