"""Identities and their rights on channels. A policy decides about both; without a policy, all clients have all
rights."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Protocol

import msgspec

from twistedsock.errors import (
    AUTHENTICATE_TO_PUBLISH,
    AUTHENTICATE_TO_READ,
    FOR_ADMINS,
    NO_RIGHT_TO_PUBLISH,
    NO_RIGHT_TO_READ,
    RESERVED_CHANNEL,
    Error,
    ErrorCode,
)
from twistedsock.pubsub.names import CHANNEL_BYTES, RESERVED, AnyOf, Cache, Pattern, is_nick, is_reserved, pattern


class Right(IntEnum):
    """READ: subscribe, read the history and the members. WRITE: publish. The values are bits. It is no IntFlag, because
    ``&`` of those costs a microsecond."""

    NONE = 0
    READ = 1
    WRITE = 2
    BOTH = 3


_RESERVED = RESERVED.decode()

MAX_KNOWN = 64
"""Channels whose rights are cached, so that patterns are not matched for each event: more than one client uses at a
time, and at most 20 KiB for each client."""


class Grants:
    """Rights by channel pattern. A channel has the rights of all patterns that match it."""

    __slots__ = ("_known", "pairs")

    def __init__(self, pairs: Iterable[tuple[Pattern, Right]] = ()) -> None:
        self.pairs = tuple(pairs)
        self._known = Cache[bytes, int](MAX_KNOWN)

    def on(self, channel: bytes) -> int:
        """The rights on one channel."""
        rights = self._known.get(channel)
        if rights is None:
            rights = 0
            reserved = is_reserved(channel)
            for wanted, right in self.pairs:
                # A pattern for all channels does not match the server's own ones.
                if wanted.matches(channel) and (not reserved or wanted.text.startswith(_RESERVED)):
                    rights |= right
            if len(channel) <= CHANNEL_BYTES:
                self._known.add(channel, rights)
        return rights

    def readable(self) -> AnyOf:
        """The channels that can be read, without the server's own."""
        return AnyOf(wanted for wanted, right in self.pairs if right & Right.READ)

    def __add__(self, others: "Grants") -> "Grants":
        return Grants(self.pairs + others.pairs) if others.pairs else self


RIGHTS = {"r": Right.READ, "w": Right.WRITE, "rw": Right.BOTH}
"""The notation of rights in tokens and files."""


def grants(table: Mapping[str, str]) -> Grants:
    """Parse rights, for example ``{"alerts.*": "r"}``. Raises ValueError with a message for people."""
    pairs = []
    for text, letters in table.items():
        if letters not in RIGHTS:
            raise ValueError(f"{letters!r} is no right: r is to read, w to publish, rw both")
        pairs.append((pattern(text), RIGHTS[letters]))
    return Grants(pairs)


EVERYTHING = Grants([(Pattern(">"), Right.BOTH)])


class Identity(msgspec.Struct, frozen=True, eq=False):
    """A client under a policy: its subject and its rights."""

    grants: Grants
    subject: bytes = b""
    """The ``sub`` of a token (RFC 7519 section 4.1.2) or the common name of a client's certificate; empty for
    anonymous clients. It is the nick too, if it is a valid one."""
    expires: float | None = None
    """The time at which the proof expires, in seconds since 1970; None: never."""
    is_admin: bool = False
    proof: str = ""
    """The data that the policy needs to check the identity again. Never the token itself."""
    own: Grants = Grants()
    """The rights that the proof grants, without those of anonymous clients of the listener."""

    def allows_the_same_as(self, other: "Identity") -> bool:
        """True if the rights are the same; False can be wrong."""
        return self.is_admin == other.is_admin and self.grants.pairs == other.grants.pairs


NO_TOKENS = Error(ErrorCode.UNAUTHORIZED, "this server accepts no tokens")

NO_CERTIFICATES = Error(ErrorCode.UNAUTHORIZED, "this listener does not accept client certificates")


class Policy(Protocol):
    """Decides who a client is and what it can do. ``listener`` is the endpoint through which the client connected, as
    configured. A policy of your own can be a subclass: by default, it accepts neither tokens nor certificates."""

    cookie: str = ""
    """The name of the cookie that can contain a token; empty: cookies are ignored."""

    @abstractmethod
    def anonymous(self, listener: str) -> Identity:
        """The identity of clients without a token or certificate."""

    def by_token(self, token: bytes, listener: str) -> Identity | Error:
        """The identity in a token."""
        return NO_TOKENS

    def by_certificate(self, subject: bytes, listener: str) -> Identity | Error:
        """The identity of a client certificate with this common name."""
        return NO_CERTIFICATES

    def review(self, identity: Identity, listener: str) -> Identity | Error:
        """The identity that this policy gives to a client that was identified before, by this policy or a former one.
        By default, a client that has proved its identity keeps it until it disconnects."""
        return identity if identity.subject or identity.proof else self.anonymous(listener)


def check_access(identity: Identity | None, channel: bytes, right: Right, is_admin: bool) -> Error | None:
    """The error if this identity does not have a right on a channel. An ``identity`` of None stands for a server
    without a policy. ``is_admin`` allows to read the server's own channels."""
    if is_reserved(channel):
        if right & Right.WRITE:
            return RESERVED_CHANNEL
        if is_admin:
            return None
        if identity is None:
            return FOR_ADMINS
    if identity is None or identity.grants.on(channel) & right:
        return None
    if identity.subject:
        return NO_RIGHT_TO_READ if right & Right.READ else NO_RIGHT_TO_PUBLISH
    return AUTHENTICATE_TO_READ if right & Right.READ else AUTHENTICATE_TO_PUBLISH


UNVERIFIED_PREFIX = b"~"
"""Marks a nick that a client has chosen, and that is not the subject of its identity."""


def verified_nick(subject: bytes) -> bytes:
    """The nick of an identity: its subject, or nothing if that is too long for a nick."""
    return subject if is_nick(subject) and not subject.startswith(UNVERIFIED_PREFIX) else b""


def displayed_nick(subject: bytes, nick: bytes) -> bytes:
    """A nick that a client has chosen, as others see it."""
    if nick == verified_nick(subject) or nick.startswith(UNVERIFIED_PREFIX):
        return nick
    return UNVERIFIED_PREFIX + nick
