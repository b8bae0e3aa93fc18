"""Fixtures of the Python client: its core on a fake server, without sockets and clocks."""

import pytest

from tests.python_client.link import Link
from twistedsock.testing import FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def link(server: FakeServer) -> Link:
    """A client that is connected to ``server``."""
    link = Link(server)
    link.connect()
    return link
