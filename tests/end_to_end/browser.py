"""Chromium, with pages that must not log errors."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

REPORT_POLICY_VIOLATIONS = """
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
  console.error('policy violation:', violatedDirective, blockedURI);
});
"""

TARGETS = "button, select, textarea, input, summary, .nav a, .choice label, tbody tr, .events .event"

# The whole row and the whole label are the targets of an offset and a radio button.
SMALL_TARGETS = """(targets) => [...document.querySelectorAll(targets)]
  .filter((one) => one.checkVisibility() && !one.matches('.skip, .choice input, .offset'))
  .map((one) => [one, one.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.height < 43.9 || box.width < 43.9))
  .map(([one, box]) => `${one.outerHTML.slice(0, 80)} ${box.width} x ${box.height}`)"""


@contextmanager
def running_chromium() -> Iterator[Any]:
    # Imported here because it is slow and most tests do not need it.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a path, playwright starts the one that it fetched.
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=installed, args=FLAGS)
        yield browser
        browser.close()


class MonitoredPage:
    """A page and the errors in its console, including violations of the Content-Security-Policy."""

    def __init__(self, context: Any) -> None:
        context.set_default_timeout(20_000)
        context.add_init_script(REPORT_POLICY_VIOLATIONS)
        self.page = context.new_page()
        self.errors: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self._aborted: list[str] = []
        self._is_leaving = False
        self.page.on("request", self._note_request)
        self.page.on("requestfailed", self._note_failure)
        self.page.on("framenavigated", lambda frame: self._note_arrival(frame))
        self._goto, self.page.goto = self.page.goto, self._leave
        self.page.on("close", lambda page: self._aborted.clear())

    def _leave(self, url: str, **options: Any) -> Any:
        """Go to another page. There is no request for ``about:blank``."""
        self._is_leaving = True
        return self._goto(url, **options)

    def _note_request(self, request: Any) -> None:
        if request.is_navigation_request():
            self._is_leaving = True

    def _note_arrival(self, frame: Any) -> None:
        if frame == self.page.main_frame:
            self._is_leaving = False

    def _note_failure(self, request: Any) -> None:
        text = f"{request.url}: {request.failure}"
        if "ERR_ABORTED" not in text:
            self._note("error", text)
        elif request.url.endswith("/origin"):
            pass  # the client aborts this check when a WebSocket opens, or when the status of the response is known
        elif request.is_navigation_request():  # a download: the page stays
            self._is_leaving = False
        elif not self._is_leaving:  # a page that is left or closed aborts its requests
            self._aborted.append(text)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)

    @property
    def problems(self) -> list[str]:
        return [*self.errors, *self._aborted]

    def open(self, url: str) -> Any:
        self.page.goto(url)
        self.wait_until_connected()
        return self.page

    def forget_refused_connections(self) -> None:
        """The browser reports each failed attempt to connect to a server that is down."""
        self.errors[:] = [error for error in self.errors if "ERR_CONNECTION_REFUSED" not in error]

    def wait_until_connected(self) -> None:
        from playwright.sync_api import expect

        # The page waits up to 30 s between two attempts to reconnect.
        expect(self.page.locator("#state")).to_have_attribute("data-state", "open", timeout=60_000)


def small_targets(page: Any) -> list[str]:
    """The visible controls that are smaller than 44 pixels, which fingers miss (WCAG 2.2, success criterion 2.5.5)."""
    small: list[str] = page.evaluate(SMALL_TARGETS, TARGETS)
    return small


def monitored_pages(browser: Any) -> Iterator[Callable[..., MonitoredPage]]:
    """Open pages: ``open_page(**options of the context)``. Errors in a page fail the test."""
    contexts: list[Any] = []
    pages: list[MonitoredPage] = []

    def monitored(**options: Any) -> MonitoredPage:
        contexts.append(browser.new_context(**options))
        pages.append(MonitoredPage(contexts[-1]))
        return pages[-1]

    yield monitored
    problems = [problem for page in pages for problem in page.problems]  # before closing aborts the requests
    for context in contexts:
        context.close()
    assert problems == [], problems  # pytest shows no values here, because this is no test module
