"""All channels by name: pages, what may not be read, and others' turns while somebody looks."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.core.directory import SEEN_TOGETHER, Directory, Page, Search
from twistedsock.core.errors import FOR_ADMINS, Refusal
from twistedsock.core.events import Content
from twistedsock.core.limits import SHARE
from twistedsock.core.reader import Peer
from twistedsock.testing import Hall


def publish(hall: Hall, *names: bytes) -> None:
    for name in names:
        hall.broker.publish(Peer(b"p"), name, b"message", Content((b"xyz",), 3))
    hall.turn()


def nothing_forbidden(channel: bytes) -> Refusal | None:
    return None


def search(
    prefix: bytes = b"",
    after: bytes = b"",
    most: int = 100,
    forbids: Callable[[bytes], Refusal | None] = nothing_forbidden,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Search:
    return Search(prefix, after, most, forbids, is_wanted)


def pages_of(*searches: Search) -> list[Page]:
    """What has been found so far."""
    found: list[Page] = []
    for one in searches:
        one.page.then(lambda page: found.append(page) if isinstance(page, Page) else None)
    return found


def names(page: Page) -> list[bytes]:
    return [one.channel for one in page.channels]


def test_a_page_is_by_name_and_tells_where_the_next_begins() -> None:
    hall = Hall()
    publish(hall, b"b", b"a2", b"a1", b"a3", b"$sys/figures")
    hall.line_peer().says("SUB a1")
    directory = Directory(hall.broker)
    [page] = pages_of(_looked(directory, search(most=2)))
    assert names(page) == [b"a1", b"a2"] and (page.total, page.following) == (4, b"a2")
    first = page.channels[0]
    assert (first.readers, first.position.head, first.events, first.size) == (1, 1, 1, 3 + 240 + 48)
    [page] = pages_of(_looked(directory, search(after=b"a2", most=2)))
    assert names(page) == [b"a3", b"b"] and page.following is None
    [page] = pages_of(_looked(directory, search(prefix=b"a", after=b"a3")))
    assert names(page) == [] and (page.total, page.following) == (3, None)


def _looked(directory: Directory, one: Search) -> Search:
    directory.look(one)
    return one


def test_what_may_not_be_read_is_not_there() -> None:
    hall = Hall()
    publish(hall, b"a", b"b", b"c")
    looked = _looked(Directory(hall.broker), search(forbids=lambda name: FOR_ADMINS if name == b"b" else None))
    [page] = pages_of(looked)
    assert names(page) == [b"a", b"c"] and page.total == 2


def slow(hall: Hall) -> Callable[[bytes], Refusal | None]:
    """So that those that are seen together take a share of time."""

    def forbids(channel: bytes) -> Refusal | None:
        hall.now += 1.01 * SHARE / SEEN_TOGETHER
        return None

    return forbids


def test_a_long_list_is_looked_through_in_several_turns_one_after_the_other() -> None:
    hall = Hall()
    publish(hall, *(b"c%05d" % number for number in range(4 * SEEN_TOGETHER)))
    directory = Directory(hall.broker)
    first, second = search(most=3, forbids=slow(hall)), search(prefix=b"c0000", forbids=slow(hall))
    directory.look(first)
    directory.look(second)
    assert pages_of(first, second) == []
    publish(hall)  # turns until all has come to rest
    one, other = pages_of(first, second)
    assert names(one) == [b"c00000", b"c00001", b"c00002"] and one.total == 4 * SEEN_TOGETHER
    assert names(other) == [b"c%05d" % number for number in range(10)]


def test_each_turn_sees_about_a_share() -> None:
    hall = Hall()
    publish(hall, *(b"c%05d" % number for number in range(4 * SEEN_TOGETHER)))
    looked = _looked(Directory(hall.broker), search(forbids=slow(hall)))
    turns = 0
    while not pages_of(looked):
        began = hall.now
        hall.turns.step()
        assert hall.now - began <= 1.1 * SHARE
        turns += 1
    assert turns == 3


def test_what_nobody_waits_for_is_not_looked_for() -> None:
    hall = Hall()
    publish(hall, *(b"c%05d" % number for number in range(2 * SEEN_TOGETHER)))
    directory = Directory(hall.broker)
    waits = True
    first = _looked(directory, search(forbids=slow(hall)))
    second = _looked(directory, search(forbids=slow(hall), is_wanted=lambda: waits))
    waits = False
    hall.turn()
    assert len(pages_of(first)) == 1 and pages_of(second) == []


def test_a_channel_that_has_gone_meanwhile_is_not_shown() -> None:
    hall = Hall(history_age=1.0)
    publish(hall, *(b"c%05d" % number for number in range(2 * SEEN_TOGETHER)))
    looked = _looked(Directory(hall.broker), search(most=5, forbids=slow(hall)))
    del hall.broker.channels[b"c00002"]
    hall.turn()
    [page] = pages_of(looked)
    assert names(page) == [b"c00000", b"c00001", b"c00003", b"c00004"] and page.following == b"c00004"


@pytest.mark.parametrize("most", [1, 7])
@given(some=st.sets(st.text("abc", min_size=1, max_size=4).map(str.encode), max_size=30))
def test_page_by_page_one_sees_each_channel_once(most: int, some: set[bytes]) -> None:
    hall = Hall()
    publish(hall, *some)
    directory, after, seen = Directory(hall.broker), b"", []
    while True:
        [page] = pages_of(_looked(directory, search(after=after, most=most)))
        seen += names(page)
        assert page.total == len(some) and len(page.channels) <= most
        if page.following is None:
            break
        after = page.following
    assert seen == sorted(some)
