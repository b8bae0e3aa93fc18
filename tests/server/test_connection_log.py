"""Each peer that has gone is one line, and a flood of them is not."""

import json

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from twistedsock.errors import CloseReason
from twistedsock.server.logging import MAX_LINES_PER_SECOND, ConnectionLog, format_json
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy


@pytest.fixture
def time():
    return Clock()


@pytest.fixture
def watched(server, time):
    server.context.connection_events.watchers.append(ConnectionLog(server.broker.clock, time.callLater))
    return server


def lines(logged):
    return [json.loads(format_json(event)) for event in logged]


def test_line_has_client_traffic_and_reason(watched, logged):
    peer = watched.line_client()
    peer.outlet.stats = TcpStats(sent=200, received=100, unsent=0, rtt=0.001)
    peer.send("NICK ann", "SUB kitchen", "PUB kitchen secret")
    watched.now += 2.5
    peer.session.connection_lost("cleanly")
    (told,) = lines(logged)
    assert {name: told[name] for name in ("level", "namespace", "message")} == {
        "level": "info",
        "namespace": "twistedsock.server.logging.ConnectionLog",
        "message": f"line client {told['id']} 'ann' of 127.0.0.1:50000 disconnected after 2.5 s, "
        "200 bytes sent, 100 received, by the client: 'it closed the connection'",
    }
    assert {name: value for name, value in told.items() if name not in ("time", "level", "namespace", "message")} == {
        "id": peer.session.client.id.decode(),
        "nick": "ann",
        "subject": None,
        "dialect": "line",
        "client": "127.0.0.1:50000",
        "server": "127.0.0.1:8081",
        "seconds": 2.5,
        "received": 100,
        "sent": 200,
        "by": "peer",
        "why": "it closed the connection",
        "how": "cleanly",
    }


@pytest.mark.parametrize(
    ("how", "by", "why"),
    [
        ("broken", "peer", "its connection broke"),
        ("aborted", "server", "it was reset"),
        ("", "peer", "it closed the connection"),
    ],
)
def test_line_has_a_default_reason(watched, logged, how, by, why):
    watched.line_client().session.connection_lost(how)
    (told,) = lines(logged)
    assert (told["by"], told["why"], told["how"]) == (by, why, how)


def test_line_names_the_subject(watched, logged):
    watched.context.policy = FakePolicy({}, {"t": ("ann", {}, None)})
    anonymous, known, renamed = (watched.line_client() for _ in range(3))
    known.send("AUTH t")
    renamed.send("AUTH t")
    renamed.session.client.nick = b"balcony"
    for peer in (anonymous, known, renamed):
        peer.session.connection_lost("broken")
    end = "of 127.0.0.1:50000 disconnected after 0.0 s, by the client: 'its connection broke'"
    assert [formatEvent(event) for event in logged] == [
        f"line client p1 {end}",
        f"line client p2 'ann' {end}",
        f"line client p3 'balcony' with a token of 'ann' {end}",
    ]


def test_escapes_reasons_given_by_clients(watched, logged):
    peer = watched.json_client()
    peer.session.mark_closing("code 1000 \x1b[2J\nline client x \u202e", "peer")
    peer.session.connection_lost("cleanly")
    assert formatEvent(logged[0]).endswith(r"by the client: 'code 1000 \x1b[2J\nline client x \u202e'")


def test_line_has_the_reason_of_the_server(watched, logged):
    peer = watched.line_client()
    peer.session.close(CloseReason.GOING_AWAY, b"the server is going away")
    peer.session.connection_lost()
    (told,) = lines(logged)
    assert (told["by"], told["why"]) == ("server", "the server is going away")
    assert told["sent"] is told["received"] is None, "of a Unix socket nothing is known"


def test_line_has_no_credentials(watched, logged):
    watched.context.policy = FakePolicy({}, {"t0ken": ("ann", {}, None)})
    peer = watched.line_client()
    peer.send("AUTH t0ken", "AUTH wr0ng")
    peer.session.connection_lost()
    assert lines(logged)[0]["subject"] == "ann"
    assert "t0ken" not in format_json(logged[0]) and "wr0ng" not in format_json(logged[0])


def test_omits_lines_over_the_limit_and_counts_them(watched, time, logged):
    def flood(count):
        for _ in range(count):
            watched.line_client().session.connection_lost()

    flood(MAX_LINES_PER_SECOND + 5)
    assert len(logged) == MAX_LINES_PER_SECOND
    time.advance(1)
    assert formatEvent(logged[-1]) == "5 more clients disconnected"
    flood(2)
    time.advance(1)
    assert len(logged) == MAX_LINES_PER_SECOND + 3
    flood(MAX_LINES_PER_SECOND + 1)
    time.advance(1)
    assert formatEvent(logged[-1]) == "1 more clients disconnected"
    assert time.getDelayedCalls() == []
