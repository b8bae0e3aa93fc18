"""Whole servers without sockets for clients, on a real Redis that fails."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec.structs import replace

from tests.redis.servers import RedisServer
from tests.redis.stage import REACTOR, TIMING, ConnectedNode, turn_until
from twistedsock.errors import Error
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication, RepeatedOffset
from twistedsock.redis.address import Address
from twistedsock.redis.link import Timing
from twistedsock.testing import FakeServer, LineClient

pytestmark = pytest.mark.end_to_end

SLOW = Timing(probe=5, connect=5, first_retry=0.01, longest_retry=0.05, unsure=0.3, lease=15, renew=3, check=30)


class Nodes:
    """Servers on one Redis. Ids begin with n1, n2 …"""

    def __init__(self, redis: RedisServer, count: int = 2, timing: Timing = TIMING) -> None:
        self.redis = redis
        self.connections: list[ConnectedNode] = []
        self.servers: list[FakeServer] = []
        for _ in range(count):
            self.add(timing)

    def add(self, timing: Timing = TIMING) -> int:
        """Start another server. Returns its number."""
        connection = ConnectedNode(Address(path=self.redis.path), b"n%d" % (len(self.servers) + 1), timing)
        server = FakeServer(backplane=connection.backplane)
        server.wall = time.time()
        self.connections.append(connection)
        self.servers.append(server)
        self.until(lambda: connection.backplane.is_ready)
        return len(self.servers) - 1

    def kill(self) -> None:
        for connection in self.connections:
            connection.kill()

    def until(self, condition: Callable[[], object]) -> None:
        def turn() -> object:
            for server in self.servers:
                server.turn()
            return condition()

        turn_until(turn, self.connections[0].log)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def are_ready(self) -> bool:
        return all(connection.backplane.is_ready for connection in self.connections)

    def wait_for_loss(self) -> None:
        """Wait until all nodes have noticed it."""
        self.until(lambda: not any(connection.backplane.is_ready for connection in self.connections))

    def client(self, node: int, *commands: str) -> LineClient:
        client = self.servers[node].line_client()
        self.send(client, *commands)
        return client

    def send(self, client: LineClient, *commands: str) -> list[str]:
        """The lines up to the reply to the last of some commands."""
        client.send(*commands)
        lines: list[str] = []
        replies = 0

        def is_answered() -> bool:
            nonlocal replies
            received = client.received()
            lines.extend(received)
            replies += sum(line.startswith(("OK", "ERR")) for line in received)
            return replies >= len(commands)

        self.until(is_answered)
        return lines

    def lines(self, client: LineClient, count: int) -> list[str]:
        """The next lines of a client."""
        lines: list[str] = []

        def are_there() -> bool:
            lines.extend(client.received())
            return len(lines) >= count

        self.until(are_there)
        return lines


@pytest.fixture
def new_redis(program: str) -> Iterator[Callable[..., RedisServer]]:
    """Makes a server with some options, which is killed at the end."""
    servers: list[RedisServer] = []
    with TemporaryDirectory() as directory:

        def start(*options: str) -> RedisServer:
            servers.append(RedisServer(Path(directory), *options, program=program))
            servers[-1].start()
            return servers[-1]

        yield start
        for server in servers:
            server.kill()


@pytest.fixture
def make_nodes() -> Iterator[Callable[..., Nodes]]:
    """Makes nodes, whose connections are closed at the end."""
    made: list[Nodes] = []

    def make(redis: RedisServer, count: int = 2, timing: Timing = TIMING) -> Nodes:
        made.append(Nodes(redis, count, timing))
        return made[-1]

    yield make
    for nodes in made:
        nodes.kill()
    REACTOR.iterate(0)


def payloads(lines: list[str]) -> list[str]:
    return [line.rpartition(" ")[2] for line in lines if line.startswith("MSG")]


def epoch_of(line: str) -> str:
    """The epoch in a reply to SUB."""
    return line.partition("epoch=")[2].split(" ")[0]


def restart(nodes: Nodes) -> None:
    nodes.redis.kill()
    nodes.wait_for_loss()
    nodes.redis.start()
    nodes.until(nodes.are_ready)


def test_redis_that_is_killed_with_its_data_on_disk_loses_nothing(new_redis, make_nodes) -> None:
    nodes = make_nodes(new_redis("--appendonly", "yes", "--appendfsync", "always"))
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    nodes.lines(bob, 2)
    restart(nodes)
    (reset,) = nodes.lines(bob, 1)
    assert reset.startswith("RESET a epoch=") and reset.endswith(" good=2 offset=2")
    nodes.send(ann, "PUB a 3")
    assert nodes.lines(bob, 1) == ["MSG a 3 n1-p1 3"]


def test_redis_that_is_killed_without_data_begins_again(new_redis, make_nodes) -> None:
    nodes = make_nodes(new_redis())
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    nodes.lines(bob, 2)
    restart(nodes)
    (reset,) = nodes.lines(bob, 1)
    assert reset.endswith(" good=0 offset=0")
    nodes.send(ann, "PUB a new")
    assert nodes.lines(bob, 1) == ["MSG a 1 n1-p1 new"]


def test_redis_with_an_old_snapshot_tells_every_reader_what_was_lost(new_redis, make_nodes) -> None:
    """Without the fence, 6 to 10 would be given again in the same epoch, and the client at 10 would miss 5 events."""
    redis = new_redis()
    nodes = make_nodes(redis)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1)
    epoch = epoch_of(nodes.send(bob, "SUB a")[0])
    nodes.send(ann, *[f"PUB a {number}" for number in range(1, 6)])
    redis.ask("SAVE")
    nodes.send(ann, *[f"PUB a {number}" for number in range(6, 11)])
    assert len(nodes.lines(bob, 10)) == 10
    restart(nodes)
    (reset,) = nodes.lines(bob, 1)
    assert reset.endswith(" good=5 offset=5")
    nodes.send(ann, *[f"PUB a new{number}" for number in range(1, 8)])
    assert payloads(nodes.lines(bob, 7)) == [f"new{number}" for number in range(1, 8)]
    fresh = nodes.add()
    assert nodes.send(nodes.client(fresh), f"SUB a since=10 epoch={epoch}")[0].endswith("recovered=no")
    recovered = nodes.client(fresh)
    assert "recovered=yes" in nodes.send(recovered, f"SUB a since=4 epoch={epoch}")[0]


def test_two_old_snapshots_in_a_row_are_told_truthfully(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis)
    ann = nodes.client(0)
    epoch = epoch_of(nodes.send(ann, "SUB a")[0])
    nodes.send(ann, "PUB a 1", "PUB a 2")
    redis.ask("SAVE")
    nodes.send(ann, "PUB a 3")
    restart(nodes)
    nodes.send(ann, "PUB a 4")
    redis.ask("SAVE")
    nodes.send(ann, "PUB a 5")
    restart(nodes)
    assert nodes.lines(ann, 1)[-1].endswith(" good=3 offset=3")
    fresh = nodes.client(nodes.add())
    for since in (1, 2, 3):  # two epochs ago: it is not claimed that nothing was missed
        assert nodes.send(fresh, f"SUB a since={since} epoch={epoch}")[0].endswith("recovered=no")
        nodes.send(fresh, "UNSUB a")


def test_a_paused_redis_is_noticed_and_continues(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1")
    redis.pause()
    ann.send("PUB a 2")
    nodes.wait_for_loss()
    assert nodes.send(bob, "PUB a 3")[-1].startswith("ERR unavailable")
    redis.resume()
    nodes.until(nodes.are_ready)
    assert "OK 2" in nodes.lines(ann, 2)
    nodes.send(bob, "PUB a 4")
    assert payloads(nodes.lines(ann, 1)) == ["4"]
    assert payloads(nodes.send(nodes.client(0), "HIST a")) == ["1", "2", "4"]


def test_publications_in_flight_are_published_once_when_the_connection_is_cut(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis)
    ann = nodes.client(0, "SUB a")
    for number in range(1, 21):
        ann.send(f"PUB a {number}")
        if number % 3 == 0:
            nodes.servers[0].turn()
            REACTOR.iterate(0)
        if number % 5 == 0:
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            nodes.until(nodes.are_ready)
    answers: list[str] = []

    def are_answered() -> bool:
        answers.extend(line for line in ann.received() if line.startswith(("OK", "ERR")))
        return len(answers) == 20

    nodes.until(are_answered)
    events = [line.split() for line in nodes.send(nodes.client(nodes.add()), "HIST a") if line.startswith("MSG")]
    published = {int(offset): int(payload) for _, _, offset, _, payload in events}
    assert list(published) == list(range(1, len(published) + 1))
    assert list(published.values()) == sorted(set(published.values()))
    confirmed = {int(answer.split()[1]): number for number, answer in enumerate(answers, 1) if answer[:2] == "OK"}
    assert confirmed.items() <= published.items() and len(confirmed) > 5


def lose_reply(nodes: Nodes) -> None:
    """Resume Redis, which executes a publication, and cut the connection before its reply is read."""
    for _ in range(5):
        nodes.servers[0].turn()
        REACTOR.iterate(0)
    nodes.redis.resume()
    deadline = time.monotonic() + 5
    while nodes.redis.ask("XLEN", "sockbridge:log:a") < 2:  # meanwhile, nothing is read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    nodes.connections[0].link.fail("test")


def test_a_publication_that_redis_has_done_before_the_cut_is_found_by_its_token(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis, timing=SLOW)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    redis.pause()
    ann.send("PUB a 1")
    lose_reply(nodes)
    nodes.until(nodes.are_ready)
    assert nodes.lines(ann, 2) == ["OK 1", "MSG a 1 n1-p1 1"]
    assert payloads(nodes.lines(bob, 1)) == ["1"]
    assert redis.ask("XLEN", "sockbridge:log:a") == 2


def test_a_publication_with_a_key_that_redis_has_done_before_the_cut_is_no_repeated_one(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis, timing=SLOW)
    nodes.client(0, "SUB a")
    redis.pause()
    answers: list[int | Error] = []
    publication = Publication(b"a", Payloads((b"x",), 1), key=b"k", fingerprint=b"f")
    on_result(nodes.servers[0].broker.publish(Client(b"n1-p9"), publication), answers.append)
    lose_reply(nodes)
    nodes.until(lambda: answers)
    assert answers == [1] and not isinstance(answers[0], RepeatedOffset)
    assert redis.ask("XLEN", "sockbridge:log:a") == 2


def test_a_publication_without_a_reply_for_too_long_may_have_been_published(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis, timing=SLOW)
    ann = nodes.client(0, "SUB a")
    redis.pause()
    ann.send("PUB a 1")
    nodes.servers[0].turn()
    REACTOR.iterate(0)
    redis.kill()
    assert nodes.lines(ann, 1) == [
        "ERR unavailable may have been published: the connection to Redis was lost before the reply"
    ]
    assert nodes.send(ann, "PUB a 2")[0].startswith("ERR unavailable")


def test_a_flushed_database_is_told_to_readers(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis)
    ann = nodes.client(0, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    redis.ask("FLUSHALL")
    assert nodes.lines(ann, 1)[0].endswith(" good=0 offset=0")
    assert nodes.send(ann, "PUB a 3")[0] == "OK 1"


def test_a_publication_right_after_a_flush_follows_the_reset(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis, timing=SLOW)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    nodes.lines(bob, 2)
    redis.ask("FLUSHALL")
    ann.send("PUB a 3")
    reset, answer, event = nodes.lines(ann, 3)
    assert reset.endswith(" good=0 offset=0") and (answer, event) == ("OK 1", "MSG a 1 n1-p1 3")
    assert [line.split()[0] for line in nodes.lines(bob, 2)] == ["RESET", "MSG"]


def test_redis_without_memory_rejects_publications_until_it_has_some(new_redis, make_nodes) -> None:
    redis = new_redis("--maxmemory-policy", "noeviction")
    nodes = make_nodes(redis)
    ann = nodes.client(0, "SUB a")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    assert nodes.send(ann, "PUB a 1") == ["ERR unavailable Redis is out of memory: try again later"]
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert nodes.send(ann, "PUB a 2")[0] == "OK 1"


def test_scripts_that_redis_has_forgotten_are_loaded_again(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis, count=1)
    ann = nodes.client(0, "SUB a")
    redis.ask("SCRIPT", "FLUSH")
    for number in range(1, 6):
        ann.send(f"PUB a {number}")
        nodes.servers[0].turn()
        REACTOR.iterate(0)
    assert payloads(nodes.lines(ann, 10)) == ["1", "2", "3", "4", "5"]
    assert sum(line.startswith("connected") for line in nodes.connections[0].log.lines) == 1


def test_a_server_that_becomes_a_replica_is_not_used(new_redis, make_nodes) -> None:
    redis = new_redis("--replica-read-only", "yes")
    nodes = make_nodes(redis, count=1)
    ann = nodes.client(0, "SUB a")
    nodes.send(ann, "PUB a 1")
    redis.ask("REPLICAOF", "127.0.0.1", "1")
    nodes.wait_for_loss()
    assert nodes.send(ann, "PUB a 2")[0].startswith("ERR unavailable")
    redis.ask("REPLICAOF", "NO", "ONE")
    nodes.until(nodes.are_ready)
    assert nodes.lines(ann, 1)[0].endswith(" good=1 offset=1")


def test_members_of_a_node_that_was_silent_leave_and_join_again(new_redis, make_nodes) -> None:
    nodes = make_nodes(new_redis(), count=1, timing=replace(TIMING, renew=60))
    nodes.client(0, "NICK ann", "SUB a", "WHO a")  # the reply to the last means that others know of it
    bob = nodes.client(nodes.add(), "SUB a presence=on")
    assert nodes.lines(bob, 1) == ["LEAVE a n1-p1 ann"]
    nodes.connections[0].link.fail("test")  # it renews its lease when it connects
    nodes.until(nodes.are_ready)
    assert nodes.lines(bob, 1) == ["JOIN a n1-p1 ann"]
    assert sorted(nodes.send(bob, "WHO a")) == ["MEMBER a n1-p1 ann", "MEMBER a n2-p1 n2-p1", "OK 2"]


def test_members_are_listed_again_when_redis_has_lost_them(new_redis, make_nodes) -> None:
    nodes = make_nodes(new_redis())
    nodes.client(0, "NICK ann", "SUB a", "WHO a")  # the reply to the last means that others know of it
    bob = nodes.client(1, "SUB a presence=on")
    restart(nodes)
    nodes.until(lambda: nodes.send(bob, "WHO a")[-1] == "OK 2")
    assert not [line for line in bob.received() if line.startswith(("JOIN", "LEAVE"))]


def test_members_are_right_after_an_old_snapshot(new_redis, make_nodes) -> None:
    """The snapshot has a member that has left since, and lacks one that has joined."""
    redis = new_redis()
    nodes = make_nodes(redis)
    watcher, ann, bob = nodes.client(1), nodes.client(0, "NICK ann", "SUB a", "WHO a"), nodes.client(0, "NICK bob")
    redis.ask("SAVE")
    nodes.send(ann, "UNSUB a")
    nodes.send(bob, "SUB a", "WHO a")
    restart(nodes)
    nodes.until(lambda: nodes.send(watcher, "WHO a") == ["MEMBER a n1-p2 bob", "OK 1"])


def test_members_that_come_and_go_while_redis_is_away_are_reported_later(new_redis, make_nodes) -> None:
    redis = new_redis("--appendonly", "yes", "--appendfsync", "always")
    nodes = make_nodes(redis, timing=SLOW)
    ann, bob = nodes.client(0, "SUB a", "WHO a"), nodes.client(1, "SUB a presence=on")
    redis.kill()
    nodes.wait_for_loss()
    ann.disconnect()
    redis.start()
    nodes.until(nodes.are_ready)
    assert "LEAVE a n1-p1 n1-p1" in nodes.lines(bob, 2)
    assert nodes.send(bob, "WHO a")[-1] == "OK 1"


def test_a_node_that_stops_reports_that_its_members_left(new_redis, make_nodes) -> None:
    nodes = make_nodes(new_redis(), timing=SLOW)
    nodes.client(0, "SUB a", "WHO a")
    bob = nodes.client(1, "SUB a presence=on")
    stopped: list[object] = []
    nodes.connections[0].backplane.stop().then(stopped.append)
    assert nodes.lines(bob, 1) == ["LEAVE a n1-p1 n1-p1"]
    nodes.until(lambda: stopped)
