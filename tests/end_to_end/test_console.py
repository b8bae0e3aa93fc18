"""Tests of the console at ``/console`` in Chromium, with real clients."""

import json
import re
import shlex
import signal
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.end_to_end.browser import small_targets
from tests.end_to_end.conftest import Starter, guarded_server

pytestmark = pytest.mark.end_to_end

PAGE = 100
"""Maximum number of rows in the document."""


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A server for this module only, so that its clients and channels are known."""
    starter = Starter(tmp_path_factory.mktemp("busy"))
    yield starter()
    starter.stop_all()


@pytest.fixture
def visit(busy, open_page):
    """Open a view of the console: ``visit("#/peers", **options of the context)``."""

    def visiting(hash="", **options):
        return open_page(**options).open(f"{busy.page}console{hash}")

    return visiting


def fact(page, name):
    """The value of a fact."""
    return page.locator(".view:visible dt").filter(has_text=re.compile(f"^{name}$")).locator("+ dd")


def rows(page):
    return page.locator(".view:visible tbody tr")


def row(page, name):
    return rows(page).filter(has=page.locator(f'a:text-is("{name}")'))


def number(text):
    return float(re.sub(r"[^\d.].*", "", text.replace(",", "")))


def heading(page):
    return page.locator(".view:visible h1")


# ---- the overview ----


def test_updates_metrics_and_charts(visit, busy, line_client, channel):
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
    clients = charts.filter(has_text="Clients")
    expect(clients.locator(".range")).to_contain_text("Last 5 min: lines")
    assert number(fact(page, "Clients").inner_text()) >= 3
    # The line of the chart has been drawn: some of its points are not transparent.
    drawn = """(canvas) => {
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.some((value, index) => index % 4 === 3 && value);
    }"""
    assert all(canvas.evaluate(drawn) for canvas in charts.locator("canvas").all())
    # All charts show the values at the time under the pointer.
    plot = charts.first.locator(".u-over")
    plot.hover(position={"x": plot.bounding_box()["width"] - 3, "y": 20})
    expect(charts.nth(3).locator(".range")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))


def stall(client, publisher, channel):
    """Publish until the client, which does not read, is behind."""
    client.request(f"SUB {channel}")
    for _ in range(20):
        publisher.send("QUIET on", *(f"PUB {channel} {'x' * 1000}" for _ in range(500)), "PING")
        publisher.receive_until("PONG")


def test_states_the_health_and_names_slow_clients_and_busy_channels(visit, busy, line_client, channel):
    page = visit()
    health = page.locator("#health")
    expect(health).to_have_text(re.compile(r"^Healthy · \d+ clients?"))
    slow, publisher = line_client(busy.lines[0]), line_client(busy.lines[0])
    slow.request("NICK old-tablet")
    stall(slow, publisher, channel)
    expect(health).to_contain_text("1 slow: old-tablet")
    slowest = page.locator("#slowest-list li").filter(has_text="old-tablet")
    expect(slowest).to_contain_text(re.compile(r"behind.*unsent"))
    publisher.send(*(f"PUB {channel}-b {number}" for number in range(500)))
    expect(page.locator("#busiest-list")).to_contain_text(f"{channel}-b")
    health.get_by_role("link", name="1 slow").click()
    expect(page).to_have_url(re.compile(r"#/peers\?order=lag$"))
    expect(rows(page).first).to_contain_text("old-tablet")
    expect(page.locator("#peers-slow")).to_have_text("1 slow")
    page.go_back()
    health.get_by_role("link", name="old-tablet").click()
    expect(heading(page)).to_have_text("old-tablet")
    page.locator("#steps-copy").click()
    expect(page.locator("#steps-copy")).to_have_text(re.compile("^(Copied|Selected)$"))
    # Its channels, with the lag of each.
    expect(page.locator("#peer-channels li")).to_have_text(re.compile(rf"^{re.escape(channel)}[\d,]+ events behind$"))
    page.locator("#peer-channels").get_by_role("link").click()
    expect(heading(page)).to_have_text(channel)


@pytest.mark.parametrize(
    ("tile", "address"),
    [
        ("Clients", "#/peers"),
        ("Slow", "#/peers?order=lag"),
        ("Channels", "#/channels"),
        ("Subscriptions", "#/channels?order=readers"),
        ("Connections", "#/log?kind=connect"),
        ("Lost", "#/log?kind=lost"),
    ],
)
def test_tiles_lead_to_the_list_with_the_details(visit, tile, address):
    page = visit()
    page.locator(".tile").filter(has=page.locator(f'a:text-is("{tile}")')).click()  # all of it is the link
    assert page.evaluate("location.hash") == address
    page.go_back()
    page.locator("#facts").get_by_role("link", name=tile, exact=True).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == address
    expect(heading(page)).to_be_focused()


def test_says_that_the_server_does_not_respond(start, open_page):
    server = start()
    page = open_page().open(f"{server.page}console")
    expect(page.locator("#health")).to_contain_text("Healthy")
    server.process.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator("#health")).to_contain_text("Not responding · no statistics for", timeout=20_000)
    finally:
        server.process.send_signal(signal.SIGCONT)
    expect(page.locator("#health")).to_contain_text("Healthy")


# ---- the connection log ----


def test_log_shows_connections_slow_and_rejected_clients_with_filters(start, open_page, line_client, open_socket):
    server = start()
    page = open_page().open(f"{server.page}console#/log")
    entries = rows(page)
    peer, publisher = line_client(server.lines[0]), line_client(server.lines[0])
    peer.request("NICK ann")
    stall(peer, publisher, "kitchen")
    peer.close()
    for _ in range(2):
        evil = open_socket(server.authority)
        request = "GET /healthz HTTP/1.1", f"Host: {server.authority}", "Origin: https://evil.example", "", ""
        evil.sendall("\r\n".join(request).encode())
        assert evil.recv(65536).startswith(b"HTTP/1.1 403 ")
    rejected = entries.filter(has_text="Rejected")
    expect(rejected).to_have_count(1)
    expect(rejected).to_contain_text("Rejected ×2")
    expect(rejected).to_contain_text("--allow-origin (https://evil.example)")
    of_ann = entries.filter(has=page.locator('a:text-is("ann")'))
    expect(of_ann.locator(".kind")).to_have_text(["Disconnected", "Slow", "Connected"])
    expect(of_ann.first).to_contain_text("connection lost · connected")
    expect(of_ann.nth(1)).to_contain_text("kitchen from ")

    filters = page.locator("#log-kinds")
    filters.get_by_role("link", name="Slow").click()
    expect(page).to_have_url(re.compile(r"#/log\?kind=behind$"))
    expect(entries).to_have_count(1)
    expect(filters.locator("[aria-current]")).to_have_text("Slow")
    expect(page.locator("#log-total")).to_have_text("1 entry")
    filters.get_by_role("link", name="Lost events").click()
    expect(page.locator("#log-empty-text")).to_have_text("No events were lost.")
    page.keyboard.press("/")
    page.keyboard.type("evil.example")
    expect(entries).to_have_count(1)
    expect(entries).to_contain_text("Rejected")
    page.fill("#log-find", "nothing-here")
    expect(page.locator("#log-empty-title")).to_have_text("Nothing found for “nothing-here”")
    page.fill("#log-find", "")
    filters.get_by_role("link", name="All").click()
    of_ann.first.get_by_role("link").click()
    expect(heading(page)).to_have_text("ann")
    expect(page.locator("#peer-state")).to_have_text("disconnected")


def test_log_has_pages(start, open_page, line_client):
    server = start()
    for _ in range(40):
        line_client(server.lines[0]).close()
    page = open_page().open(f"{server.page}console#/log")
    expect(page.locator("#log-total")).to_have_text(re.compile(r"^1–50 of 8\d entries$"))
    page.locator("#log-pager").get_by_role("button", name="Next").click()
    expect(page.locator("#log-total")).to_have_text(re.compile(r"^51–8\d of 8\d entries$"))
    assert page.evaluate("location.hash") == "#/log?page=2"
    page.set_viewport_size({"width": 900, "height": 900})
    assert page.locator("#log-box td.details").first.bounding_box()["width"] > 300  # sentences need the room


def test_lists_disconnections_with_the_reason(visit, busy, line_client):
    page = visit()
    expect(page.locator("#charts")).to_be_visible()
    peer = line_client(busy.lines[0])
    peer.send("QUIT")
    peer.receive_rest()
    peer.close()
    left = page.locator("#disconnects-list li").filter(has_text=peer.id)
    expect(left).to_contain_text("lines, 127.0.0.1:")
    expect(left).to_contain_text("closed by the client (QUIT)")


def test_lists_earlier_disconnections_by_name_with_a_link_to_the_timeline(visit, busy, line_client):
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
    expect(page.locator("#peer-state")).to_have_text("disconnected")
    expect(page.locator("#steps .step-title")).to_have_text(["Accepted", "Open", "Closing, by the client", "Closed"])
    expect(fact(page, "Channels")).to_have_text("1")
    expect(page.locator("#disconnect")).to_be_hidden()


def test_shows_example_commands_if_no_other_client_is_connected(start, open_page, line_client):
    server = start()
    page = open_page(permissions=["clipboard-read", "clipboard-write"]).open(f"{server.page}console")
    host, port = server.lines[0].split(":")
    expect(page.locator("#idle-lines")).to_contain_text(f"telnet {host} {port}")
    page.click("#idle-copy")
    expect(page.locator("#idle-copy")).to_have_text("Copied")
    commands = page.evaluate("navigator.clipboard.readText()")
    assert commands == f"telnet {host} {port}\nSUB kitchen\nPUB kitchen 21.5"
    page.click('a[data-nav="channels"]')
    expect(page.locator("#channels-empty-title")).to_have_text("No channels yet")
    expect(page.locator("#channels-lines")).to_contain_text("SUB kitchen")
    page.evaluate("navigator.clipboard.writeText('')")
    page.locator("#channels-empty").get_by_role("button", name="Copy").click()
    expect(page.locator("#channels-empty").get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == commands
    line_client(server.lines[0]).request("SUB kitchen")
    expect(row(page, "kitchen")).to_be_visible()
    page.click('a[data-nav="overview"]')
    expect(page.locator("#idle")).to_be_hidden()


def test_links_to_the_documentation_or_to_a_page_that_says_where_it_is(busy, open_page):
    """It is there if it was built in the checkout, perhaps long ago, with its own scripts and styles."""
    monitored = open_page()
    page = monitored.open(f"{busy.page}console")
    page.click("text=Docs")
    expect(page.locator("h1")).to_have_text(
        re.compile("^(sockbridge documentation#?|No documentation in this installation)$")
    )
    assert page.evaluate("location.pathname").rstrip("/") == "/docs"
    page.wait_for_load_state("networkidle")
    assert [error for error in monitored.errors if "policy" in error.lower()] == []
    monitored.errors.clear()


# ---- channels ----


def test_sorts_searches_and_pages_ten_thousand_channels(start, open_page, line_client):
    server = start()
    publisher = line_client(server.lines[0])
    for first in range(0, 10_000, 500):
        publisher.send(*(f"PUB many/{count:05d} x" for count in range(first, first + 500)))
        for _ in range(500):
            assert publisher.receive() == "OK 1"
    reader = line_client(server.lines[0])
    reader.request("SUB many/04321")

    page = open_page().open(f"{server.page}console#/channels?order=name")
    expect(page.locator("#channels-total")).to_have_text("1–100 of 10,000 channels")
    expect(rows(page)).to_have_count(PAGE)
    names = page.locator(".view:visible tbody a").all_inner_texts()
    assert names == sorted(names)
    expect(page.locator('th[aria-sort="ascending"]')).to_have_text("Channel")
    expect(page.locator(".view:visible caption")).to_have_text("channels, by name, page 1")

    page.click("text=Next →")
    expect(page.locator("#channels-total")).to_contain_text("101–200 of 10,000")
    expect(page).to_have_url(re.compile(r"#/channels\?order=name&page=2$"))
    assert page.locator(".view:visible tbody a").first.inner_text() > names[-1]
    page.go_back()
    expect(page.locator("#channels-total")).to_contain_text("1–100 of 10,000")
    page.go_forward()
    expect(page.locator("#channels-pager")).to_contain_text("Page 2 of 10")

    page.click("th >> text=Subscribers")
    expect(page).to_have_url(re.compile(r"#/channels\?order=readers$"))
    expect(page.locator('th[aria-sort="descending"]')).to_have_text("Subscribers")
    expect(row(page, "many/04321").locator("td").nth(1)).to_have_text("1")
    expect(row(page, "many/04321").locator("td").nth(5)).to_have_text("1")

    page.keyboard.press("/")
    expect(page.locator("#channels-find")).to_be_focused()
    page.keyboard.type("ny/0432")
    expect(rows(page)).to_have_count(10)
    expect(page.locator("#channels-total")).to_have_text("10 channels found")
    page.fill("#channels-find", "not there")
    expect(page.locator("#channels-empty-text")).to_have_text("Names can’t contain spaces.")
    page.fill("#channels-find", "not-there")
    expect(page.locator("#channels-empty-title")).to_have_text("Nothing found for “not-there”")
    page.fill("#channels-find", "")
    expect(rows(page)).to_have_count(PAGE)


WIDTHS = [390, 421, 561, 760, 761, 850, 900, 930, 1000, 1001, 1080, 1081, 1180, 1181, 1280, 1340, 1341, 1700]

CLIPPED = """(selector) => [...document.querySelectorAll(selector)]
  .filter((cell) => cell.scrollWidth > cell.clientWidth)
  .map((cell) => `${cell.className}: ${cell.textContent}`)"""


OVERLAPPING = """() => {
  const boxes = [...document.querySelectorAll('.top > *, .top .state')]
    .filter((node) => node.offsetParent).map((node) => [node.id || node.className, node.getBoundingClientRect()]);
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return boxes.flatMap(([name, a], index) => boxes.slice(index + 1)
    .filter(([other, b]) => over(a, b) && !(name === 'connection-bar' && other === 'state'))
    .map(([other]) => `${name} ${other}`));
}"""


def test_parts_of_the_header_do_not_overlap_at_any_width(visit):
    page = visit()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(OVERLAPPING) == [], width
        assert page.evaluate(CLIPPED, ".top :is(.address, .nav a)") == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_cuts_no_number_at_any_width_and_gives_the_rest_to_names(visit, busy, line_client, channel):
    """With equal column widths, rates were cut to `…`, and names were cut next to empty space."""
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


def test_keeps_the_focus_while_the_list_is_updated(visit, busy, line_client, channel):
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


def test_shows_and_publishes_events_of_a_channel(visit, busy, line_client, channel):
    typist = line_client(busy.lines[0])
    typist.request("NICK ann")
    typist.request(f"SUB {channel}")
    typist.request(f"PUB {channel} before")
    typist.receive()
    page = visit(f"#/channels?find={channel}")
    row(page, channel).locator("td").nth(2).click()
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

    expect(fact(page, "Subscribers")).to_have_text("2")
    expect(fact(page, "Last offset")).to_have_text("4")
    expect(fact(page, "History")).to_contain_text("4 events")
    expect(page.locator("#members-count")).to_have_text("2")
    expect(page.locator("#members")).to_contain_text("ann")
    page.fill("#history-after", "2")
    page.click("#history-show")
    expect(page.locator("#history .history-row")).to_have_count(2)
    expect(page.locator("#history-summary")).to_have_text("3–4 of 4")
    page.fill("#history-after", "")
    page.click("#history-show")
    expect(page.locator("#history .history-row")).to_have_count(4)
    expect(page.locator("#history .history-row .time")).to_have_text([re.compile(r"^\d\d:\d\d:\d\d$")] * 4)
    page.fill("#history-after", "-10m")
    page.click("#history-show")
    expect(page.locator("#history-summary")).to_have_text("1–4 of 4")
    page.fill("#history-after", "2100-01-01 12:00")
    page.click("#history-show")
    expect(page.locator("#history-summary")).to_have_text("No events after 2100-01-01 12:00. The last offset is 4.")
    page.fill("#history-after", "many")
    page.click("#history-show")
    expect(page.locator("#history-error")).to_contain_text("a time such as 14:30")

    # Another channel has nothing of this one.
    page.evaluate(f"location.hash = '#/channels/{channel}-b'")
    expect(events).to_have_count(0)
    expect(page.locator("#empty-title")).to_have_text(f"No events on {channel}-b yet")
    typist.request(f"PUB {channel} elsewhere")
    typist.receive()
    typist.request(f"PUB {channel}-b received")
    expect(events).to_have_count(1)
    expect(events).to_contain_text("received")
    page.locator("#members").get_by_role("link").first.click()
    expect(page.locator("#peer-state")).to_contain_text("this console")


def test_skips_and_counts_events_of_a_flood(visit, busy, line_client, channel):
    page = visit(f"#/channels/{channel}")
    expect(page.locator("#members-count")).to_have_text("1")
    publisher = line_client(busy.lines[0])
    for _ in range(10):
        publisher.send(*(f"PUB {channel} {count}" for count in range(2000)))
        for _ in range(2000):
            publisher.receive()
    publisher.request(f"PUB {channel} the last one")
    expect(page.locator("#events .event").last).to_contain_text("the last one", timeout=40_000)
    expect(page.locator("#event-count")).to_contain_text("skipped")
    assert page.locator("#events > li").count() <= 500


# ---- the snippets ----


def snippets(page, kind):
    """The snippets of one kind, as copied to the clipboard."""
    page.locator(f'#snippet-kinds input[value="{kind}"]').check(force=True)
    pieces = page.locator(f'.snippet[data-kind="{kind}"]')
    expect(pieces.first).to_be_visible()
    texts = []
    for piece in pieces.all():
        piece.get_by_role("button", name="Copy").click()
        expect(piece.get_by_role("button")).to_have_text("Copied")
        texts.append(page.evaluate("navigator.clipboard.readText()"))
    return texts


@pytest.fixture
def copied(visit, busy, line_client, channel):
    """``copied(kind)`` returns copied snippets. ``copied.reader`` is subscribed to the channel."""
    reader = line_client(busy.lines[0])
    reader.request(f"SUB {channel}")

    def copying(kind):
        page = visit(f"#/channels/{channel}", permissions=["clipboard-read", "clipboard-write"])
        return snippets(page, kind)

    copying.reader = reader
    return copying


def test_telnet_snippet_subscribes_and_publishes(copied, channel, run):
    command, *typed = copied("telnet")[0].split("\n")
    telnet = run(*shlex.split(command), stdin=subprocess.PIPE)
    telnet.prints("WELCOME")
    telnet.process.stdin.write("".join(f"{line}\n" for line in typed).encode())
    telnet.process.stdin.flush()
    telnet.prints(rf"MSG {channel} 1 \w+ 21.5")
    assert re.fullmatch(rf"MSG {channel} 1 \w+ 21.5", copied.reader.receive())


def test_nc_snippets_subscribe_and_publish(copied, channel, run, shell):
    read, publish = copied("nc")
    reading = run("sh", "-c", read)
    reading.prints(rf"OK {channel}")
    shell(publish, check=True)
    reading.prints(rf"MSG {channel} 1 \w+ 21.5")


def test_curl_snippets_publish_and_subscribe(copied, channel, run, shell):
    publish, read = copied("curl")
    reading = run("sh", "-c", read)
    reading.prints("event: ok")
    assert json.loads(shell(publish, check=True).stdout)["offset"] == 1
    reading.prints(r'"data": ?"?21.5')
    assert re.fullmatch(rf"MSG {channel} 1 \S+ 21.5", copied.reader.receive())


@pytest.mark.parametrize(("kind", "program", "name"), [("python", sys.executable, "a.py"), ("node", "node", "a.mjs")])
def test_program_snippets_subscribe_and_publish(copied, channel, kind, program, name, run, tmp_path):
    (text,) = copied(kind)
    (tmp_path / name).write_text(text)
    run(program, name).prints(rf"MSG {channel} 1 \w+ 21.5")
    assert re.fullmatch(rf"MSG {channel} 1 \w+ 21.5", copied.reader.receive())


def test_browser_snippet_subscribes_and_publishes(start, open_page, serve_folder, tmp_path, channel):
    origin = serve_folder(tmp_path)
    server = start("--allow-origin", origin)
    monitored = open_page(permissions=["clipboard-read", "clipboard-write"])
    (text,) = snippets(monitored.open(f"{server.page}console#/channels/{channel}"), "browser")
    (tmp_path / "index.html").write_text(text)
    page = open_page().page
    page.goto(origin)
    expect(page.locator("#events li")).to_have_text(re.compile(r"^\d\d?:\d\d:\d\d( [AP]M)? \w+: 21.5$"))


# ---- clients ----


def test_sorts_and_searches_clients(visit, busy, line_client):
    ann, bob = line_client(busy.lines[0]), line_client(busy.lines[0])
    ann.request("NICK ann-of-the-list")
    page = visit("#/peers")
    expect(row(page, "ann-of-the-list")).to_contain_text(ann.id)
    expect(row(page, bob.id)).to_contain_text("lines")
    mine = rows(page).filter(has_text="this console")
    expect(mine).to_contain_text("JSON")
    expect(mine).to_contain_text(page.locator("#address-from").inner_text())
    for order, title in (("id", "Client"), ("lag", "Behind"), ("sent", "Sent")):
        page.get_by_role("button", name=title, exact=True).click()
        expect(page).to_have_url(re.compile(rf"\?order={order}$"))
        expect(row(page, bob.id)).to_be_visible()
        expect(page.locator(".view:visible th[aria-sort]")).to_have_text(title)
    page.fill("#peers-find", "ann-of-the")
    expect(rows(page)).to_have_count(1)
    page.fill("#peers-find", f":{bob.socket.getsockname()[1]}")
    expect(rows(page)).to_contain_text([bob.id])
    page.fill("#peers-find", "no-such-client")
    expect(page.locator("#peers-empty-title")).to_have_text("Nothing found for “no-such-client”")


def test_disconnects_a_client_by_keyboard(visit, busy, line_client):
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
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#disconnect-dialog")).to_be_hidden()
    expect(page.locator("#disconnect")).to_be_focused()
    press("Enter")
    expect(page.locator("#disconnect-reason")).to_be_focused()
    page.keyboard.type("go away")
    press("Enter")
    assert any("go away" in line for line in peer.receive_rest())
    peer.close()
    expect(page.locator("#disconnect-dialog")).to_be_hidden()
    expect(page.locator("#peer-state")).to_have_text("disconnected")
    expect(page.locator("#steps .step").last).to_contain_text("Closed")
    expect(page.locator("#steps")).to_contain_text("Closing, by the server")
    expect(page.locator("#disconnect")).to_be_hidden()


def test_keeps_the_facts_of_a_disconnected_client_and_shows_it_as_disconnected_later(visit, busy, line_client, channel):
    """The client keeps its connection open for a while, and the user leaves the view in the meantime."""
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
    expect(page.locator("#peer-state")).to_have_text("disconnected")
    expect(page.locator("#steps .step-title").last).to_have_text("Closed")
    expect(fact(page, "Channels")).to_have_text("1")


def test_shows_the_timeline_of_a_stalled_client(visit, busy, line_client, channel):
    slow, publisher = line_client(busy.lines[0]), line_client(busy.lines[0])
    slow.request(f"SUB {channel}")
    page = visit(f"#/peers/{slow.id}")
    steps = page.locator("#steps .step")
    titles = page.locator("#steps .step-title")
    expect(titles).to_have_text(["Accepted", "Open"])
    expect(steps.first).to_contain_text("kernel")
    expect(page.locator("#steps .step-interval").nth(1)).to_have_text(re.compile("later$|^immediately$"))
    expect(page.locator("#peer-to")).to_have_text(busy.lines[0])
    expect(page.locator("#peer-from")).to_have_text("{}:{}".format(*slow.socket.getsockname()))

    rounds = 0
    while titles.count() < 3 and rounds < 200:
        rounds += 1
        publisher.send(*(f"PUB {channel} {'x' * 1000}" for _ in range(500)))
        for _ in range(500):
            publisher.receive()
    expect(titles.nth(2)).to_have_text("Behind")
    expect(fact(page, "Behind")).to_contain_text("on 1 channel")
    expect(page.locator("#peer-state")).to_have_text("behind")
    publisher.request(f"PUB {channel} over")
    while not slow.receive().endswith(" over"):
        pass
    expect(page.locator("#steps")).to_contain_text("Caught up")
    expect(page.locator("#peer-state")).to_have_text("caught up")
    slow.close()
    expect(titles.last).to_have_text(re.compile("^Closed"))
    expect(page.locator("#peer-state")).to_have_text("disconnected")


def test_reports_unknown_clients(visit):
    page = visit("#/peers/nobody")
    expect(page.locator("#peer-gone")).to_be_visible()


def test_shows_names_as_text_not_as_markup(visit, busy, line_client):
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
    # No telnet snippet, because the name has a special meaning if it is pasted into a shell.
    expect(page.locator('#snippet-kinds input[value="telnet"]')).to_have_count(0)
    for kind in ("nc", "curl", "browser", "python", "node"):
        page.locator(f'#snippet-kinds input[value="{kind}"]').check(force=True)
        expect(page.locator("#snippets pre").first).to_contain_text("img")
    assert page.locator("img").count() == 1  # the logo


# ---- rights ----


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A server with anonymous access to the lobby."""
    policy = issuer.access('anonymous = { "lobby" = "rw" }')
    with guarded_server(tmp_path_factory.mktemp("guarded"), issuer, policy) as server:
        yield server


