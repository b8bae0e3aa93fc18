"""What makes the bridge fast, guarded without a clock: how often something is encoded, joined and sent."""

import json
from typing import Any

import pytest

from tests.event_streams import Stream
from tests.socketio_clients import SocketIOClient
from twistedsock.codecs import json_decoder
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.codecs.payload import MESSAGES_PER_STEP
from twistedsock.codecs.socketio_encoder import EventPackets
from twistedsock.codecs.sse import SSEEncoder
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.values import Batch, Publication
from twistedsock.testing import FakeClient, FakeServer

READERS = 20
EVENTS = 100

DIALECTS = {"lines": LINE_ENCODER, "json": JSON_MESSAGE_ENCODER, "lines in messages": LINE_MESSAGE_ENCODER}


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


def crowd(server: FakeServer) -> list[FakeClient]:
    """Readers of all three encodings on one channel, at rest."""
    peers: list[FakeClient] = []
    for _ in range(READERS):
        line, message, json = server.line_client(), server.message_client(), server.json_client()
        line.send("SUB k")
        message.send("SUB k")
        json.send({"type": "subscribe", "channel": "k"})
        peers += [line, message, json]
    server.turn()
    return peers


def test_an_event_is_encoded_once_for_each_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many readers share it."""
    counting = Counting(monkeypatch)
    server = FakeServer()
    crowd(server)
    publisher = server.line_client()
    publisher.send(*[f"PUB k {number}" for number in range(EVENTS)])
    server.turn()
    assert counting.encoded == dict.fromkeys(DIALECTS, EVENTS)


def test_turn_costs_one_send_per_subscriber() -> None:
    """However many events it gathered, and from however many publishers."""
    server = FakeServer()
    peers = crowd(server)
    before = [peer.outlet.sends for peer in peers]
    for _ in range(3):
        server.line_client().send(*[f"PUB k {number}" for number in range(EVENTS)])
    server.turn()
    assert [peer.outlet.sends - sends for peer, sends in zip(peers, before, strict=True)] == [1] * len(peers)


def test_turn_costs_one_send_for_many_channels() -> None:
    """For a reader of them all."""
    server = FakeServer()
    readers: list[FakeClient] = [server.line_client(), server.message_client()]
    for reader in readers:
        reader.send_messages(*[b"SUB k%d" % number for number in range(7)])
    server.turn()
    before = [reader.outlet.sends for reader in readers]
    server.line_client().send(*[f"PUB k{number % 7} {number}" for number in range(EVENTS)])
    server.turn()
    assert [reader.outlet.sends - sends for reader, sends in zip(readers, before, strict=True)] == [1, 1]
    assert readers[0].received_bytes().count(b"\nMSG ") == EVENTS


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
def test_commands_cause_no_second_send_in_a_turn(lines: list[str], presence: str) -> None:
    server = FakeServer()
    readers = [server.line_client() for _ in range(READERS)]
    for reader in readers:
        reader.send("SUB k" + presence)
    server.turn()
    before = [reader.outlet.sends for reader in readers]
    server.line_client().send(*lines * 20)
    server.turn()
    sends = {reader.outlet.sends - sends for reader, sends in zip(readers, before, strict=True)}
    assert max(sends) == 1 or not any("PUB" in line for line in lines) and not presence


def sends_of(count: int, command: str, leave: bool) -> int:
    """How many sends it takes when so many watchers come, or go, in one turn, beyond their replies."""
    server = FakeServer()
    watchers = [server.line_client() for _ in range(count)]
    staying = [server.line_client() for _ in range(count)]
    for watcher in [*watchers, *staying] if leave else staying:
        watcher.send("SUB k presence=on")
    server.turn()
    before = sum(watcher.outlet.sends for watcher in watchers + staying)
    for watcher in watchers:
        watcher.send(command)
    server.turn()
    return sum(watcher.outlet.sends for watcher in watchers + staying) - before


@pytest.mark.parametrize(("command", "leave"), [("SUB k presence=on", False), ("UNSUB k", True), ("QUIT", True)])
def test_sends_for_joins_and_leaves_grow_linearly(command: str, leave: bool) -> None:
    assert sends_of(2 * READERS, command, leave) <= 2 * sends_of(READERS, command, leave) + 2


def test_replies_to_one_read_are_one_send() -> None:
    """A publisher that pipelines is answered as it asked: many at once."""
    server = FakeServer()
    publisher = server.line_client()
    before = publisher.outlet.sends
    publisher.send(*[f"PUB k{number % 7} x" for number in range(EVENTS)])
    server.turn()
    assert publisher.outlet.sends - before == 1


def test_replies_and_events_of_a_turn_leave_together() -> None:
    """Between two bursts a peer may fall asleep; waking it costs more than all else."""
    server = FakeServer()
    reader, publisher = server.line_client(), server.line_client()
    reader.send("SUB k")
    server.turn()
    sends: list[str] = []
    for name, peer in (("reader", reader), ("publisher", publisher)):
        take = peer.outlet.write
        peer.outlet.write = lambda data, name=name, take=take: sends.append(name) or take(data)  # type: ignore[method-assign]
    publisher.send("PUB k x")
    assert not sends
    server.turn()
    assert sends == ["publisher", "reader"]


def test_subscribers_with_one_encoder_get_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same object, so that a thousand readers cost no thousand copies."""
    server = FakeServer()
    offered: list[bytes] = []
    for _ in range(READERS):
        peer = server.line_client()
        monkeypatch.setattr(peer.outlet, "try_write", lambda data: offered.append(data) or True)
        peer.send("SUB k")
    server.line_client().send("PUB k x")
    server.turn()
    assert len(offered) == READERS
    assert len({id(data) for data in offered}) == 1


