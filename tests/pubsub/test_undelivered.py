"""Events and presence changes that wait: each subscription gets what it needs of them, in order, once."""

from collections.abc import Callable, Sequence

import pytest

from tests.pubsub.helpers import await_flush, channel, outlet_of, publish, received, subscribe, subscriber
from twistedsock.codecs.framing import Newline
from twistedsock.codecs.line_encoder import LineEncoder
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub import undelivered
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.subscription import REPLY_PENDING
from twistedsock.pubsub.undelivered import Undelivered
from twistedsock.pubsub.values import Member, PresenceChange
from twistedsock.testing import FakePolicy, FakeServer


def joins(here: Channel, *ids: bytes) -> None:
    for id in ids:
        here.add_presence_change(PresenceChange(Member(id, id), joined=True))


def waits(here: Channel, payload: bytes, publisher: bytes = b"p0") -> None:
    """An event is in the history, and has not been sent."""
    await_flush(here, payload, publisher)
    here.append_pending(0.0)


def after(count: int) -> Callable[[], bool]:
    """A time slice that is over after each ``count`` calls."""
    calls = [0]

    def is_over() -> bool:
        calls[0] += 1
        return calls[0] % count == 0

    return is_over


def test_appending_to_the_history_sends_nothing() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscribe(here, reader)
    waits(here, b"a")
    waits(here, b"b")
    assert len(here.history) == 2 and here.has_undelivered_events and received(reader) == []
    publish(here, b"c")
    assert received(reader) == ["MSG c 1 p0 a", "MSG c 2 p0 b", "MSG c 3 p0 c"] and not here.has_undelivered_events
    assert outlet_of(reader).sends == 1


def test_a_subscription_gets_nothing_that_was_published_before_it() -> None:
    here, first, second, third = channel(), subscriber(b"p1"), subscriber(b"p2"), subscriber(b"p3")
    subscribe(here, first)
    waits(here, b"a")
    subscribe(here, second)
    waits(here, b"b", b"p3")
    subscribe(here, third, echo=False)
    waits(here, b"c", b"p3")
    publish(here)
    publish(here, b"d")
    assert [len(received(reader)) for reader in (first, second, third)] == [4, 3, 1]


def test_a_watcher_gets_events_and_presence_changes_in_their_order_in_one_send() -> None:
    here, watcher, plain = channel(), subscriber(b"p1"), subscriber(b"p2")
    subscribe(here, watcher, presence=True)
    subscribe(here, plain)
    waits(here, b"a")
    joins(here, b"p5")
    waits(here, b"b")
    joins(here, b"p6")
    publish(here, b"c")
    assert received(watcher) == ["MSG c 1 p0 a", "JOIN c p5 p5", "MSG c 2 p0 b", "JOIN c p6 p6", "MSG c 3 p0 c"]
    assert received(plain) == ["MSG c 1 p0 a", "MSG c 2 p0 b", "MSG c 3 p0 c"]
    assert outlet_of(watcher).sends == outlet_of(plain).sends == 1
    assert here.stats.delivered == 6


def test_a_watcher_without_echo_gets_neither_its_own_events_nor_its_own_join() -> None:
    here, watcher = channel(), subscriber(b"p1")
    subscribe(here, watcher, echo=False, presence=True)
    joins(here, b"p1", b"p2")
    waits(here, b"a", b"p1")
    publish(here, b"b")
    assert received(watcher) == ["JOIN c p2 p2", "MSG c 2 p0 b"]


def test_one_subscription_can_be_sent_its_events_first() -> None:
    here, early, late = channel(), subscriber(b"p1"), subscriber(b"p2")
    subscription = subscribe(here, early, presence=True)
    subscribe(here, late, presence=True)
    here.send_undelivered(subscription)
    joins(here, b"p5")
    waits(here, b"a")
    for _ in range(2):
        here.send_undelivered(subscription)
    assert received(early) == ["JOIN c p5 p5", "MSG c 1 p0 a"] and received(late) == []
    joins(here, b"p6")
    publish(here, b"b")
    assert received(early) == ["JOIN c p6 p6", "MSG c 2 p0 b"]
    assert received(late) == ["JOIN c p5 p5", "MSG c 1 p0 a", "JOIN c p6 p6", "MSG c 2 p0 b"]


