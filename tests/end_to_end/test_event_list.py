"""Tests of the list of events in Chromium, which the page and the console share: filter, pause, details, export."""

import csv
import json
import re
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.end_to_end.browser import small_targets

pytestmark = pytest.mark.end_to_end

VIEWS = {"page": "#", "console": "console#/channels/"}
KEPT = 480
"""Maximum number of events that a paused list keeps."""
FLOOD = 1100


@pytest.fixture(params=VIEWS)
def visit(request, server, open_page, channel) -> Callable[..., Any]:
    """Open the channel of the test in the page and in the console: ``visit(**options of the context)``."""
    return lambda **options: open_page(**options).open(f"{server.page}{VIEWS[request.param]}{channel}")


@pytest.fixture
def visit_page(server, open_page, channel) -> Callable[..., Any]:
    """Open the channel of the test in the page: ``visit_page(**options of the context)``."""
    return lambda **options: open_page(**options).open(f"{server.page}#{channel}")


@pytest.fixture
def publish(server, line_client, channel) -> Callable[..., None]:
    """``publish(*payloads)`` returns when the server has them."""
    client = line_client(server.lines[0])
    client.request("NICK thermo")

    def publishing(*payloads: object, on: str = channel) -> None:
        client.send("QUIET on", *[f"PUB {on} {payload}" for payload in payloads], "PING")
        client.receive_until("PONG")

    return publishing


def readings(*numbers: float) -> list[str]:
    return [f'{{"celsius": {number}}}' for number in numbers]


def shown(page):
    return page.locator("#events .event:visible")


def payloads(page):
    return page.locator("#events .event:visible .payload")


def event(page, offset):
    return page.locator(f'#events .event[data-offset="{offset}"]')


def scroll_to_top(page):
    page.locator("#event-scroll").evaluate("(scroller) => { scroller.scrollTop = 0 }")


def open_details(page, offset):
    event(page, offset).locator(".payload").click()
    expect(page.locator("#drawer-title")).to_contain_text(str(offset))


def test_filters_by_text_and_fields_and_explains_unreadable_filters(visit, publish):
    publish(*readings(21, 22.5, 23), "the bread is ready")
    page = visit()
    expect(shown(page)).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("celsius>22")
    expect(payloads(page)).to_have_text(['{"celsius": 22.5}', '{"celsius": 23}'])
    expect(page.locator("#event-count")).to_have_text("2 of 4 events")
    publish(*readings(20, 25))
    expect(payloads(page).last).to_have_text('{"celsius": 25}')
    expect(shown(page)).to_have_count(3)
    page.fill("#filter", "celsius>")
    expect(page.locator("#filter-error")).to_have_text("Write a value after “celsius>”, such as celsius>22.")
    expect(page.locator("#filter")).to_have_attribute("aria-invalid", "")
    expect(shown(page)).to_have_count(3)
    page.fill("#filter", "BREAD")
    expect(page.locator("#filter-error")).to_be_empty()
    expect(payloads(page)).to_have_text(["the bread is ready"])
    page.locator("#filter").press("Escape")
    expect(shown(page)).to_have_count(6)


def test_pauses_with_space_and_counts_what_it_keeps_and_skips(visit, publish):
    publish("before")
    page = visit()
    expect(shown(page)).to_have_count(1)
    page.locator("#event-scroll").focus()
    page.keyboard.press("Space")
    expect(page.locator("#pause")).to_have_text("Continue")
    publish(1, 2, 3)
    expect(page.locator("#new-events")).to_have_text("Paused: 3 new")
    expect(shown(page)).to_have_count(1)
    page.keyboard.press("Space")
    expect(payloads(page)).to_have_text(["before", "1", "2", "3"])
    expect(page.locator("#pause")).to_have_text("Pause")

    page.click("#pause")
    publish(*range(FLOOD))
    expect(page.locator("#new-events")).to_have_text(f"Paused: {FLOOD:,} new")
    page.click("#new-events")
    expect(payloads(page).last).to_have_text(str(FLOOD - 1), timeout=40_000)
    expect(page.locator('#events .note[data-kind="dropped"]')).to_contain_text(f"{FLOOD - KEPT} events skipped")
    expect(page.locator("#event-count")).to_contain_text(f"{FLOOD - KEPT} skipped")


