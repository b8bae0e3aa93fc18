"""A node: a whole server without sockets, on the virtual time."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.backplanes import Backplanes
from tests.simulation.world import World
from twistedsock.limits.settings import Limits
from twistedsock.session.context import ServerContext, build_context

if TYPE_CHECKING:
    from tests.simulation.clients import Client

EXPIRY_SECONDS = 5.0
"""How often a server drops the events that are too old."""


class SimulatedNode:
    """``clock_step`` are the seconds that pass each time the server looks at its clock: more than a time slice, and
    each piece of its work is divided into many turns."""

    def __init__(self, world: World, name: str, backplanes: Backplanes, limits: Limits, clock_step: float) -> None:
        self.name = name
        self.is_running = True
        self.clients: dict[Client, None] = {}
        self._backplanes = backplanes
        self._backplane = backplane = backplanes.connect(name, self.let_clients_read)
        self._world = world
        self._clock_step = clock_step
        self._worked = 0.0
        self._expired = world.now
        self.context: ServerContext = build_context(
            backplane, limits, "0.0", self._clock, self._schedule, self._draw_id, world.wall
        )
        backplane.start(self.context.broker)

    def step(self) -> None:
        """Do the periodic work that is due."""
        if self._world.now >= self._expired + EXPIRY_SECONDS:
            self._expired = self._world.now
            self.context.broker.expire_histories()

    def stop(self) -> None:
        """Stop as if the process was killed. The connections of the clients break."""
        self.is_running = False
        self._backplanes.disconnect(self._backplane)
        clients, self.clients = self.clients, {}
        for client in clients:
            client.connection_broken()

    @property
    def losses(self) -> int:
        """How often the backplane has lost its connection. A publication whose answer is lost with it is confirmed
        later, and may be delivered to its publisher before."""
        return self._backplanes.losses(self._backplane)

    def head(self, channel: str) -> int:
        """The newest offset of a channel that the node has open, otherwise 0."""
        known = self.context.broker.channels.get(channel.encode())
        return 0 if known is None else known.head

    def has_failed_to_read(self, channel: str) -> bool:
        """Whether the backplane has ever failed to return events of a channel."""
        return self._backplanes.has_failed_to_read(self._backplane, channel)

    def has_dropped(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether the history of the channel does not contain an event."""
        known = self.context.broker.channels.get(channel.encode())
        return known is None or known.epoch.decode() != epoch or known.history.first > offset

    def is_lost(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether neither the history of the channel nor the backplane has an event."""
        known = self.context.broker.channels.get(channel.encode())
        if known is None or known.epoch.decode() != epoch:
            return True  # knowledge of a former epoch is checked with the reset
        return known.history.first > offset and not self.can_read(channel, epoch, offset)

    def is_deleted(self, channel: str, epoch: str, offset: int) -> bool:
        """Like ``is_lost``, but an event that the backplane has failed to return is not deleted."""
        return self.is_lost(channel, epoch, offset) and not self.keeps(channel, epoch, offset)

    def can_read(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether the backplane has an event, and has never failed to return events of that channel."""
        return not self.has_failed_to_read(channel) and self.keeps(channel, epoch, offset)

    def keeps(self, channel: str, epoch: str, offset: int) -> bool:
        """Whether the backplane has an event that the node can read."""
        return self._backplanes.keeps(self._backplane, channel, epoch, offset)

    def let_clients_read(self) -> None:
        for client in list(self.clients):
            client.read()

    def _clock(self) -> float:
        self._worked += self._clock_step
        return self._world.now + self._worked

    def _schedule(self, call: Callable[[], None]) -> None:
        self._world.after(0.0001, partial(self._turn, call))

    def _turn(self, call: Callable[[], None]) -> None:
        if self.is_running:
            call()
            self.let_clients_read()

    def _draw_id(self) -> bytes:
        return b"%d" % self._world.serial()
