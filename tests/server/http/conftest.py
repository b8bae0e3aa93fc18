"""Fixtures of the tests of HTTP."""

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.server.http.clients import APIClient, MakeAPI, Wire
from twistedsock.testing import FakeServer


@pytest.fixture
def make_api(reactor: Clock, wire: Wire) -> MakeAPI:
    """Build a client of a new server: ``make_api(policy=None, **limits)``."""

    def make(**options: Any) -> APIClient:
        return APIClient(FakeServer(**options), reactor, wire)

    return make
