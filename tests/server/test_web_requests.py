"""Which requests the web port accepts and which it refuses, and with which status, by RFC 9112, RFC 9110 section 7 and
RFC 6455 section 4.2. Each row is sent byte for byte, as the first request of a connection and behind another one."""

import pytest

from tests.server.http.clients import read_responses
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.testing import read_frames

LOOPBACK, ANYWHERE = "127.0.0.1", "192.0.2.1"
HOST = b"Host: 127.0.0.1:8082\r\n"
BRIDGE = b"GET /bridge.json HTTP/1.1\r\n" + HOST + b"\r\n"


def get(target=b"/bridge.json", *headers, version=b"HTTP/1.1", host=HOST, method=b"GET"):
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"%b %b %b\r\n%b%b\r\n" % (method, target, version, host, lines)


def post(*headers, body=b"", version=b"HTTP/1.1"):
    return get(b"/channels/kitchen/events", *headers, version=version, method=b"POST") + body


@pytest.fixture
def web(make_web, server, logged):
    """A web port: ``web(here=…)`` opens a connection."""
    yield make_web(server, origins=AllowedOrigins((), ("bridge.example.org",)))
    logged.clear()  # rejected hosts


CHUNKED = b"Transfer-Encoding: chunked"

# Bodies whose end is ambiguous: nothing of them must count as the next request.
SMUGGLED = [
    (b"Content-Length: 3", b"Content-Length: 3"),
    (b"Content-Length: 3", b"Content-Length: 30"),
    (b"Content-Length: 0", b"Content-Length: 3"),
    (b"Content-Length: 3", CHUNKED),
    (b"Content-Length: 0", CHUNKED),
    (CHUNKED, b"Content-Length: 3"),
    (CHUNKED, CHUNKED),
    (CHUNKED, b"Transfer-Encoding: identity"),
    (b"Transfer-Encoding: identity",),
    (b"Transfer-Encoding: gzip",),
    (b"Transfer-Encoding: chunked, gzip",),
    (b"Transfer-Encoding: chunked, chunked",),
    (b"Transfer-Encoding: xchunked",),
    (b"Transfer-Encoding : chunked",),
    (b"Transfer-Encoding:", b" chunked"),
    (b"X: y", b" Transfer-Encoding: chunked"),
    (b" Content-Length: 3",),
    (b"Content-Length: 3 \x0b",),
    (b"Content-Length: +3",),
    (b"Content-Length: 0x3",),
    (b"Content-Length: -1",),
    (b"Content-Length: 3_0",),
    (b"Content-Length: 3, 3",),
    (b"Content-Length:",),
    (b"Content-Length: " + b"9" * 20,),
    (b"Content-Length: " + b"9" * 5000,),
    (b"Content-Length: 3", b"Host: 127.0.0.1"),
    (b"Content-Length: 3", b"Origin: http://a", b"Origin: http://127.0.0.1:8082"),
    (b"Content-Length: 3", b"X: a\x00b"),
    (b"X: a\nContent-Length: 3",),
    (b"Content-Length: 3", b"no colon"),
    (b"Content-Length: 3", b"bad name: x"),
]

