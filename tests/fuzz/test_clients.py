"""Clients of all transports together: whatever happens, each of them reads what was published, or is told what it
cannot read."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

from hypothesis import strategies as st

from tests.fuzz.clients import Client, SessionClient, StreamClient
from tests.fuzz.connections import quiet_reactor
from tests.fuzz.http_clients import HistoryClient, PollClient, PublishClient
from tests.fuzz.model import Model
from tests.fuzz.properties import holds
from twistedsock.backplanes import memory
from twistedsock.codecs import http_api, json_encoder, line_encoder
from twistedsock.pubsub import broker, encoding_group, history, subscription
from twistedsock.session import replies


@contextmanager
def small() -> Iterator[None]:
    """Chunks, answers and what is remembered of closed channels: so that little is enough to be in pieces, or gone."""
    with ExitStack() as stack:
        for module in (broker, encoding_group, history, subscription, replies, json_encoder, line_encoder):
            stack.enter_context(patch.object(module, "CHUNK_BYTES", 2_000))
        stack.enter_context(patch.object(http_api, "MAX_POLL_BYTES", 4_000))
        stack.enter_context(patch.object(memory, "MAX_REMEMBERED", 1))
        yield


def build_clients(model: Model) -> list[Client]:
    """Some of every kind."""
    sessions = [
        SessionClient(model, kind, asks_history)
        for kind in ("line", "message", "json", "stream")
        for asks_history in (False, True)
    ]
    return [
        *sessions,
        StreamClient(model, ("a",)),
        StreamClient(model, ("b", "a")),
        HistoryClient(model),
        HistoryClient(model),
        PollClient(model, ("a",)),
        PollClient(model, ("d",)),
        PollClient(model, ("a", "b")),
        PollClient(model, ("d", "b")),
        PollClient(model, ("c", "d", "a")),
        PublishClient(model),
    ]


def live(model: Model, steps: int) -> None:
    """Anything may happen, in any order; then all come to rest, and each must have had all that it was owed."""
    random = model.random
    clients = build_clients(model)
    faults = random.random() < 0.3
    for _ in range(steps):
        what = random.random()
        if what < 0.72:
            client = random.choice(clients)
            client.act()
            client.read()
        elif what < 0.8:
            model.turn()
        elif what < 0.84:
            model.step()
        elif what < 0.93:
            model.release()
        elif what < 0.98 or not faults:
            model.age()
        else:
            model.break_down()
        if random.random() < 0.3:
            for client in clients:
                client.read()
    model.mend()
    for _ in range(60):
        if model.late:
            model.server.backplane.release()
        for client in clients:
            client.drain()
            client.read()
        model.turn()
    for client in clients:
        client.check_nothing_is_overlooked()
    model.clock.advance(21)  # long polls end
    model.turn()
    for client in clients:
        client.read()
        client.check_complete()
    model.check_promises()


@holds(
    examples=120,
    seed=st.integers(0, 2**32 - 1),
    steps=st.sampled_from([20, 100, 300, 600]),
    late=st.booleans(),
    lag=st.sampled_from(["skip", "skip", "close"]),
    events=st.sampled_from([3, 12, 40, 1_000]),
    size=st.sampled_from([6_000, 12_000, 40_000]),
)
def test_all_kinds_of_clients(seed: int, steps: int, late: bool, lag: str, events: int, size: int) -> None:
    """Whatever clients of all transports do, however slowly they read, and whatever the logs let go of by count, bytes
    and age: each reads what was published, in order and once, or is told exactly what it cannot read."""
    with small(), quiet_reactor() as clock:
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
        live(model, steps)
