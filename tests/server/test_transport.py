"""Writing at once, in order, and with a full socket; connections that break or end; reachability checks."""

from errno import EAGAIN, ECONNRESET, ENOBUFS, EPIPE
from types import SimpleNamespace

import pytest
from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.fakes import FakeSocket
from twistedsock.limits.shares import MemoryBudget
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
        self.received = bytearray()
        self.lost = None

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason):
        self.lost = reason.type


@pytest.fixture
def transport(fake_socket, reactor):
    """A connected transport. ``drained`` counts the calls of its listener."""
    transport = DirectTCPTransport(fake_socket, Listening(), ("127.0.0.1", 50000), None, 1, reactor)
    transport.listening = transport.protocol
    transport.listening.makeConnection(transport)
    transport.drained = 0

    def drained():
        transport.drained += 1

    transport.drain_listener = SimpleNamespace(resume_writing=drained)
    return transport


def test_write_sends_at_once(transport, fake_socket, reactor):
    transport.write(b"one ")
    assert transport.try_write(b"two ")
    transport.writeSequence([b"three ", b"four"])
    transport.write(b"")
    assert fake_socket.sent == b"one two three four"
    assert (fake_socket.sends, transport.blocked) == (3, 0)
    assert transport not in reactor.writers


def test_unsent_bytes_of_connections_wait_apart(transport, fake_socket, reactor):
    other_socket = FakeSocket()
    other = DirectTCPTransport(other_socket, Listening(), ("127.0.0.1", 50001), None, 2, reactor)
    fake_socket.room = other_socket.room = 0
    transport.write(b"one")
    other.write(b"two")
    fake_socket.room = other_socket.room = None
    transport.doWrite()
    other.doWrite()
    assert (fake_socket.sent, other_socket.sent) == (b"one", b"two")


def test_twisted_cannot_add_bytes_for_all_connections(transport):
    """A method of Twisted's that did not create the list of waiting bytes would add to the one that all share."""
    with pytest.raises(AttributeError):
        tcp.Server.writeSequence(transport, [b"one"])


def test_connection_without_output_closes(transport, fake_socket, reactor):
    transport.loseConnection()
    assert isinstance(transport.doWrite(), ConnectionDone)


def test_unsent_bytes_wait_in_order(transport, fake_socket, reactor):
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
def test_full_socket_is_no_error(transport, fake_socket, full):
    fake_socket.error = full
    assert transport.try_write(b"abc")
    assert transport.blocked == SOCKET_FULL
    transport.doWrite()
    assert transport.blocked == SOCKET_FULL
    fake_socket.error = None
    transport.doWrite()
    assert (fake_socket.sent, transport.blocked) == (b"abc", 0)


def test_drain_listener_is_called_in_a_turn_of_its_own(transport, fake_socket, reactor):
    """The caller may close the connection before it looks at what was written."""
    fake_socket.room = 0
    transport.write(b"abc")
    fake_socket.room = None
    transport.doWrite()
    assert transport.drained == 0
    reactor.turn()
    assert transport.drained == 1
    reactor.turn()
    assert transport.drained == 1


def test_drain_listener_is_not_called_if_bytes_wait_again(transport, fake_socket, reactor):
    fake_socket.room = 0
    transport.write(b"abc")
    fake_socket.room = 3
    transport.doWrite()
    transport.write(b"def")
    reactor.turn()
    assert (transport.blocked, transport.drained) == (SOCKET_FULL, 0)


def test_drain_listener_is_not_called_if_nothing_waited(transport, reactor):
    transport.write(b"abc")
    reactor.turn()
    assert transport.drained == 0


def test_try_write_is_refused_while_the_session_blocks(transport, fake_socket):
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
def test_reads_client_that_no_longer_reads(transport, fake_socket, reactor, gone):
    """`printf …"""
    fake_socket.error = gone
    assert transport.try_write(b"thrown away")
    transport.write(b"thrown away, too")
    assert not transport.try_write(b"not taken")
    assert (transport.blocked, fake_socket.sends) == (NOT_READING, 1)
    assert transport not in reactor.writers
    fake_socket.incoming = [b"PUB kitchen 21.5\n"]
    assert transport.doRead() is None
    assert transport.listening.received == b"PUB kitchen 21.5\n"
    assert transport.listening.lost is None


@pytest.mark.parametrize("gone", [EPIPE, ECONNRESET])
def test_reads_client_that_leaves_while_bytes_wait(transport, fake_socket, reactor, gone):
    fake_socket.room = 1
    transport.write(b"abc")
    fake_socket.error = gone
    assert transport.doWrite() is None
    assert transport.blocked == NOT_READING
    assert transport not in reactor.writers
    reactor.turn()
    assert transport.drained == 1, "the session must go on: it would read no more"


def test_reads_input_before_a_break_although_reading_was_paused(transport, fake_socket, reactor):
    fake_socket.room = 1
    transport.write(b"abc")
    transport.pauseProducing()
    fake_socket.incoming = [b"PUB kitchen 1\n", ECONNRESET]
    reactor.removeWriter(transport)
    transport.connectionLost(Failure(ConnectionLost()))  # as the reactor does at a hang-up
    assert transport.listening.lost is None
    assert transport.blocked == NOT_READING
    reactor.turn()
    assert transport.drained == 1
    transport.resumeProducing()
    assert transport in reactor.readers
    transport.doRead()
    assert transport.listening.received == b"PUB kitchen 1\n"
    why = transport.doRead()
    assert isinstance(why, ConnectionLost)
    transport.connectionLost(Failure(why))
    assert transport.listening.lost is ConnectionLost
    assert fake_socket.closed
    reactor.turn()
    assert transport.drained == 1


