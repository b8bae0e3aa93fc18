"""The sum of all logs is kept, and bounded: who was written longest ago gives way, and what is too old goes."""

from tests.core.readers import channel, publish
from twistedsock.core.channel import Channel
from twistedsock.core.events import BATCH_COST, EVENT_COST
from twistedsock.core.limits import SHARE
from twistedsock.core.log_budget import SWEPT_TOGETHER, LogBudget

ALONE = BATCH_COST + EVENT_COST + 1
"""What an event of one byte costs that was published by itself."""


class Budget:
    """One under test, a clock, and which channels it has told to be unused."""

    def __init__(self, most: int) -> None:
        self.now = 0.0
        self.tick = 0.0
        self.unused: list[Channel] = []
        self.logs = LogBudget(most, self.clock, self.unused.append)

    def clock(self) -> float:
        self.now += self.tick
        return self.now

    def writes(self, written: Channel, *payloads: bytes) -> None:
        size = written.log.size
        self.logs.note_written(written)
        publish(written, *payloads, now=self.now)
        self.logs.account(written, size)


def test_the_sum_follows_what_is_written_and_let_go() -> None:
    budget, one, other = Budget(100 * ALONE), channel(), channel()
    budget.writes(one, b"a", b"b")
    budget.writes(other, b"c")
    assert budget.logs.size == 3 * ALONE == one.log.size + other.log.size
    budget.logs.empty(one)
    assert budget.logs.size == ALONE and len(one.log) == 0 and budget.unused == [one]


def test_the_log_that_was_written_longest_ago_gives_way() -> None:
    budget, first, second, third = Budget(3 * ALONE), channel(), channel(), channel()
    for written in (first, second, first):
        budget.writes(written, b"x")
    budget.writes(third, b"x")
    assert (len(first.log), len(second.log), len(third.log)) == (2, 0, 1)
    assert budget.unused == [second] and budget.logs.size == 3 * ALONE
    budget.writes(third, b"x")
    assert (len(first.log), len(third.log)) == (1, 2) and budget.unused == [second]


def test_a_log_that_is_empty_is_not_asked_to_give_way() -> None:
    budget, empty, full = Budget(2 * ALONE), channel(), channel()
    budget.writes(empty, b"x")
    budget.logs.empty(empty)
    budget.writes(full, b"x", b"y", b"z")
    assert len(full.log) == 2 and budget.unused == [empty]


def test_what_is_too_old_goes_when_it_is_looked_at() -> None:
    budget, old = Budget(100 * ALONE), channel(history_age=10.0)
    budget.writes(old, b"x")
    budget.logs.expire(old, 5.0)
    assert budget.logs.size == ALONE
    budget.logs.expire(old, 20.0)
    assert budget.logs.size == 0 and len(old.log) == 0


def test_a_sweep_of_many_takes_no_longer_than_a_share_at_a_time() -> None:
    budget, channels = Budget(10_000 * ALONE), [channel() for _ in range(3 * SWEPT_TOGETHER)]
    for each in channels:
        budget.writes(each, b"x")
    budget.now, budget.tick = 1_000.0, SHARE
    assert not budget.logs.sweep(channels)
    assert len(budget.unused) == SWEPT_TOGETHER
    assert not budget.logs.sweep_on()
    assert budget.logs.sweep_on()
    assert len(budget.unused) == 3 * SWEPT_TOGETHER and budget.logs.size == 0
    assert budget.logs.sweep([])
