"""What the comparison asks of each server that takes part."""

from collections.abc import Mapping
from typing import Protocol

from twistedsock.bench.clients import Target

TCP, WEBSOCKET = "tcp", "websocket"
"""The wires that are compared."""


class Contestant(Protocol):
    """A server that the comparison starts and stops. ``start`` returns when it listens; what it says about itself
    holds from then on. Each start is a new process, that remembers nothing."""

    name: str
    """One lower-case word, as it is chosen on the command line."""

    wires: frozenset[str]
    """The wires that it has, known before it is started."""

    def missing(self) -> str:
        """Why it cannot take part, such as what is not installed; empty if it can."""

    def version(self) -> str:
        """As it calls itself."""

    def start(self) -> None:
        """Start it on free loopback ports. Raises OSError or RuntimeError, with the reason."""

    def stop(self) -> None:
        """End it and all that it started; nothing happens where it does not run."""

    def pids(self) -> tuple[int, ...]:
        """The processes that are the server."""

    def targets(self) -> Mapping[str, Target]:
        """Where it listens, for each of its wires."""
