"""A lane: one event becomes one piece of bytes for all its readers."""

import pytest

from tests.core.readers import await_flush, channel, heard, outlet_of, publish, reader, subscribe
from twistedsock.core.lane import Lane, chunks
from twistedsock.core.limits import CHUNK_BYTES
from twistedsock.core.reader import HELD
from twistedsock.wire.dialects import JSON_IN_MESSAGES, LINES

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
    frames = [bytes([index]) * size for index, size in enumerate(sizes)]
    pieces = chunks(frames)
    assert [start for start, _ in pieces] == starts
    ends = [*starts[1:], len(frames)]
    assert [data for _, data in pieces] == [b"".join(frames[a:b]) for a, b in zip(starts, ends, strict=True)]


def test_all_readers_of_a_lane_get_the_very_same_bytes() -> None:
    offered: list[bytes] = []
    here = channel()
    for id in (b"p1", b"p2"):
        somebody = reader(id)
        outlet_of(somebody).offer = lambda data: offered.append(data) or True  # type: ignore[method-assign, func-returns-value]
        subscribe(here, somebody)
    publish(here, b"a", b"b")
    assert offered[0] is offered[1]
    assert offered == [b"MSG c 1 p0 a\nMSG c 2 p0 b\n"] * 2


def test_each_encoding_has_its_own_lane() -> None:
    here = channel()
    line, page = reader(b"p1"), reader(b"p2", JSON_IN_MESSAGES)
    subscribe(here, line), subscribe(here, page)
    publish(here, b"a")
    assert heard(line) == ["MSG c 1 p0 a"]
    assert b'"data":"a"' in outlet_of(page).sent
    assert {encoding: len(lane) for encoding, lane in here.lanes.items()} == {LINES: 1, JSON_IN_MESSAGES: 1}


def test_nothing_is_encoded_for_nobody() -> None:
    class Proud:
        def events(self, channel: bytes, events: object) -> list[bytes]:
            raise AssertionError("encoded for nobody")

    lane = Lane(Proud())  # type: ignore[arg-type]
    lane.deliver(b"c", [])


@pytest.mark.parametrize("echo", [True, False])
def test_a_reader_that_leaves_the_lane_hears_nothing_more(echo: bool) -> None:
    here, somebody = channel(), reader(b"p1")
    subscription = subscribe(here, somebody, echo=echo)
    here.leave_lane(subscription)
    publish(here, b"a")
    assert heard(somebody) == []
    here.leave_lane(subscription)
    assert len(here.lanes[LINES]) == 0


@pytest.mark.parametrize("echo", [True, False])
def test_who_does_not_take_all_falls_behind_at_the_piece_it_did_not_take(echo: bool) -> None:
    here, quick, slow, held = channel(), reader(b"p1"), reader(b"p2"), reader(b"p3")
    outlet_of(slow).room = 10
    outlet_of(held).blocked = HELD
    quick_one, slow_one, held_one = (subscribe(here, somebody, echo=echo) for somebody in (quick, slow, held))
    for _ in range(3):
        await_flush(here, HALF)
    publish(here, b"last")
    assert len(heard(quick)) == 4 and quick_one not in quick.lagging
    assert slow_one.cursor == 2 and slow_one in slow.lagging  # the first piece waits in its transport
    assert held_one.cursor == 1 and held_one in held.lagging
    assert len(here.lanes[LINES]) == 1


def test_who_wants_no_echo_gets_all_but_its_own() -> None:
    here, both, other = channel(), reader(b"p1"), reader(b"p2")
    subscribe(here, both, echo=False), subscribe(here, other, echo=False)
    await_flush(here, b"a", b"p1")
    await_flush(here, b"b", b"p2")
    await_flush(here, b"c", b"p3")
    publish(here)
    assert heard(both) == ["MSG c 2 p2 b", "MSG c 3 p3 c"]
    assert heard(other) == ["MSG c 1 p1 a", "MSG c 3 p3 c"]


def test_who_published_all_of_it_is_sent_nothing() -> None:
    here, somebody = channel(), reader(b"p1")
    subscription = subscribe(here, somebody, echo=False)
    publish(here, b"a", b"b", publisher=b"p1")
    assert outlet_of(somebody).sends == 0 and subscription not in somebody.lagging


def test_a_selective_reader_falls_behind_at_what_it_wants_next() -> None:
    here, somebody = channel(), reader(b"p1")
    subscription = subscribe(here, somebody, echo=False)
    outlet_of(somebody).room = 10
    for publisher in (b"p2", b"p1", b"p2", b"p1", b"p2"):
        await_flush(here, HALF, publisher)
    publish(here)
    assert subscription.cursor == 3 and subscription in somebody.lagging
