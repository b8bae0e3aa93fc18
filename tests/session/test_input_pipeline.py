"""Tests of the input pipeline: commands run in order, one at a time, and no input is lost."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session.clients import ask, kinds, welcomed
from twistedsock.codecs import json_decoder
from twistedsock.codecs.line_decoder import LINE_DECODER
from twistedsock.codecs.payload import build_payloads
from twistedsock.errors import CloseReason, ErrorCode
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.values import TEXT, Payloads
from twistedsock.session.commands import Command, Ping, Publish, Quit, Several
from twistedsock.session.input_pipeline import MESSAGES_PER_PART, OBJECT_BYTES, InputQueue, Message
from twistedsock.testing import FakeClient, FakeServer, LineClient


def test_runs_messages_in_order(peer: LineClient) -> None:
    """All replies are sent with one write."""
    before = peer.outlet.sends
    peer.send("PING 1", "PING 2", "", "PING 3")
    assert peer.received() == ["PONG 1", "PONG 2", "PONG 3"]
    assert peer.outlet.sends == before + 1


def test_runs_commands_between_messages(peer: LineClient) -> None:
    peer.pipeline.submit([b"PING 1", Ping(b"2"), b"PING 3", b"PUB a 1", Ping(b"4")])
    assert peer.received() == ["PONG 1", "PONG 2", "PONG 3", "OK 1", "PONG 4"]


class CountingDecoder:
    """A decoder with a state: each message counts, and ``two`` stands for two commands."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []

    def find_tag(self, message: bytes) -> None:
        return None

    def decode_alike(self, first: Publish, messages: object, position: int) -> None:
        return None

    def decode(self, message: bytes) -> Command | Several | None:
        self.decoded.append(message)
        if message == b"two":
            return Several([Ping(b"1"), b"PING 2"])
        return None if message == b"none" else LINE_DECODER.decode(message)


def test_runs_the_commands_that_a_message_stands_for(peer: LineClient) -> None:
    peer.pipeline.decoder = CountingDecoder()
    peer.pipeline.submit([b"two", Several([b"two", b"PING 3"]), b"PING 4"])
    assert peer.received() == ["PONG 1", "PONG 2", "PONG 1", "PONG 2", "PONG 3", "PONG 4"]


@pytest.mark.parametrize("second", [b"PING 1", b"none", b"two"])
def test_decodes_each_message_once(server: FakeServer, peer: LineClient, second: bytes) -> None:
    """Also if it has been decoded with the publication before it, and must wait behind that."""
    decoder = peer.pipeline.decoder = CountingDecoder()
    messages = [b"PUB a 1", b"PUB a 2", second, b"PING 5"]
    peer.outlet.room = 3
    peer.pipeline.submit(messages)
    peer.outlet.drain()
    server.turn()
    peer.outlet.room = 0
    peer.pipeline.submit(messages)
    for _ in range(3):
        peer.outlet.drain()
        server.turn()
    assert [message for message in decoder.decoded if message != b"PING 2"] == messages * 2
    assert peer.received()[-1] == "PONG 5"


def test_joins_consecutive_publishes(peer: LineClient) -> None:
    """Each of them gets a reply."""
    peer.send("PUB a 1", "PUB a 2", "PING", "PUB a 3", "PUB b 4", "PUB b [5]", "PUB b 6")
    assert peer.received() == ["OK 1", "OK 2", "PONG", "OK 3", "OK 1", "OK 2", "OK 3"]
    assert ask(peer, "HIST b") == ["MSG b 1 p1 4", "MSG b 2 p1 [5]", "MSG b 3 p1 6", "OK 3"]


def test_internal_error_in_joined_publishes_is_reported_for_each(
    peer: LineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.server.broker, "publish", lambda *arguments: 1 / 0)
    peer.send("PUB a 1", "PUB a 2", "PING")
    assert kinds(peer) == ["ERR", "ERR", "PONG"]
    assert peer.exceptions == 1


