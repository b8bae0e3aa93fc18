"""The page at ``/`` in a real Chromium, with a line peer on the other side."""

import re
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.end_to_end

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page and what its console complained about; a refusal by the Content-Security-Policy stands there, too."""

    def __init__(self, context):
        context.set_default_timeout(20_000)
        self.page = context.new_page()
        self.complaints = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("requestfailed", lambda request: self._note("error", f"{request.url}: {request.failure}"))

    def _note(self, kind, text):
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def opens(self, url):
        self.page.goto(url)
        self.is_connected()
        return self.page

    def is_connected(self):
        # Coming back by itself, the page waits up to half a minute between two attempts.
        expect(self.page.locator("#state")).to_have_attribute("data-state", "open", timeout=60_000)


@pytest.fixture
def watch(chromium):
    """Open pages: ``watch(**options of the context)``. One that complains fails the test."""
    contexts, pages = [], []

    def watched(**options):
        contexts.append(chromium.new_context(**options))
        pages.append(Watched(contexts[-1]))
        return pages[-1]

    yield watched
    for context in contexts:
        context.close()
    assert [complaint for page in pages for complaint in page.complaints] == []


def row(page, offset):
    return page.locator(f'#events .event[data-offset="{offset}"]')


def publish(page, text):
    page.fill("#message", text)
    page.click("#send")


def test_what_is_said_at_either_end_appears_at_the_other(bridge, call, watch, channel):
    typist = call(bridge.lines[0])
    typist.ask(f"SUB {channel}")
    typist.ask("NICK ann")
    page = watch().opens(f"{bridge.page}#{channel}")
    expect(page.locator("#address-to")).to_have_text(bridge.page.removeprefix("http://").rstrip("/"))
    expect(page.locator("#address-from")).to_have_text(re.compile(r"127\.0\.0\.1:\d+"))

    typist.ask(f"PUB {channel} 21.5")
    typist.hear()
    expect(row(page, 1)).to_contain_text("ann")
    expect(row(page, 1).locator(".payload")).to_have_text("21.5")
    typist.ask(f'PUB {channel} <img src=x onerror="alert(1)"> & {{}}')
    typist.hear()
    expect(row(page, 2).locator(".payload")).to_have_text('<img src=x onerror="alert(1)"> & {}')

    publish(page, "lights on")
    assert re.fullmatch(rf"MSG {channel} 3 \w+ lights on", typist.hear())
    page.check("#format-json", force=True)
    publish(page, '{"celsius": 21.5}')
    assert re.fullmatch(rf'MSG {channel} 4 \w+ {{"celsius": ?21.5}}', typist.hear())
    page.fill("#event-name", "alarm")
    publish(page, "too hot")
    assert re.fullmatch(rf"EVENT {channel} 5 \w+ alarm too hot", typist.hear())
    expect(row(page, 5)).to_contain_text("alarm")


def test_who_is_there_is_shown_and_names_are_told(bridge, call, watch, channel):
    page = watch().opens(f"{bridge.page}#{channel}")
    members = page.locator(f'[data-members="{channel}"] li')
    expect(members).to_have_count(1)
    typist = call(bridge.lines[0])
    typist.ask("NICK ann")
    typist.ask(f"SUB {channel} presence=on")
    expect(members).to_have_count(2)
    expect(members.filter(has_text="ann")).to_have_count(1)

    page.fill("#nick", "bob")
    page.click("#nick-set")
    expect(members.filter(has_text="bob")).to_have_count(1)
    publish(page, "hello")
    assert typist.hear() == f"MSG {channel} 1 bob hello"

    typist.close()
    expect(members).to_have_count(1)
    other = watch().opens(f"{bridge.page}#{channel}")
    expect(members).to_have_count(2)
    other.context.close()
    expect(members).to_have_count(1)


def test_channels_are_added_and_left(bridge, call, watch, channel):
    page = watch().opens(f"{bridge.page}#{channel}")
    page.fill("#channel-add", f"{channel}-b")
    page.click("#channel-add-button")
    expect(page.locator("#channels > li")).to_have_count(2)
    typist = call(bridge.lines[0])
    typist.ask(f"PUB {channel}-b heard")
    expect(row(page, 1)).to_contain_text("heard")
    page.fill("#channel-add", "two words")
    page.click("#channel-add-button")
    expect(page.locator("#channel-add-fault")).not_to_be_empty()
    page.click(f'[data-channel="{channel}-b"] .remove')
    expect(page.locator("#channels > li")).to_have_count(1)
    typist.ask(f"PUB {channel}-b not heard")
    typist.ask(f"PUB {channel} heard again")
    expect(page.locator("#events .event").last).to_contain_text("heard again")
    expect(page.locator("#events")).not_to_contain_text("not heard")


def test_after_a_restart_of_the_server_the_page_is_back_and_says_what_it_cannot_know(start, call, watch):
    first = start()
    watched = watch()
    page = watched.opens(f"{first.page}#kitchen")
    call(first.lines[0]).ask("PUB kitchen before")
    expect(row(page, 1)).to_contain_text("before")
    first.stop()
    expect(page.locator("#state")).not_to_have_attribute("data-state", "open")

    port = first.page.rstrip("/").split(":")[2]
    second = start(web=(f"tcp:{port}:interface=127.0.0.1",))
    watched.is_connected()
    expect(page.locator("#events")).to_contain_text("begun anew")
    call(second.lines[0]).ask("PUB kitchen after")
    expect(page.locator("#events .event").last).to_contain_text("after")
    # The browser itself writes down each attempt that failed.
    watched.complaints[:] = [words for words in watched.complaints if "ERR_CONNECTION_REFUSED" not in words]


def test_after_an_outage_the_page_shows_what_it_missed(bridge, call, watch, channel, proxy):
    watched = watch()
    page = watched.opens(f"http://127.0.0.1:{proxy.port}/#{channel}")
    typist = call(bridge.lines[0])
    typist.ask(f"PUB {channel} 1")
    expect(row(page, 1)).to_be_visible()
    proxy.is_broken(True)
    expect(page.locator("#state")).not_to_have_attribute("data-state", "open")
    for number in range(2, 5):
        typist.ask(f"PUB {channel} {number}")
    proxy.is_broken(False)
    watched.is_connected()
    typist.ask(f"PUB {channel} 5")
    expect(page.locator("#events .event .payload")).to_have_text(["1", "2", "3", "4", "5"])
    watched.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways(bridge, call, watch, channel, scheme):
    watched = watch(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme=scheme)
    page = watched.opens(f"{bridge.page}#{channel}")
    typist = call(bridge.lines[0])
    typist.ask(f"PUB {channel} {'wide' * 200}")
    typist.ask(f'PUB {channel} {{"deep": {{"wide": "{"x" * 500}"}}}}')
    expect(row(page, 2)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#panel-toggle")
    expect(page.locator("#channel-add")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_page_of_another_origin_may_import_the_client_but_not_connect(bridge, watch, stranger):
    watched = watch()
    watched.page.goto(stranger)
    client = f"import('{bridge.page}sockbridge.js')"
    assert watched.page.evaluate(f"{client}.then((module) => typeof module.connect)") == "function"
    outcome = watched.page.evaluate(
        f"""new Promise((resolve) => {{
            const socket = new WebSocket('{bridge.page.replace("http", "ws")}ws');
            socket.onopen = () => resolve('open');
            socket.onclose = () => resolve('refused');
        }})"""
    )
    assert outcome == "refused"
    assert f"refused a WebSocket of origin '{stranger}'; --allow-origin would allow it" in bridge.log()
    assert len(watched.complaints) == 1
    assert "403" in watched.complaints.pop()


@pytest.fixture
def stranger():
    """The origin of an empty page that somebody else serves."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b'<!doctype html><link rel="icon" href="data:,">')

        def log_message(self, *arguments):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


class Proxy:
    """A line between the page and the server that can be cut."""

    def __init__(self, target):
        self._target = target
        self._broken = False
        self._connections = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def is_broken(self, broken):
        self._broken = broken
        if broken:
            self._cut()

    def close(self):
        self._broken = True
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._cut()

    def _cut(self):
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def _accept(self):
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self._broken:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._connections += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(bridge):
    host, port = bridge.page.removeprefix("http://").rstrip("/").split(":")
    proxy = Proxy((host, int(port)))
    yield proxy
    proxy.close()