def sign_in(page, token):
    page.fill("#token", token)
    page.click("#token-submit")


def test_requires_an_admin_token(guarded, open_page, issuer, line_client):
    monitored = open_page()
    page = monitored.open(f"{guarded.page}console")
    expect(page.locator("#access-denied-title")).to_have_text("Admin token required")
    command = "sockbridge token --config sockbridge.toml --sub ann --admin"
    expect(page.locator("#access-denied")).to_contain_text(command)
    expect(page.locator("#charts")).to_be_hidden()
    page.click("#access-denied-token")
    expect(page.locator("#token")).to_be_focused()
    sign_in(page, issuer.token("ann", {"kitchen": "rw"}))
    expect(page.locator("#access-denied-title")).to_have_text("ann isn’t an admin")
    expect(page.locator("#identity-dialog")).to_be_hidden()
    # The token grants access to its channel, but does not appear in snippets.
    page.evaluate("location.hash = '#/channels/kitchen'")
    expect(page.locator("#members-count")).to_have_text("1")
    expect(page.locator("#snippets")).to_contain_text("AUTH your-token")
    issuer.assert_absent_from(page.content())
    expect(page.locator("#access-denied")).to_be_hidden()
    page.click('a[data-nav="peers"]')
    expect(page.locator("#access-denied-title")).to_have_text("ann isn’t an admin")

    page.click("#access-denied-token")
    sign_in(page, issuer.token("root", admin=True))
    expect(row(page, "root")).to_contain_text("this console")
    expect(page.get_by_role("button", name="Identity: root")).to_have_text("root")
    line = line_client(guarded.lines[0])
    expect(row(page, line.id)).to_be_visible()
    # The tab keeps the token, also for the page at /.
    page.reload()
    monitored.wait_until_connected()
    expect(row(page, "root")).to_be_visible()
    row(page, line.id).locator("a").click()
    page.click("#disconnect")
    page.click("#disconnect-confirm")
    line.receive_rest()
    page.click("text=Messages")
    monitored.wait_until_connected()
    expect(page.locator("#identity")).to_have_text("Verified as root.")


