"""The total limit of all histories."""

import random

import pytest

from tests.pubsub.helpers import await_flush, channel, subscribe, subscriber
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.history_budget import CHANNELS_PER_STEP, MAX_SEARCHED_CHANNELS, HistoryBudget
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, ChannelState, Position
from twistedsock.stats import Stats

ALONE = BATCH_COST + EVENT_COST + 1
"""What an event of one byte costs that was published by itself."""


class Budget:
    """A budget, a clock, and the channels that were reported as unused."""

    def __init__(self, limit: int) -> None:
        self.now = 0.0
        self.unused: list[Channel] = []
        self.histories = HistoryBudget(limit, lambda: self.now, self.unused.append)

    def writes(self, written: Channel, *payloads: bytes) -> None:
        for payload in payloads:
            await_flush(written, payload)
        written.deliver(self.histories.prepare_delivery(written, self.now))


def test_size_follows_appended_and_cleared_events() -> None:
    budget, one, other = Budget(100 * ALONE), channel(), channel()
    budget.writes(one, b"a", b"b")
    budget.writes(other, b"c")
    assert budget.histories.size == 3 * ALONE == one.history.size + other.history.size
    budget.histories.clear(one)
    assert budget.histories.size == ALONE and len(one.history) == 0 and budget.unused == [one]


def test_least_recently_written_history_is_shortened() -> None:
    budget, first, second, third = Budget(3 * ALONE), channel(), channel(), channel()
    for written in (first, second, first):
        budget.writes(written, b"x")
    budget.writes(third, b"x")
    assert (len(first.history), len(second.history), len(third.history)) == (2, 0, 1)
    assert budget.unused == [second] and budget.histories.size == 3 * ALONE
    budget.writes(third, b"x")
    assert (len(first.history), len(third.history)) == (1, 2) and budget.unused == [second]


def test_empty_history_is_not_shortened() -> None:
    budget, empty, full = Budget(2 * ALONE), channel(), channel()
    budget.writes(empty, b"x")
    budget.histories.clear(empty)
    budget.writes(full, b"x", b"y", b"z")
    assert len(full.history) == 2 and budget.unused == [empty]


def test_expires_old_events_of_a_channel() -> None:
    budget, old = Budget(100 * ALONE), channel(history_age=10.0)
    budget.writes(old, b"x")
    budget.histories.expire(old, 5.0)
    assert budget.histories.size == ALONE
    budget.histories.expire(old, 20.0)
    assert budget.histories.size == 0 and len(old.history) == 0


def test_expires_all_channels_in_steps() -> None:
    budget, channels = Budget(10_000 * ALONE), [channel() for _ in range(3 * CHANNELS_PER_STEP)]
    for each in channels:
        budget.writes(each, b"x")
    budget.now = 1_000.0
    expired = [len(budget.unused) for _ in budget.histories.expire_all(channels)]
    assert expired == [CHANNELS_PER_STEP, 2 * CHANNELS_PER_STEP]
    assert len(budget.unused) == 3 * CHANNELS_PER_STEP and budget.histories.size == 0
    assert list(budget.histories.expire_all([])) == []


A, B, C = b"@192.0.2.1", b"@192.0.2.2", b"=carol"


def owned(owner: bytes) -> Channel:
    made = channel()
    made.owner = owner
    return made


def test_owner_with_the_largest_histories_loses_events() -> None:
    budget = Budget(10 * ALONE)
    quiet, flooded = owned(B), [owned(A) for _ in range(4)]
    budget.writes(quiet, *[b"x"] * 3)
    for _ in range(5):
        for each in flooded:
            budget.writes(each, b"x")
    assert len(quiet.history) == 3, "it was written longest ago, but its owner has less than its share"
    assert sum(len(each.history) for each in flooded) == 7 and budget.histories.size == 10 * ALONE


def test_two_greedy_owners_get_half_each() -> None:
    budget = Budget(100 * ALONE)
    first, second = owned(A), owned(B)
    for _ in range(100):
        budget.writes(first, b"x")
    for _ in range(100):
        budget.writes(second, b"x")
    assert (len(first.history), len(second.history)) == (50, 50)


