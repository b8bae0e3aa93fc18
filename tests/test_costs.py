"""What makes the bridge fast, guarded without a clock: how often something is encoded, joined and sent."""

import json
from typing import Any

import pytest

from tests.event_streams import Stream
from twistedsock.codecs import json_decoder
from twistedsock.codecs.encoders import JSON_IN_MESSAGES, LINES, LINES_IN_MESSAGES
from twistedsock.codecs.sse import SSEEncoder
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.values import Batch, Payloads
from twistedsock.testing import FakeClient, FakeServer

READERS = 20
EVENTS = 100

DIALECTS = {"lines": LINES, "json": JSON_IN_MESSAGES, "lines in messages": LINES_IN_MESSAGES}


class Counting:
    """Counts what each dialect encodes, and keeps what each socket is offered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded: dict[str, int] = dict.fromkeys(DIALECTS, 0)
        for name, dialect in DIALECTS.items():
            monkeypatch.setattr(dialect, "batch", self._count(name, dialect.batch), raising=False)

    def _count(self, name: str, encode: Any) -> Any:
        def count(channel: bytes, batch: Batch, epoch: bytes) -> bytes:
            self.encoded[name] += len(batch)
            data: bytes = encode(channel, batch, epoch)
            return data

        return count


def crowd(hall: FakeServer) -> list[FakeClient]:
    """Readers of all three encodings on one channel, at rest."""
    peers: list[FakeClient] = []
    for _ in range(READERS):
        line, message, json = hall.line_peer(), hall.message_peer(), hall.json_peer()
        line.says("SUB k")
        message.says("SUB k")
        json.says({"type": "subscribe", "channel": "k"})
        peers += [line, message, json]
    hall.turn()
    return peers


def test_an_event_is_encoded_once_for_each_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many readers share it."""
    counting = Counting(monkeypatch)
    hall = FakeServer()
    crowd(hall)
    publisher = hall.line_peer()
    publisher.says(*[f"PUB k {number}" for number in range(EVENTS)])
    hall.turn()
    assert counting.encoded == dict.fromkeys(DIALECTS, EVENTS)


def test_a_turn_costs_one_send_for_each_reader() -> None:
    """However many events it gathered, and from however many publishers."""
    hall = FakeServer()
    peers = crowd(hall)
    before = [peer.outlet.sends for peer in peers]
    for _ in range(3):
        hall.line_peer().says(*[f"PUB k {number}" for number in range(EVENTS)])
    hall.turn()
    assert [peer.outlet.sends - sends for peer, sends in zip(peers, before, strict=True)] == [1] * len(peers)


def test_a_turn_costs_one_send_however_many_channels_it_comes_from() -> None:
    """For a reader of them all."""
    hall = FakeServer()
    readers: list[FakeClient] = [hall.line_peer(), hall.message_peer()]
    for reader in readers:
        reader.receives(*[b"SUB k%d" % number for number in range(7)])
    hall.turn()
    before = [reader.outlet.sends for reader in readers]
    hall.line_peer().says(*[f"PUB k{number % 7} {number}" for number in range(EVENTS)])
    hall.turn()
    assert [reader.outlet.sends - sends for reader, sends in zip(readers, before, strict=True)] == [1, 1]
    assert readers[0].raw().count(b"\nMSG ") == EVENTS


