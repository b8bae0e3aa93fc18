"""Debounced presence: reconnects are not reported, and a member keeps the id with which it was reported."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.pubsub.values import Member
from twistedsock.webhooks.presence import Change, PresenceDebouncer

ANN = Member(b"id1", b"ann")
ANN_AGAIN = Member(b"id2", b"ann")
NAMELESS = Member(b"id3", b"id3")


@pytest.fixture
def reported() -> list[Any]:
    return []


@pytest.fixture
def presence(reported: list[Any]) -> PresenceDebouncer:
    return PresenceDebouncer(lambda change: reported.append(summary(change)), 3.0, 100)


def summary(change: Change) -> tuple[str, ...]:
    if change.member is None:
        return (change.kind, change.channel.decode())
    return (change.kind, change.channel.decode(), change.member.id.decode(), change.member.nick.decode())


def test_reports_a_lasting_change_with_the_time_it_happened(reported: list[Any]) -> None:
    changes: list[Change] = []
    presence = PresenceDebouncer(changes.append, 3.0, 100)
    presence.occupied(b"kitchen", 10.0, 1010.0)
    presence.joined(b"kitchen", ANN, 10.0, 1010.0)
    assert presence.next_due() == 13.0
    presence.report_due(12.9)
    assert not changes
    presence.report_due(13.0)
    assert [(summary(change), change.time) for change in changes] == [
        (("channel-occupied", "kitchen"), 1010.0),
        (("member-joined", "kitchen", "id1", "ann"), 1010.0),
    ]
    assert presence.next_due() is None


def test_quick_reconnect_is_not_reported(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.occupied(b"kitchen", 0, 0)
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.report_due(5)
    reported.clear()
    presence.left(b"kitchen", ANN, 10, 0)
    presence.vacated(b"kitchen", 10, 0)
    presence.occupied(b"kitchen", 11, 0)
    presence.joined(b"kitchen", ANN_AGAIN, 11, 0)
    presence.report_due(100)
    assert reported == []


def test_reconnected_member_leaves_under_its_first_id(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.report_due(5)
    presence.left(b"kitchen", ANN, 10, 0)
    presence.joined(b"kitchen", ANN_AGAIN, 11, 0)
    presence.left(b"kitchen", ANN_AGAIN, 20, 0)
    presence.joined(b"kitchen", Member(b"id9", b"ann"), 21, 0)
    presence.left(b"kitchen", Member(b"id9", b"ann"), 30, 0)
    presence.report_due(100)
    assert reported == [("member-joined", "kitchen", "id1", "ann"), ("member-left", "kitchen", "id1", "ann")]


def test_short_visit_is_not_reported(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.occupied(b"kitchen", 0, 0)
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.left(b"kitchen", Member(ANN.id, b"renamed"), 1, 0)
    presence.vacated(b"kitchen", 1, 0)
    presence.report_due(100)
    assert reported == []
    assert len(presence) == 0


def test_member_without_a_nick_is_matched_by_id(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.joined(b"kitchen", NAMELESS, 0, 0)
    presence.report_due(5)
    reported.clear()
    presence.left(b"kitchen", NAMELESS, 10, 0)
    presence.joined(b"kitchen", NAMELESS, 11, 0)
    presence.report_due(100)
    assert reported == []
    presence.left(b"kitchen", NAMELESS, 110, 0)
    presence.joined(b"kitchen", Member(b"id4", b"id4"), 111, 0)
    presence.report_due(200)
    assert reported == [("member-left", "kitchen", "id3", "id3"), ("member-joined", "kitchen", "id4", "id4")]


def test_late_reconnect_is_reported(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.report_due(3)
    presence.left(b"kitchen", ANN, 10, 0)
    presence.report_due(13)
    presence.joined(b"kitchen", ANN_AGAIN, 13, 0)
    presence.report_due(100)
    assert [kind for kind, *_ in reported] == ["member-joined", "member-left", "member-joined"]


def test_changes_of_different_channels_do_not_cancel_each_other(
    presence: PresenceDebouncer, reported: list[Any]
) -> None:
    presence.left(b"kitchen", ANN, 0, 0)
    presence.joined(b"cellar", ANN_AGAIN, 1, 0)
    presence.vacated(b"kitchen", 1, 0)
    presence.occupied(b"cellar", 1, 0)
    presence.report_due(100)
    assert len(reported) == 4


def test_one_of_two_members_with_the_same_nick_returns(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.left(b"kitchen", ANN, 0, 0)
    presence.left(b"kitchen", ANN_AGAIN, 0, 0)
    presence.joined(b"kitchen", Member(b"id9", b"ann"), 1, 0)
    presence.report_due(100)
    assert reported == [("member-left", "kitchen", "id2", "ann")]


def test_reports_at_once_without_debounce(reported: list[Any]) -> None:
    presence = PresenceDebouncer(lambda change: reported.append(summary(change)), 0.0, 100)
    presence.joined(b"kitchen", ANN, 0, 0)
    presence.left(b"kitchen", ANN, 0, 0)
    assert [kind for kind, *_ in reported] == ["member-joined", "member-left"]


def test_reports_the_oldest_change_early_over_the_limit(reported: list[Any]) -> None:
    presence = PresenceDebouncer(lambda change: reported.append(summary(change)), 3.0, 2)
    for name in (b"a", b"b", b"c"):
        presence.occupied(name, 0, 0)
    assert reported == [("channel-occupied", "a")]
    assert len(presence) == 2


def test_report_all_ends_the_debouncing(presence: PresenceDebouncer, reported: list[Any]) -> None:
    presence.left(b"kitchen", ANN, 0, 0)
    presence.report_all()
    presence.left(b"kitchen", ANN_AGAIN, 0, 0)
    assert [kind for kind, *_ in reported] == ["member-left", "member-left"]


def test_forgets_reported_ids_of_channels_that_no_longer_match(
    presence: PresenceDebouncer, reported: list[Any]
) -> None:
    for channel in (b"kitchen", b"cellar"):
        presence.left(channel, ANN, 0, 0)
        presence.joined(channel, ANN_AGAIN, 1, 0)
    presence.forget_other_channels(lambda channel: channel == b"cellar")
    for channel in (b"kitchen", b"cellar"):
        presence.left(channel, ANN_AGAIN, 2, 0)
    presence.report_all()
    assert reported == [("member-left", "kitchen", "id2", "ann"), ("member-left", "cellar", "id1", "ann")]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 5))),
    st.floats(0, 4),
    st.integers(1, 5),
)
def test_reports_lead_to_the_present_state(
    steps: list[tuple[int, bool, float]], debounce: float, max_pending: int
) -> None:
    """For any sequence of joins and leaves, the reports are consistent and lead to the present members by nick."""
    here: dict[tuple[int, int], Member] = {}
    believed: dict[bytes, bytes] = {}
    occupied, now, serial = False, 0.0, 0

    def report(change: Change) -> None:
        nonlocal occupied
        member = change.member
        if change.kind == "member-joined":
            assert member is not None and member.id not in believed
            believed[member.id] = member.nick
        elif change.kind == "member-left":
            assert member is not None and believed.pop(member.id) == member.nick
        else:
            assert occupied is not (change.kind == "channel-occupied")
            occupied = not occupied

    presence = PresenceDebouncer(report, debounce, max_pending)
    for who, comes, seconds in steps:
        now += seconds
        presence.report_due(now)
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
    presence.report_all()
    assert sorted(believed.values()) == sorted(member.nick for member in here.values())
    assert occupied is bool(here)
