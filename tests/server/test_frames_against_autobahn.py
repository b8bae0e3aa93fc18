"""The short cut for incoming WebSocket frames has the same results as Autobahn.

Two servers with the same options, ours and one that is Autobahn alone, receive the same bytes with the same splits at
the same times. They must deliver the same messages, write the same bytes in the same order, and close in the same way.
One difference is allowed: a plain frame with invalid UTF-8 is rejected when it is complete, and by Autobahn at its
first invalid byte."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket import protocol as autobahn_protocol
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fakes import FakeTransport
from tests.fuzz.connections import quiet_reactor
from tests.fuzz.grammars import CUTS, HANDSHAKE, HUGE, MASKS, frame
from tests.fuzz.properties import cut, holds
from twistedsock.server.websocket import UNSUPPORTED_DATA, WebSocketConnection, WebSocketFactory
from twistedsock.testing import FakeServer

PING_INTERVAL, PING_TIMEOUT = 10, 5


class RecordingTransport(FakeTransport):
    """Records the calls of a protocol in order."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[tuple[str, Any]] = []
        self.deaf = False
        self.gone = False

    def write(self, data: bytes) -> None:
        if not self.deaf:
            self.trace.append(("writes", bytes(data)))

    def loseConnection(self) -> None:
        super().loseConnection()
        self.trace.append(("closes", None))

    def abortConnection(self) -> None:
        super().abortConnection()
        self.trace.append(("aborts", None))

    def pauseProducing(self) -> None:
        raise AssertionError("nothing blocks here")


class Recording:
    """Records when a connection has closed."""

    transport: Any

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.transport.trace.append(("closed", (wasClean, code, reason)))
        super().onClose(wasClean, code, reason)  # type: ignore[misc]


class RecordingShell(Recording, WebSocketConnection):
    """Our server, except that messages are recorded and not run."""

    def onOpen(self) -> None:
        self.transport.deaf = True  # Autobahn's server sends no welcome
        super().onOpen()
        self.transport.deaf = False

    def handle_messages(self, messages: list[bytes]) -> None:
        self.transport.trace += [("receives", message) for message in messages]


class Stock(Recording, WebSocketServerProtocol):
    """Autobahn alone, with our answer to binary messages."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.state != self.STATE_OPEN:
            return
        if isBinary:
            self.sendCloseFrame(UNSUPPORTED_DATA, b"binary messages are not supported")
        else:
            self.transport.trace.append(("receives", bytes(payload)))


class Pair:
    """Both servers, with the same clock."""

    def __init__(self, clock: Clock, max_message_bytes: int = 65_536) -> None:
        self.clock = clock
        ours = WebSocketFactory(
            FakeServer(max_message_bytes=max_message_bytes).context, clock, 0, PING_INTERVAL, PING_TIMEOUT
        )
        stock = WebSocketServerFactory(reactor=clock)
        for name in WebSocketServerProtocol.CONFIG_ATTRS:
            setattr(stock, name, getattr(ours, name))
        ours.protocol = type("ConfiguredRecordingShell", (RecordingShell, ours.protocol), {})
        stock.protocol = Stock
        self.servers = [self._connect(ours), self._connect(stock)]

    def _connect(self, factory: Any) -> Any:
        server = factory.buildProtocol(None)
        server.makeConnection(RecordingTransport())
        return server

    def feed(self, data: bytes) -> None:
        for server in self.servers:
            if not server.transport.gone:
                server.dataReceived(data)
        self.end()
        self.compare()

    def advance(self, seconds: int) -> None:
        if not self.is_late():
            self.clock.advance(seconds)
            self.end()
            self.compare()

    def is_late(self) -> bool:
        """True if ours waits for the end of a frame in which Autobahn has already found an invalid byte."""
        ours, stock = self.servers
        return ours.partial_plain_frame is not None and ours.state == ours.STATE_OPEN and stock.localCloseCode == 1007

    def answer_ping(self) -> None:
        """The client answers the last ping."""
        pings = [data for kind, data in self.servers[1].transport.trace if kind == "writes" and data[0] == 0x89]
        if pings and not self.is_late():
            self.feed(frame(0x8A, pings[-1][2:]))

    def hang_up(self) -> None:
        """The servers start to close."""
        if not self.is_late() and self.servers[0].state == WebSocketConnection.STATE_OPEN:
            for server in self.servers:
                server.sendCloseFrame(1001)
            self.compare()

    def finish(self) -> None:
        """The connections are lost."""
        if not self.is_late():
            self.end(all_connections=True)
            self.compare()

    def end(self, all_connections: bool = False) -> None:
        """Closed connections are lost at once."""
        for server in self.servers:
            if (all_connections or server.transport.is_closed) and not server.transport.gone:
                server.transport.gone = True
                server.connectionLost(Failure(ConnectionDone()))

    def compare(self) -> None:
        ours, stock = self.servers
        if self.is_late():
            assert ours.transport.trace == stock.transport.trace[:-1]
            return
        assert ours.transport.trace == stock.transport.trace
        for name in ("state", "localCloseCode", "localCloseReason", "remoteCloseCode", "remoteCloseReason"):
            assert getattr(ours, name) == getattr(stock, name), name
        for name in ("wasClean", "wasNotCleanReason", "closedByMe", "failedByMe", "droppedByMe", "autoPingPending"):
            assert getattr(ours, name) == getattr(stock, name), name

    def received(self) -> list[bytes]:
        return [message for kind, message in self.servers[0].transport.trace if kind == "receives"]


@contextmanager
def fake_time() -> Iterator[Clock]:
    """The time of Autobahn's timers, and of the timestamps in its pings."""
    with quiet_reactor() as clock:
        time = SimpleNamespace(time_ns=lambda: int(clock.seconds() * 10**9))
        with patch.object(autobahn_protocol, "time", time):
            yield clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    with fake_time() as clock:
        yield clock


