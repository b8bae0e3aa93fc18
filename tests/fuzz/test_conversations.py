"""Whole conversations: several peers of every kind on one bridge, whatever they send and however they read."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, LINES, MESSAGES
from tests.fuzz.properties import cut, holds, kept, room, said
from tests.fuzz.replies import Due, replies_of
from twistedsock.codecs import json_decoder
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_decoder import LINE_DECODER, LINE_MESSAGE_DECODER, LineSplitter
from twistedsock.codecs.line_encoder import LINE_ENCODER as LINES_ENCODING
from twistedsock.codecs.line_encoder import LINE_MESSAGE_ENCODER
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import MESSAGES_PER_PART
from twistedsock.testing import FakePolicy, FakeServer, LateBackplane

MAX_LINE = 512
MAX_MESSAGE = 70_000
"""Bytes that what is drawn here makes of one event at most, in any dialect."""
LIMITS = {
    "max_line_bytes": MAX_LINE,
    "history_events": 60,
    "history_total_bytes": 6_000,
    "max_channels": 6,
    "max_subscriptions_per_client": 3,
    "max_pending_presence": 2,
    "history_age": 30.0,
}

POLICY = FakePolicy(
    {"a": "rw"},
    {"A": ("ann", {"a": "rw", "*": "rw"}, None), "B": ("bob", {"b": "r"}, None), "short": ("cat", {}, 1.8e9 + 30)},
)
KINDS = ["line", "line", "message", "json", "json"]
PEER = st.integers(0, 2)
ROOM = st.sampled_from([0, 1, 30, 300, 5_000])


@dataclass
class Guest:
    """One peer of ``kind``: what it has to say yet, and what it has heard."""

    server: FakeServer
    kind: str
    peer: Any = field(init=False)
    due: Due = field(default_factory=Due)
    unsaid: list[Any] = field(default_factory=list)
    heard: bytes = b""
    read: int = 0

    def __post_init__(self) -> None:
        self.connect()

    @property
    def dialect(self) -> Encoder:
        return {"line": LINES_ENCODING, "message": LINE_MESSAGE_ENCODER, "json": JSON_MESSAGE_ENCODER}[self.kind]

    def connect(self) -> None:
        self.peer = getattr(self.server, f"{self.kind}_client")()
        self.due, self.unsaid, self.heard, self.read = Due(), [], b"", 0
        # Reads what it is sent once more and by itself, to know what is due.
        self.splitter = LineSplitter(MAX_LINE)

    def brings(self, reads: list[Any]) -> None:
        self.unsaid += reads

    def send(self) -> None:
        """As much as is read: a shell reads no more of a peer that is paused."""
        if self.peer.close_reason is not None:
            self.unsaid.clear()  # a shell drops what still comes
        while self.unsaid and not self.peer.paused and self.peer.close_reason is None:
            piece = self.unsaid.pop(0)
            self.read = len(piece) if self.kind == "line" else sum(map(len, piece))
            if self.kind == "line":
                for item in self.splitter.feed(piece):
                    self.due.ask(LINE_DECODER.decode(item) if isinstance(item, bytes) else item, False)
                self.peer.send_bytes(piece)
            else:
                codec: Any = json_decoder if self.kind == "json" else LINE_MESSAGE_DECODER
                for message in piece:
                    self.due.ask(codec.decode(message), self.kind == "json")
                self.peer.send_messages(*piece)

    def is_bounded(self) -> None:
        assert self.peer.exceptions == 0
        assert self.peer.server.context.memory_budget.used <= 2 * self.read + 64 * MESSAGES_PER_PART, (
            "more waits than one read has brought"
        )
        assert len(self.peer.outlet.waiting) <= 2 * CHUNK_BYTES + MAX_MESSAGE
        assert len(self.peer.session.subscriptions) <= LIMITS["max_subscriptions_per_client"]
        if self.kind == "line":
            assert kept(self.peer._splitter) <= room(MAX_LINE + 1)

    def goes(self) -> None:
        self.is_answered(complete=False)
        self.peer.disconnect()

    def is_answered(self, complete: bool) -> None:
        """All that it heard was of its dialect, and what was due, in its order."""
        self.heard += self.peer.received_bytes()
        if complete:
            told = said(self.dialect, self.heard)
            if self.kind == "json":
                told = [json.loads(message, parse_int=str) for message in told]
            replies = replies_of(told)
            if self.peer.close_reason not in (None, CloseReason.NORMAL) and replies and replies[-1] == "BYE":
                del replies[-1]  # the last word to who is turned out
            assert self.due.fits(replies, closed=self.peer.close_reason is not None), told


STEP = st.one_of(
    st.tuples(st.just("send"), PEER, st.tuples(LINES, MESSAGES, CUTS)),
    st.tuples(st.just("send"), PEER, st.tuples(LINES, MESSAGES, CUTS)),
    st.tuples(st.just("stalls"), PEER, ROOM),
    st.tuples(st.just("reads"), PEER, ROOM | st.none()),
    st.tuples(st.just("turns"), PEER, st.none()),
    st.tuples(st.just("releases"), st.sampled_from([1, 1, 2, 9]), st.booleans()),
    st.tuples(st.just("returns"), PEER, st.none()),
    st.tuples(st.just("ages"), st.sampled_from([1, 20, 40]), st.none()),
)


@holds(
    examples=80,
    kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=3),
    late=st.booleans(),
    lag=st.sampled_from(["skip", "skip", "close"]),
    policy=st.sampled_from([None, None, POLICY]),
    steps=st.lists(STEP, max_size=12),
)
def test_any_conversation(kinds: list[str], late: bool, lag: str, policy: Any, steps: list[Any]) -> None:
    """Whatever peers send, at any cuts, however they stall and come and go, and however late the backplane is: each
    command has exactly one reply, in order, no fault of ours is met, everything that waits stays within its bounds, and
    another peer is served."""
    server = FakeServer(late, policy, slow_consumer=lag, **LIMITS)
    bystander = server.line_client()
    guests = [Guest(server, kind) for kind in kinds]
    for kind, which, what in steps:
        if kind == "send":
            lines, messages, cuts = what
            guest = guests[which]
            if guest.kind == "line":
                guest.brings(cut(lines, cuts))
            elif guest.kind == "json":
                guest.brings([messages[start : start + 7] for start in range(0, len(messages), 7)])
            else:
                guest.brings([lines.decode(errors="replace").encode().split(b"\n")])
        elif kind == "stalls":
            guests[which].peer.outlet.room = what
        elif kind == "reads":
            guests[which].peer.outlet.drain(what)
        elif kind == "turns":
            server.turn()
        elif kind == "releases" and isinstance(server.backplane, LateBackplane):
            server.backplane.release(which, what)
        elif kind == "returns":
            guests[which].goes()
            guests[which].connect()
        elif kind == "ages":
            server.now += which
            server.broker.expire_histories()
        for guest in guests:
            guest.send()
            guest.is_bounded()
        is_bounded(server)
    come_to_rest(server, guests)
    for guest in guests:
        guest.is_answered(complete=True)
    bystander.received()
    bystander.send("PING still there")
    assert bystander.received()[-1] == "PONG still there"
    for guest in guests:
        guest.peer.disconnect()
    bystander.disconnect()
    assert len(server.context.sessions) == 0
    assert not any(channel.subscriptions for channel in server.broker.channels.values())


def is_bounded(server: FakeServer) -> None:
    broker = server.broker
    total = sum(channel.history.size for channel in broker.channels.values())
    assert broker.histories.size == total <= LIMITS["history_total_bytes"]
    assert len(broker.channels) <= LIMITS["max_channels"]


def come_to_rest(server: FakeServer, guests: list[Guest]) -> None:
    for _ in range(400):
        if isinstance(server.backplane, LateBackplane):
            server.backplane.release()
        for guest in guests:
            guest.peer.outlet.drain()
            guest.send()
            guest.is_bounded()
        server.turn()
        waits = any((guest.unsaid and guest.peer.close_reason is None) or guest.peer.paused for guest in guests)
        late = isinstance(server.backplane, LateBackplane) and len(server.backplane) > 0
        if not (waits or late or server.turns):
            return
    raise AssertionError("a peer waits for ever")
