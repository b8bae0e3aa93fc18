"""Events and presence changes of one channel."""

from collections.abc import Sequence

from tests.pubsub.helpers import await_flush, channel, outlet_of, publish, received, subscribe, subscriber
from twistedsock.codecs.framing import Newline
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_encoder import LINE_ENCODER, LineEncoder
from twistedsock.pubsub.subscription import REPLY_PENDING
from twistedsock.pubsub.values import Member, Position, PresenceChange


def comes(id: bytes) -> PresenceChange:
    return PresenceChange(Member(id, id), joined=True)


def goes(id: bytes) -> PresenceChange:
    return PresenceChange(Member(id, id), joined=False)


def test_channel_continues_at_its_position() -> None:
    here = channel(head=7)
    assert here.position == Position(b"e1", 7) and here.history.end == 8
    publish(here, b"a")
    assert here.position == Position(b"e1", 8) and here.history.end == 9


def test_finds_the_time_of_pending_and_kept_events() -> None:
    here = channel()
    publish(here, b"a")
    await_flush(here, b"b")
    await_flush(here, b"c")
    assert [here.time_of(offset) for offset in range(5)] == [None, 0, 0, 0, None]


def test_pending_events_are_sent_once() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscribe(here, reader)
    await_flush(here, b"a")
    assert received(reader) == [] and len(here.history) == 0
    publish(here)
    publish(here)
    assert received(reader) == ["MSG c 1 p0 a"] and len(here.history) == 1
    assert here.pending == []


def test_presence_changes_precede_later_events() -> None:
    here, watcher = channel(), subscriber(b"p1")
    subscribe(here, watcher, presence=True)
    here.add_presence_change(comes(b"p2"))
    here.add_presence_change(goes(b"p3"))
    publish(here, b"a")
    assert received(watcher) == ["JOIN c p2 p2", "LEAVE c p3 p3", "MSG c 1 p0 a"]
    publish(here)
    assert received(watcher) == []


def test_watcher_gets_no_change_about_itself() -> None:
    here, watcher, other, page = (
        channel(),
        subscriber(b"p1"),
        subscriber(b"p2"),
        subscriber(b"p3", JSON_MESSAGE_ENCODER),
    )
    for reader in (watcher, other, page):
        subscribe(here, reader, presence=True)
    here.add_presence_change(comes(b"p1"))
    publish(here)
    assert received(watcher) == [] and outlet_of(watcher).sends == 0
    assert received(other) == ["JOIN c p1 p1"]
    assert outlet_of(page).sends == 1


def test_presence_changes_are_encoded_once_per_encoder() -> None:
    encoded: list[object] = []

    class Counted:
        def presence(self, channel: bytes, changes: object) -> bytes:
            encoded.append(changes)
            return LINE_ENCODER.presence(channel, changes)  # type: ignore[arg-type]

    encoder, here = Counted(), channel()
    for id in (b"p1", b"p2", b"p3"):
        subscribe(here, subscriber(id, encoder), presence=True)  # type: ignore[arg-type]
    here.add_presence_change(comes(b"p9"))
    publish(here)
    assert len(encoded) == 1


def test_joining_watchers_get_only_the_joins_of_other_members() -> None:
    here = channel()
    encoded: list[int] = []

    class Counting(LineEncoder):
        def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes:
            encoded.append(len(changes))
            return super().presence(channel, changes)

    encoder = Counting(Newline())
    watchers = [subscriber(b"p%d" % number, encoder) for number in range(3)]
    for watcher in watchers:
        subscribe(here, watcher, presence=True)
    for watcher in watchers:
        here.add_presence_change(comes(watcher.client.id))
    publish(here)
    assert sum(encoded) == 3
    assert [received(watcher) for watcher in watchers] == [
        [f"JOIN c p{other} p{other}" for other in range(3) if other != number] for number in range(3)
    ]


def test_slow_watcher_keeps_a_limited_number_of_changes() -> None:
    here, watcher = channel(max_pending_presence=3), subscriber(b"p1")
    subscription = subscribe(here, watcher, presence=True)
    outlet_of(watcher).blocked = REPLY_PENDING
    for number in range(5):
        here.add_presence_change(comes(b"q%d" % number))
        assert here.send_changes()
        assert len(subscription.missed or ()) == watcher.missed <= 3
    assert subscription.missed == []
    assert subscription in watcher.behind and subscription.cursor == 1


def test_watcher_that_is_behind_gets_changes_after_the_events() -> None:
    here, watcher = channel(max_pending_presence=3), subscriber(b"p1")
    subscription = subscribe(here, watcher, presence=True)
    subscription.fall_behind(1)
    here.add_presence_change(comes(b"p2"))
    publish(here, b"a")
    assert received(watcher) == []
    assert not watcher.catch_up({})
    assert received(watcher) == ["MSG c 1 p0 a", "JOIN c p2 p2"]


def test_members_have_their_current_nicks() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscribe(here, reader)
    reader.client.nick = b"ann"
    assert here.members() == [Member(b"p1", b"ann")]


def test_leaving_a_group_twice_does_nothing() -> None:
    here = channel()
    here.leave_group(subscribe(here, subscriber(b"p1"), live=False))
    assert here.encoding_groups == {}


def test_group_is_removed_with_its_last_subscription() -> None:
    """Some readers have an encoding of their own, and a busy channel would keep one for each that ever was."""
    here = channel()
    first, second, page = subscriber(b"p1"), subscriber(b"p2"), subscriber(b"p3", JSON_MESSAGE_ENCODER)
    one, two, three = (subscribe(here, reader) for reader in (first, second, page))
    here.remove_subscription(one)
    assert set(here.encoding_groups) == {LINE_ENCODER, JSON_MESSAGE_ENCODER}
    two.fall_behind(1)
    assert set(here.encoding_groups) == {LINE_ENCODER, JSON_MESSAGE_ENCODER}
    here.remove_subscription(three)
    here.remove_subscription(two)
    here.remove_subscription(two)
    assert not here.encoding_groups


def test_a_subscription_changes_its_encoder() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscription = subscribe(here, reader)
    timed = LINE_ENCODER.with_time()
    here.change_options(subscription, echo=True, presence=False, encoder=timed)
    assert set(here.encoding_groups) == {timed} and subscription.encoder is timed
    here.change_options(subscription, echo=True, presence=False)
    assert set(here.encoding_groups) == {LINE_ENCODER} and subscription.encoder is LINE_ENCODER
