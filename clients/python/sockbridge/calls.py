"""The commands of a client: those that wait for a connection, those that wait for their answers, and what becomes of
both when a connection ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sockbridge.channels import Callback
from sockbridge.errors import SockbridgeError
from sockbridge.messages import encode

MAX_WAITING = 256
"""Commands that wait for a connection, so that their number is limited without a server."""

MAX_UNANSWERED = 4096
"""Commands that were sent and not answered. A slow server cannot make the client keep more."""


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


class Calls:
    """``send`` sends an encoded message on the connection."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._is_connected = False
        self._error: SockbridgeError | None = None
        """Why the client is closed."""
        self._waiting: list[Command] = []
        self._sent: dict[int, Command] = {}
        self._next_id = 1

    def call(self, message: dict[str, Any], callback: Callback, owner: Callback | None = None) -> None:
        """Send a command, now or when a connection is open. ``callback`` receives its answer, or its error. If it wraps
        the callback of the program, ``owner`` is that one."""
        if self._error is not None:
            callback(None, self._error)
        elif self._is_connected and len(self._sent) < MAX_UNANSWERED:
            self.send(Command(message, callback, owner))
        elif not self._is_connected and len(self._waiting) < MAX_WAITING:
            self._waiting.append(Command(message, callback, owner))
        else:
            callback(None, SockbridgeError("queue-full", "too many commands wait for the server"))

    def send(self, command: Command) -> None:
        """Send a command now, even if many wait for their answers."""
        id, self._next_id = self._next_id, self._next_id + 1
        try:
            message = encode({"id": id, **command.message})
        except (TypeError, ValueError) as error:
            command.callback(None, SockbridgeError("bad-argument", f"the data is not a JSON value: {error}"))
            return
        self._sent[id], command.was_sent = command, True
        self._send(message)

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

    def answer(self, id: Any, content: Any, error: SockbridgeError | None = None) -> bool:
        """The server has answered the command with this id. Returns False if there is none."""
        command = self._sent.pop(id, None)
        if command is not None:
            command.callback(content, error)
        return command is not None

    def connected(self) -> None:
        """Commands can be sent. Those that wait are sent by ``send_waiting``, after those that the core sends first."""
        self._is_connected = True

    def send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            self.send(command)

    def disconnected(self) -> None:
        """The connection has ended: commands without an answer fail, or wait for the next connection."""
        self._is_connected = False  # first, so that a program can repeat a command when it fails
        sent, self._sent = self._sent, {}
        self._waiting[:0] = [command for command in sent.values() if command.is_repeatable]
        lost = [command for command in sent.values() if not command.is_repeatable]
        _fail(lost, SockbridgeError("disconnected", "the connection ended before the answer"))

    def close(self, error: SockbridgeError) -> None:
        """The client is closed: all commands fail."""
        self._error = error
        commands = [*self._sent.values(), *self._waiting]
        self._sent, self._waiting = {}, []
        _fail(commands, error)


def _fail(commands: Iterable[Command], error: SockbridgeError) -> None:
    for command in commands:
        command.callback(None, error)
