"""The interfaces of a backplane, of the node that it serves, and of observers."""

from typing import Protocol

from twistedsock.errors import Error
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, Member, Position, PresenceChange, Publication


class Backplane(Protocol):
    """Gives events their order, and connects the nodes (processes) of a server.

    For each channel that a node has open, the backplane calls the node's ``deliver`` with each event once, in the order
    of the offsets, without gaps. The broker ignores a batch that it has already, and reports a gap or another epoch to
    the subscribers. A publication of this node is delivered to it before it is answered, in the same turn: so the reply
    is written before the events, and the client finds the events in the history that it requests next.

    A method that cannot answer at once returns a ``Future``.
    """

    @property
    def is_ready(self) -> bool:
        """Whether it is likely to answer."""
        ...

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        """Give the events successive offsets, and deliver them to all nodes that have the channel open. Returns the
        offset of the first."""

    def open(self, channel: bytes) -> Position | Error | Future[Position]:
        """Start to deliver the events of a channel to this node. Returns the position of its newest event."""

    def close(self, channel: bytes) -> None:
        """This node does not need the channel any more."""

    def join(self, channel: bytes, member: Member) -> None:
        """A client of this node has subscribed."""

    def rename(self, channel: bytes, member: Member) -> None:
        """A member of this node has another nick."""

    def leave(self, channel: bytes, member: Member) -> None:
        """A subscription of this node has ended."""

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        """The members on all nodes."""


class Node(Protocol):
    """The broker of this process, as the backplane calls it."""

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None: ...

    def presence_changed(self, name: bytes, change: PresenceChange) -> None: ...

    def local_members(self, name: bytes) -> list[Member]: ...


class PresenceObserver(Protocol):
    """Is called while a subscription is being made or ended, so it must be quick, must not raise exceptions, and must
    not call the broker before the next turn. ``readers`` is the number of subscriptions that the channel has on this
    node then."""

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        """A client of this node has subscribed."""

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        """A subscription of this node has ended."""


class Observer(PresenceObserver, Protocol):
    """Is called for events, too."""

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        """Events have been delivered to this node."""
