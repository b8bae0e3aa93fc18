"""Tests of the JavaScript client, installed by npm, in Node.js and Chromium, with WebSockets open and blocked."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.documents import CHECKOUT, fenced
from tests.end_to_end.programs import Program, free_ports, path_of

pytestmark = pytest.mark.end_to_end

WS = (CHECKOUT / "node_modules" / "ws" / "wrapper.mjs").as_uri()
"""A WebSocket class for versions of Node.js without one."""

TALK = """
import {{ connect }} from 'sockbridge';
{imports}
const client = connect('{page}ws', {options});
client.addEventListener('open', ({{ detail }}) => console.log('open', detail.transport, client.transport));
client.addEventListener('closed', ({{ detail }}) => console.log('closed', detail.code, detail.reason));
let receivedAll;
const received = new Promise((resolve) => {{ receivedAll = resolve; }});
const subscription = client.subscribe('{channel}', ({{ offset, data }}) => {{
  console.log('event', offset, JSON.stringify(data));
  if (offset === 21) receivedAll();
}}, {{ last: 10 }});
const {{ epoch }} = await subscription.ready;
console.log('published', await client.publish('{channel}', {{ greeting: 'grüß dich 😀' }}));
for (let number = 1; number <= 20; number += 1) client.publish('{channel}', number);
console.log('members', (await client.who('{channel}')).length, typeof epoch, (await client.ping()) >= 0);
await received;
"""


def run_npm_or_node(*command: str | Path, folder: Path) -> str:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the package was installed."""
    source, folder = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("installation")
    for part in ("clients/js", "twistedsock/static"):
        shutil.copytree(CHECKOUT / part, source / part)
    shutil.copy(CHECKOUT / "LICENSE", source)
    run_npm_or_node("npm", "pack", "--pack-destination", source, folder=source / "clients" / "js")
    (archive,) = source.glob("*.tgz")
    # Works offline, because the package has no dependencies.
    run_npm_or_node("npm", "install", "--offline", "--no-audit", "--no-fund", archive, folder=folder)
    return folder


@pytest.fixture
def node(installation: Path, run: Callable[..., Program]) -> Callable[[str], Program]:
    """Start a Node.js program in the folder with the package."""

    def starting(text: str) -> Program:
        (installation / "program.mjs").write_text(text)
        return run("node", "program.mjs", cwd=installation)

    return starting


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Callable[[], Page]]:
    contexts = []

    def opening() -> Page:
        contexts.append(chromium.new_context())
        contexts[-1].set_default_timeout(20_000)
        return contexts[-1].new_page()

    yield opening
    for context in contexts:
        context.close()


