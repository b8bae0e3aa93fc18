"""Replies and events as JSON messages."""

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.json_encoder import BINARY_MESSAGE_ENCODER
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER as JSON
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.sse import SSE_ENCODER
from twistedsock.errors import Error, ErrorCode
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import (
    BYTES,
    TEXT,
    Batch,
    ChannelInfo,
    Event,
    Lost,
    Member,
    Page,
    PayloadKind,
    Position,
    PresenceChange,
    RepeatedOffset,
)
from twistedsock.session.encoder import Endpoints, SessionInfo
from twistedsock.testing import read_frames

ENDS = Endpoints(b"127.0.0.1:53124", b"127.0.0.1:8082")
AT = Position(b"5f2c1a", 17)
ANN = Member(b"k3x9", b"ann")
FACTS = SessionInfo(ANN, ENDS, 2, 61, b"0.1.0")
ALARM = Event(18, b"k3x9", b"ann", b"alarm", b"smoke", TEXT)
VALUE = Event(19, b"k3x9", b"ann", b"message", b'{"celsius": 21.5}', PayloadKind.JSON)


def alone(event: Event) -> Batch:
    """A batch of one event."""
    content = build_payloads((event.payload,), event.kind)
    return Batch(event.offset, event.offset + 1, event.publisher, event.sender, event.name, content)


def message(data: bytes) -> str:
    (text,) = read_frames(data)
    return text


