"""Tests of the order of replies: it is the order of the commands, with any delay of the backplane."""

import pytest

from tests.session.clients import ask, kinds, settle, subscribed, welcomed
from twistedsock.errors import CloseReason
from twistedsock.limits.settings import MAX_PUBLISHES_IN_FLIGHT
from twistedsock.pubsub.subscription import REPLY_PENDING
from twistedsock.session.commands import Notice
from twistedsock.session.replies import NO_INPUT
from twistedsock.testing import FakeServer, LineClient


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(late=True)


def answered(server: FakeServer, most: int | None = None, backwards: bool = False) -> None:
    server.backplane.release(most, backwards)
    server.turn()


def test_replies_to_a_publish_when_the_backplane_has_replied(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x")
    assert peer.received() == []
    answered(server)
    assert peer.received() == ["OK 1"]


def test_several_publishes_wait_together(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x", "PUB b x", "PUB a x")
    assert len(server.backplane) == 3 and not peer.session.replies.input_paused
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    answered(server)
    assert peer.received() == ["OK 1", "OK 2"]


def test_sorts_results_that_arrive_out_of_order(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x", "PUB b x", "PUB c x", "PUB b x")
    answered(server, 2, backwards=True)
    assert peer.received() == []
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    answered(server)
    # The last was answered first, so it got the lower offset.
    assert peer.received() == ["OK 2", "OK 1", "OK 1"]


def test_immediate_error_waits_for_earlier_replies(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x", "PUB a* x", "PUB a y")
    assert peer.received() == []
    answered(server, 1)
    assert kinds(peer) == ["OK", "ERR"]
    answered(server)
    assert peer.received() == ["OK 2"]


def test_reports_a_failed_publish_and_continues(server: FakeServer) -> None:
    reader, peer = subscribed(server), welcomed(server)
    peer.send("PUB a x")
    peer.send("PUB a y")
    server.backplane.failing = 1
    answered(server)
    assert peer.received() == ["ERR unavailable backplane unavailable: try again later", "OK 1"]
    assert reader.received() == ["MSG a 1 p2 y"]


@pytest.mark.parametrize("line", ["SUB b", "HIST b", "WHO b"])
def test_reports_every_failed_command(server: FakeServer, peer: LineClient, line: str) -> None:
    peer.send(line, "PING")
    server.backplane.failing = 1
    answered(server)
    assert kinds(peer) == ["ERR", "PONG"]


def test_repetition_of_a_publication_under_way_waits_for_its_result(server: FakeServer) -> None:
    """Also in another session, and behind the replies that are due before it."""
    message = {"type": "publish", "id": 1, "channel": "a", "data": "x", "key": "k"}
    first, second = server.json_client(), server.json_client()
    first.received(), second.received()
    first.send(message)
    second.send({"type": "publish", "id": 0, "channel": "b", "data": "y"}, message)
    assert len(server.backplane) == 2
    answered(server)
    assert first.received() == [{"type": "ok", "id": 1, "offset": 1}]
    assert second.received() == [
        {"type": "ok", "id": 0, "offset": 1},
        {"type": "ok", "id": 1, "offset": 1, "repeated": True},
    ]


def test_failed_publication_with_a_key_can_be_repeated(server: FakeServer) -> None:
    peer = server.json_client()
    peer.received()
    server.backplane.failing = 1
    for _ in range(2):
        peer.send({"type": "publish", "id": 1, "channel": "a", "data": "x", "key": "k"})
        answered(server)
    error, reply = peer.received()
    assert error["code"] == "unavailable" and reply == {"type": "ok", "id": 1, "offset": 1}


def test_sends_own_events_after_their_ok(server: FakeServer) -> None:
    peer = subscribed(server)
    peer.send("PUB b x", "PUB a y")
    answered(server, 1, backwards=True)  # a's event is delivered, but b's OK must be written first
    assert peer.received() == [] and peer.outlet.blocked == REPLY_PENDING
    answered(server)
    assert peer.received() == ["OK 1", "OK 1", "MSG a 1 p1 y"]
    assert peer.outlet.blocked == 0


def test_holds_events_while_an_ok_cannot_be_written(server: FakeServer) -> None:
    peer = subscribed(server)
    peer.send("PUB b x", "PUB c x", "PUB a y")
    answered(server, 1, backwards=True)
    answered(server, 1)
    assert peer.received() == ["OK 1"] and peer.outlet.blocked == REPLY_PENDING
    answered(server)
    assert peer.received() == ["OK 1", "OK 1", "MSG a 1 p1 y"]


def test_other_clients_get_events_at_once(server: FakeServer) -> None:
    peer, reader = subscribed(server), subscribed(server)
    peer.send("PUB b x", "PUB a y")
    answered(server, 1, backwards=True)
    assert reader.received() == ["MSG a 1 p1 y"]


@pytest.mark.parametrize(
    "line, reply",
    [
        ("SUB b", "OK b offset=0 epoch=e2"),
        ("SUB a", "OK a offset=1 epoch=e1"),
        ("UNSUB a", "OK a"),
        ("HIST b", "OK 0"),
        ("HIST a", "OK 1"),
        ("WHO a", "MEMBER a p1 p1"),
        ("NICK ann", "OK ann"),
        ("PING", "PONG"),
        ("INFO", "OK id=p1 nick=p1 from=127.0.0.1:50000 to=127.0.0.1:8081 channels=1 uptime=0 version=0.0"),
        ("QUIET on", "OK"),
        ("QUIT", "BYE"),
        ("NONSENSE", "ERR unknown-command unknown command: try HELP, or QUIT to disconnect"),
    ],
)
def test_other_commands_wait_for_earlier_publishes(server: FakeServer, line: str, reply: str) -> None:
    peer = subscribed(server)
    peer.send("PUB a x", "PUB a* x", line)
    assert peer.received() == [] and peer.paused
    settle(server)
    first, second, third, *_ = [said for said in peer.received() if not said.startswith("MSG")]
    assert first == "OK 1" and second.startswith("ERR bad-channel") and third == reply
    assert not peer.paused or line == "QUIT"


def test_commands_wait_for_a_waiting_command(server: FakeServer, peer: LineClient) -> None:
    peer.send("SUB a", "PUB a x", "PING", "WHO a", "PING again")
    peer.send("HIST a")
    assert peer.received() == []
    answered(server)
    assert peer.received() == ["OK a offset=0 epoch=e1"]
    answered(server)
    assert peer.received() == ["OK 1", "PONG", "MSG a 1 p1 x"]
    answered(server)
    assert peer.received() == ["MEMBER a p1 p1", "OK 1", "PONG again", "MSG a 1 p1 x", "OK 1"]
    assert not peer.paused


def test_sends_notices_before_outstanding_replies(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x")
    peer.send_messages(b"PUB a y")
    peer.pipeline.submit([Notice(b"hello")])
    assert peer.received() == ["NOTICE hello"]
    answered(server)
    assert peer.received() == ["OK 1", "OK 2"]


IN_TURNS = ["PUB a x", "PUB b x"] * (MAX_PUBLISHES_IN_FLIGHT // 2)
"""Publishes to two channels in turn, because consecutive ones to one channel are joined."""


def test_limits_the_publishes_that_wait_together(server: FakeServer, peer: LineClient) -> None:
    peer.send(*IN_TURNS, "PUB a x", "PUB b x")
    assert len(server.backplane) == MAX_PUBLISHES_IN_FLIGHT and peer.paused
    server.backplane.release(1)
    assert len(server.backplane) == MAX_PUBLISHES_IN_FLIGHT and peer.paused
    server.backplane.release(2)
    assert len(server.backplane) == MAX_PUBLISHES_IN_FLIGHT - 1 and not peer.paused
    answered(server)
    assert peer.received() == [f"OK {number // 2 + 1}" for number in range(MAX_PUBLISHES_IN_FLIGHT + 2)]


def test_continues_publishes_over_the_limit_after_the_oldest_result(server: FakeServer, peer: LineClient) -> None:
    peer.send(*IN_TURNS, "PUB a x")
    answered(server, MAX_PUBLISHES_IN_FLIGHT - 1, backwards=True)
    assert peer.paused and peer.received() == []
    answered(server)
    assert not peer.paused
    answered(server)
    assert len(peer.received()) == MAX_PUBLISHES_IN_FLIGHT + 1


def test_joined_publishes_count_one_by_one(server: FakeServer, peer: LineClient) -> None:
    peer.send(*["PUB a x"] * MAX_PUBLISHES_IN_FLIGHT)
    assert len(server.backplane) == 1 and peer.paused
    answered(server)
    assert peer.received() == [f"OK {offset}" for offset in range(1, MAX_PUBLISHES_IN_FLIGHT + 1)] and not peer.paused


def test_reports_the_error_of_each_joined_publish(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x", "PUB a y", "PUB b z")
    server.backplane.failing = 1
    answered(server)
    assert kinds(peer) == ["ERR", "ERR", "OK"]


def test_command_waits_for_all_earlier_publishes(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x", "PUB b x", "PING")
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    answered(server, 1)
    assert peer.received() == ["OK 1", "PONG"]


@pytest.mark.parametrize("end", ["connection_lost", "mark_closing", "close"])
@pytest.mark.parametrize("line", ["PUB a x", "SUB a", "HIST a", "WHO a", "PUB a x\nPING", "PUB a x\nPUB b x"])
def test_drops_results_after_the_session_was_closed(server: FakeServer, peer: LineClient, line: str, end: str) -> None:
    peer.send(line)
    if end == "close":
        peer.session.close(CloseReason.GOING_AWAY, b"enough")
    else:
        getattr(peer.session, end)()
    peer.received()
    answered(server)
    answered(server)
    assert peer.received() == []
    server.now += 1_000
    server.broker.expire_histories()
    assert server.broker.channels == {}


def test_opens_a_channel_again_that_was_closed_while_waiting(server: FakeServer) -> None:
    """HIST closes the channel at once; the SUB that waited for the same result must open it again."""
    first, second = welcomed(server), welcomed(server)
    first.send("HIST a"), second.send("SUB a")
    answered(server)
    assert first.received() == ["OK 0"]
    answered(server)
    assert second.received() == ["OK a offset=0 epoch=e1"]
    first.send("PUB a x")
    answered(server)
    assert second.received() == ["MSG a 1 p1 x"]


def test_completes_a_long_reply_with_a_late_result(server: FakeServer) -> None:
    peer = welcomed(server, "SUB a", "PUB a x")
    replies = ask(peer, "PUB b y", "HIST a", "WHO a", "PING")
    assert replies == ["OK 1", "MSG a 1 p1 x", "OK 1", "MEMBER a p1 p1", "OK 1", "PONG"]


def test_event_has_the_nick_of_the_time_of_its_publish(server: FakeServer) -> None:
    reader = subscribed(server)
    ask(welcomed(server), "PUB a x", "NICK ann", "PUB a y")
    assert reader.received() == ["MSG a 1 p2 x", "MSG a 2 ann y"]


@pytest.mark.parametrize("other", ["SUB a", "HIST a", "SUB a presence=on"])
def test_early_flush_keeps_ok_before_own_events(other: str) -> None:
    """Another client needs the history of the channel before the end of the turn."""
    server = FakeServer()
    both, newcomer = subscribed(server), welcomed(server)
    both.send("PUB a x")
    ask(newcomer, other)
    assert bytes(both.outlet.sent).endswith(b"OK 1\nMSG a 1 p1 x\n")


def test_early_join_keeps_replies_before_events() -> None:
    server = FakeServer()
    both, newcomer = subscribed(server, "presence=on"), welcomed(server)
    both.send("PUB a x")
    ask(newcomer, "SUB a")
    assert both.received() == ["OK 1", "MSG a 1 p1 x", "JOIN a p2 p2"]


def test_writes_all_output_before_a_close() -> None:
    """No data can follow a WebSocket close frame."""
    peer = welcomed(FakeServer())
    peer.send("PUB k x")
    peer.session.mark_closing()
    assert bytes(peer.outlet.sent).endswith(b"OK 1\n")


# The end of the server.

BYE = ["NOTICE the server is going away", "BYE"]


def dismiss(server: FakeServer) -> None:
    server.context.close_all(CloseReason.GOING_AWAY, b"the server is going away", waits=True)
    server.turn()


@pytest.mark.parametrize(
    "line, replies",
    [
        ("PUB a x", ["OK 1"]),
        ("SUB b", ["OK b offset=0 epoch=e2"]),
        ("HIST b", ["OK 0"]),
        ("WHO b", ["OK 0"]),
        ("PING hello", ["PONG hello"]),
    ],
)
def test_the_command_that_is_being_run_is_answered_before_the_end(
    server: FakeServer, line: str, replies: list[str]
) -> None:
    subscribed(server)
    peer = welcomed(server)
    peer.send(line)
    dismiss(server)
    if line.startswith("PING"):
        assert peer.received() == replies + BYE
        return
    assert peer.received() == []
    settle(server)
    assert peer.received() == replies + BYE


def test_publications_and_the_command_behind_them_are_answered_before_the_end(
    server: FakeServer, peer: LineClient
) -> None:
    peer.send("PUB a x", "PUB b y", "WHO c", "PUB a never")
    dismiss(server)
    peer.send("PUB a never", "PING")
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    settle(server)
    assert peer.received() == ["OK 1", "OK 0", *BYE]
    assert server.broker.channels[b"a"].head == 1


def test_failed_publications_are_answered_before_the_end(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x")
    dismiss(server)
    server.backplane.failing = 1
    settle(server)
    assert kinds(peer) == ["ERR", "NOTICE", "BYE"]


def test_answers_that_do_not_arrive_are_not_waited_for_twice(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x")
    dismiss(server)
    server.context.close_all(CloseReason.GOING_AWAY, b"the server is going away")
    server.turn()
    assert peer.received() == BYE
    settle(server)
    assert peer.received() == []


def test_client_that_closes_while_it_waits_is_forgotten(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a x")
    dismiss(server)
    peer.session.replies.input.end_of_input()  # type: ignore[attr-defined]
    peer.session.connection_lost()
    settle(server)
    assert not len(server.context.sessions)


def test_rate_of_the_client_does_not_delay_the_end() -> None:
    server = FakeServer(late=True)
    peer = server.line_client()
    peer.limit(commands_per_second=1, commands_burst=1)
    peer.received()
    peer.send("PUB a x")
    dismiss(server)
    settle(server)
    assert peer.received() == ["OK 1", *BYE]


def test_stream_without_commands_is_closed_at_once(server: FakeServer, peer: LineClient) -> None:
    peer.send("SUB a")
    peer.session.replies.input = NO_INPUT
    dismiss(server)
    assert peer.received() == BYE
