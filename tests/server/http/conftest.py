"""Fixtures of the tests of HTTP."""

from typing import Any

import pytest

from tests.fakes import FakeReactor
from tests.server.http.clients import APIClient, MakeAPI
from twistedsock.testing import FakeServer


@pytest.fixture
def make_api(reactor: FakeReactor) -> MakeAPI:
    """Build a client of a new server: ``make_api(policy=None, **limits)``."""

    def make(**options: Any) -> APIClient:
        return APIClient(FakeServer(**options), reactor)

    return make
