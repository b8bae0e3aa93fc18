"""A real Chromium, and pages of it that must not complain."""

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

TELLS_OF_VIOLATIONS = """
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
  console.error('violates the policy:', violatedDirective, blockedURI);
});
"""


@contextmanager
def chromium_running() -> Iterator[Any]:
    # Only those who need it wait for the import.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page and what its console complained about; a violation of the Content-Security-Policy stands there, too."""

    def __init__(self, context: Any) -> None:
        context.set_default_timeout(20_000)
        context.add_init_script(TELLS_OF_VIOLATIONS)
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("requestfailed", lambda request: self._note("error", f"{request.url}: {request.failure}"))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def opens(self, url: str) -> Any:
        self.page.goto(url)
        self.is_connected()
        return self.page

    def is_connected(self) -> None:
        from playwright.sync_api import expect

        # Coming back by itself, the page waits up to half a minute between two attempts.
        expect(self.page.locator("#state")).to_have_attribute("data-state", "open", timeout=60_000)


def watching(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Open pages: ``open_page(**options of the context)``. One that complains fails the test."""
    contexts: list[Any] = []
    pages: list[Watched] = []

    def watched(**options: Any) -> Watched:
        contexts.append(browser.new_context(**options))
        pages.append(Watched(contexts[-1]))
        return pages[-1]

    yield watched
    for context in contexts:
        context.close()
    assert [complaint for page in pages for complaint in page.complaints] == []
