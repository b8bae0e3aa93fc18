"""Files: as they are or packed, and not sent again to who has them."""

import gzip

import pytest

from tests.server.http_visits import Place
from twistedsock.server.http.headers import accepts_gzip, matches_etag
from twistedsock.server.http.static import StaticFile, static_files


@pytest.fixture
def place(reactor, wire):
    return Place(reactor, wire)


def put(place, monkeypatch, name, body):
    """One more file."""
    files = {**place.site.files, name.encode(): StaticFile(name, body)}
    monkeypatch.setattr(place.site, "files", files)


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css"])
def test_what_is_packed_is_the_same(place, path):
    plain, packed = place().asks(path), place().asks(path, Accept_Encoding="br, gzip")
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 2
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding, Origin"
    assert plain.headers["etag"] != packed.headers["etag"]
    assert plain.headers["content-type"] == packed.headers["content-type"]


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_who_has_it_is_not_sent_it_again(place, encoding):
    tag = place().asks("/page.js", Accept_Encoding=encoding).headers["etag"]
    answer = place().asks("/page.js", Accept_Encoding=encoding, If_None_Match=f'"other", W/{tag}')
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == tag and answer.headers["vary"] == "Accept-Encoding, Origin"
    assert "content-length" not in answer.headers
    other = place().asks("/page.js", Accept_Encoding="" if encoding else "gzip", If_None_Match=tag)
    assert other.status == 200


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_head_tells_what_get_would(place, encoding):
    told, whole = (place().asks("/page.js", method, Accept_Encoding=encoding) for method in ("HEAD", "GET"))
    assert told.body == b"" and told.status == whole.status == 200
    assert told.headers["content-length"] == str(len(whole.body))
    assert told.headers["etag"] == whole.headers["etag"]


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
def test_who_takes_gzip(header, wanted):
    assert accepts_gzip(header) is wanted


@pytest.mark.parametrize(
    ("header", "found"),
    [(b"", False), (b'"a"', True), (b'W/"a"', True), (b'"b","a"', True), (b"*", True), (b"a", False), (b'"ab"', False)],
)
def test_who_has_it(header, found):
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
def test_each_file_has_its_type(place, monkeypatch, name, kind):
    put(place, monkeypatch, name, b"x" * 1000)
    answer = place().asks(name, Accept_Encoding="gzip")
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("content-encoding" in answer.headers) is kind.startswith(("text/", "application/json", "image/svg"))


def test_what_does_not_become_smaller_is_not_packed(place, monkeypatch):
    put(place, monkeypatch, "/a.txt", b"x")
    answer = place().asks("/a.txt", Accept_Encoding="gzip")
    assert answer.body == b"x" and answer.headers["vary"] == "Origin"


def test_a_folder_is_its_index():
    paths = static_files()
    assert b"/" in paths
    assert not [path for path in paths if path.endswith(b"/index.html")]
    assert all(path == b"/" or not path.endswith(b"/") for path in paths)


def test_each_start_packs_the_same_bytes(place):
    packed = place().asks("/page.js", Accept_Encoding="gzip").body
    assert packed[4:8] == bytes(4), "the time of the packing (RFC 1952 section 2.3.1)"
