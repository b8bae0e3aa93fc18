"""The lists under $sys/ of several processes: each of two servers reports to the other."""

from collections.abc import Callable
from typing import Any

import pytest

from twistedsock.metrics.merged_pages import MAX_MERGED_ROWS, rows_needed
from twistedsock.metrics.pages import CLOSED_ROWS_PER_PAGE, Topic
from twistedsock.metrics.processes import PAGES, STATISTICS, StatisticsOfAll
from twistedsock.metrics.sys_channels import TICK_SECONDS, Monitor
from twistedsock.pubsub.future import Future, on_result
from twistedsock.testing import FakeServer, JsonClient, LineClient


class Worker(FakeServer):
    """A worker of a server. ``other`` is another one that answers its questions, if that is connected."""

    def __init__(self, name: bytes, is_one_server: bool = True) -> None:
        super().__init__(late=True, node_name=name)
        self.node_name = name
        self.names = ("1", "2")
        self.index = self.names.index(name.decode())
        self.is_one_server = is_one_server
        self.host = None if is_one_server else "tokyo"
        self.restarts = 0
        self.asked: list[bytes] = []
        self.reports: dict[bytes, Callable[[bytes], bytes | Future[bytes]]] = {}
        self.other: Worker | None = None
        self.monitor = Monitor(self.context, lambda: 0, lambda: 0.0, StatisticsOfAll(self))
        self.monitor.attach()
        self.reports |= {PAGES: self.monitor.report, STATISTICS: self.monitor.report_statistics}

    def gather(self, topic: bytes) -> Future[dict[bytes, bytes]]:
        self.asked.append(topic)
        gathered, other = Future[dict[bytes, bytes]](), self.other
        word, _, asked = topic.partition(b" ")
        if other is None or word not in other.reports:
            gathered.settle({})
        else:
            on_result(other.reports[word](asked), lambda report: gathered.settle({other.node_name: report}))
        return gathered

    def client(self, *commands: str) -> LineClient:
        client = self.line_client()
        client.send(*commands)
        return client


class Machine:
    def __init__(self, is_one_server: bool = True) -> None:
        self.one, self.two = Worker(b"1", is_one_server), Worker(b"2", is_one_server)
        self.one.other, self.two.other = self.two, self.one

    def pass_seconds(self, count: int = 5) -> None:
        for _ in range(count):
            for worker in (self.one, self.two):
                worker.now += TICK_SECONDS
                worker.wall += TICK_SECONDS
                worker.monitor.tick()
            self.settle()

    def settle(self) -> None:
        for _ in range(6):
            for worker in (self.one, self.two):
                worker.backplane.release()
                worker.turn()

    def read(self, channel: str) -> Any:
        """The newest event of a channel, for a client of the first worker."""
        admin = self.one.json_client()
        admin.send({"type": "subscribe", "channel": channel})
        self.settle()
        self.pass_seconds()
        return self.newest(admin)

    @staticmethod
    def newest(admin: JsonClient) -> Any:
        return [message for message in admin.received() if message["type"] == "event"][-1]["data"]


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_clients_of_all_processes_are_listed_in_one_order(machine: Machine) -> None:
    clients = [machine.one.client(), machine.two.client(), machine.two.client()]
    machine.settle()
    ids = [client.session.client.id.decode() for client in clients]
    page = machine.read("$sys/peers/id/0")
    listed = [peer["id"] for peer in page["peers"]]
    assert set(ids) < set(listed) and listed == sorted(listed) and page["total"] == 4
    found = machine.read(f"$sys/peers/find/{ids[2]}")
    assert [peer["id"] for peer in found["peers"]] == [ids[2]] and found["pages"] == 1


def test_a_channel_of_two_processes_is_one_row_with_all_subscribers(machine: Machine) -> None:
    machine.one.client("SUB kitchen", "SUB cellar")
    machine.two.client("SUB kitchen", "SUB attic")
    machine.two.client("SUB attic")
    machine.settle()
    for order in ("readers", "name"):
        page = machine.read(f"$sys/channels/{order}/0")
        rows = [(row["channel"], row["readers"]) for row in page["channels"]]
        assert sorted(rows) == [("attic", 2), ("cellar", 1), ("kitchen", 2)] and page["total"] == 3
    assert rows == sorted(rows)
    assert [row["channel"] for row in machine.read("$sys/channels/find/att")["channels"]] == ["attic"]
    assert len(machine.read("$sys/top")["channels"]) == 3


