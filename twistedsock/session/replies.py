"""The replies of one session: collected until the flush, long ones written no faster than the client reads them.

Publishes may be answered by the backplane in any order, because they can go to different channels. Their replies leave
in the order of the commands: ``PendingReplies``.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from twistedsock.errors import Error
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import NOT_READING, REPLY_PENDING, SOCKET_FULL, Outlet, Subscriber
from twistedsock.pubsub.values import Tag

if TYPE_CHECKING:
    from twistedsock.pubsub.broker import Broker
    from twistedsock.pubsub.scheduler import TimeSlice
    from twistedsock.session.commands import Close
    from twistedsock.session.encoder import Encoder, Piece

ERRORS_PER_PIECE = 100
"""Errors that are written at once."""

TAG_BYTES = 64
"""Approximate memory of one tag."""


class Input(Protocol):
    """The source of a session's commands: an ``InputPipeline``, or ``NO_INPUT``."""

    def pause_if_idle(self) -> None:
        """Stop reading from the socket. Input that is being run stops by itself, because of ``input_paused``."""

    def resume(self) -> None:
        """Run the commands that had to wait because of ``input_paused``."""

    def end_with(self, command: "Close") -> bool:
        """Discard the input that has not been run, and run this command when those before it are answered. Returns
        False if it cannot."""


