"""The Sentinels, whose answers the test gives, with a clock of its own."""

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from twistedsock.redis.address import Address, Place
from twistedsock.redis.connection import Surroundings, Timing
from twistedsock.redis.sentinel import Sentinels

HELLO = b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n"

SUBSCRIBED = b">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n"


def answer(host: str, epoch: int) -> bytes:
    """The reply to SENTINEL MASTER."""
    fields = ("ip", host, "port", "6379", "config-epoch", str(epoch))
    return b"%3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(field), field.encode()) for field in fields)


class Peers:
    """Some Sentinels, and the one who asks them. ``events`` are the calls of its user and its reports."""

    def __init__(self, count: int = 2, read: Any = "", **options: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.events: list[Any] = []
        self.protocols: list[Any] = []
        self.transports: list[StringTransport] = []
        sentinels = tuple(Place(f"10.0.0.{number}", 26379) for number in range(count))
        address = Address(sentinels=sentinels, master="main", **options)
        timing = Timing(probe=3, connect=10, first_retry=1, longest_retry=4)
        surroundings = Surroundings(self.reactor, lambda: 1.0, timing)
        self.sentinels = Sentinels(address, lambda: self._read(read), surroundings, self)
        self.sentinels.start(lambda host, port: self.events.append(("moved", host, port)))
        for number in range(count):
            self.accept(number)

    def _read(self, password: Any) -> str:
        if isinstance(password, Exception):
            raise password
        return str(password)

    def locate(self) -> None:
        self.sentinels.locate(
            lambda host, port: self.events.append(("found", host, port)), lambda reason: self.events.append(reason)
        )

    def taken(self) -> list[Any]:
        taken, self.events = self.events, []
        return taken

    # Reports.

    def connected(self, server: str) -> None: ...

    def unavailable(self, reason: str) -> None: ...

    def danger(self, sentence: str) -> None:
        self.events.append(("danger", sentence))

    # Actions of the Sentinels.

    def accept(self, number: int) -> None:
        """Accept the newest connection."""
        factory = self.reactor.tcpClients[number][2]
        protocol, transport = factory.buildProtocol(None), StringTransport()
        transport.abortConnection = lambda: None  # type: ignore[method-assign]
        protocol.makeConnection(transport)
        self.protocols.append(protocol)
        self.transports.append(transport)

    def greet(self, number: int, host: str, epoch: int) -> None:
        """The replies to the first calls."""
        self.protocols[number].dataReceived(HELLO + SUBSCRIBED + answer(host, epoch))

    def close(self, *numbers: int) -> None:
        for number in numbers:
            self.protocols[number].connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def peers() -> Peers:
    return Peers()


def test_waits_for_the_first_answer(peers: Peers) -> None:
    peers.locate()
    assert peers.taken() == []
    peers.greet(1, "10.0.1.1", 4)
    assert peers.taken() == [("found", "10.0.1.1", 6379)]
    peers.locate()
    assert peers.taken() == [("found", "10.0.1.1", 6379)]


def test_the_newest_configuration_counts(peers: Peers) -> None:
    peers.greet(0, "10.0.1.1", 4)
    peers.greet(1, "10.0.1.2", 5)
    assert peers.taken() == [("moved", "10.0.1.2", 6379)]
    peers.locate()
    assert peers.taken() == [("found", "10.0.1.2", 6379)]


def test_a_sentinel_with_an_older_configuration_does_not_count_when_the_others_are_away(peers: Peers) -> None:
    peers.greet(0, "10.0.1.1", 4)
    peers.greet(1, "10.0.1.2", 5)
    peers.taken()
    peers.close(1)
    peers.locate()
    assert peers.taken() == [("found", "10.0.1.2", 6379)]


def test_sentinels_that_count_again_from_0_are_believed_when_all_do(peers: Peers) -> None:
    peers.greet(0, "10.0.1.1", 4)
    peers.greet(1, "10.0.1.1", 4)
    peers.close(0, 1)
    peers.taken()
    peers.reactor.advance(1)
    for number in (2, 3):
        peers.accept(number)
        peers.greet(number, "10.0.1.2", 0)
    assert peers.taken() == [("moved", "10.0.1.2", 6379)]


def test_a_switch_is_asked_about_at_once(peers: Peers) -> None:
    peers.greet(0, "10.0.1.1", 4)
    peers.transports[0].clear()
    for name in (b"other", b"main"):
        message = name + b" 10.0.1.1 6379 10.0.1.2 6379"
        peers.protocols[0].dataReceived(
            b">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$%d\r\n%b\r\n" % (len(message), message)
        )
    assert peers.transports[0].value().count(b"SENTINEL") == 1
    peers.protocols[0].dataReceived(answer("10.0.1.2", 5))
    assert peers.taken() == [("moved", "10.0.1.2", 6379)]


def test_each_sentinel_is_asked_regularly(peers: Peers) -> None:
    peers.greet(0, "10.0.1.1", 4)
    for epoch in (4, 5):
        peers.transports[0].clear()
        peers.reactor.advance(3)
        assert peers.transports[0].value().count(b"SENTINEL") == 1
        peers.protocols[0].dataReceived(answer(f"10.0.1.{epoch}", epoch))
    assert peers.taken() == [("moved", "10.0.1.4", 6379), ("moved", "10.0.1.5", 6379)]


def test_fails_when_all_sentinels_have_failed(peers: Peers) -> None:
    peers.locate()
    peers.protocols[0].dataReceived(HELLO + SUBSCRIBED + b"-ERR No such master with that name\r\n")
    assert peers.taken() == []
    peers.close(1)
    reasons = (
        "10.0.0.0:26379: the Sentinel knows no master with the name 'main'",
        "10.0.0.1:26379: the connection was closed: Connection was closed cleanly",
    )
    assert peers.taken() == [f"no Sentinel answers: {', '.join(reasons)}"]


def test_reports_once_that_no_failover_can_be_noticed() -> None:
    peers = Peers(1)
    peers.greet(0, "10.0.1.1", 4)
    peers.close(0)
    for number in (1, 2):
        peers.reactor.advance(1)
        connector = peers.reactor.connectors[number]
        peers.reactor.tcpClients[number][2].clientConnectionFailed(connector, Failure(ConnectionRefusedError(111)))
        peers.reactor.advance(1)
    ((kind, sentence),) = peers.taken()
    assert kind == "danger" and sentence.startswith("no Sentinel answers: 10.0.0.0:26379: the connection was closed")
    assert sentence.endswith(": a failover cannot be noticed")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-NOAUTH HELLO must be called with the client already authenticated\r\n", "the Sentinel refuses the connec"),
        (HELLO + SUBSCRIBED + b"-ERR unknown command 'SENTINEL'\r\n", "the Sentinel refuses the connection: ERR unk"),
        (HELLO + SUBSCRIBED + b"+OK\r\n", "this is not a Sentinel"),
    ],
)
def test_others_are_refused_in_words(reply: bytes, reason: str) -> None:
    peers = Peers(1)
    peers.locate()
    peers.protocols[0].dataReceived(reply)
    (found,) = peers.taken()
    assert found.startswith(f"no Sentinel answers: 10.0.0.0:26379: {reason}")


def test_authenticates_with_a_password_of_its_own() -> None:
    peers = Peers(1, "new", user="ann", password="redis", sentinel_user="bob", sentinel_password="old")
    assert b"$4\r\nAUTH\r\n$3\r\nbob\r\n$3\r\nnew\r\n" in peers.transports[0].value()
    peers = Peers(1, password="redis")
    assert b"AUTH" not in peers.transports[0].value()


def test_a_password_that_cannot_be_read_is_reported_without_it() -> None:
    peers = Peers(1, PermissionError(13, "Permission denied", "/secret"))
    peers.locate()
    assert peers.taken() == [
        "no Sentinel answers: 10.0.0.0:26379: cannot read the file of the password: Permission denied"
    ]


def test_a_stop_ends_all_connections(peers: Peers) -> None:
    peers.greet(0, "10.0.1.1", 4)
    peers.sentinels.stop()
    assert all(transport.disconnecting for transport in peers.transports)
    peers.close(0, 1)
    assert peers.reactor.getDelayedCalls() == []
