"""The Redis backplane on a real server: the contract."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.backplanes.contract import (
    BackplaneContract,
    FailingContract,
    KeepingContract,
    MessagesContract,
    SharedContract,
    TwoNodesContract,
)
from tests.redis.servers import ClusterGroup, RedisServer, SentinelGroup
from tests.redis.stage import TIMING, RedisStage

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module", params=["standalone", "sentinel", "cluster"])
def running_server(
    request: pytest.FixtureRequest, program: str
) -> Iterator[RedisServer | SentinelGroup | ClusterGroup]:
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        server = {"standalone": RedisServer, "sentinel": SentinelGroup, "cluster": ClusterGroup}[request.param](
            folder, program=program
        )
        server.start()
        yield server
        server.kill()


@pytest.fixture
def pass_lease(stages: tuple[RedisStage, RedisStage]) -> Callable[[], None]:
    def pass_lease() -> None:
        one, other = stages
        one.node.kill()
        ends = time.monotonic() + TIMING.lease + 3 * TIMING.renew
        other.wait_until(lambda: time.monotonic() > ends)

    return pass_lease


class TestContract(
    BackplaneContract, FailingContract, KeepingContract, MessagesContract, SharedContract, TwoNodesContract
):
    """What every backplane of several nodes must do."""
