"""The parts of one server, put together."""

from collections.abc import Callable
from typing import Any

import pytest

from twistedsock.auth.identity import EVERYTHING, Grants, Identity
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.settings import TIME_SLICE_SECONDS, Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads
from twistedsock.session.registry import build_context
from twistedsock.session.session import NOT_REVIEWED
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def test_the_parts_share_limits_clock_and_ids() -> None:
    limits = Limits(max_connections=1)
    scheduled: list[Callable[[], None]] = []
    context = build_context(
        MemoryBackplane(lambda: b"e1"), limits, "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0
    )
    assert context.limits is limits is context.broker.limits
    assert context.version == b"1.2"
    assert context.roster.new_id() == b"a"
    assert context.admission.enter("") is None and context.admission.enter("") is not None
    assert scheduled == []


def test_what_becomes_dirty_asks_for_one_turn() -> None:
    backplane = MemoryBackplane(lambda: b"e1")
    scheduled: list[Callable[[], None]] = []
    context = build_context(backplane, Limits(), "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0)
    backplane.attach(context.broker)
    context.broker.publish(Client(b"p"), b"a", b"message", Payloads((b"",), 0))
    context.broker.publish(Client(b"p"), b"b", b"message", Payloads((b"",), 0))
    assert scheduled == [context.broker.turn]


@pytest.mark.parametrize("now, uptime", [(5.0, 0), (5.9, 0), (6.0, 1), (66.5, 61)])
def test_uptime_is_in_whole_seconds(now: float, uptime: int) -> None:
    clock = [5.0]
    context = build_context(
        MemoryBackplane(lambda: b"e1"), Limits(), "1.2", lambda: clock[0], lambda turn: None, lambda: b"a", lambda: 0.0
    )
    clock[0] = now
    assert context.uptime() == uptime


def test_who_shows_something_on_the_way_in_is_recognized_where_there_is_a_policy() -> None:
    hall = FakeServer(policy=FakePolicy(tokens={"good": ("ann", {}, None)}))
    context = hall.context
    assert context.recognize("") is None
    by_token, by_certificate = context.recognize("", b"good", b"meter"), context.recognize("", None, b"meter")
    assert isinstance(by_token, Identity) and by_token.subject == b"ann"
    assert isinstance(by_certificate, Identity) and by_certificate.subject == b"meter"
    assert isinstance(context.recognize("", b"bad"), Error)
    context.policy = None
    assert context.recognize("", b"good", b"meter") is None


def test_work_is_charged_to_a_remote_client_and_to_no_local_one() -> None:
    hall = FakeServer(commands_per_second=1, commands_burst=3, bytes_per_second=1, bytes_burst=10)
    context, ann = hall.context, b"@192.0.2.1"
    assert [context.charge(ann, 2) for _ in range(3)] == [True, True, False]
    hall.now += 10
    assert [context.charge(ann, 1, 10) for _ in range(2)] == [True, False]
    assert all(context.charge(LOCAL, 100, 100) for _ in range(9))


def test_a_fault_of_one_peer_keeps_no_other_from_being_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = FakeServer(policy=FakePolicy({"news": "r"}))
    faulty, other = hall.line_peer(), hall.line_peer()
    other.says("SUB news")
    other.hears()
    monkeypatch.setattr(FakePolicy, "review", FaultyOnce(FakePolicy.review))
    with pytest.raises(ExceptionGroup, match="could not be reviewed"):
        hall.context.change_policy(FakePolicy())
    assert faulty.hears()[1:] == [f"NOTICE {NOT_REVIEWED.decode()}", "BYE"] and faulty.ending is CloseReason.TRY_AGAIN
    assert other.hears() == ["NOTICE you may not read news any longer, and are not subscribed to it"]


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
    hall = FakeServer(late=True)
    assert hall.broker.is_ready
    hall.backplane.is_ready = False
    assert not hall.broker.is_ready
    assert FakeServer().broker.is_ready


class Ticking:
    """A clock that ends a time slice with each look at it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += TIME_SLICE_SECONDS
        return self.now


def members(hall: FakeServer, count: int, token: str = "", presence: str = " presence=on") -> list[LineClient]:
    peers = [hall.line_peer() for _ in range(count)]
    for peer in peers:
        if token:
            peer.says(f"AUTH {token}")
        peer.says("SUB k" + presence)
    hall.turn()
    for peer in peers:
        peer.hears()
    return peers


def leave(hall: FakeServer, how: str) -> None:
    """Everybody with the token loses the channel."""
    if how == "dismissed":
        hall.context.dismiss_all(CloseReason.GOING_AWAY, b"the server is going away")
    elif how == "expired":
        hall.wall += 7200
        hall.context.expiries.check()
    else:
        hall.context.change_policy(FakePolicy({"k": "r"}, {} if how == "token" else {"t": ("ann", {}, None)}))


POLICY: dict[str, Any] = {"anonymous": {"k": "rw"}, "tokens": {"t": ("ann", {"k": "rw"}, FakeServer().wall + 3600)}}
WAYS = ["dismissed", "expired", "token", "right"]


def departure(count: int, how: str) -> tuple[int, int]:
    """Sends, and turns, when as many lose a channel as stay on it, one at a time."""
    hall = FakeServer(policy=FakePolicy(**POLICY))
    leaving, staying = members(hall, count, "t"), members(hall, count)
    hall.broker.clock = Ticking()
    before = sum(peer.outlet.sends for peer in leaving + staying)
    leave(hall, how)
    turns = 0
    while hall.turns:
        hall.turns.step()
        turns += 1
    if how == "right":
        assert all("forbidden" not in "".join(peer.hears()) for peer in staying)
    assert all(not peer.session.subscriptions for peer in leaving)
    return sum(peer.outlet.sends for peer in leaving + staying) - before, turns


@pytest.mark.parametrize("how", WAYS)
def test_twice_as_many_who_go_together_cost_twice_as_many_sends_in_twice_as_many_turns(how: str) -> None:
    """Each of those who stay is told once, of all of them; and no turn is longer for more of them."""
    (few, few_turns), (many, many_turns) = departure(20, how), departure(40, how)
    assert few <= 2 * 20 + 1 and many <= 2 * 40 + 1 and few_turns >= 20
    assert many_turns <= 2 * few_turns + 2


def test_those_who_stay_are_told_of_all_who_went() -> None:
    hall = FakeServer(policy=FakePolicy(**POLICY))
    leaving, staying = members(hall, 5, "t"), members(hall, 2)
    hall.broker.clock = Ticking()
    leave(hall, "expired")
    hall.turn()
    for peer in staying:
        assert sorted(peer.hears()) == [f"LEAVE k {one.id} ann" for one in leaving]


@pytest.mark.parametrize("echo", ["", " echo=off"])
def test_no_event_reaches_a_session_that_has_still_to_be_reviewed(echo: str) -> None:
    """It is sent to those that may read it, once they have been."""
    hall = FakeServer(policy=FakePolicy({"k": "rw"}))
    peers = members(hall, 3, presence=echo)
    publisher = hall.line_peer()
    publisher.says("PUB k before")
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy({"k": "w"}))
    publisher.says("PUB k after")
    hall.turn()
    for peer in peers:
        heard = peer.hears()
        assert heard == ["MSG k 1 p4 before", "NOTICE you may not read k any longer, and are not subscribed to it"]
    assert publisher.hears()[1:] == ["OK 1", "OK 2"]


def test_a_session_that_keeps_its_right_misses_nothing_while_it_is_reviewed() -> None:
    hall = FakeServer(policy=FakePolicy({"k": "rw", "l": "r"}))
    peers = members(hall, 3)
    for peer in peers:
        peer.says("SUB l"), peer.hears()
    hall.turn()
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy({"k": "rw"}))
    hall.line_peer().says("PUB k 1", "PUB k 2")
    hall.turns.step()
    hall.line_peer().says("PUB k 3")
    hall.turn()
    for peer in peers:
        heard = [line for line in peer.hears() if line.startswith("MSG")]
        assert [line.split(" ")[2] for line in heard] == ["1", "2", "3"]


@pytest.mark.parametrize("line", ["SUB k", "PUB k x", "HIST k", "WHO k"])
def test_commands_are_judged_by_the_new_policy_at_once(line: str) -> None:
    hall = FakeServer(policy=FakePolicy({"k": "rw"}))
    members(hall, 3)
    peer = hall.line_peer()
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy({"l": "rw"}))
    peer.says(line, line.replace(" k", " l"))
    hall.turn()
    assert peer.hears()[1].startswith("ERR unauthorized ")
    assert peer.session.identity is not None and not peer.session.identity.grants.on(b"k")


def test_a_new_policy_holds_although_events_of_before_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = FakeServer(policy=FakePolicy({"k": "rw"}))
    (member,) = members(hall, 1)
    done: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(hall.broker, "flush", lambda is_whole: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hall.context.change_policy(FakePolicy({"l": "rw"}), lambda: done.append("reviewed"))
    hall.turn()
    assert done == ["reviewed"] and not member.session.subscriptions
    member.says("PUB k x")
    assert member.hears()[-1].startswith("ERR unauthorized ")


def test_a_token_that_is_no_longer_accepted_allows_nothing_at_once() -> None:
    """Until the session is closed for that; unless it shows another one before."""
    hall = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {"k": "rw"}, None)}))
    gone, renewed = members(hall, 2, "t")
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy(tokens={"u": ("ann", {"k": "rw"}, None)}))
    renewed.says("HIST k", "AUTH u", "HIST k")
    hall.turn()
    heard = [line.split(" ")[0] for line in renewed.hears()]
    assert [word for word in heard if word != "LEAVE"] == ["ERR", "OK", "OK"]
    assert renewed.ending is None and gone.ending is CloseReason.POLICY


def test_another_policy_during_a_review_is_the_one_that_holds() -> None:
    hall = FakeServer(policy=FakePolicy({"k": "rw", "l": "r"}))
    peers = members(hall, 3)
    for peer in peers:
        peer.says("SUB l"), peer.hears()
    hall.turn()
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy({"k": "rw"}))
    for _ in range(2):
        hall.turns.step()
    hall.context.change_policy(FakePolicy({"l": "rw"}))
    hall.line_peer().says("PUB l x")
    hall.turn()
    for peer in peers:
        assert "k" not in "".join(line for line in peer.hears() if line.startswith("MSG"))
        assert b"k" not in peer.session.subscriptions
        assert not peer.outlet.blocked


def test_a_review_that_finds_the_same_rights_does_not_look_at_the_subscriptions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hall = FakeServer(policy=FakePolicy({"k": "rw", "a.*": "r"}))
    peers = members(hall, 3)
    looked: list[bytes] = []
    on = Grants.on
    monkeypatch.setattr(Grants, "on", lambda grants, channel: looked.append(channel) or on(grants, channel))
    hall.context.change_policy(FakePolicy({"k": "rw", "a.*": "r"}))
    hall.turn()
    assert looked == []
    hall.context.change_policy(FakePolicy({"k": "r"}))
    hall.turn()
    assert looked == [b"k"] * 3
    assert [set(peer.session.subscriptions) for peer in peers] == [{b"k"}] * 3


def test_a_token_for_many_subscriptions_is_looked_into_in_time_slices() -> None:
    """What comes behind it in the same read waits for that."""
    hall = FakeServer(policy=FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    hall.context.policy = FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)})
    peer, other = hall.line_peer(), hall.line_peer()
    peer.says(*[f"SUB a.{number}" for number in range(10)])
    peer.hears()
    hall.turn()
    hall.broker.clock = Ticking()
    peer.says("AUTH t", "PING after")
    assert len(peer.session.subscriptions) == 9 and peer.hears()[0] == "OK ann"
    other.says("PUB a.9 x")
    hall.turn()
    heard = peer.hears()
    assert len(heard) == 10 and heard[-1] == "PONG after" and all(line.startswith("NOTICE") for line in heard[:-1])
    assert not peer.session.subscriptions and not peer.paused


def test_who_goes_while_its_subscriptions_are_looked_into_is_gone() -> None:
    hall = FakeServer(policy=FakePolicy({"a.>": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    peer = hall.line_peer()
    peer.says(*[f"SUB a.{number}" for number in range(10)])
    hall.broker.clock = Ticking()
    peer.says("AUTH t", "PING after")
    peer.leaves()
    hall.turn()
    assert len(hall.context.roster) == 0 and not hall.broker.channels


def test_a_fault_while_subscriptions_are_looked_into_closes_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be sent no events any more otherwise, and no notice of that."""
    hall = FakeServer(policy=FakePolicy({"a": "rw"}, {"t": ("ann", {"b": "r"}, None)}))
    peer = hall.line_peer()
    peer.says("SUB a")
    peer.hears()
    monkeypatch.setattr(hall.broker, "unsubscribe", lambda subscription: 1 / 0)
    peer.says("AUTH t", "PING")
    hall.line_peer().says("PUB a x")
    hall.turn()
    heard = peer.hears()
    assert heard[0].startswith("OK ") and heard[1:] == [f"NOTICE {NOT_REVIEWED.decode()}", "BYE"]
    assert peer.ending is CloseReason.TRY_AGAIN and peer.faults == 1


def test_a_reply_that_waits_after_a_token_is_not_overtaken() -> None:
    """Commands after AUTH go on when the subscriptions have been checked; one of them may have to wait again."""
    policy = FakePolicy({"a.>": "rw"}, {"t": ("ann", {"a.>": "rw", "b": "r"}, None)})
    hall = FakeServer(late=True, policy=policy)
    peer = hall.line_peer()
    for number in range(3):
        peer.says(f"SUB a.{number}")
        hall.backplane.release()
        hall.turn()
    peer.hears()
    hall.broker.clock = Ticking()
    peer.says("AUTH t", "SUB b", "PING after")
    hall.turn()
    peer.session.drained()
    hall.turn()
    assert peer.hears() == ["OK ann"]
    hall.backplane.release()
    hall.turn()
    assert peer.hears() == ["OK b offset=0 epoch=e4", "PONG after"]


def test_a_subscription_that_was_made_before_a_review_is_checked_for_the_next_identity() -> None:
    """The rights of the next identity are those that the other subscriptions have been checked by."""
    own: dict[str, Any] = {"old": ("ann", {"k": "r"}, None)}
    hall = FakeServer(policy=FakePolicy(tokens={**own, "t": ("ann", {"k": "r"}, None)}))
    *_, peer = members(hall, 3, "t")
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy(tokens={**own, "t": ("ann", {"k": "r", "l": "r"}, None)}))
    peer.says("SUB l", "AUTH old")
    hall.turn()
    assert "NOTICE you may not read l any longer, and are not subscribed to it" in peer.hears()
    assert list(peer.session.subscriptions) == [b"k"] and not peer.outlet.blocked


