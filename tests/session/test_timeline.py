"""Tests of the timeline of a connection: its steps, their limit, and the side that caused them."""

from functools import partial

import pytest

from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.errors import MEMORY_LIMIT_REACHED, CloseReason, Error, ErrorCode
from twistedsock.session.encoder import Endpoints
from twistedsock.session.session import Session
from twistedsock.session.timeline import (
    BEHIND_DEBOUNCE_SECONDS,
    FIRST_STEPS,
    MAX_STEPS,
    MAX_WORDS,
    HandshakeInfo,
    Step,
    Timeline,
)
from twistedsock.stats import TcpStats
from twistedsock.testing import FakeOutlet, FakePolicy, FakeServer, LineClient


def steps(session: Session) -> list[str]:
    """Each as name, words and by whom."""
    return [" ".join(filter(None, (step.name, step.words, step.by))) for step in session.timeline.steps]


def stall(server: FakeServer, peer: LineClient, channel: str = "k") -> None:
    """Its socket takes no more, and something comes that it does not get."""
    peer.outlet.room = 0
    server.line_client().send(f"PUB {channel} first", f"PUB {channel} second")
    server.turn()
    server.line_client().send(f"PUB {channel} third")
    server.turn()


def read_on(server: FakeServer, peer: LineClient) -> None:
    peer.outlet.drain()
    server.turn()


def test_starts_with_the_acceptance_and_the_opening(server: FakeServer) -> None:
    session = server.line_client().session
    assert steps(session) == ["accepted", "open"]
    assert session.timeline.accepted_at == session.timeline.opened_at == 1000.0


def test_handshakes_precede_the_opening(server: FakeServer) -> None:
    early = (Step(11.0, "proxied"), Step(12.0, "handshake", "TLS"))
    handshake = HandshakeInfo(10.0, "WebSocket", early)
    endpoints = Endpoints(b"127.0.0.1:1", b"127.0.0.1:2")
    connection = server.line_client()
    session = Session(server.context, LINE_ENCODER, FakeOutlet(), endpoints, connection, handshake=handshake)
    session.add_step("behind", "k from 1")
    assert steps(session) == [
        "accepted", "proxied", "handshake TLS", "handshake WebSocket", "open", "behind k from 1",
    ]  # fmt: skip
    assert [step.at for step in session.timeline.steps] == [10.0, 11.0, 12.0, 1000.0, 1000.0, 1000.0]
    assert session.timeline.accepted_at == 10.0


def test_records_when_a_client_falls_behind_and_catches_up(peer: LineClient, server: FakeServer) -> None:
    peer.send("SUB k", "SUB m")
    stall(server, peer)
    server.now += 5
    stall(server, peer, "m")
    assert steps(peer.session)[2:] == ["behind k from 3"]
    read_on(server, peer)
    assert steps(peer.session)[2:] == ["behind k from 3", "caught-up m"]
    assert [step.at for step in peer.session.timeline.steps[2:]] == [1000.0, 1005.0]


def test_a_replay_is_no_delay(server: FakeServer) -> None:
    """A client that asked for history has not read too slowly."""
    server.line_client().send("PUB k x", "PUB k y")
    peer = server.line_client()
    peer.send("SUB k last=2")
    server.turn()
    assert steps(peer.session) == ["accepted", "open"]


def test_falling_behind_again_at_once_continues_the_same_step(peer: LineClient, server: FakeServer) -> None:
    peer.send("SUB k")
    for _ in range(50):
        stall(server, peer)
        read_on(server, peer)
    assert steps(peer.session)[2:] == ["behind k from 3", "caught-up k"]
    server.now += BEHIND_DEBOUNCE_SECONDS
    stall(server, peer)
    assert [step.name for step in peer.session.timeline.steps[2:]] == ["behind", "caught-up", "behind"]


