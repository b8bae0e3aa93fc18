"""Tests of sessions: every command gets one reply in every state, and a rejected command changes nothing."""

from collections.abc import Callable
from typing import get_args

import pytest

from tests.session.clients import ask, kinds, subscribed, welcomed
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.errors import INTERNAL, CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Member, Payloads, Publication
from twistedsock.session import commands
from twistedsock.session.commands import Command
from twistedsock.session.handlers import handle
from twistedsock.session.session import Session, SessionState
from twistedsock.testing import FakePolicy, FakeServer, LineClient

LONG = "x" * CHUNK_BYTES


def test_welcome_contains_the_id_and_both_addresses() -> None:
    assert FakeServer().line_client().received() == [
        "WELCOME sockbridge/1 id=p1 from=127.0.0.1:50000 to=127.0.0.1:8081"
    ]


REPLIES: list[tuple[Command, list[str]]] = [
    (commands.Publish(b"kitchen", Payloads((b"21.5",), 4)), ["OK 1"]),
    (commands.Publish(b"kitchen", Payloads((b"21.5",), 4), name=b"alarm"), ["OK 1"]),
    (commands.Publish(b"kitchen", Payloads((b"21.5", b"22"), 6), tags=(None, None)), ["OK 1", "OK 2"]),
    (commands.Subscribe(b"kitchen"), ["OK kitchen offset=0 epoch=e2"]),
    (commands.Subscribe(b"attic"), ["OK attic offset=0 epoch=e1"]),
    (commands.Unsubscribe(b"attic"), ["OK attic"]),
    (commands.ReadHistory(b"attic"), ["OK 0"]),
    (commands.Who(b"attic"), ["MEMBER attic p1 p1", "OK 1"]),
    (commands.Nick(b"ann"), ["OK ann"]),
    (commands.Auth(b"secret"), ["ERR unauthorized tokens are not accepted: this server has no access policy"]),
    (commands.ListChannels(), ["CHANNEL attic 1 0", "OK 1 total=1"]),
    (commands.Ping(), ["PONG"]),
    (commands.Ping(b"hello"), ["PONG hello"]),
    (commands.Info(), ["OK id=p1 nick=p1 from=127.0.0.1:50000 to=127.0.0.1:8081 channels=1 uptime=0 version=0.0"]),
    (commands.Reply(b"OK\n"), ["OK"]),
    (commands.Quit(), ["BYE"]),
    (commands.Close(CloseReason.POLICY, b"enough"), ["NOTICE enough", "BYE"]),
    (commands.Notice(b"hello"), ["NOTICE hello"]),
    (commands.InvalidCommand(INTERNAL), ["ERR internal internal error: the server has logged it"]),
]


def after_nothing(session: Session) -> None: ...


def after_dismissal(session: Session) -> None:
    session.close(CloseReason.GOING_AWAY, b"")


STATES: list[tuple[Callable[[Session], None], SessionState]] = [
    (after_nothing, SessionState.OPEN),
    (after_dismissal, SessionState.CLOSING),
    (Session.mark_closing, SessionState.CLOSING),
    (Session.connection_lost, SessionState.CLOSED),
]


