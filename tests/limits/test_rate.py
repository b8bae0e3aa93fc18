"""How fast a peer may go: a burst, then a pace; the excess is refused, and who goes on with it is closed."""

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
    max_rate_limiters,
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


def test_a_burst_passes_then_a_pace() -> None:
    """A bucket is full at first, and gets its rate."""
    bucket = TokenBucket(2.0, 3, 10.0)
    assert [bucket.try_spend(1) for _ in range(4)] == [True, True, True, False]
    bucket.refill(10.5)
    assert [bucket.try_spend(1) for _ in range(2)] == [True, False]
    bucket.refill(1000.0)
    assert [bucket.try_spend(1) for _ in range(4)] == [True, True, True, False]


def test_what_is_taken_together_is_paid_afterwards() -> None:
    """It passes whole, and the debt is to be waited for."""
    bucket = TokenBucket(2.0, 3, 0.0)
    assert bucket.try_spend(7)
    bucket.refill(2.0)
    assert not bucket.try_spend(1)
    bucket.refill(2.5)
    assert bucket.try_spend(1)


def test_no_rate_is_no_bound() -> None:
    bucket = TokenBucket(0, 1, 0.0)
    bucket.refill(1.0)
    assert all(bucket.try_spend(10**9) for _ in range(9)) and bucket._level == inf


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(1.0, 2, 1000.0)
    assert bucket.try_spend(2)
    bucket.refill(10.0)
    assert not bucket.try_spend(1)
    bucket.refill(11.0)
    assert bucket.try_spend(1)


def test_the_excess_is_refused_and_who_goes_on_is_closed() -> None:
    """Commands: as many are refused as were run, then it is enough."""
    peer = meter(commands=10, commands_burst=3)
    peer.count_bytes(1, 0.0)
    assert [peer.check(1, ALLOW) for _ in range(8)] == [ALLOW] * 3 + [REJECT] * 3 + [DISCONNECT] * 2


def test_what_came_with_too_many_bytes_is_refused() -> None:
    """Then even what follows is, until there was a pause."""
    peer = meter(bytes=10, bytes_burst=100)
    verdicts = []
    for _ in range(5):
        verdicts.append(peer.check(1, peer.count_bytes(60, 0.0)))
    assert verdicts == [ALLOW, ALLOW, REJECT, REJECT, DISCONNECT]
    assert peer.check(1, peer.count_bytes(1, 2.5)) is ALLOW


def test_bytes_that_are_too_many_by_far_close_whatever_they_say() -> None:
    """Though no command is among them."""
    peer = meter(bytes=10, bytes_burst=100)
    assert [peer.count_bytes(100, 0.0) for _ in range(3)] == [ALLOW, REJECT, DISCONNECT]


PACES = st.tuples(st.integers(1, 50), st.integers(1, 100))
# A pause, the bytes of a read, the commands in it: each a cost.
READS = st.lists(
    st.tuples(st.floats(0, 3), st.integers(1, 60), st.lists(st.integers(1, 20), max_size=8)), min_size=1, max_size=40
)


@given(PACES, PACES, READS)
def test_however_a_peer_sends_never_more_is_run_than_the_burst_and_the_rate(
    commands: tuple[int, int], sizes: tuple[int, int], reads: list[tuple[float, int, list[int]]]
) -> None:
    """From any moment on; but for the debt of one batch, or of one read. The same holds for what is refused, so a peer
    that is not closed sends at most twice as much."""
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
def test_a_peer_that_keeps_to_the_rate_is_never_refused(
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


def test_what_a_command_turned_out_to_cost_is_charged_afterwards() -> None:
    """Also where nothing is left; and what was charged to the wrong client is given back, up to the burst."""
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


def test_a_principal_has_one_meter() -> None:
    meters = RateLimiterPool(LIMITS)
    meter = meters.get(b"=ann", 0.0)
    assert meter is not None and meters.get(b"=ann", 9.0) is meter
    assert meters.get(b"@192.0.2.1", 0.0) is not meter
    assert len(meters) == 2


def test_clients_on_this_machine_have_no_meter() -> None:
    assert RateLimiterPool(LIMITS).get(LOCAL, 0.0) is None


def test_no_principal_has_a_meter_when_no_rate_is_limited() -> None:
    meters = RateLimiterPool(Limits(commands_per_second=0, bytes_per_second=0))
    assert meters.get(b"@192.0.2.1", 0.0) is None
    assert len(meters) == 0


def test_there_is_room_for_a_meter_for_each_connection() -> None:
    assert max_rate_limiters(Limits(max_connections=50_000)) == 50_000
    assert max_rate_limiters(LIMITS) == 10_000


def test_a_meter_that_has_recovered_is_forgotten_before_one_in_debt() -> None:
    meters = full_of(20_000)
    charge(meters, 3, -20_000)
    for number in (*range(3), *range(4, EXAMINED_RATE_LIMITERS)):
        charge(meters, number, 0)  # the fourth is among the oldest
    meters.get(b"@203.0.113.1", 0.0)
    assert len(meters) == max_rate_limiters(LIMITS)
    assert not any(is_new(meters, number, 0.0) for number in range(EXAMINED_RATE_LIMITERS) if number != 3)


def test_if_all_examined_meters_are_in_debt_the_one_that_recovers_first_is_forgotten() -> None:
    meters = full_of(20_000)
    charge(meters, 5, -1_000)
    for number in range(max_rate_limiters(LIMITS)):  # as old as before
        charge(meters, number, 0)
    meters.get(b"@203.0.113.1", 0.0)
    assert [is_new(meters, number, 0.0) for number in range(8)] == [number == 5 for number in range(8)]


def test_meters_in_debt_do_not_keep_those_behind_them_from_being_forgotten() -> None:
    """They get another round of the table, so a client in debt keeps its debt whatever number of others come."""
    meters = full_of(1)
    debtors = range(EXAMINED_RATE_LIMITERS - 1)
    for number in debtors:
        charge(meters, number, 100_000)
    for number in range(len(debtors), max_rate_limiters(LIMITS)):
        charge(meters, number, 0)
    for number in range(3_000):
        meters.get(b"@203.0.113.%d" % number, 10.0)
    assert not any(is_new(meters, number, 10.0) for number in debtors)


def test_a_client_that_stays_active_keeps_its_meter() -> None:
    """Although it would be the first to recover."""
    meters = full_of(20_000)
    charge(meters, 0, -1_000)
    meters.get(b"@203.0.113.1", 0.0)
    assert not is_new(meters, 0, 0.0)


def test_the_verdict_on_the_bytes_is_that_of_the_read_they_came_with() -> None:
    """A meter that two connections share has read something else meanwhile."""
    meter = RateLimiter(Limits(bytes_per_second=10, bytes_burst=10), 0.0)
    first, second = meter.count_bytes(11, 0.0), meter.count_bytes(1, 0.0)
    assert (first, second) == (Decision.ALLOW, Decision.REJECT)
    assert meter.check(1, first) is Decision.ALLOW
    assert meter.check(1, second) is Decision.REJECT


def test_it_tells_how_long_to_wait() -> None:
    meter = RateLimiter(Limits(bytes_per_second=10, bytes_burst=10, commands_per_second=0), 0.0)
    assert meter.retry_after == 1
    meter.count_bytes(55, 0.0)
    assert meter.retry_after == 5
    assert meter.count_bytes(1, 4.4) is not Decision.ALLOW
    meter = RateLimiter(Limits(bytes_per_second=0, commands_per_second=2, commands_burst=1), 0.0)
    meter.check(6, meter.count_bytes(1, 0.0))
    assert meter.retry_after == 3
