"""No longer at a time than is fair to others, and no faster than the peer may go."""

import pytest

from tests.pubsub.test_broker_turns import Ticking
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.session.input_pipeline import PUBLISHES_PER_CLOCK_CHECK
from twistedsock.testing import FakeServer, LineClient


@pytest.fixture
def hall() -> FakeServer:
    return FakeServer()


@pytest.fixture
def peer(hall: FakeServer) -> LineClient:
    peer = hall.line_peer()
    peer.hears()
    return peer


def test_who_says_much_goes_on_in_the_next_turn(hall: FakeServer, peer: LineClient) -> None:
    """It has been answered by then, and is not read meanwhile."""
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS / 4)
    peer.says(*(f"PING {number}" for number in range(20)))
    assert peer.hears() == [f"PONG {number}" for number in range(5)] and peer.paused
    hall.turns.step()
    assert peer.hears()[0] == "PONG 5" and peer.paused
    hall.turn()
    assert peer.hears()[-1] == "PONG 19" and not peer.paused


def test_others_have_their_turn_meanwhile(hall: FakeServer, peer: LineClient) -> None:
    """Two that say much go on one after the other, and a third is answered at once."""
    other, third = hall.line_peer(), hall.line_peer()
    third.hears()
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    for busy in (peer, other):
        busy.says(*["PING"] * 4)
        busy.hears()
    third.says("PING")
    assert third.hears() == ["PONG"]
    said = []
    while hall.turns:
        hall.turns.step()
        said.append((len(peer.hears()), len(other.hears())))
    assert said == [(2, 0), (0, 2)]


def test_publishes_are_timed_too(hall: FakeServer, peer: LineClient) -> None:
    """Not each, as they are quick, but those that do not go together now and then."""
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.says(*(f"PUB k{number % 2} x" for number in range(3 * PUBLISHES_PER_CLOCK_CHECK)))
    assert peer.paused and len(peer.hears()) == 2 * PUBLISHES_PER_CLOCK_CHECK
    hall.turn()
    assert len(peer.hears()) == PUBLISHES_PER_CLOCK_CHECK and not peer.paused
    assert hall.broker.channels[b"k0"].head == hall.broker.channels[b"k1"].head == 3 * PUBLISHES_PER_CLOCK_CHECK // 2


def test_the_last_command_asks_for_no_turn(hall: FakeServer, peer: LineClient) -> None:
    """However long it took."""
    hall.broker.clock = Ticking(10 * TIME_SLICE_SECONDS)
    peer.says("PING")
    assert not peer.paused and not hall.turns


def test_who_does_not_read_is_not_asked_again_when_its_turn_comes(hall: FakeServer, peer: LineClient) -> None:
    """It goes on when it has read."""
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.outlet.room = 3
    peer.says(*["PING"] * 4)
    hall.turn()
    assert peer.paused and len(peer.outlet.waiting) < 10
    peer.outlet.drain()
    hall.turn()
    assert peer.hears() == ["PONG"] * 4 and not peer.paused


def test_who_has_read_before_its_turn_comes_goes_on_once(hall: FakeServer, peer: LineClient) -> None:
    """What was postponed finds nothing to do."""
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS / 2)
    peer.outlet.room = 3
    peer.says(*["PING"] * 3)
    hall.broker.clock = Ticking(0)
    peer.outlet.drain()
    assert peer.hears() == ["PONG"] * 3
    hall.turn()
    assert peer.hears() == [] and not peer.paused


def test_a_shell_can_hold_up_who_waits_for_its_turn(hall: FakeServer, peer: LineClient) -> None:
    """What the shell has answered itself must leave first."""
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.says("PING 0", "PING 1", "PING 2")
    peer.outlet.room = 0
    peer.outlet.write(b"pong\n")
    peer.conversation.hold()
    hall.turn()
    assert peer.paused
    peer.outlet.drain()
    hall.turn()
    assert peer.hears() == ["PONG 0", "PONG 1", "pong", "PONG 2"] and not peer.paused


def test_who_leaves_while_it_waits_says_nothing_more(hall: FakeServer, peer: LineClient) -> None:
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.says("PING 1", "PING 2", "PUB a 3")
    peer.leaves()
    hall.turn()
    assert b"a" not in hall.broker.channels


def test_who_goes_too_fast_is_refused_the_excess(hall: FakeServer, peer: LineClient) -> None:
    """Each command in its place, and the rest goes on with the time."""
    peer.limit(commands_per_second=2, commands_burst=2)
    peer.says("PING 1", "PING 2", "PING 3", "")
    *ran, refused = peer.hears()
    assert ran == ["PONG 1", "PONG 2"] and refused.startswith("ERR rate ")
    hall.now += 1
    peer.says("PING 4", "WHO")
    assert [line[:8] for line in peer.hears()] == ["PONG 4", "ERR bad-"]


