"""How long we wait for a peer: to say its first command, to end what it has begun, to say anything at all."""

from typing import Any

from twistedsock.core.dialect import Ending
from twistedsock.core.limits import Limits
from twistedsock.shells.deadlines import Deadlines
from twistedsock.wire.conversation import Conversation


class Patience:
    """The deadlines of all conversations of one listener. Who is late is told why, and closed. ``minds_idling`` is
    False where anybody may be silent for ever."""

    def __init__(self, limits: Limits, reactor: Any) -> None:
        self.minds_idling = bool(limits.idle_timeout)
        self._first = _bound(reactor, limits.first_command_timeout, "you have said nothing for {} seconds")
        self._begun = _bound(reactor, limits.line_timeout, "what you began to say did not end within {} seconds")
        self._idle = _bound(
            reactor, limits.idle_timeout, "you have said nothing for {} seconds; a ping now and then is enough to stay"
        )

    def begin(self, conversation: Conversation, spoken: bool) -> None:
        """Somebody came. ``spoken`` if it has said something already, such as a handshake."""
        if not spoken:
            self._first.start(conversation)
        self._idle.start(conversation)

    def has_spoken(self, conversation: Conversation) -> None:
        """For the first time."""
        self._first.stop(conversation)

    def speaks(self, conversation: Conversation) -> None:
        """A command came. Needs not be called unless idling is minded."""
        self._idle.start(conversation)

    def has_begun(self, conversation: Conversation) -> None:
        """A line, a frame or a message has begun and must end."""
        self._begun.start(conversation)

    def has_ended(self, conversation: Conversation) -> None:
        """It has."""
        self._begun.stop(conversation)

    def end(self, conversation: Conversation) -> None:
        """The connection is gone."""
        for deadlines in (self._first, self._begun, self._idle):
            deadlines.stop(conversation)
            deadlines.rest()


def _bound(reactor: Any, seconds: float, words: str) -> Deadlines[Conversation]:
    told = words.format(f"{seconds:g}").encode()

    def expired(conversation: Conversation) -> None:
        if conversation.waits:  # what it has said may still be in its socket, as it is us who do not read
            deadlines.start(conversation)
        else:
            conversation.session.dismiss(Ending.POLICY, told)

    deadlines: Deadlines[Conversation] = Deadlines(reactor, seconds, expired)
    return deadlines
