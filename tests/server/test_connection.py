"""A graceful close ends our stream, waits for the client's, and then aborts; exceptions are logged."""

import pytest
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import LogLevel, formatEvent
from zope.interface import alsoProvides

from twistedsock.server.connection import LINGER_SECONDS, graceful_close, log_exception


def test_graceful_close_ends_our_stream_and_keeps_reading(wire, reactor):
    transport = wire()
    transport.pauseProducing()
    graceful_close(transport, reactor.callLater)
    assert (transport.half_closed, transport.disconnecting, transport.is_reading) == (True, False, True)


def test_graceful_close_aborts_after_the_linger_time(wire, reactor):
    transport = wire()
    graceful_close(transport, reactor.callLater)
    reactor.advance(LINGER_SECONDS - 0.1)
    assert not transport.aborted
    reactor.advance(0.1)
    assert transport.aborted


def test_graceful_close_can_be_cancelled(wire, reactor):
    transport = wire()
    graceful_close(transport, reactor.callLater).cancel()
    reactor.advance(2 * LINGER_SECONDS)
    assert not transport.aborted


@pytest.mark.parametrize("kind", ["TLS", "no half-close"])
def test_graceful_close_without_half_close_closes_the_transport(wire, reactor, kind):
    transport = wire()
    if kind == "TLS":
        alsoProvides(transport, ISSLTransport)
    else:
        transport.loseWriteConnection = None
    graceful_close(transport, reactor.callLater)
    assert (transport.half_closed, transport.disconnecting) == (False, True)
    reactor.advance(LINGER_SECONDS)
    assert transport.aborted


def test_logs_exception_with_its_traceback(logged):
    try:
        raise ZeroDivisionError("of ours")
    except ZeroDivisionError:
        log_exception()
    (event,) = logged
    logged.clear()
    assert event["log_level"] is LogLevel.critical
    assert formatEvent(event) == "internal error while a command was processed"
    assert event["log_failure"].check(ZeroDivisionError)
    assert "test_connection" in event["log_failure"].getTraceback()
