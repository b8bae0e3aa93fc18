"""Rate limits: the commands and bytes that one client can send.

Each client has a token bucket for commands and one for bytes, and two more for what exceeds them: the excess is
rejected until it exceeds its own bucket, then the client is disconnected. So a client that is a little too fast keeps
its connection, and one that does not slow down loses it.

A bucket holds at most ``burst`` tokens and gets ``rate`` of them a second (RFC 2697 section 3 describes the algorithm,
for bytes). A request passes while the level is above zero, and is paid afterwards: so a whole batch passes together,
and the debt is at most what one read returns.
"""

from collections import OrderedDict
from enum import Enum
from itertools import islice
from math import ceil, inf

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import Limits

# Prices, in commands. A simple command costs 1, and takes about 10 us. Work that takes much longer costs 1 for each
# 100 us, so that a client that keeps to the default rate uses at most a tenth of one core.
ENTRY_PRICE = 1
"""Opening a TCP connection, a WebSocket handshake, or an HTTP request. The work that it requests is charged
in addition."""

TLS_HANDSHAKE_PRICE = 10
"""A TLS handshake: 0.6 to 2 ms for the signature, depending on the kind of key."""


def token_price(size: int) -> float:
    """Verifying the signature and the claims of a token of ``size`` bytes. 0.2 ms were measured for the shortest, 0.7
    ms for one with 100 patterns in 3 KiB."""
    return 2 + size / 1024


def unreadable_price(size: int) -> float:
    """A message or body of ``size`` bytes that is malformed: up to 0.2 us for each byte, because it is searched for its
    id and for surrogates."""
    return size / 512


def answer_price(size: int) -> float:
    """A reply of ``size`` bytes of history, members or other lists: 2 to 30 us for each KiB."""
    return size / 4096


def member_price(members: int) -> float:
    """Sorting the members of a channel for one page of them."""
    return members / 100


def rename_price(subscriptions: int) -> float:
    """Another nick: 2 us for each subscription."""
    return subscriptions / 50


def rights_price(subscriptions: int, patterns: int) -> float:
    """Other rights: 2 us for each subscription, and 0.5 us for each pattern."""
    return subscriptions * (4 + patterns) / 200


