"""Between a shell and its session: messages in, one command after the other, no faster than the session takes them,
no faster than the peer may go, and no longer at a time than is fair to others."""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from twistedsock.errors import INTERNAL, TOO_FAST, TOO_MUCH_HELD, CloseReason, Error
from twistedsock.limits.rate import Decision, token_price, unreadable_price
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.values import Tag
from twistedsock.session import commands
from twistedsock.session.commands import Command, InvalidCommand, Publish
from twistedsock.session.replies import SessionState
from twistedsock.session.session import Session

Message = bytes | Command

PART = 1_000
"""Messages that are taken at a time; and so many at most wait one by one, each with the 60 bytes or so that an object
takes beside its own. One read can bring 20,000 of two bytes."""

EACH = 64
"""Bytes of memory that a message, or a payload, takes beside its own; see above."""

_Joined = tuple[bytes, "array[int]"]
"""Messages in a row, and the length of each."""


class InputQueue:
    """First in, first out. It is true while anything waits."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: deque[list[Message] | _Joined] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return sum(map(_size_of, self._parts))

    def extend(self, messages: Sequence[Message]) -> None:
        """Let these wait behind all others."""
        last = self._parts[-1] if self._parts else None
        if isinstance(last, list) and len(last) + len(messages) <= PART:
            last.extend(messages)
        else:
            self._parts.extend(_parts_of(messages))

    def put_back(self, messages: Sequence[Message]) -> None:
        """Let these wait before all others."""
        self._parts.extendleft(reversed(_parts_of(messages)))

    def take(self) -> list[Message]:
        """The next messages; none if nothing waits."""
        if not self._parts:
            return []
        part = self._parts.popleft()
        if isinstance(part, list):
            return part
        joined, sizes = part
        messages: list[Message] = []
        position = 0
        for size in sizes:
            messages.append(joined[position : position + size])
            position += size
        return messages


def _parts_of(messages: Sequence[Message]) -> list[list[Message] | _Joined]:
    if len(messages) <= PART:
        return [list(messages)] if messages else []
    return [_join(messages[start : start + PART]) for start in range(0, len(messages), PART)]


def _join(messages: Sequence[Message]) -> list[Message] | _Joined:
    texts = [message for message in messages if isinstance(message, bytes)]
    if len(texts) != len(messages):
        return list(messages)
    return b"".join(texts), array("I", map(len, texts))


def _size_of(part: list[Message] | _Joined) -> int:
    if isinstance(part, list):
        return sum(EACH + (len(message) if isinstance(message, bytes) else _carried(message)) for message in part)
    joined, sizes = part
    return len(joined) + sizes.itemsize * len(sizes)


def _carried(command: Command) -> int:
    return command.payloads.size + EACH * len(command.payloads) if isinstance(command, Publish) else 0


class Decoder(Protocol):
    """The inward half of a dialect; the modules ``line_commands`` and ``json_commands`` are the two."""

    def decode(self, message: bytes) -> Command | None:
        """The command that a message asks for; None for nothing."""

    def find_tag(self, message: bytes) -> Tag:
        """The tag in a message of which ``decode`` has made nothing; None if there is none."""

    def decode_alike(self, first: Publish, messages: Sequence[object], position: int) -> Publish | None:
        """Messages from ``position`` on that can be joined to ``first``, the publication before them, and need not be
        decoded one by one to see that; None if there are none."""


PUBLISHES_PER_CLOCK_CHECK = 64
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
    if isinstance(command, InvalidCommand) and isinstance(message, bytes):
        return 1 + unreadable_price(len(message))
    return 1 + token_price(len(command.token)) if isinstance(command, commands.Auth) else 1


def _mistake(error: Error, command: Command | None) -> InvalidCommand:
    """The answer in place of a command's own; a publish of many payloads has many."""
    tags: Sequence[Tag] = command.tags if isinstance(command, Publish) else (getattr(command, "tag", None),)
    return InvalidCommand(error, tags[0], tags[1:])


