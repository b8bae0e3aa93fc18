"""The hub of worker processes: the contract, and what happens when a connection or a process ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backplanes.contract import (
    ANN,
    BOB,
    BackplaneContract,
    FailingContract,
    KeepingContract,
    MessagesContract,
    SharedContract,
    TwoNodesContract,
)
from tests.backplanes.worker_hub import DiskMachine, Machine, WorkerStage
from twistedsock.backplanes import hub_client, hub_keys, hub_link
from twistedsock.backplanes.hub import LEASE_SECONDS
from twistedsock.backplanes.hub_client import HUB_TOO_SLOW, MAX_UNANSWERED_PROBES, MAYBE_PUBLISHED
from twistedsock.backplanes.hub_keys import KEY_SECONDS
from twistedsock.backplanes.hub_reports import GATHER_SECONDS
from twistedsock.backplanes.sqlite import RETRY_SECONDS
from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import DisconnectClient, Member, Payloads, Position, PresenceChange, Publication
from twistedsock.testing import FakeServer, LineClient

Stages = tuple[WorkerStage, WorkerStage]


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def disk_machine(tmp_path: Path) -> Iterator[DiskMachine]:
    with DiskMachine(tmp_path / "state") as machine:
        yield machine


@pytest.fixture
def stages(machine: Machine) -> Stages:
    return WorkerStage(machine, b"1"), WorkerStage(machine, b"2")


@pytest.fixture
def stage(stages: Stages) -> WorkerStage:
    return stages[0]


@pytest.fixture
def pass_lease(machine: Machine, stages: Stages) -> Callable[[], None]:
    def pass_lease() -> None:
        stages[0].pipe.close()
        machine.pass_time(LEASE_SECONDS)

    return pass_lease


class TestContract(BackplaneContract, KeepingContract, MessagesContract, SharedContract, TwoNodesContract):
    """What every backplane of several nodes must do."""


class TestPieces(BackplaneContract):
    """The same, if the worker reads a few bytes at a time."""

    @pytest.fixture
    def stages(self, machine: Machine) -> Stages:
        return WorkerStage(machine, b"1", 7), WorkerStage(machine, b"2", 11)


class TestState(BackplaneContract, FailingContract, KeepingContract, SharedContract, TwoNodesContract):
    """The same, with a hub that keeps events in a directory."""

    @pytest.fixture
    def machine(self, disk_machine: DiskMachine) -> DiskMachine:
        return disk_machine

    @pytest.fixture
    def stages(self, machine: DiskMachine) -> Stages:
        class Retrying(WorkerStage):
            def settle(self) -> None:
                super().settle()
                machine.pass_time(RETRY_SECONDS)
                super().settle()

            def fail_next(self) -> None:
                machine.worker_of_store.failing = 1

        return Retrying(machine, b"1"), Retrying(machine, b"2")

    def test_failure_does_not_affect_later_publications(self, stage: WorkerStage) -> None:
        """Those that were gathered with the failing one fail too, because they are one transaction."""
        stage.open(b"a")
        stage.publish(b"a", b"w")
        stage.fail_next()
        stage.publish(b"a", b"x")
        stage.publish(b"a", b"y")
        assert stage.answers(b"a") == [1, UNAVAILABLE, 2] and stage.offsets(b"a") == [1, 2]


def publish_with_key(stage: WorkerStage, key: bytes, payload: bytes = b"x") -> list[int | Error]:
    """The answer to a publication with a key, as soon as there is one."""
    answers: list[int | Error] = []
    publication = Publication(b"a", Payloads((payload,), len(payload)), key=key)
    on_result(stage.backplane.publish(Client(stage.backplane.node_name + b"-p1"), publication), answers.append)
    return answers


def joined(*members: Member) -> list[PresenceChange]:
    return [PresenceChange(member, True) for member in members]


# The end of a connection, or of a worker.


def test_worker_that_connects_again_gets_what_it_missed(stages: Stages, machine: Machine) -> None:
    one, other = stages
    position = one.open(b"a")
    other.open(b"a"), one.open(b"b")
    one.publish(b"a", b"v", b"w")
    one.pipe.close()
    for payload in (b"x", b"y"):
        other.publish(b"a", payload)
    machine.connect(one.backplane)
    ((_, name, state),) = [entry for entry in one.story if entry[0] == "reset"]
    assert isinstance(position, Position) and (name, state.position) == (b"a", Position(position.epoch, 4))
    assert [batch.payloads.items for batch in state.tail] == [[b"x"], [b"y"]], "only what it has not been sent"
    assert state.time == 1_000_000
    other.publish(b"a", b"z")
    assert one.offsets(b"a") == [1, 2, 5]


def test_requests_without_a_connection_fail_at_once(stage: WorkerStage, machine: Machine) -> None:
    stage.open(b"a")
    stage.pipe.close()
    assert not stage.backplane.is_ready and not stage.backplane.is_connected
    stage.publish(b"a", b"x")
    stage.join(b"a", ANN)
    assert stage.answers(b"a") == [UNAVAILABLE]
    assert stage.backplane.open(b"b") == stage.backplane.read(b"a", Position(b"e", 0), 1) == UNAVAILABLE
    assert stage.backplane.members(b"a") == stage.backplane.gather(b"t") == UNAVAILABLE
    machine.connect(stage.backplane)
    assert stage.backplane.is_ready and stage.members(b"a") == [ANN]


def test_publication_without_an_answer_may_have_been_published(stages: Stages) -> None:
    one, other = stages
    other.open(b"a")
    one.publish(b"a", b"x", settle=False)
    one.step()  # it is written
    one.step()  # the hub has it
    one.pipe.close()
    one.settle()
    assert one.answers(b"a") == [MAYBE_PUBLISHED] and [event.payload for event in other.events(b"a")] == [b"x"]


def test_members_stay_if_their_worker_connects_again_in_time(stages: Stages, machine: Machine) -> None:
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.join(b"a", ANN), one.join(b"a", BOB)
    one.pipe.close()
    one.leave(b"a", BOB)
    cid = Member(b"1-p3", b"cid")
    one.join(b"a", cid)
    machine.pass_time(LEASE_SECONDS / 2)
    machine.connect(one.backplane)
    machine.pass_time(LEASE_SECONDS)
    assert other.changes(b"a") == [*joined(ANN, BOB, cid), PresenceChange(BOB, False)]
    assert other.members(b"a") == [cid, ANN]


def test_members_of_a_worker_that_was_started_again_leave_when_it_connects(stages: Stages, machine: Machine) -> None:
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.join(b"a", ANN)
    one.pipe.close()
    WorkerStage(machine, b"1")
    assert other.changes(b"a") == [*joined(ANN), PresenceChange(ANN, False)]
    machine.pass_time(LEASE_SECONDS)
    assert len(other.changes(b"a")) == 2


def test_members_of_a_worker_that_stops_leave_at_once(stages: Stages, machine: Machine) -> None:
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.join(b"a", ANN)
    one.publish(b"a", b"x", settle=False)
    stopped: list[bool | Error] = []
    one.backplane.stop().then(stopped.append)
    assert not stopped
    machine.settle()
    assert stopped == [True] and one.answers(b"a") == [1]
    one.pipe.close()
    machine.settle()
    assert other.changes(b"a") == [*joined(ANN), PresenceChange(ANN, False)]


def test_stop_without_a_connection_is_immediate(stage: WorkerStage) -> None:
    stage.pipe.close()
    stopped: list[bool | Error] = []
    stage.backplane.stop().then(stopped.append)
    assert stopped == [True]


def test_second_connection_of_a_worker_replaces_the_first(stages: Stages, machine: Machine) -> None:
    one, other = stages
    former = one.pipe
    again = WorkerStage(machine, b"1")
    assert not former.is_open and machine.reports == ["worker 1: connection closed: connected again"]
    again.open(b"a")
    other.publish(b"a", b"x")
    assert again.offsets(b"a") == [1]


@pytest.mark.parametrize("data", [b"\xff" * 100, b"\0\0\0\1\0\0\0\0\xc0", b"\0\0\0\1\0\0\0\0\x90"])
def test_connection_that_speaks_something_else_is_closed(stage: WorkerStage, machine: Machine, data: bytes) -> None:
    stage.pipe.link.received(data)
    assert not stage.pipe.is_open and machine.reports[0].startswith("worker 1: connection closed: ")


def test_other_commands_of_a_worker_cannot_remove_members_of_another(stages: Stages) -> None:
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.join(b"a", ANN)
    other.backplane.leave(b"a", ANN)
    other.backplane.rename(b"b", ANN)
    assert other.members(b"a") == [ANN]


# The end of the hub.


def test_new_hub_begins_a_new_epoch(stages: Stages, machine: Machine) -> None:
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.join(b"a", ANN)
    other.join(b"a", BOB)
    one.publish(b"a", b"x")
    machine.start_hub()
    for stage in stages:
        machine.connect(stage.backplane)
    for stage in stages:
        ((_, _, state),) = [entry for entry in stage.story if entry[0] == "reset"]
        assert state.position.offset == 0 and state.previous is None
        assert stage.changes(b"a") == joined(ANN, BOB), "they are not announced again"
        assert stage.members(b"a") == [ANN, BOB]
    other.publish(b"a", b"y")
    assert one.offsets(b"a") == other.offsets(b"a") == [1, 1] and len(one.epochs(b"a")) == 2


def test_new_hub_on_the_same_directory_continues(disk_machine: DiskMachine) -> None:
    machine, stage = disk_machine, WorkerStage(disk_machine, b"1")
    stage.open(b"a")
    stage.publish(b"a", b"x")
    machine.hub.stop()
    machine.settle()
    machine.start_hub()
    machine.connect(stage.backplane)
    stage.publish(b"a", b"y")
    assert stage.offsets(b"a") == [1, 2] and len(stage.epochs(b"a")) == 1 and stage.breaks == []


def test_nothing_is_published_before_a_channel_is_open_again(stage: WorkerStage, machine: Machine) -> None:
    """Its epoch may be another one, which the answer would not name."""
    stage.open(b"a")
    machine.start_hub()
    pipe = machine.begin_to_connect(stage.backplane)
    while not stage.backplane.is_ready:
        machine.step()
    stage.publish(b"a", b"x", settle=False)
    assert stage.answers(b"a") == [UNAVAILABLE]
    machine.settle()
    stage.publish(b"a", b"y")
    assert pipe.is_open and stage.answers(b"a") == [UNAVAILABLE, 1]


def test_many_channels_are_opened_again_a_few_at_a_time(
    stage: WorkerStage, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "MAX_REOPENING", 3)
    names = [b"c%d" % number for number in range(20)]
    for name in names:
        stage.open(name)
    machine.start_hub()
    machine.connect(stage.backplane)
    assert sorted(entry[1] for entry in stage.story if entry[0] == "reset") == sorted(names)
    assert machine.hub.channels == 20


def test_channels_are_opened_again_when_the_store_works(disk_machine: DiskMachine) -> None:
    machine, stage = disk_machine, WorkerStage(disk_machine, b"1")
    stage.open(b"a")
    stage.pipe.close()
    machine.settle()
    machine.worker_of_store.failing = 1
    machine.connect(stage.backplane)
    assert not stage.backplane.is_ready
    stage.publish(b"a", b"x")
    machine.pass_time(RETRY_SECONDS)
    assert stage.backplane.is_ready
    stage.publish(b"a", b"y")
    assert stage.answers(b"a") == [UNAVAILABLE, 1] and stage.offsets(b"a") == [1]


def test_first_worker_reports_the_members_of_all(stages: Stages, machine: Machine) -> None:
    one, other = stages
    machine.hub.reports_members = True
    other.open(b"a")
    other.join(b"a", BOB)
    one.join(b"a", ANN)
    other.leave(b"a", BOB)
    reported = [(entry[2], entry[3]) for entry in one.story if entry[0] == "counted"]
    assert reported == [(*joined(BOB), 1), (*joined(ANN), 2), (PresenceChange(BOB, False), 1)]
    one.pipe.close()
    machine.pass_time(LEASE_SECONDS)
    assert [entry for entry in other.story if entry[0] == "counted"] == [
        ("counted", b"a", PresenceChange(ANN, False), 0)
    ]
    assert other.changes(b"a") == [*joined(BOB, ANN), PresenceChange(BOB, False), PresenceChange(ANN, False)]


# Limits.


def test_worker_that_does_not_read_is_disconnected(
    stages: Stages, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_link, "MAX_UNREAD_BYTES", 5_000)
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.pipe.reads = False
    for _ in range(4):
        other.publish(b"a", b"x" * 1_000)
    assert one.pipe.is_open
    for _ in range(4):
        other.publish(b"a", b"x" * 1_000)
    assert not one.pipe.is_open and machine.reports[0].startswith("worker 1: connection closed: it does not read: ")
    assert other.offsets(b"a") == [*range(1, 9)]
    machine.connect(one.backplane)
    ((_, _, state),) = [entry for entry in one.story if entry[0] == "reset"]
    assert [batch.first for batch in state.tail] == [*range(1, 9)]


def test_requests_of_a_worker_that_does_not_read_wait(stages: Stages, machine: Machine) -> None:
    one, other = stages
    one.open(b"a"), other.open(b"a")
    one.pipe.reads = False
    other.publish(b"a", b"x")  # its transport is full
    one.publish(b"a", b"y")
    assert other.offsets(b"a") == [1] and one.answers(b"a") == []
    one.pipe.read_again()
    machine.settle()
    assert other.offsets(b"a") == one.offsets(b"a") == [1, 2] and one.answers(b"a") == [2]


def test_requests_with_large_answers_wait_for_each_other(
    stages: Stages, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_link, "PAUSE_BYTES", 1_000)
    one, other = stages
    names = [b"c%d" % number for number in range(10)]
    for name in names:
        one.publish(name, b"x" * 1_000)
    answers: list[Any] = []
    for name in names:
        on_result(other.backplane.open(name), answers.append)
    machine.settle()
    assert [len(state.tail) for state in answers] == [1] * 10


def test_publications_in_flight_have_a_limit(stage: WorkerStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "MAX_IN_FLIGHT_BYTES", 1_000)
    for _ in range(3):
        stage.publish(b"a", b"x" * 600, settle=False)
    stage.settle()
    assert stage.answers(b"a") == [HUB_TOO_SLOW, HUB_TOO_SLOW, 1]
    stage.publish(b"a", b"x" * 2_000)
    assert stage.answers(b"a")[3:] == [2]


# Keys.


def test_keys_are_forgotten_after_some_minutes(stage: WorkerStage, machine: Machine) -> None:
    first = publish_with_key(stage, b"k")
    machine.settle()
    machine.pass_time(KEY_SECONDS - 1)
    second = publish_with_key(stage, b"k")
    machine.settle()
    machine.pass_time(1)
    third = publish_with_key(stage, b"k")
    machine.settle()
    assert (first, second, third) == ([1], [1], [2])


def test_number_of_keys_has_a_limit(stage: WorkerStage, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_keys, "MAX_KEYS", 2)
    machine.start_hub()
    machine.connect(stage.backplane)
    for key in (b"1", b"2", b"3", b"1", b"3"):
        answers = publish_with_key(stage, key)
        stage.settle()
    assert answers == [3] and stage.state(b"a").position.offset == 4


def test_key_of_a_failed_publication_can_be_used_again(disk_machine: DiskMachine) -> None:
    machine, stage = disk_machine, WorkerStage(disk_machine, b"1")
    machine.worker_of_store.failing = 1
    first, second = publish_with_key(stage, b"k"), publish_with_key(stage, b"k")
    machine.settle()
    machine.pass_time(RETRY_SECONDS)
    third = publish_with_key(stage, b"k")
    machine.settle()
    assert (first, second, third) == ([UNAVAILABLE], [UNAVAILABLE], [1])


# Reports.


def test_gathers_the_reports_of_all_other_workers(stages: Stages, machine: Machine) -> None:
    one, other = stages
    third = WorkerStage(machine, b"3")
    other.backplane.reports[b"t"] = lambda asked: b"two:" + asked
    third.backplane.reports[b"t"] = lambda asked: b"three:" + asked
    machine.hub.reports[b"t a"] = lambda: b"hub"
    reports: list[Any] = []
    on_result(one.backplane.gather(b"t a"), reports.append)
    machine.settle()
    assert reports == [{b"2": b"two:a", b"3": b"three:a", b"hub": b"hub"}]


def test_hub_that_hangs_is_noticed_and_its_connection_is_used_again(stages: Stages, machine: Machine) -> None:
    one, _ = stages
    for _ in range(9):  # while the hub answers
        one.backplane.probe()
        machine.settle()
    one.pipe.reads = False
    answers: list[object] = []
    on_result(one.backplane.publish(Client(b"1-a"), Publication(b"a", Payloads([b"x"], 1))), answers.append)
    for _ in range(MAX_UNANSWERED_PROBES):
        one.backplane.probe()
        machine.settle()
        assert one.backplane.is_ready
    one.backplane.probe()
    machine.settle()
    assert not one.backplane.is_ready and answers == []
    assert one.backplane.publish(Client(b"1-a"), Publication(b"a", Payloads([b"x"], 1))) == UNAVAILABLE
    assert one.backplane.open(b"b") == one.backplane.members(b"a") == UNAVAILABLE
    one.pipe.read_again()
    machine.settle()
    assert one.backplane.is_ready and answers == [1]
    one.pipe.close()
    one.backplane.probe()
    assert not one.backplane.is_ready


def test_worker_that_does_not_report_is_left_out(stages: Stages, machine: Machine) -> None:
    one, other = stages
    third = WorkerStage(machine, b"3")
    other.pipe.reads = False
    reports: list[Any] = []
    on_result(one.backplane.gather(b"t"), reports.append)
    machine.settle()
    third.pipe.close()
    assert reports == []
    machine.pass_time(GATHER_SECONDS)
    other.pipe.read_again()
    machine.settle()
    assert reports == [{b"3": b"", b"hub": b""}]
    on_result(one.backplane.gather(b"t"), reports.append)
    machine.settle()
    other.pipe.close()
    on_result(one.backplane.gather(b"t"), reports.append)
    machine.settle()
    assert reports[1:] == [{b"2": b"", b"hub": b""}, {b"hub": b""}]


def test_worker_that_is_killed_while_it_is_asked_is_left_out(stages: Stages, machine: Machine) -> None:
    one, other = stages
    other.pipe.reads = False
    reports: list[Any] = []
    on_result(one.backplane.gather(b"t"), reports.append)
    machine.settle()
    other.pipe.close()
    machine.settle()
    assert reports == [{b"hub": b""}]


# Whole servers.


def test_no_message_can_be_sent_without_a_connection(stages: Stages) -> None:
    stages[0].pipe.close()
    assert not stages[0].backplane.send_to(b"2", b"a")
    stages[0].machine.settle()
    assert stages[1].backplane.send_to(b"1", b"a")


class Servers:
    """Two servers on one hub."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.workers = [machine.worker(name) for name in (b"1", b"2")]
        self.servers = [FakeServer(backplane=worker) for worker in self.workers]
        for server in self.servers:
            server.wall = machine.now

    def settle(self) -> None:
        for _ in range(20):
            self.machine.settle()
            for server in self.servers:
                server.turn()

    def client(self, number: int, *commands: str) -> LineClient:
        client = self.servers[number].line_client()
        self.send(client, *commands)
        return client

    def send(self, client: LineClient, *commands: str) -> list[str]:
        client.send(*commands)
        self.settle()
        return client.received()


