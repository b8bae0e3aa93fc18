"""Tests of tokens, rights and nicks of a session."""

from typing import Any

import pytest

from tests.session.clients import ask, settle, welcomed
from twistedsock.auth.identity import Identity, grants
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.pubsub.values import Member
from twistedsock.session.authorizer import MAX_FAILED_TOKENS
from twistedsock.testing import FakePolicy, FakeServer, LineClient

WALL = FakeServer().wall
TOKENS: dict[str, Any] = {
    "A": ("ann", {"kitchen": "rw", "alerts.*": "r"}, None),
    "A2": ("ann", {"kitchen": "r"}, None),
    "AX": ("ann", {"kitchen": "rw"}, WALL + 100),
    "B": ("bob", {"kitchen": "rw"}, None),
    "LONG": ("a subject that is no nick, as it is long", {"kitchen": "rw"}, None),
    "ID": ("p1", {}, None),
}
POLICY = FakePolicy({"lobby": "rw", "news": "r"}, TOKENS)

TO_READ = "ERR unauthorized authentication required to read this channel: send AUTH <token>"
TO_PUBLISH = "ERR unauthorized authentication required to publish on this channel: send AUTH <token>"


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def server(request: pytest.FixtureRequest) -> FakeServer:
    return FakeServer(late=request.param, policy=POLICY, max_connections_per_identity=2)


@pytest.mark.parametrize(
    "auth, command, reply",
    [
        ([], "PUB lobby hi", "OK 1"),
        ([], "SUB news", "OK news offset=0 epoch=e1"),
        ([], "HIST news", "OK 0"),
        ([], "WHO news", "OK 0"),
        ([], "PUB news hi", TO_PUBLISH),
        ([], "EMIT news alarm hi", TO_PUBLISH),
        ([], "SUB kitchen", TO_READ),
        ([], "HIST kitchen", TO_READ),
        ([], "WHO kitchen", TO_READ),
        ([], "AUTH nonsense", "ERR unauthorized that token is not known"),
        (["AUTH A"], "PUB kitchen hi", "OK 1"),
        (["AUTH A"], "SUB alerts.fire", "OK alerts.fire offset=0 epoch=e1"),
        (["AUTH A"], "PUB alerts.fire hi", "ERR forbidden no right to publish on this channel"),
        (["AUTH A"], "SUB attic", "ERR forbidden no right to read this channel"),
    ],
)
def test_clients_have_the_anonymous_rights_or_those_of_their_token(
    server: FakeServer, auth: list[str], command: str, reply: str
) -> None:
    assert ask(welcomed(server, *auth), command) == [reply]


def test_forbidden_commands_keep_no_state_and_reply_in_order(server: FakeServer) -> None:
    peer = welcomed(server)
    assert ask(peer, "PUB lobby a", "PUB kitchen b", "SUB kitchen", "PUB lobby c") == [
        "OK 1", TO_PUBLISH, TO_READ, "OK 2"
    ]  # fmt: skip
    assert set(server.broker.channels) == {b"lobby"} and peer.session.subscriptions == {}


def test_reply_to_a_token_contains_nick_and_lifetime(server: FakeServer) -> None:
    assert ask(welcomed(server), "AUTH A") == ["OK ann"]
    server.wall += 0.5
    assert ask(welcomed(server), "AUTH AX") == ["OK ann expires=99"]


def test_marks_unverified_nicks(server: FakeServer) -> None:
    reader, ann, mallory = (
        welcomed(server, "AUTH A", "SUB kitchen"),
        welcomed(server, "AUTH A2"),
        welcomed(server, "AUTH B"),
    )
    assert ask(mallory, "NICK ann", "PUB kitchen hi") == ["OK ~ann", "OK 1"]
    assert ask(ann, "NICK bob", "NICK ann") == ["OK ~bob", "OK ann"]
    assert ask(mallory, "NICK ~ann", "NICK bob") == ["OK ~ann", "OK bob"]
    assert ask(welcomed(server), "NICK x y", f"NICK {reader.id}", "NICK bob")[1:] == [
        "ERR bad-name invalid nick: it is the id of another client",
        "OK ~bob",
    ]
    assert reader.received() == ["MSG kitchen 1 ~ann hi"]


