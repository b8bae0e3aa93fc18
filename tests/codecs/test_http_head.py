"""The head of a request, read as far as the doors need it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.http import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    RequestHead,
    can_begin_head,
    error_response,
    has_too_many_headers,
    http_on_line_port,
    origin_form,
    read_head,
)


def test_the_wrong_door() -> None:
    """A browser on the line port reads where the web port is."""
    answer = http_on_line_port("http://127.0.0.1:8082/")
    assert answer == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 74\r\n"
        b"Connection: close\r\n"
        b"X-Content-Type-Options: nosniff\r\n"
        b"\r\n"
        b"this port speaks the line protocol, not HTTP: use the web port at http://127.0.0.1:8082/\n"
    ).replace(b"74", b"%d" % len(answer.partition(b"\r\n\r\n")[2]))
    assert b"this server has no web port\n" in http_on_line_port("")


def test_a_refusal() -> None:
    """An answer that refuses is whole: its length counts bytes, and its headers stand in it."""
    answer = error_response(503, "später", (("Retry-After", "5"),))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5" in head
    assert body == "später\n".encode()
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert b"\r\nConnection: close\r\n" in head


@pytest.mark.parametrize("status", [400, 403, 404, 408, 421, 431, 503])
def test_every_status_that_we_use_has_its_phrase(status: int) -> None:
    """A refusal of each kind can be written."""
    assert error_response(status, "no").startswith(b"HTTP/1.1 %d " % status)


def head(*lines: str) -> bytes:
    return "".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1")


UPGRADE = (
    "GET /ws?token=x HTTP/1.1",
    "Host: 127.0.0.1:8082",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Origin: http://127.0.0.1:8082",
    "Sec-WebSocket-Protocol: sockbridge.v1.json, other",
)


def test_an_upgrade() -> None:
    """All that the doors ask about a WebSocket handshake."""
    assert read_head(head(*UPGRADE)) == RequestHead(
        method="GET",
        path="/ws",
        host="127.0.0.1:8082",
        origin="http://127.0.0.1:8082",
        upgrade=True,
        subprotocols=("sockbridge.v1.json", "other"),
        query="token=x",
    )


def test_a_plain_request() -> None:
    """Without headers there is no host, no origin and no upgrade."""
    assert read_head(head("GET / HTTP/1.0")) == RequestHead("GET", "/", "", None, False, ())


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", ("/", None)),
        ("GET", "//a?b=c", ("//a?b=c", None)),
        ("GET", "http://a:1/b?c=d", ("/b?c=d", "a:1")),
        ("GET", "HTTPS://A", ("/", "A")),
        ("GET", "http://a?b", ("/?b", "a")),
        ("OPTIONS", "*", ("*", None)),
        ("GET", "*", None),
        ("GET", "", None),
        ("GET", "a", None),
        ("GET", "http:///a", None),
        ("GET", "http://a/b#c", None),
        ("GET", "ftp://a/b", None),
        ("GET", "/a\tb", None),
        ("CONNECT", "a:443", None),
    ],
)
def test_a_target_is_reduced_to_origin_form(method: str, target: str, expected: object) -> None:
    assert origin_form(method, target) == expected


@pytest.mark.parametrize(
    ("lines", "host", "is_valid"),
    [
        (["GET / HTTP/1.1", "Host: a"], "a", True),
        (["GET / HTTP/1.1"], "", False),
        (["GET / HTTP/1.0"], "", True),
        (["GET / HTTP/1.1", "Host:"], "", True),
        (["GET / HTTP/1.1", "Host: a b"], "a b", False),
        (["GET / HTTP/1.0", "Host: a b"], "a b", False),
        (["GET http://c/ HTTP/1.1", "Host: a"], "c", True),
        (["GET http://c/ HTTP/1.1"], "c", False),
        (["GET http://c/ HTTP/1.1", "Host: a b"], "c", False),
        (["GET http://c@d/ HTTP/1.1", "Host: a"], "c@d", False),
    ],
)
def test_the_host_of_a_request(lines: list[str], host: str, is_valid: bool) -> None:
    read = read_head(head(*lines))
    assert read is not None
    assert (read.host, read.has_valid_host) == (host, is_valid)


@pytest.mark.parametrize(
    ("lines", "field", "expected"),
    [
        (["hOsT:a"], "host", "a"),
        (["Host: \t a \t"], "host", "a"),
        (["Host:"], "host", ""),
        (["Host: [::1]:8082"], "host", "[::1]:8082"),
        (["Host: b\xfccher"], "host", "b\xfccher"),
        (["X-Host: a"], "host", ""),
        (["ORIGIN: null"], "origin", "null"),
        (["Origin:"], "origin", ""),
        (["UPGRADE: WebSocket"], "upgrade", True),
        (["Upgrade: h2c, websocket"], "upgrade", True),
        (["Upgrade: h2c", "Upgrade: websocket"], "upgrade", True),
        (["Upgrade: websockets"], "upgrade", False),
        (["Upgrade:"], "upgrade", False),
        (["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b,,c "], "subprotocols", ("a", "b", "c")),
        (["Sec-WebSocket-Protocol: A"], "subprotocols", ("A",)),
        (["Sec-WebSocket-Protocol:"], "subprotocols", ()),
    ],
)
def test_a_header(lines: list[str], field: str, expected: object) -> None:
    """Names are folded, values are trimmed, lists may be spread over several headers."""
    read = read_head(head("GET / HTTP/1.1", *lines))
    assert read is not None
    assert getattr(read, field) == expected


NONE = {
    "nothing": head(),
    "no version": head("GET /"),
    "too many words": head("GET / HTTP/1.1 x"),
    "two spaces": head("GET  / HTTP/1.1"),
    "another protocol": head("GET / SPDY/3"),
    "a line peer": head("SUB kitchen last=5"),
    "no target": head("GET a HTTP/1.1"),
    "a line that is no header": head("GET / HTTP/1.1", "Host a"),
    "a name with a space": head("GET / HTTP/1.1", "Host : a"),
    "no name": head("GET / HTTP/1.1", "Host: a", ": b"),
    "a folded header": head("GET / HTTP/1.1", "Host: a", " b: c"),
    "a bare line feed": head("GET / HTTP/1.1", "Host: a", "X: \nHost: b"),
    "a bare carriage return": head("GET / HTTP/1.1", "Host: a", "X: \rb"),
    "a NUL": head("GET / HTTP/1.1", "Host: a", "X: \0"),
    "two hosts": head("GET / HTTP/1.1", "Host: a", "Host: a"),
    "two origins": head("GET / HTTP/1.1", "Host: a", "Origin: null", "origin: http://a"),
}


@pytest.mark.parametrize("data", NONE.values(), ids=NONE.keys())
def test_what_is_no_head(data: bytes) -> None:
    """A head that is none, or that names two hosts or origins, is not guessed at."""
    assert read_head(data) is None


@given(st.binary() | st.lists(st.binary(max_size=30)).map(lambda lines: b"\r\n".join([b"GET / HTTP/1.1", *lines])))
def test_any_bytes_are_a_head_or_none(data: bytes) -> None:
    """Any bytes give a head or None, never an exception."""
    read = read_head(data)
    assert read is None or isinstance(read, RequestHead)


def test_the_bound_has_room_for_any_honest_head() -> None:
    """A browser's head with two full cookies passes; a megabyte would not."""
    assert 8192 * 2 <= MAX_HEAD_BYTES < 65_536


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\n", b"\r", b"\n", b"\r\n", b"x", b"1", b"~", b"-", b""])
def test_a_request_can_begin_with_a_method_or_an_empty_line(start: bytes) -> None:
    assert can_begin_head(start)


@pytest.mark.parametrize(
    "start",
    [b"\x16\x03\x01", b"\x80", b"\0", b"\xff", b" GET", b"{", b'"', b"/", b"\t"] + [b"SUB kitchen\n", b"GET /\r\n"],
)
def test_a_request_cannot_begin_with_anything_else(start: bytes) -> None:
    assert not can_begin_head(start)


@pytest.mark.parametrize("count, too_many", [(0, False), (MAX_HEADERS, False), (MAX_HEADERS + 1, True)])
def test_a_head_has_only_so_many_headers(count: int, too_many: bool) -> None:
    """The request line and the empty line are none."""
    head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * count + b"\r\n"
    assert has_too_many_headers(head) is too_many


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"X: y", False),
        (b"Content-Length: 0", False),
        (b"content-length:12", True),
        (b"Content-Length: 0\r\nContent-Length: 0", True),
        (b"Transfer-Encoding: chunked", True),
        (b"Transfer-Encoding:", True),
    ],
)
def test_whether_something_follows_that_belongs_to_a_request(header: bytes, expected: bool) -> None:
    """Whatever could be read as a length is one."""
    head = read_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n\r\n")
    assert head is not None
    assert head.has_body is expected
