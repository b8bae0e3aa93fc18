"""Closing says our last words, then the end of our stream, and then waits for theirs, but not for ever."""

import pytest
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from twistedsock.server.connection import LINGER_SECONDS, graceful_close


def test_our_stream_ends_first_and_what_still_comes_is_read(wire, reactor):
    transport = wire()
    transport.pauseProducing()
    graceful_close(transport, reactor.callLater)
    assert (transport.half_closed, transport.disconnecting, transport.reads) == (True, False, True)


def test_who_does_not_leave_in_time_is_dropped(wire, reactor):
    transport = wire()
    graceful_close(transport, reactor.callLater)
    reactor.advance(LINGER_SECONDS - 0.1)
    assert not transport.aborted
    reactor.advance(0.1)
    assert transport.aborted


def test_the_end_in_time_can_call_that_off(wire, reactor):
    transport = wire()
    graceful_close(transport, reactor.callLater).cancel()
    reactor.advance(2 * LINGER_SECONDS)
    assert not transport.aborted


@pytest.mark.parametrize("kind", ["TLS", "no half-close"])
def test_where_no_stream_can_end_alone_the_transport_says_goodbye_itself(wire, reactor, kind):
    transport = wire()
    if kind == "TLS":
        alsoProvides(transport, ISSLTransport)
    else:
        transport.loseWriteConnection = None
    graceful_close(transport, reactor.callLater)
    assert (transport.half_closed, transport.disconnecting) == (False, True)
    reactor.advance(LINGER_SECONDS)
    assert transport.aborted