REQUESTS = {
    # Section 2.2: empty lines, line ends, white space before the first header.
    "an ordinary request": (get(), 200),
    "an empty line before the request": (b"\r\n" + get(), 200),
    "two empty lines before the request": (b"\r\n\r\n" + get(), 400),
    "a line that begins with a space behind the request line": (get(host=b" X: y\r\n" + HOST), 400),
    "a folded header": (get(host=HOST + b"X: a\r\n b\r\n"), 400),
    "a bare CR in a header": (get(host=HOST + b"X: a\rb\r\n"), 400),
    "a bare LF in a header": (get(host=HOST + b"X: a\nb\r\n"), 400),
    "a NUL in a header": (get(host=HOST + b"X: a\0b\r\n"), 400),
    "white space before a colon": (get(host=HOST + b"X : a\r\n"), 400),
    "a header without a colon": (get(host=HOST + b"X\r\n"), 400),
    "a header without a name": (get(host=HOST + b": a\r\n"), 400),
    # Section 2.3: versions.
    "HTTP/1.0": (get(version=b"HTTP/1.0"), 200),
    "HTTP/2.0": (get(version=b"HTTP/2.0"), 400),
    "HTTP/0.9": (b"GET /bridge.json\r\n\r\n", 400),
    "a version in lower case": (get(version=b"http/1.1"), 400),
    "an offer of HTTP/2": (get(b"/bridge.json", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), 200),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    # Section 3: the request line and the target.
    "two spaces": (b"GET  /bridge.json HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a target that is no path": (get(b"bridge.json"), 400),
    "the absolute form": (get(b"http://127.0.0.1:8082/bridge.json"), 200),
    "the absolute form in upper case": (get(b"HTTP://LOCALHOST/bridge.json"), 200),
    "the absolute form over TLS": (get(b"https://127.0.0.1:8082/bridge.json"), 200),
    "the absolute form with a query": (get(b"http://127.0.0.1:8082/channels?prefix=a"), 200),
    "the absolute form without a path": (get(b"http://127.0.0.1:8082"), 200),
    "the absolute form without a path, with a query": (get(b"http://127.0.0.1:8082?a=b"), 200),
    "the absolute form with a host that is not ours": (get(b"http://evil.example/bridge.json"), 421),
    "the absolute form, which goes before Host": (
        get(b"http://127.0.0.1:8082/bridge.json", host=b"Host: evil.example\r\n"),
        200,
    ),
    "the absolute form without Host": (get(b"http://127.0.0.1:8082/bridge.json", host=b""), 400),
    "the absolute form without an authority": (get(b"http:///bridge.json"), 400),
    "the absolute form with a user": (get(b"http://a@127.0.0.1/bridge.json"), 400),
    "the absolute form of another scheme": (get(b"ftp://127.0.0.1/bridge.json"), 400),
    "the authority form": (get(b"127.0.0.1:8082", method=b"CONNECT"), 400),
    "the asterisk form": (get(b"*", method=b"OPTIONS"), 204),
    "the asterisk form of another method": (get(b"*"), 400),
    "OPTIONS of a path": (get(b"/channels", method=b"OPTIONS"), 204),
    "OPTIONS of a file": (get(b"/openapi.json", method=b"OPTIONS"), 204),
    "OPTIONS of nothing": (get(b"/nothing", method=b"OPTIONS"), 404),
    "an unknown method": (get(method=b"QUARREL"), 405),
    "a method that is no token": (get(method=b"G(T"), 400),
    # Section 3.2: the host.
    "HTTP/1.1 without Host": (get(host=b""), 400),
    "HTTP/1.0 without Host": (get(version=b"HTTP/1.0", host=b""), 200),
    "two hosts": (get(host=HOST + HOST), 400),
    "an empty host": (get(host=b"Host:\r\n"), 200),
    "a host with a user": (get(host=b"Host: a@127.0.0.1\r\n"), 400),
    "a host with a path": (get(host=b"Host: 127.0.0.1/\r\n"), 400),
    "a host with a space": (get(host=b"Host: 127.0.0.1 8082\r\n"), 400),
    "a host with a port that is no number": (get(host=b"Host: 127.0.0.1:http\r\n"), 400),
    "a host with an empty port": (get(host=b"Host: 127.0.0.1:\r\n"), 200),
    "a host with half a bracket": (get(host=b"Host: [::1\r\n"), 400),
    "a host that is not ASCII": (get(host=b"Host: br\xfccke\r\n"), 400),
    "a host with a bad escape": (get(host=b"Host: a%zz\r\n"), 400),
    "an invalid host in HTTP/1.0": (get(version=b"HTTP/1.0", host=b"Host: a b\r\n"), 400),
    "a host of ours": (get(host=b"Host: bridge.example.org\r\n"), 200),
    "a host of ours with a dot at its end": (get(host=b"Host: bridge.example.org.\r\n"), 200),
    "a host of ours with a dot at its end and a port": (get(host=b"Host: Bridge.Example.Org.:8082\r\n"), 200),
    "localhost with a dot at its end": (get(host=b"Host: localhost.\r\n"), 200),
    "a host that is not ours": (get(host=b"Host: evil.example\r\n"), 421),
    # Section 6: the end of a body.
    "a length": (post(b"Content-Length: 2", body=b"hi"), 201),
    "chunks": (post(CHUNKED, body=b"2\r\nhi\r\n0\r\n\r\n"), 201),
    "chunks in upper case": (post(b"Transfer-Encoding: CHUNKED", body=b"2\r\nhi\r\n0\r\n\r\n"), 201),
    "chunks behind a tab": (post(b"Transfer-Encoding:\tchunked", body=b"2\r\nhi\r\n0\r\n\r\n"), 201),
    "chunks before a space": (post(b"Transfer-Encoding: chunked ", body=b"2\r\nhi\r\n0\r\n\r\n"), 201),
    "chunks in HTTP/1.0": (post(CHUNKED, body=b"0\r\n\r\n", version=b"HTTP/1.0"), 400),
    "another coding below chunks": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    **{f"the ambiguous body {headers!r:.60}": (post(*headers, body=b"abc"), 400) for headers in SMUGGLED},
    # Section 7.1: chunks.
    "a chunk with an extension": (post(CHUNKED, body=b'2;a="b"\r\nhi\r\n0\r\n\r\n'), 201),
    "a chunk with a trailer": (post(CHUNKED, body=b"2\r\nhi\r\n0\r\nHost: evil\r\n\r\n"), 201),
    "a chunk without a size": (post(CHUNKED, body=b"\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk with a sign": (post(CHUNKED, body=b"+2\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk with a minus sign": (post(CHUNKED, body=b"-1\r\n"), 400),
    "a chunk with 0x": (post(CHUNKED, body=b"0x2\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk that is longer than its size": (post(CHUNKED, body=b"1\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk that ends with LF": (post(CHUNKED, body=b"2\nhi\n0\n\n" + b"x" * 300), 400),
    "a chunk with a long extension": (post(CHUNKED, body=b"2;" + b"x" * 1000 + b"\r\nhi\r\n0\r\n\r\n"), 400),
    "a chunk with a long trailer": (post(CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 10_000), 400),
    # Other protocols and long heads.
    "a command": (b"SUB kitchen\r\n\r\n", 400),
    "the beginning of TLS": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    "an endless request line": (b"x" * 20_000, 431),
    "an endless header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
}


@pytest.mark.parametrize(("request_bytes", "status"), REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("before", [b"", BRIDGE], ids=["first", "second"])
def test_accepts_or_rejects_request(web, server, before, request_bytes, status):
    client = web()
    if before:
        client.send_bytes(before)
        assert b"200 OK" in client.transport.output()
    closes = status in (400, 431, 501)
    client.send_bytes(request_bytes + (BRIDGE if closes else b""))
    [answer] = read_responses(client.transport.output())
    assert answer.status == status
    assert len(server.broker.channels) == (status == 201)
    if closes:
        assert client.transport.half_closed or client.transport.disconnecting
        for more in (b"\r\n", BRIDGE):  # TLS can deliver more input
            client.send_bytes(more)
            assert client.transport.output() == b""


@pytest.mark.parametrize("cut", range(1, 6))
def test_ignores_empty_line_before_the_request_at_any_split(web, cut):
    client = web()
    sent = b"\r\n" + BRIDGE
    client.send_bytes(sent[:cut])
    client.send_bytes(sent[cut:])
    assert [answer.status for answer in read_responses(client.transport.output())] == [200]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get(b"/healthz", host=b"", version=b"HTTP/1.0"), 200),
        (get(b"/healthz", host=b""), 400),
        (get(b"/healthz", host=b"Host: a b\r\n"), 400),
        (get(b"/channels", host=b"Host: evil.example\r\n"), 421),
        (get(b"/healthz", host=b"Host: evil.example\r\n"), 200),
        # The default of HAProxy, and of HAProxy with a path.
        (get(b"/", host=b"", version=b"HTTP/1.0", method=b"OPTIONS"), 204),
        (get(b"/readyz", host=b"", version=b"HTTP/1.0"), 200),
    ],
)
def test_other_interfaces_accept_any_valid_host_for_public_paths(web, request_bytes, status):
    client = web(ANYWHERE)
    client.send_bytes(request_bytes)
    [answer] = read_responses(client.transport.output())
    assert answer.status == status


def test_options_lists_the_methods_of_a_path(web):
    for target, allow in ((b"/channels/a/events", "POST, GET, HEAD"), (b"/", "GET, HEAD")):
        client = web()
        client.send_bytes(get(target, method=b"OPTIONS"))
        [answer] = read_responses(client.transport.output())
        assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")
        assert not {name for name in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("accept", ["", "*/*", "text/event-stream", "text/event-stream, text/html"])
def test_opens_event_stream_whatever_else_is_accepted(web, accept):
    client = web()
    client.send_bytes(get(b"/events?channel=kitchen", *([b"Accept: " + accept.encode()] if accept else [])))
    assert b"event: ok" in client.transport.output()


def upgrade(*headers, target=b"/ws", host=HOST, version=b"HTTP/1.1", method=b"GET"):
    fields = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"]
    fields.append(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    return get(target, *fields, *headers, host=host, version=version, method=method)


OFFERS = [
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits",
    b"permessage-deflate; client_max_window_bits=15",
    b'permessage-deflate; client_max_window_bits="10"',
    b"permessage-deflate; client_max_window_bits=16",
    b"permessage-deflate; client_max_window_bits=08",
    b"permessage-deflate; server_max_window_bits",
    b"permessage-deflate; server_no_context_takeover=1",
    b"permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    b"permessage-deflate; unheard_of=3",
    b"permessage-deflate; client_max_window_bits=99, permessage-deflate",
    b"permessage-bzip2; a=b",
    b"x-webkit-deflate-frame",
    b"a ; b = c , d",
    b", ,a,",
    b"",
]
MALFORMED_OFFERS = [
    b"permessage-deflate; client_max_window_bits=",
    b"permessage-deflate;",
    b"permessage-deflate; =3",
    b'permessage-deflate; a="b c"',
    b'permessage-deflate; a="b',
    b"permessage deflate",
    b"a/b",
    b"\xfc",
]

HANDSHAKES = {
    "an ordinary handshake": (upgrade(), 101),
    "a length of 0": (upgrade(b"Content-Length: 0"), 101),
    "a length": (upgrade(b"Content-Length: 5"), 400),
    "a length of 00": (upgrade(b"Content-Length: 00"), 400),
    "chunks": (upgrade(CHUNKED), 400),
    "a length of 0 and a coding": (upgrade(b"Content-Length: 0", b"Transfer-Encoding: identity"), 400),
    "an empty line before it": (b"\r\n" + upgrade(), 101),
    "the absolute form": (upgrade(target=b"http://127.0.0.1:8082/ws"), 101),
    "the absolute form with a host that is not ours": (upgrade(target=b"http://evil.example/ws"), 421),
    "the absolute form, which goes before Host": (
        upgrade(target=b"http://127.0.0.1:8082/ws", host=b"Host: evil.example\r\n"),
        101,
    ),
    "no host": (upgrade(host=b""), 400),
    "an invalid host": (upgrade(host=b"Host: a b\r\n"), 400),
    "a host of ours with a dot at its end": (
        upgrade(b"Origin: https://bridge.example.org.", host=b"Host: bridge.example.org.\r\n"),
        101,
    ),
    "white space before a colon": (upgrade(b"X : y"), 400),
    "a folded header": (upgrade(b"X: a", b" b"), 400),
    "a bare LF in a header": (upgrade(b"X: a\nb"), 400),
    "HTTP/1.0, where Upgrade means nothing": (upgrade(version=b"HTTP/1.0"), 426),
    "another method": (upgrade(method=b"POST"), 405),
    "another version of WebSocket": (upgrade(b"Sec-WebSocket-Version: 14"), 400),
    "a subprotocol on two lines": (
        upgrade(b"Sec-WebSocket-Protocol: a", b"Sec-WebSocket-Protocol: sockbridge.v1.json"),
        101,
    ),
    **{f"the offer {offer!r}": (upgrade(b"Sec-WebSocket-Extensions: " + offer), 101) for offer in OFFERS},
    "two lines of offers": (
        upgrade(b"Sec-WebSocket-Extensions: permessage-deflate", b"sec-websocket-extensions: a;b"),
        101,
    ),
    **{
        f"the malformed offer {offer!r}": (upgrade(b"Sec-WebSocket-Extensions: " + offer), 400)
        for offer in MALFORMED_OFFERS
    },
}


@pytest.mark.parametrize(("handshake", "status"), HANDSHAKES.values(), ids=HANDSHAKES)
@pytest.mark.parametrize("target", [b" /ws", b" /ws?"], ids=["short", "Autobahn"])
def test_accepts_or_rejects_handshake(web, target, handshake, status):
    """``/ws?`` is a form that only Autobahn parses."""
    client = web()
    client.send_bytes(handshake.replace(b" /ws", target))
    head, _, rest = client.transport.output().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    if status == 101:
        assert b"sec-websocket-extensions" not in head.lower(), "no extension is accepted"
        assert read_frames(rest)[0].startswith('{"type":"welcome"')
