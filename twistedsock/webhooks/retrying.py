"""What an answer means, and when to try again: exponential backoff with full jitter."""

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import Enum

FIRST_WAIT = 1.0
"""Seconds that the first wait takes at most; each further one twice as long."""

MOST_WAIT = 60.0
"""Seconds: a receiver that is back is told within a minute."""

MOST_RETRY_AFTER = 600.0
"""Seconds for which a receiver can tell us to wait; who asks for more is asked again earlier."""

_AGAIN = {408, 429}


class Verdict(Enum):
    DELIVERED = "delivered"
    AGAIN = "again"
    REFUSED = "refused"


def judge(status: int) -> Verdict:
    """Of the status of an answer (RFC 9110 section 15). Redirects are not followed, and mean no."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    return Verdict.AGAIN if status >= 500 or status in _AGAIN else Verdict.REFUSED


def wait_before(attempt: int, chance: Callable[[], float]) -> float:
    """Seconds before the next attempt, when ``attempt`` have failed. ``chance`` gives numbers from 0 to 1: of many who
    wait for the same receiver, each comes at another time."""
    return chance() * min(MOST_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 30))


def retry_after(value: str | None, now: float) -> float:
    """Seconds that a header Retry-After (RFC 9110 section 10.2.3) asks for; 0 where it says nothing of use. ``now`` by
    the clock on the wall."""
    if value is None:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MOST_RETRY_AFTER)
    try:
        wanted = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(wanted, 0.0), MOST_RETRY_AFTER)
