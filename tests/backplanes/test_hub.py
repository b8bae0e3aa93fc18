"""Several nodes: the contract, and real brokers that are connected by a hub."""

from collections.abc import Callable

import pytest

from tests.backplanes.contract import (
    BackplaneContract,
    FailingContract,
    KeepingContract,
    SharedContract,
    Stage,
    TwoNodesContract,
)
from tests.backplanes.hub import LEASE_SECONDS, Hub, HubBackplane
from twistedsock.pubsub.values import Batch, DisconnectClient
from twistedsock.testing import FakeServer, LineClient


class HubStage(Stage):
    """One node of a hub."""

    def __init__(self, hub: Hub, name: bytes) -> None:
        self.hub = hub
        super().__init__(HubBackplane(hub, name))

    def step(self) -> bool:
        return self.hub.step()

    def fail_next(self) -> None:
        self.hub.failing = 1


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def stages(hub: Hub) -> tuple[HubStage, HubStage]:
    return HubStage(hub, b"n1"), HubStage(hub, b"n2")


@pytest.fixture
def stage(stages: tuple[HubStage, HubStage]) -> HubStage:
    return stages[0]


@pytest.fixture
def pass_lease(hub: Hub, stages: tuple[HubStage, HubStage]) -> Callable[[], None]:
    def pass_lease() -> None:
        hub.now += LEASE_SECONDS
        stages[1].backplane.renew_lease()
        hub.expire_leases()

    return pass_lease


class TestContract(BackplaneContract, FailingContract, KeepingContract, SharedContract, TwoNodesContract):
    """What every backplane of several nodes must do."""


# Whole servers.


class Nodes:
    """Two servers on one hub. Ids begin with n1 and n2."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.links = [HubBackplane(self.hub, name) for name in (b"n1", b"n2")]
        self.servers = [FakeServer(backplane=link) for link in self.links]

    def settle(self) -> None:
        for _ in range(20):
            while self.hub.step():
                pass
            for server in self.servers:
                server.turn()

    def client(self, node: int, *commands: str) -> LineClient:
        client = self.servers[node].line_client()
        client.send(*commands)
        self.settle()
        client.received()
        return client

    def send(self, client: LineClient, *commands: str) -> list[str]:
        client.send(*commands)
        self.settle()
        return client.received()


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


def test_clients_of_different_nodes_hear_each_other(nodes: Nodes) -> None:
    ann, bob = nodes.client(0, "NICK ann", "SUB a presence=on"), nodes.client(1, "NICK bob", "SUB a presence=on")
    assert ann.received() == ["JOIN a n2-p1 bob"]
    assert nodes.send(ann, "PUB a hello") == ["OK 1", "MSG a 1 ann hello"]
    assert bob.received() == ["MSG a 1 ann hello"]
    assert nodes.send(bob, "WHO a") == ["MEMBER a n1-p1 ann", "MEMBER a n2-p1 bob", "OK 2"]
    ann.disconnect()
    nodes.settle()
    assert bob.received() == ["LEAVE a n1-p1 ann"]


def test_members_of_a_killed_node_leave_when_its_lease_ends(nodes: Nodes) -> None:
    nodes.client(0, "SUB a")
    bob = nodes.client(1, "SUB a presence=on")
    nodes.hub.now += LEASE_SECONDS
    nodes.links[1].renew_lease()
    nodes.hub.expire_leases()
    nodes.settle()
    assert bob.received() == ["LEAVE a n1-p1 n1-p1"] and nodes.send(bob, "WHO a")[-1] == "OK 1"


def test_a_client_recovers_on_another_node(nodes: Nodes) -> None:
    ann = nodes.client(0, "SUB a")
    nodes.send(ann, *[f"PUB a {number}" for number in range(1, 6)])
    received = nodes.send(nodes.client(1), "SUB a since=1 epoch=e1")
    assert received[0] == "OK a offset=5 epoch=e1 recovered=yes"
    assert [line.rpartition(" ")[2] for line in received[1:]] == ["2", "3", "4", "5"]


def test_a_node_that_was_disconnected_reads_what_it_missed(nodes: Nodes) -> None:
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.links[1].disconnect()
    nodes.send(ann, *[f"PUB a {number}" for number in range(1, 6)])
    assert bob.received() == [] and nodes.send(bob, "PUB a x")[0].startswith("ERR unavailable")
    nodes.links[1].reconnect()
    nodes.settle()
    assert [line.rpartition(" ")[2] for line in bob.received()] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("continues", "expected"),
    [
        (True, ["RESET a epoch=e2 good=2 offset=2", "MSG a 3 n2-p1 new"]),
        (False, ["RESET a epoch=e2 good=2 offset=0", "MSG a 1 n2-p1 new"]),
    ],
)
def test_all_nodes_report_that_events_were_rolled_back(nodes: Nodes, continues: bool, expected: list[str]) -> None:
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2", "PUB a 3")
    bob.received()
    nodes.hub.roll_back(b"a", 2, continues)
    nodes.settle()
    nodes.send(bob, "PUB a new")
    assert ann.received() == expected
    assert nodes.send(nodes.client(0), "SUB a since=2 epoch=e1")[0].partition("recovered=")[2].startswith("yes")
    assert nodes.send(nodes.client(0), "SUB a since=3 epoch=e1")[0].endswith("recovered=no")


def test_a_client_is_disconnected_through_another_node(nodes: Nodes) -> None:
    ann = nodes.client(0)
    nodes.links[1].send(DisconnectClient(b"n1-p1", b"bye", b"disconnected"))
    nodes.settle()
    assert ann.received() == ["NOTICE bye", "BYE"]


def test_ids_of_other_nodes_cannot_be_nicks(nodes: Nodes) -> None:
    ann = nodes.client(0)
    assert nodes.send(ann, "NICK n2-p7")[0].startswith("ERR bad-name")
    assert nodes.send(ann, "NICK n1-p1") == ["OK n1-p1"]


class Recorder:
    """Observes the events of a node."""

    def __init__(self, nodes: Nodes, node: int, seen: list[tuple[int, int]]) -> None:
        self._node = node
        self._seen = seen
        nodes.servers[node].broker.observers.append(self)

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        self._seen.append((self._node, batch.first))

    def joined(self, *arguments: object) -> None: ...
    def left(self, *arguments: object) -> None: ...


def test_observers_see_each_event_on_one_node(nodes: Nodes) -> None:
    seen: list[tuple[int, int]] = []
    for number in (0, 1):
        Recorder(nodes, number, seen)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1")
    nodes.send(bob, "PUB a 2")
    assert seen == [(0, 1), (1, 2)]


def test_observers_see_events_whose_channel_nobody_else_needs_meanwhile(nodes: Nodes) -> None:
    """Its last subscriber unsubscribes, or its first reader has read it, before the publication is answered."""
    seen: list[tuple[int, int]] = []
    Recorder(nodes, 0, seen)
    reader, publisher = nodes.client(0, "SUB a"), nodes.client(0)
    publisher.send("PUB a 1")
    nodes.send(reader, "UNSUB a")
    reader.send("HIST b")
    nodes.send(publisher, "PUB b 1")
    assert seen == [(0, 1), (0, 1)]
