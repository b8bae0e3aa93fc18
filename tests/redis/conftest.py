"""A real server for each test module, empty for each test.

REDIS_SERVERS names the programs of other servers to test with, separated by colons.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.redis.servers import RedisServer

PROGRAMS = os.environ.get("REDIS_SERVERS", "redis-server").split(":")


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def running_server(program: str) -> Iterator[RedisServer]:
    with TemporaryDirectory() as directory:  # the path of a socket must be short
        server = RedisServer(Path(directory), program=program)
        server.start()
        yield server
        server.kill()


@pytest.fixture
def server(running_server: RedisServer) -> RedisServer:
    running_server.ask("FLUSHALL")
    return running_server


@pytest.fixture
def stages(server: RedisServer) -> Iterator[tuple[Any, Any]]:
    from tests.redis.stage import RedisStage  # not before the contract is registered

    one, other = RedisStage(server, b"n1"), RedisStage(server, b"n2")
    one.peers, other.peers = [other], [one]
    for stage in (one, other):
        stage.wait_until_ready()
    yield one, other
    for stage in (one, other):
        stage.node.kill()


@pytest.fixture
def stage(stages: tuple[Any, Any]) -> Any:
    return stages[0]


@pytest.fixture
def new_redis(program: str) -> Iterator[Callable[..., RedisServer]]:
    """Makes a server with some options, which is killed at the end."""
    servers: list[RedisServer] = []
    with TemporaryDirectory() as directory:

        def start(*options: str) -> RedisServer:
            servers.append(RedisServer(Path(directory), *options, program=program))
            servers[-1].start()
            return servers[-1]

        yield start
        for server in servers:
            server.kill()


@pytest.fixture
def make_nodes() -> Iterator[Callable[..., Any]]:
    """Makes nodes, whose connections are closed at the end."""
    from tests.redis.nodes import Nodes, Timing  # not before the contract is registered
    from tests.redis.stage import REACTOR, TIMING

    made: list[Nodes] = []

    def make(redis: Any, count: int = 2, timing: Timing = TIMING) -> Nodes:
        made.append(Nodes(redis, count, timing))
        return made[-1]

    yield make
    for nodes in made:
        nodes.kill()
    REACTOR.iterate(0)