LETTERS = st.sampled_from(["a", "é", "€", "😀", "aé€😀", '{"', "\x00\x7f"])
SIZES = st.sampled_from(
    [0, 1, 2, 5, 60, 124, 125, 126, 127, 300, 1000, 1001, 4000] * 3 + [65534, 65535, 65536, 65537, 70000]
)
TEXTS = st.builds(
    lambda letters, size: (letters * size).encode()[:size].decode(errors="ignore").encode(), LETTERS, SIZES
)
NOT_UTF8 = st.builds(
    bytes.__add__,
    TEXTS,
    st.sampled_from(
        [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"ab\xe2\x82", b"\xf0\x9f\x98"]
    ),
)
PLAIN = st.builds(frame, st.just(0x81), TEXTS, MASKS)
CONTROL = st.builds(frame, st.sampled_from([0x89, 0x8A]), st.binary(max_size=125), MASKS)
CODES = [1000, 1001, 1002, 1003, 1007, 1013, 3000, 4999, 0, 999, 1004, 1005, 1006, 5000, 65535]
CLOSE = st.builds(
    lambda code, reason, mask: frame(0x88, code + reason, mask),
    st.sampled_from([b"", b"\x03", *(code.to_bytes(2) for code in CODES)]),
    st.sampled_from([b"", b"", b"bye \xe2\x82\xac", b"\xff"]),
    MASKS,
)


@st.composite
def fragments(draw: st.DrawFn, first: int, payloads: st.SearchStrategy[bytes]) -> bytes:
    """A message in fragments, which may split a character, with control frames between them."""
    payload = draw(payloads)
    places = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=1, max_size=3)))
    firsts = [first, *[0x00] * (len(places) - 1), 0x80]
    sent = b""
    for first, start, end in zip(firsts, [0, *places], [*places, len(payload)], strict=True):
        sent += frame(first, payload[start:end], draw(MASKS)) + draw(st.just(b"") | CONTROL)
    return sent


FAULT = st.one_of(
    st.builds(frame, st.sampled_from([0x80, 0x82, 0x09]), TEXTS, MASKS),
    st.builds(frame, st.sampled_from([0xC1, 0xA1, 0x91, 0xF1]), TEXTS, MASKS),
    st.builds(frame, st.sampled_from([*range(0x83, 0x88), *range(0x8B, 0x90)]), TEXTS, MASKS),
    st.builds(frame, st.just(0x81), TEXTS, st.none()),
    st.builds(frame, st.just(0x81), NOT_UTF8, MASKS),
    st.builds(frame, st.just(0x81), TEXTS, MASKS, st.sampled_from([2, 8])),
    fragments(0x01, NOT_UTF8),
    fragments(0x02, TEXTS),
    st.builds(lambda begun, plain, end: frame(0x01, begun) + plain + frame(0x80, end), TEXTS, PLAIN, TEXTS),
    st.sampled_from([frame(0x89, b"x" * 126), frame(0x01, b"x" * 40_000) + frame(0x80, b"x" * 40_000)]),
    HUGE,
    PLAIN.map(lambda plain: plain[:-1]),
    st.binary(min_size=1, max_size=20),
)
VALID = st.one_of(PLAIN, PLAIN, PLAIN, CONTROL, fragments(0x01, TEXTS))
STREAMS = st.one_of(
    st.lists(VALID, max_size=8).map(b"".join),
    st.builds(
        lambda before, end, behind: b"".join([*before, end, *behind]),
        st.lists(PLAIN, max_size=2) | st.lists(VALID, max_size=4),
        FAULT | CLOSE,
        st.lists(VALID, max_size=2),
    ),
)
ACTS = st.lists(st.sampled_from([0] * 50 + [1, 2, 6, 12, "pong", "pong", "pong", "close"]), max_size=30)
"""What happens after each piece: seconds pass, a ping is answered, or the server closes."""


