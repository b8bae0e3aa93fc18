"""The console at ``/console`` in a real Chromium: each thing that a person can do there, beside real peers."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.end_to_end.conftest import TIMEOUT_SECONDS, Starter
from tests.issuer import AUDIENCE

pytestmark = pytest.mark.end_to_end

PAGE = 100
"""Rows in the document at most."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A bridge whose peers and channels no other module touches."""
    starter = Starter(tmp_path_factory.mktemp("busy"))
    yield starter()
    starter.stop_all()


@pytest.fixture
def visit(busy, open_page):
    """Open a view of the console: ``visit("#/peers", **options of the context)``."""

    def visiting(hash="", **options):
        return open_page(**options).opens(f"{busy.page}console{hash}")

    return visiting


def fact(page, name):
    """The words beside one of the facts."""
    return page.locator(f'.view:visible dt:text-is("{name}") + dd')


def rows(page):
    return page.locator(".view:visible tbody tr")


def row(page, name):
    return rows(page).filter(has=page.locator(f'a:text-is("{name}")'))


def number(text):
    return float(re.sub(r"[^\d.].*", "", text.replace(",", "")))


def heading(page):
    return page.locator(".view:visible h1")


# ---- the overview ----


def test_figures_and_charts_move(visit, busy, line_client, channel):
    page = visit()
    publisher, reader = line_client(busy.lines[0]), line_client(busy.lines[0])
    reader.request(f"SUB {channel}")
    charts = page.locator("figure.chart")
    expect(charts).to_have_count(8)
    expect(charts.locator("canvas")).to_have_count(8)
    before = number(fact(page, "Published").inner_text())
    for count in range(50):
        publisher.request(f"PUB {channel} {count}")
    expect(fact(page, "Published")).not_to_have_text(str(int(before)))
    peers = charts.filter(has_text="Peers")
    expect(peers.locator(".range")).to_contain_text("5 min: lines")
    assert number(fact(page, "Peers").inner_text()) >= 3
    # The line of the chart has been drawn: some of its points are not transparent.
    drawn = """(canvas) => {
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value, index) => index % 4 === 3 && value);
    }"""
    assert all(canvas.evaluate(drawn) for canvas in charts.locator("canvas").all())
    # Every chart tells what was then, where one is pointed at.
    plot = charts.first.locator(".u-over")
    plot.hover(position={"x": plot.bounding_box()["width"] - 3, "y": 20})
    expect(charts.nth(3).locator(".range")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))


def test_whoever_leaves_is_told_with_the_reason(visit, busy, line_client):
    page = visit()
    expect(page.locator("#charts")).to_be_visible()
    peer = line_client(busy.lines[0])
    peer.send("QUIT")
    peer.receive_rest()
    peer.close()
    left = page.locator("#disconnects-list li").filter(has_text=peer.id)
    expect(left).to_contain_text("lines, 127.0.0.1:")
    expect(left).to_contain_text("it left (QUIT)")


def test_whoever_left_before_the_console_was_opened_is_listed_by_name_and_leads_to_a_timeline(visit, busy, line_client):
    peer = line_client(busy.lines[0])
    peer.request("NICK early")
    peer.request("SUB kitchen")
    peer.send("QUIT")
    peer.receive_rest()
    peer.close()
    page = visit()
    left = page.locator("#disconnects-list li").filter(has_text=peer.id)
    left.get_by_role("link", name="early").click()
    expect(heading(page)).to_have_text("early")
    expect(page.locator("#peer-state")).to_have_text("gone")
    expect(page.locator("#steps .step-title")).to_have_text(["Accepted", "Open", "Closing, by the peer", "Closed"])
    expect(fact(page, "Channels")).to_have_text("1")
    expect(page.locator("#disconnect")).to_be_hidden()


def test_where_nobody_is_the_console_says_what_to_type(start, open_page, line_client):
    server = start()
    page = open_page().opens(f"{server.page}console")
    host, port = server.lines[0].split(":")
    expect(page.locator("#idle-lines")).to_contain_text(f"telnet {host} {port}")
    page.click('a[data-nav="channels"]')
    expect(page.locator("#channels-empty-title")).to_have_text("No channels yet")
    expect(page.locator("#channels-lines")).to_contain_text("SUB kitchen")
    line_client(server.lines[0]).request("SUB kitchen")
    expect(row(page, "kitchen")).to_be_visible()
    page.click('a[data-nav="overview"]')
    expect(page.locator("#idle")).to_be_hidden()


