"""What one peer is told: replies that gather, and long ones that are said no faster than it reads."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import chain
from typing import TypeVar

from twistedsock.errors import TOO_MUCH_HELD, Error
from twistedsock.limits.memory import MemoryBudget
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.scheduler import TimeSlice
from twistedsock.pubsub.subscription import REPLY_PENDING, SOCKET_FULL, Outlet, Subscriber
from twistedsock.pubsub.values import Tag
from twistedsock.session.encoder import Encoder

T = TypeVar("T")

REFUSED_TOGETHER = 100
"""Refusals that are written at once."""

TAG_COST = 64
"""Bytes of memory that a tag takes, about."""


class SessionState(Enum):
    """OPEN runs commands; CLOSING has said its last word; CLOSED has no socket any more."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


def nothing() -> bool:
    """What is called back where nobody waits, or no longer. A session that is over must not be held by those whom it
    holds: only a full collection would find that out, which hardly ever comes."""
    return False


class ReplyWriter:
    """The speaking half of a session; a class of its own to be read by itself, and not an object of its own as ten
    thousand idle sessions would each have one more. ``on_input_resumed`` is called when commands can run that had
    to wait because ``input_paused`` was set."""

    __slots__ = (
        "_broker",
        "_busy",
        "_dialect",
        "_out",
        "_out_size",
        "_outlet",
        "_pieces",
        "_subscriber",
        "on_input_resumed",
        "input_paused",
        "state",
    )

    def __init__(self, broker: Broker, dialect: Encoder, outlet: Outlet, subscriber: Subscriber) -> None:
        self.state = SessionState.OPEN
        self.input_paused = False
        self.on_input_resumed: Callable[[], object] = nothing
        self._broker = broker
        self._dialect = dialect
        self._outlet = outlet
        self._subscriber = subscriber
        self._out: list[bytes] = []
        self._out_size = 0
        # A command is under way whose end the next ones must await.
        self._busy = False
        self._pieces: Iterator[bytes] | None = None

    @property
    def memory_budget(self) -> MemoryBudget:
        """What all connections hold together."""
        return self._broker.memory_budget

    @property
    def has_unfinished_reply(self) -> bool:
        """Whether a long reply has begun, and has not been said to its end."""
        return self._pieces is not None

    def flush(self) -> None:
        """Write the replies that have gathered. To be called after a batch of commands."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            self._outlet.write(data)
            self._broker.stats.sent += len(data)
            if self._outlet.blocked & SOCKET_FULL:
                # Who does not read its replies is not read either.
                self.input_paused = True

    def resume_writing(self) -> None:
        """Nothing waits in user space any more: go on with whatever had to wait for that."""
        if self.state is not SessionState.OPEN:
            return
        if self._pieces is not None:
            self._advance(self._pieces)
        self._go_on()
        self._broker.resume(self._subscriber)

    def _say(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= CHUNK_BYTES:
            self.flush()

    def _say_between(self, data: bytes) -> None:
        """Say what answers nothing, and must not stand in the midst of a long reply."""
        if self._pieces is None:
            self._say(data)
        else:
            self._pieces = chain(self._pieces, (data,))

    def _stream(self, pieces: Iterator[bytes]) -> None:
        """Say a reply that may be long, no faster than the peer reads it, and letting others have their turns."""
        time_slice = self._broker.scheduler.time_slice()
        for piece in pieces:
            self._say(piece)
            if self._outlet.blocked & SOCKET_FULL or self._has_had(time_slice):
                self._pieces = pieces
                self._outlet.blocked |= REPLY_PENDING
                self._stall()
                return

    def _advance(self, pieces: Iterator[bytes]) -> None:
        time_slice = self._broker.scheduler.time_slice()
        for piece in pieces:
            self._outlet.write(piece)
            self._broker.stats.sent += len(piece)
            if self._outlet.blocked & SOCKET_FULL or self._has_had(time_slice):
                return
        self._pieces = None
        self._busy = False
        self._release()

    def _has_had(self, time_slice: TimeSlice) -> bool:
        """Whether it is the others' turn; then the rest is said when they have had it."""
        if not time_slice.is_over():
            return False
        self._broker.scheduler.defer(self._proceed)
        return True

    def _proceed(self) -> None:
        if self._pieces is not None and not self._outlet.blocked & SOCKET_FULL:
            self.resume_writing()

    def _stall(self) -> None:
        self._busy = self.input_paused = True

    def _unstall(self) -> None:
        self._busy = False
        self._go_on()

    def _go_on(self) -> None:
        if self.input_paused and not self._busy and not self._outlet.blocked & SOCKET_FULL:
            self.input_paused = False
            self.on_input_resumed()

    def _release(self) -> None:
        if self._outlet.blocked & REPLY_PENDING:
            self._outlet.blocked &= ~REPLY_PENDING
            self._broker.resume(self._subscriber)

    def close_with_error(self, error: Error) -> None:
        """There is no room for what the peer asks for: tell it, and close, so that it comes back later."""

    def _refuse(self, tag: Tag, error: Error) -> None:
        self._broker.stats.count_error(error.code)
        self._say(self._dialect.refused(tag, error))

    def _refuse_all(self, tags: Sequence[Tag], error: Error) -> None:
        """Each of them. A read can bring ten thousand publishes, and a refusal is ten times as long as the shortest of
        them: so they are said no faster than the peer reads."""
        if len(tags) <= REFUSED_TOGETHER:
            for tag in tags:
                self._refuse(tag, error)
            return
        self._broker.stats.count_error(error.code, len(tags))
        self._stream(self._refusals(tags, error))
        if self._pieces is not None and self.memory_budget.is_exceeded_by(self._subscriber.client.source):
            self._pieces = None
            self.close_with_error(TOO_MUCH_HELD)

    def _refusals(self, tags: Sequence[Tag], error: Error) -> Iterator[bytes]:
        """In pieces; the tags are counted as long as they are held."""
        held = TAG_COST * len(tags)
        self.memory_budget.add(held, self._subscriber.client.source)
        try:
            for start in range(0, len(tags), REFUSED_TOGETHER):
                yield b"".join([self._dialect.refused(tag, error) for tag in tags[start : start + REFUSED_TOGETHER]])
        finally:
            self.memory_budget.add(-held, self._subscriber.client.source)

    def _with_channel(self, name: bytes, tag: Tag, action: Callable[[Channel], None]) -> None:
        def act(channel: Channel) -> None:
            if self._broker.channels.get(name) is channel:
                action(channel)
            else:  # somebody else who had waited for it found no use for it, and it is gone again
                self._with_channel(name, tag, action)

        self._await(self._broker.open(name, self._subscriber.client.principal), tag, act)

    def _await(self, answer: T | Error | Future[T], tag: Tag, action: Callable[[T], None]) -> None:
        """Go on with ``action`` once the answer is there; a refusal is told to the peer."""

        def act(outcome: T | Error) -> None:
            if isinstance(outcome, Error):
                self._refuse(tag, outcome)
            else:
                action(outcome)

        def act_late(outcome: T | Error) -> None:
            if self.state is SessionState.OPEN:
                self._busy = False
                act(outcome)
                self.flush()
                self._go_on()

        if isinstance(answer, Future):
            self._stall()
            answer.then(act_late)
        else:
            act(answer)


