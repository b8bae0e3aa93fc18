"""The log: bounded in count, bytes and age, contiguous at all times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.core.events import EVENT_COST, Event, cost
from twistedsock.core.limits import Limits
from twistedsock.core.log import AGE_STEPS, Log


def events(first: int, *sizes: int) -> list[Event]:
    return [Event(first + index, b"p1", b"ann", b"message", b"x" * size, False) for index, size in enumerate(sizes)]


def extend(log: Log, *sizes: int, now: float = 0.0) -> None:
    added = events(log.end, *sizes)
    log.extend(added, sum(map(cost, added)), now)


def offsets(read: object) -> list[int]:
    return [event.offset for event in read]  # type: ignore[attr-defined]


def whole(log: Log) -> list[int]:
    return offsets(log.since(0))


def test_an_empty_log_begins_where_it_is_told() -> None:
    log = Log(Limits(), 8)
    assert (log.first, log.end, len(log), log.size) == (8, 8, 0, 0)
    assert whole(log) == [] and log.read(8, 100) == []


def test_a_log_grows_at_its_end() -> None:
    log = Log(Limits(), 8)
    extend(log, 1, 2)
    extend(log, 3)
    assert whole(log) == [8, 9, 10]
    assert (log.first, log.end, len(log), log.size) == (8, 11, 3, 6 + 3 * EVENT_COST)


def test_the_oldest_beyond_the_count_give_way() -> None:
    log = Log(Limits(history_events=3))
    extend(log, 1, 1)
    extend(log, 1, 1)
    assert whole(log) == [2, 3, 4]
    assert log.size == 3 * (1 + EVENT_COST)


def test_the_oldest_beyond_the_bytes_give_way() -> None:
    log = Log(Limits(history_bytes=2 * EVENT_COST + 100))
    extend(log, 50, 50)
    assert whole(log) == [1, 2]
    extend(log, 50)
    assert whole(log) == [2, 3]
    extend(log, 51)
    assert whole(log) == [4]
    extend(log, 2 * EVENT_COST + 101)
    assert whole(log) == [] and log.size == 0 and log.end == 6


def test_what_is_too_old_gives_way_a_step_late_at_most() -> None:
    log = Log(Limits(history_age=64.0))
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


def test_writing_lets_go_what_is_too_old() -> None:
    log = Log(Limits(history_age=10.0))
    extend(log, 1, now=0.0)
    extend(log, 1, now=60.0)
    assert whole(log) == [2]


def test_an_age_of_nothing_keeps_nothing() -> None:
    log = Log(Limits(history_age=0.0))
    extend(log, 1, 1)
    assert whole(log) == [] and log.end == 3


def test_a_mark_whose_events_have_gone_already_takes_no_others() -> None:
    log = Log(Limits(history_age=10.0, history_events=1))
    extend(log, 1, 1, now=0.0)
    log.shrink(0)
    log.expire(60.0)
    extend(log, 1, now=60.0)
    assert whole(log) == [3]


def test_marks_do_not_pile_up() -> None:
    log = Log(Limits(history_age=64.0, history_events=10))
    for tick in range(10_000):
        extend(log, 1, now=tick / 10)
    assert len(log._marks) <= AGE_STEPS + 2


@pytest.mark.parametrize(
    "offset, left", [(0, [3, 4, 5]), (1, [3, 4, 5]), (2, [3, 4, 5]), (3, [4, 5]), (5, []), (99, [])]
)
def test_history_after_an_offset(offset: int, left: list[int]) -> None:
    log = Log(Limits(history_events=3))
    extend(log, 1, 1, 1, 1, 1)
    assert offsets(log.since(offset)) == left


@pytest.mark.parametrize(
    "offset, size, read",
    [
        (3, 1, [3]),
        (3, EVENT_COST + 1, [3]),
        (3, EVENT_COST + 2, [3, 4]),
        (4, 10_000, [4, 5]),
        (5, 0, [5]),
        (6, 10_000, []),
    ],
)
def test_reading_a_piece(offset: int, size: int, read: list[int]) -> None:
    log = Log(Limits(history_events=3))
    extend(log, 1, 1, 1, 1, 1)
    assert offsets(log.read(offset, size)) == read


def test_what_was_read_is_not_changed_by_what_comes() -> None:
    log = Log(Limits(history_events=2))
    extend(log, 1, 1)
    read = log.since(0)
    extend(log, 1, 1)
    assert offsets(read) == [1, 2]


@pytest.mark.parametrize("size, left", [(10_000, [1, 2]), (2 * EVENT_COST + 1, [2]), (EVENT_COST, []), (0, [])])
def test_shrinking(size: int, left: list[int]) -> None:
    log = Log(Limits())
    extend(log, 1, 1)
    log.shrink(size)
    assert whole(log) == left


@given(
    count=st.integers(0, 6),
    room=st.integers(0, 3 * EVENT_COST),
    steps=st.lists(st.tuples(st.lists(st.integers(0, 100), max_size=4), st.integers(0, 30)), max_size=12),
)
def test_whatever_is_written_the_bounds_hold_and_nothing_else_is_lost(
    count: int, room: int, steps: list[tuple[list[int], int]]
) -> None:
    age = 64.0
    log = Log(Limits(history_events=count, history_bytes=room, history_age=age))
    written: list[tuple[Event, float]] = []
    now = 0.0
    for sizes, pause in steps:
        now += pause
        if sizes:
            added = events(log.end, *sizes)
            log.extend(added, sum(map(cost, added)), now)
            written += [(event, now) for event in added]
        log.expire(now)
        kept = log.since(0)
        assert [event for event, _ in written][len(written) - len(kept) :] == kept
        assert log.first == log.end - len(kept) and log.end == len(written) + 1
        assert log.size == sum(map(cost, kept)) <= room and len(kept) <= count
        assert all(now - at < age * (1 + 1 / AGE_STEPS) for event, at in written if event in kept)
        # What has gone had to: the next older one would break a bound, now or when it went.
        young = [(event, at) for event, at in written if now - at < age]
        tail = young[-count:] if count else []
        while sum(cost(event) for event, _ in tail) > room:
            del tail[0]
        assert [event for event, _ in tail if event not in kept] == []