def test_a_subscription_that_ends_gets_nothing_more() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscription = subscribe(here, reader)
    waits(here, b"a")
    here.send_undelivered(subscription)
    waits(here, b"b")
    here.remove_subscription(subscription)
    publish(here, b"c")
    assert received(reader) == ["MSG c 1 p0 a"]


@pytest.mark.parametrize("room, cursor, missed", [(0, 2, 1), (70_000, 3, 0)])
def test_a_socket_that_is_full_falls_behind_where_it_stopped(room: int, cursor: int, missed: int) -> None:
    here, watcher = channel(), subscriber(b"p1")
    subscription = subscribe(here, watcher, presence=True)
    long = b"x" * (CHUNK_BYTES - 20)
    waits(here, long)
    joins(here, b"p5")
    waits(here, long)
    waits(here, long)
    outlet_of(watcher).room = room
    here.send_undelivered(subscription)
    assert (subscription.cursor, len(subscription.missed or ())) == (cursor, missed)
    assert here.stats.delivered == cursor - 1
    outlet_of(watcher).drain()
    publish(here)
    while watcher.catch_up({}):
        pass
    lines = [line.split(" ")[:3] for line in received(watcher)]
    assert sorted(lines) == [["JOIN", "c", "p5"], *[["MSG", "c", str(offset)] for offset in (1, 2, 3)]]


@pytest.mark.parametrize("about", [b"p1", b"p5"])
def test_full_socket_is_not_offered_presence_changes_that_have_no_message(about: bytes) -> None:
    class WithoutPresence(LineEncoder):
        def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes:
            return b""

    here, watcher = channel(), subscriber(b"p1", WithoutPresence(Newline()))
    subscribe(here, watcher, presence=True)
    joins(here, b"p6", about)
    outlet_of(watcher).blocked = REPLY_PENDING
    assert here.send_changes() and not watcher.behind and watcher.missed == 0


def test_a_subscription_that_is_behind_reads_events_from_the_history_and_misses_no_join() -> None:
    here, watcher = channel(), subscriber(b"p1")
    subscription = subscribe(here, watcher, presence=True)
    subscription.read_from(1)
    waits(here, b"a")
    joins(here, b"p5")
    here.send_undelivered(subscription)
    # The group has not been sent the event yet, so this subscription must not join it again and get the event twice.
    assert watcher.catch_up({}) and subscription in watcher.behind
    assert received(watcher) == ["MSG c 1 p0 a"]
    publish(here, b"b")
    assert not watcher.catch_up({})
    assert received(watcher) == ["MSG c 2 p0 b", "JOIN c p5 p5"]
    publish(here, b"c")
    assert received(watcher) == ["MSG c 3 p0 c"]


def test_round_continues_and_reaches_each_watcher_once() -> None:
    here, watchers = channel(), [subscriber(b"p%d" % number) for number in range(5)]
    for watcher in watchers:
        subscribe(here, watcher, presence=True)
    joins(here, b"q1")
    enough = after(2)
    assert not here.send_changes(enough)
    assert sum(outlet_of(watcher).sends for watcher in watchers) == 2
    joins(here, b"q2")
    while not here.send_changes(enough):
        pass
    assert [received(watcher) for watcher in watchers] == [["JOIN c q1 q1", "JOIN c q2 q2"]] * 5
    assert sum(outlet_of(watcher).sends for watcher in watchers) == 5 + 2
    publish(here, b"a")
    assert [received(watcher) for watcher in watchers] == [["MSG c 1 p0 a"]] * 5


def test_an_event_in_the_middle_of_a_round_comes_after_the_joins_before_it() -> None:
    here, watchers, plain = channel(), [subscriber(b"p%d" % number) for number in range(4)], subscriber(b"plain")
    subscribe(here, plain)
    for watcher in watchers:
        subscribe(here, watcher, presence=True)
    joins(here, b"q1")
    assert not here.send_changes(after(2))
    publish(here, b"a", publisher=b"q1")
    assert [received(watcher) for watcher in watchers] == [["JOIN c q1 q1", "MSG c 1 q1 a"]] * 4
    assert received(plain) == ["MSG c 1 q1 a"]


