"""The backplane on a real server and a reactor of its own, on the stage of the contract."""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.epollreactor import EPollReactor

from tests.backplanes.contract import Stage
from tests.redis.servers import ClusterGroup, RedisServer, SentinelGroup
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.future import on_result
from twistedsock.redis.address import Address
from twistedsock.redis.backplane import RedisBackplane
from twistedsock.redis.cluster import ClusterShards
from twistedsock.redis.connection import Surroundings, Timing
from twistedsock.redis.link import RedisLink
from twistedsock.redis.sentinel import Sentinels
from twistedsock.redis.shards import OneShard, Shards
from twistedsock.redis.wire import Names

REACTOR = EPollReactor()
"""Turned by the tests, so that they see every turn."""

# A busy machine keeps a Redis from answering for more than 0.3 seconds at times.
TIMING = Timing(
    probe=1.0, connect=2.0, first_retry=0.01, longest_retry=0.05, unsure=5.0, lease=0.6, renew=0.1, check=0.3
)

MAX_SECONDS = 10.0

_NUMBERS = count(1)


class Log:
    """The reports to the operator."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def connected(self, server: str) -> None:
        self.lines.append(f"connected to {server}")

    def unavailable(self, reason: str) -> None:
        self.lines.append(f"unavailable: {reason}")

    def danger(self, sentence: str) -> None:
        self.lines.append(f"danger: {sentence}")


class ConnectedNode:
    """A backplane on a real server, and its connection."""

    def __init__(self, address: Address, name: bytes, timing: Timing = TIMING, **limits: Any) -> None:
        self.log = Log()
        arguments = (lambda: "", Surroundings(REACTOR, lambda: 1.0, timing), self.log)
        names = Names(0, bool(address.nodes))
        shards: Shards
        if address.nodes:
            shards = ClusterShards(address, names, *arguments)
        else:
            locator = Sentinels(address, *arguments) if address.sentinels else None
            self.link = RedisLink(address, *arguments, locator)
            shards = OneShard(self.link, REACTOR.callLater, self.log.lines.append)
        self.shards = shards
        self.backplane = RedisBackplane(
            shards,
            name,
            names,
            Limits(**limits),
            REACTOR.callLater,
            self.log.lines.append,
            lambda: b"registry%d" % next(_NUMBERS),
            timing,
        )

    def kill(self) -> None:
        """Close the connection without a message to the other nodes, as a process that is killed."""
        self.shards.stop()
        REACTOR.iterate(0.01)


def turn_until(condition: Callable[[], object], log: Log, seconds: float = MAX_SECONDS) -> None:
    """Turn the reactor until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.lines
        REACTOR.iterate(0.01)


class RedisStage(Stage):
    """One node of a real server."""

    def __init__(self, server: RedisServer | SentinelGroup | ClusterGroup, name: bytes) -> None:
        self.server = server
        self.peers: list[RedisStage] = []
        """The other nodes of a test."""
        self.node = ConnectedNode(server.address, name)
        self._asked = 0
        self._is_failing = False
        super().__init__(self.node.backplane)

    def wait_until(self, condition: Callable[[], object]) -> None:
        turn_until(condition, self.node.log)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.backplane.is_ready)
        self.settle()

    def step(self) -> bool:
        REACTOR.iterate(0.01)
        return self._asked > sum(entry[0] == "answered" for entry in self.story)

    def settle(self) -> None:
        """Wait for the answers of this node, and for the messages that precede the answer to one more question."""
        for stage in (self, self, *self.peers):
            stage.wait_for_answer()
        if self._is_failing:
            self._is_failing = False
            self.server.ask("CONFIG", "SET", "maxmemory", "0")

    def wait_for_answer(self) -> None:
        answers: list[object] = []
        on_result(self.backplane.members(b"settle"), answers.append)
        names = [b"settle%d" % number for number in range(8)]  # at least one on each server of a Cluster
        for name in names:
            on_result(self.backplane.offset_before(name, b"", 0), answers.append)
        self.wait_until(lambda: len(answers) > len(names))

    def fail_next(self) -> None:
        """Let the server reject commands that need memory."""
        self._is_failing = True
        self.server.ask("CONFIG", "SET", "maxmemory", "1")

    def publish(self, channel: bytes, *payloads: bytes, by: bytes = b"p1", settle: bool = True) -> None:
        self._asked += 1
        super().publish(channel, *payloads, by=by, settle=settle or self._is_failing)
