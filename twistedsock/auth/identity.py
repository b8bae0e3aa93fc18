"""Identities and their rights on channels. A policy decides about both; without a policy, all clients have all
rights."""

from collections.abc import Iterable, Mapping
from enum import IntFlag
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
)
from twistedsock.limits.cache import Cache
from twistedsock.pubsub.names import CHANNEL_BYTES, RESERVED, AnyOf, Pattern, is_nick, is_reserved, pattern


class Right(IntFlag):
    """READ is to subscribe, to ask for the history and for who is there; WRITE is to publish."""

    NONE = 0
    READ = 1
    WRITE = 2
    BOTH = 3


_RESERVED = RESERVED.decode()

MAX_KNOWN = 64
"""Channels whose rights are remembered, so that a busy peer's patterns are not tried at each event: more than one peer
uses at a time, and 20 KiB for each peer at most."""


class Grants:
    """Rights by pattern of channels; those of all patterns that match a channel are added up."""

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
                # A pattern for whatever there is does not mean what the server tells of others.
                if wanted.matches(channel) and (not reserved or wanted.text.startswith(_RESERVED)):
                    rights |= right
            if len(channel) <= CHANNEL_BYTES:
                self._known.add(channel, rights)
        return rights

    def readable(self) -> AnyOf:
        """Which of many channels may be read that are not the server's own."""
        return AnyOf(wanted for wanted, right in self.pairs if right & Right.READ)

    def __add__(self, others: "Grants") -> "Grants":
        return Grants(self.pairs + others.pairs) if others.pairs else self


RIGHTS = {"r": Right.READ, "w": Right.WRITE, "rw": Right.BOTH}
"""How rights are written, in a token and in a file."""


def grants(table: Mapping[str, str]) -> Grants:
    """Rights as they are written, ``{"alerts.*": "r"}``; ValueError with a sentence where that is none."""
    pairs = []
    for text, letters in table.items():
        if letters not in RIGHTS:
            raise ValueError(f"{letters!r} is no right: r is to read, w to publish, rw both")
        pairs.append((pattern(text), RIGHTS[letters]))
    return Grants(pairs)


EVERYTHING = Grants([(Pattern(">"), Right.BOTH)])


class Identity(msgspec.Struct, frozen=True, eq=False):
    """Somebody, as far as a policy knows."""

    grants: Grants
    subject: bytes = b""
    """The ``sub`` of a token (RFC 7519 section 4.1.2) or the common name of a client's certificate; empty for those
    who have shown nothing. It is the peer's nick, too, where it is fit for one."""
    expires: float | None = None
    """When the proof runs out, in seconds of the wall clock since 1970; None: never."""
    is_admin: bool = False
    proof: str = ""
    """By what it was proved: whatever the policy needs to review it later. Never the token itself."""
    own: Grants = Grants()
    """What the proof itself grants, without what everybody has who comes by the same listener."""

    def allows_the_same_as(self, other: "Identity") -> bool:
        """Whether the rights are the same, as far as that can be seen at a glance."""
        return self.is_admin == other.is_admin and self.grants.pairs == other.grants.pairs


class Policy(Protocol):
    """``listener`` is the endpoint that a peer came in by, as it was configured."""

    cookie: str
    """The name of the cookie in which a token may come; empty: none is looked at."""

    def anonymous(self, listener: str) -> Identity:
        """Who shows nothing."""

    def by_token(self, token: bytes, listener: str) -> Identity | Error:
        """Who brings a token."""

    def by_certificate(self, subject: bytes, listener: str) -> Identity | Error:
        """Who has proved its name by a certificate, in the handshake of TLS."""

    def review(self, identity: Identity, listener: str) -> Identity | Error:
        """What an older policy found, as this one sees it."""


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
