"""Tests of the memory budget of the input pipeline."""

import pytest

from tests.fakes import Ticking
from tests.session.clients import welcomed
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.session.replies import ERRORS_PER_PIECE
from twistedsock.testing import FakeClient, FakeServer, LineClient

MANY = ["PING " + "x" * 50] * 100
WORDS = "server memory limit reached: try again later"


def stalled(server: FakeServer) -> LineClient:
    """A client that does not read, and whose input waits."""
    peer = welcomed(server)
    peer.outlet.room = 0
    peer.send("PING", *MANY)
    return peer


def test_counts_waiting_input_until_it_has_run(server: FakeServer) -> None:
    peer = stalled(server)
    assert server.context.memory_budget.used == 0  # one read is answered at once, all of it
    peer.send(*MANY)
    waits = server.context.memory_budget.used
    assert waits > 5_000
    peer.send(*MANY)
    assert server.context.memory_budget.used == 2 * waits
    peer.outlet.drain()
    server.turn()
    assert server.context.memory_budget.used == 0
    assert len(peer.received()) == 1 + 3 * len(MANY)


def test_releases_waiting_input_when_the_connection_is_lost(server: FakeServer) -> None:
    peer = stalled(server)
    peer.send(*MANY)
    peer.session.close(CloseReason.POLICY, b"enough")
    assert server.context.memory_budget.used
    peer.disconnect()
    peer.disconnect()
    assert server.context.memory_budget.used == 0


def test_closes_a_client_with_too_much_waiting_input(server: FakeServer) -> None:
    first, second, little = stalled(server), stalled(server), stalled(server)
    first.send(*MANY)
    server.context.memory_budget.limit = server.context.memory_budget.used
    little.send("PING waits")
    second.send(*MANY)
    assert (first.close_reason, second.close_reason, little.close_reason) == (None, CloseReason.TRY_AGAIN, None)
    assert server.context.memory_budget.used == server.context.memory_budget.limit
    second.outlet.drain()
    assert second.received()[-1] == f"ERR limit {WORDS}"
    for peer in (first, little):
        peer.outlet.drain()
        server.turn()
    assert len(first.received()) == 1 + 2 * len(MANY) and little.received()[-1] == "PONG waits"
    assert server.context.memory_budget.used == 0


def test_counts_input_behind_a_time_slice_once(server: FakeServer) -> None:
    peer = server.line_client()
    server.clock = Ticking(0.01)
    peer.send(*MANY)
    waits = server.context.memory_budget.used
    assert waits > 5_000
    server.turns.step()
    assert server.context.memory_budget.used == waits
    server.turn()
    assert server.context.memory_budget.used == 0 and len(peer.received()) == 1 + len(MANY)


@pytest.mark.parametrize("room", [True, False])
def test_counts_errors_that_the_client_does_not_read(server: FakeServer, room: bool) -> None:
    peer: FakeClient = server.json_client()
    peer.outlet.room = CHUNK_BYTES // 10
    if not room:
        server.context.memory_budget.limit = 10
    message = b'{"type":"publish","id":1,"channel":"not allowed","data":"x"}'
    peer.send_messages(*[message] * 20 * ERRORS_PER_PIECE)
    assert peer.close_reason is (None if room else CloseReason.TRY_AGAIN)
    assert (server.context.memory_budget.used > 0) is room
    peer.outlet.drain()
    server.turn()
    assert server.context.memory_budget.used == 0
    assert peer.received_bytes().count(b"bad-channel") == 20 * ERRORS_PER_PIECE or not room