# ---- all views ----


def test_reports_a_lost_connection_and_recovers(start, open_page, line_client):
    first = start()
    monitored = open_page()
    page = monitored.open(f"{first.page}console#/peers")
    expect(rows(page)).to_have_count(1)
    first.stop()
    expect(page.locator("#outage")).to_be_visible()
    expect(page.locator("#retry")).to_have_text("Try now")
    expect(page).to_have_title(re.compile(r"^\(offline\) Clients"))
    second = start.again(first)
    peer = line_client(second.lines[0])
    monitored.wait_until_connected()
    expect(page.locator("#outage")).to_be_hidden()
    expect(row(page, peer.id)).to_be_visible()
    monitored.errors.clear()


def views(server, line_client, channel):
    """The URL hash of each view, with content."""
    peer = line_client(server.lines[0])
    peer.request(f"SUB {channel}")
    peer.request(f'PUB {channel} {{"celsius": 21.5, "wide": "{"x" * 300}"}}')
    return {
        "overview": "#/",
        "channels": "#/channels",
        "channel": f"#/channels/{channel}",
        "peers": "#/peers",
        "log": "#/log",
        "peer": f"#/peers/{peer.id}",
    }


CONTENT = {
    "overview": "#charts",
    "channels": "#channels-box tbody tr",
    "channel": "#events .event",
    "peers": "#peers-box tbody tr",
    "peer": "#steps .step",
    "log": "#log-box tbody tr",
}
"""An element of each view that appears with its content."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_does_not_scroll_sideways_on_a_phone(visit, busy, line_client, channel, scheme):
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "color_scheme": scheme}
    page = visit("", **phone)
    for view, address in views(busy, line_client, channel).items():
        page.evaluate(f"location.hash = '{address}'")
        expect(page.locator(CONTENT[view]).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        assert small_targets(page) == [], view
    page.click("#identity-open")
    expect(page.locator("#nick")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_has_no_accessibility_violations(visit, busy, line_client, channel, scheme, width):
    page = visit("", color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    axe = Axe()

    def check(where):
        found = axe.run(page).response["violations"]
        assert [(where, one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

    for view, address in views(busy, line_client, channel).items():
        page.evaluate(f"location.hash = '{address}'")
        expect(page.locator(CONTENT[view]).first).to_be_visible()
        check(view)
    page.click("#disconnect")
    expect(page.locator("#disconnect-dialog")).to_be_visible()
    check("the dialog")
    page.keyboard.press("Escape")
    page.click("#identity-open")
    check("identity")
    page.goto(f"{busy.page}#{channel}")
    expect(page.locator("#events .event")).to_have_count(1)
    check("the page")
    page.goto("about:blank")  # otherwise only the hash would change, without a reload
    page.goto(f"{busy.page}#{channel}-b")
    expect(page.locator("#empty-state")).to_be_visible()
    check("the empty page")
