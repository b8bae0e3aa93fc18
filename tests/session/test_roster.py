"""Who is connected: ids are nobody else's, and the last to go is noticed."""

from typing import Any

import pytest

from twistedsock.pubsub.subscription import Client
from twistedsock.session.registry import SessionRegistry


class Somebody:
    """As much of a session as a roster looks at."""

    def __init__(self, id: bytes) -> None:
        self.client = Client(id)


def roster(*drawn: bytes) -> SessionRegistry:
    return SessionRegistry(iter(drawn).__next__)


def enter(roster: SessionRegistry) -> Any:
    somebody: Any = Somebody(roster.new_id())
    roster.add(somebody)
    return somebody


def test_an_id_is_drawn_again_while_somebody_has_it() -> None:
    here = roster(b"a", b"a", b"a", b"b")
    assert (here.new_id(), here.new_id()) == (b"a", b"b")


def test_an_id_is_free_again_when_its_owner_has_gone() -> None:
    here = roster(b"a", b"a")
    here.remove(enter(here))
    assert here.new_id() == b"a"


def test_whose_id_it_is_can_be_asked() -> None:
    here = roster(b"a")
    enter(here)
    assert b"a" in here and b"b" not in here


def test_only_those_who_have_arrived_are_walked_over() -> None:
    """An id is taken a moment before its session is there."""
    here = roster(b"a", b"b")
    somebody = enter(here)
    here.new_id()
    assert list(here) == [somebody] and len(here) == 2


def test_who_goes_during_a_walk_does_not_disturb_it() -> None:
    here = roster(b"a", b"b", b"c")
    everybody = [enter(here) for _ in range(3)]
    walked = []
    for somebody in here:
        walked.append(somebody)
        here.remove(somebody)
    assert walked == everybody and len(here) == 0


def test_the_last_to_go_is_noticed() -> None:
    here, calls = roster(b"a", b"b"), []
    first, second = enter(here), enter(here)
    here.when_empty(lambda: calls.append("empty"))
    here.remove(first)
    assert calls == []
    here.remove(second)
    assert calls == ["empty"]


def test_an_empty_roster_is_noticed_at_once() -> None:
    calls: list[str] = []
    roster().when_empty(lambda: calls.append("empty"))
    assert calls == ["empty"]


@pytest.mark.parametrize("times", [1, 2])
def test_who_goes_twice_is_gone_once(times: int) -> None:
    here = roster(b"a")
    somebody = enter(here)
    for _ in range(times):
        here.remove(somebody)
    assert len(here) == 0


def test_an_id_can_be_had_for_a_moment() -> None:
    ids = iter([b"a", b"a", b"b"])
    roster, emptied = SessionRegistry(lambda: next(ids)), list[int]()
    roster.new_id()
    assert b"a" in roster and roster.get(b"a") is None and list(roster) == []
    roster.when_empty(lambda: emptied.append(1))
    roster.give_back(b"a")
    assert emptied == [1] and b"a" not in roster
