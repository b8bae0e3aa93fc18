"""The short cut for opening handshakes has the same results as Autobahn.

Heads are valid and invalid. Autobahn alone must accept each head that counts as plain, with the same
response, and afterwards the connection must have the same attributes as after Autobahn's own handshake. Other heads are
parsed by Autobahn.
"""

from itertools import product
from random import Random
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fakes import connect
from tests.fuzz.grammars import HANDSHAKE, frame
from tests.server.clients import PING_INTERVAL, PING_TIMEOUT, WebSocketClient
from twistedsock.auth.origins import AllowedOrigins, ListenerScope
from twistedsock.codecs.http import read_head
from twistedsock.server.autobahn_internals import HANDSHAKE_STATE, SHARED
from twistedsock.server.handshakes import AcceptedHandshakes, Handshake
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.web_endpoints import JSON_PROTOCOL, LINE_PROTOCOL, SOCKBRIDGE
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.session.encoder import Endpoints
from twistedsock.testing import FakeServer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ENDS = Endpoints(b"127.0.0.1:50000", b"127.0.0.1:8082")

HEADERS: dict[str, list[str | None]] = {
    "Host": ["127.0.0.1:8082", "localhost", "[::1]:8082", "[::1]", "a:0", "a:99999", "a:x", "a:", ":1", "", None],
    "Upgrade": ["websocket", "WebSocket", "h2c, websocket", "websocket,", "h2c", None],
    "Connection": ["Upgrade", "keep-alive, Upgrade", "upgrade", ",upgrade,", "keep-alive", None],
    "Sec-WebSocket-Version": ["13", " 13 ", "8", "0", "013", "x", "", None],
    "Sec-WebSocket-Key": [
        KEY,
        "0" * 22 + "==",
        "+/" * 11 + "==",
        KEY[1:],
        "é" + KEY[1:],
        KEY + "=",
        "=" * 24,
        "",
        None,
    ],
    "Sec-WebSocket-Protocol": [
        None,
        JSON_PROTOCOL,
        LINE_PROTOCOL,
        f"chat, {LINE_PROTOCOL},{JSON_PROTOCOL}",
        f"{JSON_PROTOCOL}, {JSON_PROTOCOL}",
        f"{JSON_PROTOCOL},",
    ],
    "Sec-WebSocket-Extensions": [
        None,
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=15",
        "permessage-deflate; client_max_window_bits=99",
        "permessage-deflate; unheard_of",
        "permessage-deflate, permessage-deflate",
        "x-webkit-deflate-frame",
        "",
    ],
    "Origin": [
        None,
        "http://127.0.0.1:8082",
        "https://example.org",
        "http://a:65535",
        "http://a:65536",
        "http://a:99999",
        "http://",
        "http://a:",
        "http://.",
        "http://-",
        "http://[::1]",
        "http://[::",
        "null",
        "file://",
        "",
    ],
    "X-Forwarded-For": [None, "192.0.2.1"],
    "Cookie": [None, "a=b; c=d", "a\tb", "caf\xe9", "\x85", "a\x1fb", "a\rb: c", "a\nUpgrade: h2c"],
    "Content-Length": [None, "5"],
}
REQUEST_LINES = [
    "GET /ws HTTP/1.1",
    "GET / HTTP/1.1",
    "GET /ws?a=b HTTP/1.1",
    "GET /socket.io/?EIO=4&transport=websocket&t=a.b-c_0 HTTP/1.1",
    "GET /socket.io/?EIO=4&transport=web%73ocket HTTP/1.1",
    "GET /socket.io/?token=a&&=&x HTTP/1.1",
    "GET /ws#a HTTP/1.1",
    "GET //ws HTTP/1.1",
    "GET /[ HTTP/1.1",
    "GET http://127.0.0.1/ws HTTP/1.1",
    "get /ws HTTP/1.1",
    "GET /ws HTTP/1.0",
    "POST /ws HTTP/1.1",
]
STRANGE_LINES = [
    "X",
    ":",
    " folded: a",
    "\tUpgrade: h2c",
    "upgrade: h2c",
    "HOST: b",
    "X: \x0b",
    "\xa0: a",
    # Autobahn finds a second host in these, because it splits lines and names differently.
    " Host: b",
    "Host : b",
    "X: \x0bHost: b",
    "X: \x85Host: b",
    "X: \nHost: b",
    "\xa0Host: b",
]


