"""The JavaScript client outside of our own page: installed as npm would have it, in Node and in Chromium; and all of it
where nothing lets a WebSocket through."""

import functools
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.end_to_end

CHECKOUT = Path(__file__).parent.parent.parent
CHROMIUM = "/usr/bin/chromium"
WS = (CHECKOUT / "node_modules" / "ws" / "wrapper.mjs").as_uri()
"""A WebSocket for versions of Node that have none."""

TALK = """
import {{ connect }} from 'sockbridge';
{imports}
const client = connect('{page}ws', {options});
client.addEventListener('open', ({{ detail }}) => console.log('open', detail.transport, client.transport));
client.addEventListener('closed', ({{ detail }}) => console.log('closed', detail.code, detail.reason));
let heardAll;
const heard = new Promise((resolve) => {{ heardAll = resolve; }});
const subscription = client.subscribe('{channel}', ({{ offset, data }}) => {{
  console.log('event', offset, JSON.stringify(data));
  if (offset === 21) heardAll();
}}, {{ last: 10 }});
const {{ epoch }} = await subscription.ready;
console.log('published', await client.publish('{channel}', {{ greeting: 'grüß dich 😀' }}));
for (let number = 1; number <= 20; number += 1) client.publish('{channel}', number);
console.log('members', (await client.who('{channel}')).length, typeof epoch, (await client.ping()) >= 0);
await heard;
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
    # It has no dependencies, so nothing has to be fetched.
    run("npm", "install", "--offline", "--no-audit", "--no-fund", archive, folder=folder)
    return folder


class Program:
    """A running program of Node's, and what it has printed so far."""

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
        except AssertionError as fault:
            raise AssertionError(f"{line!r} from a program that printed {self.printed()}") from fault

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def node(installation: Path, tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[Callable[[str], Program]]:
    """Start a program in the folder with the package."""
    programs: list[Program] = []

    def starting(text: str) -> Program:
        output = tmp_path / f"{tmp_path.name}-{len(programs)}"
        programs.append(Program(installation, output, text, eventually))
        return programs[-1]

    yield starting
    for program in programs:
        program.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


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


def talk(page: str, channel: str, options: str = "{}", imports: str = "", more: str = "client.close();") -> str:
    return TALK.format(page=page, channel=channel, options=options, imports=imports) + more


def has_talked(program: Program, transport: str) -> None:
    program.prints(f"open {transport} {transport}")
    program.prints('event 1 {"greeting":"grüß dich 😀"}')
    program.prints("published 1")
    program.prints("members 1 string true")
    assert program.printed().index('event 1 {"greeting":"grüß dich 😀"}') > 0
    numbers = [line.split() for line in program.printed() if line.startswith("event ")][1:]
    assert [int(data) for _, _, data in numbers] == [*range(1, 21)]
    assert [int(offset) for _, offset, _ in numbers] == [*range(2, 22)]


def test_in_node_over_a_websocket(bridge: Any, node: Any, channel: str) -> None:
    program = node(talk(bridge.page, channel, "{ WebSocket }", f"import {{ WebSocket }} from '{WS}';"))
    assert program.process.wait(20) == 0, program.printed()
    has_talked(program, "websocket")
    assert program.printed()[-1] == "closed 1000 closed by this client"


@pytest.mark.parametrize("resolution", ["nodenext", "bundler"])
def test_its_types_are_found(installation: Path, resolution: str) -> None:
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
    """Where a plain web server shows the folder with the package."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=installation)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("transport", ["websocket"])
def test_in_chromium_by_an_import_map(
    transport: str, start: Any, call: Any, installation: Path, folder_served: str, new_page: Any
) -> None:
    """From another origin, which the bridge allows."""
    bridge = start("--allow-origin", folder_served)
    typist = call(bridge.lines[0])
    typist.ask("SUB kitchen")
    (installation / "page.html").write_text(f"""<!doctype html>
        <link rel="icon" href="data:,">
        <script type="importmap">{{ "imports": {{ "sockbridge": "/node_modules/sockbridge/sockbridge.js" }} }}</script>
        <p id="way"></p><p id="heard"></p>
        <script type="module">
            import {{ connect }} from 'sockbridge';
            const show = (id, text) => {{ document.getElementById(id).textContent = text; }};
            const client = connect('{bridge.page}ws', {{ transport: '{transport}' }});
            client.addEventListener('open', ({{ detail }}) => show('way', detail.transport));
            client.subscribe('kitchen', ({{ data }}) => show('heard', data), {{ echo: false }});
            client.publish('kitchen', 'from the page');
        </script>""")
    page = new_page()
    page.goto(f"{folder_served}/page.html")
    assert re.fullmatch(r"MSG kitchen 1 \w+ from the page", typist.hear())
    expect(page.locator("#way")).to_have_text(transport)
    typist.ask("PUB kitchen from the line")
    expect(page.locator("#heard")).to_have_text("from the line")


def test_a_page_of_a_refused_origin_asks_no_more_often(
    bridge: Any, folder_served: str, installation: Path, new_page: Any
) -> None:
    """It takes its tries by the growing waits: that the bridge refuses it is not taken for a blocked WebSocket."""
    (installation / "refused.html").write_text("<!doctype html><link rel='icon' href='data:,'>")
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(bridge.page)))
    page.on("websocket", lambda one: asked.append("ws"))
    page.goto(f"{folder_served}/refused.html")
    outcome = page.evaluate(f"""import('{bridge.page}sockbridge.js').then(({{ connect }}) => new Promise((resolve) => {{
        const client = connect('{bridge.page}ws', {{ firstDelay: 50, random: () => 1 }});
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
