"""How one peer stands with the policy: who it is, and what it may therefore do."""

from typing import Protocol

from twistedsock.auth.expiry import TokenHolder
from twistedsock.auth.identity import Identity, Policy, Right
from twistedsock.errors import FOR_ADMINS, NICK_IS_AN_ID, RESERVED_CHANNEL, Error, ErrorCode
from twistedsock.limits.principal import client_principal
from twistedsock.pubsub.names import is_nick, is_reserved
from twistedsock.pubsub.subscription import Client
from twistedsock.session.encoder import Endpoints
from twistedsock.session.registry import ServerContext

UNVERIFIED_PREFIX = b"~"
"""Before a nick that no token vouches for."""

MAX_FAILED_TOKENS = 10
"""Tokens that one peer may try in vain: more than people mistype, too few to guess, or to keep us busy with checking
signatures."""

TOO_MANY_TOKENS = b"too many tokens that are not valid"

NO_KEYS = Error(ErrorCode.UNAUTHORIZED, "this server has no keys to check a token with, and asks for none")

_WAYS = {Right.READ: "read", Right.WRITE: "publish on"}


def check_access(identity: Identity, channel: bytes, right: Right, remedy: str = "AUTH comes first") -> Error | None:
    """Why somebody may not do something on a channel; None where that is allowed. ``remedy`` tells who has shown no
    token how to."""
    if is_reserved(channel):
        if right & Right.WRITE:
            return RESERVED_CHANNEL
        if identity.is_admin:
            return None
    if identity.grants.on(channel) & right:
        return None
    if identity.subject:
        return Error(ErrorCode.FORBIDDEN, f"you may not {_WAYS[right]} that channel")
    return Error(ErrorCode.UNAUTHORIZED, f"to {_WAYS[right]} that channel takes a token: {remedy}")


def check_access_without_policy(channel: bytes, right: Right, is_admin: bool) -> Error | None:
    """As ``check_access``, where everybody may do everything with channels that are not the server's own."""
    if not is_reserved(channel):
        return None
    if right & Right.WRITE:
        return RESERVED_CHANNEL
    return None if is_admin else FOR_ADMINS


def verified_nick(subject: bytes) -> bytes:
    """The nick that an identity is; empty where it is none, as a nick is short."""
    return subject if is_nick(subject) and not subject.startswith(UNVERIFIED_PREFIX) else b""


def displayed_nick(subject: bytes, nick: bytes) -> bytes:
    """A nick that somebody has chosen, as others see it."""
    if nick == verified_nick(subject) or nick.startswith(UNVERIFIED_PREFIX):
        return nick
    return UNVERIFIED_PREFIX + nick


class AuthenticatedSession(TokenHolder, Protocol):
    """Whose standing it is: a session."""

    client: Client
    endpoints: Endpoints

    def rename(self, nick: bytes) -> None:
        """Be called otherwise."""


class SessionAuth:
    """Made where there is a policy; it begins as nobody. ``forget`` is to be called in the end."""

    __slots__ = ("_bearer", "_context", "_listener", "failed", "identity", "policy", "error")

    def __init__(self, context: ServerContext, policy: Policy, listener: str, bearer: AuthenticatedSession) -> None:
        self.identity = policy.anonymous(listener)
        self.failed = 0
        """Tokens that were not valid."""
        self._context = context
        self.policy = policy
        """By which the identity was found."""
        self.error: Error | None = None
        """Why it may do nothing any longer: the policy does not accept what was shown to one before."""
        self._listener = listener
        self._bearer = bearer

    def check_access(self, channel: bytes, right: Right) -> Error | None:
        """Why something may not be done on a channel; None where it may."""
        return self.error or check_access(self.identity, channel, right)

    def authenticate(self, token: bytes) -> Error | None:
        """Be whom a token names, unless there is a reason against it; then nothing changes."""
        error = self.become(self.policy.by_token(token, self._listener))
        if error is not None:
            self.failed += 1
        else:
            self.error = None
        return error

    def review(self, policy: Policy) -> Error | None:
        """Another policy holds: be who one is by that, unless there is a reason against it."""
        found = policy.review(self.identity, self._listener)
        self.policy = policy  # not before: an exception must not leave an older identity that counts as reviewed
        self.error = self.become(found)
        return self.error

    def become(self, outcome: Identity | Error) -> Error | None:
        """Be what a policy has found, unless there is a reason against it. Who is somebody else now goes by the nick
        that is vouched for; who is the same keeps the nick it has chosen."""
        if isinstance(outcome, Error):
            return outcome
        context, client, before = self._context, self._bearer.client, self.identity.subject
        if outcome.subject != client.id and outcome.subject in context.sessions:
            return NICK_IS_AN_ID
        if outcome.subject != before:
            error = context.connection_limiter.acquire_identity(outcome.subject)
            if error is not None:
                return error
            context.connection_limiter.release_identity(before)
            client.principal = client_principal(self._bearer.endpoints.client, outcome.subject)
        self.identity = outcome
        context.expiry_watcher.watch(self._bearer, outcome.expires)
        nick = client.nick if client.nick == client.id else self.displayed_nick(client.nick)
        if outcome.subject != before:
            nick = self.verified_nick() or nick
        if nick != client.nick:
            self._bearer.rename(nick)
        return None

    def forget(self) -> None:
        """The peer is gone, or the policy."""
        self._context.connection_limiter.release_identity(self.identity.subject)
        self._bearer.client.principal = client_principal(self._bearer.endpoints.client)
        self._context.expiry_watcher.watch(self._bearer, None)

    def verified_nick(self) -> bytes:
        """The nick that the identity is; empty where it is none, as a nick is short."""
        return verified_nick(self.identity.subject)

    def displayed_nick(self, nick: bytes) -> bytes:
        """A nick that the peer has chosen, as others see it."""
        return displayed_nick(self.identity.subject, nick)

    def seconds_left(self) -> int | None:
        """Until the proof runs out; None: it never does."""
        expires = self.identity.expires
        return None if expires is None else max(0, int(expires - self._context.expiry_watcher.wall_clock()))