class PendingReply:
    """The place of some publishes among the replies."""

    __slots__ = ("outcome", "tags")

    def __init__(self, tags: Sequence[Tag]) -> None:
        self.tags = tags
        self.outcome: int | Error | None = None


class PendingReplies:
    """``publishes`` is how many wait."""

    __slots__ = ("_slots", "publishes")

    def __init__(self) -> None:
        self._slots: deque[PendingReply] = deque()
        self.publishes = 0

    def __bool__(self) -> bool:
        return bool(self._slots)

    def take_off(self, tags: Sequence[Tag]) -> PendingReply:
        """Publishes were asked for, one for each tag."""
        slot = PendingReply(tags)
        self._slots.append(slot)
        self.publishes += len(tags)
        return slot

    def land(self, slot: PendingReply, outcome: int | Error) -> list[tuple[Sequence[Tag], int | Error]]:
        """The backplane has answered; gives what can be told now: nothing, while something asked before is out."""
        slot.outcome = outcome
        told: list[tuple[Sequence[Tag], int | Error]] = []
        while self._slots and (settled := self._slots[0].outcome) is not None:
            tags = self._slots.popleft().tags
            self.publishes -= len(tags)
            told.append((tags, settled))
        return told

    def has_overtaken(self) -> bool:
        """Whether something is answered and cannot be told yet."""
        return any(slot.outcome is not None for slot in self._slots)


# TODO-MERGED-DOC: Publishes that wait for the backplane, in the order of their commands. They may be answered
# in any order, as they may go to different channels; their replies go out in the order in which they were asked
# for.
