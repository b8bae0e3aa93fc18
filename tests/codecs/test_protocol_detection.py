"""The protocol of a connection to the line port is detected before any of its lines is run."""

import ssl
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.line_decoder import USAGE, is_verb
from twistedsock.codecs.protocol_detection import MAX_LINE_START_BYTES, ProtocolDetector, WireProtocol

LINES, HTTP, TLS, OTHER = WireProtocol.LINES, WireProtocol.HTTP, WireProtocol.TLS, WireProtocol.OTHER
JSON_LINES = WireProtocol.JSON_LINES
BOM = "\ufeff".encode()
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 32 + b"\x20" + b"\nPUB kitchen one\nPUB kitchen two\n"

TABLE = {
    # commands, and what people mistype
    "a command": (b"SUB kitchen\n", LINES),
    "a command with CR LF": (b"SUB kitchen\r\n", LINES),
    "a small verb": (b"sub kitchen\n", LINES),
    "an alias": (b"?\n", LINES),
    "spaces before the verb": (b"   PING\n", LINES),
    "empty lines before it": (b"\n\r\n  \nPING\n", LINES),
    "a typing error": (b"PUV kitchen 1\n", LINES),
    "text in UTF-8": ("PUB küche 21,5 °C 🌡\n".encode(), LINES),
    "a leading U+FEFF": (BOM + b"PUB kitchen HTTP/3\n", LINES),
    "only U+FEFF": (BOM + b"\n", LINES),
    "a control character in the payload": (b"PUB kitchen \x01\x16\x1b[2J\n", LINES),
    "the line of a PROXY header": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", LINES),
    # JSON
    "a message": (b'{"type":"ping"}\n', JSON_LINES),
    "spaces before a message": (b'  {"type":"ping"}\n', JSON_LINES),
    "a message after U+FEFF": (BOM + b'{"type":"ping"}\n', JSON_LINES),
    "the start of a message": (b"{", JSON_LINES),
    "a brace before a version": (b"{ / HTTP/1.1\r\n", JSON_LINES),
    "another JSON value": (b"[1]\n", LINES),
    # payloads that look like HTTP
    "a payload that ends with a version": (b"PUB news we now speak HTTP/3\n", LINES),
    "a payload that is a version": (b"PUB news HTTP/3\n", LINES),
    "a payload that is an exact version": (b"PUB news HTTP/1.1\n", LINES),
    "a payload that is a request": (b"PUB log GET / HTTP/1.1\n", LINES),
    "an event": (b"EMIT news alarm HTTP/2.0\n", LINES),
    "a small verb with a version": (b"pub news HTTP/1.1\r\n", LINES),
    "a ping": (b"PING HTTP/1.1\n", LINES),
    "a channel like a path, and more words": (b"PUB /news about HTTP/1.1\n", LINES),
    "a channel like a path, and no exact version": (b"PUB /news HTTP/3\n", LINES),
    # HTTP
    "GET": (b"GET / HTTP/1.1\r\n", HTTP),
    "HEAD": (b"HEAD / HTTP/1.1\r\n", HTTP),
    "a bare line feed": (b"GET / HTTP/1.1\n", HTTP),
    "POST": (b"POST /a?b=c HTTP/1.0\r\n", HTTP),
    "an absolute target": (b"GET http://a.example/ HTTP/1.1\r\n", HTTP),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP),
    "a method of a page": (b"QUARREL /PUB HTTP/1.1\r\n", HTTP),
    "a verb as the method": (b"PUB /kitchen HTTP/1.1\r\n", HTTP),
    "a small verb as the method": (b"pub /kitchen HTTP/1.1\r\n", HTTP),
    "a verb as the method of a long path": (b"SUB /" + b"x" * 1000 + b" HTTP/1.1\r\n", HTTP),
    "an empty line before it": (b"\r\nGET / HTTP/1.1\r\n", HTTP),
    "two spaces": (b"GET  /  HTTP/1.1\n", HTTP),
    "no target": (b"HTTP/1.1\n", HTTP),
    "a long request": (b"GET /" + b"x" * 1000 + b" HTTP/1.1\r\n", HTTP),
    "no version": (b"GET /\r\n", LINES),
    "a version that is none": (b"GET / HTTP/x\r\n", LINES),
    "a small version": (b"GET / http/1.1\r\n", LINES),
    # TLS
    "a ClientHello": (HELLO, TLS),
    "a ClientHello behind an empty line": (b"\r\n" + HELLO, TLS),
    "its first byte": (b"\x16", TLS),
    # other protocols
    "SSL 2": (b"\x80\x2e\x01\x00\x02\nPUB kitchen one\n", OTHER),
    "STUN": (b"\x00\x01\x00\x08\x21\x12\xa4\x42\nPUB kitchen one\n", OTHER),
    "NUL in the first line": (b"PUB kitchen a\0b\n", OTHER),
    "Latin-1": (b"PUB kitchen caf\xe9\nPUB kitchen one\n", OTHER),
    "half a character": (b"PUB kitchen caf\xc3\n", OTHER),
    "a surrogate": (b"PUB kitchen \xed\xa0\xbd\n", OTHER),
    "an overlong character": (b"PUB kitchen \xc0\x8aPUB kitchen two\n", OTHER),
    "a PROXY header of version 2": (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\n", OTHER),
}


