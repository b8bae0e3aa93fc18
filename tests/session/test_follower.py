"""Who only reads what it was opened for."""

import itertools

from tests.event_streams import Stream
from twistedsock.errors import CloseReason
from twistedsock.testing import FakePolicy, FakeServer


def test_it_ends_where_it_may_not_read_on() -> None:
    """It has been told which channel it is."""
    hall = FakeServer(policy=FakePolicy({"*": "r"}))
    stream, other = Stream(hall, ["a", "b"]), Stream(hall, ["b"])
    hall.context.change_policy(FakePolicy({"b": "r"}))
    heard = stream.hears()
    assert [event.kind for event in heard] == ["welcome", "ok", "ok", "notice"]
    assert heard[-1].message["code"] == "forbidden" and heard[-1].message["channel"] == "a"
    assert stream.endings == [CloseReason.POLICY]
    assert not other.endings and list(hall.broker.channels) == [b"b"]


def test_it_ends_where_it_loses_one_channel_while_it_still_opens_others() -> None:
    """It must not go on with the others, as if it had been opened for those."""
    hall = FakeServer(policy=FakePolicy({"*": "r"}))
    clock = itertools.count(1000)
    hall.broker.clock = lambda: next(clock)  # each look at the clock is the end of a time slice
    stream = Stream(hall, ["a", "b", "c", "d"])
    hall.context.change_policy(FakePolicy({"b": "r", "c": "r", "d": "r"}))
    hall.turn()
    assert stream.endings == [CloseReason.POLICY] and not hall.broker.channels


def test_it_is_not_closed_once_more_if_its_client_goes_during_a_review() -> None:
    hall = FakeServer(policy=FakePolicy({"*": "r"}))
    stream = Stream(hall, ["a", "b"])
    clock = itertools.count(1000)
    hall.broker.clock = lambda: next(clock)  # each look at the clock is the end of a time slice
    hall.context.change_policy(FakePolicy({"a": "r", "b": "r"}))
    stream.session.lost()
    hall.turn()
    assert not stream.endings


def test_it_goes_on_where_nothing_is_taken_from_it() -> None:
    hall = FakeServer(policy=FakePolicy({"*": "r"}))
    stream = Stream(hall, ["a"])
    hall.context.change_policy(FakePolicy({"a": "r"}))
    assert not stream.endings and list(stream.session.subscriptions) == [b"a"]
