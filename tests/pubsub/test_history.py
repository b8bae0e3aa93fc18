"""The history of a channel: its limits, and reading from it."""

import gc
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.properties import holds
from twistedsock.limits.settings import CHUNK_BYTES, Limits
from twistedsock.pubsub.history import AGE_STEPS, FRAME_COST, MAX_WASTE, History
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Event, Lost, PayloadKind, Payloads, cost

ALONE = BATCH_COST + EVENT_COST
"""What an event costs that was published by itself, beyond its payload."""


def batch(first: int, *sizes: int) -> Batch:
    content = Payloads([b"x" * size for size in sizes], sum(sizes))
    return Batch(first, first + len(sizes), b"p1", b"ann", b"message", content)


def extend(log: History, *sizes: int, now: float = 0.0) -> None:
    """Events that were published one by one."""
    log.extend([batch(log.end + index, size) for index, size in enumerate(sizes)], now)


def extend_together(log: History, *sizes: int, now: float = 0.0) -> None:
    log.extend([batch(log.end, *sizes)], now)


def offsets(read: list[Batch]) -> list[int]:
    return [event.offset for batch in read for event in batch.events()]


def in_order(events: Iterable[Event | Lost]) -> list[int | Lost]:
    return [one if isinstance(one, Lost) else one.offset for one in events]


def whole(log: History) -> list[int | Lost]:
    return in_order(log.events(log.first, log.end))


def test_newest_event_is_that_with_the_last_offset() -> None:
    log = History(Limits(history_events=3))
    assert log.newest is None
    extend_together(log, 1, 2)
    assert log.newest == Event(2, b"p1", b"ann", b"message", b"xx", PayloadKind.TEXT)
    extend(log, *range(5))
    assert log.newest == list(batch(7, 4).events())[0]
    log.shrink(0)
    assert log.newest is None


def test_empty_history_starts_at_its_offset() -> None:
    log = History(Limits(), 8)
    assert (log.first, log.end, len(log), log.size) == (8, 8, 0, 0)
    assert whole(log) == [] and log.read(8, 100) == []


def test_extends_at_the_end() -> None:
    log = History(Limits(), 8)
    extend(log, 1, 2)
    extend(log, 3)
    assert whole(log) == [8, 9, 10]
    assert (log.first, log.end, len(log), log.size) == (8, 11, 3, 6 + 3 * ALONE)


def test_events_published_together_share_a_cost() -> None:
    log = History(Limits(), 8)
    extend_together(log, 1, 2, 3)
    assert whole(log) == [8, 9, 10] and log.size == BATCH_COST + 3 * EVENT_COST + 6


def test_drops_the_oldest_over_the_count() -> None:
    log = History(Limits(history_events=3))
    extend(log, 1, 1)
    extend(log, 1, 1)
    assert whole(log) == [2, 3, 4]
    assert log.size == 3 * (1 + ALONE)


def test_drops_events_of_a_batch_one_by_one() -> None:
    """Its bookkeeping counts while any of it is left."""
    log = History(Limits(history_events=3))
    extend_together(log, 5, 6, 7, 8)
    assert whole(log) == [2, 3, 4] and log.size == BATCH_COST + 3 * EVENT_COST + 21
    extend(log, 1, 1)
    assert whole(log) == [4, 5, 6] and log.size == BATCH_COST + EVENT_COST + 8 + 2 * (ALONE + 1)
    extend(log, 1)
    assert whole(log) == [5, 6, 7] and log.size == 3 * (ALONE + 1)


def test_releases_dropped_events_of_a_batch() -> None:
    log = History(Limits())
    extend_together(log, 60_000, *[1] * 999)
    log.shrink(log.size - 1)
    assert whole(log)[0] == 2
    assert sum(len(batch.payloads.items[0]) for batch in log._batches) == 1
    for _ in range(900):
        log.shrink(log.size - 1)
        held = sum(map(cost, log._batches))
        assert log.size <= held <= log.size + EVENT_COST * len(log) / MAX_WASTE


