"""Events and members: frozen, cheap for the garbage collector, and what they cost."""

import gc

import pytest

from twistedsock.core.events import EVENT_COST, Event, Member, PresenceChange, cost

EVENT = Event(1, b"p1", b"ann", b"message", b"21.5", False)
MEMBER = Member(b"p1", b"ann")


@pytest.mark.parametrize(
    "value, field", [(EVENT, "offset"), (MEMBER, "nick"), (PresenceChange(MEMBER, True), "joined")]
)
def test_what_travels_is_frozen(value: object, field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(value, field, None)


def test_events_are_no_work_for_the_garbage_collector() -> None:
    """A log of many events would be walked again and again otherwise."""
    assert not gc.is_tracked(EVENT)


@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_an_event_costs_its_payload_and_its_bookkeeping(size: int) -> None:
    assert cost(Event(1, b"p1", b"ann", b"message", b"x" * size, False)) == size + EVENT_COST
