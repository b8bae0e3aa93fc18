"""Deferred calls and time slices: long work shares the turns of the reactor."""

from collections.abc import Callable

import pytest

from tests.fakes import Ticking
from twistedsock.limits.settings import CHUNK_BYTES, TIME_SLICE_SECONDS
from twistedsock.pubsub import broker
from twistedsock.pubsub.history_budget import CHANNELS_PER_STEP
from twistedsock.pubsub.scheduler import Scheduler, TimeSlice
from twistedsock.testing import FakeServer, LineClient


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def fill(server: FakeServer, events: int, size: int = 1000) -> None:
    publisher = server.line_client()
    for number in range(events):
        publisher.send(f"PUB a {number}:{'x' * size}")
        server.turn()


def run_all_turns(server: FakeServer) -> int:
    """Returns the number of turns until nothing is deferred."""
    count = 0
    while server.turns:
        server.turns.step()
        count += 1
    return count


def test_deferred_calls_run_in_order_within_a_time_slice(server: FakeServer) -> None:
    """A call that waits is not added again. Each turn makes at least one call."""
    called: list[str] = []
    calls: dict[str, Callable[[], None]] = {name: (lambda name=name: called.append(name)) for name in "abc"}
    for name in "abca":
        server.broker.scheduler.defer(calls[name])
    assert not called
    server.turn()
    assert called == ["a", "b", "c"]
    server.clock = Ticking(TIME_SLICE_SECONDS)
    for name in "abc":
        server.broker.scheduler.defer(calls[name])
    assert run_all_turns(server) == 3 and called == ["a", "b", "c"] * 2


def test_call_deferred_by_a_deferred_call_runs_last(server: FakeServer) -> None:
    called: list[int] = []

    def again() -> None:
        called.append(1)
        if len(called) < 4:
            server.broker.scheduler.defer(again)

    server.broker.scheduler.defer(again)
    server.broker.scheduler.defer(lambda: called.append(2))
    server.turns.step()
    assert called == [1, 2]
    server.turn()
    assert called == [1, 2, 1, 1]


