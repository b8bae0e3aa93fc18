"""The client for asyncio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
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

_log = logging.getLogger("sockbridge")

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that returns one, also as a coroutine. The function is called for each connection, and a
minute before the token expires."""


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
    """A client, to be used with ``async with``, which waits for the first connection.

    ``server`` is ``tcp://host:port``, ``tls://host:port``, ``unix:///path``, ``ws://host:port`` or ``wss://host:port``.
    ``authorities`` is a file of certificates to trust instead of those of the system. ``timeout`` is for the answer of
    each command, in seconds; None waits without a limit. After a lost connection the client waits a random time of at
    most ``first_delay`` seconds, and each failed attempt doubles that, up to ``longest_delay``. ``on_notice`` receives
    sentences of the server for people and their codes, ``on_state`` each new state of the client.

    Raises AddressError for a wrong address, and SockbridgeError if the first connection fails, or the server refuses
    the token. With ``must_connect=False`` it does not wait: a server that is not there yet is tried again, as after a
    lost connection.
    """
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
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        self._opened = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"sockbridge {self.address}")
        if self._must_connect:
            try:
                await self._opened
            except BaseException:
                await self.close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close permanently. Commands that wait for an answer fail with ``closed``, and subscriptions end."""
        self._core.close()
        self._flush()
        for task in (self._task, self._renewal):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    # Commands.

    async def publish(self, channel: str, data: Any, *, name: str | None = None, key: str | None = None) -> int:
        """Publish a text, a JSON value or bytes. Returns the offset of the event. An error ``disconnected`` means that
        the connection broke before the answer: the event may have been published, or not. With a ``key`` that is
        unique for this publication, it is repeated on the next connection instead, and published once."""
        offset: int = await self._call(lambda callback: self._core.publish(channel, data, name, callback, key))
        return offset

    async def history(
        self,
        channel: str,
        *,
        last: int | None = None,
        after: int | str | None = None,
        before: int | str | None = None,
    ) -> History:
        """Past events. ``after`` and ``before`` are offsets, or times such as ``-1h`` or ``2026-11-29T05:00:00Z``."""
        found: History = await self._call(lambda callback: self._core.history(channel, last, after, before, callback))
        return found

    async def members(self, channel: str) -> Sequence[Member]:
        """The subscribers of a channel."""
        found: Sequence[Member] = await self._call(lambda callback: self._core.members(channel, callback))
        return found

    async def channels(self, prefix: str = "") -> Sequence[Channel]:
        """The channels whose names begin with ``prefix``, and that the client can read."""
        found: Sequence[Channel] = await self._call(lambda callback: self._core.list_channels(prefix, callback))
        return found

    async def set_nick(self, nick: str) -> str:
        """Change the nick, also for later connections. Returns the nick that the server uses."""
        used: str = await self._call(lambda callback: self._core.set_nick(nick, callback))
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
        """Follow a channel: ``async for event in client.subscribe("kitchen")``. ``last`` starts with so many of the
        newest events, ``since`` after a position; ``echo=False`` leaves out the events of this client.

        The loop receives events. Lost events and new epochs are logged as warnings; iterate over
        ``subscription.reports()`` to handle them, and to receive members.
        """
        return Subscription(self, channel, last=last, since=since, echo=echo, presence=presence)

    async def _call(self, start: Callable[[Callback], None]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(result: Any, error: SockbridgeError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        start(answered)
        self._flush()
        try:
            async with asyncio.timeout(self._timeout):
                return await future
        except TimeoutError:
            raise SockbridgeError("timeout", f"no answer in {self._timeout:g} seconds") from None
        finally:
            if future.cancelled():
                self._core.calls.cancel(answered)

    # The connection.

    async def _run(self) -> None:
        """Connect again and again, until the client is closed."""
        core = self._core
        while not core.is_closed:
            error: SockbridgeError | None = None
            try:
                await self._connect_once()
            except SockbridgeError as failure:
                error = failure
            except OSError as failure:
                error = self._connection_error(failure)
            except Exception as failure:
                _log.exception("the client has failed")
                error = SockbridgeError("closed", f"the client has failed: {failure!r}")
                core.close(error)
            finally:
                if self._writer is not None:
                    if self._writer.transport.get_write_buffer_size():
                        self._writer.transport.abort()  # to a server that does not read, close would wait
                    else:
                        self._writer.close()
                    self._writer = None
            if self._must_connect and self._opened is not None and not self._opened.done():
                core.end(time.monotonic(), error, give_up=True)
                assert core.error is not None
                self._opened.set_exception(core.error)
                return
            delay = core.end(time.monotonic(), error)
            if delay is None:
                return
            await asyncio.sleep(delay)

    async def _connect_once(self) -> None:
        core, address = self._core, self.address
        token = await self._draw_token()
        wire = open_wire(address)
        async with asyncio.timeout(ANSWER_SECONDS):
            if address.scheme == "unix":
                reader, writer = await asyncio.open_unix_connection(address.path, limit=READ_BYTES)
            else:
                connection = asyncio.open_connection(address.host, address.port, ssl=self._tls, limit=READ_BYTES)
                reader, writer = await connection
        self._writer = writer
        core.begin(wire, time.monotonic(), token)
        self._flush()
        reading: asyncio.Task[bytes] | None = None
        try:
            while not core.is_closed:
                if reading is None:
                    reading = asyncio.create_task(reader.read(READ_BYTES))
                deadline = core.deadline()
                patience = None if deadline is None else max(deadline - time.monotonic(), 0)
                done, _ = await asyncio.wait([reading], timeout=patience)
                if done:
                    data, reading = reading.result(), None
                    core.receive(data, time.monotonic())
                    self._flush()
                    if not data:
                        return
                    # There is no writer.drain(): while it waits for a server that waits for this client to read its
                    # answers, none of them would continue. The number of commands without an answer is limited.
                core.tick(time.monotonic())
                self._flush()
        finally:
            if reading is not None:
                reading.cancel()

    def _flush(self) -> None:
        if self._writer is not None and (data := self._core.output()):
            self._writer.write(data)

    def _state_changed(self) -> None:
        if self._core.state is State.OPEN and self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        super()._state_changed()

    def _renew_token(self) -> None:
        if callable(self._token):
            self._renewal = asyncio.create_task(self._send_new_token())

    async def _send_new_token(self) -> None:
        """If that fails, the server closes the connection when the old token expires, and the next one gets another."""
        try:
            token = await self._draw_token()
            await self._call(lambda callback: self._core.authenticate(token or "", callback))
        except SockbridgeError as error:
            _log.warning("the token was not renewed: %s", error.message)

    async def _draw_token(self) -> str | None:
        """Raises SockbridgeError if the function of the program does, or does not return."""
        try:
            token = self._token() if callable(self._token) else self._token
            if token is not None and not isinstance(token, str):
                async with asyncio.timeout(ANSWER_SECONDS):
                    token = await token
        except Exception as error:
            raise token_error(error) from error
        return token


class Subscription:
    """A channel that a program follows. Iterate over it for its events; that ends when the client is closed, and raises
    SockbridgeError if the server refuses or ends the subscription."""

    def __init__(self, client: Client, channel: str, **options: Any) -> None:
        self.channel = channel
        self._client = client
        self._changed = asyncio.Event()
        self._queue = client._queues.open(channel, self._changed.set, **options)
        client._flush()

    @property
    def position(self) -> Position | None:
        """That of the last event that the program has received."""
        return self._queue.position

    async def ready(self) -> None:
        """Wait until the server has accepted the subscription. Raises SockbridgeError if it does not."""
        while not self._queue.is_ready:
            self._queue.raise_error()
            self._changed.clear()
            await self._changed.wait()

    async def unsubscribe(self) -> None:
        """End the subscription, and the loops over it."""
        self._queue.unsubscribe()
        self._client._flush()

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for report in self.reports():
            if isinstance(report, Event):
                yield report
            else:
                log_report(report)

    async def reports(self) -> AsyncIterator[Report]:
        """Events, and reports of lost events, of new epochs, and, with ``presence=True``, of members."""
        while True:
            while self._queue:
                yield self._queue.get()
                self._client._flush()
            if self._queue.is_ended:
                self._queue.raise_error()
                return
            self._changed.clear()
            await self._changed.wait()


__all__ = ["Client", "Subscription", "connect"]
