"""The list of channels: pages, rights, and time slices of searches."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.auth.identity import grants
from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.channel_index import (
    MAX_STARTED_SEARCHES,
    NAMES_PER_STEP,
    ChannelIndex,
    ChannelQuery,
    Selection,
)
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Page, Payloads, Publication
from twistedsock.testing import FakeServer


def publish(server: FakeServer, *names: bytes) -> None:
    for name in names:
        server.broker.publish(Client(b"p"), Publication(name, Payloads((b"xyz",), 3), b"message"))
    server.turn()


def search(
    prefix: bytes = b"",
    after: bytes = b"",
    limit: int = 100,
    readable: Selection | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    principal: Principal = LOCAL,
) -> ChannelQuery:
    return ChannelQuery(prefix, after, limit, principal, readable, is_wanted)


def pages_of(*searches: ChannelQuery) -> list[Page]:
    """The results so far."""
    found: list[Page] = []
    for one in searches:
        one.page.then(lambda page: found.append(page) if isinstance(page, Page) else None)
    return found


def names(page: Page) -> list[bytes]:
    return [one.channel for one in page.channels]


def test_page_is_sorted_and_links_the_next_page() -> None:
    server = FakeServer()
    publish(server, b"b", b"a2", b"a1", b"a3", b"$sys/figures")
    server.line_client().send("SUB a1")
    directory = ChannelIndex(server.broker)
    [page] = pages_of(_looked(directory, search(limit=2)))
    assert names(page) == [b"a1", b"a2"] and (page.total, page.following) == (4, b"a2")
    first = page.channels[0]
    assert (first.readers, first.position.offset, first.events, first.size) == (1, 1, 1, 3 + 280 + 48)
    [page] = pages_of(_looked(directory, search(after=b"a2", limit=2)))
    assert names(page) == [b"a3", b"b"] and page.following is None
    [page] = pages_of(_looked(directory, search(prefix=b"a", after=b"a3")))
    assert names(page) == [] and (page.total, page.following) == (3, None)


def _looked(directory: ChannelIndex, one: ChannelQuery) -> ChannelQuery:
    directory.search(one)
    return one


def test_page_omits_unreadable_channels() -> None:
    server = FakeServer()
    publish(server, b"a", b"b", b"c")
    looked = _looked(ChannelIndex(server.broker), search(readable=grants({"a": "r", "b": "w", "c*": "r"}).readable()))
    [page] = pages_of(looked)
    assert names(page) == [b"a", b"c"] and page.total == 2


class Slow:
    """All channels; it takes ``shares`` time slices to look at those that are seen together, and as long to compile
    each of ``parts``. It counts its steps."""

    def __init__(self, server: FakeServer, shares: float = 1.01, parts: int = 0) -> None:
        self._hall = server
        self._shares = shares
        self._parts = parts
        self.steps = 0

    def compile_some(self) -> bool:
        if self._parts:
            self._parts -= 1
            self._step()
        return not self._parts

    def select(self, channels: list[bytes]) -> list[bytes]:
        self._step()
        return channels

    def _step(self) -> None:
        self.steps += 1
        self._hall.now += self._shares * TIME_SLICE_SECONDS


def slow(server: FakeServer) -> Slow:
    return Slow(server)


def test_long_search_takes_several_turns_and_the_next_one_waits() -> None:
    server = FakeServer()
    publish(server, *(b"c%05d" % number for number in range(4 * NAMES_PER_STEP)))
    directory = ChannelIndex(server.broker)
    first, second = search(limit=3, readable=slow(server)), search(prefix=b"c0000", readable=slow(server))
    directory.search(first)
    directory.search(second)
    assert pages_of(first, second) == []
    publish(server)  # turns until all has come to rest
    one, other = pages_of(first, second)
    assert names(one) == [b"c00000", b"c00001", b"c00002"] and one.total == 4 * NAMES_PER_STEP
    assert names(other) == [b"c%05d" % number for number in range(10)]


def test_each_turn_searches_for_one_time_slice() -> None:
    server = FakeServer()
    publish(server, *(b"c%05d" % number for number in range(4 * NAMES_PER_STEP)))
    looked = _looked(ChannelIndex(server.broker), search(readable=slow(server)))
    turns = 0
    while not pages_of(looked):
        began = server.now
        server.turns.step()
        assert server.now - began <= 1.1 * TIME_SLICE_SECONDS
        turns += 1
    assert turns == 3


def test_unwanted_search_is_dropped() -> None:
    server = FakeServer()
    publish(server, *(b"c%05d" % number for number in range(2 * NAMES_PER_STEP)))
    directory = ChannelIndex(server.broker)
    waits = True
    first = _looked(directory, search(readable=slow(server)))
    second = _looked(directory, search(readable=slow(server), is_wanted=lambda: waits))
    waits = False
    server.turn()
    assert len(pages_of(first)) == 1 and pages_of(second) == []


def test_page_omits_channels_closed_during_the_search() -> None:
    server = FakeServer(history_age=1.0)
    publish(server, *(b"c%05d" % number for number in range(2 * NAMES_PER_STEP)))
    looked = _looked(ChannelIndex(server.broker), search(limit=5, readable=slow(server)))
    del server.broker.channels[b"c00002"]
    server.turn()
    [page] = pages_of(looked)
    assert names(page) == [b"c00000", b"c00001", b"c00003", b"c00004"] and page.following == b"c00004"


def test_patterns_are_compiled_in_time_slices() -> None:
    server = FakeServer()
    publish(server, b"a")
    looked = _looked(ChannelIndex(server.broker), search(readable=Slow(server, parts=3)))
    turns = 0
    while not pages_of(looked):
        server.turns.step()
        turns += 1
    assert turns == 3


def many(server: FakeServer) -> None:
    """Channels for a search of 20 steps."""
    publish(server, *(b"c%05d" % number for number in range(20 * NAMES_PER_STEP)))


def test_cheap_search_takes_turns_with_expensive_ones() -> None:
    server = FakeServer()
    many(server)
    directory = ChannelIndex(server.broker)
    expensive = [Slow(server) for _ in range(6)]
    for number, readable in enumerate(expensive):
        directory.search(search(readable=readable, principal=b"=%d" % number))
    for _ in range(12):
        server.turns.step()
    cheap = Slow(server, 0.1)
    before = sum(one.steps for one in expensive)
    looked = _looked(directory, search(readable=cheap, principal=b"=cheap"))
    while not pages_of(looked):
        server.turns.step()
    assert cheap.steps == 20
    # One more is in the rest of the slice in which it ended.
    assert sum(one.steps for one in expensive) - before <= 2 * len(expensive) + 1
    server.turn()
    assert [one.steps for one in expensive] == [20] * 6


def test_a_client_has_one_search_at_a_time() -> None:
    """Its six share the turns of one, so that one of another client has every second slice."""
    server = FakeServer()
    many(server)
    directory = ChannelIndex(server.broker)
    mine = [Slow(server) for _ in range(6)]
    for readable in mine:
        directory.search(search(readable=readable, principal=b"=ann"))
    other = Slow(server)
    looked = _looked(directory, search(readable=other, principal=b"=bob"))
    while not pages_of(looked):
        server.turns.step()
    assert other.steps == 20
    assert sum(one.steps for one in mine) in (20, 21) and not any(one.steps for one in mine[2:])
    server.turn()
    assert [one.steps for one in mine] == [20] * 6


def test_starts_a_limited_number_of_searches() -> None:
    server = FakeServer()
    many(server)
    directory = ChannelIndex(server.broker)
    several = [Slow(server) for _ in range(MAX_STARTED_SEARCHES + 5)]
    searches = [search(readable=one, principal=b"=%d" % number) for number, one in enumerate(several)]
    for one in searches:
        directory.search(one)
    for _ in range(3 * MAX_STARTED_SEARCHES):
        server.turns.step()
    assert [one.steps > 0 for one in several] == [True] * MAX_STARTED_SEARCHES + [False] * 5
    server.turn()
    assert len(pages_of(*searches)) == len(searches)


def test_search_started_by_a_result_runs_in_its_turn() -> None:
    server = FakeServer()
    publish(server, b"a", b"b")
    directory, found = ChannelIndex(server.broker), []
    first, second = search(limit=1), search(after=b"a")
    first.page.then(lambda page: directory.search(second).then(found.append))
    directory.search(first)
    [page] = found
    assert isinstance(page, Page) and names(page) == [b"b"]


def test_exception_in_a_callback_does_not_stop_other_searches() -> None:
    server = FakeServer()
    many(server)
    directory = ChannelIndex(server.broker)
    faulty, other = search(readable=Slow(server)), search(readable=Slow(server), principal=b"=ann")
    faulty.page.then(lambda page: 1 // 0)
    for one in (faulty, other):
        directory.search(one)
    with pytest.raises(ZeroDivisionError):
        server.turn()
    server.turn()
    assert len(pages_of(other)) == 1


@pytest.mark.parametrize("limit", [1, 7])
@given(some=st.sets(st.text("abc", min_size=1, max_size=4).map(str.encode), max_size=30))
def test_pages_show_each_channel_once(limit: int, some: set[bytes]) -> None:
    server = FakeServer()
    publish(server, *some)
    directory, after, seen = ChannelIndex(server.broker), b"", []
    while True:
        [page] = pages_of(_looked(directory, search(after=after, limit=limit)))
        seen += names(page)
        assert page.total == len(some) and len(page.channels) <= limit
        if page.following is None:
            break
        after = page.following
    assert seen == sorted(some)


def test_failed_search_does_not_block_the_next_one() -> None:
    class Failing:
        def compile_some(self) -> bool:
            raise ZeroDivisionError

        def select(self, channels: list[bytes]) -> list[bytes]:
            return channels

    server = FakeServer()
    publish(server, b"a")
    directory = ChannelIndex(server.broker)
    with pytest.raises(ZeroDivisionError):
        directory.search(search(readable=Failing()))
    [page] = pages_of(_looked(directory, search()))
    assert names(page) == [b"a"]
