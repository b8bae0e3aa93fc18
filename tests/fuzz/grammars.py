"""Input from clients: mostly valid by the grammars, with errors in it. Random bytes alone would seldom pass the first
check of a parser."""

import json
from base64 import b64encode
from typing import Any

from hypothesis import strategies as st

from twistedsock.codecs.websocket import unmask

CUTS = st.one_of(
    st.lists(st.integers(0, 2_000), max_size=4),
    st.lists(st.integers(0, 2_000), max_size=4),
    st.sampled_from([[], [*range(2_000)], [*range(0, 2_000, 2)]]),
)
"""For ``cut``."""

CONTROLS = [b"\n", b"\r", b"\r\n", b"\x00", b"\x04", b"\x1b[2J", b"\x7f", b"\xc2\x85"]
NOT_UTF8 = [b"\xff", b"\xff\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
SIGNS = [b" ", b"  ", b"\t", b'"', b"\\", b"\\u0041", b"\\ud800", b"{", b"}", b"[", b"]", b":", b",", b"%d", b"="]
OTHERS = [b"\xe2\x80\xa8", b"\xef\xbb\xbf", b" HTTP/1.1", b"0", b"-", b"1" * 400]
SHARP = CONTROLS + NOT_UTF8 + SIGNS + OTHERS
"""Bytes that have a meaning for some parser."""

EDIT = st.tuples(st.integers(0, 5_000), st.sampled_from([0, 0, 1, 2, 7]), st.sampled_from([b"", *SHARP]) | st.binary())


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Replace ``size`` bytes at each position with new ones."""
    for place, size, new in edits:
        start = place % (len(data) + 1)
        data = data[:start] + new + data[start + size :]
    return data


def damaged(whole: st.SearchStrategy[bytes], most: int = 2) -> st.SearchStrategy[bytes]:
    """Half of the examples unchanged, half with a few edits."""
    return whole | st.builds(edited, whole, st.lists(EDIT, min_size=1, max_size=most))


# Names and payloads.

NAMES = st.sampled_from([b"a", b"b", "é".encode(), b"lobby.x/y", b"x" * 32, b"p1"])
BAD_NAMES = st.sampled_from(
    [b"*", b"a>b", b"#", b"x" * 201, b"\xc2\x85", b"\xe2\x80\xa8", b"\x00", b"\x1b[2J", b"\xff"]
)
CHANNELS = st.sampled_from([b"a", b"a", b"a", b"b", "é".encode()]) | NAMES | BAD_NAMES

TEXTS = st.sampled_from(
    ["", "x", " x ", "21.5", "{", "[", '"', "{}", "[1]", '"x"', 'x"y', "\\", "\\n", "%", "%b%d", "a\tb", "é🌡", "\x7f"]
    + ["\x00", "\x1b[2J", "\x85", "\r", "\n", "a\r\nb", "\u2028", "\ufeff", "x" * 130, "é" * 200, "\x00" * 90]
) | st.text(max_size=12)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
LAYOUTS = st.sampled_from([(",", ":"), (", ", ": "), (",\n", ":\t"), ("\r\n,", " :")])


def written(value: Any, layout: tuple[str, str], ascii_only: bool) -> bytes:
    return json.dumps(value, separators=layout, ensure_ascii=ascii_only).encode()


JSON_TEXTS = st.builds(written, VALUES, LAYOUTS, st.booleans())
COUNTS = st.sampled_from([b"0", b"1", b"5", b"12", b"%d" % (2**53 - 1), b"%d" % 2**53, b"-1", b"1.0", b"", b"9" * 30])
TIMES = st.sampled_from(
    [
        b"-1h",
        b"-90s",
        b"-0ms",
        b"-1y",
        b"1h",
        b"-999999999999d",
        b"2027-01-15T08:00:00Z",
        b"2027-01-15t09:00:00.5+01:00",
    ]
    + [b"2027-02-30T08:00:00Z", b"2027-01-15", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59.999999999-23:59"]
)
"""Times as clients write them, valid or not."""
EPOCHS = st.sampled_from([b"e1", b"e2", b"x"])
TOKENS = st.sampled_from([b"A", b"B", b"A", b"short", b"x"])
"""Tokens of the fake policy, and an invalid one."""

# Lines.

OPTION = (
    st.builds(lambda name, value: name + b"=" + value, st.sampled_from([b"last", b"since"]), COUNTS)
    | st.builds(lambda epoch: b"epoch=" + epoch, EPOCHS)
    | st.builds(lambda name, bound: name + b"=" + bound, st.sampled_from([b"after", b"before"]), COUNTS | TIMES)
    | st.sampled_from([b"time=on", b"time=on", b"time=off", b"time=x"])
    | st.sampled_from([b"presence=on", b"echo=off", b"presence=off", b"LAST=1", b"x", b"=", b"last"])
)
OPTIONS = st.lists(OPTION, max_size=3, unique_by=lambda option: option.partition(b"=")[0])
PAYLOAD = TEXTS.map(str.encode) | JSON_TEXTS
BASE64 = st.binary(max_size=40).map(b64encode) | st.sampled_from([b"/9g", b"a", b"=", b"/9g= "])
"""Bytes in base64, and some that is not valid."""
PUBLISH = st.builds(lambda channel, payload: b"PUB %b %b" % (channel, payload), CHANNELS, PAYLOAD)
USUAL = st.sampled_from(
    [b"SUB a", b"SUB a last=5", b"SUB a presence=on", b"SUB b presence=on echo=off", b"SUB a since=1 epoch=e1"]
    + [b"SUB c", b"SUB d", b"UNSUB a", b"HIST a", b"HIST b last=3", b"WHO a", b"NICK ann"]
    + [b"PUB a x", b"PUB b " + b"y" * 400, b"EMIT a b {}"]
)
"""The most common commands, so that events are published and delivered."""
LINE = st.one_of(
    USUAL,
    USUAL,
    PUBLISH,
    PUBLISH,
    st.builds(lambda channel, name, payload: b"EMIT %b %b %b" % (channel, name, payload), CHANNELS, CHANNELS, PAYLOAD),
    st.builds(lambda channel, payload: b"PUBBIN %b %b" % (channel, payload), CHANNELS, BASE64),
    st.builds(lambda channel, payload: b"EMITBIN %b a %b" % (channel, payload), CHANNELS, BASE64),
    st.builds(lambda channel, words: b" ".join([b"SUB", channel, *words]), CHANNELS, OPTIONS),
    st.builds(lambda channel, words: b" ".join([b"HIST", channel, *words]), CHANNELS, OPTIONS),
    st.builds(
        lambda verb, word: b"%b %b" % (verb, word), st.sampled_from([b"UNSUB", b"WHO", b"NICK", b"Who"]), CHANNELS
    ),
    st.builds(lambda text: b"PING " + text, PAYLOAD),
    st.sampled_from([b"PING", b"INFO", b"HELP", b"HELP sub", b"HELP x", b"?", b"QUIET on", b"QUIET off", b"quiet no"]),
    TOKENS.map(lambda token: b"AUTH " + token),
    st.sampled_from([b"", b"  ", b"nonsense", b"PUB", b"PUB a", b" PUB  a  x", b"GET / HTTP/1.1", b"x" * 600]),
)
RUN = st.builds(
    lambda channel, payloads, more: b"\n".join([b"PUB %b %b" % (channel, payload) for payload in payloads * more]),
    CHANNELS,
    st.lists(PAYLOAD, min_size=2, max_size=5),
    st.sampled_from([1, 1, 1, 20]),
)
ENDS = st.sampled_from([b"\n"] * 6 + [b"\r\n", b"\n\n", b"\n\x04", b"\r"])
LINES = damaged(st.lists(st.builds(lambda line, end: line + end, LINE | RUN, ENDS), max_size=8).map(b"".join))
"""The input of a line client."""

# JSON messages.


def _object(pairs: list[tuple[bytes, bytes]], layout: tuple[str, str]) -> bytes:
    comma, colon = (sign.encode() for sign in layout)
    return b"{" + comma.join([b'"' + name + b'"' + colon + value for name, value in pairs]) + b"}"


def _quoted(name: bytes) -> bytes:
    return json.dumps(name.decode(errors="replace")).encode()


IDS = st.sampled_from([b"1", b'"x"', b"-7", b"0", b"null", b"1.5", b"[]", b'"\\u0000"', b"9" * 5_000, b'"\xc3\xa9"'])
ANY_FIELD = st.tuples(
    st.sampled_from([b"id", b"channel", b"data", b"name", b"nick", b"last", b"since", b"epoch", b"presence", b"echo"])
    | st.sampled_from([b"after", b"before"])
    | st.sampled_from([b"x", b"type", b"dat\\u0061", b"data"]),
    JSON_TEXTS | IDS | st.sampled_from([b"true", b"false", b"1", b'"a"', b"[" * 3 + b"]" * 3]),
)
CHANNEL_FIELD = st.tuples(st.just(b"channel"), CHANNELS.map(_quoted))
FIELDS: dict[str, list[st.SearchStrategy[tuple[bytes, bytes]]]] = {
    "publish": [CHANNEL_FIELD, st.tuples(st.just(b"data"), JSON_TEXTS | TEXTS.map(json.dumps).map(str.encode))],
    "publish bytes": [CHANNEL_FIELD, st.tuples(st.just(b"base64"), BASE64.map(_quoted))],
    "subscribe": [CHANNEL_FIELD],
    "unsubscribe": [CHANNEL_FIELD],
    "history": [CHANNEL_FIELD],
    "who": [CHANNEL_FIELD],
    "list": [st.tuples(st.sampled_from([b"prefix", b"after"]), CHANNELS.map(_quoted))],
    "nick": [st.tuples(st.just(b"nick"), NAMES.map(_quoted))],
    "auth": [st.tuples(st.just(b"token"), TOKENS.map(_quoted))],
    "ping": [],
    "info": [],
    "nonsense": [],
}
FITTING = st.one_of(
    st.tuples(st.just(b"id"), IDS),
    st.tuples(st.just(b"id"), IDS),
    st.tuples(st.sampled_from([b"last", b"since"]), COUNTS.map(lambda count: count or b"0")),
    st.tuples(st.sampled_from([b"after", b"before"]), COUNTS.map(lambda count: count or b"0") | TIMES.map(_quoted)),
    st.tuples(st.just(b"epoch"), EPOCHS.map(_quoted)),
    st.tuples(st.sampled_from([b"presence", b"echo"]), st.sampled_from([b"true", b"false"])),
    st.tuples(st.just(b"name"), NAMES.map(_quoted)),
    st.tuples(st.just(b"key"), st.sampled_from([b'"1"', b'"1"', b'"2"', b'""', b"1"])),
    ANY_FIELD,
)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["publish", "publish", *FIELDS]))
    pairs = [(b"type", b'"%b"' % kind.partition(" ")[0].encode()), *[draw(field) for field in FIELDS[kind]]]
    pairs += draw(st.lists(FITTING, max_size=3))
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs))
    return _object(pairs, draw(LAYOUTS))


MESSAGE = damaged(objects(), most=1)
"""One message of a JSON client, always UTF-8."""
USUAL_MESSAGES = st.sampled_from(
    [b'{"type":"subscribe","id":1,"channel":"a"}', b'{"type":"subscribe","channel":"b","presence":true,"last":9}']
    + [b'{"type":"subscribe","id":2,"channel":"a","since":1,"epoch":"e1","echo":false}', b'{"type":"info"}']
    + [b'{"type":"unsubscribe","channel":"a"}', b'{"type":"history","channel":"a"}', b'{"type":"who","channel":"a"}']
    + [b'{"type":"publish","id":3,"channel":"a","data":"%b"}' % (b"y" * size) for size in (1, 400)]
)
SOUND = USUAL_MESSAGES | MESSAGE.map(lambda message: message.decode(errors="replace").encode())


TWICE = st.tuples(
    st.sampled_from([b"data", b"channel", b"dat\\u0061", b"x"]), st.sampled_from([b'"b"', b"1", b'{"data":"x"}'])
)
"""A repeated field, or a text that looks like a field."""


@st.composite
def alike(draw: st.DrawFn) -> list[bytes]:
    """Messages of one program, all in the same form, with a few other messages between them."""
    before = draw(st.lists(FITTING | TWICE, max_size=2))
    after = draw(st.lists(FITTING | TWICE, max_size=2))
    layout, channel = draw(LAYOUTS), draw(CHANNEL_FIELD)
    told = []
    for text in draw(st.lists(TEXTS, min_size=1, max_size=5)) * draw(st.sampled_from([1, 1, 1, 9])):
        data = (b"data", json.dumps(text).encode())
        told.append(_object([(b"type", b'"publish"'), *before, channel, data, *after], layout))
    odd = draw(st.lists(st.tuples(st.integers(0, 40), SOUND), max_size=2))
    for place, message in odd:
        told.insert(place % (len(told) + 1), message)
    return told


MESSAGES = st.lists(alike() | st.lists(SOUND, max_size=4), max_size=3).map(lambda runs: sum(runs, []))
"""The input of a JSON client."""

# Frames.

MASKS = st.sampled_from([b"\x00\x00\x00\x00", b"\x12\x34\x56\x78", b"\xff\xff\xff\xff"])


def frame(first: int, payload: bytes, mask: bytes | None = b"\x12\x34\x56\x78", width: int = 0) -> bytes:
    """A frame. ``first`` is its first byte. Its length has ``width`` bytes, or more if necessary."""
    size = len(payload)
    width = max(width, 0 if size < 126 else 2 if size < 65536 else 8)
    marker = size if width == 0 else 126 if width == 2 else 127
    head = bytes([first, (0x80 if mask else 0) | marker]) + (size.to_bytes(width, "big") if width else b"")
    return head + mask + unmask(payload, mask) if mask else head + payload


FIRSTS = st.sampled_from([0x81] * 12 + [0x82, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8A, 0xC1, 0x83, 0x8F, 0x09])
CLOSES = st.sampled_from([b"", b"\x03", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x13\x88\xff", b"\x00\x00"])
CONTENT = SOUND | LINE | TEXTS.map(str.encode) | CLOSES | st.binary(max_size=20)
FRAME = st.builds(frame, FIRSTS, CONTENT, MASKS | st.none(), st.sampled_from([0] * 8 + [2, 8]))
PLAIN = st.builds(frame, st.just(0x81), SOUND | LINE, MASKS, st.just(0))
SAME = st.builds(
    lambda text, mask, times: frame(0x81, text, mask, 0) * times, LINE | SOUND, MASKS, st.sampled_from([2, 20])
)
HUGE = st.builds(
    lambda size, rest: b"\x81\xff" + size.to_bytes(8, "big") + rest, st.integers(0, 2**64 - 1), st.binary()
)
FRAMES = damaged(st.lists(PLAIN | PLAIN | SAME | FRAME | HUGE, max_size=6).map(b"".join))
"""The input of a WebSocket client after the handshake."""

# HTTP.

METHODS = st.sampled_from(["GET"] * 6 + ["POST", "HEAD", "OPTIONS", "get", "", "PUB", "PRI"])
TARGETS = st.sampled_from(
    ["/ws", "/ws", "/", "/bridge.json", "/sockbridge.js", "/ws?token=x", "/%00", "*", "//", "http://x/"]
)
VERSIONS = st.sampled_from(["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/2.0", "HTTP/", "http/1.1", "HTTP/1.1 "])
UPGRADE = [
    ("Host", "127.0.0.1:8082"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
]
FIELD_NAMES = st.sampled_from(
    ["Host", "Origin", "Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Expect", "Cookie"]
    + [f"Sec-WebSocket-{part}" for part in ("Protocol", "Extensions", "Key", "Version")]
    + ["X", "", " X", "X-é"]
)
HOSTS = ["127.0.0.1:8082", "localhost", "evil.example", "[::1]:1"]
ORIGINS = ["http://127.0.0.1:8082", "null", "https://x:99999999999"]
CONNECTIONS = ["websocket", "h2c, WebSocket", "keep-alive, Upgrade", "close", "chunked", "100-continue"]
PROTOCOLS = ["sockbridge.v1.line", "sockbridge.v1.json, chat", "chat", ","]
HANDSHAKES = ["permessage-deflate", "permessage-deflate; x=\x00", "dGhlIHNhbXBsZSBub25jZQ==", "13", "8"]
FIELD_VALUES = st.sampled_from(
    HOSTS + ORIGINS + CONNECTIONS + PROTOCOLS + HANDSHAKES + ["", "5", "-1", "9" * 20, "x" * 5_000]
)


def head_of(method: str, target: str, version: str, fields: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


HANDSHAKE = head_of("GET", "/ws", "HTTP/1.1", UPGRADE)
EXTRA = st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES), max_size=3)
UPGRADES = st.builds(lambda target, extra: head_of("GET", target, "HTTP/1.1", UPGRADE + extra), TARGETS, EXTRA)
REQUESTS = st.builds(
    lambda method, target, version, host, extra: head_of(method, target, version, host + extra),
    METHODS,
    TARGETS,
    VERSIONS,
    st.sampled_from([UPGRADE[:1], UPGRADE[:1], []]),
    EXTRA,
)
HEADS = damaged(st.just(HANDSHAKE) | UPGRADES | REQUESTS)

# Telnet.

NEGOTIATION = st.builds(
    lambda command, option: bytes([255, command, option]), st.sampled_from([251, 252, 253, 254]), st.integers(0, 255)
)
SUBNEGOTIATION = st.builds(lambda data: b"\xff\xfa" + data.replace(b"\xff", b"\xff\xff") + b"\xff\xf0", st.binary())
INTERRUPT = st.sampled_from([b"\xff\xf4", b"\xff\xf6", b"\xff\xf4\xff\xfd\x06", b"\xff\xf1", b"\xff\xff"])
TELNET = st.lists(LINE.map(lambda line: line + b"\n") | NEGOTIATION | SUBNEGOTIATION | INTERRUPT, max_size=6)

# What proxies say.

ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
PORTS = st.sampled_from([0, 1, 443, 65_535])


def header_of(address: Any, port: int, version: int, more: bytes) -> bytes:
    """A PROXY protocol header of version 1 or 2, with ``more`` after the addresses in version 2."""
    if version == 1:
        return f"PROXY TCP{address.version} {address} {address} {port} {port}\r\n".encode()
    body = address.packed * 2 + port.to_bytes(2, "big") * 2 + more
    return (
        b"\r\n\r\n\0\r\nQUIT\n\x21"
        + (b"\x11" if address.version == 4 else b"\x21")
        + len(body).to_bytes(2, "big")
        + body
    )


HEADERS = st.builds(header_of, ADDRESSES, PORTS, st.sampled_from([1, 2]), st.binary(max_size=30)) | st.sampled_from(
    [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN x y\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"]
)

ASKED_FOR = st.sampled_from(
    ["/channels", "/channels/a/members", "/events", "/events?channel=a&channel=b", "/peers", "/stream"]
    + [f"/channels/{path}" for path in ("a/events", "a/events?wait=1", "/events", "%FF/events")]
    + ["/healthz", "/readyz", "/page.js"]
)
BODIES = st.sampled_from([b"", b"hello", b'{"events":[{"channel":"a","data":1}]}', b"x" * 600]) | st.binary(max_size=50)
MORE_FIELDS = st.lists(
    st.sampled_from(
        [("Accept", "text/event-stream"), ("Content-Type", "application/json"), ("Content-Type", "text/plain")]
        + [("Expect", "100-continue"), ("Connection", "close"), ("Idempotency-Key", "k"), ("Accept-Encoding", "gzip")]
        + [("Origin", "http://127.0.0.1:8082"), ("X-Forwarded-For", "203.0.113.7"), ("If-None-Match", "*")]
    ),
    max_size=2,
)


def request_of(method: str, target: str, fields: list[tuple[str, str]], body: bytes, pieces: int) -> bytes:
    """A request with a body in ``pieces`` chunks, or with its length for 0."""
    fields = [("Host", "127.0.0.1:8082"), *fields]
    if not pieces:
        return head_of(method, target, "HTTP/1.1", [*fields, ("Content-Length", str(len(body)))]) + body
    size = -(-len(body) // pieces) or 1
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))
    return head_of(method, target, "HTTP/1.1", [*fields, ("Transfer-Encoding", "chunked")]) + chunks


ASKED = damaged(
    st.lists(
        st.builds(
            request_of,
            st.sampled_from(["GET", "GET", "POST", "POST", "HEAD", "DELETE", "OPTIONS"]),
            ASKED_FOR,
            MORE_FIELDS,
            BODIES,
            st.sampled_from([0, 0, 1, 3, 1_100]),
        ),
        max_size=5,
    ).map(b"".join)
)
"""HTTP requests, one after the other."""
