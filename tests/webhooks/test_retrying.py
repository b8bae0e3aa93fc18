"""What an answer means, and when to try again."""

import pytest

from twistedsock.webhooks.delivery import (
    MAX_RETRY_AFTER,
    MAX_WAIT,
    RetryDecision,
    retry_after,
    retry_decision,
    wait_before,
)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, RetryDecision.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, RetryDecision.AGAIN) for status in (408, 429, 500, 502, 503, 504, 599)),
        *((status, RetryDecision.REFUSED) for status in (300, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422)),
    ],
)
def test_statuses(status, verdict):
    assert retry_decision(status) is verdict


def test_each_wait_is_twice_as_long_up_to_a_minute():
    waits = [wait_before(attempt, lambda: 1.0) for attempt in range(1, 10)]
    assert waits == [1, 2, 4, 8, 16, 32, MAX_WAIT, MAX_WAIT, MAX_WAIT]
    assert wait_before(10**9, lambda: 1.0) == MAX_WAIT


def test_full_jitter():
    assert wait_before(4, lambda: 0.0) == 0.0
    assert wait_before(4, lambda: 0.25) == 2.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("7", 7),
        (" 7 ", 7),
        ("9" * 5_000, MAX_RETRY_AFTER),
        ("601", MAX_RETRY_AFTER),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 29),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0),
        ("Fri, 31 Dec 2999 23:00:00 GMT", MAX_RETRY_AFTER),
        ("", 0),
        ("-1", 0),
        ("soon", 0),
        ("²", 0),
        ("Fri, 31 Dec 99999999999 23:00:00 GMT", 0),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(value, 946_684_770.0) == seconds