PARTS = {**HEADERS, "request line": REQUEST_LINES, "more": [None, *STRANGE_LINES]}
"""The first value is the usual one."""


def head_with(changes: dict[str, str | None], random: Random) -> bytes:
    """A usual head with other values, in random case and white space, and with the headers in random order."""
    values = {part: values[0] for part, values in PARTS.items()} | changes
    request_line, more = values.pop("request line"), values.pop("more")
    lines = []
    for name, value in values.items():
        if value is not None and name in changes:
            name = random.choice([name, name.lower(), name.upper()])
            lines.append(name + random.choice([": ", ":", ":  ", ": \t"]) + value + random.choice(["", " "]))
        elif value is not None:
            lines.append(f"{name}: {value}")
    random.shuffle(lines)
    if more is not None:
        lines.insert(random.randint(0, len(lines)), more)
    return "\r\n".join([request_line or "", *lines, "", ""]).encode("latin-1")


def is_plain(head: bytes) -> bool:
    """True if the short cut handles it. A handshake without a supported subprotocol is rejected before."""
    read = read_head(head)
    return bool(read and read.key and (not read.subprotocols or SOCKBRIDGE.select(read.subprotocols)))


class Stock(WebSocketServerProtocol):
    """Autobahn alone, with our selection of the subprotocol."""

    def onConnect(self, request: Any) -> str | None:
        return SOCKBRIDGE.select(request.protocols)


class Three:
    """The same handshake by our short cut, by Autobahn in our class, and by Autobahn alone."""

    def __init__(self, clock: Clock, head: bytes, rest: bytes = b"") -> None:
        self.clock = clock
        read = read_head(head)
        assert read is not None and read.key
        factory = WebSocketFactory(FakeServer().context, clock, 0, PING_INTERVAL, PING_TIMEOUT)
        self.short = factory.protocol()
        assert self.short.open_accepted(factory, connect(port=8082), read, ENDS)
        if rest:
            self.short.dataReceived(rest)
        factory = WebSocketFactory(FakeServer().context, clock, 0, PING_INTERVAL, PING_TIMEOUT)
        self.long = WebSocketClient(factory).server
        self.long.dataReceived(head + rest)
        stock = WebSocketServerFactory(reactor=clock)
        for name in WebSocketServerProtocol.CONFIG_ATTRS:
            setattr(stock, name, getattr(factory, name))
        stock.protocol = Stock
        self.stock = stock.buildProtocol(None)
        self.stock.makeConnection(connect(port=8082))
        self.stock.dataReceived(head + rest)

    def written(self) -> list[bytes]:
        found = []
        for server in (self.short, self.long, self.stock):
            found.append(server.transport.output())
        return found


MADE_FOR_EACH = {"factory", "transport", "autoPingPendingCall"}
ELSEWHERE = MADE_FOR_EACH | HANDSHAKE_STATE | SHARED.keys() | set(WebSocketServerProtocol.CONFIG_ATTRS)


def compare(three: Three) -> None:
    short, long, stock = three.written()
    assert short == long
    assert stock.endswith(b"\r\n\r\n")
    assert short.startswith(stock)
    mine, theirs = vars(three.short), vars(three.long)
    assert mine.keys() == theirs.keys()
    own = MADE_FOR_EACH | (mine.keys() - vars(three.stock).keys())
    for name in mine.keys() - own:
        assert mine[name] == theirs[name], name
    for name in own & mine.keys():
        assert type(mine[name]) is type(theirs[name])
    # Attributes that Autobahn's later code may read.
    for name, value in vars(three.stock).items():
        if name not in ELSEWHERE:
            assert getattr(three.short, name) == (() if name == "send_queue" else value), name
    assert three.short.factory.countConnections == three.stock.factory.countConnections == 1


