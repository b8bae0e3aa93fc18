"""A TLS connection that is over leaves nothing behind that only the garbage collector would find. The handshakes are
real, the connections are not."""

import gc
import ssl
from types import SimpleNamespace

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.authority import Authority
from twistedsock.shells.certificates import Certificates
from twistedsock.shells.listening import Listening
from twistedsock.shells.outlets import BufferedOutlet, TCPSendAtOnce
from twistedsock.shells.tcp import LineFactory, LineProtocol
from twistedsock.shells.tls import FreedAtTheEnd, free_at_the_end

ENDPOINT = "ssl:8443:privateKey=server.key:certKey=server.pem"

OURS = (FreedAtTheEnd, TCPSendAtOnce, BufferedOutlet, LineProtocol)


def left():
    """Our objects that have come and not gone, by kind."""
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, OURS)]


@pytest.fixture
def factory(hall, reactor, tmp_path):
    """As a TLS port has it."""
    Authority(tmp_path).issue("server", "localhost")
    certificates = Certificates(ENDPOINT, tmp_path)
    lines = LineFactory(hall.bridge, reactor, 0, listening=Listening(ENDPOINT))
    factory = TLSMemoryBIOFactory(certificates, False, lines, reactor)
    free_at_the_end(SimpleNamespace(factory=factory))
    gc.collect()
    gc.disable()
    gc.freeze()
    yield factory
    gc.unfreeze()
    gc.enable()


class Client:
    """The other end of a TLS connection whose server's end is ``transport``."""

    def __init__(self, socket, transport, reactor):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
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

    def say(self, data):
        self._tls.write(data)
        self._carry()

    def close(self):
        """As TLS wants it: with a word."""
        with pytest.raises(ssl.SSLError):  # there is something to read yet, the other's goodbye at least
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
def test_nothing_is_left_of_a_connection(act, reason, factory, hall, reactor, fake_socket):
    fake_socket.getsockname = lambda: ("127.0.0.1", 8443)
    protocol = factory.buildProtocol(None)
    transport = TCPSendAtOnce(fake_socket, protocol, ("127.0.0.1", 50000), None, 1, reactor)
    protocol.makeConnection(transport)
    assert "FreedAtTheEnd" in left()
    client = Client(fake_socket, transport, reactor)
    act(client, fake_socket, transport)
    hall.turn()
    if transport.connected:
        transport.connectionLost(Failure(reason()))
    reactor.advance(60)
    hall.turn()
    reactor.readers.clear()
    reactor.writers.clear()
    del protocol, transport, client
    assert not left()


def test_other_ports_are_left_alone():
    plain = Factory()
    free_at_the_end(SimpleNamespace(factory=plain))
    free_at_the_end(object())
    assert plain.protocol is None


def test_the_usual_transport_is_left_as_it_is(factory):
    assert factory.protocol is FreedAtTheEnd
    assert TLSMemoryBIOFactory.protocol is BufferingTLSTransport
