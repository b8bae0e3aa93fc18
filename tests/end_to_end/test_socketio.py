"""Clients of Socket.IO, as they are: those of channels, and those of the application of
docs/how-to/socketio-application.md."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import pytest
import socketio
from playwright.sync_api import expect

from tests.documents import CHECKOUT, DOCS, fenced
from tests.end_to_end.programs import TIMEOUT_SECONDS, free_ports, path_of, run_node, wait_until
from tests.end_to_end.proxies import replaced
from tests.redis.servers import RedisServer

pytestmark = pytest.mark.end_to_end

PAGE = DOCS / "how-to" / "socketio-application.md"

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


SEVERAL = """
import { io } from 'socket.io-client';
const socket = io('URL', { transports: TRANSPORTS, auth: { nick: 'ada' } });
const refused = new Promise((resolve) => socket.io.on('open', () => socket.io.engine.on('upgradeError', resolve)));
await new Promise((resolve) => socket.on('connect', resolve));
if (TRANSPORTS.length > 1) await refused;
for (let number = 0; number < 20; number += 1) {
  const echoed = await socket.emitWithAck('echo', 'x'.repeat(number * 1000));
  if (echoed.length !== number * 1000) throw new Error('changed');
}
console.log(await socket.emitWithAck('transport'));
socket.disconnect();
"""
"""Fails if the client is disconnected."""

ROUND_ROBIN = """
daemon off; worker_processes 1; error_log stderr; pid FOLDER/nginx.pid;
events { worker_connections 100; }
http {
    access_log off;
    TEMPORARY
    map $http_upgrade $connection_upgrade { default upgrade; '' close; }
    map "$http_upgrade:$arg_sid" $servers { "~^:$" one; "~^websocket:" other; default both; }
    upstream one { server 127.0.0.1:ONE; }
    upstream other { server 127.0.0.1:OTHER; }
    upstream both { server 127.0.0.1:ONE; server 127.0.0.1:OTHER; }
    server {
        listen 127.0.0.1:PORT;
        location / {
            proxy_pass http://$servers;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }
    }
}
"""
"""An nginx without sticky sessions. Sessions are opened on one server, and WebSockets on the other one. All other
requests alternate."""


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


def test_program_of_the_page(page: str) -> None:
    (program,) = fenced(PAGE, "js")
    assert sorted(run_node(program.replace("http://127.0.0.1:8082", page)).split("\n")) == ["", "ada hello", "ok"]


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_client_for_node(page: str, transports: list[str]) -> None:
    program = CLIENT.replace("URL", page).replace("TRANSPORTS", str(transports))
    buffer = '{"type":"Buffer","data":[1,2,255]}'
    expected = f'[{buffer},{{"a":["é",null]}},{buffer},100000,"{transports[-1]}"]\n'
    assert run_node(program) == expected


@pytest.fixture
def balanced_page(start: Any, run: Any, tmp_path: Path) -> Iterator[str]:
    """The address of two servers on one Redis, behind ``ROUND_ROBIN``."""
    text = fenced(PAGE, "python")[0]
    one, other, port = free_ports(3)
    # The path of a socket must be short.
    with TemporaryDirectory() as directory, ExitStack() as ending:
        redis = RedisServer(Path(directory))
        ending.callback(redis.kill)
        ending.callback(start.stop_all)
        redis.start()
        changes = {
            "application =": ECHO + "\napplication =",
            '{"tcp"': f"{{'backplane': 'unix://{redis.path}', \"tcp\"",
        }
        for number in (one, other):
            program = replaced(text, {**changes, "tcp:8082:": f"tcp:{number}:"})
            start.application(f"{number}.tac", program, endpoints=1)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        words = {
            "TEMPORARY": "".join(f"{kind}_temp_path FOLDER/{kind};" for kind in kinds),
            "FOLDER": str(tmp_path),
            **{"ONE": str(one), "OTHER": str(other), "PORT": str(port)},
        }
        (tmp_path / "nginx.conf").write_text(replaced(ROUND_ROBIN, words))
        run(path_of("nginx"), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")).listens(port)
        for number in (one, other):
            wait_until(lambda number=number: _is_ready(number), "the server to be ready")
        yield f"http://127.0.0.1:{port}"


def _is_ready(port: int) -> bool:
    with suppress(OSError):
        return bool(urlopen(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT_SECONDS).status == 200)
    return False


def test_client_of_several_servers_without_sticky_sessions(balanced_page: str) -> None:
    """A WebSocket that reaches another server than the one with the session is refused, and the client polls on."""
    for transports in TRANSPORTS:
        program = SEVERAL.replace("URL", balanced_page).replace("TRANSPORTS", str(transports))
        assert run_node(program) == f"{transports[0]}\n"


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


# Clients of the channels.


CHANNEL_CLIENT = """
import { io } from 'socket.io-client';
const [transports, options] = [TRANSPORTS, { reconnectionDelay: 10, auth: { recover: true } }];
const socket = io('URL/CHANNEL', { transports, ...options });
const events = [];
socket.onAny((name, data, meta) => events.push([name, data, meta.offset, meta.from === socket.id]));
await new Promise((resolve) => socket.on('connect', resolve));
const { offset } = await socket.emitWithAck('chat message', { a: 'é' });
await socket.emitWithAck('photo', Buffer.from([1, 255]));
const { error } = await socket.emitWithAck('nested', [Buffer.from([1])]);
const moves = transports.length > 1;
while (moves && socket.io.engine.transport.name === 'polling') await new Promise((resolve) => setTimeout(resolve, 20));
const name = socket.io.engine.transport.name;
const main = io('URL', { transports, forceNew: true });
const connected = new Promise((resolve) => socket.once('connect', resolve));
socket.io.engine.close();
await main.emitWithAck('publish', 'CHANNEL', 'missed', { name: 'alarm' });
await connected;
const missed = () => events.some((event) => event[1] === 'missed');
while (!missed()) await new Promise((resolve) => setTimeout(resolve, 20));
const { events: history } = await main.emitWithAck('history', 'CHANNEL', { last: 1 });
console.log(JSON.stringify([offset, error.code, name, socket.recovered, history[0].data, events]));
for (const each of [socket, main]) each.disconnect();
"""


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_channels_for_node(server: Any, line_client: Any, channel: str, transports: list[str]) -> None:
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    program = CHANNEL_CLIENT.replace("URL", server.page.rstrip("/")).replace("TRANSPORTS", str(transports))
    events = [
        ["chat message", {"a": "é"}, 1, True],
        ["photo", {"type": "Buffer", "data": [1, 255]}, 2, True],
        ["alarm", "missed", 3, False],
    ]
    assert json.loads(run_node(program.replace("CHANNEL", channel))) == [
        1,
        "bad-argument",
        transports[-1],
        True,
        "missed",
        events,
    ]
    lines = [reader.receive().split(" ", 4) for _ in range(3)]
    assert [line[0] for line in lines] == ["EVENT", "BIN", "EVENT"]
    assert lines[0][4] == 'chat%20message {"a":"é"}' and lines[1][4] == "photo Af8="


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
def test_channels_for_python(server: Any, line_client: Any, channel: str, transports: list[str]) -> None:
    writer = line_client(server.lines[0])
    with socketio.SimpleClient() as client:
        client.connect(server.page, namespace=f"/{channel}", auth={"nick": "bob"}, transports=transports)
        writer.request(f"EMIT {channel} alarm smoke")
        name, data, meta = client.receive(timeout=10)
        assert (name, data, meta["channel"], meta["offset"]) == ("alarm", "smoke", channel, 1)
        assert client.call("photo", b"\x01\xff")["offset"] == 2
        name, data, meta = client.receive(timeout=10)
        assert (name, data, meta["from"]) == ("photo", b"\x01\xff", "bob")


def test_channels_in_chromium(server: Any, line_client: Any, channel: str, open_page: Any) -> None:
    """The page is the one of the server, so that the origin is allowed; the client is the file of the npm package."""
    writer = line_client(server.lines[0])
    opened = open_page().page
    opened.goto(server.page)
    library = CHECKOUT / "node_modules/socket.io-client/dist/socket.io.min.js"
    opened.evaluate(library.read_text(encoding="utf-8"))
    opened.evaluate(
        """async (channel) => {
          window.socket = io('/' + channel);
          window.received = new Promise((resolve) => socket.on('photo', (data, meta) => resolve([data, meta.offset])));
          await new Promise((resolve) => socket.on('connect', resolve));
        }""",
        channel,
    )
    writer.request(f"EMITBIN {channel} photo Af8=")
    received = "received.then(([data, offset]) => [...new Uint8Array(data), offset])"
    assert opened.evaluate(received) == [1, 255, 1]


def test_stock_chat_moves_without_a_changed_line(start: Any, line_client: Any) -> None:
    """The example of docs/how-to/socketio.md: a client of the main namespace, with a space in the name of its event."""
    server = start("--socketio-channel", "chat")
    reader = line_client(server.lines[0])
    reader.request("SUB chat")
    command = ["node", "examples/socketio_chat.mjs", server.page]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as chat:
        assert chat.stdin is not None and chat.stdout is not None
        assert chat.stdout.readline() == "connected\n"
        chat.stdin.write("hello\n")
        chat.stdin.flush()
        assert chat.stdout.readline() == "> hello\n"
        assert reader.receive().endswith(" chat%20message hello")
        reader.request("EMIT chat chat%20message welcome")
        assert chat.stdout.readline() == "> welcome\n"
        chat.stdin.close()


def test_program_of_the_page_for_channels(server: Any, channel: str) -> None:
    program = fenced(DOCS / "how-to" / "socketio.md", "js")[0]
    program = program.replace("http://127.0.0.1:8082/kitchen", f"{server.page}{channel}")
    end = "socket.on('alarm', () => socket.disconnect());\n"  # the event can arrive later than the ack
    output = run_node(program.replace("console.log(await", end + "console.log(await"))
    assert "1 { celsius: 70 }\n" in output and re.search(r"\{ offset: 1, time: [0-9]{13} \}\n", output)