# ---- channels ----


def test_ten_thousand_channels_are_ordered_found_and_paged(start, open_page, line_client):
    server = start()
    publisher = line_client(server.lines[0])
    for first in range(0, 10_000, 500):
        publisher.send(*(f"PUB many/{count:05d} x" for count in range(first, first + 500)))
        for _ in range(500):
            assert publisher.receive() == "OK 1"
    reader = line_client(server.lines[0])
    reader.request("SUB many/04321")

    page = open_page().opens(f"{server.page}console#/channels?order=name")
    expect(page.locator("#channels-total")).to_have_text("1 to 100 of 10,000 channels")
    expect(rows(page)).to_have_count(PAGE)
    names = page.locator(".view:visible tbody a").all_inner_texts()
    assert names == sorted(names)
    expect(page.locator('th[aria-sort="ascending"]')).to_have_text("Channel")
    expect(page.locator(".view:visible caption")).to_have_text("channels, by name, page 1")

    page.click("text=Next →")
    expect(page.locator("#channels-total")).to_contain_text("101 to 200 of 10,000")
    expect(page).to_have_url(re.compile(r"#/channels\?order=name&page=2$"))
    assert page.locator(".view:visible tbody a").first.inner_text() > names[-1]
    page.go_back()
    expect(page.locator("#channels-total")).to_contain_text("1 to 100 of 10,000")
    page.go_forward()
    expect(page.locator("#channels-pager")).to_contain_text("Page 2 of 10")

    page.click("th >> text=Readers")
    expect(page).to_have_url(re.compile(r"#/channels\?order=readers$"))
    expect(page.locator('th[aria-sort="descending"]')).to_have_text("Readers")
    expect(row(page, "many/04321").locator("td").nth(1)).to_have_text("1")
    expect(row(page, "many/04321").locator("td").nth(5)).to_have_text("1")

    page.keyboard.press("/")
    expect(page.locator("#channels-find")).to_be_focused()
    page.keyboard.type("ny/0432")
    expect(rows(page)).to_have_count(10)
    expect(page.locator("#channels-total")).to_have_text("10 channels found")
    page.fill("#channels-find", "not there")
    expect(page.locator("#channels-empty-text")).to_have_text("No name has a space.")
    page.fill("#channels-find", "not-there")
    expect(page.locator("#channels-empty-title")).to_have_text("Nothing found for “not-there”")
    page.fill("#channels-find", "")
    expect(rows(page)).to_have_count(PAGE)


WIDTHS = [390, 421, 500, 560, 561, 700, 760, 761, 850, 930, 1000, 1100, 1180, 1181, 1280, 1700]

CLIPPED = """(selector) => [...document.querySelectorAll(selector)]
  .filter((cell) => cell.scrollWidth > cell.clientWidth)
  .map((cell) => `${cell.className}: ${cell.textContent}`)"""


def test_no_figure_is_cut_at_any_width_and_names_get_the_room_that_is_left(visit, busy, line_client, channel):
    """Columns that shared the width equally showed `…` for a rate, and cut names beside empty room."""
    name = f"{channel}/" + "first-floor/kitchen/fridge/celsius/minimum"[: 70 - len(channel)]
    publisher, reader = line_client(busy.lines[0]), line_client(busy.lines[0])
    reader.request(f"SUB {name}")
    publisher.send("QUIET on", *[f"PUB {name} {number}" for number in range(12_000)], "PING")
    publisher.receive_until("PONG")
    page = visit(f"#/channels?find={channel.split('[')[0]}")
    expect(row(page, name)).to_be_visible()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(CLIPPED, "#channels-box :is(th, td:not(.name))") == [], width
        if width >= 1280:
            assert page.evaluate(CLIPPED, "#channels-box td.name a") == [], width
    page.goto(f"{busy.page}console#/peers")
    expect(row(page, reader.id)).to_be_visible()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(CLIPPED, "#peers-box :is(th, td):is(.number, .state-cell, .dialect)") == [], width


