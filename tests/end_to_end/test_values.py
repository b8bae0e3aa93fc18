"""Tests of charts, last values and the board in Chromium, with line clients that publish."""

import json
import re
import time
from datetime import datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.end_to_end.conftest import guarded_server
from tests.end_to_end.programs import wait_until

pytestmark = pytest.mark.end_to_end

PAGES = ["#", "console#/channels/"]


def publish(client, channel, *payloads):
    """Publish payloads at different times, which are in milliseconds."""
    for payload in payloads:
        time.sleep(0.002)
        text = payload if isinstance(payload, str) else json.dumps(payload)
        assert client.request(f"PUB {channel} {text}").startswith("OK")


@pytest.fixture
def sensor(server, line_client):
    return line_client(server.lines[0])


@pytest.fixture
def visit(server, open_page):
    """Open an address of the server: ``visit("#kitchen", **options of the context)``."""

    def visiting(address, **options):
        return open_page(**options).open(f"{server.page}{address}")

    return visiting


def chip(page, field):
    return page.locator(f'#value-chart .chip[data-field="{field}"]')


def expect_chip(page, field, value, extremes):
    expect(chip(page, field).locator(".chip-value")).to_have_text(value)
    expect(chip(page, field).locator(".chip-range")).to_have_text(extremes)


def plot(page):
    return page.locator("#value-chart .plot")


LINES_DRAWN = """() => {
  const canvas = document.querySelector('#value-chart canvas');
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) pixels.add([...data.slice(i, i + 3)].join());
  const style = getComputedStyle(document.documentElement);
  const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)).join();
  return [0, 1, 2, 3, 4, 5].filter((hue) => pixels.has(channels(style.getPropertyValue(`--hue-${hue}`).trim()))).length;
}"""
"""The number of colours of lines in the chart."""


@pytest.mark.parametrize("address", PAGES)
def test_charts_the_numbers_of_a_channel(visit, sensor, channel, address):
    publish(sensor, channel, *({"celsius": 20 + n / 2, "limits": {"max": 30}, "on": True} for n in range(60)))
    page = visit(f"{address}{channel}")
    expect_chip(page, "celsius", "49.5", "20.0–49.5")  # more than the list of events has
    expect_chip(page, "limits.max", "30", "30")
    expect(page.locator("#value-chart .chip")).to_have_count(2)
    expect(plot(page).locator("canvas")).to_be_visible()
    page.wait_for_function("() => document.querySelector('#value-chart .plot').getAttribute('aria-valuemax') === '59'")

    publish(sensor, channel, {"celsius": 12}, "no number")
    expect_chip(page, "celsius", "12.0", "12.0–49.5")
    expect(plot(page)).to_have_attribute("aria-valuemax", "60")
    assert page.evaluate(LINES_DRAWN) == 1
    chip(page, "limits.max").click()
    expect(chip(page, "limits.max")).to_have_attribute("aria-pressed", "true")
    expect(plot(page)).to_have_attribute("aria-valuetext", re.compile("celsius 12, limits.max no value"))
    chip(page, "celsius").click()
    expect(plot(page)).to_have_attribute("aria-valuetext", re.compile(": limits.max 30$"))


def test_shows_no_chart_without_numbers(visit, sensor, channel):
    publish(sensor, channel, "21 degrees", {"on": True})
    page = visit(f"#{channel}")
    expect(page.locator("#events .event")).to_have_count(2)
    expect(page.locator("#value-chart")).to_be_hidden()
    publish(sensor, channel, "21.5")
    expect_chip(page, "value", "21.5", "21.5")


