"""The servers of bench/durable.py acknowledge each publication. No test here measures speed."""

import pytest

from bench.durable import Contest, contests, measure, report

pytestmark = pytest.mark.end_to_end

INSTALLED = [contest for contest in contests() if not contest.server.missing()]


@pytest.mark.parametrize("contest", INSTALLED, ids=lambda contest: contest.server.name)
def test_each_publication_is_acknowledged(contest: Contest) -> None:
    found = measure(contest, 10, 0.1)
    assert found.rate > 0 and found.cpu > 0 and 0 < found.median <= found.worst
    names = {contest.server.name: contest.promise}
    text = report(
        {(contest.server.name, turn): [found] for turn in (1, 10, 100, 1_000)}, {}, names, {"nats-server": "2.15.1"}, 1
    )
    assert f"| {contest.server.name} |" in text and "- nats-server: 2.15.1" in text
