"""Between a shell and its session: messages in, one command after the other, no faster than the session takes them."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from twistedsock.core import commands
from twistedsock.core.commands import Command, Mistake, Publish, Tag
from twistedsock.core.errors import INTERNAL
from twistedsock.core.session import Session, State


class Codec(Protocol):
    """The inward half of a dialect; the modules ``line_commands`` and ``json_commands`` are the two."""

    def decode(self, message: bytes) -> Command | None:
        """The command that a message asks for; None for nothing."""

    def follow(self, first: Publish, items: Sequence[object], position: int) -> tuple[Publish, int]:
        """Add to a publish those from ``position`` on that belong together with it; gives the position after them.
        There must be an item at ``position``."""


def _tags(command: Command | None) -> Sequence[Tag]:
    return command.tags if isinstance(command, Publish) else (getattr(command, "tag", None),)


class Conversation:
    """``pause`` and ``resume`` stop and start the reading from the socket. What has been read already waits here:
    at most what the shell reads at once. ``report`` is called where a fault of ours is being handled, to log it."""

    __slots__ = ("_backlog", "_pause", "_report", "_resume", "codec", "session")

    def __init__(
        self,
        session: Session,
        codec: Codec,
        pause: Callable[[], object],
        resume: Callable[[], object],
        report: Callable[[], object],
    ) -> None:
        self.session = session
        self.codec = codec
        self._backlog: deque[bytes | Command] | None = None
        self._pause = pause
        self._resume = resume
        self._report = report
        session.on_ready = self._go_on

    def receive(self, messages: Sequence[bytes | Command]) -> None:
        """Run what came: messages of the dialect, or commands that the shell found between them."""
        if self._backlog is not None:
            self._backlog.extend(messages)
            return
        self.session.begin()
        try:
            self._run(messages)
        finally:
            self.session.finish(self)

    def _run(self, messages: Sequence[bytes | Command]) -> None:
        session, decode = self.session, self.codec.decode
        position, end = 0, len(messages)
        while position < end:
            message = messages[position]
            position += 1
            command: Command | None = None
            try:
                command = decode(message) if isinstance(message, bytes) else message
                if isinstance(command, Publish) and position < end:
                    command, position = self.codec.follow(command, messages, position)
                if command is not None:
                    session.run(command)
            except Exception:
                self._report()
                # With the tags, if it got so far: who waits for that answer must hear it.
                for tag in _tags(command):
                    session.run(Mistake(INTERNAL, tag))
            if session.stalled:
                self._wait(messages[position:])
                return

    def flush(self) -> None:
        """Say what waits to be said; read no more of a peer that does not read it."""
        self.session.flush()
        if self.session.stalled and self._backlog is None:
            self._wait(())

    def hold(self) -> None:
        """What the shell itself has answered was not taken: read no more of the peer until it has been."""
        if self._backlog is None:
            self.session.stalled = True
            self._wait(())

    def finish(self) -> None:
        """The peer says nothing more: run and answer what came, then leave."""
        self.receive([commands.Quit()])

    def _wait(self, rest: Sequence[bytes | Command]) -> None:
        if self.session.state is not State.OPEN:
            return  # it leaves: the shell reads its stream to the end, and nothing of it is run any more
        self._backlog = deque(rest)
        self.session.flush()
        self._pause()

    def _go_on(self) -> None:
        rest, self._backlog = self._backlog, None
        if rest is not None:
            self.receive(list(rest))
            if self._backlog is None:
                self._resume()