@holds(
    examples=500,
    limit=st.sampled_from([1000, 65_536]),
    apart=st.sampled_from([True, True, True, False]),
    data=STREAMS,
    cuts=CUTS,
    acts=ACTS,
)
def test_any_stream_has_the_same_result(
    limit: int, apart: bool, data: bytes, cuts: list[int], acts: list[int | str]
) -> None:
    """Both servers deliver the same messages, write the same bytes and close in the same way."""
    with fake_time() as clock:
        pair = Pair(clock, limit)
        if apart:
            pair.feed(HANDSHAKE)
        for piece, act in zip_longest(cut(data if apart else HANDSHAKE + data, cuts), acts):
            if piece:
                pair.feed(piece)
            if act == "pong":
                pair.answer_ping()
            elif act == "close":
                pair.hang_up()
            elif act:
                pair.advance(act)
        pair.finish()


HELLO = frame(0x81, b"hello")
TAIL = frame(0x89, b"?") + frame(0x81, b"after")

CASES = {
    "plain": HELLO * 2,
    "of 126 bytes": frame(0x81, b"x" * 126),
    "fragments": frame(0x01, b"hel") + frame(0x80, b"lo"),
    "a message within another": frame(0x01, b"hel") + HELLO + frame(0x80, b"lo"),
    "a ping within fragments": frame(0x01, b"hel") + frame(0x89, b"x") + frame(0x80, b"lo"),
    "a character in two fragments": frame(0x01, b"\xe2\x82") + frame(0x80, b"\xac"),
    "not UTF-8": frame(0x81, b"a\xffb"),
    "half a character": frame(0x81, b"a\xe2\x82"),
    "binary": frame(0x82, b"hello"),
    "unmasked": frame(0x81, b"hello", None),
    "a reserved bit": frame(0xC1, b"hello"),
    "a reserved opcode": frame(0x83, b"hello"),
    "a length that is not the shortest": frame(0x81, b"x" * 125, width=2),
    "a length of eight bytes": frame(0x81, b"x" * 125, width=8),
    "too long": b"\x81\xff" + (65_537).to_bytes(8, "big") + b"mask" + b"x" * 20,
    "much too long": b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"mask" + b"x" * 20,
    "a continuation of nothing": frame(0x80, b"lo"),
    "a close frame": frame(0x88, b"\x03\xe8bye"),
    "an empty close frame": frame(0x88, b""),
    "a close frame of one byte": frame(0x88, b"\x03"),
    "a pong to nobody": frame(0x8A, b"x"),
    "nothing of a payload": frame(0x81, b""),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_kind_of_frame_has_the_same_result_at_any_split(case: bytes, clock: Clock) -> None:
    data = HELLO + case + TAIL
    cuts = [[data], [data[index : index + 1] for index in range(len(data))]]
    cuts += [[data[:index], data[index:]] for index in range(1, len(data))]
    for pieces in cuts:
        pair = Pair(clock)
        pair.feed(HANDSHAKE)
        for piece in pieces:
            pair.feed(piece)
        assert pair.received()[0] == b"hello"
        pair.finish()


def test_close_within_a_frame_has_the_same_result(clock: Clock) -> None:
    """The rest of a frame that was split by our close frame is not a frame of its own."""
    for index in range(1, len(HELLO)):
        pair = Pair(clock)
        pair.feed(HANDSHAKE)
        pair.feed(HELLO[:index])
        pair.hang_up()
        pair.feed(HELLO[index:])
        pair.feed(frame(0x88, b"\x03\xe9"))
        assert pair.servers[0].transport.is_closed and pair.servers[0].wasClean
        pair.finish()


@pytest.mark.parametrize("sent", [HELLO, frame(0x01, b"hel"), frame(0x89, b""), HELLO[:4]], ids=repr)
@pytest.mark.parametrize("later", [11, 14, 30])
def test_pings_and_timeouts_have_the_same_result(sent: bytes, later: int, clock: Clock) -> None:
    pair = Pair(clock)
    pair.feed(HANDSHAKE)
    pair.advance(PING_INTERVAL + 1)
    pair.feed(sent)
    for _ in range(later):
        pair.advance(1)
    pair.answer_ping()
    for _ in range(later):
        pair.advance(1)
    pair.finish()
