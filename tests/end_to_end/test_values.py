"""Tests of charts, last values and the board in Chromium, with line clients that publish."""

import json
import re
import time
from datetime import datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

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
    expect(value.locator(".last-more")).to_have_text("humidity 46")
    expect(value.locator("polyline")).to_have_attribute("points", re.compile(r"^(\S+ ){2}88.0,1.5$"))
    expect(last_value(page, f"{channel}-b").locator(".last-value")).to_have_text("the bread is ready")
    expect(value).not_to_have_attribute("data-silent", "")
    page.clock.run_for(60_000)
    expect(value.locator(".last-age")).to_have_text(re.compile("min ago$"))
    expect(value).to_have_attribute("data-silent", "")


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
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
