"""The data that nodes store and send to each other."""

import msgspec
import pytest

from twistedsock.pubsub.values import (
    BYTES,
    JSON,
    TEXT,
    Batch,
    DisconnectClient,
    Member,
    Payloads,
    Position,
    PresenceChange,
    Publication,
)
from twistedsock.redis import wire


def test_events_are_read_as_they_were_stored() -> None:
    plain = Publication(b"a", Payloads((b"x", b"yz"), 3, TEXT, is_plain=True), b"alarm")
    other = Publication(b"a", Payloads((b'{"a": 2.50}',), 11, JSON))
    photo = Publication(b"a", Payloads((b"\xff\xd8",), 2, BYTES))
    stored = [
        wire.store(b"n1-p1", "änn".encode(), plain),
        wire.store(b"n1-p2", b"bob", other),
        wire.store(b"n1-p2", b"bob", photo),
    ]
    assert list(wire.number(wire.decode_events(wire.encode_events(stored)), 5, 77)) == [
        Batch(5, 7, b"n1-p1", "änn".encode(), b"alarm", Payloads([b"x", b"yz"], 3, TEXT, is_plain=True), 77),
        Batch(7, 8, b"n1-p2", b"bob", b"message", Payloads([b'{"a": 2.50}'], 11, JSON), 77),
        Batch(8, 9, b"n1-p2", b"bob", b"message", Payloads([b"\xff\xd8"], 2, BYTES), 77),
    ]


def test_nodes_without_bytes_can_read_text_and_json_of_others() -> None:
    """For them, the kind is whether it is JSON. What they cannot read is lost for them."""
    for kind, stored in ((TEXT, False), (JSON, True), (BYTES, "bytes")):
        publication = Publication(b"a", Payloads((b"1",), 1, kind))
        (entry,) = msgspec.msgpack.decode(wire.encode_events([wire.store(b"p1", b"ann", publication)]))
        assert entry[3] == stored


OF_A_NEWER_VERSION = msgspec.msgpack.encode([[b"p1", b"ann", b"message", "video", False, [b"1"]]])


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x81\xa1a\x01", msgspec.msgpack.encode([["a"]]), OF_A_NEWER_VERSION])
def test_other_data_is_not_events(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        wire.decode_events(data)


def test_reads_messages_about_events() -> None:
    assert wire.parse_arrival(b"E17 5 1000 n1\nab\nc d") == wire.Arrival(b"17", 5, 1000, b"n1", b"ab\nc d")
    for message in (b"E", b"E17 5 1000\n", b"E17 x 1000 n1\n"):
        with pytest.raises(ValueError):
            wire.parse_arrival(message)


def test_reads_the_epochs_before() -> None:
    assert wire.parse_chain(b"") == []
    assert wire.parse_chain(b"17-5,16-0") == [Position(b"17", 5), Position(b"16", 0)]


def test_reads_messages_about_members() -> None:
    assert wire.parse_changes("P+n1-p1 änn\n-n1-p2 bob".encode()) == [
        PresenceChange(Member(b"n1-p1", "änn".encode()), True),
        PresenceChange(Member(b"n1-p2", b"bob"), False),
    ]
    with pytest.raises(ValueError):
        wire.parse_changes(b"P+n1-p1")


def test_reads_lists_of_members() -> None:
    assert wire.parse_members([[], [b"n1-p1", b"ann", b"n1-p2", b"bob"]]) == [
        Member(b"n1-p1", b"ann"),
        Member(b"n1-p2", b"bob"),
    ]


def test_commands_are_read_as_they_were_sent() -> None:
    command = DisconnectClient(b"n1-p1", b"bye", b"disconnected")
    assert wire.decode_command(wire.encode_command(b"n2", command)) == (b"n2", command)


def test_messages_are_read_as_they_were_sent() -> None:
    assert wire.decode_message(wire.encode_message(b"n2", b"a b\n")) == (b"n2", b"a b\n")


def test_keys_and_topics_of_channels_do_not_collide() -> None:
    names = wire.Names(3)
    assert names.topic(b"a") == b"sockbridge:3:channel:a" and names.nodes_topic == b"sockbridge:3:nodes"
    assert names.node_topic(b"n1") == b"sockbridge:3:node:n1"
    keys = {
        names.log(b"a"),
        names.publication_key(b"a", b"k"),
        names.members_of(b"n1.1") + b"a",
        names.channels_of(b"a"),
    }
    assert len(keys | {names.leases, names.registry}) == 6
