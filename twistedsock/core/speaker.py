"""What one peer is told: replies that gather, and long ones that are said no faster than it reads."""

from collections.abc import Callable, Iterator
from itertools import chain

from twistedsock.core.broker import Broker
from twistedsock.core.limits import CHUNK_BYTES, SHARE
from twistedsock.core.reader import HELD, WRITING, Outlet, Reader


def nothing() -> bool:
    """What is called back where nobody waits, or no longer. A session that is over must not be held by those whom it
    holds: only a full collection would find that out, which hardly ever comes."""
    return False


class Speaker:
    """The speaking half of a session; a class of its own to be read by itself, and not an object of its own as ten
    thousand idle sessions would each have one more. ``on_ready`` is called when commands, held up because ``stalled``
    was set, can go on."""

    __slots__ = ("_broker", "_busy", "_out", "_out_size", "_outlet", "_pieces", "_reader", "on_ready", "stalled")

    def __init__(self, broker: Broker, outlet: Outlet, reader: Reader) -> None:
        self.stalled = False
        self.on_ready: Callable[[], object] = nothing
        self._broker = broker
        self._outlet = outlet
        self._reader = reader
        self._out: list[bytes] = []
        self._out_size = 0
        # A command is under way whose end the next ones must await.
        self._busy = False
        self._pieces: Iterator[bytes] | None = None

    @property
    def is_amid(self) -> bool:
        """Whether a long reply has begun, and has not been said to its end."""
        return self._pieces is not None

    def flush(self) -> None:
        """Write the replies that have gathered. To be called after a batch of commands."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            self._outlet.write(data)
            self._broker.tally.sent += len(data)
            if self._outlet.blocked & WRITING:
                # Who does not read its replies is not read either.
                self.stalled = True

    def drained(self) -> None:
        """Nothing waits in user space any more: go on with whatever had to wait for that."""
        if self._pieces is not None:
            self._advance(self._pieces)
        self._go_on()
        self._broker.wake(self._reader)

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
        enough = self._broker.clock() + SHARE
        for piece in pieces:
            self._say(piece)
            if self._outlet.blocked & WRITING or self._has_had(enough):
                self._pieces = pieces
                self._outlet.blocked |= HELD
                self._stall()
                return

    def _advance(self, pieces: Iterator[bytes]) -> None:
        enough = self._broker.clock() + SHARE
        for piece in pieces:
            self._outlet.write(piece)
            self._broker.tally.sent += len(piece)
            if self._outlet.blocked & WRITING or self._has_had(enough):
                return
        self._pieces = None
        self._busy = False
        self._release()

    def _has_had(self, enough: float) -> bool:
        """Whether it is the others' turn; then the rest is said when they have had it."""
        if self._broker.clock() < enough:
            return False
        self._broker.postpone(self._proceed)
        return True

    def _proceed(self) -> None:
        if self._pieces is not None and not self._outlet.blocked & WRITING:
            self.drained()

    def _stall(self) -> None:
        self._busy = self.stalled = True

    def _unstall(self) -> None:
        self._busy = False
        self._go_on()

    def _go_on(self) -> None:
        if self.stalled and not self._busy and not self._outlet.blocked & WRITING:
            self.stalled = False
            self.on_ready()

    def _release(self) -> None:
        if self._outlet.blocked & HELD:
            self._outlet.blocked &= ~HELD
            self._broker.wake(self._reader)
