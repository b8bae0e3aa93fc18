"""Static files: content, compression, caching and security headers."""

import gzip
import json
import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest

from tests.fakes import FakeReactor, Logged
from tests.server.http.clients import FakeSite, SiteClient
from twistedsock.server.http.headers import DATA_HEADERS, PAGE_HEADERS, accepts_gzip, matches_etag
from twistedsock.server.http.static import PUBLIC_FILES, StaticFile, static_files, without_comments

LINES: list[dict[str, object]] = [{"kind": "tcp", "host": "127.0.0.1", "port": 8081}]
STATIC = Path(str(files("twistedsock"))) / "static"
NAMES = sorted(str(file.relative_to(STATIC)) for file in STATIC.rglob("*") if file.is_file())


@pytest.fixture
def site(reactor: FakeReactor) -> FakeSite:
    return FakeSite(reactor)


def put(site: FakeSite, monkeypatch: pytest.MonkeyPatch, name: str, body: bytes) -> None:
    """Add a file."""
    files = {**site.site.files, name.encode(): StaticFile(name, body)}
    monkeypatch.setattr(site.site, "files", files)


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css"])
def test_compressed_file_has_the_same_content(site: FakeSite, path: str) -> None:
    plain, compressed = site().request(path), site().request(path, Accept_Encoding="br, gzip")
    assert compressed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert gzip.decompress(compressed.body) == plain.body
    assert len(compressed.body) < len(plain.body) / 2
    assert plain.headers["vary"] == compressed.headers["vary"] == "Accept-Encoding, Origin"
    assert plain.headers["etag"] != compressed.headers["etag"]
    assert plain.headers["content-type"] == compressed.headers["content-type"]


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_unchanged_file_is_304(site: FakeSite, encoding: str) -> None:
    tag = site().request("/page.css", Accept_Encoding=encoding).headers["etag"]
    assert encoding or tag == f'"{sha256((STATIC / "page.css").read_bytes()).hexdigest()[:16]}"'
    response = site().request("/page.css", Accept_Encoding=encoding, If_None_Match=f'"other", W/{tag}')
    assert (response.status, response.body) == (304, b"")
    assert response.headers["etag"] == tag and response.headers["vary"] == "Accept-Encoding, Origin"
    assert "content-length" not in response.headers
    other = site().request("/page.css", Accept_Encoding="" if encoding else "gzip", If_None_Match=tag)
    assert other.status == 200


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (b"", False),
        (b"gzip", True),
        (b"GZip", True),
        (b"br, gzip;q=0.5", True),
        (b"*", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"gzip;q=0.001", True),
        (b"gzip;q=1", True),
        (b"identity", False),
        (b"xgzip", False),
        (b"br", False),
    ],
)
def test_parses_accept_encoding(header: bytes, wanted: bool) -> None:
    assert accepts_gzip(header) is wanted


