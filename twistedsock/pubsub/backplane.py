"""The interfaces of a backplane, of the node that it serves, and of observers."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from twistedsock.errors import Error
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Position,
    PresenceChange,
    Publication,
)


class Backplane(Protocol):
    """Gives events their order, and connects the nodes (processes) of a server.

    For each channel that a node has open, the backplane calls the node's ``deliver`` with each event, in the order of
    the offsets. The broker ignores a batch that it has already. It reads what is missing before a batch with ``read``,
    and reports to the subscribers what cannot be read. If all events since a certain one were lost, the backplane
    starts a new epoch of the channel, and calls ``reset``. A publication of this node is delivered to it before it is
    answered, in the same turn: so the reply is written before the events, and the client finds the events in the
    history that it requests next.

    A method that cannot answer at once returns a ``Future``. The channels under ``$sys/``
    belong to one node: ``ReservedChannelsBackplane`` keeps them away from a backplane that connects several.
    """

    node_name: bytes
    """Distinguishes this node from all others that are connected: the ids of its clients begin with it and a hyphen. It
    consists of lower-case letters and digits, and is as long as the names of the other nodes. Empty if there is only
    one node."""

    keeps_history: bool
    """Whether ``read`` can return events that this node has dropped from its histories, or was never sent."""

    @property
    def is_ready(self) -> bool:
        """Whether it is likely to answer."""
        ...

    def start(self, node: "Node") -> Future[bool] | None:
        """Connect, and call ``node`` from now on. Called once, before all other methods."""

    def stop(self) -> Future[bool] | None:
        """Disconnect. The future is settled when everything that was accepted is safe."""

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        """Give the events successive offsets, and deliver them to all nodes that have the channel open. Returns the
        offset of the first. A backplane of several nodes remembers the keys of publications for ten minutes; the one of
        a single node need not, because ``session.idempotency.Idempotency`` does. One that keeps the history on a disk
        remembers those from before a restart."""

    def open(self, channel: bytes) -> ChannelState | Error | Future[ChannelState]:
        """Start to deliver the events of a channel to this node. Also called for an open channel, when an event of
        another epoch has arrived."""

    def close(self, channel: bytes) -> None:
        """This node does not need the channel any more."""

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch] | Error | Future[Sequence[Batch]]:
        """The events after a position, in their order and without gaps, of about ``limit`` bytes. Nothing if there are
        none, or if the epoch is not the one of the channel. If the first ones have been dropped, those after them.
        Bytes are counted as ``pubsub.history`` does, and it is at least one event. The channel need not be open."""

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int | Error | Future[int]:
        """The offset of the newest event that was published before ``time`` (milliseconds since 1970) and can be read;
        0 if there is none, or if the epoch is not the one of the channel. Times never decrease within a channel, so a
        backplane that finds events by their offsets only needs no index: about twenty events show the answer. The
        channel need not be open."""

    def join(self, channel: bytes, member: Member) -> None:
        """A client of this node has subscribed."""

    def rename(self, channel: bytes, member: Member) -> None:
        """A member of this node has another nick."""

    def leave(self, channel: bytes, member: Member) -> None:
        """A subscription of this node has ended."""

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        """The members on all nodes. Those of a node that has failed expire."""

    def send(self, command: NodeCommand) -> None:
        """Have a command run by all other nodes."""


class MessageReceiver(Protocol):
    """The receiver of messages between nodes."""

    def received(self, node: bytes, content: bytes) -> None:
        """Another node has sent a message."""

    def unreachable(self, node: bytes) -> None:
        """A message could not be delivered, because no node of this name is connected now."""


@runtime_checkable
class SendsToNodes(Protocol):
    """A backplane whose nodes can send messages to one of the others."""

    node_name: bytes
    receiver: MessageReceiver | None

    def send_to(self, node: bytes, content: bytes) -> bool:
        """Send a message to the node of this name. The messages to a node arrive in their order, but those on their way
        are lost when a connection ends. Returns False if this node is not connected."""
        ...


class Node(Protocol):
    """The broker of this process, as the backplane calls it."""

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        """Events of a channel that the node has open."""

    def reset(self, name: bytes, state: ChannelState) -> None:
        """A channel has a new epoch; or, after the connection was interrupted, perhaps only newer events."""

    def presence_changed(self, name: bytes, change: PresenceChange) -> None: ...

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None:
        """Called on one node for each change if the backplane has an attribute ``counts_members`` that is True:
        observers are notified there. ``members`` is the number on all nodes then."""

    def local_members(self, name: bytes) -> list[Member]: ...

    def run_command(self, command: NodeCommand) -> None:
        """Another node has sent a command."""


class PresenceObserver(Protocol):
    """Is called while a subscription is being made or ended, so it must be quick, must not raise exceptions, and must
    not call the broker before the next turn. ``readers`` is the number of subscriptions that the channel has on this
    node then, or on all nodes if the backplane counts them."""

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        """A client of this node has subscribed."""

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        """A subscription of this node has ended."""


class Observer(PresenceObserver, Protocol):
    """Is called for events, too: on one node only, the one whose client has published them."""

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        """Events of a client of this node have been delivered to it."""