def test_drops_a_partly_dropped_batch() -> None:
    log = History(Limits())
    extend_together(log, *[1] * 99)
    extend_together(log, 2, 3)
    log.shrink(log.size - 1)
    assert whole(log)[0] == 2 and len(log._batches[0]) == 99
    log.shrink(BATCH_COST + 2 * EVENT_COST + 5)
    assert whole(log) == [100, 101] and log.size == BATCH_COST + 2 * EVENT_COST + 5
    log.shrink(0)
    assert whole(log) == [] and log.size == 0


def test_dropping_one_by_one_copies_little(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    part = Batch.part

    def counted(self: Batch, start: int, stop: int) -> Batch:
        copied.append(stop - start)
        return part(self, start, stop)

    monkeypatch.setattr(Batch, "part", counted)
    log = History(Limits())
    extend_together(log, *[1] * 4_000)
    while log:
        log.shrink(log.size - 1)
    assert sum(copied) < 5 * 4_000


def test_drops_the_oldest_over_the_bytes() -> None:
    log = History(Limits(history_bytes=2 * ALONE + 100))
    extend(log, 50, 50)
    assert whole(log) == [1, 2]
    extend(log, 50)
    assert whole(log) == [2, 3]
    extend(log, 51)
    assert whole(log) == [4]
    extend(log, 2 * ALONE + 101)
    assert whole(log) == [] and log.size == 0 and log.end == 6


def test_expires_at_most_one_step_late() -> None:
    log = History(Limits(history_age=64.0))
    step = 64.0 / AGE_STEPS
    extend(log, 1, now=100.0)
    extend(log, 1, now=100.0 + step / 2)
    extend(log, 1, now=100.0 + step)
    log.expire(164.0)
    assert whole(log) == [1, 2, 3]
    log.expire(164.0 + step)
    assert whole(log) == [3]
    log.expire(164.0 + 2 * step)
    assert whole(log) == [] and (log.first, log.size) == (4, 0)


def test_extending_expires_old_events() -> None:
    log = History(Limits(history_age=10.0))
    extend(log, 1, now=0.0)
    extend(log, 1, now=60.0)
    assert whole(log) == [2]


def test_age_of_zero_keeps_nothing() -> None:
    log = History(Limits(history_age=0.0))
    extend(log, 1, 1)
    assert whole(log) == [] and log.end == 3


def test_mark_of_dropped_events_drops_no_other_events() -> None:
    log = History(Limits(history_age=10.0, history_events=1))
    extend(log, 1, 1, now=0.0)
    log.shrink(0)
    log.expire(60.0)
    extend(log, 1, now=60.0)
    assert whole(log) == [3]


def test_number_of_marks_is_limited() -> None:
    log = History(Limits(history_age=64.0, history_events=10))
    for tick in range(10_000):
        extend(log, 1, now=tick / 10)
    assert len(log._marks) <= AGE_STEPS + 2


@pytest.mark.parametrize(
    "start, stop, left",
    [
        (1, 6, [Lost(1, 2), 3, 4, 5]),
        (2, 6, [Lost(2, 2), 3, 4, 5]),
        (3, 99, [3, 4, 5]),
        (4, 6, [4, 5]),
        (4, 5, [4]),
        (5, 5, []),
        (6, 6, []),
        (99, 6, []),
        (1, 3, [Lost(1, 2)]),
        (1, 2, [Lost(1, 1)]),
    ],
)
def test_iterates_between_two_offsets(start: int, stop: int, left: list[int | Lost]) -> None:
    """Alone or together: those that are still there, and in their place which are not."""
    log, together = History(Limits(history_events=3)), History(Limits(history_events=3))
    extend(log, 1, 1, 1, 1, 1)
    extend_together(together, 1, 1, 1, 1, 1)
    for events in (log.events(start, stop), together.events(start, stop)):
        assert in_order(events) == left


def test_reads_events_lazily() -> None:
    log = History(Limits(history_events=4))
    extend(log, CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES)
    events = log.events(1, log.end)
    assert in_order([next(events)]) == [1]
    extend(log, 1, 1)
    assert in_order(events) == [Lost(2, 2), 3, 4]
    events = log.events(3, log.end)
    assert in_order([next(events)]) == [3]
    log.shrink(0)
    assert list(events) == [Lost(4, 6)]
    extend(log, 1)
    assert list(log.events(1, 7)) == [Lost(1, 6)]


def test_reports_each_gap_of_a_history_that_moves_on() -> None:
    log = History(Limits(history_events=4))
    extend(log, *[CHUNK_BYTES] * 4)
    events = log.events(1, log.end)
    items = [next(events)]
    extend(log, CHUNK_BYTES, CHUNK_BYTES)
    items += [next(events), next(events)]
    extend(log, CHUNK_BYTES, CHUNK_BYTES)
    assert in_order([*items, *events]) == [1, Lost(2, 2), 3, Lost(4, 4)]


def test_reading_the_last_events_skips_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    events = Batch.events
    monkeypatch.setattr(Batch, "events", lambda batch: looked.append(len(batch)) or events(batch))
    log = History(Limits())
    extend(log, *[1] * 5_000)
    assert in_order(log.events(4_999, 5_001)) == [4_999, 5_000]
    assert list(log.events(5_001, 5_001)) == [] and looked == [1, 1]


@pytest.mark.parametrize(
    "offset, size, read",
    [
        (0, 1, [3]),
        (3, 1, [3]),
        (3, FRAME_COST + 1, [3]),
        (3, FRAME_COST + 2, [3, 4]),
        (4, 10_000, [4, 5]),
        (5, 0, [5]),
        (6, 10_000, []),
    ],
)
def test_reads_about_the_requested_size(offset: int, size: int, read: list[int]) -> None:
    """As much as makes so many bytes to send."""
    log = History(Limits(history_events=3))
    extend(log, 1, 1, 1, 1, 1)
    assert offsets(log.read(offset, size)) == read


@pytest.mark.parametrize(
    "offset, size, read",
    [
        (1, 0, [1]),
        (1, 2 * (FRAME_COST + 1), [1, 2]),
        (2, 2 * (FRAME_COST + 1), [2, 3]),
        (3, 10_000, [3, 4, 5, 6]),
        (3, 3 * (FRAME_COST + 1), [3, 4, 5]),
        (3, 2 * (FRAME_COST + 1) + 1, [3, 4, 5]),
        (6, 0, [6]),
    ],
)
def test_reads_parts_of_batches(offset: int, size: int, read: list[int]) -> None:
    """They are parted where enough is read: a reader that is behind sends a chunk at a time."""
    log = History(Limits())
    extend_together(log, 1, 1, 1, 1)
    extend_together(log, 1, 1)
    assert offsets(log.read(offset, size)) == read


@pytest.mark.parametrize(
    "stop, read", [(3, [2]), (4, [2, 3]), (5, [2, 3, 4, 5]), (6, [2, 3, 4, 5]), (7, [2, 3, 4, 5, 6])]
)
def test_reads_no_batches_behind_the_last_requested_event(stop: int, read: list[int]) -> None:
    """So a request for few events costs little, wherever they are."""
    log = History(Limits())
    extend(log, 1, 1, 1)
    extend_together(log, 1, 1)
    extend(log, 1)
    assert offsets(log.read(2, 10_000, stop)) == read


def test_read_batches_do_not_change_later() -> None:
    log = History(Limits(history_events=2))
    extend_together(log, 1, 1)
    read = log.read(1, 1000)
    extend(log, 1, 1)
    assert offsets(read) == [1, 2]


@pytest.mark.parametrize(
    "size, left",
    [(10_000, [1, 2, 3, 4, 5]), (3 * ALONE, [2, 3, 4, 5]), (2 * ALONE + EVENT_COST, [3, 4, 5])]
    + [(BATCH_COST + 2 * EVENT_COST + 2, [4, 5]), (BATCH_COST + 2 * EVENT_COST + 1, [5]), (ALONE, []), (0, [])],
)
def test_shrinks_to_a_size(size: int, left: list[int]) -> None:
    """The fewest go that must."""
    log = History(Limits())
    extend(log, 1, 1)
    extend_together(log, 1, 1, 1)
    log.shrink(size)
    assert whole(log) == left


SIZES = st.lists(st.just(0) | st.integers(0, 100), min_size=1, max_size=12)


@given(
    count=st.integers(0, 20),
    room=st.integers(0, 6 * ALONE),
    steps=st.lists(
        st.tuples(st.lists(SIZES, max_size=4), st.integers(0, 30), st.none() | st.integers(0, 6 * ALONE)), max_size=12
    ),
    size=st.integers(0, 1000),
)
def test_keeps_all_that_the_limits_allow(
    count: int, room: int, steps: list[tuple[list[list[int]], int, int | None]], size: int
) -> None:
    """Against a plain list of events, each with its batch and when it came."""
    age = 64.0
    log = History(Limits(history_events=count, history_bytes=room, history_age=age))
    written: list[tuple[Event, int, float]] = []
    now, batches, gone = 0.0, 0, 0

    def cost_of(tail: list[tuple[Event, int, float]]) -> int:
        """Each event counts, and each batch of which any is left."""
        events = sum(EVENT_COST + len(event.payload) for event, _, _ in tail)
        return events + BATCH_COST * len({number for _, number, _ in tail})

    for sizes, pause, shrunk in steps:
        now += pause
        if sizes:
            added: list[Batch] = []
            for some in sizes:
                added.append(batch(added[-1].end if added else log.end, *some))
                batches += 1
                written += [(event, batches, now) for event in added[-1].events()]
            log.extend(added, now)
        log.expire(now)
        if shrunk is not None:
            log.shrink(shrunk)
        kept = written[len(written) - len(log) :]
        assert list(log.events(log.first, log.end)) == [event for event, _, _ in kept]
        assert log.first == log.end - len(log) and log.end == len(written) + 1
        assert log.size == cost_of(kept) <= room and len(kept) <= count
        assert shrunk is None or log.size <= shrunk
        assert all(now - at < age * (1 + 1 / AGE_STEPS) for _, _, at in kept)
        assert len(log._batches) == len({number for _, number, _ in kept})
        held = sum(map(cost, log._batches))
        assert held == log.size + log._waste and log._waste * MAX_WASTE <= EVENT_COST * len(log)
        # The dropped events had to be dropped: the next older one would break a bound, now or when it went.
        tail = [items for items in written[gone:] if now - items[2] < age]
        tail = tail[max(0, len(tail) - count) :]
        while cost_of(tail) > min(room, room if shrunk is None else shrunk):
            del tail[0]
        assert kept[len(kept) - len(tail) :] == tail
        gone = len(written) - len(kept)
        for offset in range(log.first, log.end + 1):
            events = [event for event, _, _ in kept if event.offset >= offset]
            assert list(log.events(offset, log.end)) == events
            read = [event for part in log.read(offset, size) for event in part.events()]
            assert read == events[: len(read)] and (read or not events)
            # Not much more than asked for, though each batch is parted as if its events were alike.
            sent = [FRAME_COST + len(event.payload) for event in read]
            assert sum(sent) <= size + 12 * (FRAME_COST + 100)
            if len(read) < len(events):
                assert sum(sent) >= size - 12 * (FRAME_COST + 100)


def test_memory_is_at_most_the_counted_size() -> None:
    """So a bound in bytes is one on memory, even for events of one byte, alone or together."""
    for together, times in ((1, 20_000), (10, 2_000), (1_000, 100)):
        log = History(Limits(history_events=10**9, history_bytes=10**9))
        publisher, sender, name = b"p" * 12, b"a" * 10, b"message"
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(times):
                payloads = (b"%d " % (10**9 + log.end) * together).split()
                content = Payloads(payloads if together > 1 else (payloads[0],), 10 * together)
                del payloads
                log.extend([Batch(log.end, log.end + together, publisher, sender, name, content)], 0.0)
                del content
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert 0.6 * log.size < taken <= log.size, (together, taken / len(log), log.size / len(log))


AGE = 64.0
"""So that one of the steps in which ages are kept is a second."""

BATCH_SIZES = st.lists(st.sampled_from([0, 1, 10, 200, 5_000]), min_size=1, max_size=6)
STEP = st.one_of(
    st.tuples(st.just("extend"), st.lists(BATCH_SIZES, min_size=1, max_size=3)),
    st.tuples(st.just("extend"), st.lists(BATCH_SIZES, min_size=1, max_size=3)),
    st.tuples(st.just("age"), st.sampled_from([0.0, 0.5, 1.0, 30.0, 63.0, 65.0, 200.0])),
    st.tuples(st.just("shrink"), st.integers(0, 20_000)),
    st.tuples(st.just("let go"), st.integers(0, 8)),
    st.tuples(st.just("read"), st.tuples(st.integers(0, 40), st.integers(1, 12_000))),
)


@holds(
    examples=100,
    steps=st.lists(STEP, max_size=15),
    events=st.sampled_from([0, 1, 5, 1_000]),
    size=st.sampled_from([0, 400, 6_000, 1_000_000]),
    start=st.sampled_from([1, 8]),
)
def test_history_equals_a_list_of_events(steps: list[Any], events: int, size: int, start: int) -> None:
    """Whatever is published, ages and is read, the log is the newest of what was published, without a gap, within its
    bounds of count, bytes and age, and it lets nothing go that they hold."""
    limits = Limits(history_events=events, history_bytes=size, history_age=AGE)
    log, now = History(limits, start), 0.0
    published: list[tuple[bytes, float]] = []
    gone_by_shrinking = False
    for kind, what in steps:
        if kind == "extend":
            batches = []
            for sizes in what:
                payloads = [b"%d" % (start + len(published) + index) + b"x" * each for index, each in enumerate(sizes)]
                first = start + len(published)
                content = Payloads(tuple(payloads), sum(map(len, payloads)))
                batches.append(Batch(first, first + len(payloads), b"p1", b"p1", b"message", content))
                published += [(payload, now) for payload in payloads]
            log.extend(batches, now)
        elif kind == "age":
            now += what
            log.expire(now)
        elif kind == "shrink":
            gone_by_shrinking = gone_by_shrinking or what < log.size
            log.shrink(what)
            assert log.size <= what
        elif kind == "let go":
            begin = min(log.first + what, log.end)
            gone_by_shrinking = gone_by_shrinking or log.first < begin
            log.shrink(size_from(log, begin))
            assert log.first == begin, "more was let go than was asked for"
        else:
            offset, limit = what
            read = [event for batch in log.read(offset, limit) for event in batch.events()]
            begin = max(offset, log.first)
            assert [event.offset for event in read] == list(range(begin, begin + len(read)))
            assert bool(read) is (begin < log.end)
            sent = [len(event.payload) + FRAME_COST for event in read]
            assert sum(sent) <= limit + max(sent, default=0) + max(sent, default=0)
        check(log, limits, published, start, now, gone_by_shrinking)


def size_from(log: History, offset: int) -> int:
    """The cost of the history without the events before ``offset``."""
    return sum(cost(batch.part(offset, batch.end)) for batch in log.read(offset, 10**9)) if offset < log.end else 0


def check(log: History, limits: Limits, published: list[Any], start: int, now: float, shrunk: bool) -> None:
    held = [event for batch in log.read(log.first, 10**9) for event in batch.events()]
    assert log.end == start + len(published) and log.first == log.end - len(held) and len(log) == len(held)
    assert [event.offset for event in held] == list(range(log.first, log.end))
    assert [event.payload for event in held] == [payload for payload, _ in published[len(published) - len(held) :]]
    assert log.size <= limits.history_bytes and len(held) <= limits.history_events
    least = sum(len(event.payload) + EVENT_COST for event in held)
    assert least <= log.size <= least + BATCH_COST * len(held) and log.size == sum(map(cost, log.read(0, 10**9)))
    assert all(now - then <= AGE + AGE / AGE_STEPS for _, then in published[len(published) - len(held) :])
    if log.first > start and not shrunk:
        payload, then = published[log.first - start - 1]
        assert (
            now - then >= AGE
            or len(held) == limits.history_events
            or log.size + len(payload) + EVENT_COST + BATCH_COST > limits.history_bytes
        ), "it was let go without need"


# Times.


def publish_at(log: History, *times: int) -> None:
    """A batch of two events for each time."""
    content = Payloads([b"x", b"y"], 2)
    for time in times:
        log.extend([Batch(log.end, log.end + 2, b"p1", b"ann", b"message", content, time)], 0.0)


def test_finds_events_by_time() -> None:
    log = History(Limits())
    assert (log.first_after(0), log.first_since(0)) == (1, 1)
    publish_at(log, 100, 200, 200, 300)
    assert [log.first_after(time) for time in (99, 100, 150, 200, 299, 300)] == [1, 3, 3, 7, 7, 9]
    assert [log.first_since(time) for time in (100, 101, 200, 201, 300, 301)] == [1, 3, 3, 7, 7, 9]


def test_finds_the_rest_of_a_batch_by_time() -> None:
    log = History(Limits(history_events=3))
    publish_at(log, 100, 200)
    assert (log.first, log.first_after(99), log.first_after(100)) == (2, 2, 3)


def test_knows_the_time_of_the_newest_dropped_event() -> None:
    log = History(Limits(history_events=3), 1, 50)
    assert log.dropped_time == 50
    publish_at(log, 100)
    assert log.dropped_time == 50
    publish_at(log, 200)
    assert (log.first, log.dropped_time) == (2, 100)
    log.shrink(0)
    assert log.dropped_time == 200
    log.skip_to(10, 400)
    assert log.dropped_time == 400


def test_start_includes_dropped_events_that_may_be_later() -> None:
    log = History(Limits(history_events=3))
    publish_at(log, 100, 200, 300)
    assert (log.first, log.dropped_time) == (4, 200)
    assert [log.start_after(time) for time in (199, 200, 300)] == [1, 5, 7]
    assert (History(Limits(), 4).start_after(900), History(Limits(), 4, 50).start_after(50)) == (1, 4)
    assert (History(Limits(), 4, 50, origin=3).start_after(40), History(Limits(), 4, origin=4).start_after(40)) == (
        3,
        4,
    )
    unknown = History(Limits(), 4)
    publish_at(unknown, 100)
    assert [unknown.start_after(time) for time in (99, 100)] == [1, 6]


def test_stop_excludes_the_newest_dropped_event_if_its_time_is_known() -> None:
    log = History(Limits(history_events=3))
    publish_at(log, 100, 200, 300)
    assert [log.stop_before(time) for time in (100, 200, 201, 300, 301)] == [3, 3, 5, 5, 7]
    log.skip_to(9, 400)
    assert [log.stop_before(time) for time in (200, 400, 500)] == [9, 9, 9]
    assert History(Limits(), 4).stop_before(1) == 4
    assert History(Limits(), 1, 50).stop_before(1) == 1
