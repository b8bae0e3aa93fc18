"""Whole servers without sockets for clients, on a real Redis Cluster whose slots move and whose servers fail."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.end_to_end.programs import free_ports
from tests.redis.nodes import payloads
from tests.redis.servers import ClusterGroup, RedisServer, has_all_data
from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication
from twistedsock.redis.address import Address, Place
from twistedsock.redis.wire import SHARED_TAG, Names, slot

pytestmark = pytest.mark.end_to_end

NAMES = Names(0, is_cluster=True)


@pytest.fixture
def new_cluster(program: str) -> Iterator[Callable[..., ClusterGroup]]:
    """Makes a Cluster, which is killed at the end."""
    groups: list[ClusterGroup] = []
    with TemporaryDirectory() as directory:

        def start(*options: str, masters: int = 2, replicas: int = 0) -> ClusterGroup:
            groups.append(ClusterGroup(Path(directory), program, *options, masters=masters, replicas=replicas))
            groups[-1].start()
            return groups[-1]

        yield start
        for group in groups:
            group.kill()


def channel_of(group: ClusterGroup, server: RedisServer) -> str:
    """A channel on that server."""
    return next(name for name in map("c{}".format, range(1000)) if group.owner(NAMES.slot(name.encode())) is server)


def answers(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith(("OK", "ERR"))]


def test_channels_are_on_all_servers_of_a_cluster(new_cluster, make_nodes) -> None:
    group = new_cluster()
    nodes = make_nodes(group)
    channels = [channel_of(group, master) for master in group.masters]
    for channel in channels:
        ann, bob = nodes.client(0), nodes.client(1, f"SUB {channel} presence=on")
        assert nodes.send(ann, f"SUB {channel}")[0].startswith("OK")
        assert nodes.lines(bob, 1)[0].startswith(f"JOIN {channel} n1-")
        assert nodes.send(ann, f"PUB {channel} 1")[0] == "OK 1"
        assert payloads(nodes.lines(bob, 1)) == ["1"]
        assert nodes.send(bob, f"WHO {channel}")[-1] == "OK 2"


def test_a_slot_that_moves_while_clients_publish_loses_nothing(new_cluster, make_nodes) -> None:
    group = new_cluster()
    nodes = make_nodes(group)
    source, target = group.masters
    channel = channel_of(group, source)
    number = NAMES.slot(channel.encode())
    ann, bob = nodes.client(0, f"SUB {channel}"), nodes.client(1, f"SUB {channel}")
    publications = iter(range(1, 1000))
    sent: list[str] = []

    def publish(count: int) -> None:
        """Publish without waiting for the answers."""
        for _ in range(count):
            sent.append(str(next(publications)))
            ann.send(f"PUB {channel} {sent[-1]}")
            nodes.wait(0.005)

    publish(5)
    group.begin_move(number, target)
    publish(5)
    group.move_keys(number, target)
    publish(5)
    seen: list[str] = []

    def has_seen_all() -> bool:
        seen.extend(bob.received())
        return len(payloads(seen)) >= len(sent)

    nodes.until(has_seen_all)  # events that are published during the move arrive before it ends
    assert payloads(seen) == sent
    group.end_move(number, target)
    publish(10)
    lines: list[str] = []

    def are_answered() -> bool:
        lines.extend(ann.received())
        return len(answers(lines)) == len(sent)

    if group.move_atomically(number, source):  # back again
        while group.owner(number) is not source:
            publish(5)
        publish(10)
    nodes.until(are_answered)
    assert all(answer.startswith("OK ") for answer in answers(lines))
    nodes.until(has_seen_all)
    assert payloads(seen) == sent and payloads(lines) == sent
    resets = [line for line in seen if line.startswith("RESET")]
    assert all(line.split("good=")[1].split()[0] == line.split("offset=")[1] for line in resets)
    assert payloads(nodes.send(nodes.client(nodes.add()), f"HIST {channel}")) == sent


def test_a_publication_with_a_key_waits_for_the_end_of_a_move(new_cluster, make_nodes) -> None:
    """A script cannot use two keys while their slot moves."""
    group = new_cluster()
    nodes = make_nodes(group, count=1)
    source, target = group.masters
    channel = channel_of(group, source).encode()
    number = NAMES.slot(channel)
    nodes.client(0, f"SUB {channel.decode()}", f"PUB {channel.decode()} 1")
    answered: list[int | Error] = []

    def publish(key: bytes) -> None:
        publication = Publication(channel, Payloads((b"x",), 1), key=key, fingerprint=b"f")
        on_result(nodes.servers[0].broker.publish(Client(b"n1-p9"), publication), answered.append)

    group.begin_move(number, target)
    publish(b"one")
    nodes.until(lambda: answered)
    assert answered == [UNAVAILABLE]
    publish(b"two")
    nodes.wait(0.2)
    group.move_keys(number, target)
    group.end_move(number, target)
    nodes.until(lambda: len(answered) == 2)
    assert answered[1] == 2


def test_a_quiet_channel_whose_slot_has_moved_is_followed(new_cluster, make_nodes) -> None:
    group = new_cluster()
    nodes = make_nodes(group)
    source, target = group.masters
    channel = channel_of(group, source)
    number = NAMES.slot(channel.encode())
    bob = nodes.client(1, f"SUB {channel}")
    group.begin_move(number, target)
    group.move_keys(number, target)
    group.end_move(number, target)
    fresh = nodes.client(nodes.add())
    nodes.send(fresh, f"PUB {channel} 1")
    nodes.until(lambda: any(line.endswith(" 1") for line in bob.received()))


def test_members_are_kept_when_their_slot_moves(new_cluster, make_nodes) -> None:
    group = new_cluster()
    nodes = make_nodes(group)
    number = slot(SHARED_TAG)
    source = group.owner(number)
    target = next(master for master in group.masters if master is not source)
    ann, bob = nodes.client(0, "SUB a", "WHO a"), nodes.client(1, "SUB a presence=on")
    group.begin_move(number, target)
    group.move_keys(number, target)
    group.end_move(number, target)
    nodes.until(lambda: nodes.send(bob, "WHO a")[-1] == "OK 2")
    nodes.client(0, "SUB a")
    nodes.until(lambda: any(line.startswith("JOIN a") for line in bob.received()))
    ann.disconnect()
    nodes.until(lambda: any(line == "LEAVE a n1-p1 n1-p1" for line in bob.received()))


def test_a_failover_in_a_cluster_is_told_truthfully(new_cluster, make_nodes) -> None:
    group = new_cluster(masters=3, replicas=1)
    nodes = make_nodes(group)
    master, replica = group.masters[0], group.replicas[0]
    channel, other = channel_of(group, master), channel_of(group, group.masters[1])
    ann, bob = nodes.client(0), nodes.client(1, f"SUB {channel}", f"SUB {other}")
    nodes.send(ann, f"PUB {channel} 1", f"PUB {channel} 2")
    nodes.lines(bob, 2)
    nodes.until(lambda: has_all_data(replica, master))
    master.kill()
    nodes.until(lambda: not any(connection.backplane.is_ready for connection in nodes.connections))
    assert nodes.send(ann, f"PUB {channel} x")[-1].startswith("ERR unavailable")
    assert nodes.send(ann, f"PUB {other} 1")[-1].startswith("OK"), "channels of other servers are available"
    nodes.until(nodes.are_ready, 20)
    lines = nodes.lines(bob, 2)
    assert any(line.startswith(f"RESET {channel}") and line.endswith(" good=2 offset=2") for line in lines)
    nodes.send(ann, f"PUB {channel} 3")
    nodes.until(lambda: any(line.endswith(" 3") for line in bob.received()))


def test_a_cluster_that_is_none_is_refused_in_words(new_redis, make_nodes) -> None:
    (port,) = free_ports(1)
    redis = new_redis("--port", str(port))
    nodes = make_nodes(redis, count=0)
    nodes.add_unready(Address(nodes=(Place("127.0.0.1", port),)))
    log = nodes.connections[0].log
    nodes.until(lambda: log.lines)
    assert log.lines[0].startswith(f"unavailable: 127.0.0.1:{port}: the server is not a node of a Cluster")
