"""Bytes leave at once and in their order, what a socket does not take waits, and who is gone harms nobody."""

from errno import EAGAIN, ECONNRESET, ENOBUFS, EPIPE
from types import SimpleNamespace

import pytest
from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twistedsock.limits.memory import MemoryBudget
from twistedsock.pubsub.subscription import REPLY_PENDING, SOCKET_FULL
from twistedsock.server.transport import (
    NOT_READING,
    BufferedOutlet,
    DirectTCPTransport,
    DirectUNIXTransport,
    detach_outlet,
    install_direct_writes,
    mark_input_ended,
    outlet_of,
)


class Listening(Protocol):
    def __init__(self):
        self.heard = bytearray()
        self.lost = None

    def dataReceived(self, data):
        self.heard += data

    def connectionLost(self, reason):
        self.lost = reason.type


@pytest.fixture
def transport(fake_socket, reactor):
    """A connected transport that sends at once; ``drained`` counts its calls."""
    transport = DirectTCPTransport(fake_socket, Listening(), ("127.0.0.1", 50000), None, 1, reactor)
    transport.listening = transport.protocol
    transport.listening.makeConnection(transport)
    transport.drained = 0

    def drained():
        transport.drained += 1

    transport.on_drained = drained
    return transport


def test_bytes_leave_before_write_returns(transport, fake_socket, reactor):
    transport.write(b"one ")
    assert transport.try_write(b"two ")
    transport.writeSequence([b"three ", b"four"])
    transport.write(b"")
    assert fake_socket.sent == b"one two three four"
    assert (fake_socket.sends, transport.blocked) == (3, 0)
    assert transport not in reactor.writers


def test_what_the_socket_does_not_take_waits_and_keeps_its_order(transport, fake_socket, reactor):
    fake_socket.room = 3
    assert transport.try_write(b"abcdef")
    assert transport.blocked == SOCKET_FULL
    assert not transport.try_write(b"not taken")
    transport.write(b"ghi")
    assert (fake_socket.sent, fake_socket.sends) == (b"abc", 1)
    assert transport in reactor.writers
    fake_socket.room = None
    transport.doWrite()
    assert fake_socket.sent == b"abcdefghi"
    assert transport.blocked == 0
    assert transport not in reactor.writers


@pytest.mark.parametrize("full", [EAGAIN, ENOBUFS])
def test_a_full_socket_is_no_error(transport, fake_socket, full):
    fake_socket.error = full
    assert transport.try_write(b"abc")
    assert transport.blocked == SOCKET_FULL
    transport.doWrite()
    assert transport.blocked == SOCKET_FULL
    fake_socket.error = None
    transport.doWrite()
    assert (fake_socket.sent, transport.blocked) == (b"abc", 0)


def test_drained_is_told_in_a_turn_of_its_own(transport, fake_socket, reactor):
    """Whoever sees the socket writable may close the connection right behind it, before it has looked what we wrote."""
    fake_socket.room = 0
    transport.write(b"abc")
    fake_socket.room = None
    transport.doWrite()
    assert transport.drained == 0
    reactor.turn()
    assert transport.drained == 1
    reactor.turn()
    assert transport.drained == 1


def test_drained_is_not_told_where_something_waits_again(transport, fake_socket, reactor):
    fake_socket.room = 0
    transport.write(b"abc")
    fake_socket.room = 3
    transport.doWrite()
    transport.write(b"def")
    reactor.turn()
    assert (transport.blocked, transport.drained) == (SOCKET_FULL, 0)


def test_drained_is_not_told_where_nothing_had_waited(transport, reactor):
    transport.write(b"abc")
    reactor.turn()
    assert transport.drained == 0


def test_what_the_session_holds_back_is_not_offered_but_written(transport, fake_socket):
    transport.blocked |= REPLY_PENDING
    assert not transport.try_write(b"event")
    transport.write(b"reply")
    assert fake_socket.sent == b"reply"
    fake_socket.room = 0
    transport.write(b" more")
    fake_socket.room = None
    transport.doWrite()
    assert transport.blocked == REPLY_PENDING


