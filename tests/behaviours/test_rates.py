"""Who goes too fast is refused the excess; who goes on is told why, and closed."""

from tests.behaviours.voices import Voice
from twistedsock.errors import CloseReason
from twistedsock.testing import FakeServer


def as_a_stranger(voice: Voice, burst: int) -> None:
    """From now on one command a second, after so many at once."""
    voice.client.limit(commands_per_second=1, commands_burst=burst)


def test_the_excess_is_refused_and_nothing_else(server: FakeServer, publisher: Voice, reader: Voice) -> None:
    """Each command is answered in its place, and when time has passed all is well again."""
    reader.asks("subscribe", channel="a")
    as_a_stranger(publisher, 2)
    publisher.says_together(
        ("publish", {"channel": "a", "data": "one"}),
        ("nick", {"nick": "ann"}),
        ("publish", {"channel": "a", "data": "two"}),
        ("ping", {}),
    )
    answers = publisher.received()
    assert [answer["type"] for answer in answers] == ["ok", "ok", "error", "error"]
    assert {answer["code"] for answer in answers[2:]} == {"rate"}
    server.now += 1
    assert publisher.asks("publish", channel="a", data="three")["offset"] == 2
    assert [message["data"] for message in reader.received()] == ["one", "three"]


def test_who_goes_on_is_told_and_closed(server: FakeServer, publisher: Voice, reader: Voice) -> None:
    """As a matter of policy; the others hear nothing of it."""
    reader.asks("subscribe", channel="a")
    as_a_stranger(publisher, 2)
    publisher.says_together(*[("ping", {})] * 7)
    assert [message["type"] for message in publisher.received()] == ["pong", "pong", "error", "error", "notice"]
    assert publisher.client.close_reason is CloseReason.POLICY
    assert reader.received() == [] and reader.asks("ping")["type"] == "pong"
