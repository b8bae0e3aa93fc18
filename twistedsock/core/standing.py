"""How one peer stands with the policy: who it is, and what it may therefore do."""

from twistedsock.core.access import Policy, Right
from twistedsock.core.errors import Code, Refusal
from twistedsock.core.names import is_nick

UNVOUCHED = b"~"
"""Before a nick that no token vouches for."""

MOST_FAILED = 10
"""Tokens that one peer may try in vain: more than people mistype, too few to guess, or to keep us busy with checking
signatures."""

NO_KEYS = Refusal(Code.UNAUTHORIZED, "this server has no keys to check a token with, and asks for none")
TOO_MANY_TOKENS = Refusal(Code.UNAUTHORIZED, "too many tokens that are not valid")

_WAYS = {Right.READ: "read", Right.WRITE: "publish on"}


class Standing:
    """Made where there is a policy. ``identity`` is replaced as a whole."""

    __slots__ = ("failed", "identity", "listener")

    def __init__(self, policy: Policy, listener: str) -> None:
        self.listener = listener
        self.identity = policy.anonymous(listener)
        self.failed = 0

    def forbids(self, channel: bytes, right: Right) -> Refusal | None:
        """Why something may not be done on a channel; None where it may."""
        identity = self.identity
        if identity.grants.on(channel) & right:
            return None
        if identity.subject:
            return Refusal(Code.FORBIDDEN, f"you may not {_WAYS[right]} that channel")
        return Refusal(Code.UNAUTHORIZED, f"to {_WAYS[right]} that channel takes a token: AUTH comes first")

    def vouched_nick(self) -> bytes:
        """The nick that the identity is; empty where it is none, as a nick is short."""
        subject = self.identity.subject
        return subject if is_nick(subject) and not subject.startswith(UNVOUCHED) else b""

    def shown_nick(self, nick: bytes) -> bytes:
        """A nick that the peer has chosen, as others see it."""
        if nick == self.vouched_nick() or nick.startswith(UNVOUCHED):
            return nick
        return UNVOUCHED + nick

    def seconds_left(self, now: float) -> int | None:
        """Until the proof runs out; ``now`` is of the wall clock. None: it never does."""
        expires = self.identity.expires
        return None if expires is None else max(0, int(expires - now))