class InputPipeline:
    """``pause`` and ``resume`` stop and start the reading from the socket. What has been read already waits here:
    at most what the shell reads at once. ``report`` is called where a fault of ours is being handled, to log it.
    The rate of a session that ``is_rate_limited`` is limited."""

    __slots__ = ("_backlog", "_behind", "_counted", "_pause", "_read_as", "_report", "_resume", "decoder", "session")

    def __init__(
        self,
        session: Session,
        decoder: Decoder,
        pause: Callable[[], object],
        resume: Callable[[], object],
        report: Callable[[], object],
    ) -> None:
        self.session = session
        self.decoder = decoder
        self._backlog: InputQueue | None = None
        # What waits behind the messages that are being run just now.
        self._behind: InputQueue | None = None
        # Bytes of the backlog, as they are counted among what all hold.
        self._counted = 0
        self._pause = pause
        self._resume = resume
        self._report = report
        # What becomes of the commands in what was read last.
        self._read_as = Decision.ALLOW
        session.on_input_resumed = self._go_on

    @property
    def is_rate_limited(self) -> bool:
        """Whether ``came`` must be called."""
        return self.session.is_rate_limited

    def bytes_received(self, size: int) -> None:
        """The shell has read so many bytes of a client that is metered. To be called before what they say is received;
        it may close the connection."""
        meter = self.session.rate_limiter
        assert meter is not None  # of a session that is metered
        self._read_as = meter.count_bytes(size, self.session.now())
        if self._read_as is Decision.DISCONNECT:
            self._close()

    def is_within_rate(self) -> bool:
        """Whether something that is no command, but costs as much, is not too fast; it may close the connection."""
        verdict = self._judge(1)
        if verdict is Decision.DISCONNECT:
            self._close()
        return verdict is Decision.ALLOW

    @property
    def is_paused(self) -> bool:
        """Whether the peer is not read just now."""
        return self._backlog is not None

    def submit(self, messages: Sequence[bytes | Command]) -> None:
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
        session, decode = self.session, self.decoder.decode
        is_rate_limited = session.is_rate_limited
        position, end = 0, len(messages)
        look, enough = PUBLISHES_PER_CLOCK_CHECK, 0.0
        decoded: Command | None = None
        while position < end:
            message = messages[position]
            position += 1
            command, decoded = decoded, None
            try:
                if command is None:
                    command = decode(message) if isinstance(message, bytes) else message
                if isinstance(command, Publish) and position < end:
                    command, position, decoded = self._join(command, messages, position)
                if is_rate_limited and not self._is_in_time(command, message):
                    pass
                elif command is not None:
                    session.handle(command)
            except Exception:
                self._report()
                # With the tags: a client that waits for that answer must get it.
                if command is None and isinstance(message, bytes):
                    command = InvalidCommand(INTERNAL, self.decoder.find_tag(message))
                session.handle(_mistake(INTERNAL, command))
            if session.input_paused:
                self._wait(messages[position:])
                return
            if position < end and (position >= look or not isinstance(command, Publish)):
                look = position + PUBLISHES_PER_CLOCK_CHECK
                now = session.now()
                enough = enough or now + TIME_SLICE_SECONDS
                if now >= enough:
                    self._wait(messages[position:])
                    session.postpone(self._go_on)
                    return

    def _join(
        self, first: Publish, messages: Sequence[bytes | Command], position: int
    ) -> tuple[Publish, int, Command | None]:
        """Join the publications from ``position`` on to the one before them. Returns the position after them and, if
        the message there has been decoded, its command."""
        alike = self.decoder.decode_alike(first, messages, position)
        following: list[Publish] = []
        if alike is not None:
            following.append(alike)
            position += len(alike.tags)
        decode, command = self.decoder.decode, None
        while position < len(messages):
            message = messages[position]
            command = decode(message) if isinstance(message, bytes) else None
            if not isinstance(command, Publish) or not first.can_join(command):
                break
            following.append(command)
            command = None
            position += 1
        return (first.joined(following) if following else first), position, command

    def _judge(self, price: float) -> Decision:
        meter = self.session.rate_limiter
        return Decision.ALLOW if meter is None else meter.check(price, self._read_as)

    def _is_in_time(self, command: Command | None, message: bytes | Command) -> bool:
        """Whether a command may be run; where not, its refusal has taken its place, or the peer is closed."""
        if isinstance(command, commands.Quit):
            return True
        verdict = self._judge(_price(command, message))
        if verdict is Decision.REJECT and command is not None and not isinstance(command, commands.Notice):
            self.session.handle(_mistake(TOO_FAST, command))
        elif verdict is Decision.DISCONNECT:
            self._close()
        return verdict is Decision.ALLOW

    def _close(self) -> None:
        self.session.close(CloseReason.POLICY, FLOODED)

    def flush(self) -> None:
        """Say what waits to be said; read no more of a peer that does not read it."""
        self.session.flush()
        if self.session.input_paused and self._backlog is None:
            self._wait(())

    def pause(self) -> None:
        """What the shell itself has answered was not taken: read no more of the peer until it has been."""
        self.session.input_paused = True
        if self._backlog is None:
            self._wait(())

    def end_of_input(self) -> None:
        """The peer says nothing more: run and answer what came, then leave."""
        self.submit([commands.Quit("it has ended its stream, with a FIN")])

    def connection_lost(self, how: str = "") -> None:
        """The connection is gone; ``how`` it ended."""
        self.session.connection_lost(how)
        self._let_go()

    def _wait(self, rest: Sequence[bytes | Command]) -> None:
        if self.session.state is not SessionState.OPEN:
            return  # it leaves: the shell reads its stream to the end, and nothing of it is run any more
        behind, self._behind = self._behind, None
        backlog = behind or InputQueue()
        backlog.put_back(rest)
        self._backlog = backlog
        self.session.flush()
        self._pause()
        if behind is None:  # else it has been counted, and is less now
            self._count(backlog)

    def _count(self, backlog: InputQueue) -> None:
        """What waits has become more; where it is too much, the peer goes, and it with it."""
        memory_budget, source = self.session.memory_budget, self.session.client.source
        self._counted = memory_budget.adjust(self._counted, backlog.size, source)
        if self._counted and memory_budget.is_exceeded_by(source):
            self._let_go()
            self.session.close_with_error(TOO_MUCH_HELD)

    def _let_go(self) -> None:
        self._backlog = self._behind = None
        self._counted = self.session.memory_budget.adjust(self._counted, 0, self.session.client.source)

    def _go_on(self) -> None:
        if self.session.input_paused:
            return  # since it was postponed; it will be called when that is over
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            return
        if (meter := self.session.rate_limiter) is not None:
            meter.refill(self.session.now())
        self._behind = backlog
        self.submit(backlog.take())
        self._behind = None
        if self._backlog is None:
            if backlog and self.session.state is SessionState.OPEN:
                self._backlog = backlog
                self.session.postpone(self._go_on)
            else:
                self._let_go()
                self._resume()


# TODO-MERGED-DOC: Messages that wait to be run, in little more memory than they have bytes.
