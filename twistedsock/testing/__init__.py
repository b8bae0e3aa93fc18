"""An in-memory server for tests, yours and ours: without sockets, clocks and a reactor.

``FakeServer`` is a whole server; ``line_client()`` and ``json_client()`` connect clients whose sockets can stall;
``turn()`` is a turn of the reactor. ``LateBackplane`` answers late, in bursts, and fails on demand.
"""

from twistedsock.testing.backplane import LateBackplane
from twistedsock.testing.clients import (
    FakeClient,
    JsonClient,
    JsonLineClient,
    LineClient,
    MessageClient,
    limit_session,
    read_frames,
)
from twistedsock.testing.outlet import ENDS, FakeOutlet, Turns
from twistedsock.testing.server import FakePolicy, FakeServer

__all__ = [
    "ENDS",
    "FakeClient",
    "FakeOutlet",
    "FakePolicy",
    "FakeServer",
    "JsonClient",
    "JsonLineClient",
    "LateBackplane",
    "LineClient",
    "MessageClient",
    "Turns",
    "limit_session",
    "read_frames",
]
