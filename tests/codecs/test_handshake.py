"""Which handshakes are plain, and what answers them. That Autobahn would do the same is a test of the shells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.http import read_head
from twistedsock.codecs.websocket import are_extensions, listed, split_extensions, switching_protocols

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
PLAIN = {
    "Host": "127.0.0.1:8082",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def key_of(line: str = "GET /ws HTTP/1.1", *more: str, **changes: str | None) -> str:
    """The key of a plain handshake that was changed: other values, headers that are left out (None), and more lines."""
    headers = PLAIN | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more, "", ""]
    read = read_head("\r\n".join(lines).encode("latin-1"))
    return read.key if read is not None else ""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Host": "localhost"},
        {"Host": "[::1]:8082"},
        {"Host": "[::1]"},
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "upgrade"},
        {"Origin": "http://127.0.0.1:8082"},
        {"Origin": "https://bridge.example"},
        {"Origin": "http://127.0.0.1:65535"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec_WebSocket_Protocol": "sockbridge.v1.json"},
        {"Sec_WebSocket_Protocol": "chat,  sockbridge.v1.line"},
        {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Cookie": "a=b; c=d", "Pragma": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("target", ["/", "/ws"])
def test_plain(changes: dict[str, str], target: str) -> None:
    """What browsers and the usual clients send."""
    assert key_of(f"GET {target} HTTP/1.1", **changes) == KEY


NOT_PLAIN: list[tuple[str, ...]] = [
    ("POST /ws HTTP/1.1",),
    ("GET /ws HTTP/1.0",),
    ("GET /ws HTTP/2",),
    ("GET /ws?a=b HTTP/1.1",),
    ("GET /ws#a HTTP/1.1",),
    ("GET http://127.0.0.1/ws HTTP/1.1",),
    ("GET /ws HTTP/1.1", "Host"),
    ("GET /ws HTTP/1.1", ": a"),
    ("GET /ws HTTP/1.1", "Upgrade: websocket"),
    ("GET /ws HTTP/1.1", "Upgrade : websocket"),
    ("GET /ws HTTP/1.1", " X: folded"),
    ("GET /ws HTTP/1.1", "X: a\tb"),
    ("GET /ws HTTP/1.1", "X: a\nb: c"),
    ("GET /ws HTTP/1.1", "X: a\x0bb"),
    ("GET /ws HTTP/1.1", "X: caf\xe9"),
]


@pytest.mark.parametrize("lines", NOT_PLAIN, ids=str)
def test_lines_that_are_not_plain(lines: tuple[str, ...]) -> None:
    """Other requests, folded lines, names that stand there twice, and whatever two readers may read differently."""
    assert key_of(*lines) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"Host": None},
        {"Host": ""},
        {"Host": "a b"},
        {"Host": "a:b"},
        {"Host": "a:100000"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Upgrade": "h2c, websocket"},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": KEY[:-1]},
        {"Sec-WebSocket-Key": KEY[:-2] + "=A"},
        {"Sec-WebSocket-Key": "-" + KEY[1:]},
        {"Sec-WebSocket-Key": KEY + "=="},
        {"Sec_WebSocket_Extensions": ""},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits=99"},
        {"Sec_WebSocket_Extensions": "permessage-bzip2"},
        {"Sec_WebSocket_Protocol": ""},
        {"Sec_WebSocket_Protocol": "a,"},
        {"Sec_WebSocket_Protocol": "a, a"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "file://"},
        {"Origin": "http://a b"},
        {"Origin": "http://[::1"},
        {"Origin": "http://a:65536"},
    ],
    ids=str,
)
def test_values_that_are_not_plain(changes: dict[str, str | None]) -> None:
    """What Autobahn must look at: it refuses most of that, with its reason."""
    assert key_of(**changes) == ""


@pytest.mark.parametrize(
    ("value", "words"), [("", []), ("a", ["a"]), (" a ,b", ["a", "b"]), (",a,, b\t,", ["a", "b"]), (" ", [])]
)
def test_a_list(value: str, words: list[str]) -> None:
    """Empty words are none."""
    assert listed(value) == words


@given(st.lists(st.text("ab ,:\r\n\t\xe9", max_size=8), max_size=4))
def test_any_head_is_plain_or_not(lines: list[str]) -> None:
    """Any lines give a key or none, never an exception."""
    assert key_of("GET /ws HTTP/1.1", *lines) in ("", KEY)


@pytest.mark.parametrize(
    ("subprotocol", "line"), [(None, b""), ("sockbridge.v1.line", b"Sec-WebSocket-Protocol: sockbridge.v1.line\r\n")]
)
def test_the_answer(subprotocol: str | None, line: bytes) -> None:
    """Key and answer are those of RFC 6455 section 1.3."""
    assert switching_protocols(KEY, subprotocol, "Bridge") == (
        b"HTTP/1.1 101 Switching Protocols\r\nServer: Bridge\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        + line
        + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("lines", "left", "offers"),
    [
        ([b"Host: a"], [b"Host: a"], ""),
        ([b"Sec-WebSocket-Extensions: a; b=c", b"Host: a"], [b"Host: a"], " a; b=c"),
        ([b"sec-websocket-extensions:a", b"Host: a", b"SEC-WEBSOCKET-EXTENSIONS:b"], [b"Host: a"], "a,b"),
        ([b"X: Sec-WebSocket-Extensions: a"], [b"X: Sec-WebSocket-Extensions: a"], ""),
    ],
)
def test_extensions_are_taken_out_of_a_head(lines: list[bytes], left: list[bytes], offers: str) -> None:
    def head(lines: list[bytes]) -> bytes:
        return b"\r\n".join([b"GET /ws HTTP/1.1", *lines, b"", b""])

    assert split_extensions(head(lines)) == (head(left), offers)


@pytest.mark.parametrize(
    ("offers", "are_well_formed"),
    [
        ("", True),
        (",, a ,", True),
        ("permessage-deflate; client_max_window_bits=16; unheard_of, x", True),
        ('a ; b = "c"', True),
        ("a;", False),
        ("a; b=", False),
        ('a; b="c d"', False),
        ("a b", False),
        ("\xfc", False),
    ],
)
def test_which_offers_follow_the_grammar(offers: str, are_well_formed: bool) -> None:
    """RFC 6455 section 9.1. Unknown extensions and parameters do."""
    assert are_extensions(offers) is are_well_formed