def test_former_watcher_gets_nothing_of_the_round() -> None:
    here, first, second = channel(), subscriber(b"p1"), subscriber(b"p2")
    one, two = (subscribe(here, reader, presence=True) for reader in (first, second))
    joins(here, b"q1")
    assert not here.send_changes(after(1))
    here.change_options(one, echo=True, presence=False)
    assert here.send_changes()
    assert received(first) == [] and received(second) == ["JOIN c q1 q1"]
    here.remove_subscription(two)
    joins(here, b"q2")
    assert here.send_changes()
    publish(here, b"a")
    assert received(first) == ["MSG c 1 p0 a"] and received(second) == []


def test_a_slow_watcher_does_not_hold_up_a_round() -> None:
    here, slow, fast = channel(), subscriber(b"p1"), subscriber(b"p2")
    subscribe(here, slow, presence=True), subscribe(here, fast, presence=True)
    outlet_of(slow).blocked = REPLY_PENDING
    joins(here, b"q1")
    enough = after(1)
    assert not here.send_changes(enough)
    joins(here, b"q2")
    while not here.send_changes(enough):
        pass
    assert received(fast) == ["JOIN c q1 q1", "JOIN c q2 q2"]
    outlet_of(slow).blocked = 0
    assert not slow.catch_up({})
    assert received(slow) == ["JOIN c q1 q1", "JOIN c q2 q2"]


def test_channels_take_turns_in_sending_changes() -> None:
    server = FakeServer()
    watchers = [server.line_client() for _ in range(3)]
    for watcher in watchers:
        watcher.send("SUB a presence=on", "SUB b presence=on")
    server.turn()
    for watcher in watchers:
        watcher.received()
    ticks = iter(range(1_000_000))
    server.clock = lambda: 2000.0 + next(ticks)
    other = server.line_client()
    other.send("PUB a 1", "SUB a", "SUB b", "PUB b 2")
    server.turn()
    expected = ["MSG a 1 p4 1", "JOIN a p4 p4", "JOIN b p4 p4", "MSG b 1 p4 2"]
    for watcher in watchers:
        lines = watcher.received()
        assert sorted(lines) == sorted(expected)
        assert [line for line in lines if " a " in line] == expected[:2]
        assert [line for line in lines if " b " in line] == expected[2:]


def test_event_keeps_its_order_during_a_round() -> None:
    """Commands of a long read go on in the same turn as the presence changes."""
    server = FakeServer()
    watcher, other = server.line_client(), server.line_client()
    watcher.send("SUB a presence=on")
    watcher.received()
    server.broker.scheduler.defer(lambda: other.send("PUB a 1"))
    other.send("SUB a")
    server.broker.scheduler.defer(lambda: other.send("UNSUB a"))
    server.turn()
    assert watcher.received() == ["JOIN a p2 p2", "MSG a 1 p2 1", "LEAVE a p2 p2"]


