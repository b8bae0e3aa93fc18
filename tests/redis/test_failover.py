"""Whole servers without sockets for clients, on real Redis servers that Sentinels watch."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.redis.nodes import Nodes, epoch_of, payloads
from tests.redis.servers import SentinelGroup, has_all_data, is_in_step, stop_replication
from twistedsock.redis.address import Address, Place
from twistedsock.redis.resp import RedisError

DEMOTION_SECONDS = 40.0
"""Sentinel 6.2 makes a former master a replica after up to 20 seconds, newer ones after less than one, if they are told
to look often."""

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def new_group(program: str) -> Iterator[Callable[..., SentinelGroup]]:
    """Makes a master, a replica and Sentinels, which are killed at the end."""
    groups: list[SentinelGroup] = []
    with TemporaryDirectory() as directory:

        def start(*options: str, sentinels: int = 1) -> SentinelGroup:
            groups.append(SentinelGroup(Path(directory), program, *options, sentinels=sentinels))
            groups[-1].start()
            return groups[-1]

        yield start
        for group in groups:
            group.kill()


def fail_over(nodes: Nodes, group: SentinelGroup) -> None:
    """Kill the master, and wait until the nodes use the replica."""
    former = group.master
    former.kill()
    nodes.wait_for_loss()
    nodes.until(lambda: group.master is not former)
    nodes.until(nodes.are_ready)


def bring_back(nodes: Nodes, group: SentinelGroup) -> None:
    """Start the server that was killed, as a replica."""
    replica = group.replica
    replica.start()
    nodes.until(lambda: is_replica(group) and is_in_step(replica), DEMOTION_SECONDS)


def is_replica(group: SentinelGroup) -> bool:
    """Whether the Sentinels have made a replica of the former master. Before, it is one without clients."""
    with suppress(ConnectionError):  # a Sentinel closes the connections of a server that it demotes
        return group.replica.ask("ROLE")[0] == b"slave"
    return False


def test_a_failover_to_a_replica_with_all_events_loses_nothing(new_group, make_nodes) -> None:
    group = new_group()
    nodes = make_nodes(group)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    nodes.lines(bob, 2)
    nodes.until(lambda: has_all_data(group.replica, group.master))
    group.sentinels[0].ask("SENTINEL", "FAILOVER", "mymaster")
    (reset,) = nodes.lines(bob, 1)
    assert reset.startswith("RESET a epoch=") and reset.endswith(" good=2 offset=2")
    nodes.until(nodes.are_ready)
    assert nodes.send(ann, "PUB a 3")[-1] == "MSG a 3 n1-p1 3" or nodes.lines(ann, 1)
    assert nodes.lines(bob, 1) == ["MSG a 3 n1-p1 3"]
    assert nodes.connections[0].log.lines[-1].endswith(f"at 127.0.0.1:{group.master.port}")


def test_two_failovers_to_replicas_that_lag_are_told_truthfully(new_group, make_nodes) -> None:
    """The offsets 4 and 5 are given a second and a third time, each in another epoch."""
    group = new_group()
    nodes = make_nodes(group)
    ann, bob = nodes.client(0), nodes.client(1)
    first = epoch_of(nodes.send(bob, "SUB a")[0])
    nodes.send(ann, "PUB a 1", "PUB a 2", "PUB a 3")
    nodes.until(lambda: has_all_data(group.replica, group.master))
    stop_replication(group.master, group.replica)
    nodes.send(ann, "PUB a 4", "PUB a 5")
    nodes.lines(bob, 5)
    fail_over(nodes, group)
    (reset,) = nodes.lines(bob, 1)
    assert reset.endswith(" good=3 offset=3")
    second = epoch_of(reset)
    bring_back(nodes, group)
    nodes.send(ann, "PUB a new4")
    nodes.until(lambda: has_all_data(group.replica, group.master))
    stop_replication(group.master, group.replica)
    nodes.send(ann, "PUB a new5")
    assert payloads(nodes.lines(bob, 2)) == ["new4", "new5"]
    fail_over(nodes, group)
    (reset,) = nodes.lines(bob, 1)
    assert reset.endswith(" good=4 offset=4")
    nodes.send(ann, "PUB a newest5")
    assert payloads(nodes.lines(bob, 1)) == ["newest5"]
    fresh = nodes.client(nodes.add())
    for epoch, since, answer, missed in (
        (first, 3, "no", []),  # two epochs ago: it is not claimed that nothing was missed
        (first, 5, "no", []),
        (second, 4, "yes", ["newest5"]),
        (second, 5, "no", []),
    ):
        lines = nodes.send(fresh, f"SUB a since={since} epoch={epoch}")
        assert f"recovered={answer}" in lines[0]
        lines += nodes.lines(fresh, len(missed) - len(lines) + 1)
        assert payloads(lines) == missed
        nodes.send(fresh, "UNSUB a")


def test_a_former_master_that_comes_back_is_not_used(new_group, make_nodes) -> None:
    group = new_group("--appendonly", "yes")
    nodes = make_nodes(group)
    ann, former = nodes.client(0, "SUB a"), group.master
    nodes.send(ann, "PUB a 1")
    nodes.until(lambda: has_all_data(group.replica, group.master))
    fail_over(nodes, group)
    former.start()  # it is a master, until a Sentinel makes it a replica
    fresh = nodes.client(nodes.add(), "SUB a")
    assert not any(line.startswith("ERR") for line in nodes.send(fresh, "PUB a 2"))
    nodes.until(lambda: is_replica(group), DEMOTION_SECONDS)
    nodes.wait(0.5)
    assert payloads(nodes.send(fresh, "HIST a")) == ["1", "2"]
    lines = ann.received()
    assert payloads(lines) == ["2"] and sum(line.startswith("RESET") for line in lines) == 1
    assert all(connection.log.lines[-1].endswith(str(group.master.port)) for connection in nodes.connections)


def test_without_sentinels_the_connection_is_used_and_no_other_is_made(new_group, make_nodes) -> None:
    group = new_group()
    nodes = make_nodes(group, count=1)
    ann, (sentinel,), log = nodes.client(0), group.sentinels, nodes.connections[0].log
    sentinel.kill()
    nodes.until(lambda: any("a failover cannot be noticed" in line for line in log.lines))
    assert nodes.send(ann, "PUB a 1") == ["OK 1"]
    nodes.connections[0].link.fail("test")
    nodes.until(lambda: "unavailable: no Sentinel answers: 127.0.0.1" in log.lines[-1])
    assert nodes.send(ann, "PUB a 2")[0].startswith("ERR unavailable")
    sentinel.start()
    nodes.until(nodes.are_ready)
    assert nodes.send(ann, "PUB a 3") == ["OK 2"]


class Split:
    """The first node, the former master and one Sentinel are apart from the second node, the new master and the other
    Sentinel. The former master does not obey, as if it could not be reached."""

    def __init__(self, group: SentinelGroup, make_nodes: Callable[..., Nodes]) -> None:
        self.group = group
        self.former = former = group.master
        addresses = [
            Address(sentinels=(Place("127.0.0.1", sentinel.port),), master="mymaster")
            for sentinel in reversed(group.sentinels)
        ]
        self.nodes = nodes = make_nodes(group, count=0)
        for address in addresses:
            nodes.add(address=address)
        self.ann, self.bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
        nodes.send(self.ann, "PUB a 1", "PUB a 2")
        nodes.lines(self.bob, 2)
        nodes.until(lambda: has_all_data(group.replica, group.master))
        near, far = group.sentinels
        far.kill()
        former.ask("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
        stop_replication(former, group.replica)
        near.ask("SENTINEL", "FAILOVER", "mymaster")
        nodes.until(lambda: group.master is not former)
        assert nodes.lines(self.bob, 1)[0].endswith(" good=2 offset=2")

    def heal(self) -> None:
        self.former.ask("ACL", "SETUSER", "default", "+replicaof", "+slaveof")
        self.nodes.until(lambda: is_replica(self.group), DEMOTION_SECONDS)
        self.group.sentinels[1].start()
        self.nodes.until(self.nodes.are_ready)


def test_a_split_is_told_to_the_readers_of_events_that_are_lost(new_group, make_nodes) -> None:
    split = Split(new_group(sentinels=2), make_nodes)
    nodes, ann, bob = split.nodes, split.ann, split.bob
    assert nodes.send(ann, "PUB a lost")[0] == "OK 3"
    assert nodes.send(bob, "PUB a kept")[0] == "OK 3"
    nodes.lines(bob, 0)
    split.heal()
    lines = nodes.lines(ann, 2)
    while not lines[-1].endswith("kept"):
        lines += nodes.lines(ann, 1)
    assert [line.split()[0] for line in lines[-2:]] == ["RESET", "MSG"]
    assert " good=2 " in lines[-2] and payloads(lines)[-1] == "kept"
    assert not [line for line in bob.received() if "lost" in line]


def test_min_replicas_to_write_rejects_what_a_split_would_lose(new_group, make_nodes) -> None:
    group = new_group(sentinels=2)
    group.master.ask("CONFIG", "SET", "min-replicas-to-write", 1)  # with three servers, it would be 1 on all
    split = Split(group, make_nodes)
    nodes = split.nodes
    too_few = ["ERR unavailable Redis has too few replicas: try again later"]
    assert nodes.send(split.ann, "PUB a lost") == too_few
    assert nodes.send(split.bob, "PUB a kept")[0] == "OK 3"
    split.heal()
    reset, event = nodes.lines(split.ann, 2)
    assert " good=2 " in reset and event.endswith("kept")


def test_a_sentinel_without_that_master_is_refused_in_words(new_group, make_nodes) -> None:
    group = new_group()
    nodes = make_nodes(group, count=1)
    nodes.add_unready(Address(sentinels=(Place("127.0.0.1", group.sentinels[0].port),), master="other"))
    log = nodes.connections[-1].log
    nodes.until(lambda: log.lines)
    assert log.lines == [
        f"unavailable: no Sentinel answers: 127.0.0.1:{group.sentinels[0].port}: the Sentinel knows no master with the "
        "name 'other'"
    ]
    with pytest.raises(RedisError):
        group.sentinels[0].ask("SENTINEL", "MASTER", "other")
