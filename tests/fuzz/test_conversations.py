"""Conversations of several random clients with one server: any input, at any pace of reading."""

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, LINES, MESSAGES
from tests.fuzz.properties import buffer_limit, buffered_bytes, cut, holds, parse_output
from tests.fuzz.replies import ExpectedReplies, select_replies
from twistedsock.codecs import json_decoder
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_decoder import LINE_DECODER, LINE_MESSAGE_DECODER, LineSplitter
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import MESSAGES_PER_PART
from twistedsock.testing import FakePolicy, FakeServer, LateBackplane

MAX_LINE = 512
MAX_MESSAGE = 70_000
"""Maximum bytes of one encoded event of the generated input, in any protocol."""
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
INDEX = st.integers(0, 2)
SPACE = st.sampled_from([0, 1, 30, 300, 5_000])


@dataclass
class RandomClient:
    """A client of one kind: the input that it has not sent yet, the bytes that it received, and the replies that it
    expects."""

    server: FakeServer
    kind: str
    connection: Any = field(init=False)
    expected: ExpectedReplies = field(default_factory=ExpectedReplies)
    unsent: list[Any] = field(default_factory=list)
    received: bytes = b""
    read_bytes: int = 0

    def __post_init__(self) -> None:
        self.connect()

    @property
    def encoder(self) -> Encoder:
        return {"line": LINE_ENCODER, "message": LINE_MESSAGE_ENCODER, "json": JSON_MESSAGE_ENCODER}[self.kind]

    def connect(self) -> None:
        self.connection = getattr(self.server, f"{self.kind}_client")()
        self.expected, self.unsent, self.received, self.read_bytes = ExpectedReplies(), [], b"", 0
        # Splits the same input a second time, to know which replies to expect.
        self.splitter = LineSplitter(MAX_LINE)

    def queue(self, reads: list[Any]) -> None:
        self.unsent += reads

    def send(self) -> None:
        """Send the waiting input until the server pauses reading."""
        if self.connection.close_reason is not None:
            self.unsent.clear()  # the server ignores input after it closed the connection
        while self.unsent and not self.connection.paused and self.connection.close_reason is None:
            piece = self.unsent.pop(0)
            self.read_bytes = len(piece) if self.kind == "line" else sum(map(len, piece))
            if self.kind == "line":
                for item in self.splitter.feed(piece):
                    self.expected.add_command(LINE_DECODER.decode(item) if isinstance(item, bytes) else item, False)
                self.connection.send_bytes(piece)
            else:
                for message in piece:
                    if self.kind == "json":
                        self.expected.add_command(json_decoder.decode(message), True)
                    else:
                        self.expected.add_command(LINE_MESSAGE_DECODER.decode(message.removesuffix(b"\r")), False)
                self.connection.send_messages(*piece)

    def check_limits(self) -> None:
        assert self.connection.exceptions == 0
        assert self.connection.server.context.memory_budget.used <= 2 * self.read_bytes + 64 * MESSAGES_PER_PART, (
            "more input is buffered than one read contained"
        )
        assert len(self.connection.outlet.waiting) <= 2 * CHUNK_BYTES + MAX_MESSAGE
        assert len(self.connection.session.subscriptions) <= LIMITS["max_subscriptions_per_client"]
        if self.kind == "line":
            assert buffered_bytes(self.connection._splitter) <= buffer_limit(MAX_LINE + 1)

    def disconnect(self) -> None:
        self.check_replies(complete=False)
        self.connection.disconnect()

    def check_replies(self, complete: bool) -> None:
        """The received bytes are valid in the protocol, and contain the expected replies in order."""
        self.received += self.connection.received_bytes()
        if complete:
            messages = parse_output(self.encoder, self.received)
            if self.kind == "json":
                messages = [json.loads(message, parse_int=str) for message in messages]
            replies = select_replies(messages)
            if self.connection.close_reason not in (None, CloseReason.NORMAL) and replies and replies[-1] == "BYE":
                del replies[-1]  # sent when the server closes the connection, not a reply to QUIT
            assert self.expected.match(replies, closed=self.connection.close_reason is not None), messages