def test_token_replaces_an_earlier_nick(server: FakeServer) -> None:
    peer = welcomed(server, "NICK anything")
    replies = ask(peer, "AUTH A", "NICK other", "AUTH A2", "AUTH B", "NICK ann", "AUTH LONG")
    assert replies == ["OK ann", "OK ~other", "OK ~other", "OK bob", "OK ~ann", "OK ~ann"]


def test_subject_that_is_no_valid_nick_keeps_the_id(server: FakeServer) -> None:
    peer = welcomed(server)
    assert ask(peer, "AUTH LONG") == [f"OK {peer.id}"]


def test_rejects_ids_of_other_sessions_as_names(server: FakeServer) -> None:
    welcomed(server)
    assert ask(welcomed(server), "AUTH ID") == ["ERR bad-name invalid nick: it is the id of another client"]


def test_another_token_keeps_the_subscriptions_that_it_allows(server: FakeServer) -> None:
    peer = welcomed(server, "AUTH A", "SUB kitchen", "SUB alerts.fire")
    assert ask(peer, "AUTH A2") == ["OK ann", "NOTICE right to read alerts.fire lost: the subscription has ended"]
    assert set(peer.session.subscriptions) == {b"kitchen"}
    writer = welcomed(server, "AUTH B", "PUB kitchen hi")
    assert writer.session.subscriptions == {}
    assert peer.received() == ["MSG kitchen 1 bob hi"]


def test_invalid_token_changes_nothing_and_many_close_the_connection(server: FakeServer) -> None:
    peer = welcomed(server, "AUTH A", "SUB kitchen")
    unknown = "ERR unauthorized that token is not known"
    for _ in range(MAX_FAILED_TOKENS - 1):
        assert ask(peer, "AUTH x") == [unknown]
    assert ask(peer, "PUB kitchen hi") == ["OK 1", "MSG kitchen 1 ann hi"]
    assert ask(peer, "AUTH x") == [unknown, "NOTICE too many invalid tokens", "BYE"]
    assert peer.close_reason is CloseReason.POLICY


def test_limits_the_connections_of_one_identity(server: FakeServer) -> None:
    first, second, third = welcomed(server, "AUTH A"), welcomed(server, "AUTH A"), welcomed(server)
    refused = ["ERR limit too many connections with this identity: try again later"]
    assert ask(third, "AUTH A2") == refused
    assert ask(third, "AUTH B") == ["OK bob"]
    assert ask(second, "AUTH B") == ["OK bob"]
    assert ask(third, "AUTH A") == ["OK ann"]
    assert ask(welcomed(server), "AUTH A") == refused
    first.disconnect()
    assert ask(welcomed(server), "AUTH A") == ["OK ann"]


def test_handshake_identity_applies_from_the_first_command() -> None:
    server = FakeServer(policy=POLICY)
    peer = LineClient(server, Identity(grants({"kitchen": "rw"}), b"ann"))
    assert peer.received()[0].startswith("WELCOME ")
    assert ask(peer, "PUB kitchen hi", "NICK ann") == ["OK 1", "OK ann"]


def test_rejected_handshake_identity_closes_with_a_reason() -> None:
    server = FakeServer(policy=POLICY)
    peer = LineClient(server, Error(ErrorCode.UNAUTHORIZED, "that token is too old"))
    assert peer.received()[1:] == ["ERR unauthorized that token is too old"]
    assert peer.close_reason is CloseReason.POLICY


def test_expiring_token_warns_a_minute_before_and_then_closes() -> None:
    server = FakeServer(policy=POLICY)
    peer = welcomed(server, "AUTH AX", "SUB kitchen")
    for seconds, reply in [
        (39, []),
        (2, ["NOTICE token expires in 60 seconds: authenticate with a new one"]),
        (58, []),
        (2, ["NOTICE token expired", "BYE"]),
    ]:
        server.wall += seconds
        server.context.expiry_watcher.check()
        assert peer.received() == reply
    assert peer.close_reason is CloseReason.POLICY
    peer.disconnect()
    assert len(server.context.expiry_watcher) == 0


def test_renewing_a_token_keeps_subscriptions() -> None:
    server = FakeServer(policy=POLICY)
    peer = welcomed(server, "AUTH AX", "SUB kitchen")
    server.wall += 50
    assert ask(peer, "AUTH A") == ["OK ann"]
    server.wall += 5000
    server.context.expiry_watcher.check()
    assert ask(peer, "PUB kitchen hi") == ["OK 1", "MSG kitchen 1 ann hi"]


