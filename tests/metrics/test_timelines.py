"""Timelines and the explanations of their steps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from twistedsock.metrics.pages import MAX_PAGE_BYTES
from twistedsock.metrics.timelines import (
    MAX_SUBSCRIPTION_ROWS,
    UNKNOWN,
    step_description,
    subscription_rows,
    timeline,
    timeline_step,
)
from twistedsock.session.connection_info import connection_info
from twistedsock.session.timeline import Step
from twistedsock.testing import FakeServer, LineClient

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step(0.0, "accepted"), "SYN, SYN-ACK, ACK"),
        (Step(0.0, "proxied"), "PROXY header"),
        (Step(0.0, "handshake", "TLS"), "ciphertext"),
        (Step(0.0, "handshake", "WebSocket"), "101"),
        (Step(0.0, "handshake", "events"), "stream of events"),
        (Step(0.0, "open"), "welcome"),
        (Step(0.0, "authenticated", "ann"), "proved its identity: ann."),
        (Step(0.0, "behind", "kitchen from 17"), "the offset of the next one (kitchen from 17)"),
        (Step(0.0, "caught-up", "kitchen"), "from the history (kitchen)"),
        (Step(0.0, "lost", "kitchen 17 to 30"), "(kitchen 17 to 30)"),
        (Step(0.0, "closing", "QUIT", "peer"), "The client is done (QUIT)"),
        (Step(0.0, "closing", "{0}", "server"), "The server sent its last message ({0})"),
        (Step(0.0, "closed", "cleanly"), "TIME-WAIT"),
        (Step(0.0, "closed", "broken"), "reset (RST) or stopped responding"),
        (Step(0.0, "closed", "aborted"), "aborted the connection"),
        (Step(0.0, "closed"), "is closed"),
    ],
)
def test_describes_each_step_in_short_sentences(step: Step, text: str) -> None:
    description = step_description(step)
    assert text in description
    assert description.endswith(".") and len(description) < 260


def test_describes_the_accept_of_a_unix_socket() -> None:
    assert "Unix" in step_description(Step(0.0, "accepted"), over_unix=True)
    assert "Unix" not in step_description(Step(0.0, "open"), over_unix=True)


def test_unknown_step_has_no_description() -> None:
    assert step_description(Step(0.0, "danced")) == ""


def test_every_step_in_the_source_has_a_description() -> None:
    names = {
        name
        for file in (CHECKOUT / "twistedsock").rglob("*.py")
        for name in re.findall(r"""\b(?:add_step|Step)\((?:[^"()]*, )?"([a-z-]+)\"""", file.read_text())
    }
    assert {"accepted", "open", "behind", "closed"} <= names
    special = {"handshake": Step(0.0, "handshake", "TLS"), "closing": Step(0.0, "closing", by="server")}
    assert all(step_description(special.get(name, Step(0.0, name))) for name in names), names


def test_step_of_a_timeline_has_wall_clock_time() -> None:
    step = timeline_step(Step(1000.5, "closing", "QUIT", "peer"), 1_700_000_000.0, over_unix=False)
    assert (step.at, step.step, step.detail, step.by) == (1_700_001_000.5, "closing", "QUIT", "peer")
    assert "The client is done (QUIT)" in step.words


def test_timeline_contains_the_connection_and_its_steps() -> None:
    server = FakeServer()
    session = server.line_client().session
    page = json.loads(timeline(connection_info(session, server.now), session.timeline.steps, 100.0))
    assert page["peer"]["id"] == "p1"
    assert [(step["at"], step["step"]) for step in page["steps"]] == [(1100.0, "accepted"), (1100.0, "open")]
    assert "detail" not in page["steps"][0] and "by" not in page["steps"][0]


def subscribed(server: FakeServer, *channels: str) -> tuple[LineClient, Callable[[], list[tuple[str, int]]]]:
    """A client that does not read, and a function that returns its rows."""
    client = server.line_client()
    client.send(*[f"SUB {name}" for name in channels])
    server.turn()
    client.outlet.room = 0
    return client, lambda: [(row.channel, row.lag) for row in subscription_rows(client.session)]


def test_lists_subscriptions_that_are_furthest_behind_first() -> None:
    server = FakeServer()
    client, rows = subscribed(server, "a", "b", "c", "d")
    assert rows() == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]
    for name in ("d", *"ccccc", *"dd"):
        server.line_client().send(f"PUB {name} x")
        server.turn()
    assert [name for name, _ in rows()] == ["c", "d", "a", "b"]
    assert sum(lag for _, lag in rows()) == client.session.lag > 5
    info = connection_info(client.session, server.now)
    page = json.loads(timeline(info, client.session.timeline.steps, 0.0, subscription_rows(client.session)))
    assert page["subscriptions"][-1] == {"channel": "b", "lag": 0}


def test_lists_a_limited_number_of_subscriptions() -> None:
    server = FakeServer()
    names = [f"{number:03d}{'ü' * 98}" for number in range(100)]
    client, rows = subscribed(server, *names)
    assert [name for name, _ in rows()] == names[:MAX_SUBSCRIPTION_ROWS]
    for name in reversed(names):
        server.line_client().send(f"PUB {name} x", f"PUB {name} x")
        server.turn()
    assert len(rows()) == MAX_SUBSCRIPTION_ROWS and min(lag for _, lag in rows()) > 0
    info = connection_info(client.session, server.now)
    page = timeline(info, client.session.timeline.steps, 0.0, subscription_rows(client.session))
    assert len(page) <= MAX_PAGE_BYTES


def test_timeline_of_an_unknown_id_is_empty() -> None:
    assert json.loads(UNKNOWN) == {"peer": None, "steps": []}
