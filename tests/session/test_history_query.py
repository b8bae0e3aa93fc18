"""Tests of queries for a part of a history: the events they mean, and what is reported as lost."""

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.properties import holds
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.history import History
from twistedsock.pubsub.values import Batch, Lost, Payloads
from twistedsock.session.history_query import ALL_EVENTS, HistoryQuery, HistoryRange, Moment, find_range

NOW = 1_000.0
"""Seconds since 1970."""


def history(*times: int, held: int = 1_000, unknown: int = 0) -> History:
    """A history of events with these times, of which it holds the newest ``held``. It has never had the first
    ``unknown`` of them."""
    log = History(Limits(history_events=held), unknown + 1)
    for offset, time in enumerate(times[unknown:], unknown + 1):
        log.extend([Batch(offset, offset + 1, b"p", b"p", b"message", Payloads((b"",), 0), time)], 0.0)
    return log


def ago(seconds: int) -> Moment:
    return Moment(-seconds * 1_000, is_relative=True)


EIGHT = tuple(range(993_000, 1_001_000, 1_000))
"""Event 8 is published now, event 7 a second ago, and so on to event 1, seven seconds ago."""


@pytest.mark.parametrize(
    ("query", "start", "stop", "lost"),
    [
        (ALL_EVENTS, 5, 9, None),
        (HistoryQuery(last=2), 7, 9, None),
        (HistoryQuery(last=6), 5, 9, None),
        (HistoryQuery(since=6), 7, 9, None),
        (HistoryQuery(since=2), 5, 9, Lost(3, 4)),
        (HistoryQuery(since=2, last=5), 5, 9, Lost(4, 4)),
        (HistoryQuery(since=99), 100, 9, None),
        (HistoryQuery(after=2), 5, 9, Lost(3, 4)),
        (HistoryQuery(after=2, since=6), 7, 9, None),
        (HistoryQuery(after=6, since=2), 7, 9, None),
        (HistoryQuery(before=8), 5, 8, None),
        (HistoryQuery(before=99), 5, 9, None),
        (HistoryQuery(before=8, last=2), 6, 8, None),
        (HistoryQuery(before=0), 5, 1, None),
        (HistoryQuery(after=0, before=3), 5, 3, Lost(1, 2)),
        (HistoryQuery(after=0, before=3, last=1), 5, 3, Lost(2, 2)),
        (HistoryQuery(after=ago(2)), 7, 9, None),
        (HistoryQuery(after=ago(4)), 5, 9, None),
        (HistoryQuery(after=ago(5)), 5, 9, Lost(1, 4)),
        (HistoryQuery(after=ago(5), since=2), 5, 9, Lost(3, 4)),
        (HistoryQuery(after=ago(5), since=5), 6, 9, None),
        (HistoryQuery(after=ago(5), last=3), 6, 9, None),
        (HistoryQuery(after=ago(5), last=6), 5, 9, Lost(3, 4)),
        (HistoryQuery(after=ago(0)), 9, 9, None),
        (HistoryQuery(after=ago(-60)), 9, 9, None),
        (HistoryQuery(before=ago(1)), 5, 7, None),
        (HistoryQuery(before=ago(-60)), 5, 9, None),
        (HistoryQuery(after=ago(9), before=ago(1)), 5, 7, Lost(1, 4)),
        (HistoryQuery(after=ago(9), before=ago(3)), 5, 5, Lost(1, 4)),
        (HistoryQuery(after=ago(9), before=ago(4)), 5, 4, Lost(1, 3)),
        (HistoryQuery(after=ago(9), before=ago(6)), 5, 4, Lost(1, 3)),
        (HistoryQuery(after=ago(9), before=ago(6), last=1), 5, 4, Lost(1, 3)),
        (HistoryQuery(after=ago(9), before=ago(6), last=0), 5, 4, None),
        (HistoryQuery(after=ago(6), before=ago(6)), 5, 4, None),
        (HistoryQuery(after=Moment(998_000), before=Moment(1_000_000)), 7, 8, None),
        (HistoryQuery(after=Moment(998_000), before=Moment(998_001)), 7, 7, None),
        (HistoryQuery(after=Moment(990_000), before=Moment(990_001)), 5, 4, None),
    ],
    ids=str,
)
def test_range_of_a_history_without_its_first_four_events(
    query: HistoryQuery, start: int, stop: int, lost: Lost | None
) -> None:
    assert find_range(history(*EIGHT, held=4), query, NOW) == HistoryRange(start, stop, lost)


