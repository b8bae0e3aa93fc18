"""The session of a peer that says nothing: it reads the channels that it was opened for, and ends without one."""

from twistedsock.core.dialect import Ending
from twistedsock.core.session import Session


class Follower(Session):
    """Who may not read one of its channels any longer is told so, and closed: its client comes back, and is refused
    then where it can understand it."""

    __slots__ = ()

    def _end_forbidden(self, channel: bytes) -> None:
        super()._end_forbidden(channel)
        self._close(Ending.POLICY, "it may not read all its channels any longer")
