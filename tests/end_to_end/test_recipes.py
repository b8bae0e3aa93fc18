"""Uses the panels of React, Vue and Svelte in examples/recipes, built and from Vite's development server, and the
dashboard, in Chromium."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.documents import CHECKOUT
from tests.end_to_end.programs import Program, free_ports

pytestmark = pytest.mark.end_to_end

VITE = ("node", str(CHECKOUT / "node_modules" / "vite" / "bin" / "vite.js"))
CONFIGURATION = ("--config", str(CHECKOUT / "examples" / "recipes" / "vite.config.js"))
WAIT = 20_000
"""Milliseconds, as for the other pages: the default of ``expect`` is too short for a loaded machine."""

START_SECONDS = 60.0
"""Timeout of the start of Vite: it takes 4 s, because the development server first bundles the packages."""

FRAMEWORKS = ["React", "Vue", "Svelte"]


def environment(server: Any) -> dict[str, str]:
    """Variables with which Vite passes requests on to this server."""
    return {**os.environ, "SOCKBRIDGE": server.page.rstrip("/")}


@contextmanager
def vite(server: Any, folder: Path, *arguments: str) -> Iterator[tuple[Program, str]]:
    """Runs Vite as a web server that passes requests to the server on. Returns it and its address."""
    (port,) = free_ports(1)
    command = (*VITE, *arguments, "--host", "127.0.0.1", "--port", str(port), "--strictPort")
    program = Program(folder, command, folder / "output", env=environment(server))
    try:
        # Its port accepts connections earlier, for a moment, when Vite tests whether the port is free.
        program.prints("Local", START_SECONDS)
        yield program, f"http://127.0.0.1:{port}/"
    finally:
        program.stop()


@pytest.fixture(scope="module")
def preview(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, str]]:
    """``vite preview``, which delivers the built page."""
    folder = tmp_path_factory.mktemp("recipes")
    target = ("--outDir", str(folder / "dist"), *CONFIGURATION)
    built = subprocess.run(
        [*VITE, "build", *target], cwd=folder, env=environment(server), capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0 and "arn" not in built.stderr, built.stdout + built.stderr
    with vite(server, folder, "preview", *target) as running:
        yield running


@pytest.fixture
def development_page(server: Any, tmp_path: Path) -> Iterator[str]:
    """The address of a development server, which bundles the packages anew, as after ``npm ci``."""
    with vite(server, tmp_path, "--force", *CONFIGURATION) as (_, address):
        yield address


@pytest.fixture(scope="module")
def page(chromium: Any, preview: tuple[Program, str]) -> Iterator[Page]:
    """The page with a panel of each framework."""
    context = chromium.new_context()
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.goto(preview[1])
    yield page
    context.close()


def panel_of(page: Page, framework: str, channel: str) -> Locator:
    """The panel of a framework, for this channel."""
    panel = page.get_by_role("region", name=framework)
    expect(panel.get_by_role("heading")).to_have_text(f"{framework}, open", timeout=WAIT)
    panel.get_by_label("channel").fill(channel)
    return panel


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_panel_shows_the_newest_events_of_a_channel(page, framework, server, line_client, channel):
    line = line_client(server.lines[0])
    for number in range(4):
        line.request(f'PUB {channel} {{"celsius": {number}}}')
    panel = panel_of(page, framework, channel)
    expect(panel.get_by_role("status")).to_have_text('{"celsius":3}', timeout=WAIT)
    line.request(f"PUB {channel} warm")
    expect(panel.get_by_role("status")).to_have_text('"warm"', timeout=WAIT)
    expect(panel.get_by_role("listitem")).to_have_text(['3 {"celsius":2}', '4 {"celsius":3}', '5 "warm"'], timeout=WAIT)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_panel_leaves_the_channel_before(page, framework, server, line_client, channel):
    line = line_client(server.lines[0])
    line.request(f"PUB {channel} one")
    panel = panel_of(page, framework, channel)
    expect(panel.get_by_role("status")).to_have_text('"one"', timeout=WAIT)
    panel.get_by_label("channel").fill(f"{channel}-2")
    expect(panel.get_by_role("status")).to_have_text("nothing yet", timeout=WAIT)
    expect(panel.get_by_role("listitem")).to_have_count(0, timeout=WAIT)
    line.send(f"WHO {channel}")
    assert line.receive_until("OK ")[-1] == "OK 0"


def test_panels_show_a_lost_connection(page, preview):
    """The last test with the panels, because it ends ``vite preview``."""
    program, _ = preview
    program.stop()
    for framework in FRAMEWORKS:
        heading = page.get_by_role("region", name=framework).get_by_role("heading")
        expect(heading).to_have_text(f"{framework}, waiting", timeout=WAIT)


def test_development_server_delivers_the_panels(development_page, open_page):
    """Unlike ``vite build``, it would take a file ``svelte.js`` in its folder for the package ``svelte``."""
    page = open_page().page
    page.goto(development_page)
    for framework in FRAMEWORKS:
        heading = page.get_by_role("region", name=framework).get_by_role("heading")
        expect(heading).to_have_text(f"{framework}, open", timeout=WAIT)


def test_dashboard_shows_values_and_continues_after_a_restart(start, line_client, open_page, serve_folder, tmp_path):
    origin = serve_folder(CHECKOUT / "examples")
    options = ("--allow-origin", origin, "--state", str(tmp_path / "state"))
    server = start(*options)
    line = line_client(server.lines[0])
    line.request('PUB kitchen {"celsius": 20}')
    line.request('PUB kitchen {"celsius": 22}')
    monitored = open_page()
    page = monitored.page
    page.goto(f"{origin}/dashboard.html?server={server.page.rstrip('/')}&channel=kitchen&channel=garden&channel=a*")
    kitchen, garden = (page.get_by_role("region", name=name) for name in ("kitchen", "garden"))
    expect(kitchen.get_by_role("status")).to_have_text('{"celsius":22}', timeout=WAIT)
    expect(kitchen.locator("polyline")).to_have_attribute("points", "0,100 100,0", timeout=WAIT)
    expect(garden.get_by_role("status")).to_have_text("…", timeout=WAIT)
    expect(page.get_by_role("region", name="a*")).to_contain_text("invalid channel", timeout=WAIT)
    server.stop()
    expect(page.get_by_text("waiting", exact=True)).to_be_visible(timeout=WAIT)
    server = start.again(server, *options)
    line = line_client(server.lines[0])
    line.request('PUB kitchen {"celsius": 21}')
    line.request("PUB garden rain")
    expect(garden.get_by_role("status")).to_have_text("rain", timeout=WAIT)
    expect(kitchen.locator("polyline")).to_have_attribute("points", "0,100 50,0 100,50", timeout=WAIT)
    monitored.errors.clear()  # the browser reports each failed attempt to connect