def test_reports_all_events_of_unknown_time_as_lost() -> None:
    unknown = History(Limits(), 5)
    assert find_range(unknown, HistoryQuery(after=ago(1)), NOW) == HistoryRange(5, 5, Lost(1, 4))
    assert find_range(History(Limits()), HistoryQuery(after=ago(1)), NOW) == HistoryRange(1, 1, None)


def matches(query: HistoryQuery, offset: int, time: int) -> bool:
    def is_after(bound: Any) -> bool:
        return bound is None or (time > bound.at(NOW) if isinstance(bound, Moment) else offset > bound)

    def is_before(bound: Any) -> bool:
        return bound is None or (time < bound.at(NOW) if isinstance(bound, Moment) else offset < bound)

    return is_after(query.since) and is_after(query.after) and is_before(query.before)


BOUNDS = st.none() | st.integers(0, 14) | st.integers(-3, 14).map(lambda second: Moment(second * 1_000))


@holds(
    examples=400,
    steps=st.lists(st.sampled_from([0, 0, 1, 1, 3]), max_size=12),
    held=st.integers(1, 8),
    unknown=st.sampled_from([0, 0, 2]),
    skipped=st.sampled_from([0, 0, 0, 3]),
    last=st.none() | st.integers(0, 9),
    since=st.none() | st.integers(0, 14),
    after=BOUNDS,
    before=BOUNDS,
)
def test_each_requested_event_is_in_the_range_or_lost(
    steps: list[int],
    held: int,
    unknown: int,
    skipped: int,
    last: int | None,
    since: int | None,
    after: Any,
    before: Any,
) -> None:
    """Each event that matches the query is in the range, or in ``lost`` if the query has a lower bound. The range has
    no other events, and ``lost`` none that are known not to match."""
    times = [sum(steps[: index + 1]) * 1_000 for index in range(len(steps))]
    log = history(*times, held=held, unknown=min(unknown, len(times)))
    if skipped:
        # The backplane has left out events, whose times are between that of the newest one and the next one.
        newest = times[-1] if times else 0
        times += [newest + 2_000] * skipped
        log.skip_to(len(times) + 1, newest + 3_000)
    query = HistoryQuery(last, since, after, before)
    found = find_range(log, query, NOW)
    requested = [offset for offset, time in enumerate(times, 1) if matches(query, offset, time)]
    requested = requested[-last:] if last else [] if last == 0 else requested
    assert [*range(found.start, found.stop)] == [offset for offset in requested if offset >= log.first]
    lost = [] if found.lost is None else [*range(found.lost.first, found.lost.last + 1)]
    assert all(offset < log.first for offset in lost)
    if since is None and after is None:
        assert not lost
    else:
        assert {offset for offset in requested if offset < log.first} <= {*lost}
    if lost:
        # An older dropped event may have any time up to that of the newest one.
        assert all(offset > (since or 0) for offset in lost)
        assert not isinstance(after, int) or lost[0] > after
        assert not isinstance(before, int) or lost[-1] < before
        assert not isinstance(after, Moment) or log.dropped_time > after.at(NOW) or not log.dropped_time
        if isinstance(before, Moment) and lost[-1] == log.first - 1 and not skipped and log.dropped_time:
            assert times[lost[-1] - 1] < before.at(NOW)
