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


def take(hall: FakeServer, before: ConnectionTable | None = None) -> ConnectionTable:
    sessions = [guest for guest in hall.context.roster if isinstance(guest, Session)]
    census = ConnectionTable(hall.now, max(map(longest_names, sessions)))
    census.take(sessions, before)
    return census


def ids(census: ConnectionTable, topic: Topic) -> list[str]:
    return [row["id"] for row in json.loads(run(census.answer(topic, 1000.0)))["peers"]]


def crowd(hall: FakeServer, *sent: int) -> list[LineClient]:
    """Peers, each with so many bytes sent."""
    crowd = [hall.line_peer() for _ in sent]
    for peer, bytes_sent in zip(crowd, sent, strict=True):
        peer.outlet.told = TcpStats(bytes_sent, 0, 0, 0.001)
    return crowd


def test_orders() -> None:
    hall = FakeServer()
    slow = crowd(hall, 10, 30, 20)[0]
    hall.line_peer()
    slow.says("SUB k")
    slow.outlet.room = 0
    publisher = hall.line_peer()
    for _ in range(3):
        publisher.says("PUB k x")
        hall.turn()
    census = take(hall)
    assert ids(census, Topic("peers", "newest")) == ["p5", "p4", "p3", "p2", "p1"]
    assert ids(census, Topic("peers", "id")) == ["p1", "p2", "p3", "p4", "p5"]
    assert ids(census, Topic("peers", "lag")) == ["p1", "p5", "p4", "p3", "p2"]
    assert ids(census, Topic("peers", "sent")) == ["p2", "p3", "p1", "p5", "p4"]
    assert ids(census, Topic("peers", "sent")) == ["p2", "p3", "p1", "p5", "p4"]


def test_of_very_many_some_sockets_are_asked_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SOCKETS", 2)
    monkeypatch.setattr(tables, "CONNECTIONS_PER_STEP", 2)
    hall = FakeServer()
    crowd(hall, 10, 20, 30, 40, 50)
    first = take(hall)
    assert ids(first, Topic("peers", "sent"))[:2] == ["p2", "p1"]
    second = take(hall, first)
    assert ids(second, Topic("peers", "sent"))[:4] == ["p4", "p3", "p2", "p1"]
    third = take(hall, second)
    assert ids(third, Topic("peers", "sent")) == ["p5", "p4", "p3", "p2", "p1"]
    hall.line_peer()
    assert third.asked_to == 1


def test_who_has_gone_is_remembered_no_longer() -> None:
    hall = FakeServer()
    gone, _ = crowd(hall, 10, 20)
    first = take(hall)
    ids(first, Topic("peers", "sent"))
    gone.leaves()
    second = take(hall, first)
    assert ids(second, Topic("peers", "sent")) == ["p2"] and [session.peer.id for session in second.sent] == [b"p2"]


def test_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 2)
    hall = FakeServer()
    crowd(hall, 1, 2, 3)
    census = take(hall)
    told = [json.loads(run(census.answer(Topic("peers", "id", page), 1000.0))) for page in range(3)]
    assert [[row["id"] for row in page["peers"]] for page in told] == [["p1", "p2"], ["p3"], []]
    assert {(page["pages"], page["total"]) for page in told} == {(2, 3)}


def test_who_is_looked_for_is_found_by_id_nick_subject_and_address() -> None:
    hall = FakeServer(policy=FakePolicy(tokens={"t": ("Factory/7", {}, None)}))
    first, second = hall.line_peer(), hall.line_peer()
    first.says("NICK Ann")
    second.says("AUTH t")
    census = take(hall)
    assert ids(census, Topic("peers", text=b"ann")) == ["p1"]
    assert ids(census, Topic("peers", text=b"p2")) == ["p2"]
    assert ids(census, Topic("peers", text=b"factory/7")) == ["p2"]
    assert ids(census, Topic("peers", text=b"127.0.0.1:50000")) == ["p2", "p1"]
    assert ids(census, Topic("peers", text=b"nobody")) == []