@pytest.mark.parametrize("before, state", STATES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("command, replies", REPLIES, ids=lambda value: type(value).__name__)
def test_runs_commands_until_the_session_closes(
    peer: LineClient, before: Callable[[Session], None], state: SessionState, command: Command, replies: list[str]
) -> None:
    peer.send("SUB attic")
    before(peer.session)
    peer.received()
    handle(peer.session, command)
    peer.session.flush()
    if state is SessionState.OPEN:
        assert peer.received() == replies
    else:
        assert peer.received() == []
        assert peer.session.state is state
    if isinstance(command, commands.Quit | commands.Close):
        assert peer.session.state is not SessionState.OPEN


def test_covers_every_command() -> None:
    assert {type(command) for command, _ in REPLIES} == set(get_args(Command))


@pytest.mark.parametrize("kind", get_args(Command), ids=lambda kind: kind.__name__)
def test_commands_are_immutable(kind: type) -> None:
    fields: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        setattr(kind(*[b"x"] * len(fields)), next(iter(fields), "tag"), b"y")


def test_repr_does_not_contain_the_token() -> None:
    command = commands.Auth(b"secret", b"7")
    assert "secret" not in f"{command} {command!r}"
    assert "7" in repr(command)


def test_help_depends_on_the_protocol(peer: LineClient) -> None:
    peer.send("HELP PUB")
    *lines, last = peer.received()
    assert last == "OK" and lines and all(line.startswith("INFO ") for line in lines)


@pytest.mark.parametrize(
    "line, code",
    [
        ("PUB a* x", "bad-channel"),
        ("EMIT a b* x", "bad-name"),
        ("EMIT a " + "x" * 65 + " x", "bad-name"),
        ("SUB a*", "bad-channel"),
        ("SUB a since=1", "bad-argument"),
        ("SUB a epoch=e1", "bad-argument"),
        ("UNSUB nowhere", "not-subscribed"),
        ("UNSUB a*", "not-subscribed"),
        ("HIST a*", "bad-channel"),
        ("WHO a*", "bad-channel"),
        ("NICK a*", "bad-name"),
        ("NICK p2", "bad-name"),
    ],
)
def test_error_is_one_reply_and_keeps_the_session_open(server: FakeServer, line: str, code: str) -> None:
    peer, _ = welcomed(server), welcomed(server)
    peer.send(line, "PING")
    error, pong = peer.received()
    assert error.startswith(f"ERR {code} ") and pong == "PONG"


def test_client_can_use_its_own_id_as_nick(peer: LineClient) -> None:
    peer.send("NICK ann", "NICK p1")
    assert peer.received() == ["OK ann", "OK p1"]


def test_nicks_need_not_be_unique(server: FakeServer, peer: LineClient) -> None:
    assert ask(welcomed(server), "NICK ann") == ask(peer, "NICK ann") == ["OK ann"]


def test_id_of_a_closed_session_can_be_a_nick(server: FakeServer, peer: LineClient) -> None:
    peer.disconnect()
    assert ask(welcomed(server), "NICK p1") == ["OK p1"]


def test_sends_a_new_nick_to_the_backplane_for_each_channel(
    server: FakeServer, peer: LineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.send("SUB a", "SUB b")
    renamed: list[tuple[bytes, Member]] = []
    monkeypatch.setattr(server.backplane, "rename", lambda channel, member: renamed.append((channel, member)))
    peer.send("NICK ann", "UNSUB a", "NICK bob")
    ann, bob = Member(b"p1", b"ann"), Member(b"p1", b"bob")
    assert renamed == [(b"a", ann), (b"b", ann), (b"b", bob)]


def test_quiet_mode_reports_only_failed_publishes(peer: LineClient) -> None:
    peer.send("QUIET on", "PUB a x", "EMIT a b x", "PUB a* x", "PING", "QUIET off", "PUB a x")
    assert kinds(peer) == ["OK", "ERR", "PONG", "OK", "OK"]


def test_rejects_subscription_over_the_limit_of_a_client() -> None:
    server = FakeServer(max_subscriptions_per_client=2)
    replies = ask(welcomed(server), "SUB a", "SUB b", "SUB c", "SUB a", "UNSUB b", "SUB c")
    kinds = [" ".join(reply.split()[:2]) for reply in replies]
    # The second SUB of channel a is no further subscription.
    assert kinds == ["OK a", "OK b", "ERR limit", "OK a", "OK b", "OK c"]


def test_sends_ok_before_own_events_under_load(peer: LineClient) -> None:
    """Output is written before the end of the turn when it fills a chunk."""
    peer.send("SUB a", "SUB b", *[f"PUB a {LONG[:40_000]}", f"PUB b {LONG[:40_000]}"] * 2)
    replies = [line[:7].rstrip() for line in peer.received()[2:]]
    assert replies == ["OK 1", "OK 1", "MSG a 1", "MSG b 1", "OK 2", "OK 2", "MSG a 2", "MSG b 2"]


def test_replies_to_each_joined_publish(peer: LineClient) -> None:
    replies = ask(peer, "SUB a", "PUB a x", "PUB a y", "PUB b z", "PUB a {}")
    assert replies[1:] == ["OK 1", "OK 2", "OK 1", "OK 3", "MSG a 1 p1 x", "MSG a 2 p1 y", "MSG a 3 p1 {}"]


@pytest.mark.parametrize("quiet", [False, True])
def test_rejects_each_joined_publish(peer: LineClient, quiet: bool) -> None:
    peer.send("QUIET on" if quiet else "PING", "PUB a* x", "PUB a* y")
    assert kinds(peer)[1:] == ["ERR", "ERR"]


@pytest.mark.parametrize(
    "later, replies",
    [
        (["QUIT"], ["BYE"]),
        (["UNSUB a", "PUB a y"], ["OK a", "OK 2"]),
        (["SUB a"], ["OK a offset=1 epoch=e1"]),
        (["HIST a last=0"], ["OK 0"]),
    ],
)
def test_sends_own_event_after_its_ok_and_before_later_replies(
    server: FakeServer, later: list[str], replies: list[str]
) -> None:
    assert ask(subscribed(server), "PUB a x", *later) == ["OK 1", "MSG a 1 p1 x", *replies]


def test_echo_off_skips_own_events_but_not_in_history(server: FakeServer, peer: LineClient) -> None:
    peer.send("PUB a w", "SUB a last=9 echo=off", "PUB a x")
    ask(welcomed(server), "PUB a y")
    assert peer.received() == ["OK 1", "OK a offset=1 epoch=e1", "OK 2", "MSG a 3 p2 y"]
    assert ask(peer, "HIST a") == ["MSG a 1 p1 w", "MSG a 2 p1 x", "MSG a 3 p2 y", "OK 3"]


def test_echo_can_be_turned_on_again(peer: LineClient) -> None:
    replies = ask(peer, "SUB a echo=off", "PUB a x", "SUB a", "PUB a y")
    assert [line for line in replies if line.startswith("MSG")] == ["MSG a 2 p1 y"]


def test_protocol_can_change_before_the_first_command(server: FakeServer) -> None:
    peer = server.message_client()
    peer.received()
    peer.session.set_encoder(JSON_MESSAGE_ENCODER)
    peer.send("SUB a", "PUB a x", "PING")
    server.turn()
    assert [message.partition(",")[0] for message in peer.received()] == ['{"type":"pong"}', '{"type":"event"']


def test_quit_sends_earlier_events_and_closes(server: FakeServer, peer: LineClient) -> None:
    peer.send("SUB a", "PUB a x", "QUIT", "PING")
    assert peer.received()[1:] == ["OK 1", "MSG a 1 p1 x", "BYE"]
    assert peer.close_reason is CloseReason.NORMAL and peer.session.state is SessionState.CLOSING
    assert server.broker.local_members(b"a") == []


def test_close_sends_earlier_events_and_the_reason(server: FakeServer, peer: LineClient) -> None:
    peer.send("SUB a", "PUB a x")
    assert peer.session.close_message == b""
    peer.session.close(CloseReason.GOING_AWAY, b"the server is going away")
    assert peer.session.close_message == b"the server is going away"
    assert peer.received()[2:] == ["MSG a 1 p1 x", "NOTICE the server is going away", "BYE"]
    assert peer.close_reason is CloseReason.GOING_AWAY
    peer.session.close(CloseReason.NORMAL, b"again")
    assert peer.received() == [] and peer.close_reason is CloseReason.GOING_AWAY


def test_closing_session_gets_no_events_and_is_no_member(server: FakeServer, peer: LineClient) -> None:
    peer.send("SUB a", "PUB a x"), peer.received()
    peer.session.mark_closing()
    server.turn()
    assert peer.received() == [] and peer.close_reason is None
    assert server.broker.local_members(b"a") == [] and len(server.context.sessions) == 1


def test_lost_connection_keeps_no_state(server: FakeServer, peer: LineClient) -> None:
    peer.send("SUB a")
    for _ in range(2):
        peer.disconnect()
        assert peer.session.state is SessionState.CLOSED and len(server.context.sessions) == 0
    assert server.broker.channels == {}
    peer.session.resume_writing()
    assert peer.received()[1:] == []


def test_rejects_subscription_over_the_limit_of_the_server() -> None:
    """A change of options does not count as another subscription."""
    server = FakeServer(max_subscriptions=2)
    one, other = welcomed(server, "SUB a", "SUB b"), welcomed(server)
    assert ask(other, "SUB c")[0].startswith("ERR limit ") and b"c" not in server.broker.channels
    assert ask(one, "SUB a echo=off")[0].startswith("OK a ")
    one.disconnect()
    other.send("SUB c", "UNSUB c", "SUB a", "SUB b")
    assert [line[:3] for line in other.received()] == ["OK "] * 4 and server.broker.subscription_shares.total == 2


def test_writes_many_errors_as_fast_as_they_are_read() -> None:
    """A read full of publishes that are refused is ten times as much to say."""
    server = FakeServer(max_channels=1)
    peer = welcomed(server, "PUB a x")
    peer.outlet.room = 0
    peer.send(*["PUB b x"] * 5_000)
    assert len(peer.outlet.waiting) <= 2 * CHUNK_BYTES and peer.paused
    while peer.paused:
        peer.outlet.drain(room=50_000)
    peer.outlet.drain()
    heard = peer.received()
    assert len(heard) == 5_000 and all(line.startswith("ERR limit ") for line in heard)


def test_session_has_properties_for_operators() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"A": ("ann", {"a": "r"}, None)}))
    peer = server.line_client()
    peer.send("AUTH A", "SUB a")
    server.turn()
    session = peer.session
    assert session.identity is not None and session.identity.subject == b"ann"
    assert session.protocol == "line" and session.timeline.opened_at == server.now
    peer.outlet.room = 0
    for text in ("x", "y"):
        server.broker.publish(Client(b"p0"), Publication(b"a", Payloads((text.encode(),), 1), b"message"))
        server.turn()
    assert [subscription.channel.name for subscription in session.behind] == [b"a"]
    assert FakeServer().line_client().session.identity is None