def test_what_has_the_focus_keeps_it_while_the_list_is_drawn_anew(visit, busy, line_client, channel):
    publisher = line_client(busy.lines[0])
    names = [f"{channel}/{letter}" for letter in "abc"]
    for name in names:
        publisher.request(f"PUB {name} 0")
    page = visit(f"#/channels?find={channel}/")
    link = row(page, names[1]).locator("a")
    link.focus()
    for turn in range(3):
        busiest = names[turn]
        publisher.send(*(f"PUB {busiest} {count}" for count in range(200 * (turn + 1))))
        expect(rows(page).first.locator("a")).to_have_text(busiest)
        expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(heading(page)).to_have_text(names[1])
    expect(heading(page)).to_be_focused()


# ---- a channel ----


def test_a_channel_tells_what_is_said_and_takes_what_one_says(visit, busy, line_client, channel):
    typist = line_client(busy.lines[0])
    typist.request("NICK ann")
    typist.request(f"SUB {channel}")
    typist.request(f"PUB {channel} before")
    typist.receive()
    page = visit(f"#/channels?find={channel}")
    row(page, channel).locator("a").click()
    events = page.locator("#events .event")
    expect(events).to_have_count(1)
    expect(events.first).to_contain_text("before")
    typist.request(f'PUB {channel} {{"celsius": 21.5}}')
    typist.receive()
    expect(events.nth(1)).to_contain_text("ann")
    expect(events.nth(1).locator(".payload")).to_have_text('{"celsius": 21.5}')

    assert page.locator("#message").bounding_box()["height"] > 30
    page.fill("#message", "lights on")
    page.click("#send")
    assert re.fullmatch(rf"MSG {channel} 3 \w+ lights on", typist.receive())
    page.fill("#event-name", "alarm")
    page.fill("#message", "too hot")
    page.keyboard.press("Enter")
    assert re.fullmatch(rf"EVENT {channel} 4 \w+ alarm too hot", typist.receive())

    expect(fact(page, "Readers")).to_have_text("2")
    expect(fact(page, "Newest event")).to_have_text("4")
    expect(fact(page, "In the log")).to_contain_text("4 events")
    expect(page.locator("#members-count")).to_have_text("2")
    expect(page.locator("#members")).to_contain_text("ann")
    page.fill("#history-since", "2")
    page.click("#history-show")
    expect(page.locator("#history .history-row")).to_have_count(2)
    expect(page.locator("#history-summary")).to_have_text("Numbers 3 to 4 of 4.")
    page.fill("#history-since", "")
    page.click("#history-show")
    expect(page.locator("#history .history-row")).to_have_count(4)
    page.fill("#history-since", "many")
    page.click("#history-show")
    expect(page.locator("#history-error")).to_have_text("A number, please.")

    # Another channel has nothing of this one.
    page.evaluate(f"location.hash = '#/channels/{channel}-b'")
    expect(events).to_have_count(0)
    expect(page.locator("#empty-title")).to_have_text(f"All quiet on {channel}-b")
    typist.request(f"PUB {channel} unheard")
    typist.receive()
    typist.request(f"PUB {channel}-b heard")
    expect(events).to_have_count(1)
    expect(events).to_contain_text("heard")
    page.locator("#members").get_by_role("link").first.click()
    expect(page.locator("#peer-state")).to_contain_text("this console")


def test_a_flood_is_thinned_and_counted(visit, busy, line_client, channel):
    page = visit(f"#/channels/{channel}")
    expect(page.locator("#members-count")).to_have_text("1")
    publisher = line_client(busy.lines[0])
    for _ in range(10):
        publisher.send(*(f"PUB {channel} {count}" for count in range(2000)))
        for _ in range(2000):
            publisher.receive()
    publisher.request(f"PUB {channel} the last one")
    expect(page.locator("#events .event").last).to_contain_text("the last one", timeout=40_000)
    expect(page.locator("#event-count")).to_contain_text("not drawn")
    assert page.locator("#events > li").count() <= 500


# ---- the snippets ----


