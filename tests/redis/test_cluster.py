"""The servers of a Cluster and their slots, whose answers the test gives, with a clock of its own."""

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from twistedsock.redis.address import Address, Place
from twistedsock.redis.cluster import ClusterShards
from twistedsock.redis.connection import Surroundings, Timing
from twistedsock.redis.resp import SCRIPTS, RedisError
from twistedsock.redis.server import CHECKED_SETTINGS
from twistedsock.redis.shard import Shard
from twistedsock.redis.wire import SLOTS, Names

HELLO = b"%1\r\n$2\r\nid\r\n:7\r\n"

NAMES = Names(0, is_cluster=True)

ONE, OTHER = Place("10.0.0.1", 6379), Place("10.0.0.2", 6379)


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def slots(*owners: Place) -> bytes:
    """The reply to CLUSTER SLOTS if each server has as many."""
    ranges = []
    for number, owner in enumerate(owners):
        first, last = SLOTS * number // len(owners), SLOTS * (number + 1) // len(owners) - 1
        ranges.append(b"*3\r\n:%d\r\n:%d\r\n*2\r\n%b:%d\r\n" % (first, last, bulk(owner.host), owner.port))
    return b"*%d\r\n" % len(ranges) + b"".join(ranges)


class Peers:
    """The servers of a Cluster, of which the node knows the first. ``events`` are the calls of its user and its
    reports."""

    def __init__(self, *nodes: Place) -> None:
        self.reactor = MemoryReactorClock()
        self.events: list[Any] = []
        timing = Timing(probe=3, connect=10, first_retry=1, longest_retry=4)
        address = Address(nodes=nodes or (ONE,))
        surroundings = Surroundings(self.reactor, lambda: 1.0, timing)
        self.shards = ClusterShards(address, NAMES, lambda: "", surroundings, self)
        self.shards.start(self)
        self.reader = self.accept(0)

    def accept(self, number: int) -> Any:
        """Accept a connection: they are numbered in their order."""
        protocol, transport = self.reactor.tcpClients[number][2].buildProtocol(None), StringTransport()
        transport.abortConnection = lambda: None  # type: ignore[method-assign]
        protocol.makeConnection(transport)
        return protocol

    def places(self) -> list[tuple[str, int]]:
        """Where the node has connected to."""
        return [client[:2] for client in self.reactor.tcpClients]

    def make_ready(self, number: int, version: str = "7.0.15") -> None:
        protocol = self.accept(number)
        info = f"redis_version:{version}\r\nredis_mode:cluster\r\nrole:master\r\nmaster_replid:{'a' * 40}\r\n"
        protocol.dataReceived(HELLO + b"%0\r\n" * len(CHECKED_SETTINGS) + bulk(info))
        protocol.dataReceived(b"+sha\r\n" * len(SCRIPTS) + b"*2\r\n$4\r\n1000\r\n$6\r\n500000\r\n")

    def ask_again(self) -> None:
        """Wait until the node asks for the slots."""
        self.reactor.advance(3)

    def taken(self) -> list[Any]:
        self.reactor.advance(0)
        taken, self.events = self.events, []
        return taken

    # Calls of the servers.

    def connected(self, *arguments: Any) -> None:
        if isinstance(arguments[0], Shard):
            self.events.append("connected")

    def disconnected(self, shard: Shard) -> None:
        self.events.append("disconnected")

    def received(self, topic: bytes, message: bytes) -> None:
        self.events.append((topic, message))

    def unfollowed(self, shard: Shard, topic: bytes, reply: Exception | None) -> None:
        self.events.append(("unfollowed", topic, reply))

    def slots_changed(self) -> None:
        self.events.append("slots changed")

    # Reports.

    def unavailable(self, reason: str) -> None:
        self.events.append(reason)

    def danger(self, sentence: str) -> None: ...


@pytest.fixture
def peers() -> Peers:
    """Two servers with half of the slots each, which are connected."""
    peers = Peers()
    peers.reader.dataReceived(HELLO + slots(ONE, OTHER))
    for number in (1, 2):
        peers.make_ready(number)
    peers.taken()
    return peers


def channel_in(first: int, last: int) -> bytes:
    return next(name for name in (b"c%d" % number for number in range(1000)) if first <= NAMES.slot(name) <= last)


