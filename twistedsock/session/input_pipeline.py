"""Runs the input of a connection: decodes messages to commands and gives them to the session, one at a time.

It is the one place for the rate limit, for the memory of waiting input, and for the time slice of a client. While the
session cannot run commands, the input waits here and the socket is not read.
"""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from twistedsock.errors import INTERNAL, MEMORY_LIMIT_REACHED, RATE_EXCEEDED_REPEATEDLY, TOO_FAST, CloseReason, Error
from twistedsock.limits.rate import ALLOW, DISCONNECT, REJECT, Decision, token_price, unreadable_price
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.values import Tag
from twistedsock.session import commands
from twistedsock.session.commands import Command, InvalidCommand, Publish, Several
from twistedsock.session.handlers import handle
from twistedsock.session.session import Session, SessionState

Message = bytes | Command | Several

MESSAGES_PER_PART = 1_000
"""Messages that are taken from the queue at a time, and the maximum that wait as one object each, which costs about 60
bytes. One read can contain 20,000 messages of two bytes."""

OBJECT_BYTES = 64
"""Memory of a message or a payload in addition to its own bytes."""

_Joined = tuple[bytes, "array[int]"]
"""Consecutive messages, and the length of each."""


class InputQueue:
    """Messages that wait to be run, first in, first out, in little more memory than they have bytes. True while there
    are any. The work of each call depends on the messages that it adds or removes, not on those that wait."""

    __slots__ = ("_parts", "count", "prepaid", "size")

    def __init__(self) -> None:
        self._parts: deque[list[Message] | _Joined] = deque()
        self.count = 0
        """The number of messages."""
        self.prepaid = 0
        """The number of those that the rate limiter has been charged for already."""
        self.size = 0
        """Approximate memory."""

    def __bool__(self) -> bool:
        return bool(self._parts)

    def extend(self, messages: Sequence[Message]) -> None:
        """Append messages."""
        self.count += len(messages)
        last = self._parts[-1] if self._parts else None
        if isinstance(last, list):
            if len(last) + len(messages) <= MESSAGES_PER_PART:
                last.extend(messages)
                self.size += _size_of(messages)
                return
            self._parts[-1] = joined = _join(last)
            self.size += _size_of_part(joined) - _size_of(last)
        parts = _parts_of(messages)
        self._parts.extend(parts)
        self.size += sum(map(_size_of_part, parts))

    def put_back(self, messages: Sequence[Message]) -> None:
        """Insert messages at the front."""
        parts = _parts_of(messages)
        self._parts.extendleft(reversed(parts))
        self.count += len(messages)
        self.size += sum(map(_size_of_part, parts))

    def take(self) -> list[Message]:
        """Remove and return the next messages; none if the queue is empty."""
        if not self._parts:
            return []
        part = self._parts.popleft()
        self.size -= _size_of_part(part)
        if isinstance(part, list):
            self.count -= len(part)
            return part
        joined, sizes = part
        messages: list[Message] = []
        position = 0
        for size in sizes:
            messages.append(joined[position : position + size])
            position += size
        self.count -= len(messages)
        return messages


def _parts_of(messages: Sequence[Message]) -> list[list[Message] | _Joined]:
    if len(messages) <= MESSAGES_PER_PART:
        return [list(messages)] if messages else []
    return [_join(messages[start : start + MESSAGES_PER_PART]) for start in range(0, len(messages), MESSAGES_PER_PART)]


def _join(messages: Sequence[Message]) -> list[Message] | _Joined:
    texts = [message for message in messages if isinstance(message, bytes)]
    if len(texts) != len(messages):
        return list(messages)
    return b"".join(texts), array("I", map(len, texts))


def _size_of_part(part: list[Message] | _Joined) -> int:
    if isinstance(part, list):
        return _size_of(part)
    joined, sizes = part
    return len(joined) + sizes.itemsize * len(sizes)


def _size_of(messages: Sequence[Message]) -> int:
    """Memory of messages that are one object each."""
    return sum(
        OBJECT_BYTES + (len(message) if isinstance(message, bytes) else _carried(message)) for message in messages
    )


def _carried(command: Command | Several) -> int:
    return command.payloads.size + OBJECT_BYTES * len(command.payloads) if isinstance(command, Publish) else 0


class Decoder(Protocol):
    """Implemented by the class ``LineDecoder`` and by the module ``codecs.json_decoder``."""

    def decode(self, message: bytes) -> Command | Several | None:
        """The command in a message; None if it contains none."""

    def find_tag(self, message: bytes) -> Tag:
        """The tag in a message that ``decode`` could not read, if there is one."""

    def decode_alike(self, first: Publish, messages: Sequence[object], position: int) -> Publish | None:
        """Messages from ``position`` on that can be joined to ``first``, the publication before them, and need not be
        decoded one by one to see that; None if there are none."""


PUBLISHES_PER_CLOCK_CHECK = 64
"""Publishes between two checks of the time slice: each takes microseconds, unlike other commands. Joined publishes
count once; they are limited by the size of a read."""


