"""The parts of one server, put together."""

from collections.abc import Callable
from typing import Any

import pytest

from twistedsock.auth.identity import EVERYTHING, Grants, Identity
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import RIGHTS_NOT_CHECKED, CloseReason, Error
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.settings import TIME_SLICE_SECONDS, Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication
from twistedsock.session.context import build_context
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def test_the_parts_share_limits_clock_and_ids() -> None:
    limits = Limits(max_connections=1)
    scheduled: list[Callable[[], None]] = []
    context = build_context(
        MemoryBackplane(lambda: b"e1"), limits, "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0
    )
    assert context.limits is limits is context.broker.limits
    assert context.version == b"1.2"
    assert context.sessions.new_id() == b"a"
    assert context.connection_limiter.acquire("") is None and context.connection_limiter.acquire("") is not None
    assert scheduled == []


def test_what_becomes_dirty_asks_for_one_turn() -> None:
    backplane = MemoryBackplane(lambda: b"e1")
    scheduled: list[Callable[[], None]] = []
    context = build_context(backplane, Limits(), "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0)
    backplane.attach(context.broker)
    context.broker.publish(Client(b"p"), Publication(b"a", Payloads((b"",), 0), b"message"))
    context.broker.publish(Client(b"p"), Publication(b"b", Payloads((b"",), 0), b"message"))
    assert scheduled == [context.broker.run_turn]


@pytest.mark.parametrize("now, uptime", [(5.0, 0), (5.9, 0), (6.0, 1), (66.5, 61)])
def test_uptime_is_in_whole_seconds(now: float, uptime: int) -> None:
    clock = [5.0]
    context = build_context(
        MemoryBackplane(lambda: b"e1"), Limits(), "1.2", lambda: clock[0], lambda turn: None, lambda: b"a", lambda: 0.0
    )
    clock[0] = now
    assert context.uptime() == uptime


def test_who_shows_something_on_the_way_in_is_recognized_where_there_is_a_policy() -> None:
    server = FakeServer(policy=FakePolicy(tokens={"good": ("ann", {}, None)}))
    context = server.context
    assert context.authenticate("") is None
    by_token, by_certificate = context.authenticate("", b"good", b"meter"), context.authenticate("", None, b"meter")
    assert isinstance(by_token, Identity) and by_token.subject == b"ann"
    assert isinstance(by_certificate, Identity) and by_certificate.subject == b"meter"
    assert isinstance(context.authenticate("", b"bad"), Error)
    context.policy = None
    assert context.authenticate("", b"good", b"meter") is None


def test_work_is_charged_to_a_remote_client_and_to_no_local_one() -> None:
    server = FakeServer(commands_per_second=1, commands_burst=3, bytes_per_second=1, bytes_burst=10)
    context, ann = server.context, b"@192.0.2.1"
    assert [context.charge(ann, 2) for _ in range(3)] == [True, True, False]
    server.now += 10
    assert [context.charge(ann, 1, 10) for _ in range(2)] == [True, False]
    assert all(context.charge(LOCAL, 100, 100) for _ in range(9))


def test_a_fault_of_one_peer_keeps_no_other_from_being_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(policy=FakePolicy({"news": "r"}))
    faulty, other = server.line_client(), server.line_client()
    other.send("SUB news")
    other.received()
    monkeypatch.setattr(FakePolicy, "review", FaultyOnce(FakePolicy.review))
    with pytest.raises(ExceptionGroup, match="could not be checked"):
        server.context.change_policy(FakePolicy())
    assert (
        faulty.received()[1:] == [f"NOTICE {RIGHTS_NOT_CHECKED.decode()}", "BYE"]
        and faulty.close_reason is CloseReason.TRY_AGAIN
    )
    assert other.received() == ["NOTICE right to read news lost: the subscription has ended"]


class FaultyOnce:
    """In the place of a method: the first call fails."""

    def __init__(self, method: Callable[..., object]) -> None:
        self._method = method
        self._calls = 0

    def __get__(self, owner: object, kind: object = None) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            self._calls += 1
            if self._calls == 1:
                raise RuntimeError("a fault")
            return self._method(owner, *arguments)

        return call


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
def test_an_administrator_is_whom_the_policy_calls_so_or_whoever_is_on_this_machine(
    policy: FakePolicy | None, identity: Identity | None, client: bytes, is_admin: bool
) -> None:
    assert FakeServer(policy=policy).context.is_admin(identity, client) is is_admin


def test_it_is_as_ready_as_its_backplane() -> None:
    server = FakeServer(late=True)
    assert server.broker.is_ready
    server.backplane.is_ready = False
    assert not server.broker.is_ready
    assert FakeServer().broker.is_ready


class Ticking:
    """A clock that ends a time slice with each look at it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += TIME_SLICE_SECONDS
        return self.now


def members(server: FakeServer, count: int, token: str = "", presence: str = " presence=on") -> list[LineClient]:
    peers = [server.line_client() for _ in range(count)]
    for peer in peers:
        if token:
            peer.send(f"AUTH {token}")
        peer.send("SUB k" + presence)
    server.turn()
    for peer in peers:
        peer.received()
    return peers


def leave(server: FakeServer, how: str) -> None:
    """Everybody with the token loses the channel."""
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
    server.clock = Ticking()
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
def test_twice_as_many_who_go_together_cost_twice_as_many_sends_in_twice_as_many_turns(how: str) -> None:
    """Each of those who stay is told once, of all of them; and no turn is longer for more of them."""
    (few, few_turns), (many, many_turns) = departure(20, how), departure(40, how)
    assert few <= 2 * 20 + 1 and many <= 2 * 40 + 1 and few_turns >= 20
    assert many_turns <= 2 * few_turns + 2


def test_those_who_stay_are_told_of_all_who_went() -> None:
    server = FakeServer(policy=FakePolicy(**POLICY))
    leaving, staying = members(server, 5, "t"), members(server, 2)
    server.clock = Ticking()
    leave(server, "expired")
    server.turn()
    for peer in staying:
        assert sorted(peer.received()) == [f"LEAVE k {one.id} ann" for one in leaving]


@pytest.mark.parametrize("echo", ["", " echo=off"])
def test_no_event_reaches_a_session_that_has_still_to_be_reviewed(echo: str) -> None:
    """It is sent to those that may read it, once they have been."""
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    peers = members(server, 3, presence=echo)
    publisher = server.line_client()
    publisher.send("PUB k before")
    server.clock = Ticking()
    server.context.change_policy(FakePolicy({"k": "w"}))
    publisher.send("PUB k after")
    server.turn()
    for peer in peers:
        heard = peer.received()
        assert heard == ["MSG k 1 p4 before", "NOTICE right to read k lost: the subscription has ended"]
    assert publisher.received()[1:] == ["OK 1", "OK 2"]


def test_a_session_that_keeps_its_right_misses_nothing_while_it_is_reviewed() -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw", "l": "r"}))
    peers = members(server, 3)
    for peer in peers:
        peer.send("SUB l"), peer.received()
    server.turn()
    server.clock = Ticking()
    server.context.change_policy(FakePolicy({"k": "rw"}))
    server.line_client().send("PUB k 1", "PUB k 2")
    server.turns.step()
    server.line_client().send("PUB k 3")
    server.turn()
    for peer in peers:
        heard = [line for line in peer.received() if line.startswith("MSG")]
        assert [line.split(" ")[2] for line in heard] == ["1", "2", "3"]


@pytest.mark.parametrize("line", ["SUB k", "PUB k x", "HIST k", "WHO k"])
def test_commands_are_judged_by_the_new_policy_at_once(line: str) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    members(server, 3)
    peer = server.line_client()
    server.clock = Ticking()
    server.context.change_policy(FakePolicy({"l": "rw"}))
    peer.send(line, line.replace(" k", " l"))
    server.turn()
    assert peer.received()[1].startswith("ERR unauthorized ")
    assert peer.session.identity is not None and not peer.session.identity.grants.on(b"k")


def test_a_new_policy_holds_although_events_of_before_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_token_that_is_no_longer_accepted_allows_nothing_at_once() -> None:
    """Until the session is closed for that; unless it shows another one before."""
    server = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {"k": "rw"}, None)}))
    gone, renewed = members(server, 2, "t")
    server.clock = Ticking()
    server.context.change_policy(FakePolicy(tokens={"u": ("ann", {"k": "rw"}, None)}))
    renewed.send("HIST k", "AUTH u", "HIST k")
    server.turn()
    heard = [line.split(" ")[0] for line in renewed.received()]
    assert [word for word in heard if word != "LEAVE"] == ["ERR", "OK", "OK"]
    assert renewed.close_reason is None and gone.close_reason is CloseReason.POLICY


def test_another_policy_during_a_review_is_the_one_that_holds() -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw", "l": "r"}))
    peers = members(server, 3)
    for peer in peers:
        peer.send("SUB l"), peer.received()
    server.turn()
    server.clock = Ticking()
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


def test_a_review_that_finds_the_same_rights_does_not_look_at_the_subscriptions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_a_token_for_many_subscriptions_is_looked_into_in_time_slices() -> None:
    """What comes behind it in the same read waits for that."""
    server = FakeServer(policy=FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    server.context.policy = FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)})
    peer, other = server.line_client(), server.line_client()
    peer.send(*[f"SUB a.{number}" for number in range(10)])
    peer.received()
    server.turn()
    server.clock = Ticking()
    peer.send("AUTH t", "PING after")
    assert len(peer.session.subscriptions) == 9 and peer.received()[0] == "OK ann"
    other.send("PUB a.9 x")
    server.turn()
    heard = peer.received()
    assert len(heard) == 10 and heard[-1] == "PONG after" and all(line.startswith("NOTICE") for line in heard[:-1])
    assert not peer.session.subscriptions and not peer.paused


def test_who_goes_while_its_subscriptions_are_looked_into_is_gone() -> None:
    server = FakeServer(policy=FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    peer = server.line_client()
    peer.send(*[f"SUB a.{number}" for number in range(10)])
    server.clock = Ticking()
    peer.send("AUTH t", "PING after")
    peer.disconnect()
    server.turn()
    assert len(server.context.sessions) == 0 and not server.broker.channels


def test_a_fault_while_subscriptions_are_looked_into_closes_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be sent no events any more otherwise, and no notice of that."""
    server = FakeServer(policy=FakePolicy({"a": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    peer = server.line_client()
    peer.send("SUB a")
    peer.received()
    monkeypatch.setattr(server.broker, "unsubscribe", lambda subscription: 1 / 0)
    peer.send("AUTH t", "PING")
    server.line_client().send("PUB a x")
    server.turn()
    heard = peer.received()
    assert heard[0].startswith("OK ") and heard[1:] == [f"NOTICE {RIGHTS_NOT_CHECKED.decode()}", "BYE"]
    assert peer.close_reason is CloseReason.TRY_AGAIN and peer.exceptions == 1


def test_a_reply_that_waits_after_a_token_is_not_overtaken() -> None:
    """Commands after AUTH go on when the subscriptions have been checked; one of them may have to wait again."""
    policy = FakePolicy({"a.>": "rw"}, {"t": ("ann", {"a.>": "rw", "b": "r"}, None)})
    server = FakeServer(late=True, policy=policy)
    peer = server.line_client()
    for number in range(3):
        peer.send(f"SUB a.{number}")
        server.backplane.release()
        server.turn()
    peer.received()
    server.clock = Ticking()
    peer.send("AUTH t", "SUB b", "PING after")
    server.turn()
    peer.session.resume_writing()
    server.turn()
    assert peer.received() == ["OK ann"]
    server.backplane.release()
    server.turn()
    assert peer.received() == ["OK b offset=0 epoch=e4", "PONG after"]


def test_a_subscription_that_was_made_before_a_review_is_checked_for_the_next_identity() -> None:
    """The rights of the next identity are those that the other subscriptions have been checked by."""
    own: dict[str, Any] = {"old": ("ann", {"k": "r"}, None)}
    server = FakeServer(policy=FakePolicy(tokens={**own, "t": ("ann", {"k": "r"}, None)}))
    *_, peer = members(server, 3, "t")
    server.clock = Ticking()
    server.context.change_policy(FakePolicy(tokens={**own, "t": ("ann", {"k": "r", "l": "r"}, None)}))
    peer.send("SUB l", "AUTH old")
    server.turn()
    assert "NOTICE right to read l lost: the subscription has ended" in peer.received()
    assert list(peer.session.subscriptions) == [b"k"] and not peer.outlet.blocked


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("policy", [None, FakePolicy()], ids=["no policy", "token refused"])
def test_a_review_ends_when_the_next_one_must_find_something_else(policy: FakePolicy | None, turns: int) -> None:
    """It sends nothing meanwhile to a client whose token is not accepted any more, and does not fail."""
    server = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {"k": "r", "l": "r"}, None)}))
    peers = members(server, 3, "t", presence="")
    for peer in peers:
        peer.send("SUB l"), peer.received()
    server.turn()
    server.clock = Ticking()
    server.context.change_policy(FakePolicy(tokens={"t": ("ann", {"k": "r"}, None)}))
    for _ in range(turns):
        server.turns.step()
    server.context.change_policy(policy)
    server.broker.publish(Client(b"x"), Publication(b"k", Payloads((b"1",), 1), b"message"))
    server.turn()
    for peer in peers:
        assert ("MSG k 1 x 1" in peer.received()) is (policy is None)
        assert peer.close_reason is (None if policy is None else CloseReason.POLICY)


def test_nothing_is_reviewed_where_there_is_no_policy_before_and_after() -> None:
    server = FakeServer()
    peer = server.line_client()
    peer.send("SUB k")
    called: list[int] = []
    server.context.change_policy(None, lambda: called.append(1))
    assert called == [1] and not peer.outlet.blocked


def test_events_pass_again_when_a_policy_is_taken_away() -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    (peer,) = members(server, 1, presence="")
    server.context.change_policy(None)
    server.line_client().send("PUB k x")
    server.turn()
    assert peer.received() == ["MSG k 1 p2 x"]
