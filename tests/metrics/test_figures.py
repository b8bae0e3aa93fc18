"""The figures are those of the bridge."""

from twistedsock.metrics.sys_channels import count_peers, take_figures
from twistedsock.testing import FakeServer


def test_peers_are_counted_by_dialect() -> None:
    hall = FakeServer()
    assert count_peers(hall.context) == {"total": 0, "line": 0, "json": 0, "events": 0}
    line, _ = hall.line_peer(), hall.json_peer()
    hall.json_peer()
    assert count_peers(hall.context) == {"total": 3, "line": 1, "json": 2, "events": 0}
    line.leaves()
    assert count_peers(hall.context) == {"total": 2, "line": 0, "json": 2, "events": 0}


def test_totals_and_states() -> None:
    hall = FakeServer()
    publisher, reader = hall.line_peer(), hall.line_peer()
    reader.says("SUB k", "SUB $sys/closed", "NONSENSE")
    reader.outlet.room = 0
    for _ in range(3):
        publisher.says("PUB k x")
        hall.turn()
    hall.context.stats.turned(0.25)
    hall.now += 60.123
    figures = take_figures(hall.context, 5_000, 1.23456)
    assert (figures.time, figures.uptime, figures.version) == (hall.wall, 60.1, "0.0")
    assert (figures.channels, figures.subscriptions, figures.behind) == (1, 2, 1)
    assert (figures.published, figures.lost, figures.refused) == (3, 0, {"unknown-command": 1})
    assert (figures.memory_bytes, figures.cpu_seconds) == (5_000, 1.235)
    assert figures.log_bytes == hall.broker.log_bytes > 0
    assert figures.turns == sum(hall.context.stats.turns.counts) > 0
    assert figures.turn_longest == figures.turn_seconds == 0.25