def snippets(page, kind):
    """The pieces of one kind, as they are when they have been copied."""
    page.locator(f'#snippet-kinds input[value="{kind}"]').check(force=True)
    pieces = page.locator(f'.snippet[data-kind="{kind}"]')
    expect(pieces.first).to_be_visible()
    texts = []
    for piece in pieces.all():
        piece.get_by_role("button", name="Copy").click()
        expect(piece.get_by_role("button")).to_have_text("Copied")
        texts.append(page.evaluate("navigator.clipboard.readText()"))
    return texts


class Running:
    """A program, what it prints, and an end of it."""

    def __init__(self, command, **how):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        # A session of its own: a shell's children end with it.
        self.process = subprocess.Popen(command, text=True, start_new_session=True, **pipes, **how)
        self.deadline = threading.Timer(TIMEOUT_SECONDS, self.end)
        self.deadline.start()

    def prints(self, pattern):
        printed = []
        for line in self.process.stdout:
            printed.append(line)
            if re.search(pattern, line):
                return
        raise AssertionError(f"{pattern} was not printed, but {printed}")

    def end(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.deadline.cancel()
        self.end()
        self.process.communicate()


@pytest.fixture
def copied(visit, busy, line_client, channel):
    """``copied(kind)``: the pieces that were copied, and a line peer that hears what they publish."""
    reader = line_client(busy.lines[0])
    reader.request(f"SUB {channel}")

    def copying(kind):
        page = visit(f"#/channels/{channel}", permissions=["clipboard-read", "clipboard-write"])
        return snippets(page, kind)

    copying.reader = reader
    return copying


def test_what_is_typed_into_telnet_reads_and_publishes(copied, channel):
    command, *typed = copied("telnet")[0].split("\n")
    with Running(shlex.split(command)) as telnet:
        telnet.prints("WELCOME")
        telnet.process.stdin.write("".join(f"{line}\n" for line in typed))
        telnet.process.stdin.flush()
        telnet.prints(rf"MSG {channel} 1 \w+ 21.5")
    assert re.fullmatch(rf"MSG {channel} 1 \w+ 21.5", copied.reader.receive())


def test_the_lines_for_nc_read_and_publish(copied, channel):
    read, publish = copied("nc")
    with Running(["sh", "-c", read]) as reading:
        reading.prints(rf"OK {channel}")
        subprocess.run(["sh", "-c", publish], check=True, timeout=20)
        reading.prints(rf"MSG {channel} 1 \w+ 21.5")


def test_the_lines_for_curl_publish_and_read(copied, channel):
    publish, read = copied("curl")
    with Running(["sh", "-c", read]) as reading:
        reading.prints("event: ok")
        done = subprocess.run(["sh", "-c", publish], check=True, timeout=20, capture_output=True, text=True)
        assert json.loads(done.stdout)["offset"] == 1
        reading.prints(r'"data": ?"?21.5')
    assert re.fullmatch(rf"MSG {channel} 1 \S+ 21.5", copied.reader.receive())


@pytest.mark.parametrize("kind, command", [("python", [sys.executable, "-c"]), ("node", ["node", "-e"])])
def test_the_programs_read_and_publish(copied, channel, kind, command, tmp_path):
    (text,) = copied(kind)
    file = tmp_path / {"python": "events.py", "node": "events.mjs"}[kind]
    file.write_text(text)
    with Running([command[0], str(file)]) as program:
        program.prints(rf"MSG {channel} 1 \w+ 21.5")
    assert re.fullmatch(rf"MSG {channel} 1 \w+ 21.5", copied.reader.receive())


def test_the_page_of_ones_own_reads_and_publishes(start, open_page, line_client, channel):
    pages = []

    class Serving(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/" else 204)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            if self.path == "/":
                self.wfile.write(pages[0].encode())

        def log_message(self, *arguments):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Serving) as web_server:
        threading.Thread(target=web_server.serve_forever, daemon=True).start()
        mine = f"http://127.0.0.1:{web_server.server_port}"
        server = start("--allow-origin", mine)
        watched = open_page(permissions=["clipboard-read", "clipboard-write"])
        pages.extend(snippets(watched.opens(f"{server.page}console#/channels/{channel}"), "browser"))
        page = open_page().page
        page.goto(mine)
        expect(page.locator("#events li")).to_have_text(re.compile(r"^\w+: 21.5$"))
        web_server.shutdown()


# ---- peers ----


def test_peers_are_ordered_and_found(visit, busy, line_client):
    ann, bob = line_client(busy.lines[0]), line_client(busy.lines[0])
    ann.request("NICK ann-of-the-list")
    page = visit("#/peers")
    expect(row(page, "ann-of-the-list")).to_contain_text(ann.id)
    expect(row(page, bob.id)).to_contain_text("lines")
    mine = rows(page).filter(has_text="this console")
    expect(mine).to_contain_text("JSON")
    expect(mine).to_contain_text(page.locator("#address-from").inner_text())
    for order, title in (("id", "Peer"), ("lag", "Behind"), ("sent", "Sent")):
        page.get_by_role("button", name=title, exact=True).click()
        expect(page).to_have_url(re.compile(rf"\?order={order}$"))
        expect(row(page, bob.id)).to_be_visible()
        expect(page.locator(".view:visible th[aria-sort]")).to_have_text(title)
    page.fill("#peers-find", "ann-of-the")
    expect(rows(page)).to_have_count(1)
    page.fill("#peers-find", f":{bob.socket.getsockname()[1]}")
    expect(rows(page)).to_contain_text([bob.id])
    page.fill("#peers-find", "nobody-at-all")
    expect(page.locator("#peers-empty-title")).to_have_text("Nobody found for “nobody-at-all”")


def test_a_peer_is_disconnected_with_the_keyboard_alone(visit, busy, line_client):
    peer = line_client(busy.lines[0])
    peer.request("NICK leaver")
    page = visit("#/peers")
    expect(row(page, "leaver")).to_be_visible()
    press = page.keyboard.press
    press("/")
    page.keyboard.type("leaver")
    expect(rows(page)).to_have_count(1)
    for _ in range(10):
        press("Tab")
        if page.evaluate("document.activeElement.textContent") == "leaver":
            break
    press("Enter")
    expect(heading(page)).to_have_text("leaver")
    expect(page.locator("#disconnect")).to_be_visible()
    press("Tab")
    expect(page.locator("#disconnect")).to_be_focused()
    press("Enter")
    expect(page.locator("#disconnect-title")).to_have_text("Disconnect leaver?")
    press("Escape")
    expect(page.locator("#disconnect-dialog")).to_be_hidden()
    expect(page.locator("#disconnect")).to_be_focused()
    press("Enter")
    expect(page.locator("#disconnect-reason")).to_be_focused()
    page.keyboard.type("go away")
    press("Enter")
    assert any("go away" in line for line in peer.receive_rest())
    peer.close()
    expect(page.locator("#disconnect-dialog")).to_be_hidden()
    expect(page.locator("#peer-state")).to_have_text("gone")
    expect(page.locator("#steps .step").last).to_contain_text("Closed")
    expect(page.locator("#steps")).to_contain_text("Closing, by the bridge")
    expect(page.locator("#disconnect")).to_be_hidden()


def test_a_peer_that_is_disconnected_keeps_its_facts_and_is_gone_when_it_is_opened_again(
    visit, busy, line_client, channel
):
    """It keeps its connection for a while; meanwhile the view is left."""
    peer = line_client(busy.lines[0])
    peer.request(f"SUB {channel}")
    page = visit(f"#/peers/{peer.id}")
    expect(fact(page, "Channels")).to_have_text("1")
    page.click("#disconnect")
    page.click("#disconnect-confirm")
    expect(page.locator("#peer-state")).to_have_text("closing")
    expect(page.locator("#disconnect")).to_be_hidden()
    expect(fact(page, "Channels")).to_have_text("1")
    page.click('a[data-nav="overview"]')
    peer.close()
    expect(page.locator("#disconnects-list")).to_contain_text(peer.id)
    page.go_back()
    expect(page.locator("#peer-state")).to_have_text("gone")
    expect(page.locator("#steps .step-title").last).to_have_text("Closed")
    expect(fact(page, "Channels")).to_have_text("1")


def test_the_timeline_of_a_peer_that_stalls(visit, busy, line_client, channel):
    slow, publisher = line_client(busy.lines[0]), line_client(busy.lines[0])
    slow.request(f"SUB {channel}")
    page = visit(f"#/peers/{slow.id}")
    steps = page.locator("#steps .step")
    titles = page.locator("#steps .step-title")
    expect(titles).to_have_text(["Accepted", "Open"])
    expect(steps.first).to_contain_text("kernel")
    expect(page.locator("#steps .between").nth(1)).to_have_text(re.compile("later$|^at once$"))
    expect(page.locator("#peer-to")).to_have_text(busy.lines[0])
    expect(page.locator("#peer-from")).to_have_text("{}:{}".format(*slow.socket.getsockname()))

    said = 0
    while titles.count() < 3 and said < 200:
        said += 1
        publisher.send(*(f"PUB {channel} {'x' * 1000}" for _ in range(500)))
        for _ in range(500):
            publisher.receive()
    expect(titles.nth(2)).to_have_text("Behind")
    expect(fact(page, "Behind by")).to_contain_text("on 1 channel")
    expect(page.locator("#peer-state")).to_have_text("behind")
    publisher.request(f"PUB {channel} over")
    while not slow.receive().endswith(" over"):
        pass
    expect(page.locator("#steps")).to_contain_text("Caught up")
    expect(page.locator("#peer-state")).to_have_text("caught up")
    slow.close()
    expect(titles.last).to_have_text(re.compile("^Closed"))
    expect(page.locator("#peer-state")).to_have_text("gone")


def test_who_is_not_there_is_said_not_to_be(visit):
    page = visit("#/peers/nobody")
    expect(page.locator("#peer-gone")).to_be_visible()


def test_what_peers_call_themselves_is_text_and_never_markup(visit, busy, line_client):
    name = "<img/src=x/onerror=alert(1)//"
    peer = line_client(busy.lines[0])
    assert peer.request(f"NICK {name}").startswith("OK")
    assert peer.request(f"SUB {name}").startswith("OK")
    peer.request(f"PUB {name} {name}>")
    page = visit("#/peers")
    row(page, name).locator("a").click()
    expect(heading(page)).to_have_text(name)
    page.click("#disconnect")
    expect(page.locator("#disconnect-title")).to_have_text(f"Disconnect {name}?")
    page.keyboard.press("Escape")
    page.click('a[data-nav="channels"]')
    row(page, name).locator("a").click()
    expect(heading(page)).to_have_text(name)
    expect(page.locator("#events .payload")).to_have_text(f"{name}>")
    expect(page.locator("#members")).to_contain_text(name)
    # A shell could obey the name, where lines for telnet are pasted into one.
    expect(page.locator('#snippet-kinds input[value="telnet"]')).to_have_count(0)
    for kind in ("nc", "curl", "browser", "python", "node"):
        page.locator(f'#snippet-kinds input[value="{kind}"]').check(force=True)
        expect(page.locator("#snippets pre").first).to_contain_text("img")
    assert page.locator("img").count() == 1  # ours


# ---- who may ----


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A bridge on which anybody may use the lobby."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "bridge.toml").write_text(
        f'[access]\nanonymous = {{ "lobby" = "rw" }}\naudience = "{AUDIENCE}"\n' + issuer.make_key("hs")
    )
    starter = Starter(folder)
    server = starter("--config", "bridge.toml")
    yield server
    starter.stop_all()
    issuer.is_untold_in(server.log())


