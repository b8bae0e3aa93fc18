"""Encoding, chunks, and delivery to encoding groups."""

from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pubsub.helpers import await_flush, channel, outlet_of, publish, received, subscribe, subscriber
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.codecs.payload import build_payloads, is_utf8
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.encoding_group import EncodingGroup, GatheredChunks, encode, join_chunks, send_gathered
from twistedsock.pubsub.subscription import REPLY_PENDING
from twistedsock.pubsub.values import TEXT, Batch
from twistedsock.session.encoder import Encoder
from twistedsock.stats import Stats

HALF = b"x" * (CHUNK_BYTES // 2)


@pytest.mark.parametrize(
    "sizes, starts",
    [
        ([1], [0]),
        ([1, 2, 3], [0]),
        ([CHUNK_BYTES], [0]),
        ([CHUNK_BYTES - 1, 1], [0]),
        ([CHUNK_BYTES - 1, 2], [0, 1]),
        ([CHUNK_BYTES, 1], [0, 1]),
        ([1, CHUNK_BYTES], [0, 1]),
        ([CHUNK_BYTES + 1], [0]),
        ([CHUNK_BYTES + 1, CHUNK_BYTES + 1], [0, 1]),
        ([1, CHUNK_BYTES + 1, 1], [0, 1, 2]),
        ([CHUNK_BYTES // 2] * 5, [0, 2, 4]),
    ],
)
def test_messages_are_joined_into_chunks_and_never_cut(sizes: list[int], starts: list[int]) -> None:
    pieces = [(index + 7, bytes([index]) * size) for index, size in enumerate(sizes)]
    joined = join_chunks(pieces)
    assert [offset for offset, _ in joined] == [start + 7 for start in starts]
    ends = [*starts[1:], len(pieces)]
    expected = [b"".join(data for _, data in pieces[a:b]) for a, b in zip(starts, ends, strict=True)]
    assert [data for _, data in joined] == expected


def batch(first: int, *payloads: bytes, name: bytes = b"message") -> Batch:
    return Batch(first, first + len(payloads), b"p0", b"ann", name, build_payloads(payloads, TEXT))


@pytest.mark.parametrize(
    "payloads, starts",
    [
        ([b"x"], [1]),
        ([b"x" * CHUNK_BYTES], [1]),
        ([b"x"] * 2_000, [1]),
        ([b"x"] * 5_000, [1, 1668, 3335]),
        ([HALF] * 3, [1, 2, 3]),
        ([b"x" * CHUNK_BYTES] * 3, [1, 2, 3]),
        ([b"x" * CHUNK_BYTES, *[b"x"] * 7], [1, 2, 3, 5]),
    ],
)
def test_batch_is_encoded_in_chunks(payloads: list[bytes], starts: list[int]) -> None:
    assert [offset for offset, _ in encode(LINE_ENCODER, b"c", batch(1, *payloads))] == starts


def test_batch_larger_than_estimated_is_divided() -> None:
    source = batch(1, *[b"\x01" * 500] * 100)
    pieces = encode(LINE_ENCODER, b"c", source)
    assert len(pieces) > 1 and all(len(data) <= CHUNK_BYTES for _, data in pieces)
    assert b"".join(data for _, data in pieces) == LINE_ENCODER.batch(b"c", source)


PAYLOADS = st.one_of(
    st.builds(
        lambda sign, size: sign * size, st.sampled_from([b"x", b"\n", b'"', b"\xc3\xa9"]), st.integers(0, 90_000)
    ),
    st.binary(max_size=3).filter(is_utf8),
)
NAMES = st.sampled_from([b"message", b"alarm", b"n" * 64])


@settings(deadline=None)
@given(
    kinds=st.lists(
        st.tuples(st.lists(st.tuples(PAYLOADS, st.sampled_from([1, 1, 2, 700])), min_size=1, max_size=6), NAMES),
        min_size=1,
        max_size=4,
    ),
    dialect=st.sampled_from([LINE_ENCODER, LINE_MESSAGE_ENCODER, JSON_MESSAGE_ENCODER]),
)
def test_encoding_and_joining_keep_all_events_and_offsets(
    kinds: list[tuple[list[tuple[bytes, int]], bytes]], dialect: Encoder
) -> None:
    batches: list[Batch] = []
    for kind, name in kinds:
        payloads = [payload for payload, times in kind for _ in range(times if len(payload) < 100 else 1)]
        batches.append(batch(batches[-1].end if batches else 998, *payloads, name=name))
    frames = {
        offset: dialect.batch(b"c", source.part(offset, offset + 1))
        for source in batches
        for offset in range(source.first, source.end)
    }
    encoded = [piece for source in batches for piece in encode(dialect, b"c", source)]
    for pieces in (encoded, join_chunks(encoded)):
        position = 998
        for offset, data in pieces:
            assert offset == position
            one_message = data == frames[offset]
            assert one_message or len(data) <= CHUNK_BYTES
            size = 0
            while size < len(data):
                frame = frames[position]
                assert data.startswith(frame, size)
                size, position = size + len(frame), position + 1
            assert size == len(data)
        assert position == batches[-1].end
    # No two that follow each other would have fitted into one.
    assert all(len(a) + len(b) > CHUNK_BYTES for (_, a), (_, b) in pairwise(join_chunks(encoded)))


def test_members_of_a_group_get_the_same_bytes_object() -> None:
    offered: list[bytes] = []
    here = channel()
    for id in (b"p1", b"p2"):
        reader = subscriber(id)
        outlet_of(reader).try_write = lambda data: offered.append(data) or True  # type: ignore[method-assign, func-returns-value]
        subscribe(here, reader)
    publish(here, b"a", b"b")
    assert offered[0] is offered[1]
    assert offered == [b"MSG c 1 p0 a\nMSG c 2 p0 b\n"] * 2


def test_each_encoder_has_its_own_group() -> None:
    here = channel()
    line, page = subscriber(b"p1"), subscriber(b"p2", JSON_MESSAGE_ENCODER)
    subscribe(here, line), subscribe(here, page)
    publish(here, b"a")
    assert received(line) == ["MSG c 1 p0 a"]
    assert b'"data":"a"' in outlet_of(page).sent
    assert {encoder: len(group) for encoder, group in here.encoding_groups.items()} == {
        LINE_ENCODER: 1,
        JSON_MESSAGE_ENCODER: 1,
    }


def test_empty_group_encodes_nothing() -> None:
    class Failing:
        def batch(self, channel: bytes, batch: object) -> bytes:
            raise AssertionError("encoded without members")

    group = EncodingGroup(Failing(), Stats())  # type: ignore[arg-type]
    group.broadcast(b"c", [])


@pytest.mark.parametrize("echo", [True, False])
def test_removed_member_gets_no_events(echo: bool) -> None:
    here, reader = channel(), subscriber(b"p1")
    subscription = subscribe(here, reader, echo=echo)
    here.leave_group(subscription)
    publish(here, b"a")
    assert received(reader) == []
    here.leave_group(subscription)
    assert len(here.encoding_groups[LINE_ENCODER]) == 0


@pytest.mark.parametrize("echo", [True, False])
def test_member_falls_behind_at_the_refused_chunk(echo: bool) -> None:
    here, quick, slow, held = channel(), subscriber(b"p1"), subscriber(b"p2"), subscriber(b"p3")
    outlet_of(slow).room = 10
    outlet_of(held).blocked = REPLY_PENDING
    quick_one, slow_one, held_one = (subscribe(here, reader, echo=echo) for reader in (quick, slow, held))
    for _ in range(3):
        await_flush(here, HALF)
    publish(here, b"last")
    assert len(received(quick)) == 4 and quick_one not in quick.behind
    assert slow_one.cursor == 2 and slow_one in slow.behind  # the first piece waits in its transport
    assert held_one.cursor == 1 and held_one in held.behind
    assert len(here.encoding_groups[LINE_ENCODER]) == 1
    assert here.stats.delivered == 5  # all four to the quick one


def test_member_without_echo_gets_all_but_its_own_events() -> None:
    here, both, other = channel(), subscriber(b"p1"), subscriber(b"p2")
    subscribe(here, both, echo=False), subscribe(here, other, echo=False)
    await_flush(here, b"a", b"p1")
    await_flush(here, b"b", b"p2")
    await_flush(here, b"c", b"p3")
    publish(here)
    assert received(both) == ["MSG c 2 p2 b", "MSG c 3 p3 c"]
    assert received(other) == ["MSG c 1 p1 a", "MSG c 3 p3 c"]


def test_member_without_echo_gets_no_send_for_its_own_events() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscription = subscribe(here, reader, echo=False)
    publish(here, b"a", b"b", publisher=b"p1")
    assert outlet_of(reader).sends == 0 and subscription not in reader.behind


def test_member_without_echo_falls_behind_at_its_next_event() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscription = subscribe(here, reader, echo=False)
    outlet_of(reader).room = 10
    for publisher in (b"p2", b"p1", b"p2", b"p1", b"p2"):
        await_flush(here, HALF, publisher)
    publish(here)
    assert subscription.cursor == 3 and subscription in reader.behind


def gather(*channels: Channel) -> GatheredChunks:
    """The gathered chunks of each subscriber."""
    gathered: GatheredChunks = defaultdict(list)
    for here in channels:
        here.deliver(here.prepare_delivery(0.0), gathered)
    return gathered


def test_events_of_several_channels_leave_in_one_send() -> None:
    """One send costs far more than gathering what goes into it."""
    busy, quiet, live, selective = channel(), channel(), subscriber(b"p1"), subscriber(b"p2")
    for here in (busy, quiet):
        subscribe(here, live), subscribe(here, selective, echo=False)
    await_flush(busy, b"a", b"p2"), await_flush(busy, b"b"), await_flush(quiet, b"c"), await_flush(quiet, b"d", b"p2")
    for reader, due in gather(busy, quiet).items():
        assert outlet_of(reader).sends == 0
        send_gathered(reader, due)
        assert outlet_of(reader).sends == 1
    assert received(live) == ["MSG c 1 p2 a", "MSG c 2 p0 b", "MSG c 1 p0 c", "MSG c 2 p2 d"]
    assert received(selective) == ["MSG c 2 p0 b", "MSG c 1 p0 c"]


def test_gathered_events_leave_in_chunks() -> None:
    channels, reader = [channel() for _ in range(5)], subscriber(b"p1")
    long = b"x" * (2 * CHUNK_BYTES)
    offered: list[int] = []
    outlet_of(reader).try_write = lambda data: offered.append(len(data)) or True  # type: ignore[method-assign, func-returns-value]
    for here, payload in zip(channels, [b"a", HALF, HALF, long, b"b"], strict=True):
        subscribe(here, reader)
        await_flush(here, payload)
    send_gathered(reader, gather(*channels)[reader])
    around = len(b"MSG c 1 p0 \n")
    assert offered == [1 + len(HALF) + 2 * around, len(HALF) + around, len(long) + around, 1 + around]


@pytest.mark.parametrize("echo", [True, False])
def test_refused_gathered_send_marks_each_channel_behind(echo: bool) -> None:
    first, second, third, reader = channel(), channel(head=7), channel(head=70), subscriber(b"p1")
    outlet_of(reader).room = 10
    one, two, three = (subscribe(here, reader, echo=echo) for here in (first, second, third))
    for here in (first, second, second, second, third):
        await_flush(here, HALF, b"p2")
    due = gather(first, second, third)[reader]
    assert reader.behind == {}
    send_gathered(reader, due)
    assert reader.stats.sent == len(outlet_of(reader).sent) + len(outlet_of(reader).waiting)
    assert one not in reader.behind
    assert {subscription: subscription.cursor for subscription in reader.behind} == {two: 8, three: 71}
    outlet_of(reader).drain()
    while reader.catch_up({}):
        pass
    assert [line.split()[2] for line in received(reader)] == ["1", "8", "9", "71", "10"]


def test_nothing_is_gathered_for_the_only_publisher() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscribe(here, reader, echo=False)
    await_flush(here, b"a", b"p1")
    send_gathered(reader, gather(here)[reader])
    assert outlet_of(reader).sends == 0
