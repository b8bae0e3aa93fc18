"""All encoders write any reply and any event."""

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.grammars import JSON_TEXTS, NAMES, TEXTS
from tests.fuzz.properties import holds, parse_output
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.socketio_encoder import (
    MAIN_EVENTS,
    NAMESPACE_EVENTS,
    RECOVERED_MAIN_EVENTS,
    RECOVERED_NAMESPACE_EVENTS,
    EventPackets,
)
from twistedsock.codecs.websocket import split_frames
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Batch, Member, Payloads, Position, PresenceChange
from twistedsock.session.encoder import Encoder, Endpoints, SessionInfo

FIRST = st.sampled_from([1, 8, 9, 10, 98, 99, 998, 999, 1_000, 10**6 - 1, 2**53 - 60])
ANY_NAMES = NAMES | st.sampled_from([b"%b", b"100%", b'a"b', b"a\\b", b"'", b"n" * 64])
TAGS = st.sampled_from([None, b"1", b'"x"', b"-7", '"é"'.encode(), b"9" * 5_000])
LONG = [[b"x"] * 40, [b"1", b"22"] * 20, [b"x" * 1_100, b"%d%%" * 40, b"x" * 66_000]]
PAYLOADS = st.lists(TEXTS.map(str.encode), min_size=1, max_size=5) | st.sampled_from(LONG)
VALUES = st.lists(JSON_TEXTS, min_size=1, max_size=4)
CONTENTS = (
    st.builds(build_payloads, PAYLOADS, st.just(TEXT))
    | st.builds(build_payloads, VALUES, st.just(JSON))
    | st.builds(build_payloads, st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.just(BYTES))
)


DIALECTS = st.sampled_from([LINE_ENCODER, LINE_MESSAGE_ENCODER, JSON_MESSAGE_ENCODER])


@holds(
    examples=100,
    dialect=DIALECTS,
    channel=ANY_NAMES,
    sender=ANY_NAMES,
    name=ANY_NAMES | st.just(b"message"),
    first=FIRST,
    content=CONTENTS,
    tag=TAGS,
)
def test_events(
    dialect: Any, channel: bytes, sender: bytes, name: bytes, first: int, content: Any, tag: bytes | None
) -> None:
    """Any batch is one line of printable UTF-8 for each event, or one JSON message for each event. The bytes are the
    same live and in the history, together and one by one, and whether it is known that the payloads need no escapes or
    not."""
    batch = Batch(first, first + len(content), b"p1", sender, name, content)
    written = dialect.batch(channel, batch)
    assert written == b"".join([dialect.batch(channel, batch.part(n, n + 1)) for n in range(batch.first, batch.end)])
    unknown = Payloads(content.items, content.size, content.kind)
    assert written == dialect.batch(channel, Batch(first, batch.end, b"p1", sender, name, unknown))
    live = parse_output(dialect, written)
    assert len(live) == len(content)
    history = parse_output(
        dialect, b"".join(dialect.history(tag, channel, [*batch.events()], Position(b"e1", batch.end - 1)))
    )
    if dialect is JSON_MESSAGE_ENCODER:
        answer = json.loads(history[0], parse_int=str)
        assert answer["events"] == [json.loads(message, parse_int=str) for message in live]
        assert [event["offset"] for event in answer["events"]] == [str(first + index) for index in range(len(content))]
    else:
        assert history == [*live, f"OK {len(content)}"]


@holds(
    examples=60,
    encoder=st.sampled_from([MAIN_EVENTS, NAMESPACE_EVENTS, RECOVERED_MAIN_EVENTS, RECOVERED_NAMESPACE_EVENTS]),
    channel=ANY_NAMES,
    name=ANY_NAMES | st.just(b"connect"),
    first=FIRST,
    content=CONTENTS,
)
def test_socketio_events(encoder: EventPackets, channel: bytes, name: bytes, first: int, content: Payloads) -> None:
    """Any batch is one Socket.IO packet for each event, together and one by one, with its payload and offset."""
    batch = Batch(first, first + len(content), b"p1", b"ann", name, content, 5)
    written = encoder.batch(channel, batch, b"e1")
    assert written == b"".join([encoder.batch(channel, batch.part(n, n + 1), b"e1") for n in range(first, batch.end)])
    messages = [message for message, is_binary in split_frames(written) if not is_binary]
    assert len(messages) == len(content)
    for offset, (message, payload) in enumerate(zip(messages, content.items, strict=True), first):
        data = json.loads(message[message.index(b"[", message.index(b"/") if b"/" in message[:7] else 0) :])
        assert data[2]["offset"] == offset and data[2]["channel"] == channel.decode()
        if content.kind is not BYTES:
            assert data[1] == (json.loads(payload) if content.kind is JSON else payload.decode())
        assert data[3:] == ([f"e1:{offset}"] if encoder in (RECOVERED_MAIN_EVENTS, RECOVERED_NAMESPACE_EVENTS) else [])


@holds(
    examples=100,
    dialect=DIALECTS,
    name=NAMES,
    text=TEXTS | st.text(max_size=20),
    first=FIRST,
    tag=TAGS,
    tags=st.lists(TAGS, min_size=1, max_size=12),
    members=st.lists(st.builds(Member, NAMES, NAMES), max_size=4),
    recovered=st.sampled_from([None, True, False]),
)
def test_answers(
    dialect: Any, name: bytes, text: str, first: int, tag: Any, tags: list[Any], members: list[Any], recovered: Any
) -> None:
    """Any reply and any notice, with any texts and names in it, is one valid message of the protocol."""
    ends, words = Endpoints(b"127.0.0.1:1", b"[::1]:2"), text.encode()
    is_json = dialect is JSON_MESSAGE_ENCODER
    silent = is_json and tag is None
    facts = SessionInfo(Member(b"p1", name), ends, 3, 61, b"0.1")
    for answer in (
        dialect.subscribed(tag, name, Position(b"e1", first), recovered),
        dialect.unsubscribed(tag, name),
        dialect.nicked(tag, name),
        dialect.authenticated(tag, name, 60),
    ):
        assert len(parse_output(dialect, answer)) == (0 if silent else 1)
    for answer in (
        dialect.pong(tag, words),
        dialect.facts(tag, facts),
        dialect.refused(tag, Error(ErrorCode.BAD_ARGUMENT, text)),
        dialect.lost(name, first, first + 3),
        dialect.notice(words),
        dialect.welcome(name, ends),
    ):
        assert len(parse_output(dialect, answer)) == 1
    assert len(parse_output(dialect, dialect.bye(words))) == (0 if is_json else 1)
    answered = [each for each in tags if each is not None] if is_json else tags
    assert len(parse_output(dialect, dialect.published(tags, first))) == len(answered)
    assert len(parse_output(dialect, b"".join(dialect.members(tag, name, members)))) == (
        1 if is_json else len(members) + 1
    )
    changes = [PresenceChange(member, member.id == b"a") for member in members]
    assert len(parse_output(dialect, dialect.presence(name, changes))) == len(changes)


@pytest.mark.parametrize(
    ("dialect", "notice"),
    [
        (LINE_ENCODER, b"NOTICE hi\n"),
        (LINE_MESSAGE_ENCODER, b"\x81\x09NOTICE hi"),
        (JSON_MESSAGE_ENCODER, b'\x81\x1d{"type":"notice","text":"hi"}'),
    ],
)
def test_encodes_notice_in_each_protocol(dialect: Encoder, notice: bytes) -> None:
    assert dialect.notice(b"hi") == notice
