"""Between a shell and its session: messages in, one command after the other, no faster than the session takes them,
no faster than the peer may go, and no longer at a time than is fair to others."""

from collections.abc import Callable, Sequence
from typing import Protocol

from twistedsock.core import commands
from twistedsock.core.commands import Command, Mistake, Publish, Tag
from twistedsock.core.dialect import Ending
from twistedsock.core.errors import INTERNAL, TOO_FAST, TOO_MUCH_HELD, Refusal
from twistedsock.core.limits import SHARE
from twistedsock.core.rate import Verdict, token_price, unreadable_price
from twistedsock.core.session import Session
from twistedsock.core.speaker import State
from twistedsock.wire.backlog import Backlog


class Codec(Protocol):
    """The inward half of a dialect; the modules ``line_commands`` and ``json_commands`` are the two."""

    def decode(self, message: bytes) -> Command | None:
        """The command that a message asks for; None for nothing."""

    def find_tag(self, message: bytes) -> Tag:
        """The tag in a message of which ``decode`` has made nothing; None if there is none."""

    def follow(self, first: Publish, items: Sequence[object], position: int) -> tuple[Publish, int]:
        """Add to a publish those from ``position`` on that belong together with it; gives the position after them.
        There must be an item at ``position``."""


STRIDE = 64
"""Publishes between two looks at the clock: each costs microseconds, unlike other commands. Those that go together, as
one command, are as many as one read can bring at most."""

FLOODED = b"you went on sending faster than you may"
"""The last words to who did."""


def _price(command: Command | None, message: bytes | Command) -> float:
    """What the command in a message costs before it has been run. The session charges what depends on its answer. A
    publish costs the same however many readers its channel has: those of one turn are delivered together, so readers
    cost time for each turn and not for each publish; and a rate that falls when the audience grows would stop honest
    publishers."""
    if isinstance(command, Publish):
        return len(command.tags)
    if isinstance(command, Mistake) and isinstance(message, bytes):
        return 1 + unreadable_price(len(message))
    return 1 + token_price(len(command.token)) if isinstance(command, commands.Auth) else 1


def _mistake(refusal: Refusal, command: Command | None) -> Mistake:
    """The answer in place of a command's own; a publish of many payloads has many."""
    tags: Sequence[Tag] = command.tags if isinstance(command, Publish) else (getattr(command, "tag", None),)
    return Mistake(refusal, tags[0], tags[1:])


