"""The maximum memory of a server, from its limits: the maximum cost of each kind of object, times their maximum number.

The estimate adds all worst cases, which never happen together. Clients cannot exceed it."""

from msgspec import Struct

from twistedsock.limits.rate import max_rate_limiters
from twistedsock.limits.settings import CHUNK_BYTES, MAX_MEMBERS_HELD, MAX_PENDING_REPLY_WRITERS, Limits
from twistedsock.limits.shares import with_reserve
from twistedsock.pubsub.values import CHANGE_COST
from twistedsock.session.idempotency import MAX_REMEMBERED_BYTES

PROCESS = 80 * 1024 * 1024
"""Python, Twisted, Autobahn and sockbridge before the first connection: 60 MiB measured, and 20 MiB for temporary
objects."""

READ = 64 * 1024
"""The most that Twisted reads at once."""

CONNECTION = 16 * 1024
"""An idle connection: transport, protocol, session and timers. 4 to 10 KiB measured, and up to three buffers of 2 KiB
that no limit counts."""

TLS = 128 * 1024
"""OpenSSL and Twisted's TLS for one connection, with their buffers."""

CHANNEL = 3328
"""A channel with the longest name, without its history: 2,500 bytes measured, and 3,200 if each channel belongs to
another client."""

SUBSCRIPTION = 1280
"""A subscription. The first of a channel and encoder measured 1,080 bytes, because it creates shared tables. Each
further one measured 600 bytes, just after a table had grown."""

REMEMBERED = 10_000 * 960
"""The positions of closed channels, which the backplane remembers."""

RATE_LIMITER = 1024
"""A rate limiter, with the longest name of a network: 510 bytes measured. A subject can be 150 bytes longer."""


class MemoryEstimate(Struct, frozen=True):
    """The maximum, in bytes."""

    process: int
    """Before the first connection, with rate limiters and idempotency keys."""
    history: int
    channels: int
    connections: int
    """Idle connections, and the members in unsent replies to ``WHO``."""
    buffered: int
    """Unfinished lines and messages, commands that wait, unsent output, and pending joins and leaves."""
    subscriptions: int

    @property
    def total(self) -> int:
        return self.process + self.history + self.channels + self.connections + self.buffered + self.subscriptions


def estimate_memory(limits: Limits, tls: bool = False) -> MemoryEstimate:
    """Return the maximum memory of a server with these limits. ``tls``: whether it has connections with TLS."""
    unfinished = max(limits.max_line_bytes, limits.max_message_bytes) * 9 // 8  # buffers grow in steps of an eighth
    waiting = READ * 5  # the bytes of a read, and 4 more for the end of each line
    # A chunk that the socket did not accept, and the replies to one command with many publications.
    unsent = 4 * CHUNK_BYTES
    presence = limits.max_pending_presence * CHANGE_COST
    each = unfinished + waiting + unsent + presence
    # The limit counts bytes, and up to an eighth more is allocated. Replies wait for the end of a turn.
    buffered = min(limits.max_connections * each, with_reserve(limits.max_buffered_bytes) * 9 // 8)
    buffered += min(limits.max_connections, MAX_PENDING_REPLY_WRITERS) * CHUNK_BYTES
    # A batch whose oldest events were dropped can hold a quarter more, and a turn can add a chunk before its end.
    history = limits.history_total_bytes * 5 // 4 + 2 * CHUNK_BYTES
    channels = with_reserve(limits.max_channels)
    per_client = min(limits.max_subscriptions_per_client, channels)
    subscriptions = min(with_reserve(limits.max_subscriptions), limits.max_connections * per_client)
    return MemoryEstimate(
        process=PROCESS + max_rate_limiters(limits) * RATE_LIMITER + MAX_REMEMBERED_BYTES,
        history=history,
        channels=channels * CHANNEL + REMEMBERED,
        connections=limits.max_connections * (CONNECTION + tls * TLS) + 8 * with_reserve(MAX_MEMBERS_HELD),
        buffered=buffered,
        subscriptions=subscriptions * SUBSCRIPTION,
    )
