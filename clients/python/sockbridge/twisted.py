"""The client for Twisted: commands return Deferreds, events are passed to functions.

    client = sockbridge.twisted.Client(reactor, "tcp://127.0.0.1:8081")
    client.subscribe("kitchen", print, last=10)
    client.startService()

It is a service, to be started and stopped by an application or by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from sockbridge.address import DEFAULT_SERVER, Address, parse_address
from sockbridge.base import BaseClient, token_error
from sockbridge.channels import Callback, Subscription
from sockbridge.core import ANSWER_SECONDS, FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, State, logging_errors
from sockbridge.errors import SockbridgeError
from sockbridge.values import Channel, History, Member, Position, Report
from sockbridge.wire import open_wire

Token = str | Callable[[], "str | Deferred[str]"]
"""A token, or a function that returns one, also as a Deferred. The function is called for each connection, and a minute
before the token expires."""


def _ignore(*arguments: Any) -> None:
    """A callback that does nothing."""


class Client(BaseClient, Service):
    """A connection to a server that reconnects by itself, from ``startService`` to ``stopService``.

    The parameters are those of ``sockbridge.connect``. ``on_close`` is called with the error when the client is closed
    permanently, for example because the server refuses its token.
    """

    def __init__(
        self,
        reactor: Any,
        server: str = DEFAULT_SERVER,
        *,
        token: Token | None = None,
        nick: str | None = None,
        authorities: str | None = None,
        first_delay: float = FIRST_DELAY_SECONDS,
        longest_delay: float = LONGEST_DELAY_SECONDS,
        on_notice: Callable[[str, str], None] = _ignore,
        on_state: Callable[[State], None] = _ignore,
        on_close: Callable[[SockbridgeError], None] = _ignore,
    ) -> None:
        super().__init__(
            parse_address(server),
            on_state=on_state,
            on_notice=on_notice,
            nick=nick,
            first_delay=first_delay,
            longest_delay=longest_delay,
        )
        self._reactor = reactor
        self._endpoint = _endpoint(reactor, self.address, authorities)
        self._token = token
        self._on_close = on_close
        self._protocol: _Protocol | None = None
        self._attempt: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None

    # Commands.

    def publish(self, channel: str, data: Any, *, name: str | None = None, key: str | None = None) -> Deferred[int]:
        """Publish a text, a JSON value or bytes. The result is the offset of the event. An error ``disconnected`` means
        that the connection broke before the answer: the event may have been published, or not. With a ``key`` that is
        unique for this publication, it is repeated on the next connection instead, and published once."""
        return self._call(lambda callback: self._core.publish(channel, data, name, callback, key))

    def history(
        self,
        channel: str,
        *,
        last: int | None = None,
        after: int | str | None = None,
        before: int | str | None = None,
    ) -> Deferred[History]:
        """Past events. ``after`` and ``before`` are offsets, or times such as ``-1h`` or ``2026-11-29T05:00:00Z``."""
        return self._call(lambda callback: self._core.history(channel, last, after, before, callback))

    def members(self, channel: str) -> Deferred[list[Member]]:
        """The subscribers of a channel."""
        return self._call(lambda callback: self._core.members(channel, callback))

    def channels(self, prefix: str = "") -> Deferred[list[Channel]]:
        """The channels whose names begin with ``prefix``, and that the client can read."""
        return self._call(lambda callback: self._core.list_channels(prefix, callback))

    def set_nick(self, nick: str) -> Deferred[str]:
        """Change the nick, also for later connections. The result is the nick that the server uses."""
        return self._call(lambda callback: self._core.set_nick(nick, callback))

    def subscribe(
        self,
        channel: str,
        on_report: Callable[[Report], Any],
        *,
        on_ready: Callable[[], Any] = _ignore,
        on_end: Callable[[SockbridgeError], Any] = _ignore,
        last: int = 0,
        since: Position | None = None,
        echo: bool = True,
        presence: bool = False,
    ) -> Subscription:
        """Follow a channel. ``on_report`` receives each Event, and Lost, Reset and Presence. ``on_ready`` is called
        when the server has accepted the subscription, also after each reconnection; ``on_end`` if it refuses or ends
        it. See ``pause``, ``resume`` and ``unsubscribe`` for what to do with the result. Exceptions of the functions
        are logged."""
        functions = [logging_errors(function) for function in (on_report, on_ready, on_end)]
        subscription = Subscription(channel, *functions, last=last, since=since, echo=echo, presence=presence)
        self._core.channels.subscribe(subscription)
        self._flush()
        return subscription

    def pause(self, subscription: Subscription) -> None:
        """Receive no more events of a channel for now, for a program that is slower than its publishers. The server
        keeps them, within the limits of its history."""
        self._core.channels.pause(subscription)
        self._flush()

    def resume(self, subscription: Subscription) -> None:
        """Continue after ``pause``, without a gap."""
        self._core.channels.resume(subscription)
        self._flush()

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        self._core.channels.unsubscribe(subscription)
        self._flush()

    def _call(self, start: Callable[[Callback], None]) -> Deferred[Any]:
        def cancel(_: Deferred[Any]) -> None:
            self._core.calls.cancel(answered)

        deferred: Deferred[Any] = Deferred(cancel)

        def answered(result: Any, error: SockbridgeError | None) -> None:
            if error is None:
                deferred.callback(result)
            else:
                deferred.errback(error)

        start(answered)
        self._flush()
        return deferred

    # The service.

    def startService(self) -> None:
        super().startService()
        self._connect()

    def stopService(self) -> None:
        super().stopService()
        self._core.close()
        self._flush()
        self._stop_timer()
        if self._attempt is not None:
            self._attempt.cancel()
        if self._protocol is not None:
            self._protocol.transport.loseConnection()

    # The connection.

    def _connect(self) -> None:
        draw = self._token if callable(self._token) else lambda: self._token
        attempt: Deferred[Any] = maybeDeferred(draw).addErrback(_raise_token_error)
        self._attempt = attempt.addCallback(self._open).addErrback(self._failed)

    def _open(self, token: str | None) -> Deferred[None]:
        protocol = _Protocol(self)
        opened: Deferred[Any] = self._endpoint.connect(Factory.forProtocol(lambda: protocol))
        return opened.addCallback(lambda _: self._begin(protocol, token))

    def _begin(self, protocol: _Protocol, token: str | None) -> None:
        self._attempt = None
        self._protocol = protocol
        self._core.begin(open_wire(self.address), self._reactor.seconds(), token)
        self._flush()

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        error = failure.value
        if not isinstance(error, SockbridgeError):
            error = SockbridgeError("unreachable", f"cannot connect to {self.address}: {failure.getErrorMessage()}")
        self._ended(error)

    def _ended(self, error: SockbridgeError | None) -> None:
        self._protocol = None
        self._stop_timer()
        delay = self._core.end(self._reactor.seconds(), error)
        if delay is not None:
            self._timer = self._reactor.callLater(delay, self._connect)

    def _received(self, data: bytes) -> None:
        try:
            self._core.receive(data, self._reactor.seconds())
        except SockbridgeError as error:
            self._abort(error)
        else:
            self._flush()

    def _tick(self) -> None:
        self._timer = None
        try:
            self._core.tick(self._reactor.seconds())
        except SockbridgeError as error:
            self._abort(error)
        else:
            self._flush()

    def _abort(self, error: SockbridgeError) -> None:
        if self._protocol is not None:
            self._protocol.error = error
            self._protocol.transport.abortConnection()

    def _flush(self) -> None:
        """Send what there is to send, and set the timer."""
        if self._protocol is None:
            return
        if data := self._core.output():
            self._protocol.transport.write(data)
        if self._core.state is State.CLOSED:
            self._protocol.transport.loseConnection()
            return
        deadline = self._core.deadline()
        self._stop_timer()
        if deadline is not None:
            self._timer = self._reactor.callLater(max(deadline - self._reactor.seconds(), 0), self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _state_changed(self) -> None:
        super()._state_changed()
        if self._core.state is State.CLOSED and self._core.error is not None:
            self._on_close(self._core.error)

    def _renew_token(self) -> None:
        if callable(self._token):
            renewed: Any = maybeDeferred(self._token)
            renewed.addCallback(self._send_token)
            # After an error the server closes the connection, and the next one gets a new token.
            renewed.addErrback(_ignore)

    def _send_token(self, token: str) -> Deferred[Any]:
        return self._call(lambda callback: self._core.authenticate(token, callback))


def _raise_token_error(failure: Failure) -> None:
    assert failure.value is not None
    raise token_error(failure.value)


class _Protocol(Protocol):
    """One connection."""

    transport: Any

    def __init__(self, client: Client) -> None:
        self.error: SockbridgeError | None = None
        self._client = client

    def dataReceived(self, data: bytes) -> None:
        self._client._received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._client._protocol is self:
            self._client._ended(self.error)


def _endpoint(reactor: Any, address: Address, authorities: str | None) -> IStreamClientEndpoint:
    if address.scheme == "unix":
        return UNIXClientEndpoint(reactor, address.path, timeout=ANSWER_SECONDS)
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, address.host, address.port, timeout=ANSWER_SECONDS)
    if not address.is_secure:
        return endpoint
    roots = None
    if authorities is not None:
        with open(authorities, "rb") as file:
            blocks = file.read().split(b"-----END CERTIFICATE-----")
        ends = [block + b"-----END CERTIFICATE-----" for block in blocks if b"BEGIN CERTIFICATE" in block]
        roots = trustRootFromCertificates([Certificate.loadPEM(each) for each in ends])
    return wrapClientTLS(optionsForClientTLS(address.host, trustRoot=roots), endpoint)


__all__ = ["Client"]