class Conversation:
    """``pause`` and ``resume`` stop and start the reading from the socket. What has been read already waits here:
    at most what the shell reads at once. ``report`` is called where a fault of ours is being handled, to log it.
    The rate of a session that ``is_metered`` is limited."""

    __slots__ = ("_backlog", "_behind", "_counted", "_pause", "_read_as", "_report", "_resume", "codec", "session")

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
        self._backlog: Backlog | None = None
        # What waits behind the messages that are being run just now.
        self._behind: Backlog | None = None
        # Bytes of the backlog, as they are counted among what all hold.
        self._counted = 0
        self._pause = pause
        self._resume = resume
        self._report = report
        # What becomes of the commands in what was read last.
        self._read_as = Verdict.RUN
        session.on_ready = self._go_on

    @property
    def is_metered(self) -> bool:
        """Whether ``came`` must be called."""
        return self.session.is_metered

    def came(self, size: int) -> None:
        """The shell has read so many bytes of a client that is metered. To be called before what they say is received;
        it may close the connection."""
        meter = self.session.meter
        assert meter is not None  # of a session that is metered
        self._read_as = meter.read(size, self.session.now())
        if self._read_as is Verdict.CLOSE:
            self._close()

    def may_be_answered(self) -> bool:
        """Whether something that is no command, but costs as much, is not too fast; it may close the connection."""
        verdict = self._judge(1)
        if verdict is Verdict.CLOSE:
            self._close()
        return verdict is Verdict.RUN

    @property
    def waits(self) -> bool:
        """Whether the peer is not read just now."""
        return self._backlog is not None

    def receive(self, messages: Sequence[bytes | Command]) -> None:
        """Run what came: messages of the dialect, or commands that the shell found between them."""
        if self._backlog is not None:
            self._backlog.extend(messages)
            self._count(self._backlog)
            return
        self.session.begin()
        try:
            self._run(messages)
        finally:
            self.session.finish(self)

    def _run(self, messages: Sequence[bytes | Command]) -> None:
        session, decode = self.session, self.codec.decode
        is_metered = session.is_metered
        position, end = 0, len(messages)
        look, enough = STRIDE, 0.0
        while position < end:
            message = messages[position]
            position += 1
            command: Command | None = None
            try:
                command = decode(message) if isinstance(message, bytes) else message
                if isinstance(command, Publish) and position < end:
                    command, position = self.codec.follow(command, messages, position)
                if is_metered and not self._is_in_time(command, message):
                    pass
                elif command is not None:
                    session.run(command)
            except Exception:
                self._report()
                # With the tags: a client that waits for that answer must get it.
                if command is None and isinstance(message, bytes):
                    command = Mistake(INTERNAL, self.codec.find_tag(message))
                session.run(_mistake(INTERNAL, command))
            if session.stalled:
                self._wait(messages[position:])
                return
            if position < end and (position >= look or not isinstance(command, Publish)):
                look = position + STRIDE
                now = session.now()
                enough = enough or now + SHARE
                if now >= enough:
                    self._wait(messages[position:])
                    session.postpone(self._go_on)
                    return

    def _judge(self, price: float) -> Verdict:
        meter = self.session.meter
        return Verdict.RUN if meter is None else meter.judge(price, self._read_as)

    def _is_in_time(self, command: Command | None, message: bytes | Command) -> bool:
        """Whether a command may be run; where not, its refusal has taken its place, or the peer is closed."""
        if isinstance(command, commands.Quit):
            return True
        verdict = self._judge(_price(command, message))
        if verdict is Verdict.REFUSE and command is not None and not isinstance(command, commands.Interrupt):
            self.session.run(_mistake(TOO_FAST, command))
        elif verdict is Verdict.CLOSE:
            self._close()
        return verdict is Verdict.RUN

    def _close(self) -> None:
        self.session.dismiss(Ending.POLICY, FLOODED)

    def flush(self) -> None:
        """Say what waits to be said; read no more of a peer that does not read it."""
        self.session.flush()
        if self.session.stalled and self._backlog is None:
            self._wait(())

    def hold(self) -> None:
        """What the shell itself has answered was not taken: read no more of the peer until it has been."""
        self.session.stalled = True
        if self._backlog is None:
            self._wait(())

    def finish(self) -> None:
        """The peer says nothing more: run and answer what came, then leave."""
        self.receive([commands.Quit("it has ended its stream, with a FIN")])

    def lost(self, how: str = "") -> None:
        """The connection is gone; ``how`` it ended."""
        self.session.lost(how)
        self._let_go()

    def _wait(self, rest: Sequence[bytes | Command]) -> None:
        if self.session.state is not State.OPEN:
            return  # it leaves: the shell reads its stream to the end, and nothing of it is run any more
        behind, self._behind = self._behind, None
        backlog = behind or Backlog()
        backlog.put_back(rest)
        self._backlog = backlog
        self.session.flush()
        self._pause()
        if behind is None:  # else it has been counted, and is less now
            self._count(backlog)

    def _count(self, backlog: Backlog) -> None:
        """What waits has become more; where it is too much, the peer goes, and it with it."""
        holdings, source = self.session.holdings, self.session.peer.source
        self._counted = holdings.recount(self._counted, backlog.size, source)
        if self._counted and holdings.is_too_much_for(source):
            self._let_go()
            self.session.turn_away(TOO_MUCH_HELD)

    def _let_go(self) -> None:
        self._backlog = self._behind = None
        self._counted = self.session.holdings.recount(self._counted, 0, self.session.peer.source)

    def _go_on(self) -> None:
        if self.session.stalled:
            return  # since it was postponed; it will be called when that is over
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            return
        if (meter := self.session.meter) is not None:
            meter.fill(self.session.now())
        self._behind = backlog
        self.receive(backlog.take())
        self._behind = None
        if self._backlog is None:
            if backlog and self.session.state is State.OPEN:
                self._backlog = backlog
                self.session.postpone(self._go_on)
            else:
                self._let_go()
                self._resume()
