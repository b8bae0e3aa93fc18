"""What a connection goes through is noted: cheaply, bounded, and by whom."""

from functools import partial

import pytest

from twistedsock.codecs.encoders import LINE_ENCODER
from twistedsock.errors import TOO_MUCH_HELD, CloseReason, Error, ErrorCode
from twistedsock.session.encoder import Endpoints
from twistedsock.session.session import Session
from twistedsock.session.subscriber import BEHIND_DEBOUNCE_SECONDS
from twistedsock.session.timeline import MAX_STEPS, MAX_WORDS, HandshakeInfo, Step
from twistedsock.stats import TcpStats
from twistedsock.testing import FakeOutlet, FakePolicy, FakeServer, LineClient


def steps(session: Session) -> list[str]:
    """Each as name, words and by whom."""
    return [" ".join(filter(None, (step.name, step.words, step.by))) for step in session.steps]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


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


def test_who_says_nothing_has_come_in_and_no_more(server: FakeServer) -> None:
    session = server.line_client().session
    assert steps(session) == ["accepted", "open"]
    assert session.accepted_at == session.opened_at == 1000.0
    assert session._steps is None


def test_a_handshake_comes_before_the_session() -> None:
    server = FakeServer()
    early = (Step(11.0, "proxied"), Step(12.0, "handshake", "TLS"))
    arrival = HandshakeInfo(10.0, "WebSocket", early)
    ends = Endpoints(b"127.0.0.1:1", b"127.0.0.1:2")
    session = Session(server.context, LINE_ENCODER, FakeOutlet(), ends, lambda ending: None, arrival=arrival)
    session.add_step("behind", "k from 1")
    assert steps(session) == [
        "accepted", "proxied", "handshake TLS", "handshake WebSocket", "open", "behind k from 1",
    ]  # fmt: skip
    assert [step.at for step in session.steps] == [10.0, 11.0, 12.0, 1000.0, 1000.0, 1000.0]
    assert session.accepted_at == 10.0


def test_who_reads_too_slowly_is_behind_until_it_has_read(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB k", "SUB m")
    stall(server, peer)
    server.now += 5
    stall(server, peer, "m")
    assert steps(peer.session)[2:] == ["behind k from 3"]
    read_on(server, peer)
    assert steps(peer.session)[2:] == ["behind k from 3", "caught-up m"]
    assert [step.at for step in peer.session.steps[2:]] == [1000.0, 1005.0]


def test_a_replay_is_no_delay(server: FakeServer) -> None:
    """Who asks for what was before has not read too slowly."""
    server.line_client().send("PUB k x", "PUB k y")
    peer = server.line_client()
    peer.send("SUB k last=2")
    server.turn()
    assert steps(peer.session) == ["accepted", "open"]


def test_falling_behind_again_at_once_is_still_being_behind(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB k")
    for _ in range(50):
        stall(server, peer)
        read_on(server, peer)
    assert steps(peer.session)[2:] == ["behind k from 3", "caught-up k"]
    server.now += BEHIND_DEBOUNCE_SECONDS
    stall(server, peer)
    assert [step.name for step in peer.session.steps[2:]] == ["behind", "caught-up", "behind"]


def test_being_behind_for_long_and_often_is_bounded(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB k")
    for _ in range(MAX_STEPS):
        server.now += BEHIND_DEBOUNCE_SECONDS
        stall(server, peer)
        server.now += BEHIND_DEBOUNCE_SECONDS
        read_on(server, peer)
    noted = peer.session._steps
    assert noted is not None and len(noted) == MAX_STEPS
    assert noted[0].words == "k from 3"
    assert noted[-1].at == server.now


def test_what_was_lost_is_told_once_a_while(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB k")
    session = peer.session
    assert session.accept_loss(b"k", 3, 9)
    assert session.accept_loss(b"k", 10, 11)
    server.now += BEHIND_DEBOUNCE_SECONDS
    assert session.accept_loss(b"k", 12, 13)
    assert steps(session)[2:] == ["lost k 3 to 9", "lost k 12 to 13"]


def test_nobody_catches_up_twice(server: FakeServer) -> None:
    session = server.line_client().session
    session.caught_up(b"k")
    session.fell_behind(b"k", 3)
    session.add_step("lost", "k 3 to 4")
    session.caught_up(b"k")
    session.caught_up(b"k")
    assert steps(session)[2:] == ["behind k from 3", "lost k 3 to 4", "caught-up k"]


def test_words_are_not_kept_for_ever(server: FakeServer) -> None:
    session = server.line_client().session
    session.fell_behind(b"k" * 200, 1)
    assert len(session.steps[-1].words) == MAX_WORDS


def test_who_proves_who_it_is_is_called_so() -> None:
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
            lambda peer: peer.session.close_with_error(TOO_MUCH_HELD),
            f"closing {TOO_MUCH_HELD.message[:MAX_WORDS]} server",
        ),
        (lambda peer: peer.session.mark_closing("1002", "server"), "closing 1002 server"),
    ],
)
def test_who_closes_and_why(server: FakeServer, close: partial[None], step: str) -> None:
    peer = server.line_client()
    close(peer)
    peer.pipeline.connection_lost("cleanly")
    peer.pipeline.connection_lost("again")
    assert steps(peer.session)[2:] == [step, "closed cleanly"]


def test_who_goes_without_a_word_is_just_gone(server: FakeServer) -> None:
    peer = server.line_client()
    peer.pipeline.connection_lost("broken")
    assert steps(peer.session)[2:] == ["closed broken"]


def test_who_is_refused_on_the_way_in_is_closed_for_that() -> None:
    server = FakeServer(policy=FakePolicy())
    peer = LineClient(server, Error(ErrorCode.UNAUTHORIZED, "that token is not known"))
    assert steps(peer.session)[2:] == ["closing that token is not known server"]


def test_traffic_is_asked_of_the_outlet(server: FakeServer) -> None:
    peer = server.line_client()
    assert peer.session.tcp_stats() is None
    peer.outlet.stats = TcpStats(1, 2, 3, 0.5)
    assert peer.session.tcp_stats() == TcpStats(1, 2, 3, 0.5)


def test_who_is_leaving_is_not_asked_to_leave_again(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("QUIT")
    peer.session.mark_closing("1000", "peer")
    assert steps(peer.session)[2:] == ["closing QUIT peer"]