def test_loads_skipped_events_into_their_gap(visit, publish):
    publish("before")
    page = visit()
    expect(shown(page)).to_have_count(1)
    page.click("#pause")
    publish(*range(FLOOD))
    expect(page.locator("#new-events")).to_have_text(f"Paused: {FLOOD:,} new")
    page.click("#pause")
    expect(payloads(page).last).to_have_text(str(FLOOD - 1), timeout=40_000)
    note = page.locator('#events .note[data-kind="dropped"]')
    for loaded in range(100, FLOOD - KEPT, 100):
        note.get_by_role("button", name="Show").click()
        expect(note).to_contain_text(f"{FLOOD - KEPT - loaded} events skipped", timeout=40_000)
    note.get_by_role("button", name="Show").click()
    expect(note).to_have_count(0)
    expect(payloads(page)).to_have_text(["before", *[str(number) for number in range(FLOOD)]])
    expect(page.locator("#event-count")).to_have_text(f"{FLOOD + 1:,} events")


def test_clears_the_list_and_indents_json(visit, publish):
    publish('{"limits": {"max": 30}}')
    page = visit()
    expect(payloads(page)).to_have_text('{"limits": {"max": 30}}')
    page.check("#layout-pretty", force=True)
    assert payloads(page).inner_text() == '{\n  "limits": {\n    "max": 30\n  }\n}'
    page.check("#layout-compact", force=True)
    assert payloads(page).inner_text() == '{"limits": {"max": 30}}'
    page.click("#clear")
    expect(shown(page)).to_have_count(0)
    publish("new")
    expect(payloads(page)).to_have_text(["new"])
    page.click("#earlier-load")  # it was removed from the list only
    expect(payloads(page)).to_have_text(['{"limits": {"max": 30}}', "new"])


def test_first_key_leads_to_the_content(visit):
    page = visit()
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#message:focus, #main:focus")).to_have_count(1)


def test_says_which_skipped_events_are_gone(start, open_page, line_client):
    bounded = start("--history-events=1000")
    publisher = line_client(bounded.lines[0])
    page = open_page().open(f"{bounded.page}#kitchen")
    expect(page.get_by_text("only you")).to_be_visible()
    page.click("#pause")
    publisher.send("QUIET on", *[f"PUB kitchen {number}" for number in range(1800)], "PING")
    publisher.receive_until("PONG")
    expect(page.locator("#new-events")).to_have_text("Paused: 1,800 new")
    page.click("#pause")
    note = page.locator('#events .note[data-kind="dropped"]')
    expect(note).to_contain_text("events skipped")
    show = note.get_by_role("button", name="Show")
    while show.count():
        show.click()
        page.wait_for_timeout(50)
    expect(note).to_contain_text(re.compile("^Events 1–8\\d\\d of kitchen are no longer in the history"))


def test_offers_earlier_events_only_if_there_are_some(server, open_page, publish, channel):
    page = open_page().open(f"{server.page}#{channel},{channel}-b")
    expect(page.get_by_text("only you")).to_have_count(2)
    publish("first")
    expect(page.locator("#beginning")).to_have_text("There are no earlier events.")
    expect(page.locator("#earlier-load")).to_be_hidden()
    publish(*range(60))
    other = open_page().open(f"{server.page}#{channel},{channel}-b")
    expect(other.locator("#earlier-load")).to_be_visible()
    expect(other.locator("#beginning")).to_be_empty()


