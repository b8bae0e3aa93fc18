"""The documentation site at ``/docs/``: its files, its Content-Security-Policy, and paths that leave its folder."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from tests.fakes import FakeReactor
from tests.server.http.clients import FakeSite
from twistedsock.server.http.docs_site import content_security_policy, docs_files
from twistedsock.server.http.headers import PAGE_HEADERS

SCRIPT = "document.body.dataset.theme = 'auto';"
STYLE = "body { margin: 0 }"
PAGE = f"""<!doctype html><script>{SCRIPT}</script><script src="_static/search.js"></script><style>{STYLE}</style>
<p style="opacity: 50%">Hello</p><p style="opacity: 50%">again</p>"""


def quoted_hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A built site, and a file beside it."""
    folder = tmp_path / "docs"
    (folder / "how-to").mkdir(parents=True)
    (folder / "_static").mkdir()
    (folder / "index.html").write_text(PAGE)
    (folder / "how-to" / "run.html").write_text("<h1>Run</h1>" * 100)
    (folder / "_static" / "search.js").write_text("// A comment that stays\n")
    (folder / ".buildinfo").write_text("secret")
    (tmp_path / "setup.cfg").write_text("secret")
    (folder / "link.cfg").symlink_to(tmp_path / "setup.cfg")
    (folder / "up").symlink_to(tmp_path)
    return folder


@pytest.fixture
def site(reactor: FakeReactor, folder: Path) -> FakeSite:
    site = FakeSite(reactor)
    site.site.files = {**site.site.files, **docs_files(folder)}
    return site


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/docs/", "text/html; charset=utf-8"),
        ("/docs/index.html", "text/html; charset=utf-8"),
        ("/docs/how-to/run.html?highlight=run", "text/html; charset=utf-8"),
        ("/docs/_static/search.js", "text/javascript; charset=utf-8"),
    ],
)
def test_serves_the_files_of_the_site(site: FakeSite, folder: Path, path: str, content_type: str) -> None:
    response = site().request(path)
    name = path.partition("?")[0].removeprefix("/docs/") or "index.html"
    assert (response.status, response.body) == (200, (folder / name).read_bytes())
    assert response.headers["content-type"] == content_type
    for header, value in PAGE_HEADERS.items():
        if header != b"Content-Security-Policy":
            assert response.headers[header.decode().lower()] == value.decode()
    tag = response.headers["etag"]
    assert site().request(path, If_None_Match=tag).status == 304
    assert site().request(path, "POST").error == (405, "unknown-command")


def test_pages_are_compressed(site: FakeSite) -> None:
    response = site().request("/docs/how-to/run.html", Accept_Encoding="gzip")
    assert response.headers["content-encoding"] == "gzip" and len(response.body) < 100


def test_path_without_a_slash_leads_to_the_site(site: FakeSite) -> None:
    """The links of the site are relative. So is the redirect, because a proxy can serve it under another path."""
    response = site().request("/docs")
    assert (response.status, response.headers["location"], response.body) == (308, "docs/", b"")


@pytest.mark.parametrize(
    "path",
    [
        "/docs/.buildinfo",
        "/docs/link.cfg",
        "/docs/up/setup.cfg",
        "/docs/../setup.cfg",
        "/docs/how-to/../../setup.cfg",
        "/docs/%2e%2e/setup.cfg",
        "/docs/..%2fsetup.cfg",
        "/docs//index.html",
        "/docs/how-to",
        "/docs/how-to/",
        "/docs/index.html%00",
    ],
)
def test_serves_nothing_else(site: FakeSite, path: str) -> None:
    response = site().request(path)
    assert response.status == 404 and b"secret" not in response.body


def test_policy_allows_only_the_scripts_and_styles_of_the_page(site: FakeSite) -> None:
    policy = dict(
        re.findall(r"([\w-]+) ([^;]+)", site().request("/docs/").headers["content-security-policy"]),
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'self' {quoted_hash(SCRIPT)}"
    hashes = f"{quoted_hash(STYLE)} {quoted_hash('opacity: 50%')}"
    assert policy["style-src"] == f"'self' 'unsafe-hashes' {hashes}"
    assert b"unsafe" not in content_security_policy(b"<p>plain</p>")
    assert "sha256" not in site().request("/docs/_static/search.js").headers["content-security-policy"]


def test_reads_a_file_that_was_built_again(site: FakeSite, folder: Path) -> None:
    before = site().request("/docs/how-to/run.html").headers["etag"]
    (folder / "how-to" / "run.html").write_text("<h1>Run again</h1>")
    after = site().request("/docs/how-to/run.html")
    assert after.body == b"<h1>Run again</h1>" and after.headers["etag"] != before
    (folder / "how-to" / "run.html").unlink()
    missing = site().request("/docs/how-to/run.html")
    assert (missing.status, missing.body) == (404, b"")


def test_installation_without_the_site_says_so(reactor: FakeReactor) -> None:
    site = FakeSite(reactor)
    site.site.files = {**site.site.files, **docs_files(None)}
    assert b"No documentation in this installation" in site().request("/docs").body
    redirect = site().request("/docs/")
    assert (redirect.status, redirect.headers["location"]) == (308, "../docs")
