"""The connection log: what is recorded, in which words, and how much of it is kept."""

import json
from typing import Any

import msgspec
import pytest

from twistedsock.errors import TOO_FAST, TOO_MANY_FROM_ADDRESS, CloseReason, Error, ErrorCode
from twistedsock.metrics.connection_journal import (
    MAX_BYTES_PER_KIND,
    MAX_ENTRIES_PER_KIND,
    MAX_TEXT_LENGTH,
    ConnectionJournal,
    printable,
)
from twistedsock.metrics.pages import LOG_ROWS_PER_PAGE, MAX_PAGE_BYTES, Topic, encode_log_entries, log_entries
from twistedsock.metrics.sys_channels import Monitor
from twistedsock.session.encoder import Endpoints
from twistedsock.testing import FakePolicy, FakeServer, LineClient

FOREIGN_ORIGIN = Error(ErrorCode.FORBIDDEN, "origin not allowed: allow it with --allow-origin")

LONG = Error(ErrorCode.RATE, "😀" * 10_000)


def encode_page(journal: ConnectionJournal, topic: Topic) -> bytes:
    return encode_log_entries(topic, log_entries(journal, topic))


class RecordingServer(FakeServer):
    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.monitor = Monitor(self.context, lambda: 0, lambda: 0.0)
        self.monitor.attach()

    @property
    def journal(self) -> ConnectionJournal:
        return self.monitor.journal

    def refuse(self, client: str, error: Error = TOO_FAST, protocol: str = "line", about: str = "") -> None:
        endpoints = Endpoints(client.encode(), b"10.0.0.1:8081")
        self.context.connection_events.refused(endpoints, protocol, error, about)

    def entries(self, *kinds: str) -> list[dict[str, Any]]:
        """The entries as JSON, the newest first."""
        found = self.journal.entries(kinds) if kinds else self.journal.entries()
        return [json.loads(msgspec.json.encode(entry)) for entry in found]

    def page(self, kind: str = "all", page: int = 0, text: bytes = b"") -> Any:
        return json.loads(encode_page(self.journal, Topic("log", kind, page, text)))


@pytest.fixture
def server() -> RecordingServer:
    return RecordingServer()


def fall_behind(server: RecordingServer, client: LineClient) -> None:
    client.outlet.room = 0
    publish(server)


def publish(server: RecordingServer) -> None:
    for _ in range(4):
        server.line_client().send("PUB kitchen x")
        server.turn()


def test_records_the_life_of_a_connection(server: RecordingServer) -> None:
    client = server.line_client()
    client.send("NICK ann", "SUB kitchen")
    server.wall += 5
    fall_behind(server, client)
    server.wall += 2
    client.outlet.drain()
    server.turn()
    server.now += 9.5
    client.send("QUIT")
    client.pipeline.connection_lost("cleanly")
    end, behind, connect = [entry for entry in server.entries() if entry["id"] == "p1"]
    ends = {"from": "127.0.0.1:50000", "to": "127.0.0.1:8081", "dialect": "line", "id": "p1", "nick": "ann"}
    assert connect == {"number": 1, "at": 1_800_000_000.0, "kind": "connect", **ends}
    assert behind.pop("number") < end.pop("number")
    assert behind == {
        "at": 1_800_000_005.0,
        "kind": "behind",
        **ends,
        "detail": "kitchen from 2",
        "seconds": 2.0,
    }
    assert end == {
        "at": 1_800_000_007.0,
        "kind": "end",
        **ends,
        "detail": "QUIT",
        "by": "peer",
        "how": "cleanly",
        "seconds": 9.5,
    }


def test_shows_the_present_name_of_a_connected_client() -> None:
    server = RecordingServer(policy=FakePolicy({}, {"t": ("ann", {}, None)}))
    server.line_client().send("AUTH t")
    (connect,) = server.entries("connect")
    assert (connect["nick"], connect["subject"]) == ("ann", "ann")
    assert "AUTH" not in json.dumps(server.entries())


def test_records_lost_events_and_the_reason_of_the_server() -> None:
    server = RecordingServer(history_events=1)
    client = server.line_client()
    client.send("SUB kitchen")
    fall_behind(server, client)
    publish(server)
    client.outlet.drain()
    server.turn()
    (lost,) = server.entries("lost")
    assert lost["detail"].startswith("kitchen 2 to ")
    client.session.close(CloseReason.POLICY, b"disconnected by an administrator: too slow")
    client.pipeline.connection_lost("cleanly")
    (end,) = server.entries("end")
    assert (end["by"], end["detail"]) == ("server", "disconnected by an administrator: too slow")


