"""Tests of the server context: its parts, administrators, and changes of the policy."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from tests.fakes import Ticking
from tests.session.clients import kinds, settle, welcomed
from twistedsock.auth.identity import EVERYTHING, Grants, Identity, grants
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import RIGHTS_NOT_CHECKED, CloseReason, Error
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.settings import TIME_SLICE_SECONDS, Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import DisconnectClient, Payloads, Publication
from twistedsock.session.context import build_context
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def test_parts_share_limits_ids_and_turns() -> None:
    limits = Limits(max_connections=1)
    scheduled: list[Callable[[], None]] = []
    backplane = MemoryBackplane(lambda: b"e1", lambda: 0.0)
    context = build_context(backplane, limits, "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0)
    backplane.start(context.broker)
    assert context.limits is limits is context.broker.limits
    assert context.version == b"1.2"
    assert context.sessions.new_id() == b"a"
    assert context.connection_limiter.acquire("") is None and context.connection_limiter.acquire("") is not None
    assert scheduled == []
    for channel in (b"a", b"b"):
        context.broker.publish(Client(b"p"), Publication(channel, Payloads((b"",), 0), b"message"))
    assert scheduled == [context.broker.run_turn]


@pytest.mark.parametrize("seconds, uptime", [(0, 0), (0.9, 0), (1.0, 1), (61.5, 61)])
def test_uptime_is_in_whole_seconds(server: FakeServer, seconds: float, uptime: int) -> None:
    server.now += seconds
    assert server.context.uptime() == uptime


def test_authenticates_clients_in_the_handshake_under_a_policy() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"good": ("ann", {}, None)}))
    context = server.context
    assert context.authenticate("") is None
    by_token, by_certificate = context.authenticate("", b"good", b"meter"), context.authenticate("", None, b"meter")
    assert isinstance(by_token, Identity) and by_token.subject == b"ann"
    assert isinstance(by_certificate, Identity) and by_certificate.subject == b"meter"
    assert isinstance(context.authenticate("", b"bad"), Error)
    context.policy = None
    assert context.authenticate("", b"good", b"meter") is None


def test_charges_work_to_remote_clients_only() -> None:
    server = FakeServer(commands_per_second=1, commands_burst=3, bytes_per_second=1, bytes_burst=10)
    context, ann = server.context, b"@192.0.2.1"
    assert [context.charge(ann, 2) for _ in range(3)] == [True, True, False]
    server.now += 10
    assert [context.charge(ann, 1, 10) for _ in range(2)] == [True, False]
    assert all(context.charge(LOCAL, 100, 100) for _ in range(9))


def test_error_in_one_session_does_not_stop_the_recheck_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(policy=FakePolicy({"news": "r"}))
    faulty, other = welcomed(server), welcomed(server, "SUB news")
    monkeypatch.setattr(FakePolicy, "review", Mock(side_effect=[RuntimeError("a fault"), Identity(grants({}))]))
    with pytest.raises(ExceptionGroup, match="could not be checked"):
        server.context.change_policy(FakePolicy())
    assert faulty.received() == [f"NOTICE {RIGHTS_NOT_CHECKED.decode()}", "BYE"]
    assert faulty.close_reason is CloseReason.TRY_AGAIN
    assert other.received() == ["NOTICE right to read news lost: the subscription has ended"]


@pytest.mark.parametrize(
    "policy, identity, client, is_admin",
    [
        (None, None, b"127.0.0.1:5", True),
        (None, None, b"unix:-", True),
        (None, None, b"192.0.2.1:5", False),
        (FakePolicy(), None, b"127.0.0.1:5", False),
        (FakePolicy(), Identity(EVERYTHING, b"ann"), b"127.0.0.1:5", False),
        (FakePolicy(), Identity(EVERYTHING, b"root", is_admin=True), b"192.0.2.1:5", True),
    ],
)
def test_administrators_are_declared_by_the_policy_or_local(
    policy: FakePolicy | None, identity: Identity | None, client: bytes, is_admin: bool
) -> None:
    assert FakeServer(policy=policy).context.is_admin(identity, client) is is_admin


def test_is_ready_when_the_backplane_is_ready() -> None:
    server = FakeServer(late=True)
    assert server.broker.is_ready
    server.backplane.is_ready = False
    assert not server.broker.is_ready
    assert FakeServer().broker.is_ready


def test_runs_commands_of_other_nodes(server: FakeServer, peer: LineClient) -> None:
    for id in (b"unknown", peer.session.client.id):
        server.broker.run_command(DisconnectClient(id, b"not welcome", b""))
    assert peer.received() == ["NOTICE not welcome", "BYE"] and peer.close_reason is CloseReason.POLICY


def end_time_slices(server: FakeServer) -> None:
    """From now on, each look at the clock ends a time slice."""
    server.clock = Ticking(TIME_SLICE_SECONDS)


def members(
    server: FakeServer, count: int, token: str = "", presence: str = " presence=on", also: tuple[str, ...] = ()
) -> list[LineClient]:
    """Clients that have subscribed to channel k."""
    peers = [server.line_client() for _ in range(count)]
    for peer in peers:
        peer.send(*[f"AUTH {token}"] if token else [], "SUB k" + presence, *also)
    server.turn()
    for peer in peers:
        peer.received()
    return peers


def leave(server: FakeServer, how: str) -> None:
    """All clients with the token lose the channel."""
    if how == "dismissed":
        server.context.close_all(CloseReason.GOING_AWAY, b"the server is going away")
    elif how == "expired":
        server.wall += 7200
        server.context.expiry_watcher.check()
    else:
        server.context.change_policy(FakePolicy({"k": "r"}, {} if how == "token" else {"t": ("ann", {}, None)}))


POLICY: dict[str, Any] = {"anonymous": {"k": "rw"}, "tokens": {"t": ("ann", {"k": "rw"}, FakeServer().wall + 3600)}}
WAYS = ["dismissed", "expired", "token", "right"]


def departure(count: int, how: str) -> tuple[int, int]:
    """Sends, and turns, when as many lose a channel as stay on it, one at a time."""
    server = FakeServer(policy=FakePolicy(**POLICY))
    leaving, staying = members(server, count, "t"), members(server, count)
    end_time_slices(server)
    before = sum(peer.outlet.sends for peer in leaving + staying)
    leave(server, how)
    turns = 0
    while server.turns:
        server.turns.step()
        turns += 1
    if how == "right":
        assert all("forbidden" not in "".join(peer.received()) for peer in staying)
    assert all(not peer.session.subscriptions for peer in leaving)
    return sum(peer.outlet.sends for peer in leaving + staying) - before, turns


@pytest.mark.parametrize("how", WAYS)
def test_cost_of_members_that_leave_together_is_linear(how: str) -> None:
    (few, few_turns), (many, many_turns) = departure(20, how), departure(40, how)
    assert few <= 2 * 20 + 1 and many <= 2 * 40 + 1 and few_turns >= 20
    assert many_turns <= 2 * few_turns + 2


def test_reports_all_members_that_left() -> None:
    server = FakeServer(policy=FakePolicy(**POLICY))
    leaving, staying = members(server, 5, "t"), members(server, 2)
    end_time_slices(server)
    leave(server, "expired")
    server.turn()
    for peer in staying:
        assert sorted(peer.received()) == [f"LEAVE k {one.id} ann" for one in leaving]


@pytest.mark.parametrize("echo", ["", " echo=off"])
def test_sends_no_event_before_the_rights_are_checked(echo: str) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    peers = members(server, 3, presence=echo)
    publisher = server.line_client()
    publisher.send("PUB k before")
    end_time_slices(server)
    server.context.change_policy(FakePolicy({"k": "w"}))
    publisher.send("PUB k after")
    server.turn()
    for peer in peers:
        assert peer.received() == ["MSG k 1 p4 before", "NOTICE right to read k lost: the subscription has ended"]
    assert publisher.received()[1:] == ["OK 1", "OK 2"]


def test_session_that_keeps_its_right_loses_no_event() -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw", "l": "r"}))
    peers = members(server, 3, also=("SUB l",))
    end_time_slices(server)
    server.context.change_policy(FakePolicy({"k": "rw"}))
    server.line_client().send("PUB k 1", "PUB k 2")
    server.turns.step()
    server.line_client().send("PUB k 3")
    server.turn()
    for peer in peers:
        heard = [line for line in peer.received() if line.startswith("MSG")]
        assert [line.split(" ")[2] for line in heard] == ["1", "2", "3"]


@pytest.mark.parametrize("line", ["SUB k", "PUB k x", "HIST k", "WHO k"])
def test_new_policy_applies_to_commands_at_once(line: str) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    members(server, 3)
    peer = server.line_client()
    end_time_slices(server)
    server.context.change_policy(FakePolicy({"l": "rw"}))
    peer.send(line, line.replace(" k", " l"))
    server.turn()
    assert peer.received()[1].startswith("ERR unauthorized ")
    assert peer.session.identity is not None and not peer.session.identity.grants.on(b"k")


def test_new_policy_applies_although_earlier_events_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    (member,) = members(server, 1)
    done: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(server.broker, "flush", lambda is_complete: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            server.context.change_policy(FakePolicy({"l": "rw"}), lambda: done.append("reviewed"))
    server.turn()
    assert done == ["reviewed"] and not member.session.subscriptions
    member.send("PUB k x")
    assert member.received()[-1].startswith("ERR unauthorized ")


def test_rejected_token_loses_all_rights_at_once() -> None:
    """Unless the client sends another token before it is closed."""
    server = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {"k": "rw"}, None)}))
    gone, renewed = members(server, 2, "t")
    end_time_slices(server)
    server.context.change_policy(FakePolicy(tokens={"u": ("ann", {"k": "rw"}, None)}))
    renewed.send("HIST k", "AUTH u", "HIST k")
    server.turn()
    assert [kind for kind in kinds(renewed) if kind != "LEAVE"] == ["ERR", "OK", "OK"]
    assert renewed.close_reason is None and gone.close_reason is CloseReason.POLICY


def test_policy_that_changes_during_a_recheck_applies() -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw", "l": "r"}))
    peers = members(server, 3, also=("SUB l",))
    end_time_slices(server)
    server.context.change_policy(FakePolicy({"k": "rw"}))
    for _ in range(2):
        server.turns.step()
    server.context.change_policy(FakePolicy({"l": "rw"}))
    server.line_client().send("PUB l x")
    server.turn()
    for peer in peers:
        assert "k" not in "".join(line for line in peer.received() if line.startswith("MSG"))
        assert b"k" not in peer.session.subscriptions
        assert not peer.outlet.blocked


def test_recheck_with_the_same_rights_skips_the_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw", "a.*": "r"}))
    peers = members(server, 3)
    looked: list[bytes] = []
    on = Grants.on
    monkeypatch.setattr(Grants, "on", lambda grants, channel: looked.append(channel) or on(grants, channel))
    server.context.change_policy(FakePolicy({"k": "rw", "a.*": "r"}))
    server.turn()
    assert looked == []
    server.context.change_policy(FakePolicy({"k": "r"}))
    server.turn()
    assert looked == [b"k"] * 3
    assert [set(peer.session.subscriptions) for peer in peers] == [{b"k"}] * 3


def test_checks_many_subscriptions_in_time_slices() -> None:
    """Commands behind the token wait."""
    server = FakeServer(policy=FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    server.context.policy = FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)})
    peer, other = welcomed(server, *[f"SUB a.{number}" for number in range(10)]), server.line_client()
    end_time_slices(server)
    peer.send("AUTH t", "PING after")
    assert len(peer.session.subscriptions) == 9 and peer.received()[0] == "OK ann"
    other.send("PUB a.9 x")
    server.turn()
    heard = peer.received()
    assert len(heard) == 10 and heard[-1] == "PONG after" and all(line.startswith("NOTICE") for line in heard[:-1])
    assert not peer.session.subscriptions and not peer.paused


def test_connection_can_be_lost_during_a_recheck() -> None:
    server = FakeServer(policy=FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    peer = server.line_client()
    peer.send(*[f"SUB a.{number}" for number in range(10)])
    end_time_slices(server)
    peer.send("AUTH t", "PING after")
    peer.disconnect()
    server.turn()
    assert len(server.context.sessions) == 0 and not server.broker.channels


def test_error_in_a_recheck_closes_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the session would get no more events, and no notice."""
    server = FakeServer(policy=FakePolicy({"a": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    peer = welcomed(server, "SUB a")
    monkeypatch.setattr(server.broker, "unsubscribe", lambda subscription: 1 / 0)
    peer.send("AUTH t", "PING")
    server.line_client().send("PUB a x")
    server.turn()
    heard = peer.received()
    assert heard[0].startswith("OK ") and heard[1:] == [f"NOTICE {RIGHTS_NOT_CHECKED.decode()}", "BYE"]
    assert peer.close_reason is CloseReason.TRY_AGAIN and peer.exceptions == 1


def test_commands_after_a_token_keep_their_order() -> None:
    """They run after the recheck, and one of them can have to wait again."""
    policy = FakePolicy({"a.>": "rw"}, {"t": ("ann", {"a.>": "rw", "b": "r"}, None)})
    server = FakeServer(late=True, policy=policy)
    peer = welcomed(server, "SUB a.0", "SUB a.1", "SUB a.2")
    end_time_slices(server)
    peer.send("AUTH t", "SUB b", "PING after")
    server.turn()
    peer.session.resume_writing()
    server.turn()
    assert peer.received() == ["OK ann"]
    settle(server)
    assert peer.received() == ["OK b offset=0 epoch=e4", "PONG after"]


def test_checks_subscriptions_made_before_a_recheck() -> None:
    own: dict[str, Any] = {"old": ("ann", {"k": "r"}, None)}
    server = FakeServer(policy=FakePolicy(tokens={**own, "t": ("ann", {"k": "r"}, None)}))
    *_, peer = members(server, 3, "t")
    end_time_slices(server)
    server.context.change_policy(FakePolicy(tokens={**own, "t": ("ann", {"k": "r", "l": "r"}, None)}))
    peer.send("SUB l", "AUTH old")
    server.turn()
    assert "NOTICE right to read l lost: the subscription has ended" in peer.received()
    assert list(peer.session.subscriptions) == [b"k"] and not peer.outlet.blocked


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("policy", [None, FakePolicy()], ids=["no policy", "token refused"])
def test_recheck_stops_when_the_policy_changes_again(policy: FakePolicy | None, turns: int) -> None:
    """It sends no events to a client whose token is rejected."""
    server = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {"k": "r", "l": "r"}, None)}))
    peers = members(server, 3, "t", presence="", also=("SUB l",))
    end_time_slices(server)
    server.context.change_policy(FakePolicy(tokens={"t": ("ann", {"k": "r"}, None)}))
    for _ in range(turns):
        server.turns.step()
    server.context.change_policy(policy)
    server.broker.publish(Client(b"x"), Publication(b"k", Payloads((b"1",), 1), b"message"))
    server.turn()
    for peer in peers:
        assert ("MSG k 1 x 1" in peer.received()) is (policy is None)
        assert peer.close_reason is (None if policy is None else CloseReason.POLICY)


def test_rechecks_nothing_without_a_policy_before_and_after(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB k")
    called: list[int] = []
    server.context.change_policy(None, lambda: called.append(1))
    assert called == [1] and not peer.outlet.blocked


def test_sends_events_again_when_the_policy_is_removed() -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    (peer,) = members(server, 1, presence="")
    server.context.change_policy(None)
    server.line_client().send("PUB k x")
    server.turn()
    assert peer.received() == ["MSG k 1 p2 x"]