def search_price(channels: int, stars: int) -> float:
    """Searching all channels with patterns, ``stars`` of which contain a star: 1 us for each channel, up to 0.2 us for
    each channel and pattern, and 0.2 ms to compile a pattern. The first hundred channels are included in the
    request."""
    return (channels // 100) * (1 + stars / 5) + 2 * stars


class Decision(Enum):
    """Whether to handle a command, to reply with an error, or to close the connection."""

    ALLOW = "allow"
    REJECT = "reject"
    DISCONNECT = "disconnect"


# As names of their own, because access to a member of an enum costs ten times as much on Python 3.11.
ALLOW, REJECT, DISCONNECT = Decision.ALLOW, Decision.REJECT, Decision.DISCONNECT


class TokenBucket:
    """``rate`` is tokens a second; 0: no limit. It starts full. The caller passes the time in seconds; if its clock
    goes back, the bucket does not change."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = burst if rate else inf
        self._at = now

    def try_spend(self, cost: float, now: float) -> bool:
        """Pay if the level is above zero. Returns whether it was."""
        level = self._level
        if now > self._at:  # the tokens for the time that has passed
            level += self._rate * (now - self._at)
            if level > self._burst:
                level = self._burst
        self._at = now
        self._level = level - cost if level > 0 else level
        return level > 0

    def recovery(self, now: float) -> float:
        """Seconds until it is full."""
        self.try_spend(0, now)
        return (self._burst - self._level) / self._rate if self._rate else 0.0

    def wait(self, now: float) -> float:
        """Seconds until the level is above zero again."""
        self.try_spend(0, now)
        return max(0.0, -self._level / self._rate) if self._rate else 0.0

    def charge(self, cost: float) -> None:
        """Pay in any case. A negative cost is returned to the bucket."""
        self._level = min(self._burst, self._level - cost)


class RateLimiter:
    """The rate limit of one principal, shared by all its connections. Bytes are counted when they are read, commands
    before they are handled. Commands in bytes that exceed the rate are rejected like commands that exceed it."""

    __slots__ = ("_bytes", "_commands", "_excess_bytes", "_excess_commands", "_now")

    def __init__(self, limits: Limits, now: float) -> None:
        # The time of the last read or refill.
        self._now = now
        self._bytes, self._excess_bytes = (
            TokenBucket(limits.bytes_per_second, limits.bytes_burst, now) for _ in range(2)
        )
        self._commands, self._excess_commands = (
            TokenBucket(limits.commands_per_second, limits.commands_burst, now) for _ in range(2)
        )

    def count_bytes(self, size: int, now: float) -> Decision:
        """Count ``size`` bytes that were read. Pass the result to ``check`` for each command in them."""
        self._now = now
        if self._bytes.try_spend(size, now):
            return ALLOW
        return REJECT if self._excess_bytes.try_spend(size, now) else DISCONNECT

    def refill(self, now: float) -> None:
        """Time has passed, and nothing was read."""
        self._now = now

    def check(self, price: float, read: Decision) -> Decision:
        """Count a command that costs ``price``. ``read`` is the decision on the bytes that it was read with."""
        if read is ALLOW and self._commands.try_spend(price, self._now):
            return ALLOW
        if read is not DISCONNECT and self._excess_commands.try_spend(price, self._now):
            return REJECT
        return DISCONNECT

    def charge(self, price: float) -> None:
        """Charge the cost of a command beyond the price that was checked before. A negative price returns a charge to
        the wrong principal."""
        self._commands.charge(price)

    @property
    def retry_after(self) -> int:
        """Whole seconds after which a request is likely to be allowed again, at least 1."""
        return max(1, ceil(self._bytes.wait(self._now)), ceil(self._commands.wait(self._now)))

    def recovery(self, now: float) -> float:
        """Seconds until it is equal to a new one."""
        buckets = (self._bytes, self._excess_bytes, self._commands, self._excess_commands)
        return max(bucket.recovery(now) for bucket in buckets)


MIN_RATE_LIMITERS = 10_000
"""The limiters that are kept, about 1 KiB each, if the maximum of connections is not higher: more clients than send
HTTP requests in the seconds in which a limiter recovers."""

EXAMINED_RATE_LIMITERS = 16
"""Limiters that are examined for one that has recovered when there is no room for another."""


def max_rate_limiters(limits: Limits) -> int:
    """The maximum number of limiters that are kept."""
    return max(MIN_RATE_LIMITERS, limits.max_connections)


class RateLimiterPool:
    """The limiters of all remote principals. A limiter outlives the connections that used it, so that a client cannot
    get a new burst by connecting again. When there is no room for another one, a limiter that has recovered is dropped,
    because a new one would be equal to it. If the ``EXAMINED_RATE_LIMITERS`` that were used least recently have not
    recovered, the one of these that would recover first is dropped, and the rest count as just used."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._room = max_rate_limiters(limits)
        self.is_limited = bool(limits.commands_per_second or limits.bytes_per_second)
        """Whether any rate is limited."""
        # The least recently used first.
        self._limiters: OrderedDict[Principal, RateLimiter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._limiters)

    def get(self, principal: Principal, now: float) -> RateLimiter | None:
        """The limiter of a principal, None if its rate is not limited. Do not keep it beyond the reactor's turn: it may
        be dropped, and another connection of the principal would use a new one."""
        limiter = self._limiters.get(principal)
        if limiter is not None:
            self._limiters.move_to_end(principal)
        elif self.is_limited and principal != LOCAL:
            if len(self._limiters) >= self._room:
                self._make_room(now)
            limiter = self._limiters[principal] = RateLimiter(self._limits, now)
        return limiter

    def _make_room(self, now: float) -> None:
        debts: list[tuple[float, Principal]] = []
        for principal, limiter in list(islice(self._limiters.items(), EXAMINED_RATE_LIMITERS)):
            recovery = limiter.recovery(now)
            if not recovery:
                del self._limiters[principal]
                return
            self._limiters.move_to_end(principal)
            debts.append((recovery, principal))
        del self._limiters[min(debts)[1]]