def test_counts_repeated_events_of_a_client_in_one_entry(server: RecordingServer) -> None:
    client = server.line_client()
    client.send("SUB kitchen")
    for _ in range(3):
        fall_behind(server, client)
        server.now += 10
        server.wall += 10
        client.outlet.drain()
        server.turn()
        server.now += 10
        server.wall += 10
    (behind,) = server.entries("behind")
    assert (behind["times"], behind["at"] - behind["since"], behind["seconds"]) == (3, 40.0, 10.0)


def test_rejections_of_one_address_and_code_are_one_entry(server: RecordingServer) -> None:
    for port in range(10_000):
        server.refuse(f"198.51.100.9:{port}")
    server.refuse("198.51.100.9:1", TOO_MANY_FROM_ADDRESS)
    server.refuse("[2001:db8::1]:1")
    server.refuse("[2001:db8::2]:1")
    server.refuse("127.0.0.1:5", FOREIGN_ORIGIN, "web", "http://localhost:5173")
    origin, network, limit, rate = server.entries()
    assert (rate["times"], rate["from"], rate["code"], rate["dialect"]) == (10_000, "198.51.100.9:9999", "rate", "line")
    assert (limit["code"], limit.get("times")) == ("limit", None)
    assert (network["from"], network["times"]) == ("[2001:db8::2]:1", 2)
    assert origin["detail"] == "origin not allowed: allow it with --allow-origin (http://localhost:5173)"
    assert origin["number"] == server.journal.newest == 10_004


def test_a_flood_of_one_kind_leaves_the_other_kinds(server: RecordingServer) -> None:
    client = server.line_client()
    client.send("SUB kitchen")
    fall_behind(server, client)
    for address in range(3 * MAX_ENTRIES_PER_KIND):
        server.refuse(f"198.51.{address // 250}.{address % 250}:1")
        server.line_client().pipeline.connection_lost("broken")
    assert len(server.entries("behind")) == 1
    for kind in ("connect", "end", "refused"):
        assert len(server.entries(kind)) == MAX_ENTRIES_PER_KIND
    numbers = [entry["number"] for entry in server.entries()]
    assert numbers == sorted(numbers, reverse=True)


def test_long_texts_are_cut_and_all_entries_together_are_bounded(server: RecordingServer) -> None:
    for address in range(MAX_ENTRIES_PER_KIND):
        server.refuse(f"198.51.100.{address}:1", LONG)
    entries = server.journal.entries()
    assert 50 < len(entries) < MAX_ENTRIES_PER_KIND
    assert sum(len(msgspec.json.encode(entry)) for entry in entries) <= MAX_BYTES_PER_KIND
    assert len(entries[0].detail) == MAX_TEXT_LENGTH


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("too slow, été 21.5 °C", "too slow, été 21.5 °C"),
        ("a\x1b[2Jb\r\n", "a\\x1b[2Jb\\r\\n"),
        ("a\x85\u2028\u202eb", "a\\x85\\u2028\\u202eb"),
        ("x" * 200, "x" * (MAX_TEXT_LENGTH - 1) + "…"),
    ],
)
def test_escapes_characters_that_are_not_printed(text: str, shown: str) -> None:
    assert printable(text) == shown


# Pages.


def test_pages_show_the_newest_entries_of_a_kind_first(server: RecordingServer) -> None:
    for _ in range(60):
        server.line_client().pipeline.connection_lost("broken")
    first, second, third = [server.page("all", number) for number in range(3)]
    assert (first["pages"], first["total"], len(first["log"]), len(third["log"])) == (3, 120, LOG_ROWS_PER_PAGE, 20)
    assert first["log"][-1]["number"] - 1 == second["log"][0]["number"]
    ends = server.page("end", 1)
    assert (ends["page"], ends["pages"], ends["total"], len(ends["log"])) == (1, 2, 60, 10)
    assert server.page("lost") == {"page": 0, "pages": 1, "total": 0, "log": []}
    assert server.page("all", 9)["log"] == []


def test_finds_entries_by_name_address_and_reason(server: RecordingServer) -> None:
    client = server.line_client()
    client.send("NICK Tablet", "QUIT")
    client.pipeline.connection_lost("cleanly")
    server.refuse("198.51.100.9:1", FOREIGN_ORIGIN)
    assert [entry["kind"] for entry in server.page(text=b"tablet")["log"]] == ["end", "connect"]
    assert [entry["kind"] for entry in server.page(text=b"198.51.100")["log"]] == ["refused"]
    assert [entry["kind"] for entry in server.page(text=b"quit")["log"]] == ["end"]
    assert server.page(text=b"\xff")["total"] == 0


def test_pages_of_long_entries_fit_into_an_event(server: RecordingServer) -> None:
    for address in range(MAX_ENTRIES_PER_KIND):
        server.refuse(f"198.51.100.{address}:1", LONG)
    page = encode_page(server.journal, Topic("log", "all"))
    assert len(page) <= MAX_PAGE_BYTES and json.loads(page)["pages"] > 1
