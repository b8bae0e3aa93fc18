"""Clients that stay: publishers, and readers that are quick, slow, stalled, or away at times."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.soak.connections import LineConnection
from bench.soak.dialects import Heard, content
from bench.soak.following import Following
from bench.soak.tally import RecentEvents, Wrong
from bench.soak.world import Talk, World

STATIONS = 8
"""Channels with a publisher and quick readers."""
READERS = 5
"""Quick readers of each channel."""
SLOW, STALLED = 12, 12
"""Readers of the hose that are always slow, and readers that stop for a while."""
SMALL_ROOM = 4096
"""Bytes of a slow reader's receive buffer, so that the kernel does not read for it."""

PATIENCE = 30.0
"""Seconds that a reader waits, on a busy machine, for an event of a channel that is never silent."""

Resident = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Station:
    """A channel with a publisher: ``pace`` events per second, all of ``size`` bytes or of many sizes. Its history
    certainly ``keeps`` events for that part of ``history-age``."""

    channel: bytes
    pace: float = 40.0
    size: int | None = None
    keeps: float = 1.0


HOSE = Station(b"hose", 20.0, 20_000, 0.0)
"""Too much for slow readers and for its history, which holds two or three seconds of it."""


def residents(world: World) -> list[Resident]:
    """All clients that stay: each runs until it is cancelled. Raises Wrong."""
    stations = [Station(b"station.%d" % number) for number in range(STATIONS)]
    for station in [*stations, HOSE]:
        world.recent[station.channel] = RecentEvents(station.keeps * world.bounds.history_age)
    found = [partial(publish, world, station) for station in [*stations, HOSE]]
    found += [partial(read, world, station) for station in stations * READERS]
    found += [partial(read, world, HOSE), *[partial(crawl, world)] * SLOW, *[partial(stall, world)] * STALLED]
    return list(found)


async def publish(world: World, station: Station) -> None:
    """Publish at a pace, one to three at once. Each reply must have the expected offset."""
    number, channel = 0, station.channel
    recent = world.recent[channel]
    while True:
        talk = await world.surely()
        try:
            stay = world.now() + world.chance.uniform(0.3, 1.0) * world.bounds.stay
            if world.chance.random() < 0.5:
                await talk.say(talk.dialect.command(1, "nick", nick=f"anchor-{number}"))
                await talk.hear()
            while world.now() < stay:
                together = world.chance.randint(1, 3)
                numbers = range(number + 1, number + 1 + together)
                for _ in numbers:
                    recent.publish(world.now())
                await talk.say(*[talk.dialect.publish(each, channel, content(each, station.size)) for each in numbers])
                for each in numbers:
                    async with asyncio.timeout(PATIENCE):
                        answer = await talk.hear()
                    if answer.kind != "ok" or answer.offset != each:
                        raise Wrong(f"{channel.decode()}: publish {each} was answered by {answer}")
                number += together
                world.tally.events += together
                world.names.publish(channel, world.now())
                await asyncio.sleep(together / station.pace)
        finally:
            world.part(talk)


async def read(world: World, station: Station) -> None:
    """A quick reader: checks every event. It disconnects at times, and resumes or starts again."""
    recent = world.recent[station.channel]
    while True:
        following = None
        for _ in range(world.chance.randint(1, 3)):
            talk = await world.surely()
            try:
                if following is None:
                    following = Following(
                        station.channel, talk.dialect, lambda: recent.first(world.now()), station.size
                    )
                    options: dict[str, Any] = {}
                else:
                    following.dialect = talk.dialect
                    options = {"since": following.next - 1, "epoch": following.epoch}
                await talk.say(talk.dialect.subscribe(1, station.channel, options))
                reply = await _reply(talk)
                following.begin(reply)
                if options:
                    world.tally.seen[f"came back, {'' if reply.recovered else 'not '}recovered"] += 1
                await _follow(world, talk, following, world.chance.uniform(0.2, 1.0) * world.bounds.stay)
            finally:
                world.part(talk)
            often = world.chance.random() < 0.8
            await asyncio.sleep(world.chance.random() * world.bounds.history_age * (0.25 if often else 2.0))


async def _follow(world: World, talk: Talk, following: Following, seconds: float) -> None:
    until = world.now() + seconds
    while world.now() < until:
        async with asyncio.timeout(PATIENCE):
            message = await talk.hear()
        world.tally.deliveries += following.hear(message)


async def crawl(world: World) -> None:
    """A slow reader: a few KB per second of a channel that has many times that. Its events must be in order, and the
    server must report those that it skips."""
    while True:
        talk = await world.surely(SMALL_ROOM)
        try:
            following = await _begin(world, talk)
            until = world.now() + world.chance.uniform(0.3, 1.0) * world.bounds.stay
            pace = world.chance.choice((8_000, 32_000, 100_000))
            while world.now() < until:
                async with asyncio.timeout(PATIENCE):
                    await _sip(world, talk, following, pace // 4)
                await asyncio.sleep(0.25)
            world.tally.lost += following.lost
            world.tally.seen["slow readers that received LOST"] += bool(following.lost)
        except ConnectionError:
            forgive(world, talk)
        finally:
            world.part(talk)


async def stall(world: World) -> None:
    """Read nothing for a while, then everything, and repeat."""
    while True:
        talk = await world.surely(SMALL_ROOM)
        try:
            following = await _begin(world, talk)
            for _ in range(world.chance.randint(1, 3)):
                await asyncio.sleep(world.chance.uniform(0.05, 0.5) * world.bounds.stay)
                await _follow(world, talk, following, 0.05 * world.bounds.stay)
            world.tally.lost += following.lost
            world.tally.seen["stalled readers that received LOST"] += bool(following.lost)
        except ConnectionError:
            forgive(world, talk)
        finally:
            world.part(talk)


async def _begin(world: World, talk: Talk) -> Following:
    following = Following(HOSE.channel, talk.dialect, size=HOSE.size)
    await talk.say(talk.dialect.subscribe(1, HOSE.channel))
    following.begin(await _reply(talk))
    return following


async def _reply(talk: Talk) -> Heard:
    async with asyncio.timeout(PATIENCE):
        return await talk.hear()


def forgive(world: World, talk: Talk) -> None:
    """A WebSocket reader that is too slow to see the ping is closed as dead. No other client can be."""
    if isinstance(talk.connection, LineConnection):
        raise Wrong("a slow reader over lines was cut off")
    world.tally.seen["slow WebSockets without a pong"] += 1


async def _sip(world: World, talk: Talk, following: Following, size: int) -> None:
    """Read ``size`` bytes, and check complete messages."""
    for _ in range(max(1, size // 1024)):
        await talk.connection.fill(1024)
    while talk.connection.has_message():
        world.tally.deliveries += following.hear(await talk.hear())
