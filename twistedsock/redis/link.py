"""The connection to Redis: opens it, checks the server, notices when it is dead, and opens it again.

A connection is used when the server has been examined and knows all scripts. Before that, it makes sure that the server
does nothing more that a former connection has sent: a server that was stopped for a while may still have that to read.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

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
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.redis.address import Address
from twistedsock.redis.resp import Call, Conversation, Item, RedisError, load_scripts
from twistedsock.redis.server import (
    CHECKED_SETTINGS,
    Server,
    Unusable,
    examine,
    find_dangers,
    pairs,
    parse_info,
    read_fence,
)


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


class LinkUser(Protocol):
    """Is called by a link."""

    def connected(self, server: Server, time: int, is_former_over: bool) -> None:
        """Calls can be sent. ``time`` is that of the server, in milliseconds. ``is_former_over`` is False if the server
        may still run calls of a former connection."""

    def disconnected(self) -> None:
        """All calls without a reply have got ``ConnectionLost``."""

    def received(self, topic: bytes, message: bytes) -> None: ...


class Reporter(Protocol):
    """Writes sentences for the operator into the log."""

    def connected(self, server: str) -> None: ...

    def unavailable(self, reason: str) -> None: ...

    def danger(self, sentence: str) -> None: ...


class LogReporter:
    """Writes into the log of Twisted."""

    _log = Logger()

    def connected(self, server: str) -> None:
        self._log.info("backplane: connected to {server}", server=server)

    def unavailable(self, reason: str) -> None:
        self._log.warn("backplane: {reason}: publications are rejected until it is connected", reason=reason)

    def danger(self, sentence: str) -> None:
        self._log.warn("backplane: {sentence}", sentence=sentence)


class Connection(TwistedProtocol):
    """One connection. ``link`` is called with its end."""

    def __init__(self, link: "RedisLink") -> None:
        self._link = link
        self.conversation: Conversation
        self.received = 0
        """Counts the pieces of data that were received, as a sign of life."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        link = self._link
        self.conversation = Conversation(transport.write, link.received, self.abort)
        link.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += 1
        self.conversation.receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.conversation.close()
        self._link.closed(self, f"the connection was closed: {_without_stop(reason)}")

    def abort(self, reason: str) -> None:
        self._link.fail(reason)


