"""Tests of the JavaScript client, installed by npm, in Node.js and Chromium, with WebSockets open and blocked."""

import functools
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.end_to_end

CHECKOUT = Path(__file__).parent.parent.parent
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


def run(*command: str | Path, folder: Path) -> str:
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
    run("npm", "pack", "--pack-destination", source, folder=source / "clients" / "js")
    (archive,) = source.glob("*.tgz")
    # Works offline, because the package has no dependencies.
    run("npm", "install", "--offline", "--no-audit", "--no-fund", archive, folder=folder)
    return folder


class Program:
    """A running Node.js program and its output."""

    def __init__(self, folder: Path, output: Path, text: str, eventually: Callable[..., Any]) -> None:
        file = folder / f"{output.name}.mjs"
        file.write_text(text)
        self._output, self._eventually = output, eventually
        with output.open("wb") as printed:
            self.process = subprocess.Popen(["node", file], cwd=folder, stdout=printed, stderr=printed)

    def printed(self) -> list[str]:
        return self._output.read_text().splitlines()

    def prints(self, line: str) -> None:
        def has() -> bool:
            return line in self.printed()

        try:
            self._eventually(has, line)
        except AssertionError as error:
            raise AssertionError(f"{line!r} from a program that printed {self.printed()}") from error

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def node(installation: Path, tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Callable[[str], Program]]:
    """Start a Node.js program in the folder with the package."""
    programs: list[Program] = []

    def starting(text: str) -> Program:
        output = tmp_path / f"{tmp_path.name}-{len(programs)}"
        programs.append(Program(installation, output, text, eventually))
        return programs[-1]

    yield starting
    for program in programs:
        program.stop()


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

    def __init__(self, folder: Path, page: str, eventually: Callable[..., Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self.port = unused.getsockname()[1]
        self.page = f"http://127.0.0.1:{self.port}/"
        self._folder, self._eventually = folder, eventually
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (folder / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; error_log stderr; pid {folder}/nginx.pid;
            events {{ worker_connections 100; }}
            http {{
                access_log off;
                {"".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)}
                server {{
                    listen 127.0.0.1:{self.port};
                    location / {{ proxy_pass {page}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
                }}
            }}
        """)
        self.start()

    def start(self) -> None:
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert nginx, "nginx is missing: run tools/install-commands"
        with (self._folder / "nginx-log").open("ab") as log:
            command = [nginx, "-p", self._folder, "-c", self._folder / "nginx.conf"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def listens() -> bool:
            assert self.process.poll() is None, (self._folder / "nginx-log").read_text()
            with socket.socket() as trial:
                return trial.connect_ex(("127.0.0.1", self.port)) == 0

        self._eventually(listens, "nginx to listen")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def blocking_proxy(server: Any, tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[BlockingProxy]:
    proxy = BlockingProxy(tmp_path, server.page, eventually)
    yield proxy
    proxy.stop()


def talk(page: str, channel: str, options: str = "{}", imports: str = "", more: str = "client.close();") -> str:
    return TALK.format(page=page, channel=channel, options=options, imports=imports) + more


def expect_exchange(program: Program, transport: str) -> None:
    program.prints(f"open {transport} {transport}")
    program.prints('event 1 {"greeting":"grüß dich 😀"}')
    program.prints("published 1")
    program.prints("members 1 string true")
    assert program.printed().index('event 1 {"greeting":"grüß dich 😀"}') > 0
    numbers = [line.split() for line in program.printed() if line.startswith("event ")][1:]
    assert [int(data) for _, _, data in numbers] == [*range(1, 21)]
    assert [int(offset) for _, offset, _ in numbers] == [*range(2, 22)]


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
def test_programs_of_the_documentation(server: Any, node: Any, channel: str, page: str, printed: list[str]) -> None:
    """Runs them unchanged with the installed Node.js."""
    programs = re.findall(r"^```js\n(.*?)^```$", (CHECKOUT / page).read_text(), re.DOTALL | re.MULTILINE)
    (text,) = [program for program in programs if "from 'sockbridge'" in program]
    text = text.replace("ws://127.0.0.1:8082/", server.page.replace("http", "ws")).replace("kitchen", channel)
    program = node(text)
    assert program.process.wait(20) == 0, program.printed()
    for pattern in printed:
        assert re.search(f"^{pattern}$", "\n".join(program.printed()), re.MULTILINE), program.printed()


def test_node_uses_websocket(server: Any, node: Any, channel: str) -> None:
    program = node(talk(server.page, channel, "{ WebSocket }", f"import {{ WebSocket }} from '{WS}';"))
    assert program.process.wait(20) == 0, program.printed()
    expect_exchange(program, "websocket")
    assert program.printed()[-1] == "closed 1000 closed by this client"


def test_node_reports_errors_and_replaces_lone_surrogates(server: Any, node: Any, channel: str) -> None:
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
    program.prints(f"{fields} 1")
    program.prints("time true true")
    assert program.process.wait(20) == 0
    printed = program.printed()
    assert printed[:2] == ["connecting undefined undefined", "open undefined undefined"]
    assert {"error bad-channel a b", "published 1", f"{fields} cut \ufffd here"} <= set(printed)


def test_node_uses_the_stream(server: Any, node: Any, channel: str) -> None:
    program = node(talk(server.page, channel, "{ transport: 'stream' }"))
    assert program.process.wait(20) == 0, program.printed()
    expect_exchange(program, "stream")
    assert program.printed()[-1] == "closed 1000 closed by this client"


def test_node_falls_back_to_the_stream_if_websockets_are_blocked(
    blocking_proxy: BlockingProxy, node: Any, channel: str
) -> None:
    program = node(talk(blocking_proxy.page, channel, "{ WebSocket }", f"import {{ WebSocket }} from '{WS}';"))
    assert program.process.wait(20) == 0, program.printed()
    expect_exchange(program, "stream")


def test_reports_a_restart_on_the_stream(start: Any, node: Any, line_client: Any) -> None:
    server = start()
    waiting = "client.addEventListener('waiting', ({ detail }) => console.log('waiting', detail.code));"
    lost = """client.subscribe('garden', ({ data }) => console.log('garden', data), {
        last: 1, onLost: ({ reason }) => console.log('lost', reason), onSubscribed: () => console.log('subscribed'),
    });"""
    program = node(talk(server.page, "kitchen", "{ transport: 'stream', longestDelay: 1000 }", more=waiting + lost))
    expect_exchange(program, "stream")
    program.prints("subscribed")
    port = server.page.rstrip("/").rpartition(":")[2]
    server.stop()
    program.prints("waiting 1001")
    second = start(web=(f"tcp:{port}:interface=127.0.0.1",))
    program.prints("lost epoch")
    line_client(second.lines[0]).request("PUB garden after")
    program.prints("garden after")


@pytest.mark.parametrize(
    ("transport", "options", "imports"),
    [
        ("websocket", "{ WebSocket }", f"import {{ WebSocket }} from '{WS}';"),
        ("stream", "{ transport: 'stream' }", ""),
    ],
)
def test_does_not_reconnect_after_an_administrator_disconnected_it(
    server: Any, node: Any, channel: str, transport: str, options: str, imports: str
) -> None:
    asking = f"""const gone = new URL(`/peers/${{client.peer.id}}?reason=too%20loud`, '{server.page}');
        fetch(gone, {{ method: 'DELETE' }}).then(({{ status }}) => console.log('answered', status));"""
    program = node(talk(server.page, channel, options, imports, asking))
    program.prints("closed 1008 disconnected by an administrator: too loud")
    assert program.process.wait(20) == 0, "a closed client keeps Node.js running"
    expect_exchange(program, transport)
    assert "answered 204" in program.printed()


def test_package_contains_only_its_files(installation: Path) -> None:
    held = {path.name for path in (installation / "node_modules" / "sockbridge").iterdir()}
    ours = {"sockbridge.js", "sockbridge.d.ts", "stream.js"}
    assert held == ours | {"package.json", "README.md", "LICENSE"}
    for name in ours:
        served = CHECKOUT / "twistedsock" / "static" / name
        assert (installation / "node_modules" / "sockbridge" / name).read_bytes() == served.read_bytes()


@pytest.mark.parametrize("resolution", ["nodenext", "bundler"])
def test_types_are_found(installation: Path, resolution: str) -> None:
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
    run("node", compiler, *checks, *module, "--moduleResolution", resolution, program, folder=installation)


@pytest.fixture
def folder_served(installation: Path) -> Iterator[str]:
    """The origin of a web server with the folder of the package."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=installation)) as web_server:
        threading.Thread(target=web_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web_server.server_port}"
        web_server.shutdown()


@pytest.mark.parametrize("transport", ["websocket", "stream"])
def test_chromium_uses_an_import_map(
    transport: str, start: Any, line_client: Any, installation: Path, folder_served: str, new_page: Any
) -> None:
    """The page has another origin, which the server allows."""
    server = start("--allow-origin", folder_served)
    typist = line_client(server.lines[0])
    typist.request("SUB kitchen")
    (installation / "page.html").write_text(f"""<!doctype html>
        <link rel="icon" href="data:,">
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
    page.goto(f"{folder_served}/page.html")
    assert re.fullmatch(r"MSG kitchen 1 \w+ from the page", typist.receive())
    expect(page.locator("#way")).to_have_text(transport)
    typist.request("PUB kitchen from the line")
    expect(page.locator("#received")).to_have_text("from the line")


def test_page_works_if_websockets_are_blocked(
    server: Any, blocking_proxy: BlockingProxy, line_client: Any, new_page: Any, channel: str
) -> None:
    """The page publishes, receives and recovers events after an outage of the proxy."""
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(blocking_proxy.page)))
    page.goto(f"{blocking_proxy.page}#{channel}")
    expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=60_000)
    assert {"healthz", "stream.js", "stream"} <= set(asked)
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


def test_rejected_origins_do_not_cause_additional_requests(
    server: Any, folder_served: str, installation: Path, new_page: Any
) -> None:
    """The delays grow as usual, because a rejection is not mistaken for a blocked WebSocket."""
    (installation / "refused.html").write_text("<!doctype html><link rel='icon' href='data:,'>")
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(server.page)))
    page.on("websocket", lambda one: asked.append("ws"))
    page.goto(f"{folder_served}/refused.html")
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
    assert asked.count("healthz") <= 4
    assert "stream" not in asked