def test_clients_stay_connected_while_there_is_no_hub(machine: Machine) -> None:
    servers = Servers(machine)
    ann, bob = servers.client(0, "NICK ann", "SUB a"), servers.client(1, "SUB a presence=on")
    assert servers.send(ann, "PUB a 1") == ["OK 1", "MSG a 1 ann 1"]
    assert bob.received() == ["MSG a 1 ann 1"]
    machine.start_hub()
    servers.settle()
    assert servers.send(bob, "PUB a 2")[0].startswith("ERR unavailable")
    for worker in servers.workers:
        machine.connect(worker)
    servers.settle()
    resets = ann.received(), bob.received()
    assert all(len(lines) == 1 and lines[0].startswith("RESET a epoch=e") for lines in resets), resets
    assert servers.send(bob, "PUB a 3", "WHO a")[:3] == ["OK 1", "MEMBER a 1-p1 ann", "MEMBER a 2-p1 2-p1"]
    assert ann.received() == ["MSG a 1 2-p1 3"]


def test_client_is_disconnected_through_another_worker(machine: Machine) -> None:
    servers = Servers(machine)
    ann = servers.client(0)
    servers.workers[1].send(DisconnectClient(b"1-p1", b"bye", b"disconnected"))
    servers.settle()
    assert ann.received() == ["NOTICE bye", "BYE"]


def test_history_of_another_worker_is_served(machine: Machine) -> None:
    servers = Servers(machine)
    ann = servers.client(0, "SUB a")
    servers.send(ann, *[f"PUB a {number}" for number in range(1, 6)])
    lines = servers.send(servers.client(1), "HIST a")
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("MSG")] == ["1", "2", "3", "4", "5"]
