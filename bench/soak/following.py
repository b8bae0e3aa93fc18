"""The rule for readers: every event of a channel in order, or an exact report of those it does not receive."""

from collections.abc import Callable

from bench.soak.dialects import Dialect, Heard, content
from bench.soak.tally import Wrong


class Following:
    """One reader of a channel whose events are numbered like their offsets, all of ``size`` or of many sizes.
    ``dialect`` is its present protocol: it can reconnect over another one.

    A quick reader has ``oldest_kept``, which returns the offset from which on the history must contain all events. Such
    a reader can receive LOST only for older events that it missed while it was disconnected. The server may report them
    although it has answered ``recovered=yes``: they can become too old between its answer and the replay."""

    def __init__(
        self, channel: bytes, dialect: Dialect, oldest_kept: Callable[[], int] | None = None, size: int | None = None
    ) -> None:
        self.dialect = dialect
        self.next = 1
        self.lost = 0
        self.epoch = ""
        self._channel = channel.decode()
        self._oldest_kept = oldest_kept
        self._size = size
        # The offset of the last event that was published while the reader was disconnected.
        self._missed_until = 0

    def begin(self, reply: Heard) -> None:
        """The reply to a subscription. After a request with ``since``, events must continue from there, unless the
        history may have deleted them. Raises Wrong."""
        if reply.kind != "ok":
            raise Wrong(f"{self._channel}: a subscription was answered by {reply.kind} {reply.code}")
        if reply.recovered is None:
            self.next = reply.offset + 1
        elif reply.epoch != self.epoch:
            raise Wrong(f"{self._channel}: epoch {self.epoch} has become {reply.epoch}, though it was always read")
        elif not reply.recovered and self._must_keep(self.next):
            raise Wrong(f"{self._channel}: not recovered from {self.next - 1}, head {reply.offset}")
        self._missed_until = 0 if reply.recovered is None else reply.offset
        self.epoch = reply.epoch

    def hear(self, message: Heard) -> bool:
        """Check one message of the channel. Returns whether it was an event. Raises Wrong."""
        if message.kind == "event":
            if message.offset != self.next:
                raise Wrong(f"{self._channel}: event {message.offset} arrived instead of {self.next}")
            if bytes(message.data) != self.dialect.shown(content(message.offset, self._size)):
                raise Wrong(
                    f"{self._channel}: event {message.offset} is not as published: {bytes(message.data)[:80]!r}"
                )
            self.next += 1
            return True
        if message.kind == "lost":
            if self._oldest_kept is not None and message.first > self._missed_until:
                raise Wrong(f"{self._channel}: a quick reader has lost {message.first} to {message.last}")
            if self._must_keep(message.last):
                raise Wrong(f"{self._channel}: lost {message.first} to {message.last}, which cannot be too old")
            if message.first != self.next or message.last < message.first:
                raise Wrong(f"{self._channel}: lost {message.first} to {message.last} instead of {self.next}")
            self.lost += message.last - message.first + 1
            self.next = message.last + 1
        return False

    def _must_keep(self, offset: int) -> bool:
        return self._oldest_kept is not None and offset >= self._oldest_kept()
