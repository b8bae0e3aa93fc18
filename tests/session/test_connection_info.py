"""Tests of the information about a connection for administrators."""

import json
from unittest.mock import Mock

import msgspec
import pytest

from tests.session.clients import ask
from twistedsock.errors import CloseReason
from twistedsock.session.connection_info import closed_connection_info, connection_info
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def test_record_describes_client_and_progress() -> None:
    server = FakeServer(policy=FakePolicy({">": "rw"}, {"t": ("ann", {">": "rw"}, None)}))
    peer = server.line_client()
    peer.send("AUTH t", "SUB k", "SUB m")
    peer.outlet.stats = TcpStats(1234, 56, 7, 0.00123)
    fall_behind(server, peer)
    record = connection_info(peer.session, server.now + 12.34)
    assert json.loads(msgspec.json.encode(record)) == {
        "id": "p1",
        "nick": "ann",
        "subject": "ann",
        "dialect": "line",
        "from": "127.0.0.1:50000",
        "to": "127.0.0.1:8081",
        "age": 12.3,
        "state": "open",
        "channels": 2,
        "behind": 1,
        "lag": 3,
        "unsent": 7,
        "sent": 1234,
        "received": 56,
        "rtt_ms": 1.23,
    }
    assert peer.session.lag == 3


def test_unknown_values_are_null() -> None:
    record = connection_info(FakeServer().json_client().session, 1000.0)
    assert (record.subject, record.dialect, record.lag) == ("", "json", 0)
    assert record.unsent is record.sent is record.received is record.rtt_ms is None


def fall_behind(server: FakeServer, peer: LineClient) -> None:
    """The client has received one of four events on channel k, and does not read the others."""
    peer.outlet.room = 0
    for _ in range(4):
        ask(server.line_client(), "PUB k x")


def test_closing_session_reports_its_last_progress(server: FakeServer, peer: LineClient) -> None:
    """Its subscriptions have ended, and an administrator wants to know what they were."""
    peer.send("SUB k", "SUB m")
    fall_behind(server, peer)
    before = connection_info(peer.session, server.now)
    assert (before.channels, before.behind, before.lag) == (2, 1, 3)
    peer.session.close(CloseReason.POLICY, b"away with it")
    assert connection_info(peer.session, server.now) == msgspec.structs.replace(before, state="closing")
    peer.session.connection_lost("cleanly")
    assert connection_info(peer.session, server.now) == msgspec.structs.replace(before, state="closed")


def test_record_of_a_close_has_client_duration_traffic_and_reason() -> None:
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {}, None)}))
    records = []
    listener = Mock(closed=lambda session: records.append(closed_connection_info(session, server.now, 100.0)))
    server.context.connection_events.listeners.append(listener)
    peer = server.json_client()
    peer.send({"type": "auth", "token": "t"})
    peer.outlet.stats = TcpStats(10, 20, 0, 0.1)
    server.now += 2.5
    peer.pipeline.end_of_input()
    peer.pipeline.connection_lost("cleanly")
    (record,) = records
    assert json.loads(msgspec.json.encode(record)) == {
        "at": 1102.5,
        "id": "p1",
        "nick": "ann",
        "subject": "ann",
        "dialect": "json",
        "from": "127.0.0.1:50000",
        "to": "127.0.0.1:8081",
        "seconds": 2.5,
        "sent": 10,
        "received": 20,
        "by": "peer",
        "why": "it has ended its stream, with a FIN",
        "how": "cleanly",
    }


@pytest.mark.parametrize(("how", "by"), [("", "peer"), ("cleanly", "peer"), ("broken", "peer"), ("aborted", "server")])
def test_close_without_a_reason_reports_how_the_connection_ended(
    server: FakeServer, peer: LineClient, how: str, by: str
) -> None:
    peer.pipeline.connection_lost(how)
    end = closed_connection_info(peer.session, server.now, 0.0)
    assert (end.by, end.why, end.how, end.subject, end.sent) == (by, how, how, "", None)


def test_close_by_the_server_reports_its_reason(server: FakeServer, peer: LineClient) -> None:
    peer.session.close(CloseReason.GOING_AWAY, b"the server is going away")
    peer.pipeline.connection_lost("broken")
    end = closed_connection_info(peer.session, server.now, 0.0)
    assert (end.by, end.why, end.how) == ("server", "the server is going away", "broken")
