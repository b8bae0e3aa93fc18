"""Firefox, driven by WebDriver BiDi (https://w3c.github.io/webdriver-bidi/). It needs no driver."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.documents import CHECKOUT
from tests.end_to_end.conftest import WebClient
from tests.end_to_end.programs import wait_until

START_SECONDS = 60
WAIT_SECONDS = 20
POLL_SECONDS = 0.05


class Firefox:
    """One tab, and the errors in its console. Elements are named by CSS selectors."""

    def __init__(self, connection: WebClient) -> None:
        self._connection = connection
        self._commands = 0
        self.errors: list[str] = []
        self._call("session.new", capabilities={})
        self._call("session.subscribe", events=["log.entryAdded"])
        self._tab = self._call("browsingContext.create", type="tab")["context"]

    def open(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, through JSON."""
        target = {"context": self._tab}
        found = self._call(
            "script.evaluate", expression=f"JSON.stringify({expression})", target=target, awaitPromise=True
        )
        assert found["type"] == "success", found
        return json.loads(found["result"].get("value", "null"))

    def texts(self, selector: str) -> list[str]:
        """The texts of the visible elements."""
        return self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".filter((one) => one.checkVisibility()).map((one) => one.textContent)"
        )

    def expect(self, selector: str, *texts: str) -> None:
        """Wait until these are the texts of the visible elements."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := self.texts(selector)) != list(texts):
            assert time.monotonic() < deadline, (selector, found, texts)
            time.sleep(POLL_SECONDS)

    def click(self, selector: str) -> None:
        wait_until(lambda: self.texts(selector), selector)
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}}) ?? null")
        locator = {"type": "css", "value": selector}
        node = self._call("browsingContext.locateNodes", context=self._tab, locator=locator)["nodes"][0]
        origin = {"type": "element", "element": {"sharedId": node["sharedId"]}}
        steps = [{"type": "pointerMove", "x": 0, "y": 0, "origin": origin}]
        steps += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._act({"type": "pointer", "id": "mouse", "actions": steps})

    def press(self, keys: str) -> None:
        """Press keys one after the other. ``\\ue007`` is Enter, ``\\ue00c`` Escape (WebDriver, "keyboard actions")."""
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": steps})

    def _act(self, source: dict[str, Any]) -> None:
        self._call("input.performActions", context=self._tab, actions=[source])

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._commands += 1
        self._connection.send(id=self._commands, method=method, params=params)
        while True:
            message = self._connection.receive()
            if message["type"] == "event":
                entry = message["params"]
                if entry["level"] in ("error", "warn"):
                    self.errors.append(entry["text"])
            elif message["id"] == self._commands:
                assert message["type"] == "success", message
                return message["result"]


@contextmanager
def running_firefox(folder: Path) -> Iterator[Firefox]:
    """A headless Firefox with an empty profile."""
    program = shutil.which("firefox-esr") or str(CHECKOUT / ".venv" / "firefox" / "firefox")
    log = folder / "firefox.log"
    command = [program, "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        find = partial(re.search, r"BiDi listening on ws://(\S+)")
        address = wait_until(lambda: find(log.read_text(errors="replace")), "the address of Firefox", START_SECONDS)
        with closing(WebClient(f"http://{address.group(1)}", "/session")) as connection:
            connection.socket.settimeout(START_SECONDS)
            yield Firefox(connection)
    finally:
        process.terminate()
        process.wait(START_SECONDS)
