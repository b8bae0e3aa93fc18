"""One look at all peers."""

import json
from typing import Any

import pytest

from twistedsock.metrics import tables
from twistedsock.metrics.tables import ConnectionTable, Topic, longest_names
from twistedsock.session.session import Session
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def run(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def take(server: FakeServer, before: ConnectionTable | None = None) -> ConnectionTable:
    sessions = [guest for guest in server.context.sessions if isinstance(guest, Session)]
    census = ConnectionTable(server.now, max(map(longest_names, sessions)))
    census.take(sessions, before)
    return census


def ids(census: ConnectionTable, topic: Topic) -> list[str]:
    return [row["id"] for row in json.loads(run(census.answer(topic, 1000.0)))["peers"]]


def crowd(server: FakeServer, *sent: int) -> list[LineClient]:
    """Peers, each with so many bytes sent."""
    crowd = [server.line_client() for _ in sent]
    for peer, bytes_sent in zip(crowd, sent, strict=True):
        peer.outlet.told = TcpStats(bytes_sent, 0, 0, 0.001)
    return crowd


def test_orders() -> None:
    server = FakeServer()
    slow = crowd(server, 10, 30, 20)[0]
    server.line_client()
    slow.send("SUB k")
    slow.outlet.room = 0
    publisher = server.line_client()
    for _ in range(3):
        publisher.send("PUB k x")
        server.turn()
    census = take(server)
    assert ids(census, Topic("peers", "newest")) == ["p5", "p4", "p3", "p2", "p1"]
    assert ids(census, Topic("peers", "id")) == ["p1", "p2", "p3", "p4", "p5"]
    assert ids(census, Topic("peers", "lag")) == ["p1", "p5", "p4", "p3", "p2"]
    assert ids(census, Topic("peers", "sent")) == ["p2", "p3", "p1", "p5", "p4"]
    assert ids(census, Topic("peers", "sent")) == ["p2", "p3", "p1", "p5", "p4"]


def test_of_very_many_some_sockets_are_asked_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SOCKETS", 2)
    monkeypatch.setattr(tables, "CONNECTIONS_PER_STEP", 2)
    server = FakeServer()
    crowd(server, 10, 20, 30, 40, 50)
    first = take(server)
    assert ids(first, Topic("peers", "sent"))[:2] == ["p2", "p1"]
    second = take(server, first)
    assert ids(second, Topic("peers", "sent"))[:4] == ["p4", "p3", "p2", "p1"]
    third = take(server, second)
    assert ids(third, Topic("peers", "sent")) == ["p5", "p4", "p3", "p2", "p1"]
    server.line_client()
    assert third.asked_to == 1


def test_who_has_gone_is_remembered_no_longer() -> None:
    server = FakeServer()
    gone, _ = crowd(server, 10, 20)
    first = take(server)
    ids(first, Topic("peers", "sent"))
    gone.leaves()
    second = take(server, first)
    assert ids(second, Topic("peers", "sent")) == ["p2"] and [session.client.id for session in second.sent] == [b"p2"]


def test_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 2)
    server = FakeServer()
    crowd(server, 1, 2, 3)
    census = take(server)
    told = [json.loads(run(census.answer(Topic("peers", "id", page), 1000.0))) for page in range(3)]
    assert [[row["id"] for row in page["peers"]] for page in told] == [["p1", "p2"], ["p3"], []]
    assert {(page["pages"], page["total"]) for page in told} == {(2, 3)}


def test_who_is_looked_for_is_found_by_id_nick_subject_and_address() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"t": ("Factory/7", {}, None)}))
    first, second = server.line_client(), server.line_client()
    first.send("NICK Ann")
    second.send("AUTH t")
    census = take(server)
    assert ids(census, Topic("peers", text=b"ann")) == ["p1"]
    assert ids(census, Topic("peers", text=b"p2")) == ["p2"]
    assert ids(census, Topic("peers", text=b"factory/7")) == ["p2"]
    assert ids(census, Topic("peers", text=b"127.0.0.1:50000")) == ["p2", "p1"]
    assert ids(census, Topic("peers", text=b"nobody")) == []
