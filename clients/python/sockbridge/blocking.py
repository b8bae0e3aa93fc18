"""The client for programs without asyncio: each call blocks until it is done.

    with sockbridge.blocking.connect() as client:
        client.publish("kitchen", 21.5)

There is no thread in the background: the client reads, answers and reconnects while a call or a loop over a
subscription waits. Use a client in one thread only.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from sockbridge.address import DEFAULT_SERVER, Address, parse_address
from sockbridge.base import DEFAULT_TIMEOUT_SECONDS, READ_BYTES, QueueingClient, token_error
from sockbridge.channels import Callback
from sockbridge.core import ANSWER_SECONDS, FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, State
from sockbridge.errors import SockbridgeError
from sockbridge.queue import log_report
from sockbridge.values import Channel, Event, History, Member, Position, Report
from sockbridge.wire import open_wire

Token = str | Callable[[], str]
"""A token, or a function that returns one. The function is called for each connection, and a minute before the token
expires."""

_log = logging.getLogger("sockbridge")

CLOSE_SECONDS = 2.0
"""To send the last messages when the program closes the client."""

MAX_SEND_BYTES = 262_144
"""Passed to the socket at once, so that little is copied for what it does not accept."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket raises that has no input, or accepts no output."""


def connect(
    server: str = DEFAULT_SERVER,
    *,
    token: Token | None = None,
    nick: str | None = None,
    authorities: str | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
    must_connect: bool = True,
    first_delay: float = FIRST_DELAY_SECONDS,
    longest_delay: float = LONGEST_DELAY_SECONDS,
    on_notice: Callable[[str, str], None] | None = None,
    on_state: Callable[[State], None] | None = None,
) -> Client:
    """A client, to be used with ``with``, which opens the first connection. See ``sockbridge.connect`` for the
    parameters and errors."""
    return Client(
        parse_address(server),
        token=token,
        nick=nick,
        authorities=authorities,
        timeout=timeout,
        must_connect=must_connect,
        first_delay=first_delay,
        longest_delay=longest_delay,
        on_notice=on_notice,
        on_state=on_state,
    )


