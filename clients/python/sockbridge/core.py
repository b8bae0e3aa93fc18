"""The client without I/O: state of the connection, commands, subscriptions and their positions.

A shell (``aio``, ``blocking``, ``twisted``) opens connections, moves bytes and keeps the time:

- ``begin`` when a connection is open, then send what ``output`` returns, now and after each call;
- ``receive`` for each input, ``end`` when the connection has ended: it returns the seconds until the next attempt;
- ``tick`` at ``deadline``.

Times are monotonic, in seconds. Results are passed to callbacks. After a reconnection each subscription continues at
its position, and no event is delivered twice (docs/explanation/recovery.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

from sockbridge.calls import Calls, Command
from sockbridge.channels import Callback, Channels
from sockbridge.errors import SockbridgeError
from sockbridge.messages import decode, encode, publication, read_history, read_welcome
from sockbridge.values import Channel, Member, Welcome
from sockbridge.wire import ABNORMAL, Wire

_log = logging.getLogger("sockbridge")

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
"""The client waits a random time before it tries again. Its maximum doubles from the first to the longest."""

STABLE_SECONDS = 10.0
"""A connection that lived this long sets the delay back to the first."""

OVERLOAD_FACTOR = 8
"""Times the first delay, if the server says that it is overloaded (close code 1013)."""

QUIET_SECONDS = 25.0
"""Silence after which the client sends a ping. The server's own interval is 30 seconds."""

ANSWER_SECONDS = 10.0
"""Silence after that ping, or before the welcome, until the connection is given up."""

_OTHER_PROTOCOL = "the server does not use version 1 of the protocol of sockbridge"

NORMAL, POLICY, OVERLOADED = 1000, 1008, 1013
"""Close codes (RFC 6455 section 7.4.1) after which the client does not reconnect, or waits longer."""