@pytest.mark.parametrize("address", PAGES)
def test_shares_its_cursor_with_the_list_of_events(visit, sensor, channel, address):
    publish(sensor, channel, "1", "2", "3")
    page = visit(f"{address}{channel}")
    expect(plot(page)).to_have_attribute("aria-valuemax", "2")
    page.locator('#events .event[data-offset="2"]').hover()
    expect(chip(page, "value").locator(".chip-value")).to_have_text("2")
    expect(page.locator("#events .event[data-pointed]")).to_have_attribute("data-offset", "2")
    page.mouse.move(5, 5)
    expect(chip(page, "value").locator(".chip-value")).to_have_text("3")

    plot(page).focus()
    for key, offset in [("ArrowLeft", "3"), ("ArrowLeft", "2"), ("Home", "1"), ("ArrowRight", "2"), ("End", "3")]:
        page.keyboard.press(key)
        expect(page.locator("#events .event[data-pointed]")).to_have_attribute("data-offset", offset)
        expect(plot(page)).to_have_attribute("aria-valuetext", re.compile(rf"value {offset}$"))
    page.keyboard.press("Escape")
    expect(page.locator("#events .event[data-pointed]")).to_have_count(0)

    over = plot(page).locator(".u-over")
    over.hover(position={"x": over.bounding_box()["width"] - 2, "y": 20})
    expect(page.locator("#events .event[data-pointed]")).to_have_attribute("data-offset", "3")


def test_loads_older_values_for_a_longer_time(start, open_page, line_client):
    monitored = open_page()
    server = start("--history-age", "7200")
    sensor = line_client(server.lines[0])
    publish(sensor, "kitchen", *(str(n) for n in range(100)))
    monitored.page.clock.install(time=datetime.now() + timedelta(minutes=20))
    page = monitored.open(f"{server.page}#kitchen")
    expect_chip(page, "value", "99", "no values")
    for span, extremes in [("1h", "0–99"), ("10min", "no values"), ("all", "0–99")]:
        page.locator(f'#value-chart input[value="{span}"]').check(force=True)
        page.clock.run_for(1000)
        expect_chip(page, "value", "99", extremes)


def test_remembers_whether_the_chart_is_hidden_and_its_time(visit, sensor, channel):
    publish(sensor, channel, "1")
    page = visit(f"#{channel}")
    page.get_by_role("button", name="Hide chart").click()
    expect(plot(page)).to_be_hidden()
    page.locator('#value-chart input[value="1h"]').check(force=True)
    page.reload()
    expect(page.get_by_role("button", name="Show chart")).to_have_attribute("aria-expanded", "false")
    expect(page.locator('#value-chart input[value="1h"]')).to_be_checked()
    expect(plot(page)).to_be_hidden()
    page.get_by_role("button", name="Show chart").click()
    expect(plot(page).locator("canvas")).to_be_visible()


def test_shows_fields_and_payloads_as_text(visit, sensor, channel):
    field = '<img src=x onerror="alert(1)">'
    publish(sensor, channel, {field: 1}, {"other": 2})
    page = visit(f"#{channel}")
    expect(page.locator("#value-chart .chip-name")).to_have_text([field, "other"])
    expect(page.locator("#channels .last-value")).to_contain_text(field)
    assert page.locator("img").count() == 1  # the logo


def last_value(page, channel):
    return page.locator(f'#channels [data-channel="{channel}"] .last')


def test_shows_the_last_value_of_each_channel_and_its_age(server, open_page, sensor, channel):
    monitored = open_page()
    monitored.page.clock.install()
    page = monitored.open(f"{server.page}#{channel},{channel}-b")
    for celsius in (21, 21.5, 22):
        publish(sensor, channel, {"celsius": celsius, "humidity": 46})
        monitored.page.clock.run_for(1000)
    publish(sensor, f"{channel}-b", "the bread\tis ready")
    page.clock.run_for(1000)
    value = last_value(page, channel)
    expect(value.locator(".last-value")).to_have_text("22.0 celsius")
    expect(value.locator(".last-value")).to_have_attribute("title", "22.0 celsius")  # because long ones are cut
    expect(value.locator(".last-more")).to_have_text("humidity 46")
    expect(value.locator("polyline")).to_have_attribute("points", re.compile(r"^(\S+ ){2}88.0,1.5$"))
    expect(last_value(page, f"{channel}-b").locator(".last-value")).to_have_text("the bread is ready")
    expect(value).not_to_have_attribute("data-silent", "")
    page.clock.run_for(60_000)
    expect(value.locator(".last-age")).to_have_text(re.compile("min ago$"))
    expect(value).to_have_attribute("data-silent", "")


