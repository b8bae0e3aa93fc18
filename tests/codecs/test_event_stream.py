"""Messages as server-sent events: one message, one event, whatever is in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.event_streams import read_events
from twistedsock.codecs.encoders import JSON_SSE_ENCODER
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.sse import KEEP_ALIVE_COMMENT, RETRY_FIELD, SSEFraming, event_fields, one_line
from twistedsock.pubsub.values import JSON, TEXT, Batch
from twistedsock.session.encoder import Endpoints

STREAM = SSEFraming()
EVENT = b'{"type":"event","offset":'


def test_a_message_is_an_event_of_its_type() -> None:
    """So that ``onmessage`` of a browser gets events, and nothing else."""
    welcome = JSON_SSE_ENCODER.welcome(b"k3x9p", Endpoints(b"a:1", b"b:2"))
    assert welcome == (
        b'event: welcome\ndata: {"type":"welcome","protocol":1,"id":"k3x9p","from":"a:1","to":"b:2"}\n\n'
    )
    told = Batch(1, 2, b"p1", b"p1", b"message", build_payloads([b"x"], TEXT))
    assert JSON_SSE_ENCODER.batch(b"k", told) == (
        b'data: {"type":"event","channel":"k","offset":1,"from":"p1","name":"message","data":"x"}\n\n'
    )
    assert JSON_SSE_ENCODER.title == "events"


def test_line_breaks_between_tokens_are_spaces() -> None:
    assert one_line(b'{"a":\r\n[1,\n2]}') == b'{"a":  [1, 2]}'
    told = Batch(1, 3, b"p1", b"p1", b"message", build_payloads([b'{\n"a":\r1}', b"[\r\n]"], JSON))
    events, _ = read_events(JSON_SSE_ENCODER.batch(b"k", told).decode())
    assert [event.message["data"] for event in events] == [{"a": 1}, []]


@pytest.mark.parametrize("pieces", [[b'{"type":"ok"}'], [b'{"type":"ok","events":[', b"1,\n2", b"]}"]])
def test_a_message_in_pieces_is_one_event(pieces: list[bytes]) -> None:
    (event,), _ = read_events(b"".join(STREAM.fragments(pieces)).decode())
    assert event.kind == "ok" and event.data == b"".join(pieces).replace(b"\n", b" ").decode()


@given(first=st.sampled_from([0, 1, 9, 99, 998, 1_000, 2**53 - 5]), count=st.integers(1, 1_200))
def test_messages_in_a_row_are_what_each_would_be_alone(first: int, count: int) -> None:
    """A percent sign is nothing special."""
    payloads = [b'"%%b%d"' % number for number in range(count)]
    alone = [b'%b%d,"data":%b}' % (EVENT, n, payload) for n, payload in enumerate(payloads, first)]
    assert STREAM.numbered(EVENT, first, b',"data":', payloads, b"}") == b"".join(STREAM.frames(alone))
    assert STREAM.counted(EVENT, first, 3) == b"".join(STREAM.frames([b"%b%d" % (EVENT, first + n) for n in range(3)]))


def test_what_is_no_message_is_seen_by_no_client() -> None:
    """A comment keeps the stream alive; how long to wait before one comes back is no event either."""
    assert read_events((RETRY_FIELD + KEEP_ALIVE_COMMENT).decode()) == ([], "")
    assert (
        read_events((KEEP_ALIVE_COMMENT + STREAM.frame(b'{"type":"notice"}') + KEEP_ALIVE_COMMENT).decode())[0][0].kind
        == "notice"
    )


def test_the_fields_before_a_message() -> None:
    assert event_fields(b'{"type":"lost","channel":"k"}') == b"event: lost\ndata: "
    assert event_fields(b'{"type":"event","channel":"k"}') == b"data: "
    assert json.loads(one_line(b'{"type":\n"x"}')) == {"type": "x"}
