"""Requests for a part of a history, by offsets and times: which events they mean, and which of these are missing.

The history knows the time of each event that it holds, and of the newest one that it has dropped. Times never decrease
within a channel, so the older dropped events are not newer than that one; more is not known about them."""

from typing import TYPE_CHECKING

import msgspec

from twistedsock.pubsub.values import Lost

if TYPE_CHECKING:
    from twistedsock.pubsub.history import History


class Moment(msgspec.Struct, frozen=True, gc=False):
    """A point in time, in milliseconds since 1970, UTC; or since now, if it is relative: then it is negative or 0."""

    milliseconds: int
    is_relative: bool = False

    def at(self, now: float) -> int:
        """The milliseconds since 1970. ``now`` is in seconds since 1970."""
        return self.milliseconds + int(now * 1000) if self.is_relative else self.milliseconds


Bound = int | Moment
"""An offset or a time. Bounds are exclusive."""


class HistoryQuery(msgspec.Struct, frozen=True, gc=False):
    """The events after ``since`` (an offset), after ``after`` and before ``before``; of these, the newest ``last``."""

    last: int | None = None
    since: int | None = None
    after: Bound | None = None
    before: Bound | None = None

    @property
    def is_unlimited(self) -> bool:
        return self.last is self.since is self.after is self.before is None

    @property
    def is_empty(self) -> bool:
        """Whether no event can be between its bounds. Its times must not be relative."""
        after, before = self.after, self.before
        if isinstance(after, Moment) and isinstance(before, Moment) and before.milliseconds - after.milliseconds <= 1:
            return True
        return self.last == 0


ALL_EVENTS = HistoryQuery()


class HistoryRange(msgspec.Struct, frozen=True, gc=False):
    """The requested events that the history holds have the offsets from ``start`` to before ``stop``. Those of
    ``lost`` are not in the history any more, and may have been requested."""

    start: int
    stop: int
    lost: Lost | None


def find_range(history: "History", query: HistoryQuery, now: float) -> HistoryRange:
    """The part of the history that is requested. ``now``, in seconds since 1970, is the base of relative times.

    Events that were dropped are reported as lost only if the query has a lower bound. All of the dropped events are
    reported that may have been published after ``after`` and before ``before``; none is for which this is
    impossible."""
    query = resolve(query, now)
    after, before = query.after, query.before
    stop = history.end
    if isinstance(before, Moment):
        stop = history.stop_before(before.milliseconds)
    elif before is not None:
        stop = max(1, min(stop, before))
    starts = [] if query.since is None else [query.since + 1]
    if isinstance(after, Moment):
        starts.append(stop if query.is_empty else history.start_after(after.milliseconds))
    elif after is not None:
        starts.append(after + 1)
    start = max(starts, default=history.first)
    # If only dropped events can be before the time, it is not known which of them are the newest.
    is_stop_known = stop > history.first or not isinstance(before, Moment) or query.last == 0
    if query.last is not None and is_stop_known:
        start = max(start, stop - query.last)
    end_of_lost = min(history.first, stop)
    lost = Lost(start, end_of_lost - 1) if start < end_of_lost else None
    return HistoryRange(max(start, history.first), stop, lost)


def resolve(query: HistoryQuery, now: float) -> HistoryQuery:
    """The same query without relative times."""
    if not isinstance(query.after, Moment) and not isinstance(query.before, Moment):
        return query
    return HistoryQuery(query.last, query.since, _resolve(query.after, now), _resolve(query.before, now))


def _resolve(bound: Bound | None, now: float) -> Bound | None:
    return Moment(bound.at(now)) if isinstance(bound, Moment) else bound