@pytest.mark.parametrize("gone", [EPIPE, ECONNRESET])
def test_a_peer_that_does_not_read_is_still_read(transport, fake_socket, reactor, gone):
    """`printf … | nc` may be gone before its last line is read."""
    fake_socket.error = gone
    assert transport.try_write(b"thrown away")
    transport.write(b"thrown away, too")
    assert not transport.try_write(b"not taken")
    assert (transport.blocked, fake_socket.sends) == (NOT_READING, 1)
    assert transport not in reactor.writers
    fake_socket.incoming = [b"PUB kitchen 21.5\n"]
    assert transport.doRead() is None
    assert transport.listening.heard == b"PUB kitchen 21.5\n"
    assert transport.listening.lost is None


@pytest.mark.parametrize("gone", [EPIPE, ECONNRESET])
def test_a_peer_that_goes_while_bytes_wait_is_still_read(transport, fake_socket, reactor, gone):
    fake_socket.room = 1
    transport.write(b"abc")
    fake_socket.error = gone
    assert transport.doWrite() is None
    assert transport.blocked == NOT_READING
    assert transport not in reactor.writers
    reactor.turn()
    assert transport.drained == 1, "the session must go on: it would read no more"


def test_what_came_before_a_break_is_read_though_reading_was_paused(transport, fake_socket, reactor):
    fake_socket.room = 1
    transport.write(b"abc")
    transport.pauseProducing()
    fake_socket.incoming = [b"PUB kitchen 1\n", ECONNRESET]
    reactor.removeWriter(transport)
    transport.connectionLost(Failure(ConnectionLost()))  # as the reactor does it at a hang-up
    assert transport.listening.lost is None
    assert transport.blocked == NOT_READING
    reactor.turn()
    assert transport.drained == 1
    transport.resumeProducing()
    assert transport in reactor.readers
    transport.doRead()
    assert transport.listening.heard == b"PUB kitchen 1\n"
    why = transport.doRead()
    assert isinstance(why, ConnectionLost)
    transport.connectionLost(Failure(why))
    assert transport.listening.lost is ConnectionLost
    assert fake_socket.closed
    reactor.turn()
    assert transport.drained == 1


@pytest.mark.parametrize("gone", [EPIPE, ECONNRESET])
def test_a_client_that_is_only_written_to_is_gone_when_a_write_fails(transport, fake_socket, reactor, gone):
    """It has ended its stream, so no read would find out."""
    mark_input_ended(transport)
    transport.pauseProducing()
    fake_socket.error = gone
    assert transport.try_write(b"a comment")
    why = transport.doWrite()
    assert isinstance(why, ConnectionLost)
    transport.connectionLost(Failure(why))  # as the reactor does it
    assert transport.listening.lost is ConnectionLost and fake_socket.closed


def test_a_client_that_is_only_written_to_reads_on(transport, fake_socket):
    mark_input_ended(transport)
    fake_socket.room = 1
    transport.write(b"abc")
    fake_socket.room = None
    transport.doWrite()
    assert fake_socket.sent == b"abc" and transport.listening.lost is None


def test_a_client_that_ends_its_stream_when_a_write_has_failed_is_gone(transport, fake_socket, reactor):
    """The kernel tells of a reset once, to the write; to the read, the stream has ended."""
    fake_socket.error = EPIPE
    transport.write(b"abc")
    mark_input_ended(transport)
    reactor.turn()
    assert transport.listening.lost is ConnectionAborted


def test_another_transport_is_not_told_that_it_is_only_written_to():
    mark_input_ended(StringTransport())


@pytest.mark.parametrize("why", [ConnectionAborted, ConnectionDone])
def test_an_end_that_is_ours_does_not_wait_for_who_paused(transport, fake_socket, why):
    transport.pauseProducing()
    transport.connectionLost(Failure(why()))
    assert transport.listening.lost is why
    assert fake_socket.closed


def test_without_a_session_a_break_is_the_end(transport):
    transport.on_drained = None
    transport.pauseProducing()
    transport.connectionLost(Failure(ConnectionLost()))
    assert transport.listening.lost is ConnectionLost


def test_nothing_is_sent_after_the_end(transport, fake_socket):
    transport.connectionLost(Failure(ConnectionDone()))
    transport.write(b"abc")
    assert not transport.try_write(b"def")
    assert fake_socket.sends == 0


def test_closing_lets_what_waits_leave(transport, fake_socket, reactor):
    fake_socket.room = 1
    transport.write(b"abc")
    detach_outlet(transport, transport)
    transport.loseConnection()
    assert not transport.try_write(b"too late")
    fake_socket.room = None
    assert isinstance(transport.doWrite(), ConnectionDone)
    assert fake_socket.sent == b"abc"
    reactor.turn()
    assert transport.drained == 0


