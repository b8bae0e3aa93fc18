"""What a client must receive of one channel, and the checks of what it receives."""

from collections.abc import Callable
from typing import Any

from tests.simulation.record import Record
from tests.simulation.world import Violation

Position = tuple[int, str]
"""An offset and its epoch."""


class Following:
    """One subscription, from the reply to its ``SUB`` on. ``next`` is the next offset that the client must receive.
    ``is_lost`` tells whether an event can be reported as lost."""

    def __init__(
        self,
        record: Record,
        client_id: str,
        channel: str,
        reply: dict[str, Any],
        since: Position | None,
        last: int,
        is_lost: Callable[[str, str, int], bool],
    ) -> None:
        self.record = record
        self.client_id = client_id
        """The id of the client if it is not sent its own events, otherwise empty."""
        self.channel = channel
        self.epoch: str = reply["epoch"]
        self.next: int = reply["offset"] + 1
        self.earliest = self.next
        """A replay of the ``last`` events starts at an offset from this one to ``next``."""
        self.must_lose = False
        """Whether the reply says that events are missing, so that a report of the gap must follow."""
        self._is_lost = is_lost
        recovered = reply.get("recovered")
        if (recovered is None) is not (since is None):
            self.fail(f"the reply to a subscription since {since} has recovered={recovered}")
        known = record.epoch(channel, self.epoch)
        if reply["offset"] > known.head:
            self.fail(f"the reply names offset {reply['offset']} of {self.epoch}, whose newest is {known.head}")
        if since is not None and since[1] == self.epoch and since[0] <= reply["offset"]:
            self.next = self.earliest = since[0] + 1
            self.must_lose = not recovered
        else:
            if recovered:
                self.fail(f"recovered from {since}, but the channel is at {self.position}")
            self.earliest = max(1, self.next - last)

    @property
    def position(self) -> Position:
        return self.next - 1, self.epoch

    def fail(self, message: str) -> None:
        raise Violation(f"{self.channel}: {message}", self.channel)

    def replace(self, before: "Following") -> None:
        """This is a second subscription of the same client, which is also sent what the first one was not sent yet."""
        if before.epoch == self.epoch:
            self.earliest = min(self.earliest, before.earliest)
            self.next = min(self.next, before.next)

    def receive_event(self, offset: int, name: str, value: Any, time: int | None) -> None:
        """``time`` is None if the protocol does not send it."""
        if self.must_lose:
            self.fail(f"received {offset}, but the reply said that events before it are missing")
        self._advance(offset)
        batch = self.record.check_event(self.channel, self.epoch, offset, name, value)
        if self.client_id and batch.publisher.decode() == self.client_id:
            self.fail(f"received {offset}, its own event, although it asked for echo=off")
        if time is not None and time != batch.time:
            self.fail(f"received {offset} with the time {time} instead of {batch.time}")
        self.next = self.earliest = offset + 1

    def receive_lost(self, first: int, last: int) -> None:
        self._advance(first)
        if last < first or not self._is_lost(self.channel, self.epoch, last):
            self.fail(f"{first} to {last} were reported as lost, but {last} is not")
        self.must_lose = False
        self.next = self.earliest = last + 1

    def skip_own(self, offset: int) -> None:
        """Leave out own events before ``offset``, which are not sent."""
        if self.client_id:
            is_exact = self.earliest == self.next
            while self.next < offset and self._publisher(self.next) == self.client_id:
                self.next += 1
            if is_exact:
                self.earliest = self.next

    def check_caught_up(self) -> None:
        """The client has received everything. It must be called when the whole system is quiet."""
        epoch = self.record.channels[self.channel]
        if self.epoch != epoch.name.decode():
            self.fail(f"at the end the client is at {self.position}, but the epoch is {epoch.name.decode()}")
        if self.must_lose:
            self.fail("at the end no gap was reported, although the reply said that events are missing")
        self.skip_own(epoch.head + 1)
        is_empty = self.earliest < self.next and self._is_lost(self.channel, self.epoch, epoch.head)
        if self.next != epoch.head + 1 and not is_empty:
            self.fail(f"at the end the client waits for {self.next}, but {epoch.head} is the newest event")

    def _advance(self, offset: int) -> None:
        self.skip_own(offset)
        if self.earliest <= offset < self.next:  # a replay of the last events starts
            if offset == self.earliest or self._is_lost(self.channel, self.epoch, offset - 1):
                return
            if self.client_id and self._publisher(offset - 1) == self.client_id:
                return
        if offset != self.next:
            self.fail(f"received {offset} of {self.epoch} instead of {self.next}")

    def _publisher(self, offset: int) -> str:
        return self.record.publisher(self.channel, self.epoch, offset)
