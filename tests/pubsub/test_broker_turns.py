"""A turn of the reactor is shared: who has much to do goes on later, and nothing gets lost or out of its order."""

from collections.abc import Callable

import pytest

from twistedsock.limits.settings import CHUNK_BYTES, TIME_SLICE_SECONDS
from twistedsock.pubsub import broker
from twistedsock.pubsub.history_budget import SWEPT_TOGETHER
from twistedsock.testing import FakeServer, LineClient


class Ticking:
    """A clock that goes on by ``step`` with each look at it."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def hall() -> FakeServer:
    return FakeServer()


def fill(hall: FakeServer, events: int, size: int = 1000) -> None:
    publisher = hall.line_peer()
    for number in range(events):
        publisher.says(f"PUB a {number}:{'x' * size}")
        hall.turn()


def until_it_rests(hall: FakeServer) -> int:
    """How many turns it takes."""
    count = 0
    while hall.turns:
        hall.turns.step()
        count += 1
    return count


def test_those_who_were_postponed_go_on_in_their_order(hall: FakeServer) -> None:
    """Each once, however often it asked; as many in a turn as fit into a share, and one at least."""
    called: list[str] = []
    calls: dict[str, Callable[[], None]] = {name: (lambda name=name: called.append(name)) for name in "abc"}
    for name in "abca":
        hall.broker.postpone(calls[name])
    assert not called
    hall.turn()
    assert called == ["a", "b", "c"]
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    for name in "abc":
        hall.broker.postpone(calls[name])
    assert until_it_rests(hall) == 3 and called == ["a", "b", "c"] * 2


def test_who_asks_again_waits_behind_the_others(hall: FakeServer) -> None:
    """And not for ever within the same turn."""
    called: list[int] = []

    def again() -> None:
        called.append(1)
        if len(called) < 4:
            hall.broker.postpone(again)

    hall.broker.postpone(again)
    hall.broker.postpone(lambda: called.append(2))
    hall.turns.step()
    assert called == [1, 2]
    hall.turn()
    assert called == [1, 2, 1, 1]


def test_a_fault_of_one_does_not_stop_the_others(hall: FakeServer) -> None:
    """Those behind it go on in the next turn."""
    called: list[int] = []
    hall.broker.postpone(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    hall.broker.postpone(lambda: called.append(2))
    with pytest.raises(ZeroDivisionError):
        hall.turn()
    hall.turn()
    assert called == [2]


def behind(hall: FakeServer, count: int) -> list[LineClient]:
    """Readers that have just asked for all there is."""
    readers = [hall.line_peer() for _ in range(count)]
    for reader in readers:
        reader.says("SUB a last=100")
        reader.hears()
    return readers


def test_readers_that_are_behind_share_a_turn(hall: FakeServer) -> None:
    """Those who had none come first in the next."""
    fill(hall, 3)
    readers = behind(hall, 5)
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    served = []
    while hall.turns:
        hall.turns.step()
        served.append([len(reader.hears()) for reader in readers])
    assert served[:5] == [[3 if place == turn else 0 for place in range(5)] for turn in range(5)]


def test_a_fault_of_a_reader_does_not_stop_the_others(hall: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(hall, 1)
    first, second = behind(hall, 2)
    monkeypatch.setattr(first.outlet, "offer", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hall.turn()
    hall.turn()
    assert len(second.hears()) == 1


def test_a_long_reply_lets_others_have_their_turn(hall: FakeServer) -> None:
    """It comes whole and in its order all the same, and nothing within it."""
    fill(hall, 300)
    peer, other = hall.line_peer(), hall.line_peer()
    peer.says("SUB b")
    peer.hears()
    hall.turn()
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.says("HIST a", "PING after")
    other.says("PUB b x")
    first = peer.hears()
    assert 60 < len(first) < 70 and peer.paused
    assert until_it_rests(hall) > 4
    rest = peer.hears()
    assert len(first + rest) == 303 and rest[-3] == "OK 300" and not peer.paused
    assert sorted(rest[-2:]) == ["MSG b 1 p3 x", "PONG after"]


@pytest.mark.parametrize("room", [0, 3 * CHUNK_BYTES])
def test_a_long_reply_waits_for_its_peer_and_for_its_turn(hall: FakeServer, room: int) -> None:
    """Whichever of the two comes later."""
    fill(hall, 300)
    peer = hall.json_peer()
    peer.hears()
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.says({"type": "history", "id": 1, "channel": "a"}, {"type": "ping", "id": 2})
    peer.outlet.room = room
    hall.turn()
    assert peer.paused
    for _ in range(10):
        peer.outlet.drain(room)
        hall.turn()
        peer.outlet.drain()
        hall.turn()
    history, pong = peer.hears()
    assert len(history["events"]) == 300 and pong == {"type": "pong", "id": 2} and not peer.paused


def test_a_long_reply_writes_nothing_to_a_full_socket(hall: FakeServer) -> None:
    """Its first piece fills the socket after the rest has been postponed."""
    peer = hall.line_peer()
    peer.hears()
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.outlet.room = 0
    peer.says(*["PUB $sys/a x"] * 5_000)
    peer.conversation.flush()
    waiting = len(peer.outlet.waiting)
    assert 0 < waiting < 2 * CHUNK_BYTES
    hall.turn()
    assert len(peer.outlet.waiting) == waiting


def test_a_long_reply_ends_with_its_peer(hall: FakeServer) -> None:
    """What was postponed for it finds nobody."""
    fill(hall, 300)
    peer = hall.line_peer()
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    peer.says("HIST a")
    peer.leaves()
    sent = len(peer.outlet.sent)
    hall.turn()
    assert len(peer.outlet.sent) == sent


def test_a_slow_peer_gets_what_is_there_when_it_reads(hall: FakeServer) -> None:
    """It holds nothing of a log that goes on, and is told what is missing and the number of events that it got."""
    hall = FakeServer(history_events=100)
    fill(hall, 100, size=5000)
    peer = hall.line_peer()
    peer.hears()
    peer.outlet.room = 0
    peer.says("HIST a")
    fill(hall, 50, size=5000)
    for _ in range(20):
        peer.outlet.drain(100_000)
    peer.outlet.drain()
    told = peer.hears()
    (lost,) = [line for line in told if line.startswith("LOST")]
    offsets = [int(line.split(" ")[2]) for line in told[:-1] if line != lost]
    assert lost == f"LOST a {told.index(lost) + 1} {offsets[told.index(lost)] - 1}"
    assert offsets[0] == 1 and offsets[-1] == 100 and 50 < len(offsets) < 100 and offsets == sorted(offsets)
    assert told[-1] == f"OK {len(offsets)}"


def test_last_and_since_together_ask_for_the_newest_of_those_since(hall: FakeServer) -> None:
    fill(hall, 20)
    peer = hall.line_peer()
    peer.hears()
    for asked, offsets in {"last=0": [], "last=2": [19, 20], "since=17": [18, 19, 20], "since=17 last=1": [20]}.items():
        peer.says(f"HIST a {asked}")
        *events, answer = peer.hears()
        assert [int(event.split(" ")[2]) for event in events] == offsets and answer == f"OK {len(offsets)}"


def test_many_silent_channels_are_swept_in_several_turns(hall: FakeServer) -> None:
    """A sweep that is asked for meanwhile goes on with the one that is under way."""
    publisher = hall.line_peer()
    count = 3 * SWEPT_TOGETHER
    publisher.says(*(f"PUB k{number} x" for number in range(count)))
    hall.turn()
    hall.now += 1000
    hall.broker.clock = Ticking(TIME_SLICE_SECONDS)
    hall.broker.clock.now = hall.now
    hall.broker.sweep()
    assert len(hall.broker.channels) == count - SWEPT_TOGETHER
    hall.broker.sweep()
    assert len(hall.broker.channels) == count - SWEPT_TOGETHER
    assert until_it_rests(hall) == 2 and hall.broker.channels == {} and hall.broker.log_bytes == 0


def test_the_replies_that_wait_for_the_end_of_a_turn_are_of_so_many_peers(
    hall: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them may hold a chunk."""
    monkeypatch.setattr(broker, "MAX_PENDING_REPLY_WRITERS", 2)
    peers = [hall.line_peer() for _ in range(3)]
    before = [peer.outlet.sends for peer in peers]
    hall.broker.begin()
    for peer in peers:
        peer.says("PUB k x")
        hall.broker.begin()
    assert [peer.outlet.sends - sends for peer, sends in zip(peers, before, strict=True)] == [1, 1, 1]
    hall.broker.finish(peers[0].conversation)
    hall.turn()
    assert [peer.hears()[-1] for peer in peers] == ["OK 1", "OK 2", "OK 3"]