class Client(QueueingClient):
    """A connection to a server that reconnects by itself."""

    def __init__(self, address: Address, token: Token | None, **options: Any) -> None:
        super().__init__(address, **options)
        self._token = token
        self._socket: socket.socket | None = None
        self._unsent = bytearray()
        self._next_attempt = 0.0

    def __enter__(self) -> Self:
        if self._must_connect:
            while self._core.state is not State.OPEN:
                self._step(None)
                if self._core.state in (State.WAITING, State.CLOSED):
                    error = self._core.error or SockbridgeError("closed", "the client was closed")
                    self.close()
                    raise error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close permanently. Subscriptions end."""
        self._core.close()
        if self._socket is not None:
            end = time.monotonic() + CLOSE_SECONDS
            try:
                while self._write() and time.monotonic() < end:
                    self._wait(True, CLOSE_SECONDS)
            except OSError:
                pass  # the connection has ended already
            self._socket.close()
            self._socket = None

    # Commands.

    def publish(self, channel: str, data: Any, *, name: str | None = None, key: str | None = None) -> int:
        """Publish a text, a JSON value or bytes. Returns the offset of the event. An error ``disconnected`` means that
        the connection broke before the answer: the event may have been published, or not. With a ``key`` that is
        unique for this publication, it is repeated on the next connection instead, and published once."""
        offset: int = self._call(lambda callback: self._core.publish(channel, data, name, callback, key))
        return offset

    def history(
        self,
        channel: str,
        *,
        last: int | None = None,
        after: int | str | None = None,
        before: int | str | None = None,
    ) -> History:
        """Past events. ``after`` and ``before`` are offsets, or times such as ``-1h`` or ``2026-11-29T05:00:00Z``."""
        found: History = self._call(lambda callback: self._core.history(channel, last, after, before, callback))
        return found

    def members(self, channel: str) -> Sequence[Member]:
        """The subscribers of a channel."""
        found: Sequence[Member] = self._call(lambda callback: self._core.members(channel, callback))
        return found

    def channels(self, prefix: str = "") -> Sequence[Channel]:
        """The channels whose names begin with ``prefix``, and that the client can read."""
        found: Sequence[Channel] = self._call(lambda callback: self._core.list_channels(prefix, callback))
        return found

    def set_nick(self, nick: str) -> str:
        """Change the nick, also for later connections. Returns the nick that the server uses."""
        used: str = self._call(lambda callback: self._core.set_nick(nick, callback))
        return used

    def subscribe(
        self,
        channel: str,
        *,
        last: int = 0,
        since: Position | None = None,
        echo: bool = True,
        presence: bool = False,
    ) -> Subscription:
        """Follow a channel: ``for event in client.subscribe("kitchen")``. See ``sockbridge.Client.subscribe``."""
        return Subscription(self, channel, last=last, since=since, echo=echo, presence=presence)

    def _call(self, start: Callable[[Callback], None]) -> Any:
        outcome: list[tuple[Any, SockbridgeError | None]] = []

        def answered(result: Any, error: SockbridgeError | None) -> None:
            outcome.append((result, error))

        start(answered)
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not outcome:
            if end is not None and time.monotonic() >= end:
                self._core.calls.cancel(answered)
                raise SockbridgeError("timeout", f"no answer in {self._timeout:g} seconds")
            self._step(end)
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    # The connection.

    def _step(self, until: float | None) -> None:
        """Wait for the next thing to do, at most until a time: connect, or read once."""
        if self._socket is None:
            if self._core.state is not State.CLOSED and self._wait_for_attempt(until):
                self._guard(self._open)
            return
        self._guard(lambda: self._read(until))

    def _wait_for_attempt(self, until: float | None) -> bool:
        now = time.monotonic()
        time.sleep(max(min(self._next_attempt, self._next_attempt if until is None else until) - now, 0))
        return time.monotonic() >= self._next_attempt

    def _guard(self, work: Callable[[], None]) -> None:
        """Do something with the connection, which ends if that fails."""
        try:
            work()
        except SockbridgeError as error:
            self._end(error)
        except OSError as error:
            self._end(self._connection_error(error))

    def _end(self, error: SockbridgeError | None) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._next_attempt = time.monotonic() + (self._core.end(time.monotonic(), error) or 0)

    def _open(self) -> None:
        address, wire = self.address, open_wire(self.address)
        token = self._draw_token()
        if address.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.connect(address.path)
        else:
            self._socket = socket.create_connection((address.host, address.port), ANSWER_SECONDS)
            if self._tls is not None:
                self._socket = self._tls.wrap_socket(self._socket, server_hostname=address.host)
        self._socket.setblocking(False)
        self._unsent.clear()
        self._core.begin(wire, time.monotonic(), token)

    def _read(self, until: float | None) -> None:
        """Send what there is to send, and read once, at most until a time."""
        core = self._core
        times = [moment for moment in (until, core.deadline()) if moment is not None]
        self._exchange(min(times, default=None))
        core.tick(time.monotonic())

    def _exchange(self, until: float | None) -> None:
        """Wait for input and read it once, and meanwhile send. The client never waits for sending alone: a server that
        waits until its answers are read would wait for ever."""
        while True:
            is_sending = self._write()
            data = self._receive()
            if data is not None:
                self._core.receive(data, time.monotonic())
                if not data:
                    self._end(None)
                return
            patience = None if until is None else until - time.monotonic()
            if patience is not None and patience <= 0:
                return
            self._wait(is_sending, patience)

    def _write(self) -> bool:
        """Send as much as the socket accepts. Returns True if there is more."""
        assert self._socket is not None
        self._unsent += self._core.output()
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent[:MAX_SEND_BYTES])]
        except _NOT_NOW:
            return True
        return False

    def _receive(self) -> bytes | None:
        """The input, None if there is none yet. It is empty at the end of the connection."""
        assert self._socket is not None
        try:
            return self._socket.recv(READ_BYTES)
        except _NOT_NOW:
            return None

    def _wait(self, is_sending: bool, patience: float | None) -> None:
        """Wait for input, or until the socket accepts more."""
        assert self._socket is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if is_sending else 0))
            selector.select(patience)

    def _renew_token(self) -> None:
        """If that fails, the server closes the connection when the old token expires, and the next one gets another."""
        if callable(self._token):
            try:
                self._core.authenticate(self._draw_token() or "", lambda answer, error: None)
            except SockbridgeError as error:
                _log.warning("the token was not renewed: %s", error.message)

    def _draw_token(self) -> str | None:
        """Raises SockbridgeError if the function of the program does."""
        try:
            return self._token() if callable(self._token) else self._token
        except Exception as error:
            raise token_error(error) from error


class Subscription:
    """A channel that a program follows. Iterate over it for its events; that ends when the client is closed, and raises
    SockbridgeError if the server refuses or ends the subscription."""

    def __init__(self, client: Client, channel: str, **options: Any) -> None:
        self.channel = channel
        self._client = client
        self._queue = client._queues.open(channel, lambda: None, **options)

    @property
    def position(self) -> Position | None:
        """That of the last event that the program has received."""
        return self._queue.position

    def unsubscribe(self) -> None:
        """End the subscription, and the loops over it."""
        self._queue.unsubscribe()

    def __iter__(self) -> Iterator[Event]:
        for report in self.reports():
            if isinstance(report, Event):
                yield report
            else:
                log_report(report)

    def reports(self, timeout: float | None = None) -> Iterator[Report]:
        """Events, and reports of lost events, of new epochs, and, with ``presence=True``, of members. With ``timeout``
        the loop ends after so many seconds without any."""
        client, queue = self._client, self._queue
        while True:
            end = None if timeout is None else time.monotonic() + timeout
            while not queue and not queue.is_ended:
                if end is not None and time.monotonic() >= end:
                    return
                client._step(end)
            if not queue:
                queue.raise_error()
                return
            yield queue.get()
