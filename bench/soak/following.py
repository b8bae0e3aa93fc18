"""The rule for readers: every event of a channel in order, or an exact report of those it does not receive."""

from bench.soak.dialects import Dialect, Heard, content
from bench.soak.tally import Wrong


class Following:
    """One reader of a channel whose events are numbered like their offsets, all of ``size`` or of many sizes. A
    ``quick`` reader can receive LOST only right after a reconnect, and only if it ``may_lose``. ``dialect`` is its
    present protocol: it can reconnect over another one."""

    def __init__(self, channel: bytes, dialect: Dialect, quick: bool, size: int | None = None) -> None:
        self.dialect = dialect
        self.next = 1
        self.lost = 0
        self.epoch = ""
        self._channel = channel.decode()
        self._quick = quick
        self._size = size
        self._forgiven = False

    def begin(self, reply: Heard, may_lose: bool = False) -> None:
        """The reply to a subscription. After a request with ``since``, events must continue from there, unless so much
        time has passed that the history ``may_lose`` them. Raises Wrong."""
        if reply.kind != "ok":
            raise Wrong(f"{self._channel}: a subscription was answered by {reply.kind} {reply.code}")
        if reply.recovered is None:
            self.next = reply.offset + 1
        elif reply.epoch != self.epoch:
            raise Wrong(f"{self._channel}: epoch {self.epoch} has become {reply.epoch}, though it was always read")
        elif not reply.recovered and not may_lose:
            raise Wrong(f"{self._channel}: not recovered from {self.next - 1}, head {reply.offset}")
        self._forgiven = reply.recovered is False
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
            self._forgiven = False
            return True
        if message.kind == "lost":
            if self._quick and not self._forgiven:
                raise Wrong(f"{self._channel}: a quick reader has lost {message.first} to {message.last}")
            if message.first != self.next or message.last < message.first:
                raise Wrong(f"{self._channel}: lost {message.first} to {message.last} instead of {self.next}")
            self.lost += message.last - message.first + 1
            self.next = message.last + 1
        return False
