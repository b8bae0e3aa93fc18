"""Times as text (RFC 3339), and as clients give them: an absolute time, or one that is relative to now."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from twistedsock.session.commands import MAX_OFFSET
from twistedsock.session.history_query import Bound, Moment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_HOUR_AND_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
# The ranges are here, because versions of Python differ: some accept 24:00:00, or an offset of 60 minutes.
_ABSOLUTE = re.compile(
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ]{_HOUR_AND_MINUTE}:[0-5][0-9](\.[0-9]{{1,9}})?([Zz]|[+-]{_HOUR_AND_MINUTE})"
)
_RELATIVE = re.compile(r"-([0-9]{1,12})(ms|s|m|h|d)")

EXPECTED_BOUND = "expected an offset such as 17, or a time such as 2026-11-29T05:00:00Z or -1h"
"""For errors about what ``parse_bound`` cannot read."""

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def format_time(milliseconds: int) -> bytes:
    """A time as ``2026-11-29T05:30:00.123Z``. ``milliseconds`` since 1970, before the year 10000."""
    minute, rest = divmod(milliseconds, 60_000)
    return b"%b%02d.%03dZ" % (_format_minute(minute), *divmod(rest, 1_000))


@lru_cache(maxsize=64)
def _format_minute(minute: int) -> bytes:
    """Kept, because most events that are encoded together were published within a few minutes: it takes 2 µs."""
    return (_EPOCH + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:").encode()


def parse_moment(text: str) -> Moment | None:
    """A time as a client gives it: ``2026-11-29T05:00:00Z`` with or without a fraction of the second, with ``Z`` or an
    offset from UTC; or relative to now, ``-1h``, in ms, s, m, h or d. None if it is neither."""
    if relative := _RELATIVE.fullmatch(text):
        return Moment(-int(relative[1]) * _UNITS[relative[2]], is_relative=True)
    if _ABSOLUTE.fullmatch(text) is None:
        return None
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError:  # for example the 30th of February
        return None
    return Moment((time - _EPOCH) // _MILLISECOND)


def parse_bound(text: str) -> Bound | None:
    """An offset, or a time as ``parse_moment`` reads it. None if it is neither."""
    # The largest offset has 16 digits. Longer numbers are not converted, because that could take long.
    if text.isascii() and text.isdigit() and len(text) <= 16:
        offset = int(text)
        return offset if offset <= MAX_OFFSET else None
    return parse_moment(text)