class State(Enum):
    """Of the client: without a connection, with one that is not confirmed yet, with one, or permanently closed."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class Core:
    """``random`` returns numbers from 0 to 1. ``on_state`` is called when the state has changed, ``on_notice`` with
    sentences of the server for people and their codes. ``on_renewal`` is called when the token expires soon. Exceptions
    of these functions are logged."""

    def __init__(
        self,
        random: Callable[[], float],
        *,
        nick: str | None = None,
        first_delay: float = FIRST_DELAY_SECONDS,
        longest_delay: float = LONGEST_DELAY_SECONDS,
        on_state: Callable[[], None] = lambda: None,
        on_notice: Callable[[str, str], None] = lambda text, code: None,
        on_renewal: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = State.WAITING
        self.error: SockbridgeError | None = None
        """Why the last connection ended."""
        self.welcome: Welcome | None = None
        """While open: id and addresses."""
        self.calls = Calls(self._send)
        """The commands without an answer."""
        self.channels = Channels(self._send_together)
        """The subscriptions."""
        self.nick = nick
        self._random = random
        self._on_state = logging_errors(on_state)
        self._on_notice = logging_errors(on_notice)
        self._on_renewal = logging_errors(on_renewal)
        self._wire: Wire | None = None
        self._token: str | None = None
        self._messages: list[bytes] = []
        self._output = b""
        self._first_delay = self._maximum_delay = first_delay
        self._longest_delay = longest_delay
        self._began_at = self._heard_at = 0.0
        self._is_ping_sent = False
        self._closing: tuple[int, str] | None = None
        """The code and the reason in the last message of the server."""

    @property
    def is_closed(self) -> bool:
        return self.state is State.CLOSED

    # The connection.

    def begin(self, wire: Wire, now: float, token: str | None = None) -> None:
        """A connection is open. ``token`` is sent when the server has sent its welcome."""
        self._wire, self._token, self._closing = wire, token, None
        self._began_at = self._heard_at = now
        self._is_ping_sent = False
        self._output = wire.opening()
        self._set_state(State.CONNECTING)

    def output(self) -> bytes:
        """The bytes to send. They are not returned again."""
        data, self._output = self._output, b""
        if self._messages and self._wire is not None:
            messages, self._messages = self._messages, []
            data += self._wire.encode(messages)
        return data

    def receive(self, data: bytes, now: float) -> None:
        """Input of the connection; empty input is the end of the stream. Raises SockbridgeError if the server does not
        follow the protocol: then end the connection."""
        if self._wire is None:
            return
        self._heard_at, self._is_ping_sent = now, False
        self.channels.now = now
        messages, answer = self._wire.receive(data)
        self._output += answer
        for message in messages:
            if message:
                self._read(message, now)

    def end(self, now: float, error: SockbridgeError | None = None, *, give_up: bool = False) -> float | None:
        """The connection has ended, or could not be opened. Returns the seconds until the next attempt, None if the
        client is closed. With ``give_up`` there is no other attempt."""
        hint = "" if self._wire is None else self._wire.hint
        code, reason = self._closing or (self._wire.ending() if self._wire is not None else (ABNORMAL, ""))
        if self.state is State.OPEN and now - self._began_at >= STABLE_SECONDS:
            self._maximum_delay = self._first_delay
        self._wire, self.welcome = None, None
        self._output, self._messages = b"", []
        self.channels.disconnected()
        if error is None and self.state is State.CONNECTING and not reason and hint:
            error = SockbridgeError("unreachable", f"the server sent no welcome: {hint}")
        if self.state is not State.CLOSED:
            self.error = error or SockbridgeError("disconnected", reason or "the connection ended")
        self.calls.disconnected()
        if self.state is State.CLOSED:
            return None
        if code in (NORMAL, POLICY):
            self.close(SockbridgeError("closed", reason or "the server closed the connection"))
            return None
        if give_up:
            self.close(self.error)
            return None  # and without the state WAITING, in which programs report that another attempt follows
        self._set_state(State.WAITING)
        delay = self._maximum_delay * (OVERLOAD_FACTOR if code == OVERLOADED else 1)
        self._maximum_delay = min(self._maximum_delay * 2, self._longest_delay)
        return delay * self._random()

    def close(self, error: SockbridgeError | None = None) -> None:
        """Close the client permanently. Send ``output`` once more, and close the connection. All commands and
        subscriptions end with the error."""
        if self.state is State.CLOSED:
            return
        self.error = error = error or SockbridgeError("closed", "the client was closed")
        if self._wire is not None:
            self._output = self.output() + self._wire.closing()
        self._set_state(State.CLOSED)
        self.calls.close(error)
        self.channels.close(error)

    def deadline(self) -> float | None:
        """When to call ``tick``, None while there is no connection."""
        if self._wire is None:
            return None
        silence = QUIET_SECONDS if self.state is State.OPEN and not self._is_ping_sent else ANSWER_SECONDS
        return min(self._heard_at + silence, self.channels.next_retry)

    def tick(self, now: float) -> None:
        """Send a ping after a silence, and repeat subscriptions. Raises SockbridgeError if the server does not answer:
        then abort the connection."""
        self.channels.retry(now)
        if self.state is State.OPEN and not self._is_ping_sent:
            if now >= self._heard_at + QUIET_SECONDS:
                self._is_ping_sent, self._heard_at = True, now
                self._messages.append(b'{"type":"ping"}')
        elif self._wire is not None and now >= self._heard_at + ANSWER_SECONDS:
            if self.state is State.CONNECTING:
                raise SockbridgeError("unreachable", f"the server sent no welcome: {self._wire.hint}")
            raise SockbridgeError("disconnected", "the server does not answer")

    def _set_state(self, state: State) -> None:
        self.state = state
        self._on_state()

    # Commands.

    def publish(self, channel: str, data: Any, name: str | None, callback: Callback, key: str | None = None) -> None:
        """Publish an event. The result is its offset. With a key, the publication is repeated on the next connection if
        this one ends before the answer, and the server publishes it once."""

        def published(answer: dict[str, Any]) -> int:
            offset: int = answer["offset"]
            self.channels.published(channel, offset)
            return offset

        self.calls.call(publication(channel, data, name, key), _with(callback, published), callback)

    def history(
        self,
        channel: str,
        last: int | None,
        after: int | str | None,
        before: int | str | None,
        callback: Callback,
    ) -> None:
        """Read past events: see History. Bounds are offsets, or times as text."""
        bounds = {"last": last, "after": after, "before": before}
        given = {name: value for name, value in bounds.items() if value is not None}
        message = {"type": "history", "channel": channel, **given}
        self.calls.call(message, _with(callback, lambda answer: read_history(channel, answer)), callback)

    def members(self, channel: str, callback: Callback) -> None:
        """List the subscribers of a channel."""
        self.calls.call(
            {"type": "who", "channel": channel},
            _with(callback, lambda answer: [Member(each["id"], each["nick"]) for each in answer["members"]]),
            callback,
        )

    def list_channels(self, prefix: str, callback: Callback) -> None:
        """List the channels whose names begin with ``prefix``, over all pages."""
        found: list[Channel] = []

        def answered(answer: Any, error: SockbridgeError | None) -> None:
            if error is not None:
                callback(None, error)
                return
            found.extend(Channel(each["channel"], each["readers"], each["offset"]) for each in answer["channels"])
            if answer["next"] is None:
                callback(found, None)
            else:
                self.calls.call({"type": "list", "prefix": prefix, "after": answer["next"]}, answered, callback)

        self.calls.call({"type": "list", "prefix": prefix}, answered, callback)

    def set_nick(self, nick: str, callback: Callback) -> None:
        """Change the nick, also for later connections. The result is the nick that the server uses."""

        def changed(answer: Any, error: SockbridgeError | None) -> None:
            if error is None:
                self.nick = nick
            callback(None if error else answer["nick"], error)

        self.calls.call({"type": "nick", "nick": nick}, changed, callback)

    def authenticate(self, token: str, callback: Callback) -> None:
        """Send a token. The result is the answer, with ``nick`` and ``expires``."""
        self.calls.call({"type": "auth", "token": token}, callback)

    def _send_together(self, message: dict[str, Any], callback: Callback | None = None) -> None:
        """Send a message now; without a callback, it needs no answer."""
        if callback is None:
            self._send(encode(message))
        else:
            self.calls.send(Command(message, callback))

    def _send(self, message: bytes) -> None:
        self._messages.append(message)

    # Messages of the server.

    def _read(self, message: bytes, now: float) -> None:
        try:
            if self.state is State.CONNECTING:
                self._read_welcome(message)
            elif message.startswith(b"{"):
                content = decode(message)
                reader = _READERS.get(content.get("type", ""))
                if reader is not None:  # other types are of later versions
                    reader(self, content)
            # Others are lines that were sent before the server knew that the client uses JSON.
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise SockbridgeError("bad-answer", f"a message of the server cannot be read: {error!r}") from error

    def _read_welcome(self, message: bytes) -> None:
        welcome = read_welcome(message)
        if welcome is None:
            is_http = message.startswith((b"HTTP/", b"<"))
            problem = "there is a web server: its addresses begin with ws://" if is_http else _OTHER_PROTOCOL
            self.close(SockbridgeError("bad-answer", problem))
            return
        self.welcome = welcome
        self.calls.connected()
        if self._token is not None:
            self.authenticate(self._token, self._authenticated)
            self._token = None
        if self.nick is not None:
            self.calls.call({"type": "nick", "nick": self.nick}, self._nick_answered)
        self._set_state(State.OPEN)  # after the token, because the program can send commands now
        self.channels.connected()
        self.calls.send_waiting()
        if not self._messages:
            self._messages.append(b'{"type":"ping"}')  # selects JSON, so that the server sends notices in it

    def _authenticated(self, answer: Any, error: SockbridgeError | None) -> None:
        if error is not None and error.code not in ("disconnected", "closed"):
            self.close(error)

    def _nick_answered(self, answer: Any, error: SockbridgeError | None) -> None:
        if error is not None and error.code not in ("disconnected", "closed"):
            self._on_notice(error.message, error.code)

    def _read_answer(self, content: dict[str, Any]) -> None:
        self.calls.answer(content.get("id"), content)

    def _read_error(self, content: dict[str, Any]) -> None:
        error = SockbridgeError(content["code"], content["message"])
        if not self.calls.answer(content.get("id"), None, error) and "id" not in content:
            self._on_notice(error.message, error.code)

    def _read_notice(self, content: dict[str, Any]) -> None:
        code = content.get("code", "")
        if code == "forbidden" and "channel" in content:
            self.channels.end(content["channel"], SockbridgeError(code, content["text"]))
            return
        self._on_notice(content["text"], code)
        if code == "token-expires":
            self._on_renewal()

    def _read_close(self, content: dict[str, Any]) -> None:
        self._closing = content["code"], content["reason"]


_READERS: dict[str, Callable[[Core, dict[str, Any]], None]] = {
    "ok": Core._read_answer,
    "pong": Core._read_answer,
    "error": Core._read_error,
    "event": lambda core, content: core.channels.read_event(content),
    "lost": lambda core, content: core.channels.read_lost(content),
    "reset": lambda core, content: core.channels.read_reset(content),
    "join": lambda core, content: core.channels.read_presence(content),
    "leave": lambda core, content: core.channels.read_presence(content),
    "notice": Core._read_notice,
    "close": Core._read_close,
}


def logging_errors(function: Callable[..., object]) -> Callable[..., None]:
    """A function of the program, whose exceptions are logged: they must not end the connection, or prevent that the
    messages after this one are read."""

    def call(*arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            _log.exception("a function of the program has failed")

    return call


def _with(callback: Callback, result_of: Callable[[dict[str, Any]], Any]) -> Callback:
    """A callback that passes on a part of the answer."""

    def answered(answer: Any, error: SockbridgeError | None) -> None:
        callback(None if error is not None else result_of(answer), error)

    return answered
