"""The session of a peer that says nothing: it reads the channels that it was opened for, and ends without one."""

from collections.abc import Iterator

from twistedsock.core.dialect import Ending
from twistedsock.core.session import Session
from twistedsock.core.speaker import State


class Follower(Session):
    """Who may not read one of its channels any longer is told so, and closed: its client comes back, and is refused
    then where it can understand it."""

    __slots__ = ()

    def _check_subscriptions(self) -> Iterator[None]:
        before = len(self.subscriptions)
        yield from super()._check_subscriptions()
        if self.state is State.OPEN and len(self.subscriptions) < before:
            self._close(Ending.POLICY, "it may not read all its channels any longer")