def test_empty_input_causes_no_reply(peer: LineClient) -> None:
    before = peer.outlet.sends
    peer.pipeline.submit([])
    assert peer.outlet.sends == before and not peer.paused


def test_pauses_input_while_the_client_does_not_read_replies(peer: LineClient) -> None:
    """Input that arrives meanwhile waits in its order."""
    peer.outlet.room = 3
    peer.send("PING 1")
    assert peer.paused
    peer.send("PING 2", "PING 3")
    peer.pipeline.submit([Ping(b"4")])
    assert b"PONG 2" not in peer.outlet.waiting
    peer.outlet.drain(room=5)
    assert peer.paused
    peer.outlet.drain()
    assert not peer.paused
    assert peer.received() == ["PONG 1", "PONG 2", "PONG 3", "PONG 4"]
    assert ask(peer, "PING 5") == ["PONG 5"]


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_keeps_the_commands_behind_a_full_socket(peer: LineClient, size: int) -> None:
    """Otherwise the replies to thousands of commands of one read would wait in memory."""
    text, count = "x" * size, 500_000 // size
    peer.outlet.room = 0
    peer.send(*(f"PING {number} {text}" for number in range(count)))
    assert peer.paused
    assert len(peer.outlet.waiting) < CHUNK_BYTES + 2 * size
    for _ in range(20):
        peer.outlet.drain(room=30_000)
    peer.outlet.drain()
    assert [line.split()[1] for line in peer.received()] == [str(number) for number in range(count)]
    assert not peer.paused


def test_commands_wait_for_a_slow_backplane() -> None:
    server = FakeServer(late=True)
    peer = welcomed(server)
    peer.send("PING 1", "SUB a", "PING 2", "SUB b", "PING 3")
    assert peer.received() == ["PONG 1"]
    assert peer.paused
    server.backplane.release(1)
    assert kinds(peer) == ["OK", "PONG"]
    assert peer.paused
    server.backplane.release()
    assert kinds(peer) == ["OK", "PONG"]
    assert not peer.paused


def test_late_replies_that_fill_the_socket_pause_input() -> None:
    server = FakeServer(late=True)
    peer = welcomed(server)
    peer.send("PUB a 1")
    peer.outlet.room = 0
    server.backplane.release()
    assert peer.session.replies.input_paused and peer.paused
    peer.outlet.drain()
    assert not peer.session.replies.input_paused and not peer.paused
    assert peer.received() == ["OK 1"]


def test_endpoint_can_pause_the_input(peer: LineClient) -> None:
    """The bytes that the endpoint wrote wait for the socket."""
    peer.outlet.room = 0
    peer.outlet.write(b"pong\n")
    peer.pipeline.pause()
    peer.pipeline.pause()
    assert peer.paused
    peer.send("PING 1")
    peer.outlet.drain()
    assert peer.received() == ["pong", "PONG 1"]
    assert not peer.paused


def test_half_close_runs_earlier_commands_and_closes(peer: LineClient) -> None:
    peer.send("PING 1")
    peer.pipeline.end_of_input()
    assert peer.received() == ["PONG 1", "BYE"]
    assert peer.close_reason is CloseReason.NORMAL


def test_half_close_waits_for_a_slow_backplane() -> None:
    server = FakeServer(late=True)
    peer = welcomed(server)
    peer.send("SUB a", "PUB a 1", "PING")
    peer.pipeline.end_of_input()
    assert peer.close_reason is None
    server.backplane.release()
    server.backplane.release()
    assert kinds(peer)[-3:] == ["PONG", "MSG", "BYE"]
    assert peer.close_reason is CloseReason.NORMAL


def test_does_not_pause_a_closing_client(peer: LineClient) -> None:
    """The rest of its stream must be read although its last replies wait for the socket."""
    peer.outlet.room = 0
    peer.send("QUIT", "PING 1")
    assert peer.close_reason is CloseReason.NORMAL and not peer.paused
    peer.send("PING 2")
    peer.outlet.drain()
    assert peer.received() == ["BYE"]


