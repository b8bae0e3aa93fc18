"""Server-sent events and their ids."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.event_streams import read_events
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.sse import (
    JSON_SSE_ENCODER,
    KEEP_ALIVE_COMMENT,
    RETRY_FIELD,
    SSE_ENCODER,
    MultiChannelSSEEncoder,
    SSEFraming,
    event_fields,
    format_event_id,
    one_line,
    parse_event_id,
)
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import JSON, TEXT, Batch, Position, Reset
from twistedsock.session.commands import MAX_OFFSET
from twistedsock.session.encoder import Endpoints

AT = Position(b"5f2c1a", 17)


def batch(first: int, *payloads: bytes, is_json: bool = False) -> Batch:
    return Batch(
        first, first + len(payloads), b"p1", b"ann", b"message", build_payloads(payloads, JSON if is_json else TEXT)
    )


def test_id_of_a_reset_is_the_position_in_the_new_epoch() -> None:
    data = b'data: {"type":"reset","channel":"b","epoch":"e2","good":7,"offset":3}\n\n'
    reset = Reset(b"e2", 7, 3, None)
    assert SSE_ENCODER.reset(b"b", reset) == b"id: e2:3\nevent: reset\n" + data
    several = MultiChannelSSEEncoder({b"a": Position(b"e1", 5), b"b": Position(b"e1", 8)})
    assert several.reset(b"b", reset) == b"id: e1:5,e2:3\nevent: reset\n" + data
    assert several.batch(b"a", batch(6, b"x"), b"e1").startswith(b"id: e1:6,e2:3\n")


def test_confirmation_has_the_position_before_the_first_event() -> None:
    assert SSE_ENCODER.subscribed(None, b"kitchen", AT, None) == (
        b'event: ok\nid: 5f2c1a:17\ndata: {"type":"ok","channel":"kitchen","offset":17,"epoch":"5f2c1a"}\n\n'
    )
    assert SSE_ENCODER.subscribed(None, b"kitchen", AT, True, 13) == (
        b"event: ok\nid: 5f2c1a:12\n"
        b'data: {"type":"ok","channel":"kitchen","offset":17,"epoch":"5f2c1a","recovered":true}\n\n'
    )
    (event,), _ = read_events(SSE_ENCODER.subscribed(None, b"kitchen", AT, False, 18, 17).decode())
    assert (event.message["recovered"], event.message["since"]) == (False, 17)


def test_event_id_is_the_position() -> None:
    assert SSE_ENCODER.title == "events"
    assert SSE_ENCODER.batch(b"kitchen", batch(18, b"21.5", is_json=True), b"5f2c1a") == (
        b'id: 5f2c1a:18\ndata: {"type":"event","channel":"kitchen","offset":18,"time":0,"from":"ann","name":"message",'
        b'"data":21.5}\n\n'
    )


@given(
    first=st.sampled_from([1, 9, 98, 999, 10**6]),
    payloads=st.lists(st.sampled_from([b"x", b"%b", b"", b"21.5"]), min_size=2, max_size=1_200)
    | st.lists(st.sampled_from([b"x\n", b'"', b"{", "ü".encode()]), min_size=1, max_size=5),
)
def test_batch_equals_single_events(first: int, payloads: list[bytes]) -> None:
    written = batch(first, *payloads)
    data = SSE_ENCODER.batch(b"k%", written, b"e1")
    alone = [SSE_ENCODER.batch(b"k%", written.part(n, n + 1), b"e1") for n in range(written.first, written.end)]
    assert data == b"".join(alone)
    events, last = read_events(data.decode())
    plain, _ = read_events(JSON_SSE_ENCODER.batch(b"k%", written).decode())
    assert [event.message for event in events] == [event.message for event in plain]
    assert [event.id for event in events] == [f"e1:{n}" for n in range(written.first, written.end)]
    assert last == f"e1:{written.end - 1}"


@pytest.mark.parametrize("raw", [b'{\r\n"a":\n1}', b"[\r]"])
def test_line_breaks_in_json_do_not_end_the_event(raw: bytes) -> None:
    (event,), _ = read_events(SSE_ENCODER.batch(b"k", batch(1, raw, is_json=True), b"e1").decode())
    assert event.message["data"] == json.loads(raw)


def ids(data: bytes) -> list[str]:
    return [event.id for event in read_events(data.decode())[0]]


def test_event_id_has_the_position_in_each_channel() -> None:
    several = MultiChannelSSEEncoder({b"a": None, b"b": None, b"c": None})
    assert ids(several.subscribed(None, b"b", AT, None)) == [",5f2c1a:17,"]
    assert ids(several.batch(b"b", batch(18, b"x", b"y"), b"5f2c1a")) == [",5f2c1a:18,", ",5f2c1a:19,"]
    assert ids(several.subscribed(None, b"a", Position(b"e1", 4), None, 3)) == ["e1:2,5f2c1a:19,"]
    assert ids(several.subscribed(None, b"c", Position(b"e3", 0), None)) == ["e1:2,5f2c1a:19,e3:0"]
    assert ids(several.batch(b"a", batch(3, b"x"), b"e1")) == ["e1:3,5f2c1a:19,e3:0"]
    assert ids(several.batch(b"c", batch(1, b"{", b"x"), b"e3")) == ["e1:3,5f2c1a:19,e3:1", "e1:3,5f2c1a:19,e3:2"]


def test_event_id_keeps_requested_position_until_confirmed() -> None:
    several = MultiChannelSSEEncoder({b"a": Position(b"e1", 5), b"b": None})
    assert ids(several.subscribed(None, b"b", Position(b"e2", 7), None)) == ["e1:5,e2:7"]


def test_event_id_excludes_events_that_the_socket_rejected() -> None:
    several = MultiChannelSSEEncoder({b"a": None, b"b": None})
    several.subscribed(None, b"a", Position(b"e1", 0), None)
    several.subscribed(None, b"b", Position(b"e2", 0), None)
    several.batch(b"a", batch(1, b"x", b"y", b"z"), b"e1")
    several.fell_behind(b"a", 2)
    assert ids(several.batch(b"b", batch(1, b"x"), b"e2")) == ["e1:1,e2:1"]
    assert b'{"type":"lost","channel":"a","first":2,"last":9}' in several.lost(b"a", 2, 9)
    assert ids(several.batch(b"b", batch(2, b"x"), b"e2")) == ["e1:9,e2:2"]


def test_overhead_includes_event_ids() -> None:
    """A batch must fit in a chunk."""
    places: dict[bytes, Position | None] = {b"c%d" % number: Position(b"5f2c1a7b", 10**15) for number in range(32)}
    several = MultiChannelSSEEncoder(places)
    data = several.batch(b"c7", batch(10**15, b""), b"5f2c1a7b")
    assert len(data) <= several.overhead + len(b"c7ann") + 30


STREAM = SSEFraming()
EVENT = b'{"type":"event","offset":'


def test_message_type_is_the_event_type() -> None:
    welcome = JSON_SSE_ENCODER.welcome(b"k3x9p", Endpoints(b"a:1", b"b:2"))
    assert welcome == (
        b'event: welcome\ndata: {"type":"welcome","protocol":1,"id":"k3x9p","from":"a:1","to":"b:2"}\n\n'
    )
    written = Batch(1, 2, b"p1", b"p1", b"message", build_payloads([b"x"], TEXT))
    assert JSON_SSE_ENCODER.batch(b"k", written) == (
        b'data: {"type":"event","channel":"k","offset":1,"time":0,"from":"p1","name":"message","data":"x"}\n\n'
    )
    assert JSON_SSE_ENCODER.title == "events"


def test_replaces_line_breaks_with_spaces() -> None:
    assert one_line(b'{"a":\r\n[1,\n2]}') == b'{"a":  [1, 2]}'
    written = Batch(1, 3, b"p1", b"p1", b"message", build_payloads([b'{\n"a":\r1}', b"[\r\n]"], JSON))
    events, _ = read_events(JSON_SSE_ENCODER.batch(b"k", written).decode())
    assert [event.message["data"] for event in events] == [{"a": 1}, []]


@pytest.mark.parametrize("pieces", [[b'{"type":"ok"}'], [b'{"type":"ok","events":[', b"1,\n2", b"]}"]])
def test_message_in_pieces_is_one_event(pieces: list[bytes]) -> None:
    (event,), _ = read_events(b"".join(STREAM.fragments(pieces)).decode())
    assert event.kind == "ok" and event.data == b"".join(pieces).replace(b"\n", b" ").decode()


def test_waits_between_pieces_are_left_as_they_are() -> None:
    wait = Future[int]()
    pieces = list(STREAM.fragments([b'{"type":"ok","events":[', wait, b"]}"]))
    assert pieces[1:3] == [wait, b"]}"]


@given(first=st.sampled_from([0, 1, 9, 99, 998, 1_000, 2**53 - 5]), count=st.integers(1, 1_200))
def test_numbered_messages_equal_single_messages(first: int, count: int) -> None:
    payloads = [b'"%%b%d"' % number for number in range(count)]
    alone = [b'%b%d,"data":%b}' % (EVENT, n, payload) for n, payload in enumerate(payloads, first)]
    assert STREAM.numbered(EVENT, first, b',"data":', payloads, b"}") == b"".join(STREAM.frames(alone))
    assert STREAM.counted(EVENT, first, 3) == b"".join(STREAM.frames([b"%b%d" % (EVENT, first + n) for n in range(3)]))


def test_clients_ignore_comments_and_retry() -> None:
    assert read_events((RETRY_FIELD + KEEP_ALIVE_COMMENT).decode()) == ([], "")
    assert (
        read_events((KEEP_ALIVE_COMMENT + STREAM.frame(b'{"type":"notice"}') + KEEP_ALIVE_COMMENT).decode())[0][0].kind
        == "notice"
    )


def test_fields_before_a_message() -> None:
    assert event_fields(b'{"type":"lost","channel":"k"}') == b"event: lost\ndata: "
    assert event_fields(b'{"type":"event","channel":"k"}') == b"data: "
    assert json.loads(one_line(b'{"type":\n"x"}')) == {"type": "x"}


PLACES = st.none() | st.builds(
    Position, st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True).map(str.encode), st.integers(0, MAX_OFFSET)
)


def test_formats_event_id() -> None:
    assert parse_event_id("5f2c1a:18", 1) == [Position(b"5f2c1a", 18)]
    assert parse_event_id("5f2c1a:18,9ab3:40", 2) == [Position(b"5f2c1a", 18), Position(b"9ab3", 40)]
    assert parse_event_id("5f2c1a:18,", 2) == [Position(b"5f2c1a", 18), None]
    assert format_event_id([None, Position(b"e1", 0), None]) == b",e1:0,"


@given(places=st.lists(PLACES, min_size=1, max_size=40))
def test_parses_formatted_event_id(places: list[Position | None]) -> None:
    assert parse_event_id(format_event_id(places).decode(), len(places)) == places


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("18", 1),
        (":18", 1),
        ("e1:", 1),
        ("e1:x", 1),
        ("e1:-1", 1),
        ("e1:1 ", 1),
        ("e 1:1", 1),
        ("e1:1,e2:2", 1),
        ("e1:1", 2),
        ("e1:1,e2:2,e3:3", 2),
        (f"e1:{MAX_OFFSET + 1}", 1),
        ("e1:" + "9" * 17, 1),
        ("e1:١", 1),
        ("e" * 65 + ":1", 1),
    ],
)
def test_rejects_event_id_of_other_channels(text: str, channels: int) -> None:
    assert parse_event_id(text, channels) is None


@given(text=st.text(max_size=30), channels=st.integers(1, 3))
def test_parses_or_rejects_any_event_id(text: str, channels: int) -> None:
    places = parse_event_id(text, channels)
    assert places is None or len(places) == channels
