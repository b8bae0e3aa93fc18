"""A connection to one server that is opened again whenever it ends, and given up if it is silent."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from twistedsock.redis.address import Address
from twistedsock.redis.resp import Call, Conversation, Item


class Timing(Struct, frozen=True):
    """Seconds."""

    probe: float = 3.0
    """How often the server is asked whether it is alive, and still in the same run. It has the same time to answer."""
    connect: float = 10.0
    """For a connection and the examination of the server."""
    first_retry: float = 0.1
    longest_retry: float = 2.0
    """Less than ``renew``: after that time, the other nodes are connected again too."""
    unsure: float = 10.0
    """How long publications whose replies were lost with the connection wait for another one."""
    lease: float = 10.0
    """How long after its last sign of life the members of a node leave. With ``renew``, less than 15 seconds."""
    renew: float = 3.0
    check: float = 30.0
    """How often the position of a channel without events is compared with the server."""


class Surroundings(NamedTuple):
    """What all connections of a backplane have in common. ``draw_random`` returns a number from 0 to 1."""

    reactor: Any
    draw_random: Callable[[], float]
    timing: Timing


class Connection(TwistedProtocol):
    """One connection. ``dialer`` is called with its end."""

    def __init__(self, dialer: "Dialer") -> None:
        self._dialer = dialer
        self.conversation: Conversation
        self.received = 0
        """Counts the pieces of data that were received, as a sign of life."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        dialer = self._dialer
        self.conversation = Conversation(transport.write, dialer.received, dialer.fail, dialer.unfollowed)
        dialer.has_opened(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += 1
        self.conversation.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.conversation.close()
        self._dialer.has_closed(self, f"the connection was closed: {_without_stop(reason)}")


class Dialer:
    """Keeps a connection open. A subclass says to what, examines the server, and calls ``use`` when it is good.
    ``read_password`` returns the password, or an empty string: it is called for each connection, so that a password can
    be changed. It may raise OSError."""

    def __init__(self, read_password: Callable[[], str], surroundings: Surroundings) -> None:
        self.connection: Connection | None = None
        self._reactor, self._draw_random, self.timing = surroundings
        self._read_password = read_password
        self._is_used = False
        self._is_stopped = False
        self._connecting: Deferred[Any] | None = None
        self._cancel_reason = ""
        self._timer: IDelayedCall | None = None
        self._retry_seconds = self.timing.first_retry
        self._reported = ""
        self._probed = 0

    @property
    def is_used(self) -> bool:
        """Whether the server is good."""
        return self._is_used

    # What a subclass does.

    def find(self) -> None:
        """Call ``dial`` with the address, or ``retry``, at once or later."""
        raise NotImplementedError

    def opened(self) -> None:
        """The connection is there."""
        raise NotImplementedError

    def probe(self) -> Call:
        """A question whether the server is alive. Its reply must call ``probe_later``."""
        raise NotImplementedError

    def lost(self) -> None:
        """A connection that was in use has ended."""
        raise NotImplementedError

    def report(self, reason: str) -> None:
        """There is no connection, for a reason that was not reported yet."""
        raise NotImplementedError

    def received(self, topic: bytes, message: bytes) -> None:
        raise NotImplementedError

    def unfollowed(self, topic: bytes) -> None:
        """The server, a node of a Cluster, does not have a topic any more."""

    # Control.

    def start_dialing(self) -> None:
        self._timer = None
        self.find()

    def stop(self) -> None:
        self._is_stopped = True
        self._cancel_timer()
        if self._connecting is not None:
            self._connecting.cancel()
        if self.connection is not None:
            self.connection.transport.loseConnection()  # type: ignore[union-attr]

    def send(self, items: Sequence[Item]) -> None:
        """Send calls in one write. Only while there is a connection."""
        assert self.connection is not None
        self.connection.conversation.send(items)

    def fail(self, reason: str) -> None:
        """Give up the connection, and open another one."""
        connection = self.connection
        if connection is not None:
            connection.transport.abortConnection()  # type: ignore[union-attr]
            connection.conversation.close()
            self.has_closed(connection, reason)

    def redial(self, reason: str) -> None:
        """Give up the connection, or the attempt to open it, and find the server again."""
        if self._connecting is not None:
            self._cancel_reason = reason
            self._connecting.cancel()
        else:
            self.fail(reason)

    def use(self) -> None:
        """The server is good: from now on, it is probed."""
        self._is_used = True
        self._retry_seconds, self._reported = self.timing.first_retry, ""
        self.probe_later()

    # Connect.

    def dial(self, address: Address) -> None:
        if self._is_stopped:
            return
        factory: Any = Factory.forProtocol(lambda: Connection(self))
        factory.noisy = False
        try:
            endpoint = _endpoint(address, self._reactor, self.timing.connect)
        except (OSError, ValueError) as error:
            self.retry(f"cannot use the file of certificates: {getattr(error, 'strerror', None) or error}")
            return
        self._connecting = endpoint.connect(factory)
        self._connecting.addCallbacks(self._has_connected, self._has_not_connected)

    def _has_connected(self, connection: Any) -> None:
        self._connecting = None

    def _has_not_connected(self, failure: Failure) -> None:
        self._connecting = None
        number = getattr(failure.value, "osError", None)
        reason = os.strerror(number) if isinstance(number, int) else _without_stop(failure)
        cancel_reason, self._cancel_reason = self._cancel_reason, ""
        self.retry(cancel_reason or f"cannot connect: {reason}")

    def retry(self, reason: str) -> None:
        if self._is_stopped:
            return
        if reason != self._reported:
            self._reported = reason
            self.report(reason)
        delay = self._retry_seconds * (0.5 + self._draw_random() / 2)
        self._retry_seconds = min(self._retry_seconds * 2, self.timing.longest_retry)
        self._schedule(delay, self.start_dialing)

    def has_opened(self, connection: Connection) -> None:
        self.connection, self._is_used = connection, False
        self._schedule(self.timing.connect, lambda: self.fail("the server does not answer"))
        self.opened()

    def greet(self, user: str, password: str, done: Callable[[Any], None]) -> Call | None:
        """The call that chooses RESP3 and authenticates. ``password`` is used if ``read_password`` returns none. None
        if the file of the password cannot be read: then the connection is given up."""
        try:
            password = self._read_password() or password
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot read the file of the password: {getattr(error, 'strerror', None) or 'not UTF-8'}")
            return None
        hello: list[bytes | int] = [b"HELLO", 3]
        if password:
            hello += [b"AUTH", user.encode() or b"default", password.encode()]
        return Call(hello, done)

    # Probe.

    def probe_later(self) -> None:
        self._schedule(self.timing.probe, self._probe)

    def _probe(self) -> None:
        """Ask whether the server is alive. Whatever arrives meanwhile is a sign of life."""
        assert self.connection is not None
        self._probed = self.connection.received
        self._schedule(self.timing.probe, self._check_life)
        self.send([self.probe()])

    def _check_life(self) -> None:
        assert self.connection is not None
        if self.connection.received == self._probed:
            self.fail(f"no answer for {self.timing.probe:g} seconds")
        else:
            self._probed = self.connection.received
            self._schedule(self.timing.probe, self._check_life)

    # The end.

    def has_closed(self, connection: Connection, reason: str) -> None:
        if connection is not self.connection:
            return
        self.connection = None
        was_used, self._is_used = self._is_used, False
        self._cancel_timer()
        if was_used:
            self.lost()
        self.retry(reason)

    def _schedule(self, seconds: float, call: Callable[[], None]) -> None:
        """A dialer waits for one thing at a time."""
        self._cancel_timer()
        self._timer = self._reactor.callLater(seconds, call)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _without_stop(failure: Failure) -> str:
    """The message of an error, as a part of a sentence."""
    return failure.getErrorMessage().rstrip(".")


def _endpoint(address: Address, reactor: Any, timeout: float) -> Any:
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout)
    # An address needs no resolver, and no thread for it.
    is_address = address.host.replace(".", "").isdigit()
    kind = TCP4ClientEndpoint if is_address else HostnameEndpoint
    endpoint = kind(reactor, address.host, address.port, timeout)
    return wrapClientTLS(_tls_options(address), endpoint) if address.is_tls else endpoint


def _tls_options(address: Address) -> Any:
    # Loaded here only, because it takes memory.
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

    if not address.ca_file:
        return optionsForClientTLS(address.host)
    end = b"-----END CERTIFICATE-----"
    blocks = Path(address.ca_file).read_bytes().split(end)[:-1]
    if not blocks:
        raise ValueError("it contains no certificate")
    certificates = [Certificate.loadPEM(block + end) for block in blocks]
    return optionsForClientTLS(address.host, trustRootFromCertificates(certificates))
