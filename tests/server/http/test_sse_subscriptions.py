"""A stream gets all its channels, or it ends."""

import pytest

from tests.event_streams import Stream
from twistedsock.errors import CloseReason
from twistedsock.server.http.sse import INCOMPLETE
from twistedsock.session.replies import SessionState
from twistedsock.testing import FakeServer


def test_all_its_channels() -> None:
    server = FakeServer()
    stream = Stream(server, ["a", "b"])
    assert [event.kind for event in stream.received()] == ["welcome", "ok", "ok"]
    assert sorted(stream.session.subscriptions) == [b"a", b"b"]


@pytest.mark.parametrize("channels", [["a", "b"], ["b", "a"]])
def test_who_gets_not_all_is_told_why_and_ends(channels: list[str]) -> None:
    server = FakeServer(max_subscriptions_per_client=1)
    stream = Stream(server, channels)
    heard = stream.received()
    assert [event.kind for event in heard] == ["welcome", "ok", "error", "notice"]
    assert heard[2].message["code"] == "limit" and heard[3].message["text"] == INCOMPLETE.decode()
    assert stream.endings == [CloseReason.TRY_AGAIN] and stream.session.state is SessionState.CLOSING


def test_a_distant_backplane_answers_later() -> None:
    server = FakeServer(late=True)
    stream = Stream(server, ["a", "b"])
    assert [event.kind for event in stream.received()] == ["welcome"]
    server.backplane.release(1)
    server.turn()
    server.backplane.release()
    server.turn()
    assert [event.kind for event in stream.received()] == ["ok", "ok"]
    assert not stream.endings and server.context.memory_budget.used == 0


def test_a_backplane_that_does_not_answer() -> None:
    server = FakeServer(late=True)
    stream = Stream(server, ["a"])
    server.backplane.failing = 1
    server.backplane.release()
    assert [event.kind for event in stream.received()] == ["welcome", "error", "notice"]
    assert stream.endings == [CloseReason.TRY_AGAIN]


def test_who_goes_while_it_waits() -> None:
    server = FakeServer(late=True)
    stream = Stream(server, ["a", "b"])
    stream.session.connection_lost()
    server.backplane.release()
    server.turn()
    server.broker.expire_histories()
    assert stream.session.state is SessionState.CLOSED and not server.broker.channels


def test_a_fault_of_ours_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()

    def fail(name: bytes) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(server.broker, "open", fail)
    stream = Stream(server, ["a"])
    assert [event.kind for event in stream.received()] == ["welcome", "error", "notice"]
    assert len(stream.faults) == 1
