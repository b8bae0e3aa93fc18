"""What every actor of the load shares: the bridge's addresses, chance, counts, and how one gets in."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from bench.soak.bounds import Bounds
from bench.soak.connections import Address, Connection, LineConnection, Refused, WebConnection
from bench.soak.dialects import JSON, LINES, Dialect, Heard
from bench.soak.tally import Names, Tally

RETRY = 0.3
"""Seconds after which one who was refused tries again."""


@dataclass(frozen=True)
class Talk:
    """A connection and what is spoken on it."""

    connection: LineConnection | WebConnection
    dialect: Dialect

    async def say(self, *messages: bytes) -> None:
        await self.connection.say(*messages)

    async def hear(self) -> Heard:
        return self.dialect.read(await self.connection.hear())


@dataclass
class World:
    """``chance`` decides all that is left to it: the same seed gives the same mix, though not the same timing."""

    lines: Address
    web: Address
    bounds: Bounds
    chance: random.Random
    tally: Tally = field(default_factory=Tally)
    names: Names = field(init=False)
    fat: deque[tuple[float, bytes]] = field(default_factory=lambda: deque(maxlen=1000))
    """Large logs: when they were filled, and their channels."""

    def __post_init__(self) -> None:
        self.names = Names(self.bounds.history_age)

    async def line(self, room: int = 0) -> Talk:
        """A greeted connection for lines. Raises Refused."""
        connection = await LineConnection.connect(self.tally, self.lines, room)
        try:
            await connection.greet()
        except BaseException:
            connection.close()
            raise
        return Talk(connection, LINES)

    async def socket(self, subprotocol: str = "", room: int = 0) -> Talk:
        """A greeted WebSocket. Raises Refused."""
        connection = await WebConnection.connect(self.tally, self.web, room)
        try:
            await connection.greet(self.web, subprotocol)
        except BaseException:
            connection.close()
            raise
        return Talk(connection, LINES if subprotocol.endswith(".line") else JSON)

    async def bare(self, web: bool) -> Connection:
        """A connection on which nothing was said yet."""
        return await Connection.connect(self.tally, self.web if web else self.lines)

    async def any(self, room: int = 0) -> Talk:
        """One of the three ways to talk. Raises Refused."""
        way = self.chance.randrange(4)
        if way == 0:
            return await self.line(room)
        return await self.socket(("", "sockbridge.v1.json", "sockbridge.v1.line")[way - 1], room)

    async def surely(self, room: int = 0) -> Talk:
        """As ``any``, as often as it takes."""
        while True:
            try:
                return await self.any(room)
            except Refused:
                self.tally.seen["residents refused"] += 1
                await asyncio.sleep(RETRY)

    def part(self, talk: Talk) -> None:
        """Go without a word: half of all that go this way crash."""
        if self.chance.random() < 0.5:
            talk.connection.reset()
        else:
            talk.connection.close()

    def now(self) -> float:
        return monotonic()
