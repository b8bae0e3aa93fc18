"""The parts of one server, put together."""

from collections.abc import Callable

import pytest

from twistedsock.backplane.memory import MemoryBackplane
from twistedsock.core.access import EVERYTHING, Identity
from twistedsock.core.bridge import build
from twistedsock.core.errors import Refusal
from twistedsock.core.events import Content
from twistedsock.core.limits import Limits
from twistedsock.core.principal import LOCAL
from twistedsock.core.reader import Peer
from twistedsock.testing import FakePolicy, Hall


def test_the_parts_share_limits_clock_and_ids() -> None:
    limits = Limits(max_connections=1)
    scheduled: list[Callable[[], None]] = []
    bridge = build(
        MemoryBackplane(lambda: b"e1"), limits, "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0
    )
    assert bridge.limits is limits is bridge.broker.limits
    assert bridge.version == b"1.2"
    assert bridge.roster.new_id() == b"a"
    assert bridge.admission.enter("") is None and bridge.admission.enter("") is not None
    assert scheduled == []


def test_what_becomes_dirty_asks_for_one_turn() -> None:
    backplane = MemoryBackplane(lambda: b"e1")
    scheduled: list[Callable[[], None]] = []
    bridge = build(backplane, Limits(), "1.2", lambda: 5.0, scheduled.append, lambda: b"a", lambda: 0.0)
    backplane.attach(bridge.broker)
    bridge.broker.publish(Peer(b"p"), b"a", b"message", Content((b"",), 0))
    bridge.broker.publish(Peer(b"p"), b"b", b"message", Content((b"",), 0))
    assert scheduled == [bridge.broker.turn]


@pytest.mark.parametrize("now, uptime", [(5.0, 0), (5.9, 0), (6.0, 1), (66.5, 61)])
def test_uptime_is_in_whole_seconds(now: float, uptime: int) -> None:
    clock = [5.0]
    bridge = build(
        MemoryBackplane(lambda: b"e1"), Limits(), "1.2", lambda: clock[0], lambda turn: None, lambda: b"a", lambda: 0.0
    )
    clock[0] = now
    assert bridge.uptime() == uptime


def test_who_shows_something_on_the_way_in_is_recognized_where_there_is_a_policy() -> None:
    hall = Hall(policy=FakePolicy(tokens={"good": ("ann", {}, None)}))
    bridge = hall.bridge
    assert bridge.recognize("") is None
    by_token, by_certificate = bridge.recognize("", b"good", b"meter"), bridge.recognize("", None, b"meter")
    assert isinstance(by_token, Identity) and by_token.subject == b"ann"
    assert isinstance(by_certificate, Identity) and by_certificate.subject == b"meter"
    assert isinstance(bridge.recognize("", b"bad"), Refusal)
    bridge.policy = None
    assert bridge.recognize("", b"good", b"meter") is None


def test_work_is_charged_to_a_remote_client_and_to_no_local_one() -> None:
    hall = Hall(commands_per_second=1, commands_burst=3, bytes_per_second=1, bytes_burst=10)
    bridge, ann = hall.bridge, b"@192.0.2.1"
    assert [bridge.charge(ann, 2) for _ in range(3)] == [True, True, False]
    hall.now += 10
    assert [bridge.charge(ann, 1, 10) for _ in range(2)] == [True, False]
    assert all(bridge.charge(LOCAL, 100, 100) for _ in range(9))


def test_a_fault_of_one_peer_keeps_no_other_from_being_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall(policy=FakePolicy({"news": "r"}))
    faulty, other = hall.line_peer(), hall.line_peer()
    other.says("SUB news")
    other.hears()
    monkeypatch.setattr(FakePolicy, "review", FaultyOnce(FakePolicy.review))
    with pytest.raises(ExceptionGroup, match="could not be reviewed"):
        hall.bridge.change_policy(FakePolicy())
    assert faulty.hears()[1:] == []
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
    assert Hall(policy=policy).bridge.is_admin(identity, client) is is_admin


def test_it_is_as_ready_as_its_backplane() -> None:
    hall = Hall(late=True)
    assert hall.broker.is_ready
    hall.backplane.is_ready = False
    assert not hall.broker.is_ready
    assert Hall().broker.is_ready
