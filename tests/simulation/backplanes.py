"""The interface between the simulation and its backplanes."""

import json
from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.record import Record
from twistedsock.errors import Error
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.values import JSON, Batch

READ_BYTES = (300, 3_000, 65_536)
"""Most bytes that a backplane returns at once, so that short histories are read in parts too."""


class Backplanes(Protocol):
    """Makes the backplanes of all nodes, records what they store, and lets them fail. A new kind of backplane is
    simulated by a class like this, and needs nothing else."""

    record: Record

    max_nodes: int
    """How many nodes can run at a time."""

    shares_members: bool
    """Whether each node knows the members of channels on all nodes."""

    def keeps(self, backplane: Any, channel: str, epoch: str, offset: int) -> bool:
        """Whether this backplane returns an event if its node asks for it and nothing fails."""

    def has_failed_to_read(self, backplane: Any, channel: str) -> bool:
        """Whether a request of its node for events of this channel has ever failed."""

    def losses(self, backplane: Any) -> int:
        """How often it has lost a connection, after which it asks again for the answers to publications."""

    def connect(self, name: str, after_call: Callable[[], None]) -> Any:
        """The backplane of a node that starts. ``after_call`` must be called when the backplane has called the node, or
        answered a request later."""

    def disconnect(self, backplane: Any) -> None:
        """A node has been killed."""

    def step(self) -> None:
        """Let faults happen, and do periodic work. Called in each step of the run."""


class FailedReads(set[bytes]):
    """The channels of which a request to read has failed."""

    def watch(self, channel: bytes, answer: Error | Future[Any]) -> Error | Future[Any]:
        on_result(answer, lambda outcome: self.add(channel) if isinstance(outcome, Error) else None)
        return answer


def values_of(batch: Batch) -> list[Any]:
    """The payloads of a batch as values: text, or the value of the JSON text."""
    items = batch.payloads.items
    return [json.loads(item) if batch.payloads.kind is JSON else item.decode() for item in items]
