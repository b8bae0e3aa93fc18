"""How much memory a bridge may take, as its bounds tell: what each kind of thing costs at most, times how many of them
there may be. It is a sum of worst cases, all at once, which no day will see; nothing that peers do goes beyond it."""

from msgspec import Struct

from twistedsock.limits.memory import with_reserve
from twistedsock.limits.rate import max_rate_limiters
from twistedsock.limits.settings import CHUNK_BYTES, MAX_MEMBERS_HELD, MAX_PENDING_REPLY_WRITERS, Limits
from twistedsock.pubsub.values import CHANGE_COST
from twistedsock.session.request import REMEMBERED_BYTES

PROCESS = 80 * 1024 * 1024
"""Python, Twisted, Autobahn and ourselves before the first connection: 60 MiB were measured, and 20 for what comes and
goes within a turn."""

READ = 64 * 1024
"""Bytes that Twisted reads at once."""

CONNECTION = 16 * 1024
"""A connection that is silent: its transport, protocol, session and timers. 4 to 10 KiB were measured; and three times
2 KiB may be held without being counted."""

TLS = 128 * 1024
"""What OpenSSL and Twisted's TLS keep of a connection beside that, with their buffers."""

CHANNEL = 3328
"""A channel without its log, and with the longest name: 2,500 bytes were measured, and 3,200 where each counts for
another principal."""

SUBSCRIPTION = 1280
"""One peer's subscription to one channel. The first on a channel in a dialect costs 1,080 bytes, as it brings tables
that the others share; those are 600 each, measured with tables that have just grown. The name is the channel's own."""

REMEMBERED = 10_000 * 960
"""The epochs and heads of channels that are gone, as many as the backplane remembers."""

METER = 1024
"""What is remembered of the rate of one principal, with the longest name of a network: 510 bytes were measured. The
subject of an identity may be 150 bytes longer."""


class MemoryEstimate(Struct, frozen=True):
    """Bytes, at most."""

    process: int
    """Before the first connection; and what is remembered of clients: rates, and answers by their keys."""
    logs: int
    """What is kept for history, recovery and slow readers."""
    channels: int
    connections: int
    """All of them, as if they held nothing; and the members in answers to ``WHO``."""
    held: int
    """What they hold together: lines and messages that have not ended, what was read and waits to be run, what waits
    to be sent, and joins and leaves."""
    subscriptions: int

    @property
    def total(self) -> int:
        return self.process + self.logs + self.channels + self.connections + self.held + self.subscriptions


def estimate_memory(limits: Limits, tls: bool = False) -> MemoryEstimate:
    """What a bridge with these bounds may take. ``tls``: whether there are connections with TLS."""
    begun = max(limits.max_line_bytes, limits.max_message_bytes) * 9 // 8  # it grows in steps of an eighth
    waiting = READ * 5  # the bytes of a read, and 4 more for the end of each line
    # A chunk that was not taken, and the replies of one command of many publishes, which are said together.
    unsent = 4 * CHUNK_BYTES
    kept = limits.max_pending_presence * CHANGE_COST
    each = begun + waiting + unsent + kept
    # Bytes are counted; what is allocated for them is up to an eighth more. And replies wait for the end of a turn.
    held = min(limits.max_connections * each, with_reserve(limits.max_buffered_bytes) * 9 // 8)
    held += min(limits.max_connections, MAX_PENDING_REPLY_WRITERS) * CHUNK_BYTES
    # Of a batch whose oldest events have gone, a fourth more may be held; and a chunk more before the end of a turn.
    logs = limits.history_total_bytes * 5 // 4 + 2 * CHUNK_BYTES
    most_channels = with_reserve(limits.max_channels)
    most_each = min(limits.max_subscriptions_per_client, most_channels)
    most_subscriptions = with_reserve(limits.max_subscriptions)
    return MemoryEstimate(
        process=PROCESS + max_rate_limiters(limits) * METER + REMEMBERED_BYTES,
        logs=logs,
        channels=most_channels * CHANNEL + REMEMBERED,
        connections=limits.max_connections * (CONNECTION + tls * TLS) + 8 * with_reserve(MAX_MEMBERS_HELD),
        held=held,
        subscriptions=min(most_subscriptions, limits.max_connections * most_each) * SUBSCRIPTION,
    )
