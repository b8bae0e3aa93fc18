"""Percentiles, measurements and the duration of loads."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.bench.generator import LoadResult
from twistedsock.bench.measurement import Measurement, enough, measure, percentile


@pytest.mark.parametrize(("part", "value"), [(0.5, 50), (0.9, 90), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)])
def test_percentile_is_the_nearest_rank(part: float, value: int) -> None:
    assert percentile(range(1, 101), part) == value


@given(st.lists(st.floats(0, 1), min_size=1).map(sorted), st.floats(0.01, 1))
def test_percentile_is_a_value_of_the_list(ordered: list[float], part: float) -> None:
    value = percentile(ordered, part)
    assert value in ordered
    assert sum(each <= value for each in ordered) >= part * len(ordered) - 1e-9


def test_measurement_has_rate_and_cost() -> None:
    figures = Measurement.of(LoadResult(1_000, 2.0, 0.5, [0.003, 0.001, 0.002]), 0.1)
    assert figures.rate == 500
    assert figures.load == 0.25
    assert figures.cost == pytest.approx(0.0001)
    assert figures.latencies == {"p50": 0.002, "p90": 0.003, "p99": 0.003, "p99.9": 0.003, "max": 0.003}


class ChannelConnections:
    """A load takes ``start`` seconds, and ``each`` seconds per event."""

    def __init__(self, start: float, each: float) -> None:
        self.start = start
        self.each = each
        self.loads: list[int] = []

    def load(self, name: str, events: int, on_progress: Callable[[float], object] = lambda part: None) -> Any:
        self.loads.append(events)
        seconds = self.start + events * self.each
        return type("Load", (), {"run": lambda self, rate=None: LoadResult(events, seconds, 0.0)})()


@given(st.floats(0, 0.1), st.floats(1e-7, 0.1), st.integers(1, 1_000))
def test_load_lasts_about_as_long_as_requested(start: float, each: float, few: int) -> None:
    crowd = ChannelConnections(start, each)
    events = enough(crowd, lambda: "name", 2.0, few, 1_000_000)
    taken = start + events * each
    assert taken <= 2.0 + start or events == 1
    assert taken >= 0.5 or events == 1_000_000
    assert len(crowd.loads) <= 20


def test_load_respects_maximum_of_events() -> None:
    assert enough(ChannelConnections(0, 1e-9), lambda: "name", 2.0, 100, 5_000) == 5_000
    assert enough(ChannelConnections(0, 1e-9), lambda: "name", 2.0, 100, 50) == 50


def test_cpu_time_is_that_of_the_load_only() -> None:
    clock = iter([10.0, 10.5])
    usage: Any = type("Usage", (), {"cpu": lambda self: next(clock)})()
    assert measure(ChannelConnections(1.0, 0).load("name", 10), usage).cpu == 0.5
    assert measure(ChannelConnections(1.0, 0).load("name", 10), None).cpu is None
