"""Tests of the time slice and the rate limit of the input pipeline."""

import pytest

from tests.fakes import Ticking
from tests.session.clients import kinds, welcomed
from twistedsock.errors import CloseReason
from twistedsock.limits.rate import RateLimiter
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.session.input_pipeline import MESSAGES_PER_PART, PUBLISHES_PER_CLOCK_CHECK
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def test_continues_long_input_in_the_next_turn(server: FakeServer, peer: LineClient) -> None:
    """The client is not read meanwhile."""
    server.clock = Ticking(TIME_SLICE_SECONDS / 4)
    peer.send(*(f"PING {number}" for number in range(20)))
    assert peer.received() == [f"PONG {number}" for number in range(5)] and peer.paused
    server.turns.step()
    assert peer.received()[0] == "PONG 5" and peer.paused
    server.turn()
    assert peer.received()[-1] == "PONG 19" and not peer.paused


def test_runs_commands_of_other_clients_between_time_slices(server: FakeServer, peer: LineClient) -> None:
    other, third = server.line_client(), server.line_client()
    third.received()
    server.clock = Ticking(TIME_SLICE_SECONDS)
    for busy in (peer, other):
        busy.send(*["PING"] * 4)
        busy.received()
    third.send("PING")
    assert third.received() == ["PONG"]
    said = []
    while server.turns:
        server.turns.step()
        said.append((len(peer.received()), len(other.received())))
    assert said == [(2, 0), (0, 2)]


def test_checks_the_time_between_publishes(server: FakeServer, peer: LineClient) -> None:
    """Only after several publishes that cannot be joined, because each is quick."""
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.send(*(f"PUB k{number % 2} x" for number in range(3 * PUBLISHES_PER_CLOCK_CHECK)))
    assert peer.paused and len(peer.received()) == 2 * PUBLISHES_PER_CLOCK_CHECK
    server.turn()
    assert len(peer.received()) == PUBLISHES_PER_CLOCK_CHECK and not peer.paused
    assert {channel.head for channel in server.broker.channels.values()} == {3 * PUBLISHES_PER_CLOCK_CHECK // 2}


def test_schedules_no_turn_after_the_last_command(server: FakeServer, peer: LineClient) -> None:
    server.clock = Ticking(10 * TIME_SLICE_SECONDS)
    peer.send("PING")
    assert not peer.paused and not server.turns


def test_runs_nothing_in_the_next_turn_while_replies_wait(server: FakeServer, peer: LineClient) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.outlet.room = 3
    peer.send(*["PING"] * 4)
    server.turn()
    assert peer.paused and len(peer.outlet.waiting) < 10
    peer.outlet.drain()
    server.turn()
    assert peer.received() == ["PONG"] * 4 and not peer.paused


def test_runs_waiting_input_once_if_the_client_reads_before_its_turn(server: FakeServer, peer: LineClient) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS / 2)
    peer.outlet.room = 3
    peer.send(*["PING"] * 3)
    server.clock = Ticking(0)
    peer.outlet.drain()
    assert peer.received() == ["PONG"] * 3
    server.turn()
    assert peer.received() == [] and not peer.paused


def test_endpoint_can_pause_input_that_waits_for_its_turn(server: FakeServer, peer: LineClient) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.send("PING 0", "PING 1", "PING 2")
    peer.outlet.room = 0
    peer.outlet.write(b"pong\n")
    peer.pipeline.pause()
    server.turn()
    assert peer.paused
    peer.outlet.drain()
    server.turn()
    assert peer.received() == ["PONG 0", "PONG 1", "pong", "PONG 2"] and not peer.paused


def test_runs_nothing_after_the_connection_is_lost(server: FakeServer, peer: LineClient) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS)
    peer.send("PING 1", "PING 2", "PUB a 3")
    peer.disconnect()
    server.turn()
    assert b"a" not in server.broker.channels


def test_is_paused_while_input_waits_for_the_next_time_slice(server: FakeServer, peer: LineClient) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS)
    assert not peer.pipeline.is_paused
    peer.send(*["PING"] * 3)
    assert peer.pipeline.is_paused
    server.turn()
    assert not peer.pipeline.is_paused


