"""TLS connections with a half-close, and without reference cycles after their end. The handshakes are real, the sockets
are not."""

import gc
import ssl
from types import SimpleNamespace

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.authority import Authority
from twistedsock.errors import CloseReason
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.tcp import LineFactory, LineProtocol
from twistedsock.server.tls import Certificates
from twistedsock.server.transport import BufferedOutlet, DirectTCPTransport
from twistedsock.server.twisted_internals import (
    MAX_BYTES_AFTER_CLOSE_NOTIFY,
    HalfCloseTLSTransport,
    install_half_close_tls,
)

ENDPOINT = "ssl:8443:privateKey=server.key:certKey=server.pem"

OURS = (HalfCloseTLSTransport, DirectTCPTransport, BufferedOutlet, LineProtocol)


def left():
    """The class names of our live objects."""
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, OURS)]


@pytest.fixture
def factory(no_collector, server, reactor, tmp_path):
    """The factory of a TLS port."""
    Authority(tmp_path).issue("server", "localhost")
    certificates = Certificates(ENDPOINT, tmp_path)
    lines = LineFactory(server.context, reactor, 0, listening=ListenerConfig(ENDPOINT))
    factory = TLSMemoryBIOFactory(certificates, False, lines, reactor)
    install_half_close_tls(SimpleNamespace(factory=factory))
    return factory


