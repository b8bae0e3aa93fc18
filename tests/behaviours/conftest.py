"""Every behaviour is expected of each pair of dialects, and over each kind of backplane."""

from collections.abc import Callable

import pytest

from tests.behaviours.voices import KINDS, Voice
from twistedsock.testing import FakeServer


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    late: bool = request.param
    return late


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late, history_events=5)


@pytest.fixture(params=KINDS)
def publisher_meets(request: pytest.FixtureRequest) -> Callable[[FakeServer], Voice]:
    meets: Callable[[FakeServer], Voice] = KINDS[request.param]
    return meets


@pytest.fixture(params=KINDS)
def reader_meets(request: pytest.FixtureRequest) -> Callable[[FakeServer], Voice]:
    meets: Callable[[FakeServer], Voice] = KINDS[request.param]
    return meets


@pytest.fixture
def publisher(server: FakeServer, publisher_meets: Callable[[FakeServer], Voice]) -> Voice:
    return publisher_meets(server)


@pytest.fixture
def reader(server: FakeServer, reader_meets: Callable[[FakeServer], Voice]) -> Voice:
    return reader_meets(server)
