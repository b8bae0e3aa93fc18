"""The log of a channel, held against a plain list."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.properties import holds
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.history import AGE_STEPS, FRAME_COST, History
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Payloads, cost

AGE = 64.0
"""So that one of the steps in which ages are kept is a second."""

SIZES = st.lists(st.sampled_from([0, 1, 10, 200, 5_000]), min_size=1, max_size=6)
STEP = st.one_of(
    st.tuples(st.just("extend"), st.lists(SIZES, min_size=1, max_size=3)),
    st.tuples(st.just("extend"), st.lists(SIZES, min_size=1, max_size=3)),
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
def test_any_history(steps: list[Any], events: int, size: int, start: int) -> None:
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
            offset, most = what
            read = [event for batch in log.read(offset, most) for event in batch.events()]
            begin = max(offset, log.first)
            assert [event.offset for event in read] == list(range(begin, begin + len(read)))
            assert bool(read) is (begin < log.end)
            sent = [len(event.payload) + FRAME_COST for event in read]
            assert sum(sent) <= most + max(sent, default=0) + max(sent, default=0)
        check(log, limits, published, start, now, gone_by_shrinking)


def size_from(log: History, offset: int) -> int:
    """What the log costs once all before ``offset`` is gone."""
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
