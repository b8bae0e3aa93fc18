"""The connection to Redis, with a server that the test plays and a clock of its own."""

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from twistedsock.redis.address import Address
from twistedsock.redis.connection import Surroundings, Timing
from twistedsock.redis.link import RedisLink
from twistedsock.redis.resp import SCRIPTS, Call, ConnectionLost
from twistedsock.redis.server import CHECKED_SETTINGS, Server

FENCE = "a" * 40

INFO = f"redis_version:7.0.15\r\nrun_id:{'b' * 40}\r\nloading:0\r\nrole:master\r\nmaster_replid:{FENCE}\r\n"

TIMING = Timing(probe=3, connect=10, first_retry=1, longest_retry=4)


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


class Peer:
    """A link, and the server to which it connects. ``events`` are the calls of its user and its reports."""

    def __init__(self, address: Address | None = None, password: Any = "") -> None:
        self.reactor = MemoryReactorClock()
        self.events: list[Any] = []
        address = address or Address("127.0.0.1")
        surroundings = Surroundings(self.reactor, lambda: 1.0, TIMING)
        self.link = RedisLink(address, lambda: self._read(password), surroundings, self)
        self.link.start(self)
        self.protocol: Any
        self.transport: Any
        self.accept()

    def _read(self, password: Any) -> str:
        if isinstance(password, Exception):
            raise password
        return str(password)

    # Calls of the link.

    def connected(self, *arguments: Any) -> None:
        if len(arguments) > 1:
            self.events.append(("connected", *arguments))

    def unavailable(self, reason: str) -> None:
        self.events.append(reason)

    def danger(self, sentence: str) -> None:
        self.events.append(("danger", sentence))

    def disconnected(self) -> None:
        self.events.append("disconnected")

    def received(self, topic: bytes, message: bytes) -> None:
        self.events.append((topic, message))

    # Actions of the server.

    def accept(self) -> None:
        """Accept the newest connection."""
        factory = self.reactor.tcpClients[-1][2]
        self.protocol, self.transport = factory.buildProtocol(None), StringTransport()
        self.transport.abortConnection = lambda: self.events.append("aborted")
        self.protocol.makeConnection(self.transport)

    def refuse(self) -> None:
        connector = self.reactor.connectors[-1]
        self.reactor.tcpClients[-1][2].clientConnectionFailed(connector, Failure(ConnectionRefusedError(111)))

    def send(self, *replies: bytes) -> None:
        self.protocol.dataReceived(b"".join(replies))

    def greet(self, info: str = INFO, number: int = 7, settings: bytes = b"%0\r\n") -> None:
        """The replies to HELLO, CONFIG GET and INFO."""
        self.send(b"%%1\r\n$2\r\nid\r\n:%d\r\n" % number, settings * len(CHECKED_SETTINGS), bulk(info))

    def finish(self, killed: int = 0) -> None:
        """The replies to CLIENT KILL, SCRIPT LOAD and TIME."""
        self.send(b":1\r\n" * killed, b"+sha\r\n" * len(SCRIPTS), b"*2\r\n$4\r\n1000\r\n$6\r\n500000\r\n")

    def close(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def taken(self) -> list[Any]:
        taken, self.events = self.events, []
        return taken


SERVER = Server("Redis 7.0.15", FENCE.encode(), b"b" * 40)


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_a_server_is_used_when_it_has_been_examined_and_knows_the_scripts(peer: Peer) -> None:
    assert peer.transport.value().startswith(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n")
    peer.greet()
    assert peer.taken() == [] and peer.transport.value().count(b"SCRIPT") == len(SCRIPTS)
    peer.finish()
    assert peer.taken() == [("connected", SERVER, 1_000_500, True)]


def test_selects_the_database_and_authenticates() -> None:
    peer = Peer(Address("127.0.0.1", database=3, user="ann", password="old"), "new")
    start = b"*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$3\r\nnew\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
    assert peer.transport.value().startswith(start)
    peer = Peer(Address("127.0.0.1", password="old"))
    assert b"$4\r\nAUTH\r\n$7\r\ndefault\r\n$3\r\nold\r\n" in peer.transport.value()


def test_a_password_that_cannot_be_read_is_reported_without_it() -> None:
    peer = Peer(password=FileNotFoundError(2, "No such file or directory", "/secret"))
    assert peer.taken() == ["aborted", "cannot read the file of the password: No such file or directory"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n", "the server refuses the connection: WRONGPASS invalid"),
        (b"-ERR unknown command 'HELLO'\r\n", "the server is too old"),
        (b"HTTP/1.1 400\r\n", "not the protocol of Redis"),
    ],
)
def test_a_server_that_refuses_is_reported_once_and_tried_again(peer: Peer, reply: bytes, reason: str) -> None:
    for _ in range(3):
        peer.send(reply)
        events = peer.taken()
        assert events[0] == "aborted" and all(event.startswith(reason) for event in events[1:])
        peer.reactor.advance(4)
        peer.accept()
    assert len(peer.reactor.tcpClients) == 4


def test_an_unsuitable_server_is_reported(peer: Peer) -> None:
    peer.greet(INFO.replace("role:master", "role:slave"))
    assert peer.taken() == ["aborted", "the server is a replica: use the address of its master"]


def test_settings_are_reported_once(peer: Peer) -> None:
    settings = b"%1\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"
    peer.greet(settings=settings)
    ((kind, sentence),) = peer.taken()
    assert kind == "danger" and sentence.startswith("appendonly is off")
    peer.finish()
    peer.close()
    peer.reactor.advance(4)
    peer.accept()
    peer.taken()
    peer.greet(settings=settings)
    assert peer.taken() == []


def test_waits_longer_after_each_failure(peer: Peer) -> None:
    peer.close()
    waits = []
    for _ in range(5):
        before, seconds = len(peer.reactor.tcpClients), 0.0
        while len(peer.reactor.tcpClients) == before:
            peer.reactor.advance(0.5)
            seconds += 0.5
        waits.append(seconds)
        peer.refuse()
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert peer.taken() == [
        "the connection was closed: Connection was closed cleanly",
        "cannot connect: Connection refused",
    ]


def test_a_server_that_does_not_greet_is_given_up(peer: Peer) -> None:
    peer.reactor.advance(10)
    assert peer.taken() == ["aborted", "the server does not answer"]


@pytest.fixture
def used(peer: Peer) -> Peer:
    """A link that is connected."""
    peer.greet()
    peer.finish()
    peer.taken()
    peer.transport.clear()
    return peer


REPLICATION = bulk(f"role:master\r\nmaster_replid:{FENCE}\r\n")


def test_asks_whether_the_server_is_alive(used: Peer) -> None:
    for _ in range(3):
        used.reactor.advance(3)
        assert used.transport.value() == b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n"
        used.transport.clear()
        used.send(REPLICATION)
    assert used.taken() == []


def test_a_silent_server_is_given_up(used: Peer) -> None:
    replies: list[Any] = []
    used.link.send([Call((b"PING",), replies.append)])
    used.reactor.advance(3)
    used.reactor.advance(3)
    assert used.taken() == ["aborted", "disconnected", "no answer for 3 seconds"]
    assert [type(reply) for reply in replies] == [ConnectionLost]


def test_a_busy_server_is_alive(used: Peer) -> None:
    used.link.send([Call((b"PING",), lambda reply: None)])
    used.reactor.advance(3)
    for _ in range(5):
        used.send(b">3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$1\r\nx\r\n")
        used.reactor.advance(3)
    assert used.taken() == [(b"t", b"x")] * 5


@pytest.mark.parametrize(
    ("replication", "reason"),
    [
        (f"role:master\r\nmaster_replid:{'c' * 40}\r\n", "the server has begun another run"),
        (f"role:slave\r\nmaster_replid:{FENCE}\r\n", "the server is a replica: use the address of its master"),
    ],
)
def test_a_promotion_is_noticed(used: Peer, replication: str, reason: str) -> None:
    used.reactor.advance(3)
    used.send(bulk(replication))
    assert used.taken() == ["aborted", "disconnected", reason]


def connect_again(peer: Peer, info: str, number: int) -> bytes:
    """The bytes that the link sends after the greeting of the next connection."""
    peer.close()
    peer.reactor.advance(1)
    peer.accept()
    peer.transport.clear()
    peer.greet(info, number)
    return bytes(peer.transport.value())


def test_former_connections_are_closed_by_the_server_first(used: Peer) -> None:
    sent = connect_again(used, INFO, 8)
    assert sent.startswith(b"*4\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n$2\r\nID\r\n$1\r\n7\r\n")
    used.finish(killed=1)
    assert used.taken()[-1] == ("connected", SERVER, 1_000_500, True)
    sent = connect_again(used, INFO, 9)
    assert sent.count(b"KILL") == 1 and b"$1\r\n8\r\n" in sent


def test_a_server_that_does_not_close_former_connections_may_still_run_their_calls(used: Peer) -> None:
    connect_again(used, INFO, 8)
    used.send(b"-NOPERM this user has no permissions to run the 'client|kill' command\r\n")
    used.finish()
    assert used.taken()[-1] == ("connected", SERVER, 1_000_500, False)
    assert connect_again(used, INFO, 9).count(b"KILL") == 2


def test_another_process_has_no_former_connections(used: Peer) -> None:
    assert b"KILL" not in connect_again(used, INFO.replace("b" * 40, "d" * 40), 3)


def test_a_link_that_is_stopped_does_not_connect_again(used: Peer) -> None:
    used.link.stop()
    used.close()
    used.reactor.advance(60)
    assert len(used.reactor.tcpClients) == 1 and used.reactor.getDelayedCalls() == []
    assert used.taken() == ["disconnected"]
