"""Rate limits: bursts, rates, excess, and the pool of limiters."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.rate import (
    EXAMINED_RATE_LIMITERS,
    Decision,
    RateLimiter,
    RateLimiterPool,
    TokenBucket,
    answer_price,
    max_rate_limiters,
    member_price,
    rename_price,
    rights_price,
    search_price,
    token_price,
)
from twistedsock.limits.settings import Limits

ALLOW, REJECT, DISCONNECT = Decision.ALLOW, Decision.REJECT, Decision.DISCONNECT


def meter(commands: float = 0, commands_burst: int = 1, bytes: float = 0, bytes_burst: int = 1) -> RateLimiter:
    limits = Limits(
        commands_per_second=commands,
        commands_burst=commands_burst,
        bytes_per_second=bytes,
        bytes_burst=bytes_burst,
    )
    return RateLimiter(limits, 0.0)


def test_allows_a_burst_then_the_rate() -> None:
    """A bucket is full at first, and gets its rate."""
    bucket = TokenBucket(2.0, 3, 10.0)
    assert [bucket.try_spend(1, 10.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.try_spend(1, 10.5) for _ in range(2)] == [True, False]
    assert [bucket.try_spend(1, 1000.0) for _ in range(4)] == [True, True, True, False]


def test_batch_is_paid_afterwards() -> None:
    bucket = TokenBucket(2.0, 3, 0.0)
    assert bucket.try_spend(7, 0.0)
    assert not bucket.try_spend(1, 2.0)
    assert bucket.try_spend(1, 2.5)


def test_rate_of_zero_is_unlimited() -> None:
    bucket = TokenBucket(0, 1, 0.0)
    assert all(bucket.try_spend(10**9, 1.0) for _ in range(9)) and bucket._level == inf


def test_clock_that_goes_back_changes_nothing() -> None:
    bucket = TokenBucket(1.0, 2, 1000.0)
    assert bucket.try_spend(2, 1000.0)
    assert not bucket.try_spend(1, 10.0)
    assert bucket.try_spend(1, 11.0)


def test_rejects_the_excess_then_disconnects() -> None:
    """Commands: as many are refused as were run, then it is enough."""
    peer = meter(commands=10, commands_burst=3)
    peer.count_bytes(1, 0.0)
    assert [peer.check(1, ALLOW) for _ in range(8)] == [ALLOW] * 3 + [REJECT] * 3 + [DISCONNECT] * 2


def test_rejects_commands_in_too_many_bytes() -> None:
    """Then even what follows is, until there was a pause."""
    peer = meter(bytes=10, bytes_burst=100)
    verdicts = []
    for _ in range(5):
        verdicts.append(peer.check(1, peer.count_bytes(60, 0.0)))
    assert verdicts == [ALLOW, ALLOW, REJECT, REJECT, DISCONNECT]
    assert peer.check(1, peer.count_bytes(1, 2.5)) is ALLOW


def test_disconnects_for_far_too_many_bytes() -> None:
    """Though no command is among them."""
    peer = meter(bytes=10, bytes_burst=100)
    assert [peer.count_bytes(100, 0.0) for _ in range(3)] == [ALLOW, REJECT, DISCONNECT]


PACES = st.tuples(st.integers(1, 50), st.integers(1, 100))
# A pause, the bytes of a read, the commands in it: each a cost.
READS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 60), st.lists(st.integers(1, 20), max_size=8)), min_size=1, max_size=40
)


@given(PACES, PACES, READS)
def test_never_allows_more_than_burst_and_rate(
    commands: tuple[int, int], sizes: tuple[int, int], reads: list[tuple[float, int, list[int]]]
) -> None:
    peer = meter(*commands, *sizes)
    now = 0.0
    run: list[tuple[float, int]] = []
    taken: list[tuple[float, int]] = []
    refused: list[tuple[float, int]] = []
    for pause, size, costs in reads:
        now += pause
        read = peer.count_bytes(size, now)
        if read is ALLOW:
            taken.append((now, size))
        for cost in costs:
            verdict = peer.check(cost, read)
            if verdict is not DISCONNECT:
                (run if verdict is ALLOW else refused).append((now, cost))
    for (rate, burst), passed, debt in ((commands, run, 20), (sizes, taken, 60), (commands, refused, 20)):
        for index, (start, _) in enumerate(passed):
            total = 0
            for at, cost in passed[index:]:
                total += cost
                assert total <= burst + rate * (at - start) + debt + 1e-6


@given(PACES, PACES, READS)
def test_never_rejects_a_client_within_its_rate(
    commands: tuple[int, int], sizes: tuple[int, int], reads: list[tuple[float, int, list[int]]]
) -> None:
    """It waits until there is room for what it sends."""
    peer = meter(*commands, *sizes)
    (rate, burst), (speed, room) = commands, sizes
    now, tokens, space = 0.0, float(burst), float(room)
    for pause, size, costs in reads:
        size, costs = min(size, room), [min(cost, burst) for cost in costs][:1]
        wait = max(pause, (size - space) / speed, (sum(costs) - tokens) / rate) + 1e-6
        now += wait
        tokens, space = min(burst, tokens + rate * wait) - sum(costs), min(room, space + speed * wait) - size
        assert peer.count_bytes(size, now) is ALLOW
        assert all(peer.check(cost, ALLOW) is ALLOW for cost in costs)


def test_charges_the_cost_of_a_reply_afterwards() -> None:
    peer = meter(commands=1, commands_burst=10)
    peer.charge(15)
    assert peer.check(1, ALLOW) is REJECT and peer.retry_after == 5
    peer.charge(10)
    assert peer.retry_after == 15
    peer.charge(-100)
    assert [peer.check(10, ALLOW), peer.check(1, ALLOW)] == [ALLOW, REJECT]


LIMITS = Limits(max_connections=1)


def address(number: int) -> Principal:
    return b"@198.%d.%d.%d" % (number >> 16, number >> 8 & 255, number & 255)


def full_of(price: float) -> RateLimiterPool:
    """All meters that there is room for, the first of them the oldest, each charged that much."""
    meters = RateLimiterPool(LIMITS)
    for number in range(max_rate_limiters(LIMITS)):
        charge(meters, number, price)
    assert len(meters) == max_rate_limiters(LIMITS)
    return meters


def charge(meters: RateLimiterPool, number: int, price: float) -> None:
    meter = meters.get(address(number), 0.0)
    assert meter is not None
    meter.charge(price)


def is_new(meters: RateLimiterPool, number: int, now: float) -> bool:
    """Whether a principal has a full burst."""
    meter = meters.get(address(number), now)
    return meter is not None and meter.recovery(now) == 0


def test_principal_has_one_limiter() -> None:
    meters = RateLimiterPool(LIMITS)
    meter = meters.get(b"=ann", 0.0)
    assert meter is not None and meters.get(b"=ann", 9.0) is meter
    assert meters.get(b"@192.0.2.1", 0.0) is not meter
    assert len(meters) == 2


def test_local_clients_are_not_limited() -> None:
    assert RateLimiterPool(LIMITS).get(LOCAL, 0.0) is None


def test_nothing_is_limited_without_a_rate() -> None:
    meters = RateLimiterPool(Limits(commands_per_second=0, bytes_per_second=0))
    assert meters.get(b"@192.0.2.1", 0.0) is None
    assert len(meters) == 0


def test_keeps_a_limiter_for_each_connection() -> None:
    assert max_rate_limiters(Limits(max_connections=50_000)) == 50_000
    assert max_rate_limiters(LIMITS) == 10_000


def test_drops_recovered_limiters_first() -> None:
    meters = full_of(20_000)
    charge(meters, 3, -20_000)
    for number in (*range(3), *range(4, EXAMINED_RATE_LIMITERS)):
        charge(meters, number, 0)  # the fourth is among the oldest
    meters.get(b"@203.0.113.1", 0.0)
    assert len(meters) == max_rate_limiters(LIMITS)
    assert not any(is_new(meters, number, 0.0) for number in range(EXAMINED_RATE_LIMITERS) if number != 3)


def test_drops_the_limiter_that_recovers_first() -> None:
    meters = full_of(20_000)
    charge(meters, 5, -1_000)
    for number in range(max_rate_limiters(LIMITS)):  # as old as before
        charge(meters, number, 0)
    meters.get(b"@203.0.113.1", 0.0)
    assert [is_new(meters, number, 0.0) for number in range(8)] == [number == 5 for number in range(8)]


def test_search_continues_behind_limiters_in_debt() -> None:
    meters = full_of(1)
    debtors = range(EXAMINED_RATE_LIMITERS - 1)
    for number in debtors:
        charge(meters, number, 100_000)
    for number in range(len(debtors), max_rate_limiters(LIMITS)):
        charge(meters, number, 0)
    for number in range(3_000):
        meters.get(b"@203.0.113.%d" % number, 10.0)
    assert not any(is_new(meters, number, 10.0) for number in debtors)


def test_active_client_keeps_its_limiter() -> None:
    """Although it would be the first to recover."""
    meters = full_of(20_000)
    charge(meters, 0, -1_000)
    meters.get(b"@203.0.113.1", 0.0)
    assert not is_new(meters, 0, 0.0)


def test_commands_get_the_decision_of_their_bytes() -> None:
    """A meter that two connections share has read something else meanwhile."""
    meter = RateLimiter(Limits(bytes_per_second=10, bytes_burst=10), 0.0)
    first, second = meter.count_bytes(11, 0.0), meter.count_bytes(1, 0.0)
    assert (first, second) == (Decision.ALLOW, Decision.REJECT)
    assert meter.check(1, first) is Decision.ALLOW
    assert meter.check(1, second) is Decision.REJECT


def test_retry_after_is_the_time_to_wait() -> None:
    meter = RateLimiter(Limits(bytes_per_second=10, bytes_burst=10, commands_per_second=0), 0.0)
    assert meter.retry_after == 1
    meter.count_bytes(55, 0.0)
    assert meter.retry_after == 5
    assert meter.count_bytes(1, 4.4) is not Decision.ALLOW
    meter = RateLimiter(Limits(bytes_per_second=0, commands_per_second=2, commands_burst=1), 0.0)
    meter.check(6, meter.count_bytes(1, 0.0))
    assert meter.retry_after == 3


def test_prices_of_work() -> None:
    assert answer_price(8192) == 2
    assert member_price(1_000) == 10
    assert rename_price(100) == 2
    assert rights_price(100, 4) == 4
    assert token_price(1024) == 3
    assert [search_price(99, 0), search_price(1_000, 0), search_price(1_000, 10)] == [0, 10, 50]