# ---- discovery ----


@pytest.fixture
def house(start, line_client):
    """A server of its own with channels of a house, and a line client."""
    server = start()
    server.sensor = line_client(server.lines[0])
    publish(server.sensor, "home/kitchen", *({"celsius": 20 + n / 2, "humidity": 40} for n in range(3)))
    publish(server.sensor, "home/attic/lamp", {"on": True})
    publish(server.sensor, "doorbell", "7")
    return server


def test_lists_active_channels_on_the_first_visit(house, open_page):
    monitored = open_page()
    page = monitored.open(house.page)
    expect(page.locator("#empty-title")).to_have_text("Active now")
    expect(page.locator("#active .active-name")).to_have_text(["home/kitchen", "doorbell", "home/attic/lamp"])
    expect(page.locator("#active .active-value")).to_have_text(["21 celsius", "7", '{"on":true}'])
    page.locator("#active button").filter(has_text="home/kitchen").click()
    expect(page).to_have_url(f"{house.page}#home%2Fkitchen")
    expect(page.locator("#events .event")).to_have_count(3)
    expect(page.locator("#event-scroll")).to_be_focused()

    # The others are listed in the panel, and the field completes their names.
    expect(page.locator("#also-active .active-name")).to_have_text(["doorbell", "home/attic/lamp"])
    page.focus("#channel-add")
    expect(page.locator('#channel-names option[value="home/attic/lamp"]')).to_have_count(1)
    expect(page.locator('#channel-names option[value="home/kitchen"]')).to_have_count(0)
    page.locator("#also-active button").first.click()
    expect(page.locator("#channels > li")).to_have_count(2)
    page.goto("about:blank")
    page.goto(house.page)  # the next visit opens the same channels
    expect(page.locator("#channels .channel-name")).to_have_text(["home/kitchen", "doorbell"])


def test_lists_a_new_channel_soon_and_opens_all_at_once(house, open_page):
    monitored = open_page()
    monitored.page.clock.install()
    page = monitored.open(house.page)
    expect(page.get_by_role("button", name="Open all 3")).to_be_visible()
    page.clock.pause_at(datetime.now() + timedelta(seconds=10))
    publish(house.sensor, "garden", "rain")
    page.clock.run_for(5_000)
    page.clock.resume()
    page.get_by_role("button", name="Open all 4").click()
    expect(page.locator("#channels > li")).to_have_count(4)
    expect(page.locator("#events .event")).to_have_count(6)
    expect(page.locator("#also-active-section")).to_be_hidden()


def test_opens_an_example_on_a_server_without_channels(start, open_page):
    page = open_page().open(start().page)
    expect(page.locator("#channels .channel-name")).to_have_text(["kitchen"])
    expect(page.locator("#empty-title")).to_have_text("No events on kitchen yet")


# ---- the board ----


def tile(page, channel, field=""):
    return page.locator(f'.tile[data-channel="{channel}"][data-field="{field}"]')


def test_board_shows_a_tile_for_each_field_by_group(house, open_page):
    page = open_page().open(f"{house.page}#board")
    expect(page.locator(".board-group h3")).to_have_text(["Top level 1 value", "home/ 2 values", "home/attic/ 1 value"])
    expect(page.locator("#board .total")).to_have_text("4 values")
    expect(tile(page, "doorbell", "value")).to_contain_text("doorbell 7")
    expect(tile(page, "home/kitchen", "celsius").locator(".tile-value")).to_have_text("21.0")
    expect(tile(page, "home/kitchen", "humidity").locator(".tile-name")).to_have_text("kitchen")
    expect(tile(page, "home/attic/lamp").locator(".tile-value")).to_have_text('{"on":true}')

    publish(house.sensor, "home/kitchen", {"celsius": 25, "pressure": 1013})
    expect(tile(page, "home/kitchen", "celsius").locator(".tile-value")).to_have_text("25.0")
    expect(tile(page, "home/kitchen", "pressure").locator(".tile-value")).to_have_text("1,013")
    publish(house.sensor, "home/attic/lamp", {"watts": 60})
    expect(tile(page, "home/attic/lamp", "watts").locator(".tile-value")).to_have_text("60")
    expect(tile(page, "home/attic/lamp")).to_have_count(0)


