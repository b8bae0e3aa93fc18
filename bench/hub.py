"""`python -m bench.hub`: what an event costs in the hub of several workers, and in the worker that publishes it,
without sockets. CPU time in microseconds, the best of five runs."""

import time
from collections.abc import Callable

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub import Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.hub_messages import encode, frame
from twistedsock.backplanes.memory_history import MemoryHistoryBackplane
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Payloads,
    Position,
    PresenceChange,
    Publication,
)

EVENTS = 20_000

PUBLICATION = Publication(b"kitchen", Payloads((b"x" * 40,), 40))


class Discarded:
    """An outlet without a socket."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Nowhere:
    """A node without clients."""

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None: ...

    def reset(self, name: bytes, state: ChannelState) -> None: ...

    def presence_changed(self, name: bytes, change: PresenceChange) -> None: ...

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None: ...

    def local_members(self, name: bytes) -> list[Member]:
        return []

    def run_command(self, command: NodeCommand) -> None: ...


def hub_cost(followers: int, events_per_read: int) -> float:
    """``followers`` of two workers have the channel open."""
    memory = MemoryHistoryBackplane(lambda: b"e", time.time, time.monotonic, Limits())
    hub = Hub(memory, b"h", time.monotonic, lambda seconds, call: None, print)
    hub.start()
    links = [hub.connect(Discarded()) for _ in range(2)]
    for number, link in enumerate(links, 1):
        link.received(frame(0, encode(messages.Hello(b"%d" % number, b""))))
        if number <= followers:
            link.received(frame(1, encode(messages.Open(b"kitchen", None))))
    request = frame(7, encode(messages.PublishRequest(b"1-abcde", b"ann", b"local", PUBLICATION)))
    began = time.process_time()
    for _ in range(EVENTS // events_per_read):
        links[0].received(request * events_per_read)
    return (time.process_time() - began) / EVENTS * 1e6


def worker_cost(events_per_turn: int) -> float:
    """Publish, and receive the event with its answer."""
    worker = WorkerBackplane(b"1", lambda call: None)
    worker.connected(Discarded())
    worker.start(Nowhere())
    worker.received(frame(0, encode(messages.Welcome(b"h", True))))
    worker.open(b"kitchen")
    worker.received(frame(1, encode(messages.OpenedChannel(ChannelState(Position(b"e", 0))))))
    batch = Batch(1, 2, b"1-abcde", b"ann", b"message", PUBLICATION.payloads, 1)
    client, body, request, seconds = Client(b"1-abcde"), encode(messages.Deliver(b"kitchen", b"e", batch)), 2, 0.0
    for _ in range(EVENTS // events_per_turn):
        answers = b"".join([frame(request + number, body) for number in range(events_per_turn)])
        request += events_per_turn
        began = time.process_time()
        for _ in range(events_per_turn):
            worker.publish(client, PUBLICATION)
        worker.flush()
        worker.received(answers)
        seconds += time.process_time() - began
    return seconds / EVENTS * 1e6


def best(measure: Callable[[], float]) -> str:
    return f"{min(measure() for _ in range(5)):.1f} us per event"


def main() -> None:
    for followers in (0, 1, 2):
        for events in (1, 100):
            cost = best(lambda followers=followers, events=events: hub_cost(followers, events))  # type: ignore[misc]
            print(f"hub, {followers} workers have the channel open, {events} events in a read: {cost}")
    for events in (1, 100):
        cost = best(lambda events=events: worker_cost(events))  # type: ignore[misc]
        print(f"worker, {events} events in a turn: {cost}")


if __name__ == "__main__":
    main()
