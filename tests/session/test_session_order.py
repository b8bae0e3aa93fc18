"""However slow the backplane, replies come in the order of the commands, and commands take effect in that order."""

import pytest

from twistedsock.errors import CloseReason
from twistedsock.limits.settings import MAX_PUBLISHES_IN_FLIGHT
from twistedsock.pubsub.subscription import REPLY_PENDING
from twistedsock.session.commands import Notice
from twistedsock.testing import FakeServer, LineClient


def meets(server: FakeServer) -> LineClient:
    peer = server.line_client()
    peer.received()
    return peer


def subscribed(server: FakeServer, options: str = "") -> LineClient:
    """A peer that reads channel a."""
    peer = meets(server)
    peer.send(f"SUB a {options}".rstrip())
    server.backplane.release()
    server.turn()
    peer.received()
    return peer


def answered(server: FakeServer, most: int | None = None, backwards: bool = False) -> None:
    server.backplane.release(most, backwards)
    server.turn()


def test_a_publish_is_answered_when_the_backplane_answers() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x")
    assert peer.received() == []
    answered(server)
    assert peer.received() == ["OK 1"]


def test_publishes_wait_together() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x", "PUB b x", "PUB a x")
    assert len(server.backplane) == 3 and not peer.session.replies.input_paused
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    answered(server)
    assert peer.received() == ["OK 1", "OK 2"]


def test_answers_in_the_wrong_order_become_replies_in_the_right_one() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x", "PUB b x", "PUB c x", "PUB b x")
    answered(server, 2, backwards=True)
    assert peer.received() == []
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    answered(server)
    # The last was answered first, so it got the lower offset.
    assert peer.received() == ["OK 2", "OK 1", "OK 1"]


def test_a_refusal_known_at_once_waits_for_the_answers_before_it() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x", "PUB a* x", "PUB a y")
    assert peer.received() == []
    answered(server, 1)
    assert [reply.split()[0] for reply in peer.received()] == ["OK", "ERR"]
    answered(server)
    assert peer.received() == ["OK 2"]


def test_a_failure_is_told_and_loses_no_later_publish() -> None:
    server = FakeServer(late=True)
    reader, peer = subscribed(server), meets(server)
    peer.send("PUB a x")
    peer.send("PUB a y")
    server.backplane.failing = 1
    answered(server)
    assert peer.received() == ["ERR unavailable backplane unavailable: try again later", "OK 1"]
    assert reader.received() == ["MSG a 1 p2 y"]


@pytest.mark.parametrize("line", ["SUB b", "HIST b", "WHO b"])
def test_whatever_fails_is_told(line: str) -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send(line, "PING")
    server.backplane.failing = 1
    answered(server)
    assert [reply.split()[0] for reply in peer.received()] == ["ERR", "PONG"]


def test_ones_own_copy_waits_for_its_ok() -> None:
    server = FakeServer(late=True)
    peer = subscribed(server)
    peer.send("PUB b x", "PUB a y")
    answered(server, 1, backwards=True)  # a's event is delivered, but b's OK must be written first
    assert peer.received() == [] and peer.outlet.blocked == REPLY_PENDING
    answered(server)
    assert peer.received() == ["OK 1", "OK 1", "MSG a 1 p1 y"]
    assert peer.outlet.blocked == 0


def test_copies_wait_while_any_ok_cannot_be_written() -> None:
    server = FakeServer(late=True)
    peer = subscribed(server)
    peer.send("PUB b x", "PUB c x", "PUB a y")
    answered(server, 1, backwards=True)
    answered(server, 1)
    assert peer.received() == ["OK 1"] and peer.outlet.blocked == REPLY_PENDING
    answered(server)
    assert peer.received() == ["OK 1", "OK 1", "MSG a 1 p1 y"]


def test_others_do_not_wait_for_it() -> None:
    server = FakeServer(late=True)
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
def test_any_other_command_waits_for_the_publishes_before_it(line: str, reply: str) -> None:
    server = FakeServer(late=True)
    peer = subscribed(server)
    peer.send("PUB a x", "PUB a* x", line)
    assert peer.received() == [] and peer.paused
    for _ in range(3):
        answered(server)
    first, second, third, *_ = [said for said in peer.received() if not said.startswith("MSG")]
    assert first == "OK 1" and second.startswith("ERR bad-channel") and third == reply
    assert not peer.paused or line == "QUIT"


def test_commands_after_one_that_waits_wait_too() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
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


def test_sends_notices_before_outstanding_replies() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x")
    peer.send_messages(b"PUB a y")
    peer.pipeline.submit([Notice(b"hello")])
    assert peer.received() == ["NOTICE hello"]
    answered(server)
    assert peer.received() == ["OK 1", "OK 2"]