def test_stalled_subscribers_share_what_they_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catching up is encoded once a turn, not once a reader."""
    server = FakeServer()
    readers = [server.line_client() for _ in range(READERS)]
    for reader in readers:
        reader.send("SUB k")
        reader.outlet.room = 0
    publisher = server.line_client()
    for number in range(EVENTS):
        publisher.send(f"PUB k {number}")
        server.turn()
    counting = Counting(monkeypatch)
    for reader in readers:
        reader.outlet.drain()
    server.turn()
    assert counting.encoded["lines"] == EVENTS - 1  # the first had waited in their sockets
    assert all(reader.received()[-1].endswith(f" {EVENTS - 1}") for reader in readers)


def test_stalled_subscriber_holds_at_most_a_chunk() -> None:
    """Whatever passes it by."""
    server = FakeServer()
    peers = crowd(server)
    for peer in peers:
        peer.outlet.room = 0
    publisher = server.line_client()
    for _ in range(50):
        publisher.send(*["PUB k " + "x" * 1000] * 50)
        server.turn()
    assert max(len(peer.outlet.waiting) for peer in peers) <= CHUNK_BYTES


def test_publishes_in_a_row_reach_the_backplane_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of them is one question, in both dialects."""
    server = FakeServer()
    asked: list[int] = []
    publish = server.backplane.publish

    def counted(publisher: Any, publication: Publication) -> Any:
        asked.append(len(publication.payloads))
        return publish(publisher, publication)

    monkeypatch.setattr(server.backplane, "publish", counted)
    server.line_client().send(*["PUB k x"] * EVENTS)
    server.json_client().send(*[{"type": "publish", "id": 1, "channel": "k", "data": "x"}] * EVENTS)
    assert asked == [EVENTS, EVENTS]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["as JavaScript writes", "as Python writes"])
def test_similar_messages_are_parsed_once(monkeypatch: pytest.MonkeyPatch, separators: tuple[str, str]) -> None:
    parsed: list[bytes] = []
    read = json_decoder._read
    monkeypatch.setattr(json_decoder, "_read", lambda message: parsed.append(message) or read(message))
    server = FakeServer()
    messages = [
        json.dumps({"type": "publish", "channel": "k", "data": f"{number}"}, separators=separators).encode()
        for number in range(1 + 3 * MESSAGES_PER_STEP)
    ]
    server.json_client().send_messages(*messages)
    assert len(parsed) == 1
    server.turn()
    assert server.broker.channels[b"k"].head == len(messages)


def test_an_event_is_encoded_once_for_all_streams_of_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for each stream of several channels, whose ids are its own."""
    encoded: list[object] = []
    encode = SSEEncoder.batch

    def count(dialect: SSEEncoder, channel: bytes, batch: Batch, epoch: bytes) -> bytes:
        encoded.append(dialect)
        return encode(dialect, channel, batch, epoch)

    monkeypatch.setattr(SSEEncoder, "batch", count)
    server = FakeServer()
    streams = [Stream(server, ["k"]) for _ in range(READERS)]
    several = [Stream(server, ["k", "l"]) for _ in range(3)]
    server.line_client().send("PUB k 1")
    server.turn()
    assert len(encoded) == 1 + len(several)
    assert all(stream.received()[-1].id == "e1:1" for stream in streams)
    assert len(server.broker.channels[b"k"].encoding_groups) == 1 + len(several)
    for stream in several:
        stream.session.connection_lost()
    assert len(server.broker.channels[b"k"].encoding_groups) == 1


def test_an_event_is_encoded_once_for_socketio_clients_of_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once for those that follow the channel on the main namespace. All of them are sent the same object."""
    encoded: list[bytes] = []
    encode = EventPackets.batch

    def count(packets: EventPackets, channel: bytes, batch: Batch, epoch: bytes) -> bytes:
        encoded.append(encode(packets, channel, batch, epoch))
        return encoded[-1]

    server = FakeServer()
    clients = [SocketIOClient(server) for _ in range(2 * READERS)]
    offered: list[bytes] = []
    for number, client in enumerate(clients):
        client.join("/k" if number % 2 else "/")
        client.ask('2["subscribe","k"]')
        monkeypatch.setattr(client.outlet, "try_write", lambda data: offered.append(data) or True)
    monkeypatch.setattr(EventPackets, "batch", count)
    server.line_client().send(*["PUB k x"] * EVENTS)
    server.turn()
    assert len(encoded) == 2 and len(offered) == len(clients)
    assert {id(data) for data in offered} == {id(data) for data in encoded}