def test_sends_json_as_it_is_typed(visit, line_client, server, channel):
    listener = line_client(server.lines[0])
    listener.request(f"SUB {channel}")
    page = visit()
    typed = '{"x":1e400, "x":-1e400, "id": 12345678901234567890, "celsius": 21.50}'
    page.fill("#message", typed)
    expect(page.locator("#message-hint")).to_have_text("Sent as JSON.")
    page.click("#send")
    assert listener.receive().endswith(f" {typed}")
    expect(event(page, 1).locator(".payload")).to_contain_text('"x": -1e400')
    open_details(page, 1)
    expect(page.locator("#drawer .lines")).to_contain_text('"x": -1e400')

    page.keyboard.press("Escape")
    page.check("#format-json", force=True)
    page.fill("#message", '{"celsius":\n21.5}')
    page.click("#send")
    assert listener.receive().endswith('{"celsius": 21.5}')
    page.check("#format-json", force=True)
    page.fill("#message", '{"x": 1e400')
    page.click("#send")
    expect(page.locator("#message-error")).to_contain_text("Not valid JSON")


def test_sends_broken_json_as_text_only_after_a_second_enter(visit, line_client, server, channel):
    listener = line_client(server.lines[0])
    listener.request(f"SUB {channel}")
    page = visit()
    page.fill("#message", '{"on": tru}')
    page.locator("#message").press("Enter")
    error = page.locator("#message-error")
    expect(error).to_have_text(re.compile("^Not valid JSON: .* Press Enter again to send it as text.$"))
    page.fill("#message", "{on}")
    page.locator("#message").press("Enter")  # another text, which needs another Enter
    expect(error).to_contain_text("Press Enter again")
    page.locator("#message").press("Enter")
    assert listener.receive().endswith(' "{on}"')
    expect(error).to_be_empty()
    page.fill("#message", "[ann] hello")  # not meant as JSON
    page.locator("#message").press("Enter")
    assert listener.receive().endswith(' "[ann] hello"')


def test_shows_the_details_of_an_event_and_what_has_changed(visit, publish):
    publish('{"celsius": 21, "door": "shut", "old": 1}', '{"celsius": 21.5, "door": "shut", "limits": {"max": 30}}')
    page = visit()
    open_details(page, 2)
    drawer = page.locator("#drawer")
    expect(drawer.locator(".drawer-payload code")).to_contain_text('"limits": {\n    "max": 30\n  }')
    expect(drawer.locator(".changes")).to_have_text("celsius21 21.5 +0.5limits.max30old1")
    expect(drawer.locator(".drawer-facts")).to_contain_text("thermo")
    # The focus moves through the list, and the drawer follows it.
    event(page, 2).locator(".offset").focus()
    page.keyboard.press("ArrowUp")
    expect(event(page, 1).locator(".offset")).to_be_focused()
    expect(drawer).to_contain_text("The first event of its channel")
    page.keyboard.press("j")
    expect(drawer).to_contain_text("Changes since event 1")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(event(page, 2).locator(".offset")).to_be_focused()
    page.keyboard.press("Enter")
    expect(drawer).to_be_visible()


def test_copies_an_event_as_commands_that_publish_it_again(visit_page, publish, server, line_client, shell, channel):
    text = "it's $(touch owned); `x`"
    publish('{"celsius": 21.5}', text)
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    page = visit_page(permissions=["clipboard-read", "clipboard-write"])

    def copied(offset, kind):
        open_details(page, offset)
        page.locator(f'#drawer input[value="{kind}"]').check(force=True)
        page.locator("#drawer").get_by_role("button", name="Copy").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        page.keyboard.press("Escape")
        return copied

    assert json.loads(copied(1, "json"))["data"] == {"celsius": 21.5}
    assert copied(2, "payload") == text
    assert copied(1, "pub") == f'PUB {channel} {{"celsius":21.5}}'
    publisher = line_client(server.lines[0])
    publisher.request(copied(2, "pub"))
    assert json.loads(reader.receive().split(" ", 4)[4]) == text
    shell(copied(2, "curl"), check=True)
    assert reader.receive().endswith(f" {text}")


