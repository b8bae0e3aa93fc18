"""The session of a peer that says nothing: it reads the channels that it was opened for, and ends without one."""

from twistedsock.core.dialect import Ending
from twistedsock.core.session import Session
from twistedsock.core.standing import Standing


class Follower(Session):
    """Who may not read one of its channels any longer is told so, and closed: its client comes back, and is refused
    then where it can understand it."""

    __slots__ = ()

    def _drop_forbidden(self, standing: Standing) -> None:
        before = len(self.subscriptions)
        super()._drop_forbidden(standing)
        if len(self.subscriptions) < before:
            self._close(Ending.POLICY, "it may not read all its channels any longer")