def spoken(pieces: list[bytes]) -> WireProtocol | None:
    opening = ProtocolDetector()
    for piece in pieces:
        found = opening.feed(piece)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize(("data", "expected"), TABLE.values(), ids=TABLE.keys())
def test_detects_protocol_at_every_cut(data: bytes, expected: WireProtocol, cuts) -> None:
    for pieces in [[data], *cuts(data[:80] + data[-20:] if len(data) > 100 else data)]:
        assert spoken(pieces) is expected, pieces


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n", b"PUB kitchen 21.5", b"GET / HTTP/1.1\r", b"caf\xc3"])
def test_decides_at_the_end_of_the_line(data: bytes, cuts) -> None:
    for pieces in cuts(data):
        assert spoken(pieces) is None


@pytest.mark.parametrize(
    "data", [HELLO[:1], b"PUB kitchen \0", b"\xff", b"PUB kitchen caf\xe9!"], ids=["TLS", "NUL", "a byte", "Latin-1"]
)
def test_detects_binary_protocols_before_the_line_ends(data: bytes) -> None:
    assert spoken([data]) in (TLS, OTHER)


LONG = b"x" * 300


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"PUB kitchen " + LONG, False),
        (b"pub /kitchen " + LONG, False),
        (b"  AUTH " + LONG, False),
        (BOM + b"PUB kitchen " + LONG, False),
        (b"PUB kitchen", False),
        (b"PUB /" + LONG, True),
        (b"SUB /" + b"x" * (MAX_LINE_START_BYTES - 5) + b" HTTP/1.1", True),
        (b"GET /" + LONG, True),
        (b"QUARREL /" + LONG, True),
        (b"GET http://a.example/" + LONG, True),
        (b"GET https://a.example/" + LONG, True),
        (LONG, False),
        (b"HELO " + LONG, False),
    ],
)
def test_judges_long_line_by_its_start(start: bytes, expected: bool, cuts) -> None:
    for pieces in cuts(start[:40]):
        opening = ProtocolDetector()
        for piece in [*pieces, start[40:]]:
            assert opening.feed(piece) is None
        assert opening.looks_like_http() is expected


def test_detects_http_with_long_method() -> None:
    opening = ProtocolDetector()
    assert opening.feed(b"x" * 70_000) is None
    assert not opening.looks_like_http()
    assert opening.feed(b" /kitchen HTTP/1.1\r\nPUB kitchen one\n") is HTTP


def test_knows_all_verbs() -> None:
    assert all(is_verb(word) for verb in USAGE for word in (verb, verb.lower()))
    assert is_verb(b"?") and is_verb(b"exit") and is_verb(b"BYE")
    assert not any(map(is_verb, (b"", b"GET", b"HTTP", b"PUBX", b"\xff")))


def test_detects_client_hello_with_commands_in_it(client_hello: bytes) -> None:
    assert spoken([client_hello]) is TLS


@pytest.fixture
def client_hello() -> bytes:
    """A real one, whose session id is a command."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    return hello[:44] + b"\nPUB kitchen one\n".ljust(32, b"\n") + hello[76:]


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b" ", b"PUB ", b"GET /", b" HTTP/1.1", b"\0"])))
def test_detection_does_not_depend_on_cuts(pieces: list[bytes]) -> None:
    assert spoken(pieces) is spoken([b"".join(pieces)])


@given(st.text(alphabet=st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])))
def test_publish_is_never_detected_as_http(payload: str) -> None:
    assert spoken([f"PUB news {payload}\n".encode()]) is LINES


def test_does_not_buffer_endless_first_line() -> None:
    opening = ProtocolDetector()
    tracemalloc.start()
    try:
        for _ in range(1000):
            opening.feed(b"x " * 500)
        assert tracemalloc.get_traced_memory()[0] < 5_000
    finally:
        tracemalloc.stop()
