"""Subscriptions that fall behind and catch up."""

import pytest

from tests.pubsub.helpers import callback_calls, channel, outlet_of, publish, received, subscribe, subscriber
from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.history import FRAME_COST
from twistedsock.pubsub.subscription import (
    NULL_CALLBACKS,
    REPLY_PENDING,
    SOCKET_FULL,
    CatchUpCache,
    Client,
    Subscriber,
    Subscription,
)
from twistedsock.pubsub.values import CHANGE_COST, Member, PresenceChange

BIG = b"x" * (CHUNK_BYTES - FRAME_COST)


def catch_up(subscriber: Subscriber, shared: CatchUpCache | None = None) -> bool:
    return subscriber.catch_up({} if shared is None else shared)


def is_live(subscription: Subscription) -> bool:
    group = subscription.channel.encoding_groups.get(LINE_ENCODER)
    return group is not None and (subscription in group.outlets or subscription in group.without_echo)


def test_nick_defaults_to_the_id() -> None:
    client = Client(b"p1")
    assert client.member() == Member(b"p1", b"p1")
    client.nick = b"ann"
    assert client.member() == Member(b"p1", b"ann")


@pytest.mark.parametrize("blocked", [SOCKET_FULL, REPLY_PENDING, SOCKET_FULL | REPLY_PENDING])
def test_blocked_subscriber_does_not_catch_up(blocked: int) -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, b"a")
    subscribe(here, reader, live=False).fall_behind(1)
    outlet_of(reader).blocked = blocked
    assert not catch_up(reader)
    assert received(reader) == [] and reader.behind


def test_caught_up_subscriber_sends_nothing() -> None:
    assert not catch_up(subscriber(b"p1"))


def test_caught_up_subscription_rejoins_its_group() -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, b"a", b"b", b"c")
    subscription = subscribe(here, reader, live=False)
    subscription.fall_behind(2)
    assert not catch_up(reader)
    assert received(reader) == ["MSG c 2 p0 b", "MSG c 3 p0 c"]
    assert not reader.behind and is_live(subscription)
    publish(here, b"d")
    assert received(reader) == ["MSG c 4 p0 d"]


def test_catches_up_a_chunk_at_a_time() -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, BIG, BIG, BIG)
    subscription = subscribe(here, reader, live=False)
    subscription.fall_behind(1)
    assert catch_up(reader) and subscription.cursor == 2
    assert len(received(reader)) == 1 and not is_live(subscription)
    assert catch_up(reader) and subscription.cursor == 3
    assert not catch_up(reader) and is_live(subscription)
    assert len(received(reader)) == 2


def test_full_socket_stops_catching_up() -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, BIG, BIG)
    subscription = subscribe(here, reader, live=False)
    subscription.fall_behind(1)
    outlet_of(reader).room = 100
    assert not catch_up(reader)
    assert subscription.cursor == 2 and len(outlet_of(reader).waiting) <= CHUNK_BYTES


def test_channels_take_turns_in_catching_up() -> None:
    busy, quiet, reader = channel(), channel(), subscriber(b"p1")
    publish(busy, BIG, BIG)
    publish(quiet, b"a")
    for here in (busy, quiet):
        subscribe(here, reader, live=False).fall_behind(1)
    assert catch_up(reader)
    received(reader)
    assert catch_up(reader)
    assert received(reader) == ["MSG c 1 p0 a"]


@pytest.mark.parametrize(
    "cursor, lost",
    [(1, ["LOST c 1 3"]), (3, ["LOST c 3 3"]), (4, [])],
)
def test_reports_dropped_events_as_lost(cursor: int, lost: list[str]) -> None:
    here, reader = channel(history_events=2), subscriber(b"p1")
    publish(here, b"a", b"b", b"c", b"d", b"e")
    subscription = subscribe(here, reader, live=False)
    subscription.fall_behind(cursor)
    catch_up(reader)
    assert received(reader) == [*lost, "MSG c 4 p0 d", "MSG c 5 p0 e"]
    assert is_live(subscription)


def test_reports_lost_events_of_an_empty_history() -> None:
    here, reader = channel(history_events=0), subscriber(b"p1")
    publish(here, b"a", b"b")
    subscription = subscribe(here, reader, live=False)
    subscription.fall_behind(1)
    catch_up(reader)
    assert received(reader) == ["LOST c 1 2"] and is_live(subscription)


def test_session_closed_for_lost_events_gets_nothing() -> None:
    asked: list[bool] = []
    here, reader = channel(history_events=0), subscriber(b"p1", on_loss=lambda: bool(asked.append(True)))
    publish(here, b"a")
    subscribe(here, reader, live=False).fall_behind(1)
    assert not catch_up(reader)
    assert asked == [True] and received(reader) == []


def test_calls_back_when_falling_behind_and_catching_up() -> None:
    here, there, reader = channel(history_events=1), channel(), subscriber(b"p1")
    publish(here, b"a", b"b")
    publish(there, b"a")
    subscribe(here, reader, live=False).fall_behind(1)
    subscribe(there, reader, live=False).fall_behind(1)
    assert callback_calls(reader) == ["behind c 1"]
    catch_up(reader)
    assert callback_calls(reader) == ["behind c 1", "lost c 1 to 1"]
    catch_up(reader)
    assert callback_calls(reader) == ["behind c 1", "lost c 1 to 1", "caught up c"]