def compare_if_plain(clock: Clock, head: bytes) -> bool:
    if is_plain(head):
        try:
            compare(Three(clock, head))
        except AssertionError as difference:
            difference.add_note(repr(head))
            raise
        return True
    return False


@pytest.mark.parametrize("part", PARTS)
def test_any_two_changes_have_the_same_result(part: str, clock: Clock) -> None:
    random, plain = Random(part), 0
    for other in (other for other in PARTS if other != part):
        for value, other_value in product(PARTS[part], PARTS[other]):
            plain += compare_if_plain(clock, head_with({part: value, other: other_value}, random))
    assert plain > 20


@pytest.mark.parametrize("byte", [b"", *(bytes([byte]) for byte in b"\0\t\n\x0b\r ,/:=?[a\x85\xff")])
def test_any_other_byte_has_the_same_result(byte: bytes, clock: Clock) -> None:
    """Instead of one byte of a usual head, or before it."""
    for position in range(len(HANDSHAKE) - 4):
        for end in (position, position + 1):
            compare_if_plain(clock, HANDSHAKE[:position] + byte + HANDSHAKE[end:])


def test_remembered_head_is_read_as_if_it_were_new() -> None:
    """With another key, and with another byte at any place."""
    known, scope, found = AcceptedHandshakes(OriginPolicy(AllowedOrigins())), ListenerScope(True, 8082), 0
    random = Random(0)
    for part, values in PARTS.items():
        for value in values:
            head = head_with({part: value}, random)
            read = read_head(head)
            if read is not None:
                known.add(head, scope, Handshake(read, SOCKBRIDGE))
            for same in (head, head.replace(KEY.encode(), b"0" * 22 + b"==")):
                handshake = known.find(same, scope)
                assert handshake is None or handshake.head == read_head(same)
                found += handshake is not None
    known.add(HANDSHAKE, scope, Handshake(read_head(HANDSHAKE), SOCKBRIDGE))
    for position in range(len(HANDSHAKE)):
        for byte in (b"", b"\r", b"\n", b":", b" ", b"=", b"A", b"a"):
            changed = HANDSHAKE[:position] + byte + HANDSHAKE[position + 1 :]
            handshake = known.find(changed, scope)
            assert handshake is None or handshake.head == read_head(changed), changed
            found += handshake is not None
    assert found > 50


def test_frames_after_the_head_have_the_same_result(clock: Clock) -> None:
    sent = frame(0x81, b'{"type":"ping","id":1}') + frame(0x89, b"?") + frame(0x81, b'{"type":"ping","id":2}')
    for cut in range(len(sent) + 1):
        three = Three(clock, HANDSHAKE, sent[:cut])
        for server in (three.short, three.long):
            server.dataReceived(sent[cut:])
        short, long, _ = three.written()
        assert short == long
        assert short.count(b'"pong"') == 2


def test_pings_and_the_end_have_the_same_result(clock: Clock) -> None:
    three = Three(clock, HANDSHAKE)
    compare(three)
    for _ in range(PING_INTERVAL + 1):
        clock.advance(1)
    short, long, stock = three.written()
    assert short[:2] == long[:2] == stock[:2] == b"\x89\x0c"
    for server in (three.short, three.long, three.stock):
        server.dataReceived(frame(0x88, b"\x03\xe8"))
        assert server.transport.disconnecting and not server.transport.aborted
        server.transport.end_producer()
        server.connectionLost(Failure(ConnectionDone()))
        assert server.factory.countConnections == 0
    assert len(set(three.written())) == 1
    assert not clock.getDelayedCalls()
