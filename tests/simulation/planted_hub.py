"""Planted faults of the hub and the backplanes of its workers."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from tests.simulation.faults import FaultRates
from tests.simulation.hub import HubBackplanes, HubFaults
from tests.simulation.planting import Patch, Plant, planted_in
from tests.simulation.world import World
from twistedsock.backplanes.hub import Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.hub_link import Link
from twistedsock.backplanes.hub_members import HubMembers
from twistedsock.backplanes.hub_messages import FrameReader

STEPS = 250


def plant(crash: float = 0.0, fail: float = 0.0, **faults: float) -> Callable[[Plant], Plant]:
    """A fault that runs with these faults of the hub, the connections, the workers and the disk can find."""

    def make(world: World, rates: FaultRates) -> HubBackplanes:
        rates.crash, rates.fail = crash, fail
        return HubBackplanes(world, rates, HubFaults(**faults))

    return planted_in(make, STEPS)


def do_nothing(*arguments: Any) -> None: ...


# Messages.


@plant()
def rest_of_a_frame_dropped(patch: Patch) -> None:
    """A message that arrives in two pieces is damaged."""
    feed = FrameReader.feed

    def feed_last(self: FrameReader, data: bytes) -> None:
        self.__init__(self._messages)  # type: ignore[misc]
        feed(self, data)

    init = FrameReader.__init__

    def remember(self: FrameReader, messages: Any) -> None:
        init(self, messages)
        self._messages = messages  # type: ignore[attr-defined]

    patch(FrameReader, "__init__", remember)
    patch(FrameReader, "feed", feed_last)


@plant(cut=0.1)
def half_a_frame_kept(patch: Patch) -> None:
    """A worker that connects again reads on in the middle of a message of the former connection."""
    connected = WorkerBackplane.connected

    def connected_again(self: WorkerBackplane, outlet: Any) -> None:
        reader = self._reader
        connected(self, outlet)
        self._reader = reader

    patch(WorkerBackplane, "connected", connected_again)


@plant()
def own_event_not_delivered(patch: Patch) -> None:
    """A worker takes an event that is also an answer for the answer only."""
    deliver = WorkerBackplane._deliver

    def answer(self: WorkerBackplane, request: int, message: Any) -> None:
        if request:
            self._answer(request, message.batch.first)
        else:
            deliver(self, request, message)

    patch(WorkerBackplane, "_deliver", answer)


@plant()
def hub_does_not_go_on(patch: Patch) -> None:
    """A hub whose worker reads again does not send what waits for it."""
    patch(Link, "resume", do_nothing)


# Connections.


@plant(cut=0.05)
def channels_not_opened_again(patch: Patch) -> None:
    """A worker that has connected again does not open its channels."""
    patch(WorkerBackplane, "_reopen_all", do_nothing)


@plant(cut=0.05)
def answers_not_ended(patch: Patch) -> None:
    """Requests that wait for an answer when a connection ends are never answered."""
    lost = WorkerBackplane.lost

    def lose(self: WorkerBackplane) -> None:
        self._requests.clear()
        lost(self)

    patch(WorkerBackplane, "lost", lose)


@plant(cut=0.05)
def lost_answer_taken_for_ok(patch: Patch) -> None:
    """Publications whose answers were lost with the connection are confirmed."""
    lost = WorkerBackplane.lost

    def lose(self: WorkerBackplane) -> None:
        for request in self._requests.values():
            if request.size:
                request.on_loss = 1  # type: ignore[assignment]
        lost(self)

    patch(WorkerBackplane, "lost", lose)


@plant(kill=0.03)
def epoch_of_another_hub_not_noticed(patch: Patch) -> None:
    """Channels of another hub without more events than the former one had are taken for unchanged."""
    reopened = WorkerBackplane._reopened

    def reopen(self: WorkerBackplane, queue: Any, channel: bytes, known: Any, outcome: Any) -> None:
        if getattr(outcome, "position", known).offset <= known.offset:
            outcome = replace(outcome, position=known) if hasattr(outcome, "position") else outcome
        reopened(self, queue, channel, known, outcome)

    patch(WorkerBackplane, "_reopened", reopen)


@plant(fail=0.1)
def disk_that_works_again_not_announced(patch: Patch) -> None:
    """Workers do not learn that the hub accepts publications again."""
    announce = Hub.announce_ready

    def announce_failure(self: Hub) -> None:
        if not self.backplane.is_ready:
            announce(self)

    patch(Hub, "announce_ready", announce_failure)


# Members.


@plant(crash=0.02)
def members_of_a_dead_worker_stay(patch: Patch) -> None:
    """The members of a worker that was killed do not leave."""
    patch(Hub, "_end_lease", do_nothing)


@plant(cut=0.05)
def members_that_left_meanwhile_stay(patch: Patch) -> None:
    """The members that have left while their worker had no connection stay."""
    patch(HubMembers, "node_synced", do_nothing)