class RedisLink:
    """``read_password`` returns the password, or an empty string: it is called for each connection, so that a password
    can be changed. It may raise OSError. ``draw_random`` returns a number from 0 to 1."""

    def __init__(
        self,
        address: Address,
        read_password: Callable[[], str],
        reactor: Any,
        reporter: Reporter,
        draw_random: Callable[[], float],
        timing: Timing,
    ) -> None:
        self._address = address
        self._read_password = read_password
        self._reactor = reactor
        self._reporter = reporter
        self._draw_random = draw_random
        self._timing = timing
        self._user: LinkUser
        self._connection: Connection | None = None
        self._is_up = False
        self._is_stopped = False
        self._connecting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._retry_seconds = timing.first_retry
        self._reported = ""
        self._server: Server | None = None
        self._client_id = 0
        # The connections, by process and number, that the server may not know to be over.
        self._formers: set[tuple[bytes, int]] = set()
        self._probed = 0
        self._dangers: set[str] = set()

    def start(self, user: LinkUser) -> None:
        self._user = user
        self._connect()

    def stop(self) -> None:
        self._is_stopped = True
        self._cancel_timer()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.transport.loseConnection()  # type: ignore[union-attr]

    def send(self, items: Sequence[Item]) -> None:
        """Send calls in one write. Only while the link is connected."""
        assert self._connection is not None
        self._connection.conversation.send(items)

    def received(self, topic: bytes, message: bytes) -> None:
        self._user.received(topic, message)

    def fail(self, reason: str) -> None:
        """Give up the connection, and open another one."""
        connection = self._connection
        if connection is not None:
            connection.transport.abortConnection()  # type: ignore[union-attr]
            connection.conversation.close()
            self.closed(connection, reason)

    # Connect.

    def _connect(self) -> None:
        self._timer = None
        factory: Any = Factory.forProtocol(lambda: Connection(self))
        factory.noisy = False
        try:
            endpoint = _endpoint(self._address, self._reactor, self._timing.connect)
        except (OSError, ValueError) as error:
            self._retry(f"cannot use the file of certificates: {getattr(error, 'strerror', None) or error}")
            return
        self._connecting = endpoint.connect(factory)
        self._connecting.addCallbacks(self._has_connected, self._has_not_connected)

    def _has_connected(self, connection: Any) -> None:
        self._connecting = None

    def _has_not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not self._is_stopped:
            number = getattr(failure.value, "osError", None)
            reason = os.strerror(number) if isinstance(number, int) else _without_stop(failure)
            self._retry(f"cannot connect: {reason}")

    def _retry(self, reason: str) -> None:
        self._report(reason)
        delay = self._retry_seconds * (0.5 + self._draw_random() / 2)
        self._retry_seconds = min(self._retry_seconds * 2, self._timing.longest_retry)
        self._schedule(delay, self._connect)

    def opened(self, connection: Connection) -> None:
        """Examine the server."""
        self._connection, self._is_up = connection, False
        self._schedule(self._timing.connect, lambda: self.fail("the server does not answer"))
        try:
            password = self._read_password() or self._address.password
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot read the file of the password: {getattr(error, 'strerror', None) or 'not UTF-8'}")
            return
        hello: list[bytes | int] = [b"HELLO", 3]
        if password:
            hello += [b"AUTH", self._address.user.encode() or b"default", password.encode()]
        calls = [Call(hello, self._greeted)]
        if self._address.database:
            calls.append(Call((b"SELECT", self._address.database), self._check))
        settings: dict[str, str] = {}
        for name in CHECKED_SETTINGS:
            calls.append(Call((b"CONFIG", b"GET", name.encode()), lambda reply: settings.update(pairs(reply))))
        calls.append(Call((b"INFO",), lambda reply: self._examine(reply, settings)))
        connection.conversation.send(calls)

    def _greeted(self, reply: Any) -> None:
        if isinstance(reply, dict):
            self._client_id = reply.get(b"id", 0)
        elif "unknown command" in str(reply):
            self.fail("the server is too old: Redis 6.2 or newer, or Valkey, is required")
        else:
            self._check(reply)

    def _check(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self.fail(f"the server refuses the connection: {reply}")

    def _examine(self, reply: Any, settings: dict[str, str]) -> None:
        connection = self._connection
        if connection is None or isinstance(reply, Exception):
            self._check(reply)
            return
        try:
            server = examine(parse_info(reply))
        except Unusable as error:
            self.fail(str(error))
            return
        for danger in find_dangers(settings):
            if danger not in self._dangers:
                self._dangers.add(danger)
                self._reporter.danger(danger)
        calls = load_scripts(self._check)
        formers = self._formers = {former for former in self._formers if former[0] == server.process}
        for former in formers:
            calls.insert(0, Call((b"CLIENT", b"KILL", b"ID", former[1]), partial(self._killed, former)))
        calls.append(Call((b"TIME",), lambda reply: self._ready(connection, server, reply)))
        connection.conversation.send(calls)

    def _killed(self, former: tuple[bytes, int], reply: Any) -> None:
        if not isinstance(reply, Exception):
            self._formers.discard(former)

    def _ready(self, connection: Connection, server: Server, reply: Any) -> None:
        if connection is not self._connection or isinstance(reply, Exception):
            self._check(reply)
            return
        is_former_over = not self._formers
        self._formers.add((server.process, self._client_id))
        self._server, self._is_up = server, True
        self._retry_seconds, self._reported = self._timing.first_retry, ""
        self._reporter.connected(f"{server.name} at {self._address}")
        self._schedule(self._timing.probe, self._probe)
        seconds, microseconds = map(int, reply)
        self._user.connected(server, seconds * 1000 + microseconds // 1000, is_former_over)

    # Probe.

    def _probe(self) -> None:
        """Ask whether the server is alive, and still in the same run. Whatever arrives meanwhile is a sign of life."""
        assert self._connection is not None
        self._probed = self._connection.received
        self._schedule(self._timing.probe, self._check_life)
        self.send([Call((b"INFO", b"replication"), self._probe_answered)])

    def _probe_answered(self, reply: Any) -> None:
        if isinstance(reply, Exception) or self._server is None:
            return
        try:
            fence = read_fence(parse_info(reply))
        except Unusable as error:
            self.fail(str(error))
            return
        if fence != self._server.fence:
            self.fail("the server has begun another run")
        else:
            self._schedule(self._timing.probe, self._probe)

    def _check_life(self) -> None:
        assert self._connection is not None
        if self._connection.received == self._probed:
            self.fail(f"no answer for {self._timing.probe:g} seconds")
        else:
            self._probed = self._connection.received
            self._schedule(self._timing.probe, self._check_life)

    # The end.

    def closed(self, connection: Connection, reason: str) -> None:
        """The connection has ended."""
        if connection is not self._connection:
            return
        self._connection = None
        was_up, self._is_up = self._is_up, False
        self._cancel_timer()
        if was_up:
            self._user.disconnected()
        if not self._is_stopped:
            self._retry(reason)

    def _report(self, reason: str) -> None:
        if reason != self._reported:
            self._reported = reason
            self._reporter.unavailable(reason)

    def _schedule(self, seconds: float, call: Callable[[], None]) -> None:
        """The link waits for one thing at a time."""
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
    # Loaded only where it is used: it takes memory.
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

    if not address.ca_file:
        return optionsForClientTLS(address.host)
    end = b"-----END CERTIFICATE-----"
    blocks = Path(address.ca_file).read_bytes().split(end)[:-1]
    if not blocks:
        raise ValueError("it contains no certificate")
    certificates = [Certificate.loadPEM(block + end) for block in blocks]
    return optionsForClientTLS(address.host, trustRootFromCertificates(certificates))