def test_rejects_commands_beyond_the_rate(server: FakeServer, peer: LineClient) -> None:
    peer.limit(commands_per_second=2, commands_burst=2)
    peer.send("PING 1", "PING 2", "PING 3", "")
    *ran, refused = peer.received()
    assert ran == ["PONG 1", "PONG 2"] and refused.startswith("ERR rate ")
    server.now += 1
    peer.send("PING 4", "WHO")
    assert [line[:8] for line in peer.received()] == ["PONG 4", "ERR bad-"]


def test_replies_to_every_publish_beyond_the_rate(server: FakeServer, peer: LineClient) -> None:
    """Joined publishes are accepted together; each tag of the next ones gets an error."""
    peer.limit(commands_per_second=1, commands_burst=3)
    peer.send(*["PUB a x"] * 5)
    assert peer.received() == [f"OK {number}" for number in range(1, 6)]
    server.now += 1
    peer.send(*["PUB a x"] * 2)
    assert [line[:8] for line in peer.received()] == ["ERR rate"] * 2 and server.broker.channels[b"a"].head == 5
    server.now += 2
    peer.send("PUB a x")
    assert peer.received() == ["OK 6"]


def test_rate_errors_wait_for_earlier_replies() -> None:
    server = FakeServer(late=True)
    peer = server.json_client()
    peer.received()
    peer.limit(commands_per_second=1, commands_burst=1)
    publishes = [{"type": "publish", "id": id, "channel": channel, "data": 1} for id, channel in enumerate("abbb")]
    peer.send(*publishes)
    assert peer.received() == []
    server.backplane.release()
    answers = peer.received()
    assert [answer["id"] for answer in answers] == [0, 1, 2, 3]
    assert [answer.get("code") for answer in answers] == [None, "rate", "rate", "rate"]


def test_closes_a_client_that_continues_to_exceed_its_rate(server: FakeServer, peer: LineClient) -> None:
    peer.limit(commands_per_second=1, commands_burst=2)
    peer.send(*["PING"] * 4, "PUB a 5", "PING 6")
    assert kinds(peer) == ["PONG", "PONG", "ERR", "ERR", "NOTICE", "BYE"]
    assert peer.close_reason is CloseReason.POLICY and b"a" not in server.broker.channels


def test_counts_empty_lines_and_interrupts(server: FakeServer, peer: LineClient) -> None:
    peer.limit(commands_per_second=1, commands_burst=10)
    peer.send_bytes(b"\n" * 15)
    assert peer.received() == [] and peer.close_reason is None
    peer.send_bytes(b"\n" * 9)
    assert kinds(peer) == ["NOTICE", "BYE"] and peer.close_reason is CloseReason.POLICY


def test_accepts_quit_beyond_the_rate(peer: LineClient) -> None:
    peer.limit(commands_per_second=1, commands_burst=1)
    peer.send("PING", "PING", "QUIT")
    assert peer.received()[-1] == "BYE" and peer.close_reason is CloseReason.NORMAL


def test_closes_a_client_that_sends_too_many_bytes_without_a_command(peer: LineClient) -> None:
    peer.limit(bytes_per_second=1, bytes_burst=1000)
    for _ in range(3):
        peer.send_bytes(b"x" * 1000)
    assert kinds(peer) == ["NOTICE", "BYE"] and peer.close_reason is CloseReason.POLICY


def test_rejects_commands_in_too_many_bytes(server: FakeServer, peer: LineClient) -> None:
    peer.limit(bytes_per_second=10, bytes_burst=10)
    peer.send("PING 3456789")
    peer.send("PING 2")
    first, second = peer.received()
    assert first == "PONG 3456789" and second.startswith("ERR rate ")
    server.now += 1
    peer.send("PING 3")
    assert peer.received() == ["PONG 3"]


def test_counts_input_that_is_no_command(peer: LineClient) -> None:
    """For example WebSocket pings, which the endpoint answers."""
    assert peer.pipeline.is_within_rate()
    peer.limit(commands_per_second=1, commands_burst=2)
    assert [peer.pipeline.is_within_rate() for _ in range(4)] == [True, True, False, False]
    assert peer.close_reason is None
    assert not peer.pipeline.is_within_rate() and peer.close_reason is CloseReason.POLICY