class NoInput:
    """The input of a session that gets no more commands. It replaces the pipeline of a closed session, because the
    reference cycle of the two would keep both in memory until a full garbage collection."""

    def pause_if_idle(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def end_with(self, command: "Close") -> bool:
        return False


NO_INPUT = NoInput()


class ReplyWriter:
    """Writes replies to the outlet of the subscriber. ``is_busy`` is set while a command is not finished and the next
    ones must wait."""

    __slots__ = (
        "_broker",
        "_pieces",
        "_size",
        "chunks",
        "encoder",
        "input",
        "input_paused",
        "is_busy",
        "is_closed",
        "subscriber",
    )

    def __init__(self, broker: "Broker", encoder: "Encoder", subscriber: Subscriber) -> None:
        self.encoder = encoder
        self.input: Input = NO_INPUT
        self.input_paused = False
        """True while no command may be run, because a reply is unfinished or the client does not read its replies."""
        self.is_busy = False
        self.is_closed = False
        self._broker = broker
        self.subscriber = subscriber
        self.chunks: list[bytes] | None = None
        """The replies that wait for the flush. None most of the time, because an empty list takes memory."""
        self._size = 0
        self._pieces: Iterator[Piece] | None = None

    @property
    def outlet(self) -> Outlet:
        return self.subscriber.outlet

    @property
    def has_unfinished_reply(self) -> bool:
        """True if a long reply has begun and is not complete. Nothing else can be written then."""
        return self._pieces is not None

    def write(self, data: bytes) -> None:
        """Write a reply; nothing if it is empty, because the client wants none."""
        if data:
            if self.chunks is None:
                self.chunks = [data]
            else:
                self.chunks.append(data)
            self._size += len(data)
            if self._size >= CHUNK_BYTES:
                self.flush()

    def write_between_replies(self, data: bytes) -> None:
        """Write a message that is no reply, after the long reply that is being written, if there is one."""
        if self._pieces is None:
            self.write(data)
        else:
            self._pieces = chain(self._pieces, (data,))

    def flush(self) -> None:
        """Write the replies to the socket."""
        if self.chunks:
            data = b"".join(self.chunks)
            self.chunks = None
            self._size = 0
            outlet = self.subscriber.outlet
            outlet.write(data)
            self._broker.stats.sent += len(data)
            if outlet.blocked & SOCKET_FULL:
                # The server reads no more commands of a client that does not read its replies.
                self.input_paused = True
                self.input.pause_if_idle()

    def resume(self) -> None:
        """Continue after the socket has accepted all waiting bytes."""
        if self.is_closed:
            return
        if self._pieces is not None:
            self._write_pieces(self._pieces)
        self.resume_input()
        self._broker.resume(self.subscriber)

    def stream(self, pieces: "Iterator[Piece]") -> None:
        """Write a reply that can be long: no faster than the client reads, and in time slices."""
        time_slice = self._broker.scheduler.time_slice()
        for piece in pieces:
            if isinstance(piece, Future):
                if self.outlet.blocked & NOT_READING:  # the rest need not be read, because it would be discarded
                    return
                piece.then(self._continue_soon)
            else:
                self.write(piece)
                if not (self.outlet.blocked & SOCKET_FULL or self._is_over(time_slice)):
                    continue
            self._pieces = pieces
            self.outlet.blocked |= REPLY_PENDING
            self.pause_input()
            return

    def _write_pieces(self, pieces: "Iterator[Piece]") -> None:
        time_slice, outlet = self._broker.scheduler.time_slice(), self.subscriber.outlet
        for piece in pieces:
            if isinstance(piece, Future):
                if outlet.blocked & NOT_READING:
                    break
                piece.then(self._continue_soon)
                return
            outlet.write(piece)
            self._broker.stats.sent += len(piece)
            if outlet.blocked & SOCKET_FULL or self._is_over(time_slice):
                return
        self._pieces = None
        self.is_busy = False
        self.release_events()

    def _is_over(self, time_slice: "TimeSlice") -> bool:
        if not time_slice.is_over():
            return False
        self._continue_soon()
        return True

    def _continue_soon(self, outcome: object = None) -> None:
        self._broker.scheduler.defer(self._continue)

    def _continue(self) -> None:
        if self._pieces is not None and not self.outlet.blocked & SOCKET_FULL:
            self.resume()

    def drop_unfinished_reply(self) -> None:
        self._pieces = None

    def pause_input(self) -> None:
        """Run no command until ``finish_command``."""
        self.is_busy = self.input_paused = True

    def finish_command(self) -> None:
        """The command that paused the input is complete."""
        self.is_busy = False
        self.resume_input()

    def resume_input(self) -> None:
        """Run the next commands, unless one is unfinished or the client does not read."""
        if self.input_paused and not self.is_busy and not self.outlet.blocked & SOCKET_FULL:
            self.input_paused = False
            self.input.resume()

    def hold_events(self) -> None:
        """Send no events until ``release_events``: a reply must be written before them and is not available yet."""
        self.outlet.blocked |= REPLY_PENDING

    def release_events(self) -> None:
        if self.outlet.blocked & REPLY_PENDING:
            self.outlet.blocked &= ~REPLY_PENDING
            self._broker.resume(self.subscriber)

    def write_error(self, tag: Tag, error: Error) -> None:
        self._broker.stats.count_error(error.code)
        self.write(self.encoder.refused(tag, error))

    def write_errors(self, tags: Sequence[Tag], error: Error) -> None:
        """The same error for several commands. One read can contain ten thousand publishes, and an error is ten times
        as long as the shortest of them. Therefore many errors are a long reply."""
        if len(tags) <= ERRORS_PER_PIECE:
            for tag in tags:
                self.write_error(tag, error)
            return
        self._broker.stats.count_error(error.code, len(tags))
        self.stream(self._error_pieces(tags, error))

    def _error_pieces(self, tags: Sequence[Tag], error: Error) -> Iterator[bytes]:
        budget, principal = self._broker.memory_budget, self.subscriber.client.source
        held = TAG_BYTES * len(tags)
        budget.add(held, principal)
        try:
            for start in range(0, len(tags), ERRORS_PER_PIECE):
                yield b"".join([self.encoder.refused(tag, error) for tag in tags[start : start + ERRORS_PER_PIECE]])
        finally:
            budget.add(-held, principal)


class PendingReply:
    """The place of one publish command among the replies."""

    __slots__ = ("outcome", "tags")

    def __init__(self, tags: Sequence[Tag]) -> None:
        self.tags = tags
        self.outcome: int | Error | None = None


class PendingReplies:
    """Publishes that wait for the backplane. ``publishes`` is their number."""

    __slots__ = ("_replies", "publishes")

    def __init__(self) -> None:
        self._replies: deque[PendingReply] = deque()
        self.publishes = 0

    def __bool__(self) -> bool:
        return bool(self._replies)

    def add(self, tags: Sequence[Tag]) -> PendingReply:
        """Append the reply to a publish command, which has one tag for each payload."""
        reply = PendingReply(tags)
        self._replies.append(reply)
        self.publishes += len(tags)
        return reply

    def resolve(self, reply: PendingReply, outcome: int | Error) -> list[tuple[Sequence[Tag], int | Error]]:
        """Store the result of the backplane. Returns the replies that can be written now: none while an older one is
        missing."""
        reply.outcome = outcome
        ready: list[tuple[Sequence[Tag], int | Error]] = []
        while self._replies and (first := self._replies[0].outcome) is not None:
            tags = self._replies.popleft().tags
            self.publishes -= len(tags)
            ready.append((tags, first))
        return ready

    def has_out_of_order(self) -> bool:
        """True if a result is known whose reply cannot be written yet."""
        return any(reply.outcome is not None for reply in self._replies)
