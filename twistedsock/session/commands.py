"""What a peer may ask. A codec turns bytes into these once, at the edge; a session carries them out.

``tag`` is what the reply must carry so that the peer can tell which command it answers: the ``id`` of a JSON
command as it was written, None where the peer gave none. The line dialect answers in order and ignores it.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Self

import msgspec
from msgspec.structs import replace

from twistedsock.errors import Error
from twistedsock.pubsub.values import Publication, Tag
from twistedsock.session.encoder import Encoder

MAX_OFFSET = 2**53 - 1
"""The largest offset or count: the largest integer that JavaScript holds exactly."""


class Publish(Publication, frozen=True, gc=False):
    """A publication with one tag for each payload. Busy publishers send many in a row that differ only in payload and
    tag: joined to one command they cost a fraction of what they cost one by one."""

    tags: Sequence[Tag] = (None,)

    def joined(self, following: Sequence[Self]) -> Self:
        tags = (*self.tags, *chain.from_iterable([other.tags for other in following]))
        return replace(Publication.joined(self, following), tags=tags)


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    channel: bytes
    last: int | None = None
    since: int | None = None
    epoch: bytes | None = None
    presence: bool = False
    echo: bool = True
    tag: Tag = None


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    channel: bytes
    tag: Tag = None


class History(msgspec.Struct, frozen=True, gc=False):
    channel: bytes
    last: int | None = None
    since: int | None = None
    tag: Tag = None


class Who(msgspec.Struct, frozen=True, gc=False):
    channel: bytes
    tag: Tag = None


class Nick(msgspec.Struct, frozen=True, gc=False):
    nick: bytes
    tag: Tag = None


class Auth(msgspec.Struct, frozen=True, gc=False):
    """Here is a token. It is a secret, so it is not part of how this is shown."""

    token: bytes
    tag: Tag = None

    def __repr__(self) -> str:
        return f"Auth(tag={self.tag!r})"


class Ping(msgspec.Struct, frozen=True, gc=False):
    text: bytes = b""
    tag: Tag = None


class Info(msgspec.Struct, frozen=True, gc=False):
    tag: Tag = None


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A command that its decoder has answered: ``data`` is sent in the order of the commands. ``encoder``, if there is
    one, encodes the replies from then on."""

    data: bytes
    encoder: Encoder | None = None


class Quit(msgspec.Struct, frozen=True, gc=False):
    """``words`` tell how the peer has said so."""

    words: str = "QUIT"


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A notice from the endpoint of the connection. It is no reply, so it does not wait for replies that are due before
    it. A client that sends too fast does not get it."""

    text: bytes


class InvalidCommand(msgspec.Struct, frozen=True, gc=False):
    """What could not be read as a command, or may not be run; it is answered in its turn like any other. ``more`` are
    the tags of others in a row with the same answer."""

    error: Error
    tag: Tag = None
    more: Sequence[Tag] = ()


Command = (
    Publish
    | Subscribe
    | Unsubscribe
    | History
    | Who
    | Nick
    | Auth
    | Ping
    | Info
    | Reply
    | Quit
    | Notice
    | InvalidCommand
)
