"""Random clients of all transports on one server: each receives every event, or a report of the lost ones."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

from hypothesis import strategies as st

from tests.fuzz.connections import quiet_reactor
from tests.fuzz.http_clients import HistoryClient, PollClient, PublishClient
from tests.fuzz.model import Model
from tests.fuzz.properties import holds
from tests.fuzz.session_clients import Client, SessionClient, StreamClient
from twistedsock.backplanes import memory
from twistedsock.codecs import http_api, json_encoder, line_encoder
from twistedsock.pubsub import broker, encoding_group, history, subscription
from twistedsock.session import replies


@contextmanager
def small_limits() -> Iterator[None]:
    """Small chunks, responses and tables of closed channels, so that few events already exceed them."""
    with ExitStack() as stack:
        for module in (broker, encoding_group, history, subscription, replies, json_encoder, line_encoder):
            stack.enter_context(patch.object(module, "CHUNK_BYTES", 2_000))
        stack.enter_context(patch.object(http_api, "MAX_POLL_BYTES", 4_000))
        stack.enter_context(patch.object(memory, "MAX_REMEMBERED", 1))
        yield


def build_clients(model: Model) -> list[Client]:
    """One or more clients of each kind."""
    sessions = [
        SessionClient(model, kind, reads_history)
        for kind in ("line", "message", "json", "stream")
        for reads_history in (False, True)
    ]
    return [
        *sessions,
        StreamClient(model, ("a",)),
        StreamClient(model, ("b", "a"), presence=True),
        HistoryClient(model),
        HistoryClient(model),
        PollClient(model, ("a",)),
        PollClient(model, ("d",)),
        PollClient(model, ("a", "b")),
        PollClient(model, ("d", "b")),
        PollClient(model, ("c", "d", "a")),
        PublishClient(model),
    ]


def run(model: Model, steps: int) -> None:
    """Let clients, time and backplane do random steps. Then end all faults, let all clients read everything, and
    compare the results with the model."""
    random = model.random
    clients = build_clients(model)
    faults = random.random() < 0.3
    for _ in range(steps):
        choice = random.random()
        if choice < 0.72:
            client = random.choice(clients)
            client.act()
            client.read()
        elif choice < 0.8:
            model.turn()
        elif choice < 0.84:
            model.step()
        elif choice < 0.93:
            model.release()
        elif choice < 0.98 or not faults:
            model.pass_time()
        else:
            model.inject_fault()
        if random.random() < 0.3:
            for client in clients:
                client.read()
        model.check_server()
    model.end_faults()
    for _ in range(60):
        if model.late:
            model.server.backplane.release()
        for client in clients:
            client.drain()
            client.read()
        model.turn()
    for client in clients:
        client.check_waiting()
    model.clock.advance(21)  # long polls time out after 20 seconds
    model.turn()
    for client in clients:
        client.read()
        client.check_complete()
    model.check_confirmations()


@holds(
    examples=300,
    seed=st.integers(0, 2**32 - 1),
    steps=st.sampled_from([20, 100, 300, 600]),
    late=st.booleans(),
    lag=st.sampled_from(["skip", "skip", "close"]),
    events=st.sampled_from([3, 12, 40, 1_000]),
    size=st.sampled_from([6_000, 12_000, 40_000]),
)
def test_each_client_receives_every_event_or_a_report_of_the_gap(
    seed: int, steps: int, late: bool, lag: str, events: int, size: int
) -> None:
    """Each client of any transport receives the published events in order and once, or an exact report of the lost
    ones, however slowly it reads and whatever the histories drop by count, bytes and age."""
    with small_limits(), quiet_reactor() as clock:
        model = Model(
            Random(seed),
            clock,
            late,
            slow_consumer=lag,
            history_events=events,
            history_total_bytes=size,
            history_age=10.0,
            max_message_bytes=65_536,
        )
        run(model, steps)
