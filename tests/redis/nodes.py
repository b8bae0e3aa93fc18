"""Whole servers without sockets for clients, on a real Redis, and what the tests read in their lines."""

import time
from collections.abc import Callable
from typing import Protocol

from tests.redis.servers import RedisServer
from tests.redis.stage import MAX_SECONDS, TIMING, ConnectedNode, turn_until
from twistedsock.redis.address import Address
from twistedsock.redis.connection import Timing
from twistedsock.testing import FakeServer, LineClient

SLOW = Timing(probe=5, connect=5, first_retry=0.01, longest_retry=0.05, unsure=0.3, lease=15, renew=3, check=30)
"""Nothing happens by itself during a test."""


class HasAddress(Protocol):
    """A Redis, or several."""

    @property
    def address(self) -> Address: ...


class Nodes:
    """Servers on one Redis. Ids begin with n1, n2 …"""

    def __init__(self, redis: HasAddress, count: int = 2, timing: Timing = TIMING) -> None:
        self.redis = redis
        self.connections: list[ConnectedNode] = []
        self.servers: list[FakeServer] = []
        for _ in range(count):
            self.add(timing)

    def add(self, timing: Timing = TIMING, address: Address | None = None) -> int:
        """Start another server, and wait until it is ready. Returns its number."""
        number = self.add_unready(address or self.redis.address, timing)
        self.until(lambda: self.connections[number].backplane.is_ready)
        return number

    def add_unready(self, address: Address, timing: Timing = TIMING) -> int:
        connection = ConnectedNode(address, b"n%d" % (len(self.servers) + 1), timing)
        server = FakeServer(backplane=connection.backplane)
        server.wall = time.time()
        self.connections.append(connection)
        self.servers.append(server)
        return len(self.servers) - 1

    def kill(self) -> None:
        for connection in self.connections:
            connection.kill()

    def until(self, condition: Callable[[], object], seconds: float = MAX_SECONDS) -> None:
        def turn() -> object:
            for server in self.servers:
                server.turn()
            return condition()

        turn_until(turn, self.connections[0].log, seconds)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def are_ready(self) -> bool:
        return all(connection.backplane.is_ready for connection in self.connections)

    def wait_for_loss(self) -> None:
        """Wait until all nodes have noticed it."""
        self.until(lambda: not any(connection.backplane.is_ready for connection in self.connections))

    def client(self, node: int, *commands: str) -> LineClient:
        client = self.servers[node].line_client()
        self.send(client, *commands)
        return client

    def send(self, client: LineClient, *commands: str) -> list[str]:
        """The lines up to the reply to the last of some commands."""
        client.send(*commands)
        lines: list[str] = []
        replies = 0

        def is_answered() -> bool:
            nonlocal replies
            received = client.received()
            lines.extend(received)
            replies += sum(line.startswith(("OK", "ERR")) for line in received)
            return replies >= len(commands)

        self.until(is_answered)
        return lines

    def lines(self, client: LineClient, count: int) -> list[str]:
        """The next lines of a client."""
        lines: list[str] = []

        def are_there() -> bool:
            lines.extend(client.received())
            return len(lines) >= count

        self.until(are_there)
        return lines


def payloads(lines: list[str]) -> list[str]:
    return [line.rpartition(" ")[2] for line in lines if line.startswith("MSG")]


def epoch_of(line: str) -> str:
    """The epoch in a reply to SUB."""
    return line.partition("epoch=")[2].split(" ")[0]


def restart(nodes: Nodes, redis: RedisServer) -> None:
    redis.kill()
    nodes.wait_for_loss()
    redis.start()
    nodes.until(nodes.are_ready)
