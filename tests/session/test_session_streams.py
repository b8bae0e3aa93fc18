"""Tests of sessions that belong to an event stream, which has no commands."""

from tests.event_streams import Stream
from tests.fakes import Ticking
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.testing import FakePolicy, FakeServer


def test_closes_when_the_right_to_read_is_lost() -> None:
    """The notice before contains the channel."""
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    stream, other = Stream(server, ["a", "b"]), Stream(server, ["b"])
    server.context.change_policy(FakePolicy({"b": "r"}))
    heard = stream.received()
    assert [event.kind for event in heard] == ["welcome", "ok", "ok", "notice"]
    assert heard[-1].message["code"] == "forbidden" and heard[-1].message["channel"] == "a"
    assert stream.endings == [CloseReason.POLICY]
    assert not other.endings and list(server.broker.channels) == [b"b"]


def test_closes_when_one_channel_is_forbidden_while_others_are_opened() -> None:
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    server.clock = Ticking(TIME_SLICE_SECONDS)
    stream = Stream(server, ["a", "b", "c", "d"])
    server.context.change_policy(FakePolicy({"b": "r", "c": "r", "d": "r"}))
    server.turn()
    assert stream.endings == [CloseReason.POLICY] and not server.broker.channels


def test_is_closed_once_if_the_client_disconnects_during_a_recheck() -> None:
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    stream = Stream(server, ["a", "b"])
    server.clock = Ticking(TIME_SLICE_SECONDS)
    server.context.change_policy(FakePolicy({"a": "r", "b": "r"}))
    stream.session.connection_lost()
    server.turn()
    assert not stream.endings


def test_stays_open_if_the_new_policy_allows_its_channels() -> None:
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    stream = Stream(server, ["a"])
    server.context.change_policy(FakePolicy({"a": "r"}))
    assert not stream.endings and list(stream.session.subscriptions) == [b"a"]