def enter(page, token):
    page.fill("#token", token)
    page.click("#token-submit")


def test_a_token_is_asked_for_and_must_be_an_admins(guarded, open_page, issuer, line_client):
    watched = open_page()
    page = watched.opens(f"{guarded.page}console")
    expect(page.locator("#access-denied-title")).to_have_text("This takes a token")
    command = "sockbridge token --config sockbridge.toml --sub ann --admin"
    expect(page.locator("#access-denied")).to_contain_text(command)
    expect(page.locator("#charts")).to_be_hidden()
    page.click("#access-denied-token")
    expect(page.locator("#token")).to_be_focused()
    enter(page, issuer.token("ann", {"kitchen": "rw"}))
    expect(page.locator("#access-denied-title")).to_have_text("ann is no admin")
    expect(page.locator("#identity-dialog")).to_be_hidden()
    # What the token allows it allows here, too; what is there to be copied does not hold it.
    page.evaluate("location.hash = '#/channels/kitchen'")
    expect(page.locator("#members-count")).to_have_text("1")
    expect(page.locator("#snippets")).to_contain_text("AUTH your-token")
    issuer.is_untold_in(page.content())
    expect(page.locator("#access-denied")).to_be_hidden()
    page.click('a[data-nav="peers"]')
    expect(page.locator("#access-denied-title")).to_have_text("ann is no admin")

    page.click("#access-denied-token")
    enter(page, issuer.token("root", admin=True))
    expect(row(page, "root")).to_contain_text("this console")
    line = line_client(guarded.lines[0])
    expect(row(page, line.id)).to_be_visible()
    # The tab keeps it, also for the page at /.
    page.reload()
    watched.is_connected()
    expect(row(page, "root")).to_be_visible()
    row(page, line.id).locator("a").click()
    page.click("#disconnect")
    page.click("#disconnect-confirm")
    line.receive_rest()
    page.click("text=Page")
    watched.is_connected()
    expect(page.locator("#identity")).to_have_text("You are root, and others can rely on it.")