class BlockingProxy:
    """An nginx without support for WebSockets in front of the server."""

    def __init__(self, folder: Path, page: str, run: Callable[..., Program]) -> None:
        (self._port,) = free_ports(1)
        self.page = f"http://127.0.0.1:{self._port}/"
        self._folder, self._run = folder, run
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (folder / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; error_log stderr; pid {folder}/nginx.pid;
            events {{ worker_connections 100; }}
            http {{
                access_log off;
                {"".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)}
                server {{
                    listen 127.0.0.1:{self._port};
                    location / {{ proxy_pass {page}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
                }}
            }}
        """)
        self.start()

    def start(self) -> None:
        self._program = self._run(path_of("nginx"), "-p", str(self._folder), "-c", str(self._folder / "nginx.conf"))
        self._program.listens(self._port)

    def stop(self) -> None:
        self._program.stop()


@pytest.fixture
def blocking_proxy(server: Any, tmp_path: Path, run: Callable[..., Program]) -> BlockingProxy:
    return BlockingProxy(tmp_path, server.page, run)


def talk(page: str, channel: str, options: str = "{}", imports: str = "", more: str = "client.close();") -> str:
    return TALK.format(page=page, channel=channel, options=options, imports=imports) + more


def expect_exchange(program: Program, transport: str) -> None:
    for line in (
        f"open {transport} {transport}",
        'event 1 {"greeting":"grüß dich 😀"}',
        "published 1",
        "members 1 string true",
    ):
        program.prints(f"^{line}$")
    events = [line.split() for line in program.output().splitlines() if line.startswith("event ")]
    assert [int(offset) for _, offset, *_ in events] == [*range(1, 22)]
    assert [int(data) for _, _, data in events[1:]] == [*range(1, 21)]


def expect_end(program: Program) -> list[str]:
    """Wait until the program has ended by itself, and return its output."""
    assert program.process.wait(20) == 0, program.output()
    return program.output().splitlines()


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        (
            "clients/js/README.md",
            [r"\d+ \w+ message \{ celsius: 21.5 \}", r"members \[ \{ id: .* \} \] over (websocket|stream)"],
        ),
        (
            "docs/reference/javascript-client.md",
            [
                r"1 counter message \{ hello: 'from Node' \}",
                "published as 1",
                r"[a-z ]+ \[ \{ .*nick: 'counter' \} \]",
            ],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_programs_of_the_documentation(server, node, channel, page, printed):
    """Runs them unchanged with the installed Node.js."""
    (text,) = [program for program in fenced(CHECKOUT / page, "js") if "from 'sockbridge'" in program]
    text = text.replace("ws://127.0.0.1:8082/", server.page.replace("http", "ws")).replace("kitchen", channel)
    lines = expect_end(node(text))
    for pattern in printed:
        assert any(re.fullmatch(pattern, line) for line in lines), lines


WEBSOCKET, STREAM = ("{ WebSocket }", f"import {{ WebSocket }} from '{WS}';"), ("{ transport: 'stream' }", "")
"""Options, and the import that they need."""


@pytest.mark.parametrize(("transport", "how"), [("websocket", WEBSOCKET), ("stream", STREAM)])
def test_node_uses_either_transport(server, node, channel, transport, how):
    program = node(talk(server.page, channel, *how))
    assert expect_end(program)[-1] == "closed 1000 closed by this client"
    expect_exchange(program, transport)


def test_node_reports_errors_and_replaces_lone_surrogates(server, node, channel):
    """Dispatches the first `connecting` and rejected subscriptions, and events contain only the declared fields."""
    program = node(f"""
import {{ connect }} from 'sockbridge';
const client = connect('{server.page}ws');
for (const type of ['connecting', 'open', 'error']) {{
  client.addEventListener(type, ({{ detail }}) => console.log(type, detail?.code, detail?.channel));
}}
client.subscribe('a b', () => {{}});
const received = new Promise((resolve) => {{ client.subscribe('{channel}', resolve); }});
console.log('published', await client.publish('{channel}', 'cut \\ud83d here'));
console.log(Object.keys(await received).sort().join(), (await received).data);
const {{ events }} = await client.history('{channel}');
console.log(Object.keys(events[0]).sort().join(), events.length);
console.log('time', Math.abs(Date.now() - events[0].time) < 60_000, events[0].time === (await received).time);
client.close();
""")
    fields = "channel,data,from,name,offset,time"
    printed = expect_end(program)
    assert printed[:2] == ["connecting undefined undefined", "open undefined undefined"]
    assert printed[-2:] == [f"{fields} 1", "time true true"]
    assert {"error bad-channel a b", "published 1", f"{fields} cut \ufffd here"} <= set(printed)


def test_node_reads_histories_by_offset_and_time(server, node, channel):
    program = node(f"""
import {{ connect }} from 'sockbridge';
const client = connect('{server.page}ws');
await client.publish('{channel}', 21.5);
const {{ time }} = (await client.history('{channel}')).events[0];
const found = async (options) => (await client.history('{channel}', options)).events.length;
for (const after of [0, 1, new Date(time - 1), new Date(time), '-1h']) console.log(await found({{ after }}));
for (const before of [1, 2, new Date(time), new Date(time + 1), '-1h']) console.log(await found({{ before }}));
await client.history('{channel}', {{ after: 'yesterday' }}).catch(({{ code }}) => console.log(code));
client.close();
""")
    assert expect_end(program) == ["1", "0", "1", "0", "1", "0", "1", "0", "1", "0", "bad-argument"]


@pytest.mark.parametrize("how", [WEBSOCKET, STREAM], ids=["websocket", "stream"])
def test_publishes_exactly_once_while_connections_are_cut(server, node, channel, cutting_proxy, how):
    """With the minified client."""
    proxy, (options, imports) = cutting_proxy(server.web_port), how
    program = node(f"""
import {{ connect }} from 'sockbridge/min';
{imports}
const client = connect('{proxy.origin}/ws', {{ ...{options}, firstDelay: 20, longestDelay: 50 }});
const subscription = client.subscribe('{channel}');
const received = [];
const loop = (async () => {{ for await (const {{ data }} of subscription) if (received.push(data) === 600) break; }})();
await subscription.ready;
for (let round = 0; round < 60; round += 1) {{
  console.log('round', round);
  const numbers = Array.from({{ length: 10 }}, (_, index) => 10 * round + index);
  await Promise.all(numbers.map((number) => client.publish('{channel}', number, {{ key: `key ${{number}}` }})));
}}
const readHistory = () => client.history('{channel}').catch(readHistory); // the last cut can be later than the loop
const {{ events }} = await readHistory();
await loop;
const isInOrder = (numbers) => numbers.every((number, index) => number === index);
console.log('in order', isInOrder(received), isInOrder(events.map(({{ data }}) => data)));
console.log('published', events.length, 'received', received.length);
client.close();
""")
    for number in range(0, 60, 5):
        program.prints(f"^round {number}$")
        proxy.cut()
    assert expect_end(program)[-2:] == ["in order true true", "published 600 received 600"]


def test_node_reads_what_only_the_directory_has(start, node):
    """After kill -9, in one answer that is longer than a frame."""
    server = start("--state", "state", "--history-events", "5")
    program = f"""
import {{ connect }} from 'sockbridge';
const client = connect('{server.page}ws');
await client.ping();
await Promise.all(Array.from({{ length: 2000 }}, (_, number) => client.publish('kitchen', 'x'.repeat(100) + number)));
client.close();
"""
    expect_end(node(program))
    server.kill()
    server = start.again(server, "--state", "state", "--history-events", "5")
    program = f"""
import {{ connect }} from 'sockbridge';
const client = connect('{server.page}ws');
const print = async (options) => {{
  const {{ events, lost, offset }} = await client.history('kitchen', options);
  const isWhole = events.every((event, index) => event.offset === events[0].offset + index);
  console.log(events.length, events[0].offset, isWhole, lost, offset);
}};
for (const after of [0, '-1h', 1990]) await print({{ after }});
for (const options of [{{ last: 30 }}, {{ before: 1000, last: 2 }}, {{}}]) await print(options);
client.close();
"""
    assert expect_end(node(program)) == [
        "2000 1 true undefined 2000",
        "2000 1 true undefined 2000",
        "10 1991 true undefined 2000",
        "30 1971 true undefined 2000",
        "2 998 true undefined 2000",
        "5 1996 true undefined 2000",
    ]


def test_node_falls_back_to_the_stream_if_websockets_are_blocked(blocking_proxy, node, channel):
    program = node(talk(blocking_proxy.page, channel, *WEBSOCKET))
    expect_end(program)
    expect_exchange(program, "stream")


def test_reports_a_restart_on_the_stream(start, node, line_client):
    server = start()
    waiting = "client.addEventListener('waiting', ({ detail }) => console.log('waiting', detail.code));"
    lost = """client.subscribe('garden', ({ data }) => console.log('garden', data), {
        last: 1, onLost: ({ reason }) => console.log('lost', reason), onSubscribed: () => console.log('subscribed'),
    });"""
    program = node(talk(server.page, "kitchen", "{ transport: 'stream', longestDelay: 1000 }", more=waiting + lost))
    expect_exchange(program, "stream")
    program.prints("^subscribed$")
    server.stop()
    program.prints("^waiting 1001$")
    second = start.again(server)
    program.prints("^lost epoch$")
    line_client(second.lines[0]).request("PUB garden after")
    program.prints("^garden after$")


@pytest.mark.parametrize("how", [WEBSOCKET, STREAM], ids=["websocket", "stream"])
def test_moves_to_a_new_epoch_on_an_open_connection_and_when_it_resumes(failover_server, node, line_client, how):
    options, imports = how
    program = node(f"""
import {{ connect }} from 'sockbridge';
{imports}
function follow(name, position) {{
  const subscription = connect('{failover_server.page}ws', {options}).subscribe('kitchen', ({{ offset, data }}) => {{
    console.log(name, 'event', offset, data);
    if (name === 'first' && data === 'three') follow('second', {{ since: 1, epoch: former }});
  }}, {{
    ...position,
    onSubscribed: ({{ recovered, missed }}) => console.log(name, 'subscribed', recovered, missed),
    onLost: ({{ reason }}) => console.log(name, 'lost', reason),
    onReset: ({{ good, offset, epoch }}) => console.log(name, 'reset', good, offset, epoch === subscription.epoch),
  }});
  return subscription.ready;
}}
const {{ epoch: former }} = await follow('first', {{}});
""")
    program.prints("^first subscribed undefined 0$")
    typist = line_client(failover_server.lines[0])
    for line in ("kitchen one", "kitchen two", "failover now", "kitchen three"):
        typist.request(f"PUB {line}")
    program.prints("^second event 1 three$")
    assert program.output().splitlines() == [
        "first subscribed undefined 0",
        "first event 1 one",
        "first event 2 two",
        "first reset 1 0 true",
        "first event 1 three",
        "second reset 1 0 true",
        "second subscribed true 1",
        "second event 1 three",
    ]


@pytest.mark.parametrize(("transport", "how"), [("websocket", WEBSOCKET), ("stream", STREAM)])
def test_does_not_reconnect_after_an_administrator_disconnected_it(server, node, channel, transport, how):
    asking = f"""const gone = new URL(`/peers/${{client.peer.id}}?reason=too%20loud`, '{server.page}');
        fetch(gone, {{ method: 'DELETE' }}).then(({{ status }}) => console.log('answered', status));"""
    program = node(talk(server.page, channel, *how, asking))
    lines = expect_end(program)  # a closed client does not keep Node.js running
    assert {"closed 1008 disconnected by an administrator: too loud", "answered 204"} <= set(lines)
    expect_exchange(program, transport)


def test_package_contains_only_its_files(installation):
    held = {path.name for path in (installation / "node_modules" / "sockbridge").iterdir()}
    ours = {"sockbridge.js", "sockbridge.min.js", "sockbridge.d.ts", "stream.js"}
    assert held == ours | {"package.json", "README.md", "LICENSE"}
    for name in ours:
        served = CHECKOUT / "twistedsock" / "static" / name
        assert (installation / "node_modules" / "sockbridge" / name).read_bytes() == served.read_bytes()


@pytest.mark.parametrize("resolution", ["nodenext", "bundler"])
def test_types_are_found(installation, resolution):
    program = installation / "typed.mts"
    program.write_text(
        "import { connect, type State } from 'sockbridge';\n"
        "const state: State = connect('ws://127.0.0.1/ws').state;\n"
        "// @ts-expect-error: there is no such state\n"
        "const other: 'gone' = state;\n"
    )
    module = ["--module", "nodenext"] if resolution == "nodenext" else ["--module", "esnext"]
    compiler = CHECKOUT / "node_modules" / "typescript" / "bin" / "tsc"
    checks = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--types", ""]
    run_npm_or_node("node", compiler, *checks, *module, "--moduleResolution", resolution, program, folder=installation)


@pytest.mark.parametrize("transport", ["websocket", "stream"])
def test_chromium_uses_an_import_map(transport, start, line_client, installation, serve_folder, new_page):
    """The page has another origin, which the server allows."""
    origin = serve_folder(installation)
    server = start("--allow-origin", origin)
    typist = line_client(server.lines[0])
    typist.request("SUB kitchen")
    (installation / "page.html").write_text(f"""<!doctype html>
        <script type="importmap">{{ "imports": {{ "sockbridge": "/node_modules/sockbridge/sockbridge.js" }} }}</script>
        <p id="way"></p><p id="received"></p>
        <script type="module">
            import {{ connect }} from 'sockbridge';
            const show = (id, text) => {{ document.getElementById(id).textContent = text; }};
            const client = connect('{server.page}ws', {{ transport: '{transport}' }});
            client.addEventListener('open', ({{ detail }}) => show('way', detail.transport));
            client.subscribe('kitchen', ({{ data }}) => show('received', data), {{ echo: false }});
            client.publish('kitchen', 'from the page');
        </script>""")
    page = new_page()
    page.goto(f"{origin}/page.html")
    assert re.fullmatch(r"MSG kitchen 1 \w+ from the page", typist.receive())
    expect(page.locator("#way")).to_have_text(transport)
    typist.request("PUB kitchen from the line")
    expect(page.locator("#received")).to_have_text("from the line")


def test_page_works_if_websockets_are_blocked(server, blocking_proxy, line_client, new_page, channel):
    """The page publishes, receives and recovers events after an outage of the proxy."""
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(blocking_proxy.page)))
    page.goto(f"{blocking_proxy.page}#{channel}")
    expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=60_000)
    assert {"origin", "stream.js", "stream"} <= set(asked)
    typist = line_client(server.lines[0])
    typist.request(f"SUB {channel}")
    page.fill("#message", "lights on")
    page.click("#send")
    assert re.fullmatch(rf"MSG {channel} 1 \w+ lights on", typist.receive())
    typist.request(f"PUB {channel} 2")
    payloads = page.locator("#events .event .payload")
    expect(payloads).to_have_text(["lights on", "2"])

    blocking_proxy.stop()
    expect(page.locator("#state")).not_to_have_attribute("data-state", "open")
    for number in (3, 4):
        typist.request(f"PUB {channel} {number}")
    blocking_proxy.start()
    expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=60_000)
    expect(payloads).to_have_text(["lights on", "2", "3", "4"])


def test_rejected_origins_do_not_cause_additional_requests(server, serve_folder, tmp_path, new_page):
    """The delays grow as usual, because a rejection is not mistaken for a blocked WebSocket. The client says which
    option allows the origin."""
    (tmp_path / "refused.html").write_text("<!doctype html>")
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(server.page)))
    page.on("websocket", lambda one: asked.append("ws"))
    printed: list[str] = []
    page.on("console", lambda message: printed.append(message.text))
    origin = serve_folder(tmp_path)
    page.goto(f"{origin}/refused.html")
    outcome = page.evaluate(f"""import('{server.page}sockbridge.js').then(({{ connect }}) => new Promise((resolve) => {{
        const client = connect('{server.page}ws', {{ firstDelay: 50, random: () => 1 }});
        const waits = [];
        client.addEventListener('waiting', ({{ detail }}) => {{
            waits.push(detail.delay);
            if (waits.length === 5) {{ client.close(); resolve([waits, client.transport]); }}
        }});
    }}))""")
    assert outcome == [[50, 100, 200, 400, 800], "websocket"]
    assert asked.count("ws") == 5
    assert 1 <= asked.count("origin") <= 4
    assert asked.count("stream") == 0
    sentence = f"the server rejects pages of {origin}: start the server with --allow-origin {origin}"
    assert [text.splitlines()[0] for text in printed if "403" not in text] == [f"SockbridgeError: {sentence}"]


def test_page_of_another_origin_connects_after_the_server_was_restarted_as_the_client_said(
    start, serve_folder, tmp_path, new_page
):
    (tmp_path / "dashboard.html").write_text("<!doctype html><output id='said'></output> <output id='state'></output>")
    server = start()
    page = new_page()
    page.goto(f"{serve_folder(tmp_path).replace('127.0.0.1', 'localhost')}/dashboard.html")
    page.evaluate(f"""import('{server.page}sockbridge.js').then(({{ connect }}) => {{
        const show = (id, text) => {{ document.getElementById(id).textContent = text; }};
        const client = connect('{server.page}ws', {{ firstDelay: 50, longestDelay: 500 }});
        client.addEventListener('error', ({{ detail }}) => show('said', `${{detail.code}} ${{detail.message}}`));
        client.addEventListener('open', () => show('state', 'open'));
    }})""")
    expect(page.locator("#said")).to_have_text(re.compile("^origin .*: start the server with --allow-origin "))
    option, origin = page.locator("#said").inner_text().rpartition(" with ")[2].split(" ")
    assert origin == page.evaluate("location.origin")
    server.stop()
    start.again(server, option, origin)
    expect(page.locator("#state")).to_have_text("open", timeout=60_000)