def test_closing_a_broken_connection_ends(transport, fake_socket):
    fake_socket.room = 1
    transport.write(b"abc")
    transport.loseConnection()
    fake_socket.error = EPIPE
    assert isinstance(transport.doWrite(), ConnectionLost)


def test_ending_our_stream_lets_what_waits_leave_first(transport, fake_socket):
    fake_socket.room = 1
    transport.write(b"abc")
    detach_outlet(transport, transport)
    transport.loseWriteConnection()
    fake_socket.room = None
    assert transport.doWrite() is None
    assert (fake_socket.sent, fake_socket.shut_down, fake_socket.closed) == (b"abc", True, False)


def test_a_push_producer_is_paused_and_resumed(transport, fake_socket):
    """The HTTP side of the web port writes through these transports, too."""
    calls = []
    producer = SimpleNamespace(
        pauseProducing=lambda: calls.append("pause"),
        resumeProducing=lambda: calls.append("resume"),
        stopProducing=lambda: calls.append("stop"),
    )
    transport.registerProducer(producer, True)
    transport.write(b"abc")
    assert calls == []
    fake_socket.room = 10
    transport.write(b"x" * 100_000)
    assert calls == ["pause"]
    fake_socket.room = None
    transport.doWrite()
    assert calls == ["pause", "resume"]


class FakePort:
    def __init__(self, transport):
        if transport is not None:
            self.transport = transport


@pytest.mark.parametrize("usual, ours", [(tcp.Server, DirectTCPTransport), (unix.Server, DirectUNIXTransport)])
def test_a_listening_port_makes_transports_that_send_at_once(usual, ours):
    port = FakePort(usual)
    memory_budget = MemoryBudget(1)
    install_direct_writes(port, memory_budget)
    assert issubclass(port.transport, ours)
    assert port.transport.memory_budget is memory_budget


def test_a_port_of_another_kind_is_left_alone():
    class Other(tcp.Server):
        pass

    port = FakePort(Other)
    install_direct_writes(port, MemoryBudget(1))
    assert port.transport is Other
    install_direct_writes(FakePort(None), MemoryBudget(1))


def test_a_transport_that_sends_at_once_is_its_own_outlet(transport, reactor):
    assert outlet_of(transport, reactor) is transport


@pytest.fixture
def queue():
    """Any other transport: it tells its producer when it is full."""
    return StringTransport()


def test_a_buffered_outlet_passes_everything_on(queue, reactor):
    outlet = outlet_of(queue, reactor)
    assert outlet.try_write(b"one ")
    outlet.write(b"two")
    assert queue.value() == b"one two"
    assert queue.producer is outlet
    assert queue.streaming


def test_a_buffered_outlet_takes_no_offers_while_its_transport_is_full(queue, reactor):
    outlet = BufferedOutlet(queue, reactor)
    drained = []
    outlet.on_drained = lambda: drained.append(True)
    outlet.pauseProducing()
    assert outlet.blocked == SOCKET_FULL
    assert not outlet.try_write(b"event")
    outlet.write(b"reply")
    assert queue.value() == b"reply"
    outlet.resumeProducing()
    assert (outlet.blocked, drained) == (0, [])
    reactor.turn()
    assert drained == [True]
    outlet.pauseProducing()
    outlet.resumeProducing()
    outlet.pauseProducing()
    reactor.turn()
    assert drained == [True]


def test_a_buffered_outlet_is_silent_after_the_end(queue, reactor):
    outlet = BufferedOutlet(queue, reactor)
    drained = []
    outlet.on_drained = lambda: drained.append(True)
    outlet.pauseProducing()
    outlet.resumeProducing()
    outlet.stopProducing()
    reactor.turn()
    assert drained == []
    assert not outlet.try_write(b"event")


def test_a_connection_that_is_let_go_can_close(queue, reactor):
    """Twisted never closes a connection whose producer is paused."""
    outlet = BufferedOutlet(queue, reactor)
    outlet.on_drained = lambda: None
    outlet.pauseProducing()
    detach_outlet(outlet, queue)
    assert queue.producer is None
    assert outlet.on_drained is None
