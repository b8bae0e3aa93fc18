"""Request heads, bodies in chunks and credentials."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.grammars import EXTRA, HEADS, METHODS, TARGETS, UPGRADE, head_of
from tests.fuzz.properties import holds
from twistedsock.codecs.http import (
    MAX_CHUNKS,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_SIZE_LINE_BYTES,
    MAX_TRAILER_BYTES,
    ChunkDecoder,
    Credentials,
    InvalidChunks,
    RequestHead,
    can_begin_head,
    error_response,
    find_credentials,
    has_too_many_headers,
    http_on_line_port,
    origin_form,
    read_head,
)


def test_line_port_names_the_web_port() -> None:
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


def test_error_response_is_complete() -> None:
    answer = error_response(503, "später", (("Retry-After", "5"),))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 5" in head
    assert body == "später\n".encode()
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert b"\r\nConnection: close\r\n" in head


@pytest.mark.parametrize("status", [400, 403, 404, 408, 421, 431, 503])
def test_error_response_has_reason_phrase(status: int) -> None:
    assert error_response(status, "no").startswith(b"HTTP/1.1 %d " % status)


def head(*lines: str) -> bytes:
    return "".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1")


def valid_head(*lines: str) -> RequestHead:
    read = read_head(head(*lines))
    assert read is not None
    return read


HANDSHAKE = (
    "GET /ws?token=x HTTP/1.1",
    "Host: 127.0.0.1:8082",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Origin: http://127.0.0.1:8082",
    "Sec-WebSocket-Protocol: sockbridge.v1.json, other",
)


def test_reads_websocket_handshake() -> None:
    assert read_head(head(*HANDSHAKE)) == RequestHead(
        method="GET",
        path="/ws",
        host="127.0.0.1:8082",
        origin="http://127.0.0.1:8082",
        upgrade=True,
        subprotocols=("sockbridge.v1.json", "other"),
        query="token=x",
    )


def test_reads_request_without_headers() -> None:
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
def test_reduces_target_to_origin_form(method: str, target: str, expected: object) -> None:
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
def test_reads_host(lines: list[str], host: str, is_valid: bool) -> None:
    read = valid_head(*lines)
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
def test_reads_header(lines: list[str], field: str, expected: object) -> None:
    assert getattr(valid_head("GET / HTTP/1.1", *lines), field) == expected


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
def test_rejects_invalid_head(data: bytes) -> None:
    assert read_head(data) is None


def test_limit_allows_head_with_two_full_cookies() -> None:
    assert 8192 * 2 <= MAX_HEAD_BYTES < 65_536


BEGINNINGS = [b"G", b"GET / HTTP/1.1\r\n", b"\r", b"\n", b"\r\n", b"x", b"1", b"~", b"-", b""]
NO_BEGINNINGS = [b"\x16\x03\x01", b"\x80", b"\0", b"\xff", b" GET", b"{", b'"', b"/", b"\t", b"SUB a\n", b"GET /\r\n"]


@pytest.mark.parametrize("start", BEGINNINGS + NO_BEGINNINGS)
def test_head_begins_with_method_or_empty_line(start: bytes) -> None:
    assert can_begin_head(start) is (start in BEGINNINGS)


@pytest.mark.parametrize("count, too_many", [(0, False), (MAX_HEADERS, False), (MAX_HEADERS + 1, True)])
def test_counts_headers(count: int, too_many: bool) -> None:
    head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * count + b"\r\n"
    assert has_too_many_headers(head) is too_many


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("X: y", False),
        ("Content-Length: 0", False),
        ("content-length:12", True),
        ("Content-Length: 0\r\nContent-Length: 0", True),
        ("Transfer-Encoding: chunked", True),
        ("Transfer-Encoding:", True),
    ],
)
def test_detects_body(header: str, expected: bool) -> None:
    assert valid_head("GET / HTTP/1.1", "Host: a", header).has_body is expected


def read(*pieces: bytes) -> tuple[bytes, bytes | None]:
    """The body, and what stands behind it."""
    body: list[bytes] = []
    chunks, rest = ChunkDecoder(body.append), None
    for piece in pieces:
        assert rest is None
        rest = chunks.feed(piece)
    return b"".join(body), rest


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10), st.data())
def test_decodes_chunks_at_every_cut(pieces, data) -> None:
    sent = chunked(*pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=10)))
    parts = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent) - 1], strict=True)]
    parts = [part for part in parts if part]
    assert read(*parts, sent[-1:] + b"GET / HTTP/1.1") == (b"".join(pieces), b"GET / HTTP/1.1")


def test_decodes_chunks_byte_by_byte() -> None:
    sent = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: dropped\r\n\r\n"
    assert read(*(sent[place : place + 1] for place in range(len(sent)))) == (b"abc0123456789", b"")


def test_returns_data_behind_the_body() -> None:
    assert read(chunked(b"abc") + b"POST /next") == (b"abc", b"POST /next")


@pytest.mark.parametrize("line", [b"3", b"003", b"3;", b"3 ;a", b'3;a="b c"', b"3\t"], ids=lambda line: line.decode())
def test_reads_chunk_size(line) -> None:
    assert read(line + b"\r\nabc\r\n0\r\n\r\n") == (b"abc", b"")


@pytest.mark.parametrize(
    "line", ["", "x", "-3", "+3", "0x3", " 3", "3,3", "3_0", "3;\x00", "3;a\nb", "3\nabc", "1" * 16, "٣"]
)
def test_rejects_invalid_chunk_size(line: str) -> None:
    with pytest.raises(InvalidChunks):
        read(line.encode() + b"\r\n")


@pytest.mark.parametrize("sent", [b"3\r\nabcd\r\n", b"3\r\nabc\n\n0\r\n\r\n", b"3\r\nab\r\n0\r\n\r\n"])
def test_rejects_chunk_of_another_size(sent: bytes) -> None:
    with pytest.raises(InvalidChunks):
        read(sent)


def test_rejects_long_size_line() -> None:
    assert read(b"0;" + b"x" * (MAX_SIZE_LINE_BYTES - 2) + b"\r\n\r\n") == (b"", b"")
    for sent in (b"0;" + b"x" * (MAX_SIZE_LINE_BYTES - 1), b"0;" + b"x" * MAX_SIZE_LINE_BYTES + b"\r\n"):
        with pytest.raises(InvalidChunks, match="too long"):
            read(sent)


def test_accepts_incomplete_size_line_behind_many_chunks() -> None:
    pieces = [b"x"] * MAX_SIZE_LINE_BYTES
    sent = chunked(*pieces)[: -len(b"0\r\n\r\n")]
    assert read(sent + b"1;a", b"\r\ny\r\n0\r\n\r\n") == (b"".join(pieces) + b"y", b"")


def test_rejects_chunks_over_the_limit() -> None:
    assert read(chunked(*[b"a"] * (MAX_CHUNKS - 1)))[1] == b""
    with pytest.raises(InvalidChunks, match="too many"):
        read(chunked(*[b"a"] * MAX_CHUNKS))


def test_rejects_long_trailer() -> None:
    line = b"A: " + b"x" * 997 + b"\r\n"
    assert read(b"0\r\n" + line * 4 + b"\r\n")[1] == b""
    assert read(*([b"0\r\n"] + [line[:500], line[500:]] * 4 + [b"\r\n"]))[1] == b""
    for pieces in ([b"0\r\n", *[line] * 5], [b"0\r\n" + b"x" * (MAX_TRAILER_BYTES + 1)]):
        with pytest.raises(InvalidChunks, match="trailer"):
            read(*pieces)


def found_in(head: RequestHead, cookie: str) -> Credentials | None:
    return find_credentials(head.authorization, head.query, head.cookies, cookie)


def head_with(target: str, *lines: str) -> RequestHead:
    return valid_head(f"GET {target} HTTP/1.1", "Host: a", *lines)


@pytest.mark.parametrize(
    "target, lines, credentials",
    [
        ("/ws", [], None),
        ("/ws", ["Authorization: Bearer a.b.c"], Credentials(b"a.b.c", True)),
        ("/ws", ["authorization: bearer   a.b.c"], Credentials(b"a.b.c", True)),
        ("/ws", ["Authorization: Bearer "], None),
        ("/ws", ["Authorization: Basic a.b.c"], None),
        ("/ws", ["Authorization: Bearer a b"], None),
        ("/ws", ["Authorization: Bearer a", "Authorization: Bearer b"], None),
        ("/ws?token=a.b.c", [], Credentials(b"a.b.c")),
        ("/?x=1&token=a.b.c&y=2", [], Credentials(b"a.b.c")),
        ("/ws?token=", [], Credentials(b"")),
        ("/ws?token=a&token=b", [], Credentials(b"a")),
        ("/ws?mytoken=a", [], None),
        ("/ws?token", [], None),
        ("/ws", ["Cookie: token=a.b.c"], Credentials(b"a.b.c")),
        ("/ws", ['Cookie: x=1; token="a.b.c" ;y=2'], Credentials(b"a.b.c")),
        ("/ws", ["Cookie: mytoken=a; token2=b; x"], None),
        ("/ws?token=q", ["Cookie: token=c"], Credentials(b"q")),
        ("/ws?token=q", ["Cookie: token=c", "Authorization: Bearer h"], Credentials(b"h", True)),
    ],
)
def test_finds_first_token(target: str, lines: list[str], credentials: Credentials | None) -> None:
    assert found_in(head_with(target, *lines), "token") == credentials


def test_ignores_cookies_without_cookie_name() -> None:
    assert found_in(head_with("/ws", "Cookie: token=a; =b"), "") is None


@pytest.mark.parametrize(
    ("target", "lines"),
    [("/ws?token=secret", []), ("/ws", ["Authorization: Bearer secret"]), ("/", ["Cookie: a=secret"])],
)
def test_repr_hides_the_token(target: str, lines: list[str]) -> None:
    found = head_with(target, *lines)
    assert "secret" not in repr(found) and "secret" not in repr(found_in(found, "a"))


@given(st.text(), st.text(), st.text(), st.text(max_size=5))
def test_finds_token_or_none_in_any_head(query: str, authorization: str, cookies: str, cookie: str) -> None:
    texts = [text.encode("latin-1", "replace").decode("latin-1") for text in (query, authorization, cookies, cookie)]
    query, authorization, cookies, cookie = texts
    found = find_credentials(authorization, query, cookies, cookie)
    assert found is None or isinstance(found.token, bytes)


@holds(examples=150, data=HEADS | st.binary().map(lambda data: data + b"\r\n\r\n"))
def test_any_head(data: bytes) -> None:
    """Any bytes are read as a head whose parts occur in them, or rejected; only a complete handshake has a key."""
    head = read_head(data)
    if head is None:
        return
    text = data.decode("latin-1")
    target = text.split(" ")[1]
    assert text.startswith(f"{head.method} ") and (head.path in target or head.path == "/")
    assert all(part in text for part in (head.host, head.origin or "", head.key))
    assert not any(sign in part for part in (head.host, head.origin or "", *head.subprotocols) for sign in ("\r\n",))
    if head.key:
        assert text.isascii() and head.upgrade and head.method == "GET" and len(head.key) == 24
        assert text.lower().count("\r\nsec-websocket-key:") == text.lower().count("\r\nhost:") == 1
        assert head.host and ("\r\nsec-websocket-version: 13\r\n" in text.lower().replace(":13", ": 13"))


@holds(examples=80, method=METHODS, target=TARGETS, extra=EXTRA)
def test_sound_heads(method: str, target: str, extra: list[tuple[str, str]]) -> None:
    """A head that follows the standard is read as it was written; a head with two hosts or origins is rejected."""
    fields = UPGRADE + [(name, value) for name, value in extra if name.strip()]
    head = read_head(head_of(method, target, "HTTP/1.1", fields))
    headers: dict[str, list[Any]] = {}
    for name, value in fields:
        headers.setdefault(name.lower(), []).append(value)
    form = origin_form(method, target)
    is_valid = all(name.isascii() and " " not in name and "\0" not in value for name, value in fields)
    if form is None or not is_valid or len(headers["host"]) > 1 or len(headers.get("origin", [])) > 1:
        assert head is None
        return
    assert head is not None
    host = headers["host"][0] if form[1] is None else form[1]
    assert (head.method, head.path, head.host) == (method, form[0].partition("?")[0], host)
    assert head.origin == (headers["origin"][0] if "origin" in headers else None) and head.upgrade
    offered = ",".join(headers.get("sec-websocket-protocol", [])).split(",")
    assert head.subprotocols == tuple(word.strip() for word in offered if word.strip())
    plain = all(len(values) == 1 for values in headers.values()) and not {"sec-websocket-extensions"} & set(headers)
    if head.key:
        assert all(len(values) == 1 for values in headers.values()) and method == "GET"
    elif plain and method == "GET" and target in ("/ws", "/") and fields == UPGRADE:
        raise AssertionError("a plain handshake was not seen as one")
