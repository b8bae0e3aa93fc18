"""Takes the screenshots of README and docs in Chromium, for `make pictures`: a server with busy clients.

It takes some minutes, so that the charts have something to show. It uses the default ports, because they are visible.
"""

import argparse
import json
import math
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGES = CHECKOUT / "docs" / "images"
LINES = ("127.0.0.1", 8081)
WEB = ("127.0.0.1", 8082)
SIZE = {"width": 1200, "height": 760}
SCALE = 1.5
"""Pixels of the picture per pixel of the page."""
PACE = 0.25
"""Seconds between two rounds of publications."""
ROOMS = "kitchen garden garden/pond hall attic cellar/boiler thermo/north thermo/south doorbell co2 lights chat".split()
PEOPLE = ("ann", "bob", "carl", "dora", "eve", "fred", "")
TALK = (
    "is the kettle on?",
    "two minutes",
    "the cat is on the table again",
    "21 degrees, at last",
    "is the light still on?",
)


def connect(address: tuple[str, int], text: str, buffer: int = 0) -> socket.socket:
    """Open a connection and send ``text``. ``buffer`` limits the receive buffer of the kernel."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(address)
    connection.sendall(text.encode())
    return connection


def read_all(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(65536):
            pass


def reading(connection: socket.socket) -> socket.socket:
    """Read and discard everything in the background."""
    threading.Thread(target=read_all, args=(connection,), daemon=True).start()
    return connection


def on_lines(nick: str, *commands: str) -> socket.socket:
    """Connect a line client that reads."""
    sent = [f"NICK {nick}"] * bool(nick) + list(commands)
    return reading(connect(LINES, "".join(f"{command}\n" for command in sent)))


def on_stream(channel: str) -> socket.socket:
    """Connect a client of server-sent events."""
    head = f"GET /channels/{channel}/events HTTP/1.1\r\nHost: {WEB[0]}:{WEB[1]}\r\nAccept: text/event-stream\r\n\r\n"
    return reading(connect(WEB, head))


def reading_of(room: str, rounds: int, chance: random.Random) -> str:
    """What a room publishes: values that change slowly, or a word."""
    base = 9 + sum(room.encode()) % 13
    wave, noise = math.sin(rounds / 60 + base), chance.random() / 5
    match room:
        case "chat":
            return chance.choice(TALK)
        case "doorbell":
            return "ring"
        case "co2":
            return json.dumps({"ppm": round(640 + 90 * wave + 10 * noise)})
        case "lights":
            return json.dumps({"on": True, "watts": round(46 + 6 * wave)})
        case "cellar/boiler":
            return json.dumps({"celsius": round(56 + 3 * wave + noise, 1), "bar": round(1.6 + wave / 10, 2)})
    return json.dumps({"celsius": round(base + 2 * wave + noise, 1), "humidity": round(52 - 9 * wave)})


class Household:
    """The clients of a house: sensors, people, a camera and a slow reader."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._people = [on_lines(nick, "SUB kitchen", *self._rooms()) for nick in PEOPLE * 2]
        self._people += [on_stream(room) for room in chance.sample(ROOMS, 4)]
        self._thermometer = on_lines("thermometer")
        self._door = on_lines("door")
        self._camera = on_lines("camera")
        self._ann = on_lines("ann")
        self._slow = connect(LINES, "NICK slowpoke\nSUB camera\n", 4096)
        self._visitor: socket.socket | None = None
        self._rounds = 0

    def _rooms(self) -> list[str]:
        return [f"SUB {room}" for room in self._chance.sample(ROOMS[1:], 3)]

    def play(self) -> None:
        """Publish until the server stops."""
        with suppress(OSError):
            while True:
                self._play_round()
                time.sleep(PACE)

    def _play_round(self) -> None:
        self._rounds += 1
        rounds, chance = self._rounds, self._chance
        if rounds % 6 == 0:
            celsius = round(21 + 2 * math.sin(rounds / 50) + chance.random() / 5, 1)
            values = {"celsius": celsius, "humidity": round(48 - 5 * math.sin(rounds / 50)), "battery": 3.71}
            self._thermometer.sendall(f"PUB kitchen {json.dumps(values)}\n".encode())
        if rounds % 34 == 0:
            self._ann.sendall(f"PUB kitchen {chance.choice(TALK)}\n".encode())
        for room in ROOMS[1:]:
            if chance.random() < (0.01 if room in ("chat", "doorbell") else 0.3):
                self._door.sendall(f"PUB {room} {reading_of(room, rounds, chance)}\n".encode())
        frames = int(14 + 12 * math.sin(rounds / 40) + 60 * (rounds % 130 < 12))
        self._camera.sendall(self._frames(max(1, frames)))
        if rounds % 90 == 80:
            self._let_slow_read()
        if rounds % 40 == 0:
            self._let_visitor_come_or_go()

    def _frames(self, count: int) -> bytes:
        return b"".join(b'PUB camera {"frame": %d, "jpeg": "%s"}\n' % (n, b"x" * 900) for n in range(count))

    def _let_slow_read(self) -> None:
        self._slow.settimeout(0.3)
        with suppress(TimeoutError):
            while self._slow.recv(1 << 20):
                pass

    def _let_visitor_come_or_go(self) -> None:
        if self._visitor is None:
            self._visitor = on_lines("visitor", "SUB hall")
        else:
            self._visitor.sendall(b"QUIT\n")
            self._visitor = None