def test_stops_watching_the_expiry_after_the_close() -> None:
    server = FakeServer(policy=POLICY)
    welcomed(server, "AUTH AX").disconnect()
    assert len(server.context.expiry_watcher) == 0


def test_new_policy_ends_subscriptions_with_a_notice(server: FakeServer) -> None:
    anybody, ann = welcomed(server, "SUB news", "SUB lobby"), welcomed(server, "AUTH A", "SUB kitchen")
    gone, quitting = welcomed(server), welcomed(server)
    gone.disconnect()
    quitting.session.close(CloseReason.NORMAL, b"")
    quitting.received()
    server.context.change_policy(FakePolicy({"lobby": "r"}, {"A": ("ann", {"attic": "rw"}, None)}))
    assert anybody.received() == ["NOTICE right to read news lost: the subscription has ended"]
    assert ann.received() == ["NOTICE right to read kitchen lost: the subscription has ended"]
    assert ask(anybody, "PUB lobby x")[0].startswith("ERR unauthorized")
    assert ask(ann, "PUB attic x") == ["OK 1"]
    assert quitting.received() == []


def test_closes_clients_that_the_new_policy_rejects(server: FakeServer) -> None:
    ann = welcomed(server, "AUTH A", "SUB kitchen")
    server.context.change_policy(FakePolicy({">": "rw"}))
    assert ann.received() == ["NOTICE that token is not known", "BYE"]
    assert ann.close_reason is CloseReason.POLICY


def test_first_policy_marks_existing_nicks() -> None:
    server = FakeServer()
    peer, nameless = welcomed(server, "NICK ann", "SUB kitchen"), welcomed(server)
    server.context.change_policy(FakePolicy({"kitchen": "rw"}))
    assert ask(peer, "WHO kitchen") == ["MEMBER kitchen p1 ~ann", "OK 1"]
    assert ask(nameless, "INFO")[0].startswith("OK id=p2 nick=p2 ")


def test_removing_the_policy_allows_everything() -> None:
    server = FakeServer(policy=POLICY)
    ann, nobody = welcomed(server, "AUTH AX"), welcomed(server)
    server.context.change_policy(None)
    assert ask(nobody, "PUB attic x", "NICK ann") == ["OK 1", "OK ann"]
    assert ask(ann, "PUB attic x") == ["OK 2"]
    assert len(server.context.expiry_watcher) == 0
    ann.disconnect()
    nobody.disconnect()


def test_sends_no_notice_within_a_long_reply() -> None:
    server = FakeServer(policy=FakePolicy({"lobby": "rw", "news": "r"}))
    peer = welcomed(server, "SUB news", *["PUB lobby " + "x" * 60_000] * 4)
    peer.outlet.room = 1000
    peer.send("HIST lobby")
    server.context.change_policy(FakePolicy({"lobby": "rw"}))
    peer.outlet.drain(70_000)
    peer.outlet.drain()
    *events, answer, notice = peer.received()
    assert len(events) == 4 and answer == "OK 4"
    assert notice == "NOTICE right to read news lost: the subscription has ended"


@pytest.mark.parametrize("command", ["SUB news", "HIST news", "WHO news"])
def test_checks_the_right_again_after_a_command_has_waited(command: str) -> None:
    server = FakeServer(late=True, policy=POLICY)
    peer = welcomed(server)
    peer.send(command)
    server.context.change_policy(FakePolicy())
    settle(server)
    assert peer.received() == [TO_READ]
    assert server.broker.channels == {} and peer.session.subscriptions == {}


def read_while_losing_the_right(server: FakeServer, verb: str, type: str) -> tuple[list[str], list[Any]]:
    """What a line and a JSON client receive if they lose the right to read the lobby while the reply is written."""
    lines, messages = server.line_client(), server.json_client()
    for peer in (lines, messages):
        peer.received_bytes()
        peer.outlet.room = 0
    lines.send(f"{verb} lobby", "PING")
    messages.send({"type": type, "channel": "lobby"}, {"type": "ping"})
    server.context.change_policy(FakePolicy({"lobby": "w"}))
    for peer in (lines, messages):
        peer.outlet.drain()
    server.turn()
    return lines.received(), messages.received()


