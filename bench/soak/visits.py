"""Polite visitors: they connect, send a few commands, read every answer, and disconnect. They create many channels."""

import asyncio

from bench.soak.connections import Connection
from bench.soak.dialects import BIG, LINES, Dialect, content
from bench.soak.tally import Tally, Wrong
from bench.soak.world import Talk, World

CROWD = b"crowd"
"""The channel on which watchers see visitors join and leave."""

FAT = 16
"""Large events that one visitor publishes at once."""


async def talk(world: World) -> None:
    """A few commands, over any protocol; one reply for each, in order."""
    talk = await world.any()
    try:
        count = world.chance.randint(1, 8)
        together = world.chance.random() < 0.5
        name = world.names.new()
        said = [_something(world, talk.dialect, id, name) for id in range(1, count + 1)]
        if together:
            await talk.say(*said)
        for id, message in enumerate(said, 1):
            if not together:
                await talk.say(message)
            await _answer(world.tally, talk, id)
        world.names.publish(name, world.now())
        await _go(world, talk)
    finally:
        talk.connection.close()


def _something(world: World, dialect: Dialect, id: int, name: bytes) -> bytes:
    """One command, usually about a channel that no other client uses."""
    chance = world.chance
    kind = chance.randrange(12)
    if kind < 4:
        return dialect.publish(id, name, content(chance.randrange(1, 400)))
    if kind < 6:
        return dialect.subscribe(id, name, {"presence": True} if chance.random() < 0.3 else {"last": 3})
    if kind < 8:
        return dialect.command(id, ("history", "who")[kind - 6], name)
    if kind == 8:
        return dialect.subscribe(id, CROWD)
    if kind == 9:
        return dialect.command(id, "nick", nick=f"visitor-{chance.randrange(1000)}")
    if kind == 10:
        return dialect.command(id, chance.choice(("ping", "info")))
    # Mistakes are answered like anything else.
    return dialect.command(
        id, chance.choice(("unsubscribe", "who")), b"not.subscribed" if chance.random() < 0.5 else b"a*"
    )


async def _answer(tally: Tally, talk: Talk, id: int) -> int:
    """Read the reply. Returns the number of events before it."""
    events = 0
    while not (message := await talk.hear()).is_reply:
        events += message.kind == "event"
    events += len(message.events)
    tally.deliveries += events
    if talk.dialect is not LINES and message.id != id:
        raise Wrong(f"the reply to {message.id} arrived instead of that to {id}")
    if message.kind == "error":
        tally.seen[f"error {message.code}"] += 1
    return events


async def _go(world: World, talk: Talk) -> None:
    way = world.chance.randrange(4)
    if way == 0:
        await talk.connection.leave()
    elif way == 1:
        talk.connection.finish()
        await talk.connection.to_the_end()
    else:
        world.part(talk)


async def fat(world: World) -> None:
    """Fill a history: this reaches the limit of all histories together."""
    talk = await world.any()
    try:
        name = world.names.new()
        await talk.say(*[talk.dialect.publish(number, name, content(number, BIG)) for number in range(1, FAT + 1)])
        for number in range(1, FAT + 1):
            await _answer(world.tally, talk, number)
        world.tally.events += FAT
        world.names.publish(name, world.now())
        world.fat.append((world.now(), name))
        await _look_back(world, talk)
        await _go(world, talk)
    finally:
        talk.connection.close()


async def _look_back(world: World, talk: Talk) -> None:
    """Whether the history of an earlier visitor was evicted early: then the limit of all histories was reached."""
    while world.fat[0][0] < world.now() - 0.7 * world.bounds.history_age:
        world.fat.popleft()
    await talk.say(talk.dialect.command(1, "history", world.fat[0][1]))
    if await _answer(world.tally, talk, 1) < FAT:
        world.tally.seen["logs gave way to history-total-bytes"] += 1


async def page(world: World) -> None:
    """Request the page like a browser, at times over a kept connection."""
    connection = await world.bare(web=True)
    try:
        host = f"{world.web[0]}:{world.web[1]}"
        for _ in range(world.chance.randint(1, 3)):
            path, status = world.chance.choice(
                (
                    ("/", 200),
                    ("/bridge.json", 200),
                    ("/sockbridge.js", 200),
                    ("/page.css", 200),
                    ("/nowhere", 404),
                    ("/ws", 426),
                )
            )
            await connection.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = await connection.until(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 503 "):
                world.tally.seen["refused 503"] += 1
                return
            if not head.startswith(b"HTTP/1.1 %d " % status):
                raise Wrong(f"{path} was answered by {head[:60]!r}")
            await _body(connection, head)
    finally:
        connection.close()


async def _body(connection: Connection, head: bytes) -> None:
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    size = int(lengths[0].partition(b":")[2])
    while len(connection.buffer) < size:
        await connection.fill()
    connection.take(size)


async def idle(world: World) -> None:
    """Connect, send nothing, and disconnect."""
    talk = await world.any()
    try:
        await asyncio.sleep(world.chance.uniform(0.0, 0.1) * world.bounds.stay)
    finally:
        world.part(talk)