class Client:
    """The other end of a TLS connection whose server's end is ``transport``."""

    def __init__(self, socket, transport, reactor, version=ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._socket, self._transport, self._reactor = socket, transport, reactor

    def shake_hands(self):
        while True:
            try:
                self._tls.do_handshake()
                self._carry()
                return
            except ssl.SSLWantReadError:
                self._carry()

    def say(self, data, carry=True):
        self._tls.write(data)
        if carry:
            self._carry()

    def received(self):
        """All text that was received."""
        self._incoming.write(bytes(self._socket.sent))
        self._socket.sent.clear()
        text = b""
        try:
            while more := self._tls.read(65536):
                text += more
        except ssl.SSLError:  # no more input, or close_notify
            pass
        return text

    def close(self):
        """Send close_notify and end."""
        with pytest.raises(ssl.SSLError):  # unread input: at least close_notify
            self._tls.unwrap()
        self._carry()

    def sends_garbage(self):
        """Send a record that cannot be decrypted."""
        self._socket.incoming.append(b"\x17\x03\x03\x00\x20" + bytes(32))
        self._transport.doRead()

    def half_close(self):
        """Send close_notify, and continue to read."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._carry()

    def _carry(self):
        self._socket.incoming.append(self._outgoing.read())
        self._transport.doRead()
        self._reactor.turn()
        self._incoming.write(bytes(self._socket.sent))
        self._socket.sent.clear()


def never_speaks(client, socket, transport):
    pass


def is_no_tls(client, socket, transport):
    socket.incoming.append(b"SUB a\n")
    transport.doRead()


def goes_without_a_word(client, socket, transport):
    client.shake_hands()
    client.say(b"SUB a\nPUB a " + b"x" * 10_000)


def says_goodbye(client, socket, transport):
    client.shake_hands()
    client.say(b"SUB a\n")
    client.close()


def quits(client, socket, transport):
    client.shake_hands()
    client.say(b"QUIT\n")


def does_not_read(client, socket, transport):
    client.shake_hands()
    socket.room = 1_000
    client.say(b"HELP\n" * 200)
    assert transport.blocked


@pytest.mark.parametrize("reason", [ConnectionDone, ConnectionLost])
@pytest.mark.parametrize("act", [never_speaks, is_no_tls, goes_without_a_word, says_goodbye, quits, does_not_read])
def test_ended_connection_is_freed_without_garbage_collection(act, reason, factory, server, reactor, fake_socket):
    fake_socket.getsockname = lambda: ("127.0.0.1", 8443)
    protocol = factory.buildProtocol(None)
    transport = DirectTCPTransport(fake_socket, protocol, ("127.0.0.1", 50000), None, 1, reactor)
    protocol.makeConnection(transport)
    assert "HalfCloseTLSTransport" in left()
    client = Client(fake_socket, transport, reactor)
    act(client, fake_socket, transport)
    server.turn()
    if transport.connected:
        transport.connectionLost(Failure(reason()))
    reactor.advance(60)
    server.turn()
    reactor.readers.clear()
    reactor.writers.clear()
    del protocol, transport, client
    assert not left()


@pytest.fixture
def connect(factory, reactor, fake_socket):
    """A client after its handshake: ``connect(version)``."""
    fake_socket.getsockname = lambda: ("127.0.0.1", 8443)

    def make(version=ssl.TLSVersion.TLSv1_3):
        protocol = factory.buildProtocol(None)
        transport = DirectTCPTransport(fake_socket, protocol, ("127.0.0.1", 50000), None, 1, reactor)
        protocol.makeConnection(transport)
        client = Client(fake_socket, transport, reactor, version)
        client.shake_hands()
        client.transport = transport
        return client

    return make


SENT = b"PUB k a\nPING\n"

LONG = b"PUB k %b\n" % (b"x" * 4000)


@pytest.mark.parametrize("fin", [False, True], ids=["close_notify", "close_notify and FIN"])
@pytest.mark.parametrize("together", [True, False])
def test_client_of_tls_1_3_receives_replies_after_close_notify(connect, server, reactor, fin, together):
    """RFC 8446 section 6.1: close_notify ends one direction."""
    client = connect()
    client.say(SENT, carry=not together)
    before = client.received()
    client.half_close()
    if fin:
        client.transport.readConnectionLost(Failure(ConnectionDone()))
    server.turn()
    reactor.turn()
    assert (before + client.received()).splitlines()[1:] == [b"OK 1", b"PONG", b"BYE"]
    assert client.transport.disconnecting or client.transport.disconnected


def test_in_tls_1_2_close_notify_ends_both_directions(connect, server, reactor):
    """RFC 5246 section 7.2.1: unsent data is discarded."""
    client = connect(ssl.TLSVersion.TLSv1_2)
    client.say(SENT, carry=False)
    client.received()
    client.half_close()
    server.turn()
    assert b"BYE" not in client.received()
    assert client.transport.disconnecting or client.transport.disconnected
    assert server.broker.channels[b"k"].head == 1


@pytest.mark.parametrize(
    ("version", "ends"),
    [
        (ssl.TLSVersion.TLSv1_2, Client.close),
        (ssl.TLSVersion.TLSv1_2, Client.sends_garbage),
        (ssl.TLSVersion.TLSv1_3, Client.sends_garbage),
    ],
)
def test_end_of_tls_closes_connection_with_unsent_data(connect, server, fake_socket, reactor, ends, version):
    """It would wait without limit for a producer that writes nothing more."""
    client = connect(version)
    fake_socket.room = 1000
    client.say(b"HELP\n" * 200)
    assert client.transport.blocked
    ends(client)
    reactor.turn()
    assert client.transport.disconnected and len(server.context.sessions) == 0


@pytest.mark.parametrize("sent", [b"HELP\n" * 200, b"SUB k\n" + 40 * LONG], ids=["replies", "events"])
def test_close_of_client_that_does_not_read_continues_to_read(connect, server, fake_socket, reactor, sent):
    """Otherwise its close_notify is not noticed, and the connection is aborted after the linger time."""
    client = connect()
    fake_socket.room = 1000
    client.say(sent)
    server.turn()
    (session,) = server.context.sessions
    assert session.replies.outlet.blocked
    session.close(CloseReason.TRY_AGAIN, b"too slow")
    assert client.transport in reactor.readers


def test_end_without_close_notify_is_a_truncation(connect, server):
    """It can be the work of an attacker (RFC 8446 section 6.1)."""
    client = connect()
    client.say(b"SUB k\n")
    assert len(server.context.sessions) == 1
    client.transport.readConnectionLost(Failure(ConnectionDone()))
    assert client.transport.disconnected and len(server.context.sessions) == 0


def test_aborted_connection_ends_without_close_notify(connect, server, fake_socket, reactor):
    """With close_notify, an incomplete response would look complete (RFC 9112 section 9.8)."""
    client = connect()
    client.received()
    client.transport.protocol.abortConnection()
    reactor.turn()
    assert fake_socket.sent == b"" and client.transport.disconnected
    assert len(server.context.sessions) == 0


def test_reads_nothing_after_close_notify(connect, server, fake_socket):
    client = connect()
    client.received()
    client.half_close()
    fake_socket.incoming.append(b"\x17\x03\x03\x00\x05abcde")
    client.transport.doRead()
    assert client.received().splitlines()[-1] == b"BYE"


@implementer(IHalfCloseableProtocol)
class Stream(Protocol):
    """Continues to write after a half-close of its client."""

    def readConnectionLost(self):
        self.transport.write(b"more")

    def writeConnectionLost(self):
        pass


def test_input_after_close_notify_is_ignored_up_to_a_limit(connect, factory, fake_socket, reactor):
    factory.wrappedFactory = Factory.forProtocol(Stream)
    client = connect()
    client.half_close()
    for _ in range(MAX_BYTES_AFTER_CLOSE_NOTIFY // 16384):
        fake_socket.incoming.append(b"x" * 16384)
        client.transport.doRead()
    reactor.turn()
    assert client.received() == b"more" and not client.transport.disconnected
    fake_socket.incoming.append(b"x")
    client.transport.doRead()
    reactor.turn()
    assert client.transport.disconnected


def test_leaves_other_ports_unchanged():
    plain = Factory()
    install_half_close_tls(SimpleNamespace(factory=plain))
    install_half_close_tls(object())
    assert plain.protocol is None


def test_does_not_change_the_class_of_twisted(factory):
    assert factory.protocol is HalfCloseTLSTransport
    assert TLSMemoryBIOFactory.protocol is BufferingTLSTransport
