"""Connections counted over several processes: what one of them reports, and what it does with reports."""

from collections.abc import Callable

from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.settings import Limits
from twistedsock.limits.shared_counts import MAX_COUNTS_PER_REPORT, SHARE_SECONDS, Counts, SharedCounts


class Process:
    """A limiter with its shared counts, connected to others. ``reports`` are those that were sent."""

    def __init__(self) -> None:
        self.limiter = ConnectionLimiter(Limits(max_connections_per_address=4))
        self.reports: list[Counts] = []
        self._scheduled: list[Callable[[], None]] = []
        self.shared = SharedCounts(self.limiter, self._schedule, self.reports.append)
        self.shared.connected()

    def _schedule(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == SHARE_SECONDS
        self._scheduled.append(call)

    def pass_time(self) -> None:
        scheduled, self._scheduled = self._scheduled, []
        assert len(scheduled) <= 1
        for call in scheduled:
            call()


def test_changes_of_some_time_are_one_report() -> None:
    process = Process()
    process.limiter.acquire("10.0.0.1")
    process.limiter.acquire("10.0.0.1")
    process.limiter.acquire("10.0.0.2")
    process.limiter.release("10.0.0.2")
    assert not process.reports
    process.pass_time()
    process.pass_time()
    assert process.reports == [{b"@10.0.0.1": 2, b"@10.0.0.2": 0}]


def test_a_new_connection_to_the_keeper_reports_everything() -> None:
    process = Process()
    process.limiter.acquire("10.0.0.1")
    process.shared.received({b"@10.0.0.2": 4})
    process.shared.disconnected()
    process.limiter.acquire("10.0.0.2")
    process.pass_time()
    assert not process.reports, "nothing is kept for later"
    process.shared.connected()
    assert process.reports == [{b"@10.0.0.1": 1, b"@10.0.0.2": 1}]


def test_counts_elsewhere_hold_until_the_connection_is_lost() -> None:
    process = Process()
    process.shared.received({b"@10.0.0.1": 3, b"@10.0.0.2": 4})
    assert process.limiter.acquire("10.0.0.1") is None and process.limiter.acquire("10.0.0.1") is not None
    assert process.limiter.acquire("10.0.0.2") is not None
    process.shared.received({b"@10.0.0.1": 0})
    assert process.limiter.acquire("10.0.0.1") is None
    process.shared.disconnected()
    assert process.limiter.acquire("10.0.0.2") is None


def test_many_counts_are_reported_in_parts() -> None:
    process = Process()
    process.shared.disconnected()
    for number in range(MAX_COUNTS_PER_REPORT + 1):
        process.limiter.acquire(f"10.0.{number // 256}.{number % 256}")
    process.shared.connected()
    assert [len(report) for report in process.reports] == [MAX_COUNTS_PER_REPORT]
    process.pass_time()
    assert [len(report) for report in process.reports] == [MAX_COUNTS_PER_REPORT, 1]