@pytest.mark.parametrize("policy", [POLICY, None])
def test_history_ends_when_the_right_to_read_is_lost(policy: FakePolicy | None) -> None:
    server = FakeServer(policy=policy)
    welcomed(server, *["PUB lobby " + "x" * 1000] * 300)
    (*events, lost, counted, pong), (reply, json_pong) = read_while_losing_the_right(server, "HIST", "history")
    assert 0 < len(events) < 200
    assert (lost, counted, pong) == (f"LOST lobby {len(events) + 1} 300", f"OK {len(events)}", "PONG")
    assert 0 < len(reply["events"]) < 200
    assert reply["gaps"] == [{"first": len(reply["events"]) + 1, "last": 300}]
    assert json_pong["type"] == "pong"


def test_member_list_ends_when_the_right_to_read_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(policy=POLICY)
    many = [Member(b"id%d" % number, b"~%032d" % number) for number in range(5_000)]
    monkeypatch.setattr(server.backplane, "members", lambda channel: many)
    (*members, counted, pong), (reply, json_pong) = read_while_losing_the_right(server, "WHO", "who")
    assert 0 < len(members) < 3_000
    assert (counted, pong) == (f"OK {len(members)}", "PONG")
    assert 0 < len(reply["members"]) < 3_000 and json_pong["type"] == "pong"
    assert server.broker.member_shares.total == 0


@pytest.mark.parametrize("command", ["HIST kitchen", "WHO kitchen", "SUB kitchen", "PUB kitchen x"])
def test_forbidden_commands_do_not_reach_the_backplane(command: str) -> None:
    server = FakeServer(late=True, policy=POLICY)
    peer = welcomed(server)
    peer.send(command)
    assert len(server.backplane) == 0
    assert peer.received()[0].startswith("ERR unauthorized ")


def test_new_policy_checks_later_tokens(server: FakeServer) -> None:
    peer = welcomed(server)
    server.context.change_policy(FakePolicy({"lobby": "rw"}, {"NEW": ("zoe", {"kitchen": "r"}, None)}))
    server.turn()
    assert ask(peer, "AUTH A") == ["ERR unauthorized that token is not known"]
    assert ask(peer, "AUTH NEW", "SUB kitchen")[0].startswith("OK zoe")
    assert peer.session.identity is not None and peer.session.identity.subject == b"zoe"


def test_long_reply_continues_when_the_right_to_read_is_kept() -> None:
    server = FakeServer(policy=POLICY)
    welcomed(server, *["PUB lobby " + "x" * 1000] * 300)
    peer = welcomed(server)
    peer.outlet.room = 0
    peer.send("HIST lobby")
    server.context.change_policy(FakePolicy({"lobby": "r"}))
    peer.outlet.drain()
    server.turn()
    assert peer.received()[-1] == "OK 300"


def test_does_not_warn_a_closing_session() -> None:
    server = FakeServer(policy=POLICY)
    peer = welcomed(server, "AUTH AX", "QUIT")
    server.wall += 50
    server.context.expiry_watcher.check()
    assert peer.received() == []


def test_list_has_the_channels_that_the_client_can_read(server: FakeServer) -> None:
    ann, guest = welcomed(server, "AUTH A"), welcomed(server)
    for channel, client in (("kitchen", ann), ("lobby", guest)):
        assert ask(client, f"PUB {channel} x") == ["OK 1"]
    server.context.policy = FakePolicy({"lobby": "r"}, TOKENS)
    assert ask(guest, "LIST") == ["CHANNEL lobby 0 1", "OK 1 total=1"]
    assert ask(ann, "LIST") == ["CHANNEL kitchen 0 1", "OK 1 total=1"]
    server.context.policy = FakePolicy({"lobby": "r"})
    assert ask(ann, "LIST") == ["ERR unauthorized that token is not known"]


def test_list_is_charged_by_the_number_of_channels() -> None:
    server = FakeServer()
    client = server.line_client()
    client.send(*(f"PUB c{number} x" for number in range(1000)))
    server.turn()
    client.limit(commands_per_second=100, commands_burst=30)
    client.received_bytes()
    client.send(*["LIST c99"] * 4)
    server.turn()
    replies = [line for line in client.received() if not line.startswith("CHANNEL")]
    assert [reply.split(" ")[0] for reply in replies] == ["OK", "OK", "OK", "ERR"]
