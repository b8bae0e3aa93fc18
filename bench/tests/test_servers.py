"""The servers that sockbridge is compared with start, deliver every event, and leave nothing behind. No test here
measures speed."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.bare import Floor, SendLoop
from bench.contestant import SOCKETIO, TCP, WEBSOCKET
from bench.measuring import Measuring
from bench.peers.bun import Bun
from bench.peers.crossbar import Crossbar
from bench.peers.mosquitto import MosquittoServer
from bench.peers.nats import NatsServer
from bench.peers.nchan import NchanServer
from bench.peers.process import NotStarted, Server, running
from bench.peers.redis import RedisServer
from bench.peers.sockbridge import Sockbridge
from bench.peers.socketio import SocketIoServer
from bench.peers.websockets import Websockets
from bench.peers.ws import Ws
from bench.workloads import WORKLOADS, Kind, Workload
from twistedsock.bench.loads import ChannelScenario

pytestmark = pytest.mark.end_to_end

SERVERS: list[Server] = [
    *(Sockbridge(), NatsServer(), RedisServer(), MosquittoServer(), Bun(), NchanServer(), Ws(), SocketIoServer()),
    *(Websockets(), Floor()),
    # It takes minutes to install, so it is optional.
    *(server for server in [Crossbar()] if not server.missing()),
]


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as server:
        yield server


@pytest.mark.parametrize(
    "load",
    [
        {"readers": 3, "events": 300},
        {"readers": 2, "events": 100, "size": 300},
        {"channels": 5, "events": 100},
        {"publishers": 3, "events": 100},
        {"readers": 3, "events": 10, "rate": 50.0},
    ],
    ids=["fan-out", "longer", "pairs", "many-to-one", "paced"],
)
def test_every_reader_gets_every_event(server: Server, load: dict[str, float]) -> None:
    """Over each protocol, and from one to the other. The generator raises Wrong for every byte that is missing."""
    targets = server.targets()
    assert targets.keys() == server.wires
    for publishing, reading in [(TCP, TCP), (WEBSOCKET, WEBSOCKET), (TCP, WEBSOCKET), (SOCKETIO, SOCKETIO)]:
        if {publishing, reading} <= server.wires:
            shape = ChannelScenario(targets[publishing], targets[reading], **load)  # type: ignore[arg-type]
            outcome = shape.run(f"test-{time.monotonic_ns()}")
            assert outcome.deliveries == shape.channels * shape.readers * shape.publishers * shape.events
            assert len(outcome.latencies) == (outcome.deliveries if shape.rate else 0)


@pytest.mark.parametrize(
    "workload",
    [workload for workload in WORKLOADS if workload.kind in (Kind.PACKETS, Kind.CONNECTIONS)],
    ids=lambda workload: workload.name,
)
def test_pairs_and_connections_can_be_measured(server: Server, workload: Workload) -> None:
    if workload.has(server):
        found = Measuring(0.05).measure(workload.small(), server, lambda part: None)
        assert float(found["rate"]) > 0 and float(found["cost"]) > 0


@pytest.mark.parametrize("workload", [workload for workload in WORKLOADS if workload.has(SendLoop())][::4])
def test_the_loop_in_c_sends_what_it_receives(workload: Workload) -> None:
    with running(SendLoop()) as server:
        assert float(Measuring(0.05).measure(workload.small(), server, lambda part: None)["rate"]) > 0


@pytest.mark.parametrize("state", [True, False])
def test_subscribers_come_back_after_a_restart(state: bool) -> None:
    (workload,) = (workload for workload in WORKLOADS if workload.kind is Kind.RESTART)
    with running(Sockbridge("--state", "state") if state else Floor()) as server:
        found = Measuring(0.05).measure(workload.small(), server, lambda part: None)
    assert (found["pages"], found["missed"]) == (40, 5 if state else 0)
    assert 0 < float(found["ping"]) <= float(found["worst ping"])


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_a_server_reports_its_version(server: Server) -> None:
    assert re.search(r"\d+\.\d+", server.version())


def test_stopping_a_server_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running(NatsServer()) as server:
        pids = server.pids()
        assert pids
        assert list(tmp_path.iterdir())
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not list(tmp_path.iterdir())
    assert server.pids() == ()
    server.stop()


def test_a_server_that_does_not_start_reports_the_reason() -> None:
    with pytest.raises(NotStarted, match="sockbridge ended with 1 instead of listening(.|\n)*no-such-option"):
        Sockbridge("--no-such-option").start()