REPLIES = {
    "lost joins and leaves": (
        JSON.presence_lost(b"a"),
        '{"type":"notice","text":"joins and leaves on a were dropped because you read too slowly: ask for the members '
        'again"}',
    ),
    "welcome": (
        JSON.welcome(b"k3x9", ENDS),
        '{"type":"welcome","protocol":1,"id":"k3x9","from":"127.0.0.1:53124","to":"127.0.0.1:8082"}',
    ),
    "publish": (JSON.published((b"3",), 18), '{"type":"ok","id":3,"offset":18}'),
    "repeated publish": (
        JSON.published((b"3",), RepeatedOffset(18)),
        '{"type":"ok","id":3,"offset":18,"repeated":true}',
    ),
    "publish with a string as id": (JSON.published((b'"x"',), 18), '{"type":"ok","id":"x","offset":18}'),
    "subscribe": (
        JSON.subscribed(b"1", b"kitchen", AT, None),
        '{"type":"ok","id":1,"channel":"kitchen","offset":17,"epoch":"5f2c1a"}',
    ),
    "subscribe recovered": (
        JSON.subscribed(b"1", b"kitchen", AT, True),
        '{"type":"ok","id":1,"channel":"kitchen","offset":17,"epoch":"5f2c1a","recovered":true}',
    ),
    "subscribe with a position of the former epoch": (
        JSON.subscribed(b"1", b"kitchen", AT, True, 3, 2),
        '{"type":"ok","id":1,"channel":"kitchen","offset":17,"epoch":"5f2c1a","recovered":true,"since":2}',
    ),
    "subscribe not recovered": (
        JSON.subscribed(b"1", b"kitchen", AT, False),
        '{"type":"ok","id":1,"channel":"kitchen","offset":17,"epoch":"5f2c1a","recovered":false}',
    ),
    "unsubscribe": (JSON.unsubscribed(b"2", b"kitchen"), '{"type":"ok","id":2,"channel":"kitchen"}'),
    "auth": (JSON.authenticated(b"9", b'a"nn', 60), '{"type":"ok","id":9,"nick":"a\\"nn","expires":60}'),
    "auth without expiry": (JSON.authenticated(b"9", b"ann", None), '{"type":"ok","id":9,"nick":"ann"}'),
    "nick": (JSON.nicked(b"6", b'a"nn'), '{"type":"ok","id":6,"nick":"a\\"nn"}'),
    "ping": (JSON.pong(b"7", b""), '{"type":"pong","id":7}'),
    "ping without an id": (JSON.pong(None, b""), '{"type":"pong"}'),
    "info": (
        JSON.facts(b"8", FACTS),
        '{"type":"ok","id":8,"peer":{"id":"k3x9","nick":"ann"},"from":"127.0.0.1:53124","to":"127.0.0.1:8082",'
        '"channels":2,"uptime":61,"version":"0.1.0"}',
    ),
    "info without an id": (
        JSON.facts(None, FACTS),
        '{"type":"ok","peer":{"id":"k3x9","nick":"ann"},"from":"127.0.0.1:53124","to":"127.0.0.1:8082",'
        '"channels":2,"uptime":61,"version":"0.1.0"}',
    ),
    "who": (
        b"".join(JSON.members(b"5", b"kitchen", [ANN, Member(b"p2", b"p2")])),
        '{"type":"ok","id":5,"members":[{"id":"k3x9","nick":"ann"},{"id":"p2","nick":"p2"}]}',
    ),
    "list": (
        b"".join(JSON.channels(b"5", Page([ChannelInfo(b'a"', 2, AT, 3, 100)], 7, b'a"'))),
        '{"type":"ok","id":5,"channels":[{"channel":"a\\"","readers":2,"offset":17}],"total":7,"next":"a\\""}',
    ),
    "list, the last page": (
        b"".join(JSON.channels(None, Page([], 0, None))),
        '{"type":"ok","channels":[],"total":0,"next":null}',
    ),
    "who, no id": (b"".join(JSON.members(None, b"kitchen", [])), '{"type":"ok","members":[]}'),
    "history": (
        b"".join(JSON.history(b"4", b"kitchen", [ALARM, VALUE], AT)),
        '{"type":"ok","id":4,"events":['
        '{"type":"event","channel":"kitchen","offset":18,"time":0,"from":"ann","name":"alarm","data":"smoke"},'
        '{"type":"event","channel":"kitchen","offset":19,"time":0,"from":"ann","name":"message",'
        '"data":{"celsius": 21.5}}'
        '],"offset":17,"epoch":"5f2c1a"}',
    ),
    "history of what is partly gone": (
        b"".join(JSON.history(b"4", b"kitchen", [Lost(9, 17), ALARM, Lost(19, 20)], AT, Lost(2, 8))),
        '{"type":"ok","id":4,"lost":{"first":2,"last":8},"events":['
        '{"type":"event","channel":"kitchen","offset":18,"time":0,"from":"ann","name":"alarm","data":"smoke"}'
        '],"gaps":[{"first":9,"last":17},{"first":19,"last":20}],"offset":17,"epoch":"5f2c1a"}',
    ),
    "history of nothing": (
        b"".join(JSON.history(None, b"kitchen", [], AT)),
        '{"type":"ok","events":[],"offset":17,"epoch":"5f2c1a"}',
    ),
    "an error": (
        JSON.refused(b"3", Error(ErrorCode.BAD_CHANNEL, 'no "name"')),
        '{"type":"error","id":3,"code":"bad-channel","message":"no \\"name\\""}',
    ),
    "an error without an id": (
        JSON.refused(None, Error(ErrorCode.BAD_JSON, "x")),
        '{"type":"error","code":"bad-json","message":"x"}',
    ),
    "event": (
        JSON.batch(b'k"', alone(ALARM)),
        '{"type":"event","channel":"k\\"","offset":18,"time":0,"from":"ann","name":"alarm","data":"smoke"}',
    ),
    "join": (
        JSON.presence(b"kitchen", [PresenceChange(ANN, True)]),
        '{"type":"join","channel":"kitchen","peer":{"id":"k3x9","nick":"ann"}}',
    ),
    "leave": (
        JSON.presence(b"kitchen", [PresenceChange(ANN, False)]),
        '{"type":"leave","channel":"kitchen","peer":{"id":"k3x9","nick":"ann"}}',
    ),
    "lost": (JSON.lost(b"kitchen", 3, 9), '{"type":"lost","channel":"kitchen","first":3,"last":9}'),
    "notice to a program": (
        JSON.notice(b"gone", b"forbidden", b"a.b"),
        '{"type":"notice","text":"gone","code":"forbidden","channel":"a.b"}',
    ),
    "notice": (JSON.notice(b"going\ndown"), '{"type":"notice","text":"going\\ndown"}'),
}


@pytest.mark.parametrize(("written", "expected"), REPLIES.values(), ids=REPLIES.keys())
def test_encodes_reply(written: bytes, expected: str) -> None:
    assert message(written) == expected
    json.loads(expected)


def test_writes_message_as_text_frame() -> None:
    assert JSON.pong(b"7", b"") == b'\x81\x16{"type":"pong","id":7}'


def test_replies_to_each_publish_with_id() -> None:
    output = read_frames(JSON.published([b"1", None, b'"x"'], 18))
    assert output == ['{"type":"ok","id":1,"offset":18}', '{"type":"ok","id":"x","offset":20}']
    assert JSON.published([None, None], 1) == b""


def test_sends_no_goodbye() -> None:
    """The close frame has the reason."""
    assert JSON.bye(b"see you") == b""


def test_wait_within_a_history_is_a_piece() -> None:
    wait = Future[int]()
    first, answer = JSON.history(b"4", b"kitchen", [ALARM, wait, VALUE], AT)
    assert first is wait and answer == b"".join(JSON.history(b"4", b"kitchen", [ALARM, VALUE], AT))


