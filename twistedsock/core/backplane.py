"""What the broker asks of a backplane, and what it is told by it."""

from typing import Protocol

from twistedsock.core.dialect import Position
from twistedsock.core.errors import Refusal
from twistedsock.core.events import Content, Member
from twistedsock.core.later import Later
from twistedsock.core.reader import Peer


class Backplane(Protocol):
    """How events get their order and reach the other processes. It tells its node, the broker, what happens by
    ``deliver`` and ``change_presence``. For each channel that is open here, ``deliver`` is called once for each event,
    in the order of the offsets, without a gap. The broker ignores a batch that it has got already, and reports a gap or
    another epoch to subscribers. A publish is delivered here first and answered in the same step: so its ``OK`` is
    written before the turn ends and flushes it, and who asks next for the history finds it there."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be expected to answer."""
        ...

    def publish(self, channel: bytes, publisher: Peer, name: bytes, content: Content) -> int | Refusal | Later[int]:
        """Give events their places, which follow each other, and deliver them to every node that has the channel open;
        answers the offset of the first."""

    def open(self, channel: bytes) -> Position | Refusal | Later[Position]:
        """Begin to deliver a channel to this node; answers where it stands."""

    def close(self, channel: bytes) -> None:
        """This node has no use for the channel any longer."""

    def enter(self, channel: bytes, member: Member) -> None:
        """A subscriber came."""

    def rename(self, channel: bytes, member: Member) -> None:
        """A subscriber has a new nick."""

    def leave(self, channel: bytes, member: Member) -> None:
        """A subscriber went."""

    def members(self, channel: bytes) -> list[Member] | Refusal | Later[list[Member]]:
        """The subscribers on all nodes."""