def test_owner_loses_only_what_exceeds_its_share() -> None:
    budget = Budget(100 * ALONE)
    first, second = owned(A), owned(B)
    budget.writes(first, *[b"x"] * 60)
    budget.writes(second, *[b"x"] * 40)
    budget.writes(second, *[b"x"] * 100)
    assert (len(first.history), len(second.history)) == (50, 50)


def test_an_owner_alone_can_use_the_whole_limit() -> None:
    budget = Budget(100 * ALONE)
    alone = [owned(A) for _ in range(4)]
    for number in range(1_000):
        budget.writes(alone[number % 4], b"x")
    assert budget.histories.size == 100 * ALONE


@pytest.mark.parametrize("seed", range(10))
def test_owner_below_its_share_loses_nothing(seed: int) -> None:
    """Each modest owner keeps ten events; what greedy owners write costs a hundred times as much."""
    chance, budget = random.Random(seed), Budget(1_000 * ALONE)
    modest = [owned(b"@%d" % number) for number in range(20)]
    greedy = [owned(b"=%d" % number) for number in range(chance.randrange(1, 30)) for _ in range(5)]
    expected = dict.fromkeys(modest, 0)
    for _ in range(5_000):
        if chance.random() < 0.05:
            written = chance.choice(modest)
            if expected[written] < 10:
                budget.writes(written, b"x")
                expected[written] += 1
            elif chance.random() < 0.5:
                budget.histories.clear(written)
                expected[written] = 0
        else:
            budget.writes(chance.choice(greedy), b"x" * chance.randrange(300))
        assert {each: len(each.history) for each in modest} == expected
    assert budget.histories.size > 990 * ALONE, "the limit was reached"
    assert budget.histories.size == sum(each.history.size for each in (*modest, *greedy)) <= 1_000 * ALONE


def test_history_moves_with_the_owner() -> None:
    budget = Budget(10 * ALONE)
    moved, kept, others = owned(A), owned(A), owned(B)
    for written in (moved, kept):
        budget.writes(written, *[b"x"] * 3)
    budget.histories.change_owner(moved, B)
    assert moved.owner == B and budget.histories.size == 6 * ALONE
    budget.writes(others, *[b"x"] * 6)
    assert (len(moved.history), len(others.history), len(kept.history)) == (1, 6, 3)


def test_an_empty_channel_can_change_its_owner() -> None:
    budget, empty = Budget(10 * ALONE), owned(A)
    budget.histories.change_owner(empty, B)
    budget.writes(empty, b"x")
    assert empty.owner == B and budget.histories.size == ALONE and budget.histories.find_history_only(B) is empty


def test_finds_the_least_recently_written_channel_without_subscriptions() -> None:
    budget, waited_for, read, unread, newest = Budget(10 * ALONE), owned(A), owned(A), owned(A), owned(A)
    for each in (waited_for, read, unread, newest, unread):
        budget.writes(each, b"x")
    waited_for.waiters = {lambda: None: None}
    subscribe(read, subscriber(b"p1"))
    assert budget.histories.find_history_only(A) is newest
    budget.writes(newest, b"x")
    assert budget.histories.find_history_only(A) is unread
    await_flush(unread, b"y")
    assert budget.histories.find_history_only(A) is newest
    assert budget.histories.find_history_only(B) is None


def test_next_search_continues_behind_used_channels() -> None:
    budget, read = Budget(1_000 * ALONE), [owned(A) for _ in range(MAX_SEARCHED_CHANNELS)]
    unread = owned(A)
    for number, each in enumerate(read):
        budget.writes(each, b"x")
        subscribe(each, subscriber(b"p%d" % number))
    budget.writes(unread, b"x")
    assert budget.histories.find_history_only(A) is None
    assert budget.histories.find_history_only(A) is unread


def test_reserved_channels_are_never_found() -> None:
    budget, own = Budget(10 * ALONE), Channel(b"$sys/figures", ChannelState(Position(b"e1", 0)), Limits(), Stats(), A)
    budget.writes(own, b"x")
    assert budget.histories.find_history_only(A) is None
