"""A stream gets all its channels, or it ends."""

import pytest

from tests.event_streams import Stream
from twistedsock.errors import CloseReason
from twistedsock.server.http.sse import NOT_ALL
from twistedsock.session.replies import SessionState
from twistedsock.testing import FakeServer


def test_all_its_channels() -> None:
    hall = FakeServer()
    stream = Stream(hall, ["a", "b"])
    assert [event.kind for event in stream.hears()] == ["welcome", "ok", "ok"]
    assert sorted(stream.session.subscriptions) == [b"a", b"b"]


@pytest.mark.parametrize("channels", [["a", "b"], ["b", "a"]])
def test_who_gets_not_all_is_told_why_and_ends(channels: list[str]) -> None:
    hall = FakeServer(max_channels_per_peer=1)
    stream = Stream(hall, channels)
    heard = stream.hears()
    assert [event.kind for event in heard] == ["welcome", "ok", "error", "notice"]
    assert heard[2].message["code"] == "limit" and heard[3].message["text"] == NOT_ALL.decode()
    assert stream.endings == [CloseReason.TRY_AGAIN] and stream.session.state is SessionState.CLOSING


def test_a_distant_backplane_answers_later() -> None:
    hall = FakeServer(late=True)
    stream = Stream(hall, ["a", "b"])
    assert [event.kind for event in stream.hears()] == ["welcome"]
    hall.backplane.release(1)
    hall.turn()
    hall.backplane.release()
    hall.turn()
    assert [event.kind for event in stream.hears()] == ["ok", "ok"]
    assert not stream.endings and hall.context.memory_budget.held == 0


def test_a_backplane_that_does_not_answer() -> None:
    hall = FakeServer(late=True)
    stream = Stream(hall, ["a"])
    hall.backplane.failing = 1
    hall.backplane.release()
    assert [event.kind for event in stream.hears()] == ["welcome", "error", "notice"]
    assert stream.endings == [CloseReason.TRY_AGAIN]


def test_who_goes_while_it_waits() -> None:
    hall = FakeServer(late=True)
    stream = Stream(hall, ["a", "b"])
    stream.session.lost()
    hall.backplane.release()
    hall.turn()
    hall.broker.sweep()
    assert stream.session.state is SessionState.CLOSED and not hall.broker.channels


def test_a_fault_of_ours_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = FakeServer()

    def fail(name: bytes) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(hall.broker, "open", fail)
    stream = Stream(hall, ["a"])
    assert [event.kind for event in stream.hears()] == ["welcome", "error", "notice"]
    assert len(stream.faults) == 1
