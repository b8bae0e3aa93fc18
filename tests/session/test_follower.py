"""Who only reads what it was opened for."""

import itertools

from tests.event_streams import Stream
from twistedsock.errors import CloseReason
from twistedsock.testing import FakePolicy, FakeServer


def test_it_ends_where_it_may_not_read_on() -> None:
    """It has been told which channel it is."""
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    stream, other = Stream(server, ["a", "b"]), Stream(server, ["b"])
    server.context.change_policy(FakePolicy({"b": "r"}))
    heard = stream.received()
    assert [event.kind for event in heard] == ["welcome", "ok", "ok", "notice"]
    assert heard[-1].message["code"] == "forbidden" and heard[-1].message["channel"] == "a"
    assert stream.endings == [CloseReason.POLICY]
    assert not other.endings and list(server.broker.channels) == [b"b"]


def test_it_ends_where_it_loses_one_channel_while_it_still_opens_others() -> None:
    """It must not go on with the others, as if it had been opened for those."""
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    clock = itertools.count(1000)
    server.clock = lambda: next(clock)  # each look at the clock is the end of a time slice
    stream = Stream(server, ["a", "b", "c", "d"])
    server.context.change_policy(FakePolicy({"b": "r", "c": "r", "d": "r"}))
    server.turn()
    assert stream.endings == [CloseReason.POLICY] and not server.broker.channels


def test_it_is_not_closed_once_more_if_its_client_goes_during_a_review() -> None:
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    stream = Stream(server, ["a", "b"])
    clock = itertools.count(1000)
    server.clock = lambda: next(clock)  # each look at the clock is the end of a time slice
    server.context.change_policy(FakePolicy({"a": "r", "b": "r"}))
    stream.session.connection_lost()
    server.turn()
    assert not stream.endings


def test_it_goes_on_where_nothing_is_taken_from_it() -> None:
    server = FakeServer(policy=FakePolicy({"*": "r"}))
    stream = Stream(server, ["a"])
    server.context.change_policy(FakePolicy({"a": "r"}))
    assert not stream.endings and list(stream.session.subscriptions) == [b"a"]
