"""Reach every limit, again and again. At the end the limits themselves show that nothing is left."""

import asyncio
from contextlib import AsyncExitStack

from bench.soak.connections import Ended, Refused
from bench.soak.dialects import content
from bench.soak.tally import Wrong
from bench.soak.world import World

TOGETHER = 200
"""Commands that are sent at once."""


async def channels(world: World) -> int:
    """Publish to new channels up to the limit. Returns how many channels were free. On a busy machine the flood may
    last so long that its first channels are deleted meanwhile; these do not count."""
    talk = await world.surely()
    try:
        made, limit, start = 0, world.bounds.max_channels, world.now()
        while made <= limit:
            names = [world.names.new() for _ in range(TOGETHER)]
            await talk.say(*[talk.dialect.publish(id, name, content(1)) for id, name in enumerate(names)])
            outcomes = [(await talk.hear()) for _ in names]
            good = [name for name, outcome in zip(names, outcomes, strict=True) if outcome.kind == "ok"]
            for name in good:
                world.names.publish(name, world.now())
            made += len(good)
            if refused := {outcome.code for outcome in outcomes if outcome.kind == "error"}:
                if refused != {"limit"}:
                    raise Wrong(f"a channel too many was refused by {refused}")
                world.tally.seen["floods of channels"] += 1
                break
        if made > limit and world.now() - start < world.bounds.history_age:
            raise Wrong(f"there are {made} channels, and max-channels is {limit}")
        return min(made, limit)
    finally:
        talk.connection.close()


async def subscriptions(world: World) -> None:
    """Subscribe one client to as many channels as allowed, and disconnect."""
    talk = await world.surely()
    try:
        count = world.bounds.max_subscriptions_per_client
        await talk.say(*[talk.dialect.subscribe(id, world.names.new()) for id in range(count + 1)])
        outcomes = [await talk.hear() for _ in range(count + 1)]
        accepted = [outcome.kind for outcome in outcomes].count("ok")
        if accepted > count or {outcome.code for outcome in outcomes if outcome.kind != "ok"} - {"limit"}:
            raise Wrong(f"{accepted} of {count + 1} subscriptions of one client were accepted: {outcomes[-1]}")
        # Fewer are accepted if there are already as many channels as allowed.
        world.tally.seen["floods of subscriptions"] += accepted == count
    finally:
        world.part(talk)


async def connections(world: World, hold: float = 0.5) -> int:
    """Connect until the server refuses. Returns how many connections it accepted; they stay for ``hold`` seconds."""
    async with AsyncExitStack() as stack:
        count = 0
        while count <= world.bounds.max_connections:
            try:
                talk = await (world.line() if count % 2 else world.socket())
            except (Refused, Ended):
                world.tally.seen["floods of connections"] += 1
                await asyncio.sleep(hold)
                return count
            stack.callback(world.part, talk)
            count += 1
        raise Wrong(f"{count} connections were let in, and max-connections is {world.bounds.max_connections}")