def program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def start(*options: str | Path) -> subprocess.Popen[bytes]:
    """A server on the default ports, when it listens."""
    command = [program("twistd"), "-n", "--pidfile=", "sockbridge", *options]
    bridge = subprocess.Popen(command, cwd=tempfile.mkdtemp(), stdout=subprocess.DEVNULL)
    for address in (LINES, WEB):
        while True:
            if bridge.poll() is not None:
                raise SystemExit("the bridge has ended: are its ports taken?")
            with suppress(OSError), socket.create_connection(address, 1):
                break
            time.sleep(0.1)
    urlopen(f"http://{WEB[0]}:{WEB[1]}/readyz").close()  # it listens before it has opened its directory
    return bridge


def show_whole_rows(page: Page) -> None:
    """Make the window smaller, so that no event is cut at the top of the list."""
    excess: float = page.evaluate(
        "document.querySelector('#event-scroll').clientHeight % document.querySelector('#events .event').offsetHeight"
    )
    page.set_viewport_size({**SIZE, "height": SIZE["height"] - round(excess)})


def take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(f"{name}.png: {(IMAGES / f'{name}.png').stat().st_size // 1024} KiB", flush=True)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def take_day() -> None:
    """A day of a thermometer, which a server reads from its directory."""
    folder = Path(tempfile.mkdtemp())
    state, day = folder / "state", folder / "day.jsonl"
    stop(start("--state", state))
    with day.open("wb") as file:
        subprocess.run([sys.executable, CHECKOUT / "examples" / "thermometer_day.py"], stdout=file, check=True)
    subprocess.run([program("sockbridge"), "state", state, "import", "kitchen", day], check=True)
    bridge = start("--state", state)
    try:
        with chromium() as browser:
            page = browser.new_context(viewport=SIZE, device_scale_factor=SCALE).new_page()
            page.goto(f"http://{WEB[0]}:{WEB[1]}/#kitchen")
            page.locator('#value-chart input[value="all"]').check(force=True)
            page.wait_for_function(
                "() => document.querySelector('#value-chart .plot').getAttribute('aria-valuemax') === '1439'"
            )
            take(page, "thermometer-day")
    finally:
        stop(bridge)


def stop(bridge: subprocess.Popen[bytes]) -> None:
    bridge.terminate()
    bridge.wait()


def take_all(seconds: float) -> None:
    with chromium() as browser:

        def opened(path: str, **options: Any) -> Page:
            page = browser.new_context(viewport=SIZE, device_scale_factor=SCALE, **options).new_page()
            page.goto(f"http://{WEB[0]}:{WEB[1]}/{path}")
            return page

        others = [opened("#kitchen,garden") for _ in range(2)]
        page, overview = opened("#kitchen,garden,cellar/boiler,chat"), opened("console")
        page.fill("#nick", "you")
        page.click("#nick-set")
        time.sleep(seconds)
        dark = opened("console", color_scheme="dark")
        board = opened("#board")
        channel, peers = opened("console#/channels/kitchen"), opened("console#/peers?order=lag")
        time.sleep(6)
        for shown in (page, channel):
            show_whole_rows(shown)
        page.fill("#message", "I am on my way")
        page.click("#send")
        time.sleep(1)
        take(page, "page")
        take(board, "board")
        take(overview, "console-overview")
        take(dark, "console-overview-dark")
        take(channel, "console-channel")
        take(peers, "console-peers")
        peers.click("text=slowpoke")
        peers.wait_for_selector("#steps .step")
        time.sleep(3)
        take(peers, "console-peer")
        for other in others:
            other.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=5, help="how long peers talk before the pictures are taken [5]"
    )
    seconds = 60 * parser.parse_args().minutes
    bridge = start()
    try:
        household = Household(random.Random(7))
        threading.Thread(target=household.play, daemon=True).start()
        take_all(seconds)
    finally:
        stop(bridge)
    take_day()


if __name__ == "__main__":
    main()