@pytest.mark.parametrize("gone", [EPIPE, ECONNRESET])
def test_failed_write_ends_connection_whose_input_has_ended(transport, fake_socket, reactor, gone):
    mark_input_ended(transport)
    transport.pauseProducing()
    fake_socket.error = gone
    assert transport.try_write(b"a comment")
    why = transport.doWrite()
    assert isinstance(why, ConnectionLost)
    transport.connectionLost(Failure(why))  # as the reactor does
    assert transport.listening.lost is ConnectionLost and fake_socket.closed


def test_connection_whose_input_has_ended_continues_to_receive(transport, fake_socket):
    mark_input_ended(transport)
    fake_socket.room = 1
    transport.write(b"abc")
    fake_socket.room = None
    transport.doWrite()
    assert fake_socket.sent == b"abc" and transport.listening.lost is None


def test_input_that_ends_after_a_failed_write_ends_the_connection(transport, fake_socket, reactor):
    """The kernel reports a reset once, to the write. The read then finds the end of the stream."""
    fake_socket.error = EPIPE
    transport.write(b"abc")
    mark_input_ended(transport)
    reactor.turn()
    assert transport.listening.lost is ConnectionAborted


def test_mark_input_ended_ignores_other_transports():
    mark_input_ended(StringTransport())


@pytest.mark.parametrize("why", [ConnectionAborted, ConnectionDone])
def test_own_abort_does_not_wait_for_paused_input(transport, fake_socket, why):
    transport.pauseProducing()
    transport.connectionLost(Failure(why()))
    assert transport.listening.lost is why
    assert fake_socket.closed


def test_break_without_a_session_ends_the_connection(transport):
    transport.drain_listener = None
    transport.pauseProducing()
    transport.connectionLost(Failure(ConnectionLost()))
    assert transport.listening.lost is ConnectionLost


def test_sends_nothing_after_the_end(transport, fake_socket):
    transport.connectionLost(Failure(ConnectionDone()))
    transport.write(b"abc")
    assert not transport.try_write(b"def")
    assert fake_socket.sends == 0


def test_close_sends_waiting_bytes(transport, fake_socket, reactor):
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


def test_close_of_a_broken_connection_ends(transport, fake_socket):
    fake_socket.room = 1
    transport.write(b"abc")
    transport.loseConnection()
    fake_socket.error = EPIPE
    assert isinstance(transport.doWrite(), ConnectionLost)


def test_half_close_sends_waiting_bytes_first(transport, fake_socket):
    fake_socket.room = 1
    transport.write(b"abc")
    detach_outlet(transport, transport)
    transport.loseWriteConnection()
    fake_socket.room = None
    assert transport.doWrite() is None
    assert (fake_socket.sent, fake_socket.shut_down, fake_socket.closed) == (b"abc", True, False)


def test_pauses_and_resumes_push_producer(transport, fake_socket):
    """The HTTP responses use producers."""
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
def test_installs_direct_writes_on_a_port(usual, ours):
    port = FakePort(usual)
    memory_budget = MemoryBudget(1)
    install_direct_writes(port, memory_budget)
    assert issubclass(port.transport, ours)
    assert port.transport.memory_budget is memory_budget


def test_leaves_other_ports_unchanged():
    class Other(tcp.Server):
        pass

    port = FakePort(Other)
    install_direct_writes(port, MemoryBudget(1))
    assert port.transport is Other
    install_direct_writes(FakePort(None), MemoryBudget(1))


def test_direct_transport_is_its_own_outlet(transport, reactor):
    assert outlet_of(transport, reactor) is transport


@pytest.fixture
def queue():
    """Another transport, which pauses its producer when it is full."""
    return StringTransport()


@pytest.fixture
def outlet(queue, reactor):
    """The outlet of ``queue``. ``drained`` counts the calls of its listener."""
    outlet = BufferedOutlet(queue, reactor)
    outlet.drained = 0

    def drained():
        outlet.drained += 1

    outlet.drain_listener = SimpleNamespace(resume_writing=drained)
    return outlet


def test_buffered_outlet_writes_to_its_transport(queue, reactor):
    outlet = outlet_of(queue, reactor)
    assert outlet.try_write(b"one ")
    outlet.write(b"two")
    assert queue.value() == b"one two"
    assert queue.producer is outlet
    assert queue.streaming


def test_buffered_outlet_refuses_try_write_while_its_transport_is_full(outlet, queue, reactor):
    outlet.pauseProducing()
    assert outlet.blocked == SOCKET_FULL
    assert not outlet.try_write(b"event")
    outlet.write(b"reply")
    assert queue.value() == b"reply"
    outlet.resumeProducing()
    assert (outlet.blocked, outlet.drained) == (0, 0)
    reactor.turn()
    assert outlet.drained == 1
    outlet.pauseProducing()
    outlet.resumeProducing()
    outlet.pauseProducing()
    reactor.turn()
    assert outlet.drained == 1


def test_buffered_outlet_is_silent_after_the_end(outlet, reactor):
    outlet.pauseProducing()
    outlet.resumeProducing()
    outlet.stopProducing()
    reactor.turn()
    assert outlet.drained == 0
    assert not outlet.try_write(b"event")


def test_detached_connection_can_close(outlet, queue):
    """Twisted never closes a connection whose producer is paused."""
    outlet.pauseProducing()
    detach_outlet(outlet, queue)
    assert queue.producer is None
    assert outlet.drain_listener is None
