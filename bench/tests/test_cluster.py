"""The servers of bench/cluster.py run as two processes that share their channels. No test here measures speed."""

import pytest

from bench.cluster import Shape, failures, measure, row, table
from bench.clusters import Kind, kinds

pytestmark = pytest.mark.end_to_end

INSTALLED = [kind for kind in kinds() if not kind.missing()]


@pytest.mark.parametrize("kind", INSTALLED, ids=lambda kind: kind.name)
def test_events_reach_readers_on_another_process(kind: Kind) -> None:
    shape = Shape("pairs", channels=2, readers=3)
    with kind.running(2) as cluster:
        found = measure(cluster, shape, 0.05)
    assert found.rate > 0 and found.nodes > 0
    assert f"| {kind.name} | 2 |" in table(shape, [row(kind.name, 2, shape, found)])


def test_failures_are_noticed() -> None:
    [text] = failures()
    assert text.count(" is killed, until ") == 3
