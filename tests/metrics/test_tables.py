"""Sorting, and the snapshots of channels and connections."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.metrics import pages, tables
from twistedsock.metrics.pages import (
    Topic,
)
from twistedsock.metrics.tables import ChannelTable, ConnectionTable, Steps, T, max_name_bytes, sorted_in_slices
from twistedsock.pubsub.values import ChannelState, Position
from twistedsock.session.session import Session
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def run(steps: Steps[T]) -> tuple[T, int]:
    """The result, and the number of steps."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, count
        count += 1


def page_of(steps: Steps[bytes]) -> Any:
    return json.loads(run(steps)[0])


# Topics.


@pytest.mark.parametrize("step", [1, 3, 10, 1000])
@given(keys=st.lists(st.integers(0, 9)) | st.lists(st.binary(max_size=2)))
def test_sort_in_slices_is_stable_and_complete(step: int, keys: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SORTED_PER_STEP", step)
        order, _ = run(sorted_in_slices(keys))
    assert order == sorted(range(len(keys)), key=keys.__getitem__)


def test_long_sort_is_divided_into_steps() -> None:
    keys = [number * 7919 % 10_007 for number in range(10_000)]
    order, steps = run(sorted_in_slices(keys))
    assert order == sorted(range(10_000), key=keys.__getitem__)
    assert 15 < steps < 40


# Channels.


def channel_table(server: FakeServer, previous: ChannelTable | None = None) -> ChannelTable:
    table = ChannelTable(server.now)
    run(table.fill(server.broker.channels.values(), previous))
    return table


def channel_names(table: ChannelTable, topic: Topic) -> list[str]:
    return [row["channel"] for row in page_of(table.page(topic))["channels"]]


@pytest.fixture
def server() -> FakeServer:
    """A server with the channels a to e, created in no order. b has two subscribers, c one."""
    server = FakeServer()
    client, other = server.line_client(), server.line_client()
    client.send(*[f"PUB {name} x" for name in "dbeac"], "SUB b", "SUB c", "SUB $sys/figures")
    other.send("SUB b")
    server.turn()
    return server


def test_orders_channels_by_name_subscribers_and_rate(server: FakeServer) -> None:
    previous = channel_table(server)
    server.line_client().send("PUB e x", "PUB e x", "PUB a x")
    server.turn()
    server.now += 2
    table = channel_table(server, previous)
    assert channel_names(table, Topic("channels", "name")) == ["a", "b", "c", "d", "e"]
    assert channel_names(table, Topic("channels", "readers")) == ["b", "c", "a", "d", "e"]
    for _ in range(2):  # computed, then known
        assert channel_names(table, Topic("channels", "rate")) == ["e", "a", "b", "c", "d"]
    rows = page_of(table.page(Topic("channels", "rate")))["channels"]
    assert rows[0] == {
        "channel": "e", "readers": 0, "offset": 3, "epoch": "e3", "events": 3, "bytes": rows[0]["bytes"], "rate": 1.0,
    }  # fmt: skip


def test_rate_of_a_channel_is_zero_in_its_first_snapshot(server: FakeServer) -> None:
    previous = channel_table(server)
    assert set(previous.rates) == {0.0}
    server.line_client().send("PUB new x")
    server.turn()
    assert set(channel_table(server, previous).rates) == {0.0}


def test_rate_of_a_channel_whose_offsets_begin_again_is_zero(server: FakeServer) -> None:
    previous = channel_table(server)
    server.broker.reset(b"a", ChannelState(Position(b"another", 0)))
    server.turn()
    assert set(channel_table(server, previous).rates) == {0.0}


def test_divides_channels_into_pages(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_ROWS_PER_PAGE", 2)
    table = channel_table(server)
    found = [page_of(table.page(Topic("channels", "name", page))) for page in range(4)]
    assert [[row["channel"] for row in page["channels"]] for page in found] == [["a", "b"], ["c", "d"], ["e"], []]
    assert {(page["pages"], page["total"]) for page in found} == {(3, 5)}
    assert [page["page"] for page in found] == [0, 1, 2, 3]


def test_long_channel_names_make_short_pages() -> None:
    server = FakeServer()
    server.line_client().send(*[f"PUB {'x' * 197}{number:03d} x" for number in range(200)])
    server.turn()
    page = page_of(channel_table(server).page(Topic("channels", "name")))
    assert (page["pages"], page["total"], len(page["channels"])) == (3, 200, 76)


def test_finds_channels_regardless_of_case(server: FakeServer) -> None:
    server.line_client().send("PUB Kitchen/1 x", "PUB kitchen/2 x")
    server.turn()
    table = channel_table(server)
    assert sorted(channel_names(table, Topic("channels", text=b"kitchen"))) == ["Kitchen/1", "kitchen/2"]
    assert channel_names(table, Topic("channels", text=b"nothing")) == []


def test_search_returns_one_page_of_many_channels(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHANNELS_PER_STEP", 2)
    monkeypatch.setattr(pages, "MAX_ROWS_PER_PAGE", 3)
    server.line_client().send(*[f"PUB f{number} x" for number in range(9)])
    server.turn()
    page = page_of(channel_table(server).page(Topic("channels", text=b"f")))
    assert (page["pages"], page["total"], len(page["channels"])) == (1, 9, 3)


def test_server_without_channels_has_one_empty_page() -> None:
    page = page_of(channel_table(FakeServer()).page(Topic("channels", "rate")))
    assert page == {"page": 0, "pages": 1, "total": 0, "channels": []}


# Connections.


def connection_table(server: FakeServer, previous: ConnectionTable | None = None) -> ConnectionTable:
    sessions = [session for session in server.context.sessions if isinstance(session, Session)]
    table = ConnectionTable(server.now, max(map(max_name_bytes, sessions)))
    table.fill(sessions, previous)
    return table


def ids(table: ConnectionTable, topic: Topic) -> list[str]:
    return [row["id"] for row in page_of(table.page(topic, 1000.0))["peers"]]


def connect(server: FakeServer, *sent_bytes: int) -> list[LineClient]:
    """Clients, each with so many bytes sent to it."""
    clients = [server.line_client() for _ in sent_bytes]
    for client, sent in zip(clients, sent_bytes, strict=True):
        client.outlet.stats = TcpStats(sent, 0, 0, 0.001)
    return clients


def test_orders_connections_by_age_id_lag_and_sent_bytes() -> None:
    server = FakeServer()
    slow = connect(server, 10, 30, 20)[0]
    server.line_client()
    slow.send("SUB k")
    slow.outlet.room = 0
    publisher = server.line_client()
    for _ in range(3):
        publisher.send("PUB k x")
        server.turn()
    table = connection_table(server)
    assert ids(table, Topic("peers", "newest")) == ["p5", "p4", "p3", "p2", "p1"]
    assert ids(table, Topic("peers", "id")) == ["p1", "p2", "p3", "p4", "p5"]
    assert ids(table, Topic("peers", "lag")) == ["p1", "p5", "p4", "p3", "p2"]
    for _ in range(2):  # computed, then known
        assert ids(table, Topic("peers", "sent")) == ["p2", "p3", "p1", "p5", "p4"]


def test_reads_a_limited_number_of_sockets_per_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SOCKETS_READ", 2)
    monkeypatch.setattr(tables, "CONNECTIONS_PER_STEP", 2)
    server = FakeServer()
    connect(server, 10, 20, 30, 40, 50)
    first = connection_table(server)
    assert ids(first, Topic("peers", "sent"))[:2] == ["p2", "p1"]
    second = connection_table(server, first)
    assert ids(second, Topic("peers", "sent"))[:4] == ["p4", "p3", "p2", "p1"]
    third = connection_table(server, second)
    assert ids(third, Topic("peers", "sent")) == ["p5", "p4", "p3", "p2", "p1"]
    assert third.next_socket == 1


def test_forgets_closed_connections() -> None:
    server = FakeServer()
    closed, _ = connect(server, 10, 20)
    first = connection_table(server)
    ids(first, Topic("peers", "sent"))
    closed.disconnect()
    second = connection_table(server, first)
    assert ids(second, Topic("peers", "sent")) == ["p2"]
    assert [session.client.id for session in second.sent] == [b"p2"]


def test_divides_connections_into_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_ROWS_PER_PAGE", 2)
    server = FakeServer()
    connect(server, 1, 2, 3)
    table = connection_table(server)
    found = [page_of(table.page(Topic("peers", "id", page), 1000.0)) for page in range(3)]
    assert [[row["id"] for row in page["peers"]] for page in found] == [["p1", "p2"], ["p3"], []]
    assert {(page["pages"], page["total"]) for page in found} == {(2, 3)}


def test_finds_connections_by_id_nick_subject_and_address() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"t": ("Factory/7", {}, None)}))
    first, second = server.line_client(), server.line_client()
    first.send("NICK Ann")
    second.send("AUTH t")
    table = connection_table(server)
    assert ids(table, Topic("peers", text=b"ann")) == ["p1"]
    assert ids(table, Topic("peers", text=b"p2")) == ["p2"]
    assert ids(table, Topic("peers", text=b"factory/7")) == ["p2"]
    assert ids(table, Topic("peers", text=b"127.0.0.1:50000")) == ["p2", "p1"]
    assert ids(table, Topic("peers", text=b"unknown")) == []
