"""Who looks on at what happens on the channels, and is never in the way of it."""

from typing import Protocol

from twistedsock.core.events import Batch, Member


class ReaderObserver(Protocol):
    """Called in the midst of things: it must be quick, must not raise, and must not ask the broker for anything before
    the next turn. ``readers`` is how many the channel has on this node then."""

    def entered(self, channel: bytes, member: Member, readers: int) -> None:
        """A subscriber came, on this node."""

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        """A subscriber went, on this node."""


class Observer(ReaderObserver, Protocol):
    """Who looks on at events, too."""

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        """Events have got their places."""
