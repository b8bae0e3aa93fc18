"""The figures of the whole bridge, from counts that are kept anyway: they cost the same for one peer as for many."""

import msgspec

from twistedsock.core.bridge import Bridge

TITLES = ("line", "json", "events")
"""The dialects that are told even where nobody speaks them."""


class Figures(msgspec.Struct, frozen=True):
    """All are totals since the start, but for those that are a state: peers, connections, channels, subscriptions,
    behind and the bytes of memory. ``time`` is in seconds since 1970; ``turn_longest`` is the longest turn since the
    figures before."""

    time: float
    uptime: float
    version: str
    peers: dict[str, int]
    connections: int
    channels: int
    subscriptions: int
    behind: int
    published: int
    delivered: int
    lost: int
    received_bytes: int
    sent_bytes: int
    refused: dict[str, int]
    log_bytes: int
    held_bytes: int
    memory_bytes: int
    cpu_seconds: float
    turns: int
    turn_seconds: float
    turn_longest: float


def count_peers(bridge: Bridge) -> dict[str, int]:
    """By dialect, and in all."""
    tally = bridge.tally
    peers = {title: tally.opened.get(title, 0) - tally.closed.get(title, 0) for title in (*TITLES, *tally.opened)}
    return {"total": sum(peers.values()), **peers}


def take_figures(bridge: Bridge, memory_bytes: int, cpu_seconds: float) -> Figures:
    """As they are now; what is the server's own does not count."""
    broker, tally = bridge.broker, bridge.tally
    return Figures(
        time=round(bridge.expiries.wall_clock(), 3),
        uptime=round(broker.clock() - bridge.started, 1),
        version=bridge.version.decode(),
        peers=count_peers(bridge),
        connections=bridge.admission.connections,
        channels=len(broker.channels) - broker.own_channels,
        subscriptions=broker.subscriptions,
        behind=tally.behind,
        published=tally.published,
        delivered=tally.delivered,
        lost=tally.lost,
        received_bytes=tally.received,
        sent_bytes=tally.sent,
        refused={code.value.decode(): times for code, times in tally.refused.items()},
        log_bytes=broker.log_bytes,
        held_bytes=broker.holdings.held,
        memory_bytes=memory_bytes,
        cpu_seconds=round(cpu_seconds, 3),
        turns=sum(tally.turns.counts),
        turn_seconds=round(tally.turns.total, 6),
        turn_longest=round(tally.longest, 6),
    )
