"""A peer's page, and the line at its end."""

import json

from twistedsock.core.journal import Step
from twistedsock.core.peer_record import peer_record
from twistedsock.core.traffic import Traffic
from twistedsock.monitoring.timelines import closed, timeline, told
from twistedsock.testing import Hall


def test_a_step_is_told_in_the_time_of_day() -> None:
    step = told(Step(1000.5, "closing", "QUIT", "peer"), 1_700_000_000.0, over_unix=False)
    assert (step.at, step.step, step.detail, step.by) == (1_700_001_000.5, "closing", "QUIT", "peer")
    assert "The peer has finished (QUIT)" in step.words


def test_a_timeline_has_the_peer_and_its_steps() -> None:
    hall = Hall()
    session = hall.line_peer().session
    page = json.loads(timeline(peer_record(session, hall.now), session.steps, 100.0))
    assert page["peer"]["id"] == "p1"
    assert [(step["at"], step["step"]) for step in page["steps"]] == [(1100.0, "accepted"), (1100.0, "open")]
    assert "detail" not in page["steps"][0] and "by" not in page["steps"][0]


def test_an_end_tells_how_long_how_much_and_why() -> None:
    hall = Hall()
    peer = hall.json_peer()
    peer.outlet.told = Traffic(10, 20, 0, 0.1)
    hall.now += 2.5
    peer.conversation.finish()
    peer.conversation.lost("cleanly")
    assert json.loads(closed(peer.session, hall.now)) == {
        "id": "p1",
        "dialect": "json",
        "from": "127.0.0.1:50000",
        "seconds": 2.5,
        "sent": 10,
        "received": 20,
        "by": "peer",
        "why": "it has ended its stream, with a FIN",
    }


def test_who_goes_without_a_word_has_gone_by_itself() -> None:
    hall = Hall()
    peer = hall.line_peer()
    peer.conversation.lost("broken")
    end = json.loads(closed(peer.session, hall.now))
    assert (end["by"], end["why"], end["sent"]) == ("peer", "broken", None)
