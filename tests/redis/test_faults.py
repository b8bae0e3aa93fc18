"""Whole servers without sockets for clients, on a real Redis that fails."""

import time

import pytest
from msgspec.structs import asdict, replace

from tests.end_to_end.programs import CuttingProxy, free_ports
from tests.redis.nodes import SLOW, Nodes, epoch_of, payloads, restart
from tests.redis.servers import RedisServer
from tests.redis.stage import REACTOR, TIMING
from twistedsock.errors import Error
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication, RepeatedOffset
from twistedsock.redis import event_scripts
from twistedsock.redis.address import Address
from twistedsock.redis.connection import Timing

pytestmark = pytest.mark.end_to_end


def test_redis_that_is_killed_with_its_data_on_disk_loses_nothing(new_redis, make_nodes) -> None:
    redis = new_redis("--appendonly", "yes", "--appendfsync", "always")
    nodes = make_nodes(redis)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    nodes.lines(bob, 2)
    restart(nodes, redis)
    (reset,) = nodes.lines(bob, 1)
    assert reset.startswith("RESET a epoch=") and reset.endswith(" good=2 offset=2")
    nodes.send(ann, "PUB a 3")
    assert nodes.lines(bob, 1) == ["MSG a 3 n1-p1 3"]


def test_redis_that_is_killed_without_data_begins_again(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1", "PUB a 2")
    nodes.lines(bob, 2)
    restart(nodes, redis)
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
    restart(nodes, redis)
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
    restart(nodes, redis)
    nodes.send(ann, "PUB a 4")
    redis.ask("SAVE")
    nodes.send(ann, "PUB a 5")
    restart(nodes, redis)
    assert nodes.lines(ann, 1)[-1].endswith(" good=3 offset=3")
    fresh = nodes.client(nodes.add())
    for since in (1, 2, 3):  # two epochs ago: it is not claimed that nothing was missed
        assert nodes.send(fresh, f"SUB a since={since} epoch={epoch}")[0].endswith("recovered=no")
        nodes.send(fresh, "UNSUB a")


def test_servers_that_continue_from_the_same_entry_never_name_their_epochs_alike(new_redis) -> None:
    """Also if their clocks are behind: the epoch of the entry is in the future."""
    redis, epochs = new_redis(), set[bytes]()
    for fence in (b"f0" * 20, b"0f" * 20, b"a" * 40):
        redis.ask("FLUSHALL")
        fields = ("f", b"1" * 40, "p", "", "n", 1, "t", 1, "z", 1, "k", "", "b", "x")
        redis.ask("XADD", "log", "4000000000000000-1", *fields)
        reply = redis.ask("EVAL", event_scripts.OPEN.text, 1, "log", fence, 10, 1000, 1000, 1000, "", 0)
        assert reply[2] == b"4000000000000000-1"
        epochs.add(reply[0])
    assert len(epochs) == 3


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


def test_a_redis_that_is_paused_for_ten_seconds_has_each_publication_once(new_redis, make_nodes) -> None:
    """With a quarter of the times of a real server, and of the ten seconds."""
    usual = asdict(Timing())
    redis = new_redis()
    nodes = make_nodes(redis, timing=Timing(**{name: seconds / 4 for name, seconds in usual.items()}))
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    redis.pause()
    ann.send("PUB a 1")
    nodes.wait(10 / 4)
    assert not nodes.are_ready() and nodes.send(bob, "PUB a 2")[-1].startswith("ERR unavailable")
    redis.resume()
    lines = nodes.lines(ann, 2)
    assert "OK 1" in lines and payloads(lines) == ["1"]
    nodes.until(nodes.are_ready)
    nodes.send(bob, "PUB a 3")
    assert payloads(nodes.lines(ann, 1)) == ["3"]
    assert payloads(nodes.send(nodes.client(0), "HIST a")) == ["1", "3"]


def test_a_slow_script_of_another_program_makes_publications_fail_and_loses_none(new_redis, make_nodes) -> None:
    """Redis answers BUSY to all commands while a script runs for longer than a limit."""
    redis = new_redis("--lua-time-limit", "50")
    nodes = make_nodes(redis, timing=SLOW)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1")
    with redis.running("EVAL", "while true do end", 0):
        time.sleep(0.2)
        nodes.until(lambda: nodes.send(ann, "PUB a 2")[-1].startswith("ERR unavailable"))
        assert "Redis has rejected a call: BUSY" in nodes.connections[0].log.lines[-1]
        redis.ask("SCRIPT", "KILL")
    nodes.send(ann, "PUB a 3")
    assert payloads(nodes.lines(bob, 2)) == ["1", "3"]


def test_a_network_that_is_interrupted_is_noticed_and_nothing_is_lost(new_redis, make_nodes) -> None:
    """Both ends of the connection stay open, and what was on its way arrives late."""
    (port,) = free_ports(1)
    redis = new_redis("--port", str(port))
    proxy = CuttingProxy(port)
    nodes = make_nodes(redis, count=1)
    nodes.add(address=Address("127.0.0.1", proxy.own_port))
    bob, ann = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    nodes.send(ann, "PUB a 1")
    proxy.holds = True
    ann.send("PUB a 2")
    nodes.until(lambda: not nodes.connections[1].backplane.is_ready)
    assert "OK 2" in nodes.send(bob, "PUB a 3")
    proxy.holds = False
    nodes.until(nodes.are_ready)
    nodes.send(bob, "PUB a 4")
    lines = nodes.lines(ann, 4)
    proxy.close()
    history = payloads(nodes.send(nodes.client(0), "HIST a"))
    assert history[:2] == ["1", "3"] and sorted(history[2:]) == ["2", "4"]
    assert payloads(lines) == history[1:] and sum(line.startswith("OK ") for line in lines) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--user default on nopass ~* &* +@all -info", "NOPERM"),
        ("--rename-command INFO hidden", "ERR unknown command"),
    ],
)
def test_a_server_that_hides_its_run_is_refused_in_words(new_redis, make_nodes, options: str, words: str) -> None:
    """As some managed services do."""
    redis = new_redis(*options.split())
    nodes = make_nodes(redis, count=0)
    nodes.add_unready(redis.address)
    log = nodes.connections[0].log
    nodes.until(lambda: log.lines)
    assert log.lines[0].startswith(f"unavailable: the server does not answer INFO ({words}")
    assert "hides master_replid" in log.lines[0] and not nodes.connections[0].backplane.is_ready


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


def lose_reply(nodes: Nodes, redis: RedisServer) -> None:
    """Resume Redis, which executes a publication, and cut the connection before its reply is read."""
    for _ in range(5):
        nodes.servers[0].turn()
        REACTOR.iterate(0)
    redis.resume()
    deadline = time.monotonic() + 5
    while redis.ask("XLEN", "sockbridge:log:a") < 2:  # meanwhile, nothing is read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    nodes.connections[0].link.fail("test")


def test_a_publication_that_redis_has_done_before_the_cut_is_found_by_its_token(new_redis, make_nodes) -> None:
    redis = new_redis()
    nodes = make_nodes(redis, timing=SLOW)
    ann, bob = nodes.client(0, "SUB a"), nodes.client(1, "SUB a")
    redis.pause()
    ann.send("PUB a 1")
    lose_reply(nodes, redis)
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
    lose_reply(nodes, redis)
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
    redis = new_redis()
    nodes = make_nodes(redis)
    nodes.client(0, "NICK ann", "SUB a", "WHO a")  # the reply to the last means that others know of it
    bob = nodes.client(1, "SUB a presence=on")
    restart(nodes, redis)
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
    restart(nodes, redis)
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
