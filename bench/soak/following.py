"""What a reader must get: every event of a channel in order, or an exact word about those it does not get."""

from bench.soak.dialects import Dialect, Heard, content
from bench.soak.tally import Wrong


class Following:
    """One reader on one channel whose events are numbered as their offsets, all of ``size`` or of many sizes. A
    ``quick`` one must hear LOST only right after it has come back, and only where it ``may_lose``. ``dialect`` is what
    it speaks now: it may come back over another wire."""

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
        """The reply to a subscription. Where ``since`` was asked for, what follows must go on from there, unless so
        much time has passed that the log ``may_lose`` it. Raises Wrong."""
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

    def hear(self, heard: Heard) -> bool:
        """Take one message of the channel; whether it was an event. Raises Wrong."""
        if heard.kind == "event":
            if heard.offset != self.next:
                raise Wrong(f"{self._channel}: event {heard.offset} came where {self.next} was due")
            if bytes(heard.data) != self.dialect.shown(content(heard.offset, self._size)):
                raise Wrong(f"{self._channel}: event {heard.offset} is not as published: {bytes(heard.data)[:80]!r}")
            self.next += 1
            self._forgiven = False
            return True
        if heard.kind == "lost":
            if self._quick and not self._forgiven:
                raise Wrong(f"{self._channel}: a quick reader has lost {heard.first} to {heard.last}")
            if heard.first != self.next or heard.last < heard.first:
                raise Wrong(f"{self._channel}: lost {heard.first} to {heard.last} where {self.next} was due")
            self.lost += heard.last - heard.first + 1
            self.next = heard.last + 1
        return False
