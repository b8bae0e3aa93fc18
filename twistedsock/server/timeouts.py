"""A bound on the time that each of many may take."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twistedsock.errors import CloseReason
from twistedsock.limits.settings import Limits
from twistedsock.session.input_pipeline import InputPipeline

T = TypeVar("T")


class TimeoutQueue(Generic[T]):
    """``expired`` is called with each that is ``seconds`` old and was not stopped. As all have the same time, they grow
    old in the order in which they came, and one timer does for all: one for each would be made and cancelled with each
    connection. 0 seconds are for ever."""

    def __init__(self, reactor: Any, seconds: float, expired: Callable[[T], object]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._expired = expired
        self._waiting: dict[T, float] = {}
        self._timer: Any = None

    def start(self, who: T) -> None:
        """Also for those who are waited for: from now on."""
        if not self._seconds:
            return
        self._waiting.pop(who, None)
        self._waiting[who] = self._reactor.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._reactor.callLater(self._seconds, self._look)

    def stop(self, who: T) -> None:
        """Also for those who are not waited for."""
        self._waiting.pop(who, None)

    def now(self) -> float:
        """The time by which they go."""
        now: float = self._reactor.seconds()
        return now

    def rest(self) -> None:
        """Needs no timer while nobody is waited for."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._reactor.seconds()
        late = []
        for who, deadline in self._waiting.items():
            if deadline > now:
                break
            late.append(who)
        for who in late:
            del self._waiting[who]
        first = next(iter(self._waiting.values()), None)
        self._timer = None if first is None else self._reactor.callLater(first - now, self._look)
        for who in late:
            self._expired(who)


class ConnectionTimeouts:
    """The deadlines of all conversations of one listener. Who is late is told why, and closed. ``minds_idling`` is
    False where anybody may be silent for ever."""

    def __init__(self, limits: Limits, reactor: Any) -> None:
        self.minds_idling = bool(limits.idle_timeout)
        self._first = _bound(reactor, limits.first_command_timeout, "you have said nothing for {} seconds")
        self._begun = _bound(reactor, limits.line_timeout, "what you began to say did not end within {} seconds")
        self._idle = _bound(
            reactor, limits.idle_timeout, "you have said nothing for {} seconds; a ping now and then is enough to stay"
        )

    def begin(self, conversation: InputPipeline, spoken: bool) -> None:
        """Somebody came. ``spoken`` if it has said something already, such as a handshake."""
        if not spoken:
            self._first.start(conversation)
        self._idle.start(conversation)

    def has_spoken(self, conversation: InputPipeline) -> None:
        """For the first time."""
        self._first.stop(conversation)

    def speaks(self, conversation: InputPipeline) -> None:
        """A command came. Needs not be called unless idling is minded."""
        self._idle.start(conversation)

    def has_begun(self, conversation: InputPipeline) -> None:
        """A line, a frame or a message has begun and must end."""
        self._begun.start(conversation)

    def has_ended(self, conversation: InputPipeline) -> None:
        """It has."""
        self._begun.stop(conversation)

    def end(self, conversation: InputPipeline) -> None:
        """The connection is gone."""
        for deadlines in (self._first, self._begun, self._idle):
            deadlines.stop(conversation)
            deadlines.rest()


def _bound(reactor: Any, seconds: float, words: str) -> TimeoutQueue[InputPipeline]:
    told = words.format(f"{seconds:g}").encode()

    def expired(conversation: InputPipeline) -> None:
        if conversation.waits:  # what it has said may still be in its socket, as it is us who do not read
            deadlines.start(conversation)
        else:
            conversation.session.dismiss(CloseReason.POLICY, told)

    deadlines: TimeoutQueue[InputPipeline] = TimeoutQueue(reactor, seconds, expired)
    return deadlines


# TODO-MERGED-DOC: How long we wait for a peer: to say its first command, to end what it has begun, to say
# anything at all.
