"""Every behaviour is expected of each pair of dialects, and over each kind of backplane."""

from collections.abc import Callable

import pytest

from tests.behaviours.voices import KINDS, Voice
from twistedsock.testing import Hall


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    late: bool = request.param
    return late


@pytest.fixture
def hall(late: bool) -> Hall:
    return Hall(late, history_events=5)


@pytest.fixture(params=KINDS)
def publisher_meets(request: pytest.FixtureRequest) -> Callable[[Hall], Voice]:
    meets: Callable[[Hall], Voice] = KINDS[request.param]
    return meets


@pytest.fixture(params=KINDS)
def reader_meets(request: pytest.FixtureRequest) -> Callable[[Hall], Voice]:
    meets: Callable[[Hall], Voice] = KINDS[request.param]
    return meets


@pytest.fixture
def publisher(hall: Hall, publisher_meets: Callable[[Hall], Voice]) -> Voice:
    return publisher_meets(hall)


@pytest.fixture
def reader(hall: Hall, reader_meets: Callable[[Hall], Voice]) -> Voice:
    return reader_meets(hall)