def png(width: int, height: int) -> bytes:
    """A picture in one colour (RFC 2083)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\x2f\x6f\xbf" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_shows_pictures_and_saves_bytes(visit, server, line_client, channel, tmp_path):
    picture, markup = png(64, 48), b'<svg xmlns="http://www.w3.org/2000/svg"><script>document.title = 1</script></svg>'
    client = line_client(server.lines[0])
    for payload in (picture, markup, png(8, 8)[:33]):
        client.request(f"PUBBIN {channel} {b64encode(payload).decode()}")
    page = visit(accept_downloads=True)
    expect(event(page, 1).locator(".payload")).to_have_text(f"PNG image, 64 × 48, {len(picture)} bytes")
    expect(event(page, 2).locator(".payload")).to_have_text(f"{len(markup)} bytes")
    open_details(page, 1)
    image = page.locator("#drawer img")
    expect(image).to_have_js_property("naturalWidth", 64)
    with page.expect_download() as saved:
        page.locator("#drawer").get_by_role("button", name="Download").click()
    assert saved.value.suggested_filename.endswith(".png")
    assert saved.value.path().read_bytes() == picture
    page.keyboard.press("Escape")
    open_details(page, 2)
    expect(image).to_have_count(0)
    with page.expect_download() as saved:
        page.locator("#drawer").get_by_role("button", name="Download").click()
    assert saved.value.suggested_filename.endswith(".bin")
    page.keyboard.press("Escape")
    open_details(page, 3)
    expect(page.locator("#drawer")).to_contain_text("The picture is damaged.")


def test_explains_what_a_line_cannot_publish(visit_page, publish, server, channel):
    page = visit_page()
    page.fill("#event-name", "alarm")
    page.fill("#message", "too hot")
    page.press("#message", "Enter")
    open_details(page, 1)
    page.locator('#drawer input[value="pub"]').check(force=True)
    expect(page.locator("#drawer")).to_contain_text("Lines are published without an event name: “alarm” is left out.")
    page.keyboard.press("Escape")
    publish("x", on=f"{channel};reboot")
    page.evaluate(f"location.hash = '#{channel};reboot'")
    expect(payloads(page).last).to_have_text("x")
    payloads(page).last.click()
    expect(page.locator("#drawer")).to_contain_text("has a special meaning in shells, so there is no line to copy")
    expect(page.locator("#drawer .lines")).to_be_hidden()


def test_loads_earlier_events_while_scrolling_up_to_the_first_one(visit, publish):
    publish(*range(1, 281))
    page = visit()
    expect(shown(page)).to_have_count(50)
    scroll_to_top(page)
    expect(shown(page)).to_have_count(150)
    # What was at the top stays where it was.
    assert event(page, 231).is_visible()
    publish("new")
    expect(page.locator("#new-events")).to_have_text("1 new")
    for count in (250, 280):
        scroll_to_top(page)
        expect(shown(page)).to_have_count(count)
    expect(page.locator("#beginning")).to_have_text("There are no earlier events.")
    expect(payloads(page)).to_have_text([str(number) for number in range(1, 281)])


def test_searches_earlier_events_for_a_match(visit_page, publish):
    publish("needle", *range(250))
    page = visit_page()
    expect(shown(page)).to_have_count(50)
    page.fill("#filter", "needle")
    expect(shown(page)).to_have_count(0)
    page.click("#earlier-load")
    expect(payloads(page)).to_have_text(["needle"])
    expect(page.locator("#event-count")).to_have_text("1 of 251 events")


def test_names_the_events_that_are_no_longer_kept(start, open_page, line_client):
    server = start("--history-events", "120")
    typist = line_client(server.lines[0])
    typist.send("QUIET on", *[f"PUB kitchen {number}" for number in range(1, 201)], "PING")
    typist.receive_until("PONG")
    page = open_page().open(f"{server.page}#kitchen")
    expect(shown(page)).to_have_count(50)
    scroll_to_top(page)
    expect(shown(page)).to_have_count(120)
    expect(page.locator("#beginning")).to_have_text("Events 1–80 of kitchen are no longer in the history.")


def save(page, range, format):
    page.click("#export")
    page.locator(f'#export-dialog input[value="{range}"]').check(force=True)
    page.locator(f'#export-dialog input[value="{format}"]').check(force=True)
    with page.expect_download() as download:
        page.click("#export-save")
    expect(page.locator("#export-dialog")).to_be_hidden()
    return download.value


def test_exports_what_is_shown_or_kept_as_csv_and_json(visit_page, publish, channel, tmp_path):
    publish(*readings(*range(1200)), "=cmd|' /C calc'!A1")
    page = visit_page()
    expect(shown(page)).to_have_count(50)
    page.fill("#filter", "celsius>1197")
    expect(shown(page)).to_have_count(2)
    download = save(page, "shown", "csv")
    assert re.fullmatch(r"sockbridge-[\w-]+\.csv", download.suggested_filename)
    download.save_as(tmp_path / "shown.csv")
    with open(tmp_path / "shown.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["channel"], row["offset"], row["celsius"]) for row in rows] == [
        (channel, "1199", "1198"),
        (channel, "1200", "1199"),
    ]
    save(page, "kept", "json").save_as(tmp_path / "kept.json")
    events = json.loads((tmp_path / "kept.json").read_text())
    assert [one["offset"] for one in events] == list(range(1, 1202))
    assert events[0]["data"] == {"celsius": 0}
    save(page, "kept", "csv").save_as(tmp_path / "kept.csv")
    with open(tmp_path / "kept.csv", newline="") as file:
        assert list(csv.DictReader(file))[-1]["data"] == "'=cmd|' /C calc'!A1"


def test_recalls_sent_messages_with_the_arrow_keys(visit_page):
    page = visit_page()
    message = page.locator("#message")
    for text in ("first", '{"celsius": 21.5}'):
        message.fill(text)
        message.press("Enter")
    expect(shown(page)).to_have_count(2)
    message.fill("draft")
    message.press("ArrowUp")
    expect(message).to_have_value("draft")  # the caret is at its end
    message.press("Home")
    for key, value in (("ArrowUp", '{"celsius": 21.5}'), ("ArrowUp", "first"), ("ArrowUp", "first")):
        message.press(key)
        expect(message).to_have_value(value)
    message.press("ArrowDown")
    expect(page.locator("#format-json")).to_be_checked()
    message.press("ArrowDown")
    expect(message).to_have_value("draft")
    page.reload()
    message.press("ArrowUp")
    expect(message).to_have_value('{"celsius": 21.5}')


def test_sends_a_command_and_shows_it_with_the_answer(visit_page, server, line_client, channel):
    device = line_client(server.lines[0])
    device.request(f"SUB {channel}")
    page = visit_page()
    page.fill("#message", '{"on": true}')
    page.click("#ask")
    expect(page.locator("#request-channel")).to_have_value(channel)
    page.fill("#request-reply", f"{channel}/reply")
    page.keyboard.press("Enter")
    assert device.receive().endswith('{"on": true}')
    expect(page.locator("#request-state")).to_have_text(f"Waiting for an event on {channel}/reply…")
    device.request(f'PUB {channel}/reply {{"rpm": 1450}}')
    expect(page.locator("#exchange .exchange-row")).to_have_count(2)
    expect(page.locator("#exchange .exchange-row").first).to_contain_text('"on": true')
    expect(page.locator("#exchange .exchange-row").last).to_contain_text('"rpm": 1450')
    expect(page.locator("#request-state")).to_have_text(re.compile(r"^Answered after [\d,]+ ms\.$"))

    page.fill("#request-timeout", "1")
    page.get_by_role("button", name="Send and wait").click()
    expect(page.locator("#request-state")).to_have_text(f"No event on {channel}/reply within 1 s.")
    expect(page.locator("#exchange .exchange-row")).to_have_count(1)
    page.fill("#request-timeout", "60")
    page.get_by_role("button", name="Send and wait").click()
    page.get_by_role("button", name="Stop waiting").click()
    expect(page.locator("#request-state")).to_have_text("Stopped.")
    page.fill("#request-reply", "no spaces")
    page.get_by_role("button", name="Send and wait").click()
    expect(page.locator("#request-error")).to_have_text("Reply channel: Names can’t contain spaces.")


def test_lists_its_keys(visit_page):
    page = visit_page()
    page.fill("#message", "?")
    page.locator("#message").press("?")
    expect(page.locator("#keys-dialog")).to_be_hidden()
    page.locator("#event-scroll").press("?")
    expect(page.locator("#keys-dialog")).to_contain_text("pause the list")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keys", exact=True).click()
    expect(page.locator("#keys-dialog")).to_be_visible()


def test_shows_one_of_several_channels(server, open_page, publish, channel):
    publish(1, 2)
    publish("other", on=f"{channel}-b")
    page = open_page().open(f"{server.page}#{channel},{channel}-b")
    expect(shown(page)).to_have_count(3)
    page.locator(f'#events .event[data-channel="{channel}-b"] .event-channel').click()
    expect(payloads(page)).to_have_text(["other"])
    expect(page.locator("#only")).to_have_text(f"Only {channel}-b ×")
    expect(page.locator("#channel-select")).to_have_value(f"{channel}-b")
    publish(3)
    publish("another", on=f"{channel}-b")
    expect(payloads(page)).to_have_text(["other", "another"])
    page.click("#only")
    expect(shown(page)).to_have_count(5)
    open_details(page, 3)
    page.get_by_role("button", name="Show only this channel").click()
    expect(payloads(page)).to_have_text(["1", "2", "3"])
    page.click(f'#channels [data-channel="{channel}"] .remove')
    expect(page.locator("#only")).to_be_hidden()


def test_merges_the_earlier_events_of_several_channels_by_time(server, open_page, publish, channel, eventually):
    for first in range(0, 300, 20):
        publish(*range(first, first + 20))
        publish(first + 19.5, on=f"{channel}-b")
    page = open_page().open(f"{server.page}#{channel},{channel}-b")
    expect(shown(page)).to_have_count(65)
    eventually(lambda: scroll_to_top(page) or page.locator("#beginning").inner_text(), "the beginning")
    rows = shown(page).evaluate_all(
        """(rows) => rows.map((row) => [
            row.querySelector('time').dateTime, row.dataset.channel, Number(row.dataset.offset),
        ])"""
    )
    assert [time for time, _, _ in rows] == sorted(time for time, _, _ in rows)
    for name, count in ((channel, 300), (f"{channel}-b", 15)):
        assert [offset for _, one, offset in rows if one == name] == list(range(1, count + 1))


def test_shows_hostile_payloads_as_text_in_details_and_answers(visit_page, publish):
    publish('{"<img src=x onerror=alert(1)>": "<script>alert(2)</script>"}')
    page = visit_page()
    open_details(page, 1)
    expect(page.locator("#drawer .drawer-payload")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#drawer :is(img, script)").count() == 0


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_is_accessible_and_fits(visit, publish, width, scheme):
    publish(*readings(21, 22))
    phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    size = {"width": width, "height": 844}
    page = visit(viewport=size, color_scheme=scheme, reduced_motion="reduce", **phone)
    expect(shown(page)).to_have_count(2)
    axe = Axe()

    def check(where):
        found = axe.run(page).response["violations"]
        assert [(where, one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width, where
        assert not phone or small_targets(page) == [], where

    page.fill("#filter", "celsius>")
    expect(page.locator("#filter-error")).not_to_be_empty()
    check("the list")
    open_details(page, 2)
    check("the details")
    page.click("#export")
    check("the export")
    page.keyboard.press("Escape")
    page.click("#ask")
    check("the request")
    page.keyboard.press("Escape")
    if not phone:
        page.locator("#event-scroll").press("?")
        check("the keys")
