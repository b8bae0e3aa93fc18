"""How fast a peer may go: two token buckets, and two more for what it is refused, so that who does not slow down is
known from who was only a little too fast.

A bucket holds ``burst`` tokens at most and gets ``rate`` of them a second (the algorithm is described in RFC 2697
section 3, there with bytes). Something is let through while the level is above zero, and is paid afterwards: so a whole
batch passes together, and the debt is at most what one read can bring.
"""

from collections import OrderedDict
from enum import Enum
from itertools import islice
from math import ceil, inf

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import Limits

# Prices, in commands. A command such as PING costs 1, and takes about 10 us. Work that takes much longer costs 1 for
# each 100 us, so that a client that keeps to the default rate takes at most a tenth of one core.
ENTRY_PRICE = 1
"""Opening a connection of lines, the handshake of a WebSocket, or a request over HTTP, beside what it asks for."""

TLS_HANDSHAKE_PRICE = 10
"""A handshake of TLS: 0.6 to 2 ms for the signature, by the kind of key."""


def token_price(size: int) -> float:
    """Verifying a token of that many bytes: the signature, and its claims. 0.2 ms were measured for the shortest, 0.7
    for one with 100 patterns in 3 KiB."""
    return 2 + size / 1024


def unreadable_price(size: int) -> float:
    """A message or body of that many bytes that cannot be read: up to 0.2 us for each byte, because its id and halves
    of surrogate pairs are looked for."""
    return size / 512


def answer_price(size: int) -> float:
    """Bytes of history, of members or of other lists: 2 to 30 us for each KiB."""
    return size / 4096


def member_price(members: int) -> float:
    """Members that are sorted for one page of them."""
    return members / 100


def rename_price(subscriptions: int) -> float:
    """A new nick, which is noted on each channel: 2 us."""
    return subscriptions / 50


def rights_price(subscriptions: int, patterns: int) -> float:
    """Other rights, which are looked up for each channel: 2 us, and 0.5 for each pattern."""
    return subscriptions * (4 + patterns) / 200