def test_board_filters_and_opens_a_channel(house, open_page):
    page = open_page().open(f"{house.page}#doorbell")
    page.click("#board-link")
    expect(page.locator("#board-title")).to_be_focused()
    expect(page.locator("#columns")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("HOME cel")
    expect(page.locator(".tile:visible")).to_have_count(1)
    expect(page.locator("#board .total")).to_have_text("1 of 4 values")
    expect(page).to_have_url(f"{house.page}#board?find=HOME%20cel")
    page.reload()
    expect(page.locator(".tile:visible")).to_have_count(1)
    page.fill("#board-find", "attic celsius")
    expect(page.locator(".board-empty")).to_have_text("No channel or field contains this text.")
    page.fill("#board-find", "")
    tile(page, "home/kitchen", "celsius").locator("a").click()
    expect(page).to_have_url(f"{house.page}#doorbell,home%2Fkitchen")
    expect(page.locator("#board")).to_be_hidden()
    expect(chip(page, "celsius")).to_be_visible()


def expect_after_frames(page, node, text):
    """Expect a text while the clock of the page stands still."""

    def is_there():
        page.clock.run_for(200)
        return node.inner_text() == text

    wait_until(is_there, text)


def test_board_greys_what_is_silent_for_three_times_its_interval(house, open_page):
    monitored = open_page()
    monitored.page.clock.install()
    page = monitored.open(f"{house.page}#board")
    expect(tile(page, "home/kitchen", "celsius").locator(".tile-value")).to_have_text("21.0")
    page.clock.pause_at(datetime.now() + timedelta(minutes=1))
    page.clock.run_for(1000)
    expect(tile(page, "home/kitchen", "celsius")).to_have_attribute("data-silent", "")
    expect(tile(page, "doorbell", "value")).not_to_have_attribute("data-silent", "")  # it has no usual interval
    publish(house.sensor, "home/kitchen", {"celsius": 23})
    expect_after_frames(page, tile(page, "home/kitchen", "celsius").locator(".tile-value"), "23.0")
    expect(tile(page, "home/kitchen", "celsius")).not_to_have_attribute("data-silent", "")


def test_board_fills_the_screen(house, open_page):
    page = open_page().open(f"{house.page}#board")
    page.get_by_role("button", name="Full screen").click()
    expect(page.get_by_role("button", name="Exit full screen")).to_be_visible()
    assert page.evaluate("document.fullscreenElement.id") == "board"
    page.get_by_role("button", name="Exit full screen").click()
    expect(page.get_by_role("button", name="Full screen")).to_be_visible()


def test_channel_named_board_can_still_be_opened(house, open_page):
    publish(house.sensor, "board", "<b>1</b>")
    page = open_page().open(f"{house.page}#board")
    expect(tile(page, "board").locator(".tile-value")).to_have_text("<b>1</b>")
    tile(page, "board").locator("a").click()
    expect(page).to_have_url(f"{house.page}#board,")
    expect(page.locator("#events .event")).to_contain_text("<b>1</b>")
    page.reload()
    expect(page.locator("#channels .channel-name")).to_have_text(["board"])


def test_board_subscribes_to_visible_channels_only(start, open_page, line_client):
    server = start()
    sensor = line_client(server.lines[0])
    names = [f"sensors/{number:04d}" for number in range(1000)]
    sensor.send("QUIET on", *[f"PUB {name} 1" for name in names], "PING")
    sensor.receive_until("PONG")
    page = open_page(viewport={"width": 1280, "height": 800}).open(f"{server.page}#board")
    expect(page.locator(".tile")).to_have_count(1000, timeout=20_000)
    expect(tile(page, names[0], "value").locator(".tile-value")).to_have_text("1", timeout=20_000)

    def subscribed():
        page_id = page.locator("#peer-id").inner_text()
        [own] = [one for one in page.request.get(f"{server.page}peers").json()["peers"] if one["id"] == page_id]
        return own["channels"]

    wait_until(lambda: subscribed() > 30, "the subscriptions of the visible tiles")
    assert subscribed() < 150
    tile(page, names[-1], "value").scroll_into_view_if_needed()
    sensor.send(*[f"PUB {name} 2" for name in names], "PING")
    sensor.receive_until("PONG")
    expect(tile(page, names[-1], "value").locator(".tile-value")).to_have_text("2", timeout=20_000)
    wait_until(lambda: 30 < subscribed() < 150, "the subscriptions of the visible tiles")
    page.click("#events-link")
    wait_until(lambda: subscribed() <= 1, "the end of the subscriptions")


# ---- rights ----


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A server with anonymous access to the lobby."""
    policy = issuer.access('anonymous = { "lobby" = "rw" }')
    with guarded_server(tmp_path_factory.mktemp("guarded"), issuer, policy) as server:
        yield server


def test_lists_only_channels_that_the_user_can_read(guarded, open_page, issuer, line_client):
    sensor = line_client(guarded.lines[0])
    publish(sensor, "lobby", "1")
    sensor.request(f"AUTH {issuer.token('sensor', {'vault': 'rw'})}")
    publish(sensor, "vault", "2")
    page = open_page().open(guarded.page)
    expect(page.locator("#active .active-name")).to_have_text(["lobby"])
    page.click("#board-link")
    expect(page.locator(".tile")).to_have_count(1)
    page.click("#events-link")
    page.locator("#active button").click()
    page.fill("#channel-add", "vault")
    page.click("#channel-add-button")
    page.fill("#token", issuer.token("ann", {"vault": "r"}))
    page.click("#token-submit")
    expect(last_value(page, "vault").locator(".last-value")).to_have_text("2")
    page.click("#board-link")
    expect(tile(page, "vault", "value").locator(".tile-value")).to_have_text("2")


def test_works_without_the_right_to_list_channels(house, open_page):
    monitored = open_page()
    monitored.page.route(re.compile("/channels[?]"), lambda route: route.fulfill(status=403, body="{}"))
    page = monitored.open(house.page)
    expect(page.locator("#channels .channel-name")).to_have_text(["kitchen"])
    page.fill("#channel-add", "home/kitchen")
    page.click("#channel-add-button")
    expect(last_value(page, "home/kitchen").locator(".last-value")).to_have_text("21.0 celsius")
    page.click("#board-link")
    expect(tile(page, "home/kitchen", "celsius").locator(".tile-value")).to_have_text("21.0")
    assert all("403" in error for error in monitored.errors)
    monitored.errors.clear()


# ---- all views ----


def expect_accessible(page):
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("address", PAGES)
def test_is_accessible_and_does_not_scroll_sideways(visit, sensor, channel, scheme, width, address):
    publish(sensor, channel, *({f"field-{n}": n, "x" * 70: 2} for n in range(14)))
    options = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    page = visit(f"{address}{channel}", color_scheme=scheme, viewport={"width": width, "height": 844}, **options)
    expect(page.locator("#value-chart .chip")).to_have_count(12)
    chip(page, "field-1").click()
    expect(plot(page).locator("canvas")).to_be_visible()
    expect_accessible(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_board_and_first_visit_are_accessible(house, open_page, scheme, width):
    options = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 844}, **options).open(house.page)
    expect(page.locator("#active button")).to_have_count(3)
    expect_accessible(page)
    page.click("#board-link")
    expect(tile(page, "doorbell", "value").locator(".tile-value")).to_have_text("7")
    expect_accessible(page)
