"""How much memory a bridge may take, as its bounds tell: what each kind of thing costs at most, times how many of them
there may be. It is a sum of worst cases, all at once, which no day will see; nothing that peers do goes beyond it."""

from msgspec import Struct

from twistedsock.core.limits import CHUNK_BYTES, MEMBERS_HELD, Limits

PROCESS = 80 * 1024 * 1024
"""Python, Twisted, Autobahn and ourselves before the first connection: 60 MiB were measured, and 20 for what comes and
goes within a turn."""

READ = 64 * 1024
"""Bytes that Twisted reads at once."""

CONNECTION = 16 * 1024
"""A connection that is silent: its transport, protocol, session and timers. 4 to 10 KiB were measured."""

TLS = 128 * 1024
"""What OpenSSL and Twisted's TLS keep of a connection beside that, with their buffers."""

CHANNEL = 3 * 1024
"""A channel without its log, and with the longest name: 2,500 bytes were measured."""

SUBSCRIPTION = 2 * 1024
"""One peer's subscription to one channel, with the longest name: 1,550 bytes were measured."""

CHANGE = 176
"""A join or a leave that is kept for later, with its member and the longest nick."""

REMEMBERED = 10_000 * 512
"""The epochs and heads of channels that are gone, as many as the backplane remembers."""


class Footprint(Struct, frozen=True):
    """Bytes, at most."""

    process: int
    logs: int
    """What is kept for history, recovery and slow readers."""
    channels: int
    connections: int
    """All of them, with what each may hold: a line or message that has not ended, what was read and waits to be run,
    what waits to be sent, and joins and leaves."""
    subscriptions: int
    a_connection: int
    """One of them, without its subscriptions."""

    @property
    def total(self) -> int:
        return self.process + self.logs + self.channels + self.connections + self.subscriptions


def footprint(limits: Limits, tls: bool = False) -> Footprint:
    """What a bridge with these bounds may take. ``tls``: whether there are connections with TLS."""
    begun = max(limits.max_line, limits.max_message) * 9 // 8  # it grows in steps of an eighth
    waiting = READ * 5  # the bytes of a read, and 4 more for the end of each line
    # A chunk that was not taken, and the replies of one command of many publishes, which are said together.
    unsent = 4 * CHUNK_BYTES
    kept = limits.max_members_told * CHANGE
    each = CONNECTION + begun + waiting + unsent + kept + tls * TLS
    # Of a batch whose oldest events have gone, a fourth more may be held; and a chunk more before the end of a turn.
    logs = limits.log_bytes * 5 // 4 + 2 * CHUNK_BYTES
    most_each = min(limits.max_channels_per_peer, limits.max_channels)
    return Footprint(
        process=PROCESS,
        logs=logs,
        channels=limits.max_channels * CHANNEL + REMEMBERED,
        connections=limits.max_connections * each + 8 * MEMBERS_HELD,
        subscriptions=min(limits.max_subscriptions, limits.max_connections * most_each) * SUBSCRIPTION,
        a_connection=each,
    )