def test_rates_are_those_of_other_processes_too(machine: Machine) -> None:
    publisher = machine.two.client()
    admin = machine.one.json_client()
    admin.send({"type": "subscribe", "channel": "$sys/channels/rate/0"})
    machine.pass_seconds()
    for _ in range(4):
        publisher.send(*["PUB kitchen x"] * 10)
        machine.pass_seconds(1)
    machine.pass_seconds(1)
    rates = [row["rate"] for row in machine.newest(admin)["channels"]]
    assert rates and rates[0] > 0


def test_ended_connections_and_the_log_are_those_of_all_processes(machine: Machine) -> None:
    clients = [worker.client() for worker in (machine.one, machine.two)]
    ids = {client.session.client.id.decode() for client in clients}
    for client in clients:
        client.disconnect()
    assert {end["id"] for end in machine.read("$sys/closed/0")["closed"]} == ids
    entries = machine.read("$sys/log/all/0")["log"]
    numbers = [entry["number"] for entry in entries]
    assert {entry["id"] for entry in entries if entry["kind"] == "end"} == ids
    assert numbers == sorted(set(numbers), reverse=True), "no two are equal"
    assert all(number < 2**53 for number in numbers)


def test_pages_that_have_not_changed_are_not_published_again(machine: Machine) -> None:
    admin = machine.one.json_client()
    admin.send({"type": "subscribe", "channel": "$sys/closed/0"})
    machine.pass_seconds(20)
    pages = [message for message in admin.received() if message["type"] == "event"]
    assert len(pages) == 1
    machine.two.client().disconnect()
    machine.pass_seconds()
    assert machine.newest(admin)["total"] == 1


def test_a_timeline_is_published_wherever_its_client_is(machine: Machine) -> None:
    client = machine.two.client("SUB kitchen")
    machine.settle()
    id = client.session.client.id.decode()
    timeline = machine.read(f"$sys/peer/{id}")
    assert timeline["peer"]["id"] == id and timeline["subscriptions"] == [{"channel": "kitchen", "lag": 0}]
    assert machine.read("$sys/peer/2-unknown") == {"peer": None, "steps": []}


def test_lists_of_all_processes_have_pages(machine: Machine) -> None:
    machine.one.client(*[f"SUB a{number}" for number in range(70)])
    machine.two.client(*[f"SUB b{number}" for number in range(70)])
    for _ in range(10):
        machine.settle()
    pages = [machine.read(f"$sys/channels/name/{page}") for page in range(3)]
    assert [len(page["channels"]) for page in pages] == [100, 40, 0]
    assert {(page["total"], page["pages"]) for page in pages} == {(140, 2)}


def test_each_process_reports_as_many_rows_as_a_page_can_contain() -> None:
    topics = [("channels", 0), ("top", 0), ("peers", 0), ("peers", 999), ("closed", 1), ("log", 0)]
    limits = [rows_needed(Topic(kind, page=page)) for kind, page in topics]
    assert limits == [MAX_MERGED_ROWS, MAX_MERGED_ROWS, 100, MAX_MERGED_ROWS, 2 * CLOSED_ROWS_PER_PAGE, 500]


def test_a_process_that_does_not_answer_is_left_out(machine: Machine) -> None:
    machine.one.other = None
    machine.two.client()
    client = machine.one.client()
    machine.settle()
    listed = machine.read("$sys/peers/newest/0")["peers"]
    assert client.session.client.id.decode() in [peer["id"] for peer in listed] and len(listed) == 2
    assert machine.two.monitor.report(b"kitchen") == b""


def test_servers_ask_each_other_only_while_a_client_looks() -> None:
    machine = Machine(is_one_server=False)
    machine.pass_seconds()
    assert machine.one.asked == []
    admin = machine.one.json_client()
    admin.send({"type": "subscribe", "channel": "$sys/figures"})
    machine.settle()
    assert machine.one.asked == [STATISTICS], "at once, so that the next event is about all"
    machine.pass_seconds(1)
    processes = machine.newest(admin)["processes"]
    assert [(each["name"], each["host"]) for each in processes] == [("1", "tokyo"), ("2", "tokyo")]
    assert machine.one.context.connection_limiter.elsewhere == 0 and machine.two.asked == []
    admin.send({"type": "unsubscribe", "channel": "$sys/figures"})
    machine.pass_seconds()
    assert machine.one.asked == [STATISTICS] * 2
    admin.send({"type": "subscribe", "channel": "$sys/figures", "last": 1})
    machine.settle()
    assert "processes" not in machine.newest(admin)


def test_page_is_published_without_the_report_of_another_version(machine: Machine) -> None:
    machine.one.client("SUB a")
    machine.two.reports[PAGES] = lambda asked: b"[]"
    assert machine.read("$sys/channels/name/0")["total"] == 1
