"""The identity of one session under a policy, and the rights that follow from it."""

from typing import TYPE_CHECKING, Any

from twistedsock.auth.identity import Identity, Policy, Right, check_access, displayed_nick, verified_nick
from twistedsock.errors import NICK_IS_AN_ID, Error
from twistedsock.limits.principal import client_principal

if TYPE_CHECKING:
    from twistedsock.pubsub.subscription import Client
    from twistedsock.session.registry import SessionContext

MAX_FAILED_TOKENS = 10
"""Invalid tokens that a client can send: more than people mistype, too few to guess one, or to keep the server busy
with signatures."""


class SessionAuth:
    """Exists only with a policy, and starts as anonymous. ``address`` is the client's address as text. Call ``release``
    at the end."""

    __slots__ = ("_address", "_client", "_context", "_listener", "error", "failed", "identity", "nick", "policy")

    def __init__(
        self, context: "SessionContext[Any]", policy: Policy, listener: str, client: "Client", address: bytes
    ) -> None:
        self.identity = policy.anonymous(listener)
        self.policy = policy
        """The policy that found the identity."""
        self.failed = 0
        """The number of invalid tokens."""
        self.error: Error | None = None
        """The reason why the client has no rights at all: the policy rejected its former identity."""
        self.nick = client.nick
        """The nick that the client must have under this identity."""
        self._context = context
        self._listener = listener
        self._client = client
        self._address = address

    def check_access(self, channel: bytes, right: Right) -> Error | None:
        """The error that prevents this, if any."""
        return self.error or check_access(self.identity, channel, right, self.identity.is_admin)

    def authenticate(self, token: bytes) -> Error | None:
        """Adopt the identity of a token. Returns the error that prevents it; then nothing changes."""
        error = self.apply_identity(self.policy.by_token(token, self._listener))
        if error is not None:
            self.failed += 1
        else:
            self.error = None
        return error

    def recheck(self, policy: Policy) -> Error | None:
        """Adopt the identity that another policy finds. Returns the error that prevents it, if any."""
        found = policy.review(self.identity, self._listener)
        self.policy = policy  # after the call: if it raises, the former identity must not count as checked
        self.error = self.apply_identity(found)
        return self.error

    def apply_identity(self, outcome: Identity | Error) -> Error | None:
        """Adopt the identity that a policy returned. Returns the error that prevents it, if any. A new subject gets its
        verified nick; the same subject keeps the nick that the client has chosen."""
        if isinstance(outcome, Error):
            return outcome
        context, client, before = self._context, self._client, self.identity.subject
        if outcome.subject != client.id and context.sessions.is_id(outcome.subject):
            return NICK_IS_AN_ID
        if outcome.subject != before:
            error = context.connection_limiter.acquire_identity(outcome.subject)
            if error is not None:
                return error
            context.connection_limiter.release_identity(before)
            client.principal = client_principal(self._address, outcome.subject)
        self.identity = outcome
        nick = client.nick if client.nick == client.id else self.displayed_nick(client.nick)
        if outcome.subject != before:
            nick = verified_nick(outcome.subject) or nick
        self.nick = nick
        return None

    def release(self) -> None:
        """The session is closed, or there is no policy any more."""
        self._context.connection_limiter.release_identity(self.identity.subject)
        self._client.principal = client_principal(self._address)

    def displayed_nick(self, nick: bytes) -> bytes:
        """A nick that the client has chosen, as others see it."""
        return displayed_nick(self.identity.subject, nick)

    def seconds_left(self) -> int | None:
        """Until the token expires; None if it does not."""
        expires = self.identity.expires
        return None if expires is None else max(0, int(expires - self._context.wall_clock()))
