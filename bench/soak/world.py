"""State that all actors of the load share: addresses of the server, randomness, counters, and connecting."""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from bench.soak.bounds import Bounds
from bench.soak.connections import Address, Connection, LineConnection, Refused, WebConnection
from bench.soak.dialects import JSON, LINES, Dialect, Heard
from bench.soak.tally import Names, RecentEvents, Tally

RETRY = 0.3
"""Seconds until a refused client tries again."""


@dataclass(frozen=True)
class Talk:
    """A connection and its protocol."""

    connection: LineConnection | WebConnection
    dialect: Dialect

    async def say(self, *messages: bytes) -> None:
        await self.connection.say(*messages)

    async def hear(self) -> Heard:
        return self.dialect.read(await self.connection.hear())


@dataclass
class World:
    """``chance`` makes all random decisions: the same seed gives the same mix, but not the same timing."""

    lines: Address
    web: Address
    bounds: Bounds
    chance: random.Random
    tally: Tally = field(default_factory=Tally)
    names: Names = field(init=False)
    recent: dict[bytes, RecentEvents] = field(default_factory=dict)
    """By channel: of the channels that residents publish to."""
    fat: deque[tuple[float, bytes]] = field(default_factory=lambda: deque(maxlen=1000))
    """Large histories: when they were filled, and their channels."""

    def __post_init__(self) -> None:
        self.names = Names(self.bounds.history_age)

    async def line(self, room: int = 0) -> Talk:
        """A line connection, after its welcome. Raises Refused."""
        connection = await LineConnection.connect(self.tally, self.lines, room)
        try:
            await connection.greet()
        except BaseException:
            connection.close()
            raise
        return Talk(connection, LINES)

    async def socket(self, subprotocol: str = "", room: int = 0) -> Talk:
        """A WebSocket, after its welcome. Raises Refused."""
        connection = await WebConnection.connect(self.tally, self.web, room)
        try:
            await connection.greet(self.web, subprotocol)
        except BaseException:
            connection.close()
            raise
        return Talk(connection, LINES if subprotocol.endswith(".line") else JSON)

    async def bare(self, web: bool) -> Connection:
        """A connection on which nothing was sent yet."""
        return await Connection.connect(self.tally, self.web if web else self.lines)

    async def any(self, room: int = 0) -> Talk:
        """A connection over one of the three protocols. Raises Refused."""
        way = self.chance.randrange(4)
        if way == 0:
            return await self.line(room)
        return await self.socket(("", "sockbridge.v1.json", "sockbridge.v1.line")[way - 1], room)

    async def surely(self, room: int = 0) -> Talk:
        """Like ``any``, repeated until it succeeds."""
        while True:
            try:
                return await self.any(room)
            except Refused:
                self.tally.seen["residents refused"] += 1
                await asyncio.sleep(RETRY)

    def part(self, talk: Talk) -> None:
        """Disconnect without notice: half of such clients crash."""
        if self.chance.random() < 0.5:
            talk.connection.reset()
        else:
            talk.connection.close()

    def now(self) -> float:
        return monotonic()
