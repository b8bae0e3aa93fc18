"""Random input to both ports, from the first byte to the end."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.fuzz.connections import Connection, quiet_reactor
from tests.fuzz.grammars import ASKED, CUTS, FRAMES, HEADS, LINES, TELNET, UPGRADE, head_of
from tests.fuzz.properties import buffer_limit, buffered_bytes, cut, holds
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.codecs.http import MAX_HEAD_BYTES
from twistedsock.codecs.line_decoder import LineSplitter
from twistedsock.codecs.telnet import TelnetFilter
from twistedsock.codecs.websocket import PlainFrames
from twistedsock.limits import shares
from twistedsock.server import tcp, web, websocket
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.tcp import LineFactory
from twistedsock.server.web import WebFactory
from twistedsock.testing import FakeServer

LIMITS = {"max_line_bytes": 512, "max_message_bytes": 512, "history_events": 20, "history_age": 0.0}
MAX_FRAMES = 512 + 14
"""Bytes of an incomplete message and its head."""

ROOM = st.sampled_from([50, 300, 1_000_000])
"""The memory budget of all connections."""

ACT = st.sampled_from(["stall", "stall", "drain", "drain", "half_close", "close", "waits", "waits long"])
TYPED = LINES | TELNET.map(b"".join) | HEADS | st.binary()
SPOKEN = st.sampled_from(["sockbridge.v1.line", "sockbridge.v1.json", None])
OPENED = SPOKEN.map(
    lambda protocol: head_of(
        "GET", "/ws", "HTTP/1.1", UPGRADE + ([("Sec-WebSocket-Protocol", protocol)] if protocol else [])
    )
)
FRAGMENTS = st.lists(st.sampled_from([b"\x01\x85\0\0\0\0hello", b"\x00\x85\0\0\0\0hello"]), max_size=3).map(b"".join)
BROWSED = st.one_of(
    HEADS,
    ASKED,
    ASKED,
    st.builds(lambda head, data: head + data, HEADS, FRAMES),
    st.builds(lambda head, data: head + data, OPENED, FRAMES),
    st.builds(lambda head, data, more: head + data * more, OPENED, FRAGMENTS, st.sampled_from([1, 200])),
    st.binary(),
)


@contextmanager
def counted() -> Iterator[None]:
    """Short input is counted too."""
    with ExitStack() as stack:
        for module in (shares, tcp, web, websocket):
            stack.enter_context(patch.object(module, "UNCOUNTED_BYTES", 2))
        yield


def live(connection: Connection, clock: Clock, server: FakeServer, pieces: list[bytes], acts: list[Any]) -> list[int]:
    """Send the pieces, with another action after each. Returns how many bytes were kept after each."""
    sizes = []
    waiting = list(pieces)
    bystander = server.line_client()
    for act in [*acts, *("" for _ in pieces)]:
        if act in ("waits", "waits long"):
            for _ in range(3 if act == "waits" else 40):
                clock.advance(1)
                connection.close_if_server_closed()
        elif act:
            getattr(connection, act)()
        if waiting and connection.send_bytes(waiting[0]):
            del waiting[0]
        sizes.append(kept_by(connection.protocol))
        assert 0 <= server.context.memory_budget.used <= server.context.memory_budget.limit
        bystander.send("PUB a received by subscribers")
        clock.advance(0)
        server.turn()
        connection.close_if_server_closed()
    bystander.disconnect()
    for _ in range(3):
        connection.drain()
        clock.advance(0)
        server.turn()
    return sizes


def kept_by(protocol: Any) -> int:
    """Bytes of input that the protocols of a connection keep."""
    owner = getattr(protocol, "handler", None) or protocol
    channel = getattr(owner, "_channel", None)
    values = [*getattr(owner, "__dict__", {}).values(), *(vars(channel).values() if channel is not None else ())]
    own = (bytes, bytearray, list, LineSplitter, PlainFrames, TelnetFilter)
    return sum(buffered_bytes(value) for value in values if isinstance(value, own))


def ends(connection: Connection, clock: Clock, server: FakeServer) -> None:
    """After its end, a connection leaves nothing behind."""
    bystander = server.json_client()
    bystander.send({"type": "ping", "id": 1})
    assert bystander.received()[-1] == {"type": "pong", "id": 1}
    bystander.disconnect()
    connection.close()
    for _ in range(4):
        clock.advance(100)
    assert (
        server.context.connection_limiter.connections
        == len(server.context.sessions)
        == server.context.memory_budget.used
        == 0
    )
    assert not clock.getDelayedCalls(), clock.getDelayedCalls()


@holds(examples=80, data=TYPED, cuts=CUTS, acts=st.lists(ACT, max_size=4), budget=ROOM)
def test_line_port_survives_any_input(data: bytes, cuts: list[int], acts: list[Any], budget: int) -> None:
    """Any bytes, split anywhere: no exception, no logged error, bounded memory, and nothing left at the end."""
    server = FakeServer(**LIMITS)
    server.context.memory_budget.limit = budget
    with counted(), quiet_reactor() as clock:
        connection = Connection(LineFactory(server.context, clock, 0, "http://127.0.0.1:8082/"), 8081)
        pieces = cut(data, cuts)
        for size in live(connection, clock, server, pieces, acts):
            assert size <= buffer_limit(LIMITS["max_line_bytes"] + 1 + 8)
        written = re.sub(rb"\xff[\xfc\xfe].", b"", connection.transport.value(), flags=re.DOTALL)
        said, door, _ = written.partition(b"HTTP/1.1 400 Bad Request\r\n")
        assert re.fullmatch(r"(?:[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\n)*", said.decode())
        ends(connection, clock, server)


@holds(examples=80, data=BROWSED, cuts=CUTS, acts=st.lists(ACT, max_size=4), budget=ROOM)
def test_web_port_survives_any_input(data: bytes, cuts: list[int], acts: list[Any], budget: int) -> None:
    """Any bytes, split anywhere: no exception, no logged error, bounded memory, and nothing left at the end."""
    server = FakeServer(**LIMITS)
    server.context.memory_budget.limit = budget
    with counted(), quiet_reactor() as clock:
        factory = WebFactory(server.context, clock, OriginPolicy(AllowedOrigins()), 0, 10, 5, lambda: [])
        connection = Connection(factory, 8082)
        pieces = cut(data, cuts)
        longest = max(map(len, pieces), default=0)
        for size in live(connection, clock, server, pieces, acts):
            assert size <= buffer_limit(MAX_HEAD_BYTES + MAX_FRAMES + longest)
        written = connection.transport.value()
        assert not written or written.startswith(b"HTTP/1.")
        if written.startswith(b"HTTP/1.1 101 "):
            are_whole_frames(written.partition(b"\r\n\r\n")[2])
        ends(connection, clock, server)


def are_whole_frames(data: bytes) -> None:
    """RFC 6455 sections 5.2 and 5.5.1."""
    closed = inside = False
    while data:
        assert not closed, "something was said after a close frame"
        first, size = data[0], data[1]
        assert size < 0x80, "a server's frames are not masked"
        body = 2
        if size > 125:
            body = 4 if size == 126 else 10
            size = int.from_bytes(data[2:body], "big")
        assert len(data) >= body + size
        kind = first & 0x0F
        if kind in (0, 1):
            assert inside is (kind == 0)
            inside = not first & 0x80
            data[body : body + size].decode()
        else:
            assert first in (0x88, 0x89, 0x8A) and size < 126
            closed = first == 0x88
        data = data[body + size :]
