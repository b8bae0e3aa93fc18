"""Fixtures that run each test for every pair of protocols, and with a fast and a slow backplane."""

import pytest

from tests.behaviours.protocol_clients import KINDS, Connect, ProtocolClient
from twistedsock.testing import FakeServer


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late, history_events=5)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def connect_publisher(request: pytest.FixtureRequest) -> Connect:
    return request.param


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def connect_reader(request: pytest.FixtureRequest) -> Connect:
    return request.param


@pytest.fixture
def publisher(server: FakeServer, connect_publisher: Connect) -> ProtocolClient:
    return connect_publisher(server)


@pytest.fixture
def reader(server: FakeServer, connect_reader: Connect) -> ProtocolClient:
    return connect_reader(server)