def charged(peer: LineClient) -> float:
    """The cost that has been charged to the client, in commands."""
    limiter = peer.session.rate_limiter
    assert isinstance(limiter, RateLimiter)
    return limiter.recovery(peer.server.now)


HISTORY, MEMBERS = ["PUB a " + "x" * 1_000] * 100, ["SUB b"]


@pytest.mark.parametrize(
    ("own", "command", "low", "high"),
    [
        ([], "HIST a", 25, 28),
        ([], "SUB a last=100", 25, 28),
        ([], "SUB a last=1000", 25, 28),
        ([], "HIST empty", 1, 1.1),
        ([], "SUB empty last=5", 1, 1.1),
        ([], "WHO b", 2, 4),
        ([f"SUB c{number}" for number in range(50)], "NICK cleo", 2, 2),
        ([f"SUB c{number}" for number in range(50)], "AUTH A", 50 * 103 / 200, 50 * 103 / 200),
    ],
)
def test_charges_commands_by_their_work(own: list[str], command: str, low: float, high: float) -> None:
    """Those on history and members by the size of the reply, those on an identity by its subscriptions and rights."""
    policy = FakePolicy({">": "rw"}, {"A": ("ann", {f"x{number}": "r" for number in range(99)}, None)})
    server = FakeServer(policy=policy)
    welcomed(server, *HISTORY)
    for _ in range(500):
        server.line_client().send("SUB b")
    peer = welcomed(server, *own)
    peer.limit(commands_per_second=1, commands_burst=100)
    peer.send(command)
    server.turn()
    assert low <= charged(peer) <= high
    assert command != "AUTH A" or peer.session.client.principal == b"=ann"


def test_charges_events_that_only_the_backplane_has() -> None:
    """100 events, of which the history has none, cost as much as events without payload."""
    server = FakeServer(late=True, keeps_history=True, history_events=0)
    publisher, reader = server.line_client(), server.line_client()
    publisher.send(*[f"PUB a {number}" for number in range(100)])
    while len(server.backplane) or len(server.turns):
        server.backplane.release()
        server.turn()
    reader.limit(commands_per_second=1, commands_burst=1_000)
    reader.send("SUB a since=0 epoch=e1")
    while len(server.backplane) or len(server.turns):
        server.backplane.release()
        server.turn()
    assert len(reader.received()) == 102
    assert 8 <= charged(reader) <= 10


def test_does_not_charge_clients_on_this_machine(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x", "HIST a", "WHO a", "NICK ann")
    assert peer.session.rate_limiter is None and not server.context.rate_limiters


def test_charges_a_waiting_command_at_the_time_of_its_run() -> None:
    """Its client is not read meanwhile, so nothing else would fill its bucket."""
    server = FakeServer(late=True)
    peer = server.line_client()
    peer.limit(commands_per_second=1, commands_burst=2)
    peer.send("SUB a", "PING", "PING")
    server.now += 10
    server.backplane.release()
    server.turn()
    assert peer.received()[-2:] == ["PONG", "PONG"]


def waiting(server: FakeServer, **limits: float) -> LineClient:
    """A client whose first command is not answered, and with many that wait."""
    peer = server.line_client()
    peer.limit(commands_per_second=1, **limits)
    peer.send("SUB a")
    peer.send(*["PING"] * (MESSAGES_PER_PART + 1))
    assert charged(peer) == 1
    return peer


def test_charges_much_waiting_input_once() -> None:
    """Before it is run, because receiving it costs time too."""
    server = FakeServer(late=True)
    peer = waiting(server, commands_burst=10_000)
    peer.send(*["PING"] * 2 * MESSAGES_PER_PART)
    assert charged(peer) == 1 + 2 * MESSAGES_PER_PART
    server.backplane.release()
    server.turn()
    assert peer.received().count("PONG") == charged(peer) - 1 == 3 * MESSAGES_PER_PART + 1


def test_closes_a_client_with_waiting_input_far_beyond_its_rate() -> None:
    server = FakeServer(late=True)
    peer = waiting(server, commands_burst=2)
    for _ in range(2):
        peer.send(*["PING"] * 10)
        assert peer.close_reason is None
    peer.send(*["PING"] * 10)
    assert peer.close_reason is CloseReason.POLICY and server.context.memory_budget.used == 0
