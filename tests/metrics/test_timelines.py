"""A peer's page."""

import json

from twistedsock.metrics.timelines import UNKNOWN, timeline, told
from twistedsock.session.timeline import Step, connection_info
from twistedsock.testing import FakeServer


def test_a_step_is_told_in_the_time_of_day() -> None:
    step = told(Step(1000.5, "closing", "QUIT", "peer"), 1_700_000_000.0, over_unix=False)
    assert (step.at, step.step, step.detail, step.by) == (1_700_001_000.5, "closing", "QUIT", "peer")
    assert "The peer has finished (QUIT)" in step.words


def test_a_timeline_has_the_peer_and_its_steps() -> None:
    server = FakeServer()
    session = server.line_client().session
    page = json.loads(timeline(connection_info(session, server.now), session.steps, 100.0))
    assert page["peer"]["id"] == "p1"
    assert [(step["at"], step["step"]) for step in page["steps"]] == [(1100.0, "accepted"), (1100.0, "open")]
    assert "detail" not in page["steps"][0] and "by" not in page["steps"][0]


def test_the_page_of_an_unknown_id_has_no_peer_and_no_steps() -> None:
    assert json.loads(UNKNOWN) == {"peer": None, "steps": []}
