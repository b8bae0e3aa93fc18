"""A quick reconnect says nothing, and what is told is told of the one that it was told of before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.pubsub.values import Member
from twistedsock.webhooks.presence import Presence

ANN = Member(b"id1", b"ann")
ANN_AGAIN = Member(b"id2", b"ann")
NOBODY = Member(b"id3", b"id3")


@pytest.fixture
def told():
    return []


@pytest.fixture
def presence(told):
    return Presence(lambda change: told.append(words(change)), 3.0, 100)


def words(change):
    if change.member is None:
        return (change.kind, change.channel.decode())
    return (change.kind, change.channel.decode(), change.member.id.decode(), change.member.nick.decode())


def test_what_lasts_is_told_with_the_time_at_which_it_was(told):
    changes = []
    presence = Presence(changes.append, 3.0, 100)
    presence.occupied(b"kitchen", 10.0, 1010.0)
    presence.joined(b"kitchen", ANN, 10.0, 1010.0)
    assert presence.due() == 13.0
    presence.ripen(12.9)
    assert not changes
    presence.ripen(13.0)
    assert [(words(change), change.time) for change in changes] == [
        (("channel-occupied", "kitchen"), 1010.0),
        (("member-joined", "kitchen", "id1", "ann"), 1010.0),
    ]
    assert presence.due() is None


def test_a_quick_reconnect_says_nothing(presence, told):
    presence.occupied(b"kitchen", 0, 0)
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.ripen(5)
    told.clear()
    presence.left(b"kitchen", ANN, 10, 0)
    presence.vacated(b"kitchen", 10, 0)
    presence.occupied(b"kitchen", 11, 0)
    presence.joined(b"kitchen", ANN_AGAIN, 11, 0)
    presence.ripen(100)
    assert told == []


def test_who_came_back_leaves_with_the_id_that_was_told(presence, told):
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.ripen(5)
    presence.left(b"kitchen", ANN, 10, 0)
    presence.joined(b"kitchen", ANN_AGAIN, 11, 0)
    presence.left(b"kitchen", ANN_AGAIN, 20, 0)
    presence.joined(b"kitchen", Member(b"id9", b"ann"), 21, 0)
    presence.left(b"kitchen", Member(b"id9", b"ann"), 30, 0)
    presence.ripen(100)
    assert told == [("member-joined", "kitchen", "id1", "ann"), ("member-left", "kitchen", "id1", "ann")]


def test_who_stays_for_a_moment_is_not_told(presence, told):
    presence.occupied(b"kitchen", 0, 0)
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.left(b"kitchen", Member(ANN.id, b"renamed"), 1, 0)
    presence.vacated(b"kitchen", 1, 0)
    presence.ripen(100)
    assert told == []
    assert len(presence) == 0


def test_without_a_nick_only_the_same_connection_is_the_same(presence, told):
    presence.joined(b"kitchen", NOBODY, 0, 0)
    presence.ripen(5)
    told.clear()
    presence.left(b"kitchen", NOBODY, 10, 0)
    presence.joined(b"kitchen", NOBODY, 11, 0)
    presence.ripen(100)
    assert told == []
    presence.left(b"kitchen", NOBODY, 110, 0)
    presence.joined(b"kitchen", Member(b"id4", b"id4"), 111, 0)
    presence.ripen(200)
    assert told == [("member-left", "kitchen", "id3", "id3"), ("member-joined", "kitchen", "id4", "id4")]


def test_who_comes_late_is_told_twice(presence, told):
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.ripen(3)
    presence.left(b"kitchen", ANN, 10, 0)
    presence.ripen(13)
    presence.joined(b"kitchen", ANN_AGAIN, 13, 0)
    presence.ripen(100)
    assert [kind for kind, *_ in told] == ["member-joined", "member-left", "member-joined"]


def test_channels_do_not_mix(presence, told):
    presence.left(b"kitchen", ANN, 0, 0)
    presence.joined(b"cellar", ANN_AGAIN, 1, 0)
    presence.vacated(b"kitchen", 1, 0)
    presence.occupied(b"cellar", 1, 0)
    presence.ripen(100)
    assert len(told) == 4


def test_two_namesakes_leave_and_one_comes_back(presence, told):
    presence.left(b"kitchen", ANN, 0, 0)
    presence.left(b"kitchen", ANN_AGAIN, 0, 0)
    presence.joined(b"kitchen", Member(b"id9", b"ann"), 1, 0)
    presence.ripen(100)
    assert told == [("member-left", "kitchen", "id2", "ann")]


def test_without_debounce_all_is_told_at_once(told):
    presence = Presence(lambda change: told.append(words(change)), 0.0, 100)
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.left(b"kitchen", ANN, 0, 0)
    assert [kind for kind, *_ in told] == ["member-joined", "member-left"]


def test_what_waits_is_bounded(told):
    presence = Presence(lambda change: told.append(words(change)), 3.0, 2)
    for name in (b"a", b"b", b"c"):
        presence.occupied(name, 0, 0)
    assert told == [("channel-occupied", "a")]
    assert len(presence) == 2


def test_at_the_end_nothing_waits(presence, told):
    presence.left(b"kitchen", ANN, 0, 0)
    presence.tell_all()
    presence.left(b"kitchen", ANN_AGAIN, 0, 0)
    assert [kind for kind, *_ in told] == ["member-left", "member-left"]


def test_who_was_told_by_which_id_is_forgotten_where_nothing_is_heard_any_longer(presence, told):
    for channel in (b"kitchen", b"cellar"):
        presence.left(channel, ANN, 0, 0)
        presence.joined(channel, ANN_AGAIN, 1, 0)
    presence.keep(lambda channel: channel == b"cellar")
    for channel in (b"kitchen", b"cellar"):
        presence.left(channel, ANN_AGAIN, 2, 0)
    presence.tell_all()
    assert told == [("member-left", "kitchen", "id2", "ann"), ("member-left", "cellar", "id1", "ann")]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 5))),
    st.floats(0, 4),
    st.integers(1, 5),
)
def test_what_was_told_is_always_what_is_so_in_the_end(steps, debounce, most):
    """Whoever comes and goes, when, and with whose nick: who keeps to what was told knows how many there are by which
    nick, nobody joins twice, and nobody leaves who did not join."""
    here, believed, occupied, now, serial = {}, {}, False, 0.0, 0

    def tell(change):
        nonlocal occupied
        member = change.member
        if change.kind == "member-joined":
            assert member.id not in believed
            believed[member.id] = member.nick
        elif change.kind == "member-left":
            assert believed.pop(member.id) == member.nick
        else:
            assert occupied is not (change.kind == "channel-occupied")
            occupied = not occupied

    presence = Presence(tell, debounce, most)
    for who, comes, seconds in steps:
        now += seconds
        presence.ripen(now)
        nick = b"nick%d" % (who % 2)
        if comes:
            serial += 1
            member = Member(b"id%d" % serial, nick)
            here[who, serial] = member
            if len(here) == 1:
                presence.occupied(b"kitchen", now, now)
            presence.joined(b"kitchen", member, now, now)
        else:
            leaving = next((key for key in here if key[0] == who), None)
            if leaving is not None:
                presence.left(b"kitchen", here.pop(leaving), now, now)
                if not here:
                    presence.vacated(b"kitchen", now, now)
    presence.tell_all()
    assert sorted(believed.values()) == sorted(member.nick for member in here.values())
    assert occupied is bool(here)