def test_a_watcher_that_catches_up_in_the_middle_of_a_round_gets_everything_once() -> None:
    here, other, slow = channel(), subscriber(b"p1"), subscriber(b"p2")
    subscribe(here, other, presence=True), subscribe(here, slow, presence=True)
    outlet_of(slow).blocked = REPLY_PENDING
    joins(here, b"q1")
    assert not here.send_changes(after(1))
    assert slow.behind and received(other) == []
    outlet_of(slow).blocked = 0
    assert not slow.catch_up({}) and received(slow) == ["JOIN c q1 q1"]
    publish(here, b"a")
    publish(here, b"b")
    assert received(slow) == ["MSG c 1 p0 a", "MSG c 2 p0 b"]
    assert received(other) == ["JOIN c q1 q1", "MSG c 1 p0 a", "MSG c 2 p0 b"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single presence change is too much to be sent to all at once."""
    monkeypatch.setattr(undelivered, "FEW_ITEMS", 0)


def test_an_event_after_many_joins_is_sent_in_time_slices(few: None) -> None:
    """Telling everybody of everybody takes long, and an event must not make that one turn."""
    server = FakeServer()
    watchers, plain = [server.line_client() for _ in range(10)], server.line_client()
    plain.send("SUB k")
    for watcher in watchers:
        watcher.send("SUB k presence=on")
    server.turn()
    everybody = [*watchers, plain]
    for peer in everybody:
        peer.received()
    ticks = iter(range(1_000_000))
    server.clock = lambda: 2000.0 + next(ticks)
    joining = [server.line_client() for _ in range(5)]
    for peer in joining:
        peer.send("SUB k presence=on")
    joining[0].send("PUB k x")
    before = sum(peer.outlet.sends for peer in everybody)
    sends: list[int] = []
    while server.turns:
        server.turns.step()
        total = sum(peer.outlet.sends for peer in everybody)
        sends.append(total - before)
        before = total
        if len(sends) == 3:
            joining[0].send("PUB k y")
    joins = [f"JOIN k {peer.id} {peer.id}" for peer in joining]
    message = [f"MSG k {offset} {joining[0].id} {data}" for offset, data in enumerate("xy", 1)]
    assert [peer.received() for peer in watchers] == [joins + message] * len(watchers) and plain.received() == message
    assert len(sends) > 10 and max(sends[:-1]) <= 2 and sum(sends) <= 2 * len(everybody)


def test_large_events_do_not_wait_for_joins(few: None) -> None:
    """Events that wait are held in memory beyond the limits of the log."""
    server = FakeServer()
    watchers = [server.line_client() for _ in range(10)]
    for watcher in watchers:
        watcher.send("SUB k presence=on")
    server.turn()
    ticks = iter(range(1_000_000))
    server.clock = lambda: 2000.0 + next(ticks)
    publisher = server.line_client()
    publisher.send("SUB k", "PUB k " + "x" * (CHUNK_BYTES // 2))
    server.turns.step()
    assert sum(len(watcher.outlet.sent) > CHUNK_BYTES // 2 for watcher in watchers) < 5
    publisher.send("PUB k " + "x" * (CHUNK_BYTES // 2))
    server.turns.step()
    assert all(len(watcher.outlet.sent) > CHUNK_BYTES - 100 for watcher in watchers)


def test_events_wait_for_a_limited_number_of_rounds(few: None) -> None:
    """The reader is no watcher: it gets events when they are delivered to all."""
    server = FakeServer()
    watchers, plain = [server.line_client() for _ in range(5)], server.line_client()
    plain.send("SUB k")
    for watcher in watchers:
        watcher.send("SUB k presence=on")
    server.turn(), plain.received()
    ticks = iter(range(1_000_000))
    server.clock = lambda: 2000.0 + next(ticks)
    server.line_client().send("SUB k", "PUB k x")
    lines: list[str] = []
    turns = 0
    while "MSG k 1 p7 x" not in lines:
        server.line_client().send("SUB k")
        server.turns.step()
        lines = plain.received()
        turns += 1
    assert 1 < turns < 50


def test_everything_is_sent_before_another_policy_holds(few: None) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    watchers = [server.line_client() for _ in range(5)]
    for watcher in watchers:
        watcher.send("SUB k presence=on")
    server.turn()
    ticks = iter(range(1_000_000))
    server.clock = lambda: 2000.0 + next(ticks)
    server.line_client().send("SUB k", "PUB k x")
    server.context.change_policy(FakePolicy())
    assert all("MSG k 1 p6 x" in watcher.received() for watcher in watchers)


def test_an_error_in_one_flush_does_not_keep_later_events(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    subscriber, publisher = server.line_client(), server.line_client()
    subscriber.send("SUB a")
    subscriber.received()
    publisher.send("PUB a 1", "HIST a last=1")
    with monkeypatch.context() as patch:
        patch.setattr(Undelivered, "send_all", lambda undelivered, watchers: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            server.turn()
    publisher.send("PUB a 2")
    server.turn()
    assert subscriber.received() == ["MSG a 1 p2 1", "MSG a 2 p2 2"]