# ---- wherever one is ----


def test_when_the_connection_is_lost_it_is_said_and_all_comes_back(start, open_page, line_client):
    first = start()
    watched = open_page()
    page = watched.opens(f"{first.page}console#/peers")
    expect(rows(page)).to_have_count(1)
    port = first.page.rstrip("/").split(":")[2]
    first.stop()
    expect(page.locator("#outage")).to_be_visible()
    expect(page.locator("#retry")).to_have_text("Try now")
    expect(page).to_have_title(re.compile(r"^\(offline\) Peers"))
    second = start(web=(f"tcp:{port}:interface=127.0.0.1",))
    peer = line_client(second.lines[0])
    watched.is_connected()
    expect(page.locator("#outage")).to_be_hidden()
    expect(row(page, peer.id)).to_be_visible()
    watched.complaints.clear()


def views(server, line_client, channel):
    """The address of each view, with something in it."""
    peer = line_client(server.lines[0])
    peer.request(f"SUB {channel}")
    peer.request(f'PUB {channel} {{"celsius": 21.5, "wide": "{"x" * 300}"}}')
    return {
        "overview": "#/",
        "channels": "#/channels",
        "channel": f"#/channels/{channel}",
        "peers": "#/peers",
        "peer": f"#/peers/{peer.id}",
    }