def test_long_reply_is_one_message_in_pieces_of_one_chunk() -> None:
    events = [Event(offset, b"p", b"p", b"message", b"x" * 1000, TEXT) for offset in range(1, 301)]
    pieces = list(JSON.history(b"4", b"a", events, AT))
    assert len(pieces) > 4
    assert all(len(piece) < CHUNK_BYTES + 40_000 for piece in pieces)
    assert [event["offset"] for event in json.loads(message(b"".join(pieces)))["events"]] == list(range(1, 301))
    members = [Member(b"p%d" % number, b"x" * 30) for number in range(5000)]
    pieces = list(JSON.members(b"5", b"a", members))
    assert len(pieces) > 3
    assert len(json.loads(message(b"".join(pieces)))["members"]) == 5000


def test_end_of_message_follows_event_that_fills_a_chunk() -> None:
    big = Event(1, b"p", b"p", b"message", b"x" * CHUNK_BYTES, TEXT)
    pieces = list(JSON.history(b"4", b"a", [big], AT))
    assert len(pieces) == 2
    assert json.loads(message(b"".join(pieces)))["events"][0]["data"] == "x" * CHUNK_BYTES


@given(st.text(), st.text(), st.text(max_size=70_000))
def test_texts_and_names_are_unchanged(channel: str, name: str, payload: str) -> None:
    event = Event(1, b"p", name.encode(), name.encode(), payload.encode(), TEXT)
    parsed = json.loads(message(JSON.batch(channel.encode(), alone(event))))
    assert parsed == {
        "type": "event",
        "channel": channel,
        "offset": 1,
        "time": 0,
        "from": name,
        "name": name,
        "data": payload,
    }
    assert json.loads(message(JSON.notice(payload.encode())))["text"] == payload
    assert json.loads(message(JSON.refused(None, Error(ErrorCode.LIMIT, payload))))["message"] == payload


@pytest.mark.parametrize("payloads", [(b"\xff\xd8",), (b"", b"abc", b"\xfb\xef")], ids=["one", "several"])
def test_bytes_are_base64_instead_of_data(payloads: tuple[bytes, ...]) -> None:
    batch = Batch(1, 1 + len(payloads), b"p1", b"ann", b"photo", build_payloads(payloads, BYTES), 1_500)
    head = {"type": "event", "channel": "kitchen", "time": 1_500, "from": "ann", "name": "photo"}
    expected = [head | {"offset": n, "base64": b64encode(one).decode()} for n, one in enumerate(payloads, 1)]
    assert [json.loads(text) for text in read_frames(JSON.batch(b"kitchen", batch))] == expected
    history = json.loads(message(b"".join(JSON.history(b"1", b"kitchen", batch.events(), AT))))
    assert history["events"] == expected


def test_bytes_are_binary_messages_on_request() -> None:
    """One for each event: the event without payload, a line feed, and the bytes. All else is JSON."""
    batch = Batch(1, 3, b"p1", b"ann", b"photo", build_payloads((b"\n\xff", b"x" * 70_000), BYTES), 1_500)
    encoded, position = BINARY_MESSAGE_ENCODER.batch(b"kitchen", batch), 0
    for offset, payload in enumerate(batch.payloads.items, 1):
        fields = b'{"type":"event","channel":"kitchen","offset":%d,"time":1500,"from":"ann","name":"photo"}\n' % offset
        size = len(fields + payload)
        length = bytes((size,)) if size < 126 else b"\x7f" + size.to_bytes(8)
        frame = b"\x82" + length + fields + payload
        assert encoded[position : position + len(frame)] == frame
        position += len(frame)
    assert position == len(encoded)
    history = message(b"".join(BINARY_MESSAGE_ENCODER.history(b"1", b"kitchen", batch.part(1, 2).events(), AT)))
    assert json.loads(history)["events"][0]["base64"] == "Cv8="
    assert BINARY_MESSAGE_ENCODER.batch(b"kitchen", alone(ALARM)) == JSON.batch(b"kitchen", alone(ALARM))


def test_every_event_has_its_time() -> None:
    """So there is no other encoder for that."""
    assert JSON.with_time() is JSON
    for texts in [(b"21.5",), (b"21.5", b"21.6"), (b"21.5", b'"')]:
        batch = Batch(18, 18 + len(texts), b"k3x9", b"ann", b"message", build_payloads(texts, TEXT), 1_795_930_200_123)
        for encoder in (JSON, SSE_ENCODER):
            assert encoder.batch(b"a", batch, b"e1").count(b',"time":1795930200123,"from"') == len(texts)
