"""How a stream of server-sent events gets its channels: all that it was opened for, or it ends."""

from collections.abc import Callable, Sequence

from twistedsock.core.commands import Command, Subscribe
from twistedsock.core.dialect import Ending
from twistedsock.core.follower import Follower
from twistedsock.core.speaker import State, nothing
from twistedsock.wire import json_commands
from twistedsock.wire.conversation import Conversation

NOT_ALL = b"not all channels could be opened for you; come again later"
"""The last words to who did not get what it asked for, and has been told why."""


def follow(session: Follower, asked: Sequence[Command], report: Callable[[], object]) -> None:
    """Run what a stream was opened for; some of it later, where the backplane is distant. ``report`` is called where a
    fault of ours is being handled."""
    wanted = sum(isinstance(command, Subscribe) for command in asked)

    def settle() -> None:
        session.on_ready = nothing
        if session.state is State.OPEN and len(session.subscriptions) < wanted:
            session.dismiss(Ending.TRY_AGAIN, NOT_ALL)

    conversation = Conversation(session, json_commands, nothing, settle, report)
    conversation.receive(asked)
    if not conversation.waits:
        settle()
