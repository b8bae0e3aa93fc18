"""Tests of the information about a connection for administrators."""

import json

import msgspec
import pytest

from twistedsock.errors import CloseReason
from twistedsock.session.connection_info import ClosedConnectionInfo, closed_connection_info, connection_info
from twistedsock.session.session import Session
from twistedsock.session.timeline import Step
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy, FakeServer


def test_record_describes_client_and_progress() -> None:
    server = FakeServer(policy=FakePolicy({">": "rw"}, {"t": ("ann", {">": "rw"}, None)}))
    peer = server.line_client()
    peer.send("AUTH t", "SUB k", "SUB m")
    peer.outlet.stats = TcpStats(1234, 56, 7, 0.00123)
    peer.outlet.room = 0
    publisher = server.line_client()
    for _ in range(4):
        publisher.send("PUB k x")
        server.turn()
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


def test_closing_session_reports_its_last_progress() -> None:
    """Its subscriptions have ended, and an administrator wants to know what they were."""
    server = FakeServer()
    peer, publisher = server.line_client(), server.line_client()
    peer.send("SUB k", "SUB m")
    peer.outlet.room = 0
    for _ in range(4):
        publisher.send("PUB k x")
        server.turn()
    before = connection_info(peer.session, server.now)
    assert (before.channels, before.behind, before.lag) == (2, 1, 3)
    peer.session.close(CloseReason.POLICY, b"away with it")
    assert connection_info(peer.session, server.now) == msgspec.structs.replace(before, state="closing")
    peer.session.connection_lost("cleanly")
    assert connection_info(peer.session, server.now) == msgspec.structs.replace(before, state="closed")


class Ends:
    """A watcher of the journal that makes a record of each end."""

    def __init__(self, server: FakeServer, epoch: float = 0.0) -> None:
        self.records: list[ClosedConnectionInfo] = []
        self._hall, self._epoch = server, epoch
        server.context.connection_events.listeners.append(self)

    def opened(self, session: Session) -> None: ...

    def stepped(self, session: Session, step: Step) -> None: ...

    def closed(self, session: Session) -> None:
        self.records.append(closed_connection_info(session, self._hall.now, self._epoch))


def test_record_of_a_close_has_client_duration_traffic_and_reason() -> None:
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {}, None)}))
    ends = Ends(server, 100.0)
    peer = server.json_client()
    peer.send({"type": "auth", "token": "t"})
    peer.outlet.stats = TcpStats(10, 20, 0, 0.1)
    server.now += 2.5
    peer.pipeline.end_of_input()
    peer.pipeline.connection_lost("cleanly")
    assert json.loads(msgspec.json.encode(ends.records[0])) == {
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
def test_close_without_a_reason_reports_how_the_connection_ended(how: str, by: str) -> None:
    server = FakeServer()
    peer = server.line_client()
    peer.pipeline.connection_lost(how)
    end = closed_connection_info(peer.session, server.now, 0.0)
    assert (end.by, end.why, end.how, end.subject, end.sent) == (by, how, how, "", None)


def test_close_by_the_server_reports_its_reason() -> None:
    server = FakeServer()
    peer = server.line_client()
    peer.session.close(CloseReason.GOING_AWAY, b"the server is going away")
    peer.pipeline.connection_lost("broken")
    end = closed_connection_info(peer.session, server.now, 0.0)
    assert (end.by, end.why, end.how) == ("server", "the server is going away", "broken")
