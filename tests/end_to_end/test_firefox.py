"""A smoke test of the page and the console in Firefox. The tests in Chromium cover every action."""

import pytest

from tests.end_to_end.firefox import running_firefox

pytestmark = pytest.mark.end_to_end

ENTER, ESCAPE = "\ue007", "\ue00c"


@pytest.fixture
def firefox(tmp_path):
    """A running Firefox. Errors in its console fail the test."""
    with running_firefox(tmp_path) as firefox:
        yield firefox
        assert firefox.errors == []


def test_page_and_console_work_in_firefox(firefox, server, line_client, channel):
    typist = line_client(server.lines[0])
    typist.request("NICK ann")
    typist.request(f'PUB {channel} {{"celsius": 21.5}}')
    typist.request(f"SUB {channel}")
    payloads = "#events .event .payload"

    firefox.open(f"{server.page}#{channel}")
    firefox.expect("#state", "connected")
    firefox.expect(payloads, '{"celsius": 21.5}')
    firefox.expect(".chip-value", "21.5")
    firefox.click("#message")
    firefox.press(f"lights on{ENTER}")
    assert typist.receive().endswith(" lights on")
    firefox.expect(payloads, '{"celsius": 21.5}', "lights on")
    firefox.click("#filter")
    firefox.press("celsius>21")
    firefox.expect(payloads, '{"celsius": 21.5}')
    firefox.press(ESCAPE)
    firefox.expect(payloads, '{"celsius": 21.5}', "lights on")
    firefox.click("#events .event:last-child .payload")
    firefox.expect("#drawer-title", f"{channel} 2")
    firefox.press(ESCAPE)
    firefox.expect("#drawer-title")

    firefox.open(f"{server.page}console")
    firefox.expect("#state", "connected")
    firefox.click('a[data-nav="channels"]')
    row = f'#channels-box tr[data-key="{channel}"]'
    firefox.click(f"{row} td:nth-child(2)")
    firefox.expect("#channel-title", channel)
    firefox.expect(payloads, '{"celsius": 21.5}', "lights on")
    firefox.click('a[data-nav="overview"]')
    firefox.expect(".view:not([hidden]) figure.chart canvas", *[""] * 8)
    firefox.click('a[data-nav="peers"]')
    firefox.click(f'#peers-box tr[data-key="{typist.id}"] td:nth-child(2)')
    firefox.expect("#peer-title", "ann")
    firefox.expect("#peer-state", "caught up")