def test_null_callbacks_accept_all_calls() -> None:
    here, reader = channel(history_events=1), subscriber(b"p1")
    reader.callbacks = NULL_CALLBACKS
    publish(here, b"a", b"b")
    subscription = subscribe(here, reader, live=False)
    subscription.fall_behind(1)
    assert not catch_up(reader) and received(reader) == []
    subscription.cursor = 2
    catch_up(reader)
    assert received(reader) == ["MSG c 2 p0 b"]


def test_catching_up_without_echo_omits_own_events() -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, b"a", publisher=b"p1")
    publish(here, b"b", publisher=b"p2")
    subscription = subscribe(here, reader, echo=False, live=False)
    subscription.fall_behind(1)
    catch_up(reader)
    assert received(reader) == ["MSG c 2 p2 b"] and is_live(subscription)


def test_catching_up_on_own_events_sends_nothing() -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, b"a", publisher=b"p1")
    subscription = subscribe(here, reader, echo=False, live=False)
    subscription.fall_behind(1)
    assert not catch_up(reader)
    assert outlet_of(reader).sends == 0 and is_live(subscription)


def test_subscribers_catching_up_together_share_encoded_chunks() -> None:
    here, shared = channel(), CatchUpCache()
    everybody = [subscriber(id) for id in (b"p1", b"p2")]
    selective = subscriber(b"p3")
    publish(here, b"a", publisher=b"p3")
    for reader in everybody:
        subscribe(here, reader, live=False).fall_behind(1)
    subscribe(here, selective, echo=False, live=False).fall_behind(1)
    for reader in [everybody[0], selective, everybody[1]]:
        catch_up(reader, shared)
    assert [received(reader) for reader in everybody] == [["MSG c 1 p3 a"]] * 2
    assert received(selective) == []
    assert len(shared) == 1
    assert here.stats.delivered == 2


@pytest.mark.parametrize(
    "max_changes, expected",
    [
        (2, ["JOIN c p2 p2", "LEAVE c p2 p2"]),
        (1, ["NOTICE joins and leaves on c were dropped because you read too slowly: send WHO c"]),
        (0, ["NOTICE joins and leaves on c were dropped because you read too slowly: send WHO c"]),
    ],
)
def test_missed_presence_changes_follow_the_events(max_changes: int, expected: list[str]) -> None:
    here, reader = channel(), subscriber(b"p1")
    publish(here, b"a")
    subscription = subscribe(here, reader, presence=True, live=False)
    subscription.fall_behind(1)
    member = Member(b"p2", b"p2")
    subscription.keep_missed([PresenceChange(member, True)], max_changes)
    subscription.keep_missed([PresenceChange(member, False)], max_changes)
    assert not reader.catch_up({})
    assert received(reader) == ["MSG c 1 p0 a", *expected]
    assert subscription.missed is None


def test_missing_a_change_skips_no_event() -> None:
    here, reader = channel(head=4), subscriber(b"p1")
    subscription = subscribe(here, reader, presence=True)
    subscription.keep_missed([PresenceChange(Member(b"p2", b"p2"), True)], 10)
    publish(here, b"a")
    catch_up(reader)
    assert received(reader) == ["MSG c 5 p0 a", "JOIN c p2 p2"]


def test_missed_changes_are_limited_per_subscriber() -> None:
    """Or one that reads many could make us keep as often as much."""
    one, other, watcher = channel(), channel(), subscriber(b"p1")
    first, second = (subscribe(here, watcher, presence=True) for here in (one, other))
    changes = [PresenceChange(Member(b"p%d" % number, b"x"), True) for number in range(3)]
    first.keep_missed(changes, 4)
    second.keep_missed(changes, 4)
    assert (first.missed, second.missed, watcher.missed) == (changes, [], 3)
    second.keep_missed(changes[:1], 4)
    assert second.missed == [] and watcher.missed == 3
    first.pop_missed()
    second.pop_missed()
    assert (first.missed, second.missed, watcher.missed) == (None, None, 0)
    second.keep_missed(changes, 4)
    assert second.missed == changes and watcher.missed == 3


def test_a_member_is_one_object_until_the_nick_changes() -> None:
    client = Client(b"p1")
    before = client.member()
    assert client.member() is before
    client.nick = b"ann"
    assert client.member() == Member(b"p1", b"ann") and before.nick == b"p1"


def test_missed_changes_count_for_the_memory_budget() -> None:
    here, reader = channel(), subscriber(b"p1")
    subscription = subscribe(here, reader, presence=True)
    change = PresenceChange(Member(b"p2", b"ann"), joined=True)
    subscription.keep_missed([change] * 3, 10)
    assert reader.memory_budget.used == 3 * CHANGE_COST
    reader.memory_budget.limit = 5 * CHANGE_COST
    subscription.keep_missed([change] * 2, 10)
    assert reader.memory_budget.used == 5 * CHANGE_COST
    subscription.keep_missed([change], 10)
    assert (subscription.missed, reader.missed, reader.memory_budget.used) == ([], 0, 0)
    catch_up(reader)
    assert received(reader) == ["NOTICE joins and leaves on c were dropped because you read too slowly: send WHO c"]
