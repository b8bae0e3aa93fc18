"""All actors together, and the record of broken promises."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from bench.soak import crowd, floods, rude, visits
from bench.soak.connections import Refused
from bench.soak.residents import residents
from bench.soak.tally import Wrong
from bench.soak.world import World

VISITS = 240.0
"""Visits per second."""

MAX_AT_ONCE = 180
"""Maximum number of visitors at the same time: fewer come if the server is slow."""

PATIENCE = 30.0
"""Maximum seconds of a visit on a busy machine."""

Visit = Callable[[World], Coroutine[Any, Any, object]]

KINDS: dict[Visit, int] = {
    visits.talk: 40,
    visits.page: 12,
    visits.idle: 8,
    visits.fat: 2,
    rude.refused: 12,
    rude.cut_short: 12,
    rude.nonsense: 8,
    rude.bad_frames: 5,
    rude.fragments: 3,
    rude.wrong_door: 2,
}
"""How often each kind of visit happens, relative to the other kinds."""

FLOODS: tuple[Visit, ...] = (floods.channels, floods.subscriptions, floods.connections, crowd.rush)


class Load:
    """Call ``start`` in a running loop. ``stop`` drops all connections."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._staying: set[asyncio.Task[None]] = set()
        self._visiting: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        world = self._world
        for resident in residents(world):
            self._stay(resident)
        for _ in range(2):
            self._stay(lambda: crowd.watch(world))
            self._stay(lambda: crowd.doze(world))
        self._stay(self._visitors)
        for number, flood in enumerate(FLOODS):
            self._stay(partial(self._again, flood, (number + 1) / len(FLOODS)))

    async def stop(self) -> None:
        tasks = [*self._staying, *self._visiting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stay(self, resident: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._staying.add(asyncio.create_task(self._forever(resident)))

    async def _forever(self, resident: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self._judge(_name_of(resident), resident)
            await asyncio.sleep(0.5)

    async def _judge(self, name: str, actor: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """An error of an actor is a fault of the server: it broke a promise, closed the connection, or did not
        answer."""
        try:
            await actor()
        except Wrong as wrong:
            self._world.tally.blame(f"{name}: {wrong}")
        except Exception as error:
            self._world.tally.blame(f"{name}: {type(error).__name__} {error} in {_way_of(error)}")

    async def _visitors(self) -> None:
        world, visiting = self._world, self._visiting
        due = world.now()
        while True:
            due = max(due + world.chance.expovariate(VISITS), world.now() - 1.0)
            await asyncio.sleep(max(0.0, due - world.now()))
            if len(visiting) < MAX_AT_ONCE:
                visit = world.chance.choices(list(KINDS), list(KINDS.values()))[0]
                task = asyncio.create_task(self._judge(_name_of(visit), partial(self._visit, visit)))
                visiting.add(task)
                task.add_done_callback(visiting.discard)

    async def _visit(self, visit: Visit) -> None:
        world = self._world
        world.tally.visits += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await visit(world)
        except Refused:
            world.tally.seen["visitors refused"] += 1

    async def _again(self, flood: Visit, part: float) -> None:
        """Repeat a flood, each at its own time within the period."""
        period = self._world.bounds.flood_every
        await asyncio.sleep(period * part)
        while True:
            await self._judge(_name_of(flood), partial(flood, self._world))
            await asyncio.sleep(period)


def _name_of(actor: Any) -> str:
    return getattr(getattr(actor, "func", actor), "__name__", "actor")


def _way_of(error: Exception) -> str:
    """The functions through which an error passed."""
    place = error.__traceback__
    names = []
    while place is not None:
        names.append(place.tb_frame.f_code.co_name)
        place = place.tb_next
    return " > ".join(names[2:])
