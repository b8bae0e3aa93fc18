"""One look at all channels."""

import json
from typing import Any

import pytest

from twistedsock.metrics import tables
from twistedsock.metrics.tables import ChannelTable, Topic
from twistedsock.testing import FakeServer


def run(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def take(server: FakeServer, before: ChannelTable | None = None) -> ChannelTable:
    census = ChannelTable(server.now)
    run(census.take(server.broker.channels.values(), before))
    return census


def names(census: ChannelTable, topic: Topic) -> list[str]:
    return [row["channel"] for row in json.loads(run(census.answer(topic)))["channels"]]


@pytest.fixture
def server() -> FakeServer:
    """Channels a to e, in no order; b has two readers, c one."""
    server = FakeServer()
    peer, other = server.line_client(), server.line_client()
    peer.send(*[f"PUB {name} x" for name in "dbeac"], "SUB b", "SUB c", "SUB $sys/figures")
    other.send("SUB b")
    server.turn()
    return server


def test_orders(server: FakeServer) -> None:
    before = take(server)
    server.line_client().send("PUB e x", "PUB e x", "PUB a x")
    server.turn()
    server.now += 2
    census = take(server, before)
    assert names(census, Topic("channels", "name")) == ["a", "b", "c", "d", "e"]
    assert names(census, Topic("channels", "readers")) == ["b", "c", "a", "d", "e"]
    assert names(census, Topic("channels", "rate")) == ["e", "a", "b", "c", "d"]
    assert names(census, Topic("channels", "rate")) == ["e", "a", "b", "c", "d"]
    rows = json.loads(run(census.answer(Topic("channels", "rate"))))["channels"]
    assert rows[0] == {
        "channel": "e", "readers": 0, "offset": 3, "epoch": "e3", "events": 3, "bytes": rows[0]["bytes"], "rate": 1.0,
    }  # fmt: skip


def test_rates_need_two_looks(server: FakeServer) -> None:
    assert set(take(server).rates) == {0.0}
    before = take(server)
    server.line_client().send("PUB new x")
    server.turn()
    assert set(take(server, before).rates) == {0.0}


def test_pages(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 2)
    census = take(server)
    told = [json.loads(run(census.answer(Topic("channels", "name", page)))) for page in range(4)]
    assert [[row["channel"] for row in page["channels"]] for page in told] == [["a", "b"], ["c", "d"], ["e"], []]
    assert {(page["pages"], page["total"]) for page in told} == {(3, 5)}
    assert [page["page"] for page in told] == [0, 1, 2, 3]


def test_long_names_make_short_pages() -> None:
    server = FakeServer()
    server.line_client().send(*[f"PUB {'x' * 197}{number:03d} x" for number in range(200)])
    server.turn()
    page = json.loads(run(take(server).answer(Topic("channels", "name"))))
    assert (page["pages"], page["total"], len(page["channels"])) == (3, 200, 76)


def test_what_is_looked_for_is_found_in_any_letters(server: FakeServer) -> None:
    server.line_client().send("PUB Kitchen/1 x", "PUB kitchen/2 x")
    server.turn()
    assert sorted(names(take(server), Topic("channels", text=b"kitchen"))) == ["Kitchen/1", "kitchen/2"]
    assert names(take(server), Topic("channels", text=b"nothing")) == []


def test_of_many_that_are_found_one_page_is_told(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHANNELS_PER_STEP", 2)
    monkeypatch.setattr(tables, "ROWS", 3)
    server.line_client().send(*[f"PUB f{number} x" for number in range(9)])
    server.turn()
    page = json.loads(run(take(server).answer(Topic("channels", text=b"f"))))
    assert (page["pages"], page["total"], len(page["channels"])) == (1, 9, 3)


def test_where_there_is_nothing_there_is_one_empty_page() -> None:
    page = json.loads(run(take(FakeServer()).answer(Topic("channels", "rate"))))
    assert page == {"page": 0, "pages": 1, "total": 0, "channels": []}
