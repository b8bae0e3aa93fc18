"""The notices about a backplane that is away, and that is back."""

import pytest

from tests.session.clients import settle, welcomed
from twistedsock.session.backplane_notices import BackplaneNotices
from twistedsock.testing import FakeServer

AWAY = "NOTICE the server cannot reach its backplane: publications fail and events are delayed"
BACK = "NOTICE the server reaches its backplane again: missed events follow, and losses are reported"


class Watched:
    """A server with its notices. Its backplane has been away for some ``seconds``. ``story`` is what one subscriber of
    lines was sent."""

    def __init__(self, seconds: int = 0, ready_for: int = 1) -> None:
        self.server = FakeServer(late=True)
        self.notices = BackplaneNotices(self.server.context)
        self.pass_seconds(seconds, ready=False)
        self.pass_seconds(ready_for, ready=True)
        self.reader = welcomed(self.server, "SUB kitchen")

    def pass_seconds(self, seconds: int, ready: bool) -> None:
        self.server.backplane.is_ready = ready
        for _ in range(seconds):
            self.server.now += 1
            self.notices.check()
            self.server.turn()

    @property
    def story(self) -> list[str]:
        return self.reader.received()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_subscribers_receive_one_notice_and_one_at_the_end(watched: Watched) -> None:
    watched.pass_seconds(20, ready=False)
    assert watched.story == [AWAY]
    watched.pass_seconds(20, ready=True)
    assert watched.story == [BACK]


def test_short_outages_cause_no_notice(watched: Watched) -> None:
    for _ in range(5):
        watched.pass_seconds(5, ready=False)
        watched.pass_seconds(5, ready=True)
    assert watched.story == []


def test_a_backplane_that_fails_again_and_again_causes_one_notice(watched: Watched) -> None:
    watched.pass_seconds(10, ready=False)
    for _ in range(5):
        watched.pass_seconds(4, ready=True)
        watched.pass_seconds(4, ready=False)
    assert watched.story == [AWAY]


def test_clients_without_subscriptions_are_not_notified(watched: Watched) -> None:
    publisher = welcomed(watched.server)
    watched.pass_seconds(10, ready=False)
    assert publisher.received() == []


def test_programs_recognise_the_notices_by_their_codes(watched: Watched) -> None:
    page = watched.server.json_client()
    page.send({"type": "subscribe", "id": 1, "channel": "kitchen"})
    settle(watched.server)
    page.received()
    watched.pass_seconds(10, ready=False)
    watched.pass_seconds(10, ready=True)
    assert [message["code"] for message in page.received()] == ["backplane-away", "backplane-back"]


def test_a_server_that_starts_without_its_backplane_notifies_no_client() -> None:
    watched = Watched(seconds=10)
    watched.pass_seconds(10, ready=True)
    assert watched.story == []


def test_a_backplane_that_is_away_before_the_first_check_causes_a_notice() -> None:
    watched = Watched(ready_for=0)
    watched.pass_seconds(10, ready=False)
    assert watched.story == [AWAY]


def test_a_server_that_stops_sends_no_notices(watched: Watched) -> None:
    watched.server.context.draining = True
    watched.pass_seconds(10, ready=False)
    assert watched.story == []
