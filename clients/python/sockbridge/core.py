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
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from sockbridge.channels import Callback, Channels
from sockbridge.errors import SockbridgeError
from sockbridge.messages import decode, encode, publication, read_history
from sockbridge.values import Channel, Member, Welcome
from sockbridge.wire import ABNORMAL, Wire

_log = logging.getLogger("sockbridge")

MAX_WAITING = 256
"""Commands that wait for a connection, so that their number is limited without a server."""

MAX_UNANSWERED = 4096
"""Commands that were sent and not answered. A slow server cannot make the client keep more."""

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


class Command:
    """A command on its way. Its message gets an id when it is sent. ``owner`` is the callback of the program, by which
    the command is cancelled."""

    __slots__ = ("callback", "message", "owner", "was_sent")

    def __init__(self, message: dict[str, Any], callback: Callback, owner: Callback | None = None) -> None:
        self.message = message
        self.callback = callback
        self.owner = owner or callback
        self.was_sent = False

    @property
    def is_repeatable(self) -> bool:
        """Whether the server runs it once, even if it is sent on several connections."""
        return "key" in self.message


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
        self.channels = Channels(self._send_together)
        """The subscriptions."""
        self.nick = nick
        self._random = random
        self._on_state = logging_errors(on_state)
        self._on_notice = logging_errors(on_notice)
        self._on_renewal = logging_errors(on_renewal)
        self._wire: Wire | None = None
        self._token: str | None = None
        self._waiting: list[Command] = []
        self._sent: dict[int, Command] = {}
        self._next_id = 1
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
        sent, self._sent = self._sent, {}
        self._waiting[:0] = [command for command in sent.values() if command.is_repeatable]
        lost = [command for command in sent.values() if not command.is_repeatable]
        self._fail(lost, SockbridgeError("disconnected", "the connection ended before the answer"))
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
        commands = [*self._sent.values(), *self._waiting]
        self._sent, self._waiting = {}, []
        self._fail(commands, error)
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

    def call(self, message: dict[str, Any], callback: Callback, owner: Callback | None = None) -> None:
        """Send a command, now or when a connection is open. ``callback`` receives its answer, or its error. If it wraps
        the callback of the program, ``owner`` is that one."""
        if self.state is State.CLOSED:
            callback(None, self.error)
        elif self.state is State.OPEN and len(self._sent) < MAX_UNANSWERED:
            self._send(Command(message, callback, owner))
        elif self.state is not State.OPEN and len(self._waiting) < MAX_WAITING:
            self._waiting.append(Command(message, callback, owner))
        else:
            callback(None, SockbridgeError("queue-full", "too many commands wait for the server"))

    def cancel(self, callback: Callback) -> bool:
        """Forget a command whose result is no longer needed: it is not sent, or its answer is ignored. Returns False if
        it was sent already."""
        for command in self._waiting:
            if command.owner is callback:
                self._waiting.remove(command)
                return not command.was_sent
        for id, command in self._sent.items():  # the oldest first, which is the first to time out
            if command.owner is callback:
                del self._sent[id]
                break
        return False

    def publish(self, channel: str, data: Any, name: str | None, callback: Callback, key: str | None = None) -> None:
        """Publish an event. The result is its offset. With a key, the publication is repeated on the next connection if
        this one ends before the answer, and the server publishes it once."""

        def published(answer: dict[str, Any]) -> int:
            offset: int = answer["offset"]
            self.channels.published(channel, offset)
            return offset

        self.call(publication(channel, data, name, key), _with(callback, published), callback)

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
        self.call(message, _with(callback, lambda answer: read_history(channel, answer)), callback)

    def members(self, channel: str, callback: Callback) -> None:
        """List the subscribers of a channel."""
        self.call(
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
                self.call({"type": "list", "prefix": prefix, "after": answer["next"]}, answered, callback)

        self.call({"type": "list", "prefix": prefix}, answered, callback)

    def set_nick(self, nick: str, callback: Callback) -> None:
        """Change the nick, also for later connections. The result is the nick that the server uses."""

        def changed(answer: Any, error: SockbridgeError | None) -> None:
            if error is None:
                self.nick = nick
            callback(None if error else answer["nick"], error)

        self.call({"type": "nick", "nick": nick}, changed, callback)

    def authenticate(self, token: str, callback: Callback) -> None:
        """Send a token. The result is the answer, with ``nick`` and ``expires``."""
        self.call({"type": "auth", "token": token}, callback)

    def _send_together(self, message: dict[str, Any], callback: Callback | None = None) -> None:
        """Send a message now; without a callback, it needs no answer."""
        if callback is None:
            self._messages.append(encode(message))
        else:
            self._send(Command(message, callback))

    def _send(self, command: Command) -> None:
        id, self._next_id = self._next_id, self._next_id + 1
        try:
            message = encode({"id": id, **command.message})
        except (TypeError, ValueError) as error:
            command.callback(None, SockbridgeError("bad-argument", f"the data is not a JSON value: {error}"))
            return
        self._sent[id], command.was_sent = command, True
        self._messages.append(message)

    def _fail(self, commands: Iterable[Command], error: SockbridgeError) -> None:
        for command in list(commands):
            command.callback(None, error)

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
        """The first message is a line, or JSON over WebSocket. An error takes its place if there are too many
        connections."""
        if message.startswith(b"{"):
            content = decode(message)
            if content.get("type") == "error":
                raise SockbridgeError(content["code"], content["message"])
            fields, version = content, content.get("protocol")
        else:
            word, _, rest = message.decode(errors="replace").partition(" ")
            if word == "ERR":
                code, _, text = rest.partition(" ")
                raise SockbridgeError(code, text)
            name, _, options = rest.partition(" ")
            version = 1 if (word, name) == ("WELCOME", "sockbridge/1") else None
            fields = dict(option.partition("=")[::2] for option in options.split(" "))
        if version != 1 or not {"id", "from", "to"} <= fields.keys():
            is_http = message.startswith((b"HTTP/", b"<"))
            problem = "there is a web server: its addresses begin with ws://" if is_http else _OTHER_PROTOCOL
            self.close(SockbridgeError("bad-answer", problem))
            return
        self.welcome = Welcome(fields["id"], fields["from"], fields["to"])
        self._set_state(State.OPEN)
        if self._token is not None:
            self.authenticate(self._token, self._authenticated)
            self._token = None
        if self.nick is not None:
            self.call({"type": "nick", "nick": self.nick}, self._nick_answered)
        self.channels.connected()
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            self._send(command)
        if not self._messages:
            self._messages.append(b'{"type":"ping"}')  # selects JSON, so that the server sends notices in it

    def _authenticated(self, answer: Any, error: SockbridgeError | None) -> None:
        if error is not None and error.code not in ("disconnected", "closed"):
            self.close(error)

    def _nick_answered(self, answer: Any, error: SockbridgeError | None) -> None:
        if error is not None and error.code not in ("disconnected", "closed"):
            self._on_notice(error.message, error.code)

    def _read_answer(self, content: dict[str, Any]) -> None:
        command = self._sent.pop(content.get("id", 0), None)
        if command is not None:
            command.callback(content, None)

    def _read_error(self, content: dict[str, Any]) -> None:
        error = SockbridgeError(content["code"], content["message"])
        command = self._sent.pop(content.get("id", 0), None)
        if command is not None:
            command.callback(None, error)
        elif "id" not in content:
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
