"""Who looks on is told of each connection, and what is kept of one is bounded."""

from twistedsock.session.session import Session
from twistedsock.session.timeline import FIRST_STEPS, MAX_STEPS, ConnectionEvents, Step, append_bounded
from twistedsock.testing import FakeServer


class Notes:
    def __init__(self, journal: ConnectionEvents) -> None:
        self.told: list[str] = []
        journal.watchers.append(self)

    def opened(self, session: Session) -> None:
        self.told.append("has opened " + session.client.id.decode())

    def stepped(self, session: Session, step: Step) -> None:
        self.told.append(f"{step.name} {session.client.id.decode()}")

    def closed(self, session: Session) -> None:
        self.told.append("has closed " + session.client.id.decode())


def test_watchers_are_told_of_each_session_once() -> None:
    server = FakeServer()
    notes = Notes(server.context.connection_events)
    peer = server.line_client()
    server.context.connection_events.stepped(peer.session, Step(1.0, "behind"))
    peer.session.connection_lost()
    peer.session.connection_lost()
    assert notes.told == ["has opened p1", "behind p1", "closed p1", "has closed p1"]


def test_of_very_many_steps_the_first_and_the_newest_are_kept() -> None:
    steps: list[Step] = []
    for number in range(1_000):
        append_bounded(steps, Step(number, "behind"))
    assert len(steps) == MAX_STEPS
    assert [step.at for step in steps[:FIRST_STEPS]] == list(range(FIRST_STEPS))
    assert [step.at for step in steps[FIRST_STEPS:]] == list(range(1_000 - MAX_STEPS + FIRST_STEPS, 1_000))
