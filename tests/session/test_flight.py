"""The order of the replies to publishes under way."""

from twistedsock.errors import UNAVAILABLE
from twistedsock.session.replies import PendingReplies


def test_what_lands_in_order_is_told_at_once() -> None:
    flight = PendingReplies()
    first, second = flight.take_off([b"1"]), flight.take_off([b"2", b"3"])
    assert flight and flight.publishes == 3
    assert flight.land(first, 7) == [([b"1"], 7)]
    assert flight.land(second, 8) == [([b"2", b"3"], 8)]
    assert not flight and flight.publishes == 0 and not flight.has_overtaken()


def test_what_overtakes_waits_for_those_before_it() -> None:
    """Their replies come together, in the order of the commands."""
    flight = PendingReplies()
    first, second, third = (flight.take_off([tag]) for tag in (b"1", b"2", b"3"))
    assert flight.land(second, UNAVAILABLE) == []
    assert flight.has_overtaken() and flight.publishes == 3
    assert flight.land(first, 1) == [([b"1"], 1), ([b"2"], UNAVAILABLE)]
    assert not flight.has_overtaken() and flight.publishes == 1
    assert flight.land(third, 2) == [([b"3"], 2)]


def test_an_offset_of_zero_is_an_answer_too() -> None:
    flight = PendingReplies()
    assert flight.land(flight.take_off([None]), 0) == [([None], 0)]
    assert not flight and flight.publishes == 0