SEEN = {
    "overview": "#charts",
    "channels": "#channels-box tbody tr",
    "channel": "#events .event",
    "peers": "#peers-box tbody tr",
    "peer": "#steps .step",
}
"""What is there when a view has come."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways(visit, busy, line_client, channel, scheme):
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    page = visit("", **phone)
    for view, address in views(busy, line_client, channel).items():
        page.evaluate(f"location.hash = '{address}'")
        expect(page.locator(SEEN[view]).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
    page.click("#identity-open")
    expect(page.locator("#nick")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_wrong(visit, busy, line_client, channel, scheme, width):
    page = visit("", color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    axe = Axe()

    def is_fine(where):
        found = axe.run(page).response["violations"]
        assert [(where, one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

    for view, address in views(busy, line_client, channel).items():
        page.evaluate(f"location.hash = '{address}'")
        expect(page.locator(SEEN[view]).first).to_be_visible()
        is_fine(view)
    page.click("#disconnect")
    expect(page.locator("#disconnect-dialog")).to_be_visible()
    is_fine("the question")
    page.keyboard.press("Escape")
    page.click("#identity-open")
    is_fine("who one is")
    page.goto(f"{busy.page}#{channel}")
    expect(page.locator("#events .event")).to_have_count(1)
    is_fine("the page")
    page.goto("about:blank")  # or only the hash would change, and what is drawn would stay
    page.goto(f"{busy.page}#{channel}-b")
    expect(page.locator("#empty-state")).to_be_visible()
    is_fine("the page while it is empty")
