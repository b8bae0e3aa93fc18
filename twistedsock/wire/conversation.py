"""Between a shell and its session: messages in, one command after the other, no faster than the session takes them."""

from collections import deque
from collections.abc import Callable, Sequence

from twistedsock.core import commands
from twistedsock.core.commands import Command, Mistake
from twistedsock.core.errors import INTERNAL
from twistedsock.core.session import Session

Decode = Callable[[bytes], Command | None]


class Conversation:
    """``pause`` and ``resume`` stop and start the reading from the socket. What has been read already waits here:
    at most what the shell reads at once. ``report`` is called where a fault of ours is being handled, to log it."""

    __slots__ = ("_backlog", "_pause", "_report", "_resume", "decode", "session")

    def __init__(
        self,
        session: Session,
        decode: Decode,
        pause: Callable[[], object],
        resume: Callable[[], object],
        report: Callable[[], object],
    ) -> None:
        self.session = session
        self.decode = decode
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
        session, decode = self.session, self.decode
        for position, message in enumerate(messages):
            command: Command | None = None
            try:
                command = decode(message) if isinstance(message, bytes) else message
                if command is not None:
                    session.run(command)
            except Exception:
                self._report()
                # With the tag, if it got so far: who waits for that answer must hear it.
                session.run(Mistake(INTERNAL, getattr(command, "tag", None)))
            if session.stalled:
                self._wait(messages[position + 1 :])
                return
        session.flush()
        if session.stalled:
            self._wait(())

    def finish(self) -> None:
        """The peer says nothing more: run and answer what came, then leave."""
        self.receive([commands.Quit()])

    def _wait(self, rest: Sequence[bytes | Command]) -> None:
        self._backlog = deque(rest)
        self.session.flush()
        self._pause()

    def _go_on(self) -> None:
        rest, self._backlog = self._backlog, None
        if rest is not None:
            self.receive(list(rest))
            if self._backlog is None:
                self._resume()
