"""Events with ids: each tells where the stream stands once it has been read, and nothing that was not sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.event_streams import read_events
from twistedsock.codecs.encoders import JSON_SSE_ENCODER, SSE_ENCODER
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.sse import MultiChannelSSEEncoder
from twistedsock.pubsub.values import JSON, TEXT, Batch, Position

AT = Position(b"5f2c1a", 17)


def batch(first: int, *payloads: bytes, is_json: bool = False) -> Batch:
    return Batch(
        first, first + len(payloads), b"p1", b"ann", b"message", build_payloads(payloads, JSON if is_json else TEXT)
    )


def test_a_stream_begins_where_it_says() -> None:
    """Though it has no command to answer; who is cut off now comes back to there."""
    assert SSE_ENCODER.subscribed(None, b"kitchen", AT, None) == (
        b'event: ok\nid: 5f2c1a:17\ndata: {"type":"ok","channel":"kitchen","offset":17,"epoch":"5f2c1a"}\n\n'
    )
    assert SSE_ENCODER.subscribed(None, b"kitchen", AT, True, 13) == (
        b"event: ok\nid: 5f2c1a:12\n"
        b'data: {"type":"ok","channel":"kitchen","offset":17,"epoch":"5f2c1a","recovered":true}\n\n'
    )
    (event,), _ = read_events(SSE_ENCODER.subscribed(None, b"kitchen", AT, False, 18).decode())
    assert event.message["recovered"] is False


def test_an_event_tells_its_place() -> None:
    assert SSE_ENCODER.title == "events"
    assert SSE_ENCODER.batch(b"kitchen", batch(18, b"21.5", is_json=True), b"5f2c1a") == (
        b'id: 5f2c1a:18\ndata: {"type":"event","channel":"kitchen","offset":18,"from":"ann","name":"message",'
        b'"data":21.5}\n\n'
    )


@given(
    first=st.sampled_from([1, 9, 98, 999, 10**6]),
    payloads=st.lists(st.sampled_from([b"x", b"%b", b"", b"21.5"]), min_size=2, max_size=1_200)
    | st.lists(st.sampled_from([b"x\n", b'"', b"{", "ü".encode()]), min_size=1, max_size=5),
)
def test_many_events_are_what_each_would_be_alone(first: int, payloads: list[bytes]) -> None:
    """And each is, but for its id, what the JSON dialect says."""
    told = batch(first, *payloads)
    data = SSE_ENCODER.batch(b"k%", told, b"e1")
    alone = [SSE_ENCODER.batch(b"k%", told.part(n, n + 1), b"e1") for n in range(told.first, told.end)]
    assert data == b"".join(alone)
    events, last = read_events(data.decode())
    plain, _ = read_events(JSON_SSE_ENCODER.batch(b"k%", told).decode())
    assert [event.message for event in events] == [event.message for event in plain]
    assert [event.id for event in events] == [f"e1:{n}" for n in range(told.first, told.end)]
    assert last == f"e1:{told.end - 1}"


@pytest.mark.parametrize("raw", [b'{\r\n"a":\n1}', b"[\r]"])
def test_line_breaks_between_tokens_do_not_end_an_event(raw: bytes) -> None:
    (event,), _ = read_events(SSE_ENCODER.batch(b"k", batch(1, raw, is_json=True), b"e1").decode())
    assert event.message["data"] == json.loads(raw)


def ids(data: bytes) -> list[str]:
    return [event.id for event in read_events(data.decode())[0]]


def test_of_several_channels_the_id_has_the_place_in_each() -> None:
    """In the order in which they were asked for."""
    several = MultiChannelSSEEncoder({b"a": None, b"b": None, b"c": None})
    assert ids(several.subscribed(None, b"b", AT, None)) == [",5f2c1a:17,"]
    assert ids(several.batch(b"b", batch(18, b"x", b"y"), b"5f2c1a")) == [",5f2c1a:18,", ",5f2c1a:19,"]
    assert ids(several.subscribed(None, b"a", Position(b"e1", 4), None, 3)) == ["e1:2,5f2c1a:19,"]
    assert ids(several.subscribed(None, b"c", Position(b"e3", 0), None)) == ["e1:2,5f2c1a:19,e3:0"]
    assert ids(several.batch(b"a", batch(3, b"x"), b"e1")) == ["e1:3,5f2c1a:19,e3:0"]
    assert ids(several.batch(b"c", batch(1, b"{", b"x"), b"e3")) == ["e1:3,5f2c1a:19,e3:1", "e1:3,5f2c1a:19,e3:2"]


def test_a_place_that_a_client_names_stands_until_the_channel_is_read() -> None:
    several = MultiChannelSSEEncoder({b"a": Position(b"e1", 5), b"b": None})
    assert ids(several.subscribed(None, b"b", Position(b"e2", 7), None)) == ["e1:5,e2:7"]


def test_what_was_not_taken_is_not_claimed() -> None:
    """Nor what is lost claimed before it is told."""
    several = MultiChannelSSEEncoder({b"a": None, b"b": None})
    several.subscribed(None, b"a", Position(b"e1", 0), None)
    several.subscribed(None, b"b", Position(b"e2", 0), None)
    several.batch(b"a", batch(1, b"x", b"y", b"z"), b"e1")
    several.fell_behind(b"a", 2)
    assert ids(several.batch(b"b", batch(1, b"x"), b"e2")) == ["e1:1,e2:1"]
    assert b'{"type":"lost","channel":"a","first":2,"last":9}' in several.lost(b"a", 2, 9)
    assert ids(several.batch(b"b", batch(2, b"x"), b"e2")) == ["e1:9,e2:2"]


def test_it_knows_about_how_long_its_ids_are() -> None:
    """As a batch must fit into a chunk."""
    places: dict[bytes, Position | None] = {b"c%d" % number: Position(b"5f2c1a7b", 10**15) for number in range(32)}
    several = MultiChannelSSEEncoder(places)
    data = several.batch(b"c7", batch(10**15, b""), b"5f2c1a7b")
    assert len(data) <= several.overhead + len(b"c7ann") + 30
