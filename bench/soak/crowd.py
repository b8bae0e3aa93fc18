"""Clients that watch presence."""

import asyncio

from bench.soak.dialects import Heard
from bench.soak.residents import PATIENCE, SMALL_ROOM, forgive
from bench.soak.tally import Wrong
from bench.soak.visits import CROWD
from bench.soak.world import World

RUSH = 120
"""Joins and leaves in a row, more than the server keeps for a watcher that does not read."""


class Presence:
    """The members, computed from joins and leaves: no member joins twice or leaves twice."""

    def __init__(self) -> None:
        self._there: dict[str, bool] = {}

    def hear(self, message: Heard) -> None:
        """Raises Wrong."""
        if message.kind not in ("join", "leave"):
            return
        joined, id = message.kind == "join", message.peer["id"]
        if self._there.get(id) is joined:
            raise Wrong(f"{id} has {message.kind}ed the crowd twice")
        self._there[id] = joined


async def watch(world: World) -> None:
    """Check every join and every leave."""
    while True:
        talk = await world.surely()
        try:
            presence = Presence()
            await talk.say(talk.dialect.subscribe(1, CROWD, {"presence": True}))
            until = world.now() + world.bounds.stay
            while world.now() < until:
                async with asyncio.timeout(PATIENCE):
                    presence.hear(await talk.hear())
                world.tally.deliveries += 1
        finally:
            world.part(talk)


async def doze(world: World) -> None:
    """Subscribe with presence and never read, while the hose fills the connection: the server limits what it keeps."""
    while True:
        talk = await world.surely(SMALL_ROOM)
        try:
            await talk.say(talk.dialect.subscribe(1, b"hose"), talk.dialect.subscribe(2, CROWD, {"presence": True}))
            await asyncio.sleep(world.chance.uniform(0.5, 1.0) * world.bounds.stay)
            until = world.now() + 0.1 * world.bounds.stay
            while world.now() < until:
                async with asyncio.timeout(PATIENCE):
                    message = await talk.hear()
                world.tally.seen["watchers asked to send WHO"] += message.kind == "notice"
        except ConnectionError:
            forgive(world, talk)
        finally:
            world.part(talk)


async def rush(world: World) -> None:
    """Join and leave, many times."""
    talk = await world.surely()
    try:
        for id in range(RUSH):
            await talk.say(talk.dialect.subscribe(id, CROWD), talk.dialect.command(id, "unsubscribe", CROWD))
        replies = 0
        while replies < 2 * RUSH:
            message = await talk.hear()
            if message.kind == "error":
                raise Wrong(f"coming and going was answered by {message.code}")
            replies += message.is_reply
    finally:
        world.part(talk)
