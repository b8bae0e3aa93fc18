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

    def hear(self, heard: Heard) -> bool:
        """Check one message of the channel. Returns whether it was an event. Raises Wrong."""
        if heard.kind == "event":
            if heard.offset != self.next:
                raise Wrong(f"{self._channel}: event {heard.offset} arrived instead of {self.next}")
            if bytes(heard.data) != self.dialect.shown(content(heard.offset, self._size)):
                raise Wrong(f"{self._channel}: event {heard.offset} is not as published: {bytes(heard.data)[:80]!r}")
            self.next += 1
            self._forgiven = False
            return True
        if heard.kind == "lost":
            if self._quick and not self._forgiven:
                raise Wrong(f"{self._channel}: a quick reader has lost {heard.first} to {heard.last}")
            if heard.first != self.next or heard.last < heard.first:
                raise Wrong(f"{self._channel}: lost {heard.first} to {heard.last} instead of {self.next}")
            self.lost += heard.last - heard.first + 1
            self.next = heard.last + 1
        return False