def _price_of(command: Command | None, message: Message) -> float:
    """The price of a command before it runs. The session charges what depends on its reply. A publish costs the same
    with any number of subscribers: the publishes of one turn are delivered together, and a rate that falls when the
    audience grows would stop honest publishers."""
    if isinstance(command, Publish):
        return len(command.tags)
    if isinstance(command, InvalidCommand) and isinstance(message, bytes):
        return 1 + unreadable_price(len(message))
    return 1 + token_price(len(command.token)) if isinstance(command, commands.Auth) else 1


_Decoded = tuple[Command | Several | None]
"""A message that has been decoded, and may have no command."""


def _after(messages: Sequence[Message], position: int, decoded: _Decoded | None) -> Sequence[Message]:
    """The messages from ``position`` on, the first of which may have been decoded."""
    if decoded is None:
        return messages[position:]
    return [*[command for command in decoded if command is not None], *messages[position + 1 :]]


def _rejected(error: Error, command: Command | Several | None) -> InvalidCommand:
    """A command whose reply is the error, with the tags of another command."""
    tags: Sequence[Tag] = command.tags if isinstance(command, Publish) else (getattr(command, "tag", None),)
    return InvalidCommand(error, tags[0], tags[1:])


class InputPipeline:
    """``on_exception`` is called while an internal error is being handled, to log it."""

    __slots__ = (
        "_counted_bytes",
        "_decision",
        "_is_running",
        "_on_exception",
        "_queue",
        "_rest",
        "decoder",
        "session",
    )

    def __init__(
        self,
        session: Session,
        decoder: Decoder,
        on_exception: Callable[[], object],
    ) -> None:
        self.session = session
        self.decoder = decoder
        # The input that waits. None while commands are run as they come.
        self._queue: InputQueue | None = None
        # The input behind the messages that are being run.
        self._rest: InputQueue | None = None
        self._is_running = False
        # The part of the memory budget that the queue has been counted for.
        self._counted_bytes = 0
        self._on_exception = on_exception
        # The decision of the rate limiter about the bytes that were read last.
        self._decision = ALLOW
        session.replies.input = self

    @property
    def is_paused(self) -> bool:
        """True while input waits and the socket is not read. When the session closes, the rest of the input is read and
        discarded."""
        return self._queue is not None and self.session.state is SessionState.OPEN

    def bytes_received(self, size: int) -> None:
        """Count bytes that were read, before their messages are submitted, if the session ``is_rate_limited``. It can
        close the session."""
        limiter = self.session.rate_limiter
        assert limiter is not None  # of a session that is rate-limited
        self._decision = limiter.count_bytes(size, self.session.broker.clock())
        if self._decision is DISCONNECT:
            self._close()

    def is_within_rate(self) -> bool:
        """Charge something that is no command and costs as much. It can close the session."""
        decision = self._decide(1)
        if decision is DISCONNECT:
            self._close()
        return decision is ALLOW

    def submit(self, messages: Sequence[Message]) -> None:
        """Run messages of the protocol, and commands between them, or let them wait behind those that wait."""
        if self._queue is not None:
            self._append(self._queue, messages)
            return
        session = self.session
        session.broker.is_handling_input = True
        self._is_running = True
        try:
            self._run(messages)
        finally:
            self._is_running = False
            session.broker.end_input(session.replies)

    def _run(self, messages: Sequence[Message]) -> None:
        session, decode, replies = self.session, self.decoder.decode, self.session.replies
        is_rate_limited = session.is_rate_limited
        position, end = 0, len(messages)
        next_check, deadline = PUBLISHES_PER_CLOCK_CHECK, 0.0
        decoded: _Decoded | None = None
        while position < end:
            message = messages[position]
            position += 1
            command, known, decoded = None, decoded, None
            try:
                if known is not None:
                    command = known[0]
                else:
                    command = decode(message) if isinstance(message, bytes) else message
                if isinstance(command, Several):
                    messages = [*command.messages, *messages[position:]]
                    position, end, next_check = 0, len(messages), 0
                    continue
                if isinstance(command, Publish) and position < end:
                    command, position, decoded = self._join(command, messages, position)
                if is_rate_limited and not self._is_allowed(command, message):
                    pass
                elif command is not None:
                    handle(session, command)
            except Exception:
                self._on_exception()
                # With the tags, because the client waits for replies with them.
                if command is None and isinstance(message, bytes):
                    command = InvalidCommand(INTERNAL, self.decoder.find_tag(message))
                handle(session, _rejected(INTERNAL, command))
            if replies.input_paused:
                self._wait(_after(messages, position, decoded))
                return
            if position < end and (position >= next_check or not isinstance(command, Publish)):
                next_check = position + PUBLISHES_PER_CLOCK_CHECK
                now = session.broker.clock()
                deadline = deadline or now + TIME_SLICE_SECONDS
                if now >= deadline:
                    self._wait(_after(messages, position, decoded))
                    session.broker.scheduler.defer(self.resume)
                    return

    def _join(self, first: Publish, messages: Sequence[Message], position: int) -> tuple[Publish, int, _Decoded | None]:
        """Join the publications from ``position`` on to the one before them. Returns the position after them and, if
        the message there has been decoded, its command: a message is decoded once, because some decoders have a
        state."""
        alike = self.decoder.decode_alike(first, messages, position)
        following: list[Publish] = []
        if alike is not None:
            following.append(alike)
            position += len(alike.tags)
        decode, decoded = self.decoder.decode, None
        while position < len(messages):
            message = messages[position]
            if not isinstance(message, bytes):
                break
            command = decode(message)
            if not isinstance(command, Publish) or not first.can_join(command):
                decoded = (command,)
                break
            following.append(command)
            position += 1
        return (first.joined(following) if following else first), position, decoded

    def _decide(self, price: float) -> Decision:
        limiter = self.session.rate_limiter
        return ALLOW if limiter is None else limiter.check(price, self._decision)

    def _is_allowed(self, command: Command | None, message: Message) -> bool:
        """Apply the rate limit to a command. If it exceeds the limit, the reply is an error or the session is
        closed."""
        if isinstance(command, commands.Quit | commands.Close):
            return True
        decision = self._decide(_price_of(command, message))
        if decision is REJECT and isinstance(command, commands.Unsubscribe) and command.has_left:
            return True
        if decision is REJECT and command is not None and not isinstance(command, commands.Notice):
            handle(self.session, _rejected(TOO_FAST, command))
        elif decision is DISCONNECT:
            self._close()
        return decision is ALLOW

    def _close(self) -> None:
        self.session.close(CloseReason.POLICY, RATE_EXCEEDED_REPEATEDLY)

    def pause(self) -> None:
        """Run no commands until the socket has accepted what the server has written."""
        self.session.replies.input_paused = True
        self.pause_if_idle()

    def pause_if_idle(self) -> None:
        if self._queue is None and not self._is_running:
            self._wait(())

    def end_of_input(self) -> None:
        """The client has ended its stream: run the commands that wait, then close."""
        self.submit([commands.Quit("it has ended its stream, with a FIN")])

    def end_with(self, command: commands.Close) -> bool:
        """Discard the input that has not been run, and run this command when those before it are answered."""
        self._drop_queue()
        self._queue = InputQueue()
        self._queue.extend([command])
        self.session.connection.pause_input()
        self.resume()
        return True

    def connection_lost(self, how: str = "") -> None:
        """The connection has ended. ``how``: cleanly, broken or aborted."""
        self.session.connection_lost(how)
        self._drop_queue()

    def _wait(self, messages: Sequence[Message]) -> None:
        if self.session.state is not SessionState.OPEN:
            return  # the server discards the rest of its input
        rest, self._rest = self._rest, None
        queue = rest or InputQueue()
        queue.put_back(messages)
        self._queue = queue
        self.session.flush()
        self.session.connection.pause_input()
        if rest is None:  # otherwise it has been counted, and is smaller now
            self._count(queue)

    def _append(self, queue: InputQueue, messages: Sequence[Message]) -> None:
        """Let messages wait behind those that wait. Some endpoints accept input of a paused session, because they must
        answer the requests that carry it. Receiving a message is work that grows with their number, so those beyond
        one part are charged now instead of when they run."""
        if queue.count > MESSAGES_PER_PART and self.session.is_rate_limited:
            decision = self._decide(len(messages))
            if decision is DISCONNECT:
                self._drop_queue()
                self._close()
                return
            if decision is ALLOW:  # an excess is not paid back
                queue.prepaid += len(messages)
        queue.extend(messages)
        self._count(queue)

    def _count(self, queue: InputQueue) -> None:
        """Count a queue that has grown. If there is too much, drop it and close the session."""
        budget, principal = self.session.memory_budget, self.session.client.source
        self._counted_bytes = budget.adjust(self._counted_bytes, queue.size, principal)
        if self._counted_bytes and budget.is_exceeded_by(principal):
            self._drop_queue()
            self.session.close_with_error(MEMORY_LIMIT_REACHED)

    def _drop_queue(self) -> None:
        self._queue = self._rest = None
        self._counted_bytes = self.session.memory_budget.adjust(self._counted_bytes, 0, self.session.client.source)

    def resume(self) -> None:
        """Run a part of the input that waits. Called by the session, or by the broker after the time slice."""
        session = self.session
        if session.replies.input_paused:
            return  # since the call was scheduled; the session calls again
        queue, self._queue = self._queue, None
        if queue is None:
            return
        messages = queue.take()
        if (limiter := session.rate_limiter) is not None:
            limiter.refill(session.broker.clock())
            if queue.prepaid:
                paid = min(queue.prepaid, len(messages))
                queue.prepaid -= paid
                limiter.charge(-paid)
        self._rest = queue
        self.submit(messages)
        self._rest = None
        if self._queue is None:
            if queue and session.state is SessionState.OPEN:
                self._queue = queue
                session.broker.scheduler.defer(self.resume)
            else:
                self._drop_queue()
                session.connection.resume_input()