def test_every_publish_of_a_batch_is_answered(hall: FakeServer, peer: LineClient) -> None:
    """A batch passes whole, and is paid for; what follows is refused, each of its tags."""
    peer.limit(commands_per_second=1, commands_burst=3)
    peer.says(*["PUB a x"] * 5)
    assert peer.hears() == [f"OK {number}" for number in range(1, 6)]
    hall.now += 1
    peer.says(*["PUB a x"] * 2)
    assert [line[:8] for line in peer.hears()] == ["ERR rate"] * 2 and hall.broker.channels[b"a"].head == 5
    hall.now += 2
    peer.says("PUB a x")
    assert peer.hears() == ["OK 6"]


def test_refusals_keep_their_place_behind_what_the_backplane_has_not_answered() -> None:
    hall = FakeServer(late=True)
    peer = hall.json_peer()
    peer.hears()
    peer.limit(commands_per_second=1, commands_burst=1)
    publishes = [{"type": "publish", "id": id, "channel": channel, "data": 1} for id, channel in enumerate("abbb")]
    peer.says(*publishes)
    assert peer.hears() == []
    hall.backplane.release()
    answers = peer.hears()
    assert [answer["id"] for answer in answers] == [0, 1, 2, 3]
    assert [answer.get("code") for answer in answers] == [None, "rate", "rate", "rate"]


def test_who_goes_on_is_told_and_closed(hall: FakeServer, peer: LineClient) -> None:
    """Nothing more of it is run."""
    peer.limit(commands_per_second=1, commands_burst=2)
    peer.says(*["PING"] * 4, "PUB a 5", "PING 6")
    assert [line.split(" ")[0] for line in peer.hears()] == ["PONG", "PONG", "ERR", "ERR", "NOTICE", "BYE"]
    assert peer.ending == 1008 and b"a" not in hall.broker.channels


def test_lines_that_say_nothing_count(hall: FakeServer, peer: LineClient) -> None:
    """They get no answer, but they are not free; nor is an interrupt."""
    peer.limit(commands_per_second=1, commands_burst=10)
    peer.sends(b"\n" * 15)
    assert peer.hears() == [] and peer.ending is None
    peer.sends(b"\n" * 9)
    assert [line.split(" ")[0] for line in peer.hears()] == ["NOTICE", "BYE"] and peer.ending == 1008


def test_who_wants_to_leave_may(peer: LineClient) -> None:
    peer.limit(commands_per_second=1, commands_burst=1)
    peer.says("PING", "PING", "QUIT")
    assert peer.hears()[-1] == "BYE" and peer.ending == 1000


def test_bytes_without_end_close_too(peer: LineClient) -> None:
    """Though no command is among them."""
    peer.limit(bytes_per_second=1, bytes_burst=1000)
    for _ in range(3):
        peer.sends(b"x" * 1000)
    assert [line.split(" ")[0] for line in peer.hears()] == ["NOTICE", "BYE"] and peer.ending == 1008


def test_commands_that_came_with_too_many_bytes_are_refused(hall: FakeServer, peer: LineClient) -> None:
    peer.limit(bytes_per_second=10, bytes_burst=10)
    peer.says("PING 3456789")
    peer.says("PING 2")
    first, second = peer.hears()
    assert first == "PONG 3456789" and second.startswith("ERR rate ")
    hall.now += 1
    peer.says("PING 3")
    assert peer.hears() == ["PONG 3"]


def test_what_is_no_command_can_be_metered_too(peer: LineClient) -> None:
    """Such as a WebSocket's pings, which the shell answers itself."""
    assert peer.conversation.may_be_answered()
    peer.limit(commands_per_second=1, commands_burst=2)
    assert [peer.conversation.may_be_answered() for _ in range(4)] == [True, True, False, False]
    assert peer.ending is None
    assert not peer.conversation.may_be_answered() and peer.ending == 1008


def test_why_a_peer_was_dismissed_is_known_to_its_shell(peer: LineClient) -> None:
    assert peer.session.parting == b""
    peer.session.dismiss(CloseReason.POLICY, b"because")
    assert peer.session.parting == b"because"


def test_a_conversation_tells_whether_it_is_read(hall: FakeServer, peer: LineClient) -> None:
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    assert not peer.conversation.waits
    peer.says(*["PING"] * 3)
    assert peer.conversation.waits
    hall.turn()
    assert not peer.conversation.waits
