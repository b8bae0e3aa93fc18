"""The frames and messages between a worker and the hub, cut anywhere, and damaged input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub_messages import HEADER, MAX_FRAME_BYTES, FrameReader, ProtocolError, encode, frame
from twistedsock.pubsub.values import (
    JSON,
    Batch,
    ChannelState,
    DisconnectClient,
    Member,
    Payloads,
    Position,
    Publication,
)

ANN = Member(b"1-abcde", "änn".encode())

PUBLICATION = Publication(b"kitchen", Payloads([b"1", b"2"], 2, JSON, True), b"alarm", b"key")

BATCH = Batch(17, 19, b"1-abcde", b"ann", b"alarm", PUBLICATION.payloads, 1_764_394_200_123)

STATE = ChannelState(Position(b"e2", 18), [BATCH], 5, 16, Position(b"e1", 16))

TO_HUB: list[messages.Message] = [
    messages.Hello(b"1", b""),
    messages.Synced(),
    messages.Members(b"kitchen", [ANN]),
    messages.PublishRequest(b"1-abcde", b"ann", b"local", PUBLICATION),
    messages.Open(b"kitchen", None),
    messages.Open(b"kitchen", Position(b"e1", 7)),
    messages.Close(b"kitchen"),
    messages.Read(b"kitchen", Position(b"e1", 7), 65_536),
    messages.Join(b"kitchen", ANN),
    messages.Rename(b"kitchen", ANN),
    messages.Leave(b"kitchen", ANN),
    messages.ListMembers(b"kitchen"),
    messages.Gather(b"figures"),
    messages.WorkerReport(b"{}"),
    messages.Goodbye(),
    messages.FindOffset(b"kitchen", b"e1", 1_764_394_200_123),
    messages.ReportCounts({b"@192.0.2.1": 3, b"=ann": 0}),
    messages.Probe(),
    messages.SendToWorker(b"2", b"\x00"),
    messages.Command(DisconnectClient(b"2-abcde", b"bye", b"disconnected")),
]

TO_WORKER: list[messages.Message] = [
    messages.Welcome(b"h1", True),
    messages.Ready(False),
    messages.Offset(17),
    messages.Deliver(b"kitchen", b"e2", BATCH),
    messages.OpenedChannel(STATE),
    messages.ResetChannel(b"kitchen", STATE),
    messages.Batches([BATCH]),
    messages.Members(b"kitchen", [ANN, ANN]),
    messages.Changed(b"kitchen", ANN, True),
    messages.Failure(b"unavailable", "backplane unavailable"),
    messages.Ask(b"figures"),
    messages.Reports({b"1": b"{}"}),
    messages.CountsElsewhere({b"@192.0.2.1": 3, b"=ann": 0}),
    messages.Alive(),
    messages.SentByWorker(b"1", b"\x00"),
    messages.WorkerAway(b"2"),
    messages.Command(DisconnectClient(b"2-abcde", b"bye", b"disconnected")),
]


def stream_of(sent: list[messages.Message]) -> bytes:
    return b"".join([frame(number, encode(message)) for number, message in enumerate(sent)])


DIRECTIONS = pytest.mark.parametrize(
    ("union", "sent"), [(messages.ToHub, TO_HUB), (messages.ToWorker, TO_WORKER)], ids=["to hub", "to worker"]
)


def test_every_message_has_an_example() -> None:
    examples = {type(message) for message in TO_HUB + TO_WORKER}
    assert examples == {*messages.ToHub.__args__, *messages.ToWorker.__args__}


@DIRECTIONS
def test_messages_arrive_unchanged(union: object, sent: list[messages.Message]) -> None:
    reader = FrameReader(union)
    reader.feed(stream_of(sent))
    assert list(reader) == list(enumerate(sent))


@DIRECTIONS
def test_stream_can_be_cut_at_every_byte(union: object, sent: list[messages.Message]) -> None:
    stream = stream_of(sent)
    for cut in range(len(stream) + 1):
        reader, received = FrameReader(union), []
        for part in (stream[:cut], stream[cut:]):
            reader.feed(part)
            received += list(reader)
        assert received == list(enumerate(sent)), cut


@DIRECTIONS
def test_stream_can_arrive_byte_by_byte(union: object, sent: list[messages.Message]) -> None:
    reader, received = FrameReader(union), []
    for byte in stream_of(sent):
        reader.feed(bytes([byte]))
        received += list(reader)
    assert received == list(enumerate(sent))


def test_reading_can_stop_and_continue_while_more_arrives() -> None:
    reader = FrameReader(messages.ToHub)
    stream = stream_of(TO_HUB)
    reader.feed(stream)
    assert next(iter(reader)) == (0, TO_HUB[0])
    reader.feed(stream)
    assert list(reader) == [*list(enumerate(TO_HUB))[1:], *enumerate(TO_HUB)]


def test_long_frame_is_not_copied_for_each_piece() -> None:
    payload = b"x" * 8_000_000
    publication = Publication(b"kitchen", Payloads([payload], len(payload)))
    stream = frame(1, encode(messages.PublishRequest(b"1-a", b"ann", b"local", publication)))
    reader, received = FrameReader(messages.ToHub), []
    for start in range(0, len(stream), 4_096):  # in 2,000 pieces: copying all for each takes seconds
        reader.feed(stream[start : start + 4_096])
        received += list(reader)
    ((number, message),) = received
    assert number == 1 and message.publication.payloads.items == [payload]


def test_frame_that_is_too_long_is_an_error_before_it_arrives() -> None:
    reader = FrameReader(messages.ToHub)
    reader.feed(HEADER.pack(MAX_FRAME_BYTES + 1, 0))
    with pytest.raises(ProtocolError, match="a frame of 67108865 bytes"):
        list(reader)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",  # nil
        b"\x90",  # an array without a tag
        b"\x91\x63",  # an unknown tag
        b"\x92\x05\xc4\x01a",  # Open without known
        b"\x93\x05\xc4\x01a\x07",  # a position that is a number
        b"\x92\x06\xc4\xffa",  # shorter than it says
        b"\x91\x06" + b"\x91" * 100_000,  # nested too deeply
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion elements
        encode(messages.Synced()) + b"\0",
        encode(messages.Welcome(b"h", True)),  # of the other direction
    ],
)
def test_damaged_message_is_an_error(body: bytes) -> None:
    reader = FrameReader(messages.ToHub)
    reader.feed(frame(0, body))
    with pytest.raises(ProtocolError):
        list(reader)


@given(st.binary(max_size=200), st.booleans())
def test_random_input_is_a_message_or_an_error(data: bytes, is_framed: bool) -> None:
    reader = FrameReader(messages.ToHub)
    reader.feed(frame(0, data) if is_framed else data)
    try:
        for _, message in reader:
            assert isinstance(message, messages.Message)
    except ProtocolError:
        pass


@given(st.sampled_from(TO_HUB), st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_damaged_bytes_are_a_message_or_an_error(message: messages.Message, at: int, damage: bytes) -> None:
    body = bytearray(encode(message))
    body[at : at + len(damage)] = damage
    reader = FrameReader(messages.ToHub)
    reader.feed(frame(0, bytes(body)))
    try:
        assert all(isinstance(received, messages.Message) for _, received in reader)
    except ProtocolError:
        pass