@pytest.mark.parametrize(
    "lines",
    [
        ["PUB k x", "HIST k last=1"],
        ["PUB k x", "SUB k", "UNSUB k"],
        ["PUB k x", "SUB k presence=on echo=off", "SUB k", "UNSUB k"],
        ["SUB k presence=on", "UNSUB k"],
        ["SUB k", "PUB k x", "WHO k"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("presence", ["", " presence=on"])
def test_no_command_makes_a_turn_send_twice_to_everybody(lines: list[str], presence: str) -> None:
    """Whatever needs the history or changes who is there, in turn with events."""
    hall = FakeServer()
    readers = [hall.line_peer() for _ in range(READERS)]
    for reader in readers:
        reader.says("SUB k" + presence)
    hall.turn()
    before = [reader.outlet.sends for reader in readers]
    hall.line_peer().says(*lines * 20)
    hall.turn()
    sends = {reader.outlet.sends - sends for reader, sends in zip(readers, before, strict=True)}
    assert max(sends) == 1 or not any("PUB" in line for line in lines) and not presence


def sends_of(count: int, command: str, leave: bool) -> int:
    """How many sends it takes when so many watchers come, or go, in one turn, beyond their replies."""
    hall = FakeServer()
    watchers = [hall.line_peer() for _ in range(count)]
    staying = [hall.line_peer() for _ in range(count)]
    for watcher in [*watchers, *staying] if leave else staying:
        watcher.says("SUB k presence=on")
    hall.turn()
    before = sum(watcher.outlet.sends for watcher in watchers + staying)
    for watcher in watchers:
        watcher.says(command)
    hall.turn()
    return sum(watcher.outlet.sends for watcher in watchers + staying) - before


@pytest.mark.parametrize(("command", "leave"), [("SUB k presence=on", False), ("UNSUB k", True), ("QUIT", True)])
def test_twice_as_many_who_come_or_go_cost_twice_as_many_sends(command: str, leave: bool) -> None:
    """Each watcher is told once of all of them."""
    assert sends_of(2 * READERS, command, leave) <= 2 * sends_of(READERS, command, leave) + 2


def test_the_replies_to_a_chunk_of_commands_are_one_send() -> None:
    """A publisher that pipelines is answered as it asked: many at once."""
    hall = FakeServer()
    publisher = hall.line_peer()
    before = publisher.outlet.sends
    publisher.says(*[f"PUB k{number % 7} x" for number in range(EVENTS)])
    hall.turn()
    assert publisher.outlet.sends - before == 1


def test_replies_and_events_of_a_turn_leave_in_one_burst() -> None:
    """Between two bursts a peer may fall asleep; waking it costs more than all else."""
    hall = FakeServer()
    reader, publisher = hall.line_peer(), hall.line_peer()
    reader.says("SUB k")
    hall.turn()
    sends: list[str] = []
    for name, peer in (("reader", reader), ("publisher", publisher)):
        take = peer.outlet.write
        peer.outlet.write = lambda data, name=name, take=take: sends.append(name) or take(data)  # type: ignore[method-assign]
    publisher.says("PUB k x")
    assert not sends
    hall.turn()
    assert sends == ["publisher", "reader"]


def test_readers_of_one_encoding_are_offered_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same object, so that a thousand readers cost no thousand copies."""
    hall = FakeServer()
    offered: list[bytes] = []
    for _ in range(READERS):
        peer = hall.line_peer()
        monkeypatch.setattr(peer.outlet, "offer", lambda data: offered.append(data) or True)
        peer.says("SUB k")
    hall.line_peer().says("PUB k x")
    hall.turn()
    assert len(offered) == READERS
    assert len({id(data) for data in offered}) == 1


def test_those_who_stalled_together_share_what_they_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catching up is encoded once a turn, not once a reader."""
    hall = FakeServer()
    readers = [hall.line_peer() for _ in range(READERS)]
    for reader in readers:
        reader.says("SUB k")
        reader.outlet.room = 0
    publisher = hall.line_peer()
    for number in range(EVENTS):
        publisher.says(f"PUB k {number}")
        hall.turn()
    counting = Counting(monkeypatch)
    for reader in readers:
        reader.outlet.drain()
    hall.turn()
    assert counting.encoded["lines"] == EVENTS - 1  # the first had waited in their sockets
    assert all(reader.hears()[-1].endswith(f" {EVENTS - 1}") for reader in readers)


def test_a_stalled_reader_keeps_no_more_than_a_chunk() -> None:
    """Whatever passes it by."""
    hall = FakeServer()
    peers = crowd(hall)
    for peer in peers:
        peer.outlet.room = 0
    publisher = hall.line_peer()
    for _ in range(50):
        publisher.says(*["PUB k " + "x" * 1000] * 50)
        hall.turn()
    assert max(len(peer.outlet.waiting) for peer in peers) <= CHUNK_BYTES


def test_publishes_in_a_row_reach_the_backplane_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of them is one question, in both dialects."""
    hall = FakeServer()
    asked: list[int] = []
    publish = hall.backplane.publish

    def counted(channel: bytes, publisher: Any, name: bytes, content: Payloads) -> Any:
        asked.append(len(content))
        return publish(channel, publisher, name, content)

    monkeypatch.setattr(hall.backplane, "publish", counted)
    hall.line_peer().says(*["PUB k x"] * EVENTS)
    hall.json_peer().says(*[{"type": "publish", "id": 1, "channel": "k", "data": "x"}] * EVENTS)
    assert asked == [EVENTS, EVENTS]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["as JavaScript writes", "as Python writes"])
def test_messages_that_differ_in_their_text_alone_are_not_parsed_each(
    monkeypatch: pytest.MonkeyPatch, separators: tuple[str, str]
) -> None:
    """A program writes all its messages alike: the first one tells how to read the others."""
    parsed: list[bytes] = []
    read = json_decoder._read
    monkeypatch.setattr(json_decoder, "_read", lambda message: parsed.append(message) or read(message))
    hall = FakeServer()
    messages = [
        json.dumps({"type": "publish", "channel": "k", "data": f"{number}"}, separators=separators).encode()
        for number in range(1 + 3 * json_decoder._STEP)
    ]
    hall.json_peer().receives(*messages)
    assert len(parsed) == 1
    hall.turn()
    assert hall.broker.channels[b"k"].head == len(messages)


def test_an_event_is_encoded_once_for_all_streams_of_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for each stream of several channels, whose ids are its own."""
    encoded: list[object] = []
    encode = SSEEncoder.batch

    def count(dialect: SSEEncoder, channel: bytes, batch: Batch, epoch: bytes) -> bytes:
        encoded.append(dialect)
        return encode(dialect, channel, batch, epoch)

    monkeypatch.setattr(SSEEncoder, "batch", count)
    hall = FakeServer()
    streams = [Stream(hall, ["k"]) for _ in range(READERS)]
    several = [Stream(hall, ["k", "l"]) for _ in range(3)]
    hall.line_peer().says("PUB k 1")
    hall.turn()
    assert len(encoded) == 1 + len(several)
    assert all(stream.hears()[-1].id == "e1:1" for stream in streams)
    assert len(hall.broker.channels[b"k"].lanes) == 1 + len(several)
    for stream in several:
        stream.session.lost()
    assert len(hall.broker.channels[b"k"].lanes) == 1