STEP = st.one_of(
    st.tuples(st.just("send"), INDEX, st.tuples(LINES, MESSAGES, CUTS)),
    st.tuples(st.just("send"), INDEX, st.tuples(LINES, MESSAGES, CUTS)),
    st.tuples(st.just("stall"), INDEX, SPACE),
    st.tuples(st.just("read"), INDEX, SPACE | st.none()),
    st.tuples(st.just("turn"), INDEX, st.none()),
    st.tuples(st.just("release"), st.sampled_from([1, 1, 2, 9]), st.booleans()),
    st.tuples(st.just("reconnect"), INDEX, st.none()),
    st.tuples(st.just("pass time"), st.sampled_from([1, 20, 40]), st.none()),
)


@holds(
    examples=80,
    kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=3),
    late=st.booleans(),
    lag=st.sampled_from(["skip", "skip", "close"]),
    policy=st.sampled_from([None, None, POLICY]),
    steps=st.lists(STEP, max_size=12),
)
def test_each_command_has_one_reply_in_order(
    kinds: list[str], late: bool, lag: str, policy: Any, steps: list[Any]
) -> None:
    """For any input in any pieces, from clients that stall and reconnect, and with a late backplane: each command has
    exactly one reply, in order, no exception is raised, all buffers stay within their limits, and other clients are
    served."""
    server = FakeServer(late, policy, slow_consumer=lag, **LIMITS)
    bystander = server.line_client()
    clients = [RandomClient(server, kind) for kind in kinds]
    for action, which, argument in steps:
        if action == "send":
            lines, messages, cuts = argument
            client = clients[which]
            if client.kind == "line":
                client.queue(cut(lines, cuts))
            elif client.kind == "json":
                client.queue([messages[start : start + 7] for start in range(0, len(messages), 7)])
            else:
                client.queue([lines.decode(errors="replace").encode().split(b"\n")])
        elif action == "stall":
            clients[which].connection.outlet.room = argument
        elif action == "read":
            clients[which].connection.outlet.drain(argument)
        elif action == "turn":
            server.turn()
        elif action == "release" and isinstance(server.backplane, LateBackplane):
            server.backplane.release(which, argument)
        elif action == "reconnect":
            clients[which].disconnect()
            clients[which].connect()
        elif action == "pass time":
            server.now += which
            server.broker.expire_histories()
        for client in clients:
            client.send()
            client.check_limits()
        check_limits(server)
    finish(server, clients)
    for client in clients:
        client.check_replies(complete=True)
    bystander.received()
    bystander.send("PING still there")
    assert bystander.received()[-1] == "PONG still there"
    for client in clients:
        client.connection.disconnect()
    bystander.disconnect()
    assert len(server.context.sessions) == 0
    assert not any(channel.subscriptions for channel in server.broker.channels.values())


def check_limits(server: FakeServer) -> None:
    broker = server.broker
    total = sum(channel.history.size for channel in broker.channels.values())
    assert broker.histories.size == total <= LIMITS["history_total_bytes"]
    assert len(broker.channels) <= LIMITS["max_channels"]


def finish(server: FakeServer, clients: list[RandomClient]) -> None:
    for _ in range(400):
        if isinstance(server.backplane, LateBackplane):
            server.backplane.release()
        for client in clients:
            client.connection.outlet.drain()
            client.send()
            client.check_limits()
        server.turn()
        waits = any(
            (client.unsent and client.connection.close_reason is None) or client.connection.paused for client in clients
        )
        late = isinstance(server.backplane, LateBackplane) and len(server.backplane) > 0
        if not (waits or late or server.turns):
            return
    raise AssertionError("a client waits forever")
