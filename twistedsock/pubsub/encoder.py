"""How events, presence changes and gaps become bytes: what encoding groups and subscriptions need of an encoder."""

from collections.abc import Sequence
from typing import Protocol

from twistedsock.pubsub.values import Batch, PresenceChange


class EventEncoder(Protocol):
    """Pure, and shared by all subscribers of one protocol; the subscriptions of a channel that share an encoder are an
    encoding group. Each method returns the very bytes that go on the socket, frame heads included."""

    overhead: int
    """Bytes that it writes around a payload beside the channel's and the sender's name, roughly."""

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        """Its events, each one message. This is the hot path."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes: ...

    def presence_lost(self, channel: bytes) -> bytes:
        """Presence changes were dropped, because the subscriber was behind for too long."""

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        """The events with these offsets, both included, will not be sent."""

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """The subscriber's socket did not accept what was encoded from offset ``cursor`` on, or the subscriber starts
        there. It matters only to an encoder that one subscriber has for itself and that remembers what it encoded."""