def search_price(channels: int, stars: int) -> float:
    """Looking through all channels with so many patterns that have stars: 1 us for each channel, and up to 0.2 for each
    channel and pattern; 0.2 ms to compile a pattern. Looking through the first hundred is part of the request."""
    return (channels // 100) * (1 + stars / 5) + 2 * stars


class Decision(Enum):
    """What becomes of a command."""

    RUN = "run"
    REFUSE = "refuse"
    CLOSE = "close"


class TokenBucket:
    """``rate`` is tokens a second; 0 is without bound. It begins full. Time is told by the caller, in seconds; a clock
    that goes back costs the peer nothing and gives it nothing."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = burst if rate else inf
        self._at = now

    def fill(self, now: float) -> None:
        """Time has passed."""
        self._level = min(self._burst, self._level + self._rate * max(0.0, now - self._at))
        self._at = now

    @property
    def recovery(self) -> float:
        """Seconds until it is full."""
        return (self._burst - self._level) / self._rate if self._rate else 0.0

    @property
    def wait(self) -> float:
        """Seconds until something is left again."""
        return max(0.0, -self._level / self._rate) if self._rate else 0.0

    def take(self, cost: float) -> bool:
        """Pay, if there is anything left; whether there was."""
        if self._level <= 0:
            return False
        self._level -= cost
        return True

    def charge(self, cost: float) -> None:
        """Pay in any case. A negative cost is given back."""
        self._level = min(self._burst, self._level - cost)


class RateLimiter:
    """The rate of one principal, shared by all its connections. Bytes are counted when they are read, whatever they
    turn out to be; commands when they are to be run. Commands in bytes that were too many are refused like commands
    that were too many."""

    __slots__ = ("_bytes", "_commands", "_excess_bytes", "_excess_commands")

    def __init__(self, limits: Limits, now: float) -> None:
        self._bytes, self._excess_bytes = (
            TokenBucket(limits.bytes_per_second, limits.bytes_burst, now) for _ in range(2)
        )
        self._commands, self._excess_commands = (
            TokenBucket(limits.commands_per_second, limits.commands_burst, now) for _ in range(2)
        )

    def read(self, size: int, now: float) -> Decision:
        """Count ``size`` bytes that were read. Returns what becomes of the commands in them, for ``judge``."""
        self.fill(now)
        if self._bytes.take(size):
            return Decision.RUN
        return Decision.REFUSE if self._excess_bytes.take(size) else Decision.CLOSE

    def fill(self, now: float) -> None:
        """Time has passed, and nothing was read."""
        for bucket in self._buckets:
            bucket.fill(now)

    def judge(self, price: float, read: Decision) -> Decision:
        """What becomes of a command that costs ``price``. ``read`` is the verdict on the bytes that it came with."""
        if read is Decision.RUN and self._commands.take(price):
            return Decision.RUN
        if read is not Decision.CLOSE and self._excess_commands.take(price):
            return Decision.REFUSE
        return Decision.CLOSE

    def charge(self, price: float) -> None:
        """Count what a command turned out to cost beyond the price that it was judged by. A negative price gives back
        what was charged to the wrong principal."""
        self._commands.charge(price)

    @property
    def _buckets(self) -> tuple[TokenBucket, ...]:
        return (self._bytes, self._excess_bytes, self._commands, self._excess_commands)

    @property
    def wait(self) -> int:
        """Whole seconds after which something is likely to be let through again, 1 at least."""
        return max(1, ceil(self._bytes.wait), ceil(self._commands.wait))

    def recovery(self, now: float) -> float:
        """Seconds until it is as good as a new one."""
        self.fill(now)
        return max(bucket.recovery for bucket in self._buckets)


MIN_RATE_LIMITERS = 10_000
"""Principals whose meters are remembered, about 1 KiB each: more clients than ask over HTTP within the seconds in which
a meter recovers. There is always room for as many as there may be connections."""

EXAMINED_RATE_LIMITERS = 16
"""Meters that are examined for one that has recovered, when there is no room for another."""


def max_rate_limiters(limits: Limits) -> int:
    """How many meters are remembered."""
    return max(MIN_RATE_LIMITERS, limits.max_connections)


class RateLimiterPool:
    """The meters of all remote principals. A meter outlives the connections that used it, so that a client cannot get a
    new burst by connecting again. When there is no room for another one, a meter that has recovered is forgotten first,
    because a new one would be equal to it. A meter in debt is kept for another round of the table; only if the next
    ``EXAMINED_RATE_LIMITERS`` are all in debt, the one that would recover first is forgotten."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._room = max_rate_limiters(limits)
        self.is_limited = bool(limits.commands_per_second or limits.bytes_per_second)
        """Whether there is any rate at all."""
        # The least recently used first, but for those in debt that got another round.
        self._meters: OrderedDict[Principal, RateLimiter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, principal: Principal, now: float) -> RateLimiter | None:
        """The meter of a principal; None if its rate is not limited. Do not keep it beyond the reactor's turn: it may
        be forgotten meanwhile, and another connection of the principal would use a new one."""
        meter = self._meters.get(principal)
        if meter is not None:
            self._meters.move_to_end(principal)
        elif self.is_limited and principal != LOCAL:
            if len(self._meters) >= self._room:
                self._make_room(now)
            meter = self._meters[principal] = RateLimiter(self._limits, now)
        return meter

    def _make_room(self, now: float) -> None:
        debts: list[tuple[float, Principal]] = []
        for principal, meter in list(islice(self._meters.items(), EXAMINED_RATE_LIMITERS)):
            recovery = meter.recovery(now)
            if not recovery:
                del self._meters[principal]
                return
            self._meters.move_to_end(principal)
            debts.append((recovery, principal))
        del self._meters[min(debts)[1]]