def test_falling_behind_often_is_bounded(peer: LineClient, server: FakeServer) -> None:
    peer.send("SUB k")
    for _ in range(MAX_STEPS):
        server.now += BEHIND_DEBOUNCE_SECONDS
        stall(server, peer)
        server.now += BEHIND_DEBOUNCE_SECONDS
        read_on(server, peer)
    recorded = peer.session.timeline.steps[2:]
    assert len(recorded) == MAX_STEPS
    assert recorded[0].words == "k from 3"
    assert recorded[-1].at == server.now


def test_keeps_the_first_and_the_newest_steps() -> None:
    timeline = Timeline(0.0, None)
    for number in range(1_000):
        timeline.add(number, "behind")
    numbers = [int(step.at) for step in timeline.steps[2:]]
    assert numbers == [*range(FIRST_STEPS), *range(1_000 - MAX_STEPS + FIRST_STEPS, 1_000)]


def test_records_losses_at_most_once_a_second(peer: LineClient, server: FakeServer) -> None:
    peer.send("SUB k")
    session = peer.session
    assert session.accept_loss(b"k", 3, 9)
    assert session.accept_loss(b"k", 10, 11)
    server.now += BEHIND_DEBOUNCE_SECONDS
    assert session.accept_loss(b"k", 12, 13)
    assert steps(session)[2:] == ["lost k 3 to 9", "lost k 12 to 13"]


def test_catching_up_is_recorded_once(server: FakeServer) -> None:
    session = server.line_client().session
    session.caught_up(b"k")
    session.fell_behind(b"k", 3)
    session.add_step("lost", "k 3 to 4")
    session.caught_up(b"k")
    session.caught_up(b"k")
    assert steps(session)[2:] == ["behind k from 3", "lost k 3 to 4", "caught-up k"]


def test_truncates_details(server: FakeServer) -> None:
    session = server.line_client().session
    session.fell_behind(b"k" * 200, 1)
    assert len(session.timeline.steps[-1].words) == MAX_WORDS


def test_records_the_identity() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {}, None)}))
    peer = server.line_client()
    peer.send("AUTH wrong", "AUTH t")
    assert steps(peer.session)[2:] == ["authenticated ann"]
    outcome = server.context.authenticate("", b"t")
    assert steps(LineClient(server, outcome).session)[2:] == ["authenticated ann"]


@pytest.mark.parametrize(
    ("close", "step"),
    [
        (lambda peer: peer.send("QUIT"), "closing QUIT peer"),
        (lambda peer: peer.pipeline.end_of_input(), "closing it has ended its stream, with a FIN peer"),
        (lambda peer: peer.session.close(CloseReason.POLICY, b"you were rude"), "closing you were rude server"),
        (
            lambda peer: peer.session.close_with_error(MEMORY_LIMIT_REACHED),
            f"closing {MEMORY_LIMIT_REACHED.message[:MAX_WORDS]} server",
        ),
        (lambda peer: peer.session.mark_closing("1002", "server"), "closing 1002 server"),
    ],
)
def test_records_which_side_closed_and_why(peer: LineClient, close: partial[None], step: str) -> None:
    close(peer)
    peer.pipeline.connection_lost("cleanly")
    peer.pipeline.connection_lost("again")
    assert steps(peer.session)[2:] == [step, "closed cleanly"]


def test_records_an_end_without_a_close(peer: LineClient) -> None:
    peer.pipeline.connection_lost("broken")
    assert steps(peer.session)[2:] == ["closed broken"]


def test_records_a_failed_authentication_in_the_handshake() -> None:
    server = FakeServer(policy=FakePolicy())
    peer = LineClient(server, Error(ErrorCode.UNAUTHORIZED, "that token is not known"))
    assert steps(peer.session)[2:] == ["closing that token is not known server"]


def test_reads_tcp_statistics_from_the_outlet(peer: LineClient) -> None:
    assert peer.session.tcp_stats() is None
    peer.outlet.stats = TcpStats(1, 2, 3, 0.5)
    assert peer.session.tcp_stats() == TcpStats(1, 2, 3, 0.5)


def test_records_the_first_reason_only(peer: LineClient) -> None:
    peer.send("QUIT")
    peer.session.mark_closing("1000", "peer")
    assert steps(peer.session)[2:] == ["closing QUIT peer"]
