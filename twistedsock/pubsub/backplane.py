"""What the broker asks of a backplane, and what it is told by it."""

from typing import Protocol

from twistedsock.errors import Error
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, Member, Position, Publication


class Backplane(Protocol):
    """How events get their order and reach the other processes. It tells its node, the broker, what happens by
    ``deliver`` and ``presence_changed``. For each channel that is open here, ``deliver`` is called once for each event,
    in the order of the offsets, without a gap. The broker ignores a batch that it has got already, and reports a gap or
    another epoch to subscribers. A publish is delivered here first and answered in the same step: so its ``OK`` is
    written before the turn ends and flushes it, and who asks next for the history finds it there."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be expected to answer."""
        ...

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        """Give events their places, which follow each other, and deliver them to every node that has the channel open;
        answers the offset of the first."""

    def open(self, channel: bytes) -> Position | Error | Future[Position]:
        """Begin to deliver a channel to this node; answers where it stands."""

    def close(self, channel: bytes) -> None:
        """This node has no use for the channel any longer."""

    def join(self, channel: bytes, member: Member) -> None:
        """A subscriber came."""

    def rename(self, channel: bytes, member: Member) -> None:
        """A subscriber has a new nick."""

    def leave(self, channel: bytes, member: Member) -> None:
        """A subscriber went."""

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        """The subscribers on all nodes."""


class PresenceObserver(Protocol):
    """Called in the midst of things: it must be quick, must not raise, and must not ask the broker for anything before
    the next turn. ``readers`` is how many the channel has on this node then."""

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        """A subscriber came, on this node."""

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        """A subscriber went, on this node."""


class Observer(PresenceObserver, Protocol):
    """Who looks on at events, too."""

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        """Events have got their places."""


# TODO-MERGED-DOC: Who looks on at what happens on the channels, and is never in the way of it.