LOW, HIGH = channel_in(0, SLOTS // 2 - 1), channel_in(SLOTS // 2, SLOTS - 1)


def test_connects_to_each_server_that_has_slots() -> None:
    peers = Peers()
    assert peers.shards.of(LOW) is None and peers.shards.shared is None and not peers.shards.is_ready
    peers.reader.dataReceived(HELLO + slots(ONE, OTHER))
    assert peers.places()[1:] == [("10.0.0.1", 6379), ("10.0.0.2", 6379)]
    peers.make_ready(1)
    assert peers.taken() == ["connected", "slots changed"] and not peers.shards.is_ready
    peers.make_ready(2)
    assert peers.shards.is_ready
    assert peers.shards.of(LOW) is not peers.shards.of(HIGH)


@pytest.mark.parametrize("name", [b"a", b"a}b", b"}", b"{a}", b"{", b"{}"])
def test_the_names_of_a_channel_are_in_one_slot(name: bytes) -> None:
    for key in (NAMES.log(name), NAMES.topic(name), NAMES.publication_key(name, b"k")):
        tag = key.partition(b"{")[2].partition(b"}")[0]
        assert tag and tag == b":" + name.partition(b"}")[0]
    assert NAMES.channel(NAMES.topic(name)) == NAMES.channel(NAMES.members_topics + name) == name


def test_a_server_without_a_name_is_the_one_that_was_asked() -> None:
    peers = Peers()
    peers.reader.dataReceived(HELLO + slots(Place("", 6380), Place("?", 6381)))
    assert peers.places()[1:] == [("10.0.0.1", 6380), ("10.0.0.1", 6381)]


def test_a_server_that_has_no_slots_any_more_is_left(peers: Peers) -> None:
    shard = peers.shards.of(HIGH)
    assert shard is not None
    peers.ask_again()
    peers.reader.dataReceived(slots(ONE))
    assert peers.taken() == ["slots changed"] and peers.shards.is_ready
    assert peers.shards.of(HIGH) is peers.shards.of(LOW) and not shard.is_ready


def test_an_answer_without_a_change_changes_nothing(peers: Peers) -> None:
    peers.ask_again()
    peers.reader.dataReceived(slots(ONE, OTHER))
    assert peers.taken() == []


def test_follows_a_slot_that_has_moved(peers: Peers) -> None:
    low, high = peers.shards.of(LOW), peers.shards.of(HIGH)
    assert low is not None and high is not None
    moved = RedisError(f"MOVED {NAMES.slot(LOW)} 10.0.0.2:6379")
    assert peers.shards.redirect(low, moved) == (high, False)
    assert peers.shards.of(LOW) is high and peers.taken() == ["slots changed"]
    assert peers.shards.redirect(low, moved) == (high, False) and peers.taken() == []


def test_a_slot_that_is_moving_stays_where_it_is(peers: Peers) -> None:
    low, high = peers.shards.of(LOW), peers.shards.of(HIGH)
    assert low is not None and high is not None
    assert peers.shards.redirect(low, RedisError(f"ASK {NAMES.slot(LOW)} 10.0.0.2:6379")) == (high, True)
    assert peers.shards.of(LOW) is low and peers.taken() == []


def test_connects_to_a_server_of_which_it_learns_by_a_redirection(peers: Peers) -> None:
    low = peers.shards.of(LOW)
    assert low is not None
    redirect = peers.shards.redirect(low, RedisError(f"MOVED {NAMES.slot(LOW)} :6380"))
    assert redirect is not None and redirect.shard is not None and not redirect.shard.is_ready
    assert peers.places()[-1] == ("10.0.0.1", 6380)


@pytest.mark.parametrize(("text", "is_redirected"), [("TRYAGAIN", True), ("CLUSTERDOWN", True), ("OOM x", False)])
def test_other_errors(peers: Peers, text: str, is_redirected: bool) -> None:
    low = peers.shards.of(LOW)
    assert low is not None
    assert peers.shards.redirect(low, RedisError(text)) == ((None, False) if is_redirected else None)


def test_asks_the_next_server_if_one_does_not_answer() -> None:
    peers = Peers(ONE, OTHER)
    peers.reader.connectionLost(Failure(ConnectionDone()))
    assert peers.taken() == ["10.0.0.1:6379: the connection was closed: Connection was closed cleanly"]
    peers.reactor.advance(1)
    assert peers.places()[-1] == ("10.0.0.2", 6379)


def test_asks_another_server_if_a_server_is_away(peers: Peers) -> None:
    before = len(peers.places())
    peers.reactor.advance(3)
    peers.reactor.advance(3)  # the servers do not answer
    assert "disconnected" in peers.taken()
    peers.reactor.advance(4)
    assert len(peers.places()) > before + 2


def test_old_servers_send_messages_as_a_single_one_does() -> None:
    for version, has_shard_topics in (("6.2.14", False), ("7.0.15", True)):
        peers = Peers()
        peers.reader.dataReceived(HELLO + slots(ONE))
        peers.make_ready(1, version)
        shard = peers.shards.of(LOW)
        assert shard is not None and shard.has_shard_topics is has_shard_topics


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-WRONGPASS invalid\r\n", "the server refuses the connection: WRONGPASS invalid"),
        (HELLO + b"-ERR This instance has cluster support disabled\r\n", "the server is not a node of a Cluster"),
    ],
)
def test_others_are_refused_in_words(reply: bytes, reason: str) -> None:
    peers = Peers()
    peers.reader.dataReceived(reply)
    assert peers.taken()[0].startswith(f"10.0.0.1:6379: {reason}")


def test_a_stop_ends_all_connections(peers: Peers) -> None:
    peers.shards.stop()
    assert not peers.shards.is_ready
