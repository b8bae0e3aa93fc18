"""The figures are those of the bridge."""

from twistedsock.metrics.sys_channels import count_peers, take_figures
from twistedsock.testing import FakeServer


def test_peers_are_counted_by_dialect() -> None:
    server = FakeServer()
    assert count_peers(server.context) == {"total": 0, "line": 0, "json": 0, "events": 0}
    line, _ = server.line_client(), server.json_client()
    server.json_client()
    assert count_peers(server.context) == {"total": 3, "line": 1, "json": 2, "events": 0}
    line.leaves()
    assert count_peers(server.context) == {"total": 2, "line": 0, "json": 2, "events": 0}


def test_totals_and_states() -> None:
    server = FakeServer()
    publisher, reader = server.line_client(), server.line_client()
    reader.send("SUB k", "SUB $sys/closed", "NONSENSE")
    reader.outlet.room = 0
    for _ in range(3):
        publisher.send("PUB k x")
        server.turn()
    server.context.stats.count_turn(0.25)
    server.now += 60.123
    figures = take_figures(server.context, 5_000, 1.23456)
    assert (figures.time, figures.uptime, figures.version) == (server.wall, 60.1, "0.0")
    assert (figures.channels, figures.subscriptions, figures.behind) == (1, 2, 1)
    assert (figures.published, figures.lost, figures.refused) == (3, 0, {"unknown-command": 1})
    assert (figures.memory_bytes, figures.cpu_seconds) == (5_000, 1.235)
    assert figures.log_bytes == server.broker.history_bytes > 0
    assert figures.turns == sum(server.context.stats.turns.counts) > 0
    assert figures.turn_longest == figures.turn_seconds == 0.25