@pytest.mark.parametrize(
    ("header", "found"),
    [(b"", False), (b'"a"', True), (b'W/"a"', True), (b'"b","a"', True), (b"*", True), (b"a", False), (b'"ab"', False)],
)
def test_parses_if_none_match(header: bytes, found: bool) -> None:
    assert matches_etag(header, b'"a"') is found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/vendor/chart.mjs", "text/javascript; charset=utf-8"),
        ("/vendor/LICENSE.txt", "text/plain; charset=utf-8"),
        ("/openapi.json", "application/json"),
        ("/a.woff2", "font/woff2"),
        ("/a.png", "image/png"),
        ("/a.svg", "image/svg+xml; charset=utf-8"),
        ("/a.unknown-kind", "application/octet-stream"),
    ],
)
def test_content_type_depends_on_the_extension(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    put(site, monkeypatch, name, b"x" * 1000)
    response = site().request(name, Accept_Encoding="gzip")
    assert response.headers["content-type"] == kind
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("content-encoding" in response.headers) is kind.startswith(("text/", "application/json", "image/svg"))


def test_does_not_compress_small_files(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    put(site, monkeypatch, "/a.txt", b"x")
    response = site().request("/a.txt", Accept_Encoding="gzip")
    assert response.body == b"x" and response.headers["vary"] == "Origin"


def test_serves_the_index_of_a_folder() -> None:
    paths = static_files()
    assert b"/" in paths
    assert not [path for path in paths if path.endswith(b"/index.html")]
    assert all(path == b"/" or not path.endswith(b"/") for path in paths)


def test_compression_is_reproducible(site: FakeSite) -> None:
    compressed = site().request("/page.js", Accept_Encoding="gzip").body
    assert compressed[4:8] == bytes(4), "the time of the compression (RFC 1952 section 2.3.1)"


@pytest.fixture
def page_client(reactor: FakeReactor) -> SiteClient:
    """A connection to a site with a line port."""
    return FakeSite(reactor, line_ports=lambda: list(LINES))()


@pytest.mark.parametrize("name", NAMES)
def test_serves_all_files_with_their_content_type(page_client: SiteClient, name: str) -> None:
    kinds = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}
    kinds |= {"ts": "text/plain", "md": "text/markdown"}
    response = page_client.request("/" + name.removesuffix("index.html").rstrip("/"))
    source = (STATIC / name).read_bytes()
    is_module = name.endswith(".js") and f"/{name}" not in PUBLIC_FILES and "vendor" not in name
    body = without_comments(source.decode()).encode() if is_module else source
    assert (response.status, response.body) == (200, body)
    kind = kinds.get(name.rpartition(".")[2])
    other = "application/json" if name.endswith(".json") else "application/octet-stream"
    assert response.headers["content-type"] == (f"{kind}; charset=utf-8" if kind else other)
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js") and "vendor" not in name])
def test_modules_lose_only_lines_of_comments(name: str) -> None:
    source = (STATIC / name).read_text().split("\n")
    served = without_comments("\n".join(source)).split("\n")
    assert len(served) == len(source)
    removed = [before.strip() for before, after in zip(source, served, strict=True) if before != after]
    assert all(line.startswith(("//", "/*", "*")) for line in removed), removed


def test_comments_are_removed_outside_of_template_strings_only() -> None:
    source = """/** A module. */
// About it.
const url = 'http://host/'; // stays
/*
 * More.
 */
const text = `
// not a comment
/* nor this */
`;
  // Indented.
/* Two */ const two = 2;"""
    kept = """

const url = 'http://host/'; // stays



const text = `
// not a comment
/* nor this */
`;

/* Two */ const two = 2;"""
    assert without_comments(source.rpartition("\n")[0]) == kept.rpartition("\n")[0]
    assert without_comments(source) == source, "code after a comment: too complicated"
    assert without_comments("// a\nconst quote = '`';") == "// a\nconst quote = '`';", "unclear where templates end"


@pytest.mark.parametrize("page, script", [("index.html", "page"), ("console/index.html", "console/console")])
def test_pages_refer_to_existing_files(page: str, script: str) -> None:
    named = set(re.findall(r'(?:src|href)="/?([^"#:]+)"', (STATIC / page).read_text()))
    assert named <= {*NAMES, "", "console", "docs", "/"}
    assert {f"{script}.js", f"{script}.css"} <= named


def imports(entry: Path) -> set[Path]:
    """The modules that a module imports, directly or not, and itself."""
    found: set[Path] = set()
    waiting: list[Path] = [entry]
    while waiting:
        module = waiting.pop()
        found.add(module)
        named = re.findall(r"""^(?:import .*|}) from '(\.[^']+)';$""", module.read_text(), re.MULTILINE)
        waiting += {(module.parent / name).resolve() for name in named} - found
    return found


@pytest.mark.parametrize("page, entry", [("index.html", "page.js"), ("console/index.html", "console/console.js")])
def test_pages_preload_all_their_modules(page: str, entry: str) -> None:
    announced = re.findall(r'rel="modulepreload" href="/?([^"]+)"', (STATIC / page).read_text())
    needed = {str(module.relative_to(STATIC.resolve())) for module in imports((STATIC / entry).resolve())}
    assert {*announced, entry} == needed


def test_console_has_a_limited_size(site: FakeSite) -> None:
    """Compressed, with all of its modules and styles."""
    files = re.findall(r'<(?:link|script)[^>]* (?:href|src)="(/[^"]+)"', (STATIC / "console/index.html").read_text())
    responses = [site().request(path, Accept_Encoding="gzip") for path in ("/console", *files)]
    assert all(response.status == 200 for response in responses)
    assert sum(len(response.body) for response in responses) < 130_000


@pytest.mark.parametrize("path", ["/", "/sockbridge.js", "/bridge.json", "/ws", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def test_every_response_has_security_headers(page_client: SiteClient, path: str, method: str) -> None:
    response = page_client.request(path, method)
    for name, value in (
        PAGE_HEADERS if response.status == 200 and path in ("/", "/sockbridge.js") else DATA_HEADERS
    ).items():
        assert response.headers[name.decode().lower()] == value.decode()


def test_content_security_policy_allows_own_files_only(page_client: SiteClient) -> None:
    rules = dict(
        rule.strip().split(" ", 1) for rule in page_client.request("/").headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["img-src"] == "'self' blob:"  # pictures that are the bytes of an event


def test_only_the_javascript_client_allows_other_origins(page_client: SiteClient) -> None:
    for path in PUBLIC_FILES:
        assert page_client.request(path).headers["access-control-allow-origin"] == "*"
    for path in ("/", "/page.js", "/bridge.json", "/nothing"):
        assert "access-control-allow-origin" not in page_client.request(path).headers


@pytest.mark.parametrize("path", ["/", "/page.js", "/bridge.json", "/nothing", "/ws"])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_head_has_the_headers_of_get(page_client: SiteClient, path: str, encoding: str) -> None:
    head, whole = (page_client.request(path, method, Accept_Encoding=encoding) for method in ("HEAD", "GET"))
    assert (head.status, head.body, head.headers) == (whole.status, b"", whole.headers)
    assert head.headers["content-length"] == str(len(whole.body))


def test_page_configuration_lists_the_line_ports(page_client: SiteClient) -> None:
    response = page_client.request("/bridge.json")
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body) == {"lines": LINES, "version": "0.0"}


@pytest.mark.parametrize(
    "path", ["/index.html", "/static/page.js", "/../setup.cfg", "/%2e%2e/setup.cfg", "//", "/PAGE.JS"]
)
def test_unknown_path_is_404(page_client: SiteClient, path: str) -> None:
    assert page_client.request(path).status == 404


def test_ignores_the_query_of_a_file(page_client: SiteClient) -> None:
    assert page_client.request("/?channel=kitchen").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "QUARREL"])
def test_rejects_other_methods_for_files(page_client: SiteClient, method: str) -> None:
    response = page_client.request("/", method)
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")


def test_does_not_log_requests(page_client: SiteClient, logged: Logged) -> None:
    page_client.request("/?token=secret")
    assert logged == []