def test_exception_in_a_deferred_call_keeps_the_following_ones(server: FakeServer) -> None:
    """They are made in the next turn."""
    called: list[int] = []
    server.broker.scheduler.defer(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    server.broker.scheduler.defer(lambda: called.append(2))
    with pytest.raises(ZeroDivisionError):
        server.turn()
    server.turn()
    assert called == [2]


def behind(server: FakeServer, count: int) -> list[LineClient]:
    """Subscribers that have just asked for the whole history."""
    readers = [server.line_client() for _ in range(count)]
    for subscriber in readers:
        subscriber.send("SUB a last=100")
        subscriber.received()
    return readers


def test_subscribers_that_are_behind_share_a_time_slice(server: FakeServer) -> None:
    fill(server, 3)
    readers = behind(server, 5)
    server.clock = Ticking(TIME_SLICE_SECONDS)
    served = []
    while server.turns:
        server.turns.step()
        served.append([len(subscriber.received()) for subscriber in readers])
    assert served[:5] == [[3 if place == turn else 0 for place in range(5)] for turn in range(5)]


def test_exception_while_catching_up_keeps_the_other_subscribers(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, 1)
    first, second = behind(server, 2)
    monkeypatch.setattr(first.outlet, "try_write", lambda data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.turn()
    server.turn()
    assert len(second.received()) == 1


def test_long_reply_is_written_in_time_slices(server: FakeServer) -> None:
    fill(server, 300)
    peer, other = server.line_client(), server.line_client()
    peer.send("SUB b")
    peer.received()
    server.turn()
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.send("HIST a", "PING after")
    other.send("PUB b x")
    first = peer.received()
    assert 60 < len(first) < 70 and peer.paused
    assert run_all_turns(server) > 4
    rest = peer.received()
    assert len(first + rest) == 303 and rest[-3] == "OK 300" and not peer.paused
    assert sorted(rest[-2:]) == ["MSG b 1 p3 x", "PONG after"]


@pytest.mark.parametrize("room", [0, 3 * CHUNK_BYTES])
def test_long_reply_waits_for_the_socket_and_for_its_turn(server: FakeServer, room: int) -> None:
    """It continues when both allow it."""
    fill(server, 300)
    peer = server.json_client()
    peer.received()
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.send({"type": "history", "id": 1, "channel": "a"}, {"type": "ping", "id": 2})
    peer.outlet.room = room
    server.turn()
    assert peer.paused
    for _ in range(10):
        peer.outlet.drain(room)
        server.turn()
        peer.outlet.drain()
        server.turn()
    history, pong = peer.received()
    assert len(history["events"]) == 300 and pong == {"type": "pong", "id": 2} and not peer.paused


def test_a_long_reply_writes_nothing_to_a_full_socket(server: FakeServer) -> None:
    """Its first piece fills the socket after the rest has been deferred."""
    peer = server.line_client()
    peer.received()
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.outlet.room = 0
    peer.send(*["PUB $sys/a x"] * 5_000)
    peer.session.flush()
    waiting = len(peer.outlet.waiting)
    assert 0 < waiting < 2 * CHUNK_BYTES
    server.turn()
    assert len(peer.outlet.waiting) == waiting


def test_long_reply_ends_with_its_connection(server: FakeServer) -> None:
    fill(server, 300)
    peer = server.line_client()
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.send("HIST a")
    peer.disconnect()
    sent = len(peer.outlet.sent)
    server.turn()
    assert len(peer.outlet.sent) == sent


def test_long_reply_reads_the_history_as_it_is_written(server: FakeServer) -> None:
    server = FakeServer(history_events=100)
    fill(server, 100, size=5000)
    peer = server.line_client()
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a")
    fill(server, 50, size=5000)
    for _ in range(20):
        peer.outlet.drain(100_000)
    peer.outlet.drain()
    lines = peer.received()
    (lost,) = [line for line in lines if line.startswith("LOST")]
    offsets = [int(line.split(" ")[2]) for line in lines[:-1] if line != lost]
    assert lost == f"LOST a {lines.index(lost) + 1} {offsets[lines.index(lost)] - 1}"
    assert offsets[0] == 1 and offsets[-1] == 100 and 50 < len(offsets) < 100 and offsets == sorted(offsets)
    assert lines[-1] == f"OK {len(offsets)}"


def test_history_combines_last_and_since(server: FakeServer) -> None:
    fill(server, 20)
    peer = server.line_client()
    peer.received()
    for asked, offsets in {"last=0": [], "last=2": [19, 20], "since=17": [18, 19, 20], "since=17 last=1": [20]}.items():
        peer.send(f"HIST a {asked}")
        *events, answer = peer.received()
        assert [int(event.split(" ")[2]) for event in events] == offsets and answer == f"OK {len(offsets)}"


def test_expires_histories_over_several_turns(server: FakeServer) -> None:
    publisher = server.line_client()
    count = 3 * CHANNELS_PER_STEP
    publisher.send(*(f"PUB k{number} x" for number in range(count)))
    server.turn()
    server.now += 1000
    server.clock = Ticking(TIME_SLICE_SECONDS)
    server.clock.now = server.now
    server.broker.expire_histories()
    assert len(server.broker.channels) == count - CHANNELS_PER_STEP
    server.broker.expire_histories()
    assert len(server.broker.channels) == count - CHANNELS_PER_STEP
    assert run_all_turns(server) == 2 and server.broker.channels == {} and server.broker.histories.size == 0


def test_flushes_replies_of_too_many_clients_before_the_end_of_the_turn(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them can hold a chunk."""
    monkeypatch.setattr(broker, "MAX_PENDING_REPLY_WRITERS", 2)
    peers = [server.line_client() for _ in range(3)]
    before = [peer.outlet.sends for peer in peers]
    server.broker.is_handling_input = True
    for peer in peers:
        peer.send("PUB k x")
        server.broker.is_handling_input = True
    assert [peer.outlet.sends - sends for peer, sends in zip(peers, before, strict=True)] == [1, 1, 1]
    server.broker.end_input(peers[0].session.replies)
    server.turn()
    assert [peer.received()[-1] for peer in peers] == ["OK 1", "OK 2", "OK 3"]


def test_time_slice_is_over_after_its_seconds() -> None:
    now = 1.0
    time_slice = TimeSlice(lambda: now)
    assert not time_slice.is_over()
    now += TIME_SLICE_SECONDS
    assert time_slice.is_over()


def test_steps_continue_in_the_next_turns_and_end_with_done() -> None:
    done: list[int] = []
    requested: list[int] = []
    scheduler = Scheduler(Ticking(TIME_SLICE_SECONDS), lambda: requested.append(1))
    steps = iter(range(2))
    scheduler.run_steps(steps, lambda: done.append(1))
    assert requested == [1] and not done
    scheduler.run_deferred()
    scheduler.run_deferred()
    assert done == [1] and not scheduler.deferred


def test_done_is_called_if_a_step_raises() -> None:
    done: list[int] = []
    scheduler = Scheduler(lambda: 0.0, lambda: None)
    with pytest.raises(ZeroDivisionError):
        scheduler.run_steps((1 // number for number in (1, 0)), lambda: done.append(1))
    assert done == [1]


def test_all_calls_are_made_and_their_exceptions_raised_together() -> None:
    made: list[int] = []
    scheduler = Scheduler(lambda: 0.0, lambda: None)
    calls: list[Callable[[], None]] = [lambda: made.append(1), lambda: made.append(1 // 0), lambda: made.append(2)]
    with pytest.raises(ExceptionGroup, match="failed"):
        scheduler.run_calls(calls, "failed")
    assert made == [1, 2] and not scheduler.is_running_calls