def test_session_that_the_server_closes_is_not_paused(peer: LineClient) -> None:
    """Whether input waited before, or the last messages fill the socket."""
    peer.outlet.room = 0
    peer.session.close(CloseReason.GOING_AWAY, b"enough")
    assert not peer.pipeline.is_paused
    other = peer.server.line_client()
    other.pipeline.pause()
    assert other.pipeline.is_paused
    other.session.close(CloseReason.GOING_AWAY, b"enough")
    assert not other.pipeline.is_paused


def test_runs_no_command_after_quit(peer: LineClient) -> None:
    peer.send("PING 1", "QUIT", "PING 2")
    peer.send("PING 3")
    peer.pipeline.end_of_input()
    assert peer.received() == ["PONG 1", "BYE"]


Break = Callable[[LineClient, pytest.MonkeyPatch], None]


def break_decoding(peer: LineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(line: bytes) -> Command | None:
        if line == b"WHO a":
            raise ZeroDivisionError
        return LINE_DECODER.decode(line)

    peer.pipeline.decoder = SimpleNamespace(
        decode=decode, decode_alike=LINE_DECODER.decode_alike, find_tag=LINE_DECODER.find_tag
    )


def break_running(peer: LineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def members(*arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(peer.server.broker, "members", members)


@pytest.mark.parametrize("break_it", [break_decoding, break_running])
def test_internal_error_is_reported_once_and_stops_no_other_command(
    peer: LineClient, break_it: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(peer, monkeypatch)
    peer.send("PING 1", "WHO a", "PING 2")
    first, fault, second = peer.received()
    assert (first, second) == ("PONG 1", "PONG 2")
    assert fault.startswith(f"ERR {ErrorCode.INTERNAL.value.decode()} ")
    assert peer.exceptions == 1
    assert ask(peer, "PING 3") == ["PONG 3"]


def test_internal_error_in_a_decoder_is_reported_with_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = FakeServer().json_client()
    peer.received()
    monkeypatch.setattr(json_decoder, "decode", lambda message: 1 / 0)
    peer.send({"type": "ping", "id": 7})
    (fault,) = peer.received()
    assert (fault["id"], fault["code"]) == (7, ErrorCode.INTERNAL.value.decode())
    assert peer.exceptions == 1


def test_internal_error_in_waiting_input_is_reported(peer: LineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    break_decoding(peer, monkeypatch)
    peer.outlet.room = 3
    peer.send("PING 1")
    peer.send("WHO a", "PING 2")
    peer.outlet.drain()
    assert kinds(peer) == ["PONG", "ERR", "PONG"]
    assert peer.exceptions == 1 and not peer.paused


def test_runs_no_waiting_input_after_the_connection_is_lost(peer: LineClient) -> None:
    peer.outlet.room = 0
    peer.send("PING 1")
    peer.send("PUB a 1")
    peer.disconnect()
    peer.outlet.drain()
    peer.pipeline.submit([Quit()])
    assert peer.server.broker.channels == {}


def test_replies_at_the_end_of_the_turn_can_pause_input(server: FakeServer) -> None:
    peer = server.line_client()
    peer.outlet.room = 3
    peer.send("PUB k x")
    assert not peer.paused
    server.turn()
    assert peer.paused
    peer.send("PUB k y")
    peer.outlet.drain()
    assert not peer.paused
    server.turn()
    assert peer.received()[-2:] == ["OK 1", "OK 2"]


def test_waiting_messages_need_little_more_memory_than_their_bytes(server: FakeServer, peer: LineClient) -> None:
    """One read can contain so many short lines that one object for each would need twenty times their bytes."""
    lines = [f"{number % 90 + 10}" for number in range(20_000)]
    peer.outlet.room = 0
    peer.send(*lines)
    assert peer.paused
    assert server.context.memory_budget.used < 3 * 3 * len(lines) + OBJECT_BYTES * MESSAGES_PER_PART
    for _ in range(100):
        peer.outlet.drain()
        server.turn()
    assert not peer.paused and kinds(peer) == ["ERR"] * len(lines)


def test_discards_input_behind_a_quit(server: FakeServer, peer: LineClient) -> None:
    peer.outlet.room = 0
    peer.send("PING 1", *["QUIT"], *["PING 2"] * 5_000)
    for _ in range(10):
        peer.outlet.drain()
        server.turn()
    assert peer.received() == ["PONG 1", "BYE"] and not peer.paused


def test_input_that_waits_in_parts_keeps_its_order(server: FakeServer, peer: LineClient) -> None:
    peer.outlet.room = 0
    peer.send(*(f"PING {number}" for number in range(3_000)), "x" * 66_000, "PING last")
    peer.send("PING more")
    for _ in range(200):
        peer.outlet.drain(room=700)
        server.turn()
    peer.outlet.drain()
    server.turn()
    heard = peer.received()
    assert heard[:3_000] == [f"PONG {number}" for number in range(3_000)]
    assert heard[3_000].startswith("ERR too-long ") and heard[3_001:] == ["PONG last", "PONG more"]


# Publications in a row that differ only in payload and tag are published as one.

Row = tuple[bytes, bytes, list[bytes], list[bytes | None]]
"""Channel, event name, payloads and tags of a publication that reaches the broker."""


def row(channel: bytes, *payloads: bytes, name: bytes = b"message", tags: list[bytes | None] | None = None) -> Row:
    return channel, name, list(payloads), tags or [None] * len(payloads)


LINES: dict[str, tuple[list[Message], list[Row]]] = {
    "one channel": ([b"PUB a 1", b"PUB a  2 ", b"pub a 3"], [row(b"a", b"1", b" 2 ", b"3")]),
    "several channels": (
        [b"PUB a 1", b"PUB b 2", b"PUB b 3", b"PUB a 4"],
        [row(b"a", b"1"), row(b"b", b"2", b"3"), row(b"a", b"4")],
    ),
    "another command between": (
        [b"PUB a 1", b"PUB a 2", b"PING", b"PUB a 3"],
        [row(b"a", b"1", b"2"), row(b"a", b"3")],
    ),
    "an error between": ([b"PUB a 1", b"PUB a", b"PUB a 2"], [row(b"a", b"1"), row(b"a", b"2")]),
    "a decoded command between": ([b"PUB a 1", Ping(), b"PUB a 2"], [row(b"a", b"1"), row(b"a", b"2")]),
    "an empty line between": ([b"PUB a 1", b"", b"PUB a 2"], [row(b"a", b"1"), row(b"a", b"2")]),
    "an event name": (
        [b"EMIT a message 1", b"PUB a 2", b"EMIT a x 3", b"EMIT a x 4"],
        [row(b"a", b"1", b"2"), row(b"a", b"3", b"4", name=b"x")],
    ),
    "text and JSON": ([b"PUB a 1", b"PUB a [1]", b"PUB a {}"], [row(b"a", b"1"), row(b"a", b"[1]", b"{}")]),
    "a block that waited before them": (
        [Publish(b"a", build_payloads((b"1", b"2"), TEXT), tags=(None, None)), b"PUB a 3", b"PING"],
        [row(b"a", b"1", b"2", b"3")],
    ),
}
MESSAGES: dict[str, tuple[list[Message], list[Row]]] = {
    "JSON texts and ids": (
        [
            b'{"type":"publish","channel":"a","data":"1"}',
            b'{"type":"publish","channel":"a","data":"2"}',
            b'{"type":"publish","channel":"a","data":"3","id":3}',
            b'{"type":"publish","channel":"b","data":"4"}',
        ],
        [row(b"a", b"1", b"2", b"3", tags=[None, None, b"3"]), row(b"b", b"4")],
    ),
    "JSON values": (
        [
            b'{"type":"publish","channel":"a","data":1}',
            b'{"type":"publish","channel":"a","data":[2]}',
            b'{"type":"publish","channel":"a","data":[2],"name":"x"}',
            b"{",
        ],
        [row(b"a", b"1", b"[2]"), row(b"a", b"[2]", name=b"x")],
    ),
}


@pytest.mark.parametrize("case", [*LINES, *MESSAGES])
def test_joins_publications(case: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    messages, expected = LINES.get(case) or MESSAGES[case]
    rows: list[Row] = []
    publish = server.broker.publish

    def record(publisher: Any, command: Any) -> Any:
        rows.append((command.channel, command.name, list(command.payloads.items), list(command.tags)))
        return publish(publisher, command)

    monkeypatch.setattr(server.broker, "publish", record)
    client: FakeClient = server.line_client() if case in LINES else server.json_client()
    client.pipeline.submit(messages)
    assert rows == expected


# The queue of waiting input keeps the order, in little more memory than the bytes of the input.


def rest(queue: InputQueue) -> list[Message]:
    taken: list[Message] = []
    while queue:
        some = queue.take()
        assert 0 < len(some) <= MESSAGES_PER_PART
        taken += some
    assert queue.take() == []
    return taken


@pytest.mark.parametrize("count", [0, 1, MESSAGES_PER_PART, MESSAGES_PER_PART + 1, 3 * MESSAGES_PER_PART])
@pytest.mark.parametrize("commands", [[], [Quit()]])
def test_queue_returns_messages_and_commands_in_order(count: int, commands: list[Message]) -> None:
    messages: list[Message] = [b"%d" % number * (number % 3) for number in range(count)]
    messages = [*messages, *commands, *messages]
    queue = InputQueue()
    queue.extend(messages)
    assert bool(queue) is bool(messages)
    assert rest(queue) == messages


def test_queue_returns_few_messages_together() -> None:
    queue = InputQueue()
    for number in range(MESSAGES_PER_PART + 1):
        queue.extend([b"%d" % number])
    assert [len(queue.take()) for _ in range(3)] == [MESSAGES_PER_PART, 1, 0]


@given(st.lists(st.tuples(st.sampled_from(["extend", "put_back", "take"]), st.integers(0, 2_500)), max_size=6))
def test_queue_is_equivalent_to_a_list(steps: list[tuple[str, int]]) -> None:
    queue, plain = InputQueue(), [b""][:0]
    for number, (step, count) in enumerate(steps):
        messages = [b"%d.%d" % (number, index) for index in range(count)]
        if step == "extend":
            queue.extend(messages)
            plain = plain + messages
        elif step == "put_back":
            queue.put_back(messages)
            plain = messages + plain
        else:
            taken = queue.take()
            assert taken == plain[: len(taken)] and bool(taken) is bool(plain)
            plain = plain[len(taken) :]
        assert queue.count == len(plain)
    assert rest(queue) == plain
    assert queue.count == queue.size == 0


def test_queue_reports_its_size() -> None:
    queue = InputQueue()
    assert queue.size == 0
    queue.extend([b"abc", Quit(), Publish(b"k", Payloads((b"de", b"f"), 3))])
    assert queue.size == 3 * OBJECT_BYTES + 3 + 3 + 2 * OBJECT_BYTES
    queue.take()
    queue.extend([b"a"] * 3 * MESSAGES_PER_PART)
    assert queue.size == 3 * (MESSAGES_PER_PART + MESSAGES_PER_PART * 4)


def test_queue_joins_messages_of_several_reads() -> None:
    queue = InputQueue()
    for _ in range(10):
        queue.extend([b"a"] * MESSAGES_PER_PART)
    assert queue.size == (9 * (1 + 4) + 1 + OBJECT_BYTES) * MESSAGES_PER_PART
