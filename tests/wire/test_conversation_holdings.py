"""What waits to be run is counted among what all hold, and who asks for more than there is room for is turned away."""

import pytest

from twistedsock.core.dialect import Ending
from twistedsock.core.limits import CHUNK_BYTES
from twistedsock.core.speaker import REFUSED_TOGETHER
from twistedsock.testing import FakePeer, Hall, LinePeer

MANY = ["PING " + "x" * 50] * 100
WORDS = "this server holds as much unfinished input and unread output as it may, try again later"


def stalled(hall: Hall) -> LinePeer:
    """A peer that does not read, and has said much that waits."""
    peer = hall.line_peer()
    peer.hears()
    peer.outlet.room = 0
    peer.says("PING", *MANY)
    return peer


def test_what_waits_is_counted_until_it_has_been_run() -> None:
    hall = Hall()
    peer = stalled(hall)
    assert hall.bridge.holdings.held == 0  # one read is answered at once, all of it
    peer.says(*MANY)
    waits = hall.bridge.holdings.held
    assert waits > 5_000
    peer.says(*MANY)
    assert hall.bridge.holdings.held == 2 * waits
    peer.outlet.drain()
    hall.turn()
    assert hall.bridge.holdings.held == 0
    assert len(peer.hears()) == 1 + 3 * len(MANY)


def test_what_waits_is_given_back_when_the_peer_goes() -> None:
    hall = Hall()
    peer = stalled(hall)
    peer.says(*MANY)
    peer.session.dismiss(Ending.POLICY, b"enough")
    assert hall.bridge.holdings.held
    peer.leaves()
    peer.leaves()
    assert hall.bridge.holdings.held == 0


def test_who_waits_with_too_much_is_turned_away() -> None:
    hall = Hall()
    first, second, little = stalled(hall), stalled(hall), stalled(hall)
    first.says(*MANY)
    hall.bridge.holdings.most = hall.bridge.holdings.held
    little.says("PING waits")
    second.says(*MANY)
    assert (first.ending, second.ending, little.ending) == (None, Ending.TRY_AGAIN, None)
    assert hall.bridge.holdings.held == hall.bridge.holdings.most
    second.outlet.drain()
    assert second.hears()[-1] == f"ERR limit {WORDS}"
    for peer in (first, little):
        peer.outlet.drain()
        hall.turn()
    assert len(first.hears()) == 1 + 2 * len(MANY) and little.hears()[-1] == "PONG waits"
    assert hall.bridge.holdings.held == 0


def test_what_is_left_when_its_time_is_over_is_counted_once() -> None:
    """It becomes less from turn to turn."""
    hall = Hall()
    peer = hall.line_peer()
    session_now = hall.broker.clock

    def clock() -> float:
        hall.now += 0.01
        return session_now()

    hall.broker.clock = clock
    peer.says(*MANY)
    waits = hall.bridge.holdings.held
    assert waits > 5_000
    hall.turns.step()
    assert hall.bridge.holdings.held == waits
    hall.turn()
    assert hall.bridge.holdings.held == 0 and len(peer.hears()) == 1 + len(MANY)


@pytest.mark.parametrize("room", [True, False])
def test_refusals_that_nobody_reads_are_counted(room: bool) -> None:
    """The tags in them are kept."""
    hall = Hall()
    peer: FakePeer = hall.json_peer()
    peer.outlet.room = CHUNK_BYTES // 10
    if not room:
        hall.bridge.holdings.most = 10
    message = b'{"type":"publish","id":1,"channel":"not allowed","data":"x"}'
    peer.receives(*[message] * 20 * REFUSED_TOGETHER)
    assert peer.ending is (None if room else Ending.TRY_AGAIN)
    assert (hall.bridge.holdings.held > 0) is room
    peer.outlet.drain()
    hall.turn()
    assert hall.bridge.holdings.held == 0
    assert peer.raw().count(b"bad-channel") == 20 * REFUSED_TOGETHER or not room
