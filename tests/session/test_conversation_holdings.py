"""What waits to be run is counted among what all hold, and who asks for more than there is room for is turned away."""

import pytest

from twistedsock.errors import CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.session.replies import REFUSED_TOGETHER
from twistedsock.testing import FakeClient, FakeServer, LineClient

MANY = ["PING " + "x" * 50] * 100
WORDS = "this server holds as much unfinished input and unread output as it may, try again later"


def stalled(hall: FakeServer) -> LineClient:
    """A peer that does not read, and has said much that waits."""
    peer = hall.line_peer()
    peer.hears()
    peer.outlet.room = 0
    peer.says("PING", *MANY)
    return peer


def test_what_waits_is_counted_until_it_has_been_run() -> None:
    hall = FakeServer()
    peer = stalled(hall)
    assert hall.context.memory_budget.held == 0  # one read is answered at once, all of it
    peer.says(*MANY)
    waits = hall.context.memory_budget.held
    assert waits > 5_000
    peer.says(*MANY)
    assert hall.context.memory_budget.held == 2 * waits
    peer.outlet.drain()
    hall.turn()
    assert hall.context.memory_budget.held == 0
    assert len(peer.hears()) == 1 + 3 * len(MANY)


def test_what_waits_is_given_back_when_the_peer_goes() -> None:
    hall = FakeServer()
    peer = stalled(hall)
    peer.says(*MANY)
    peer.session.dismiss(CloseReason.POLICY, b"enough")
    assert hall.context.memory_budget.held
    peer.leaves()
    peer.leaves()
    assert hall.context.memory_budget.held == 0


def test_who_waits_with_too_much_is_turned_away() -> None:
    hall = FakeServer()
    first, second, little = stalled(hall), stalled(hall), stalled(hall)
    first.says(*MANY)
    hall.context.memory_budget.most = hall.context.memory_budget.held
    little.says("PING waits")
    second.says(*MANY)
    assert (first.ending, second.ending, little.ending) == (None, CloseReason.TRY_AGAIN, None)
    assert hall.context.memory_budget.held == hall.context.memory_budget.most
    second.outlet.drain()
    assert second.hears()[-1] == f"ERR limit {WORDS}"
    for peer in (first, little):
        peer.outlet.drain()
        hall.turn()
    assert len(first.hears()) == 1 + 2 * len(MANY) and little.hears()[-1] == "PONG waits"
    assert hall.context.memory_budget.held == 0


def test_what_is_left_when_its_time_is_over_is_counted_once() -> None:
    """It becomes less from turn to turn."""
    hall = FakeServer()
    peer = hall.line_peer()
    session_now = hall.broker.clock

    def clock() -> float:
        hall.now += 0.01
        return session_now()

    hall.broker.clock = clock
    peer.says(*MANY)
    waits = hall.context.memory_budget.held
    assert waits > 5_000
    hall.turns.step()
    assert hall.context.memory_budget.held == waits
    hall.turn()
    assert hall.context.memory_budget.held == 0 and len(peer.hears()) == 1 + len(MANY)


@pytest.mark.parametrize("room", [True, False])
def test_refusals_that_nobody_reads_are_counted(room: bool) -> None:
    """The tags in them are kept."""
    hall = FakeServer()
    peer: FakeClient = hall.json_peer()
    peer.outlet.room = CHUNK_BYTES // 10
    if not room:
        hall.context.memory_budget.most = 10
    message = b'{"type":"publish","id":1,"channel":"not allowed","data":"x"}'
    peer.receives(*[message] * 20 * REFUSED_TOGETHER)
    assert peer.ending is (None if room else CloseReason.TRY_AGAIN)
    assert (hall.context.memory_budget.held > 0) is room
    peer.outlet.drain()
    hall.turn()
    assert hall.context.memory_budget.held == 0
    assert peer.raw().count(b"bad-channel") == 20 * REFUSED_TOGETHER or not room