IN_TURNS = ["PUB a x", "PUB b x"] * (MAX_PUBLISHES_IN_FLIGHT // 2)
"""No two in a row to one channel, as these would be one question."""


def test_so_many_publishes_wait_together_and_no_more() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send(*IN_TURNS, "PUB a x", "PUB b x")
    assert len(server.backplane) == MAX_PUBLISHES_IN_FLIGHT and peer.paused
    server.backplane.release(1)
    assert len(server.backplane) == MAX_PUBLISHES_IN_FLIGHT and peer.paused
    server.backplane.release(2)
    assert len(server.backplane) == MAX_PUBLISHES_IN_FLIGHT - 1 and not peer.paused
    answered(server)
    assert peer.received() == [f"OK {number // 2 + 1}" for number in range(MAX_PUBLISHES_IN_FLIGHT + 2)]


def test_too_many_publishes_go_on_only_with_the_oldest_answer() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send(*IN_TURNS, "PUB a x")
    answered(server, MAX_PUBLISHES_IN_FLIGHT - 1, backwards=True)
    assert peer.paused and peer.received() == []
    answered(server)
    assert not peer.paused
    answered(server)
    assert len(peer.received()) == MAX_PUBLISHES_IN_FLIGHT + 1


def test_publishes_in_a_row_are_one_question_and_count_one_by_one() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send(*["PUB a x"] * MAX_PUBLISHES_IN_FLIGHT)
    assert len(server.backplane) == 1 and peer.paused
    answered(server)
    assert peer.received() == [f"OK {offset}" for offset in range(1, MAX_PUBLISHES_IN_FLIGHT + 1)] and not peer.paused


def test_publishes_in_a_row_fail_together_and_each_is_told() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x", "PUB a y", "PUB b z")
    server.backplane.failing = 1
    answered(server)
    assert [reply.split()[0] for reply in peer.received()] == ["ERR", "ERR", "OK"]


def test_a_command_waits_for_all_publishes_before_it() -> None:
    server = FakeServer(late=True)
    peer = meets(server)
    peer.send("PUB a x", "PUB b x", "PING")
    answered(server, 1)
    assert peer.received() == ["OK 1"]
    answered(server, 1)
    assert peer.received() == ["OK 1", "PONG"]


@pytest.mark.parametrize("end", ["connection_lost", "mark_closing", "close"])
@pytest.mark.parametrize("line", ["PUB a x", "SUB a", "HIST a", "WHO a", "PUB a x\nPING", "PUB a x\nPUB b x"])
def test_answers_that_come_after_the_end_are_heard_by_nobody(line: str, end: str) -> None:
    server = FakeServer(late=True)
    peer = meets(server)
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


def test_two_who_ask_for_one_channel_share_the_answer_even_if_the_first_has_no_use_for_it() -> None:
    """HIST lets the channel go at once; the SUB that waited for the same answer must not get the one that is gone."""
    server = FakeServer(late=True)
    first, second = meets(server), meets(server)
    first.send("HIST a"), second.send("SUB a")
    answered(server)
    assert first.received() == ["OK 0"]
    answered(server)
    assert second.received() == ["OK a offset=0 epoch=e1"]
    first.send("PUB a x")
    answered(server)
    assert second.received() == ["MSG a 1 p1 x"]


def test_a_reply_in_pieces_that_came_late_comes_whole() -> None:
    server = FakeServer(late=True)
    peer = subscribed(server)
    peer.send("PUB a x")
    answered(server)
    peer.send("PUB b y", "HIST a", "WHO a", "PING")
    for _ in range(3):
        answered(server)
    assert peer.received()[2:] == ["OK 1", "MSG a 1 p1 x", "OK 1", "MEMBER a p1 p1", "OK 1", "PONG"]


def test_the_nick_of_an_event_is_that_of_its_publish() -> None:
    server = FakeServer(late=True)
    reader, peer = subscribed(server), meets(server)
    peer.send("PUB a x", "NICK ann", "PUB a y")
    for _ in range(3):
        answered(server)
    assert reader.received() == ["MSG a 1 p2 x", "MSG a 2 ann y"]


@pytest.mark.parametrize("other", ["SUB k", "HIST k", "SUB k presence=on"])
def test_a_flush_before_the_turn_ends_does_not_overtake_replies(other: str) -> None:
    """Somebody else needs the log of the channel now; the publisher, who reads it too, hears its OK first."""
    server = FakeServer()
    both, newcomer = server.line_client(), server.line_client()
    both.send("SUB k")
    server.turn()
    both.received_bytes()
    both.send("PUB k x")
    newcomer.send(other)
    server.turn()
    assert bytes(both.outlet.sent).endswith(b"OK 1\nMSG k 1 p1 x\n")


def test_a_join_heard_before_the_turn_ends_does_not_overtake_replies() -> None:
    """What was published before is heard before; the replies to that are heard before that."""
    server = FakeServer()
    both, newcomer = server.line_client(), server.line_client()
    both.send("SUB k presence=on")
    server.turn()
    both.received_bytes()
    both.send("PUB k x")
    newcomer.send("SUB k")
    server.turn()
    assert both.received() == ["OK 1", "MSG k 1 p1 x", "JOIN k p2 p2"]


def test_what_was_said_leaves_before_a_close() -> None:
    """Whoever closes: no data follows a close frame, so it must go before."""
    server = FakeServer()
    peer = server.line_client()
    peer.received_bytes()
    peer.send("PUB k x")
    peer.session.mark_closing()
    assert bytes(peer.outlet.sent).endswith(b"OK 1\n")