@pytest.mark.parametrize("turns", range(10))
@pytest.mark.parametrize("policy", [None, FakePolicy()], ids=["no policy", "token refused"])
def test_a_review_ends_when_the_next_one_must_find_something_else(policy: FakePolicy | None, turns: int) -> None:
    """It sends nothing meanwhile to a client whose token is not accepted any more, and does not fail."""
    hall = FakeServer(policy=FakePolicy(tokens={"t": ("ann", {"k": "r", "l": "r"}, None)}))
    peers = members(hall, 3, "t", presence="")
    for peer in peers:
        peer.says("SUB l"), peer.hears()
    hall.turn()
    hall.broker.clock = Ticking()
    hall.context.change_policy(FakePolicy(tokens={"t": ("ann", {"k": "r"}, None)}))
    for _ in range(turns):
        hall.turns.step()
    hall.context.change_policy(policy)
    hall.broker.publish(Client(b"x"), b"k", b"message", Payloads((b"1",), 1))
    hall.turn()
    for peer in peers:
        assert ("MSG k 1 x 1" in peer.hears()) is (policy is None)
        assert peer.ending is (None if policy is None else CloseReason.POLICY)


def test_nothing_is_reviewed_where_there_is_no_policy_before_and_after() -> None:
    hall = FakeServer()
    peer = hall.line_peer()
    peer.says("SUB k")
    called: list[int] = []
    hall.context.change_policy(None, lambda: called.append(1))
    assert called == [1] and not peer.outlet.blocked


def test_events_pass_again_when_a_policy_is_taken_away() -> None:
    hall = FakeServer(policy=FakePolicy({"k": "rw"}))
    (peer,) = members(hall, 1, presence="")
    hall.context.change_policy(None)
    hall.line_peer().says("PUB k x")
    hall.turn()
    assert peer.hears() == ["MSG k 1 p2 x"]
