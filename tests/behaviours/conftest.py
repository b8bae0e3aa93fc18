"""Fixtures that run each test for every pair of protocols, and with a fast and a slow backplane."""

from collections.abc import Callable

import pytest

from tests.behaviours.protocol_clients import KINDS, ProtocolClient
from twistedsock.testing import FakeServer


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    late: bool = request.param
    return late


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late, history_events=5)


@pytest.fixture(params=KINDS)
def connect_publisher(request: pytest.FixtureRequest) -> Callable[[FakeServer], ProtocolClient]:
    connect: Callable[[FakeServer], ProtocolClient] = KINDS[request.param]
    return connect


@pytest.fixture(params=KINDS)
def connect_reader(request: pytest.FixtureRequest) -> Callable[[FakeServer], ProtocolClient]:
    connect: Callable[[FakeServer], ProtocolClient] = KINDS[request.param]
    return connect


@pytest.fixture
def publisher(server: FakeServer, connect_publisher: Callable[[FakeServer], ProtocolClient]) -> ProtocolClient:
    return connect_publisher(server)


@pytest.fixture
def reader(server: FakeServer, connect_reader: Callable[[FakeServer], ProtocolClient]) -> ProtocolClient:
    return connect_reader(server)
