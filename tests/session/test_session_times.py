"""Times on lines: the option ``time`` of subscriptions and histories."""

import pytest

from tests.session.clients import ask, welcomed
from twistedsock.pubsub.values import ChannelState, Position
from twistedsock.testing import FakeServer

EIGHT = "2027-01-15T08:00:00.000Z"


def test_second_subscription_changes_the_option() -> None:
    server = FakeServer()
    ann, bob = welcomed(server), welcomed(server)
    ask(ann, "SUB a time=on")
    ask(bob, "PUB a 1")
    assert ann.received() == [f"MSG a 1 {EIGHT} p2 1"]
    ask(ann, "SUB a")
    ask(bob, "PUB a 2")
    assert ann.received() == ["MSG a 2 p2 2"]
    ask(ann, "SUB a time=on echo=off")
    ask(bob, "EMIT a alarm 3")
    assert ann.received() == [f"EVENT a 3 {EIGHT} p2 alarm 3"]
    ask(ann, "UNSUB a")
    ask(ann, "SUB a time=off")
    ask(bob, "PUB a 4")
    assert ann.received() == ["MSG a 4 p2 4"]


def test_option_belongs_to_one_channel() -> None:
    server = FakeServer()
    ann, bob = welcomed(server), welcomed(server)
    ask(ann, "SUB a time=on", "SUB b")
    ask(bob, "PUB a 1", "PUB b 1")
    assert ann.received() == [f"MSG a 1 {EIGHT} p2 1", "MSG b 1 p2 1"]


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_clients_receive_times(quiet: bool) -> None:
    server = FakeServer()
    ann, bob = welcomed(server), welcomed(server)
    if quiet:
        ask(ann, "QUIET on")
    ask(ann, "SUB a time=on")
    ask(bob, "PUB a 1")
    assert ann.received() == [f"MSG a 1 {EIGHT} p2 1"]
    assert ask(ann, "HIST a time=on") == [f"MSG a 1 {EIGHT} p2 1", "OK 1"]
    assert ask(ann, "HIST a") == ["MSG a 1 p2 1", "OK 1"]


def test_clients_with_times_share_the_encoded_bytes() -> None:
    """Also those that are quiet: there are as many encoding groups as kinds of lines."""
    server = FakeServer()
    ask(welcomed(server), "SUB a")
    for lines in (["SUB a time=on"], ["QUIET on", "SUB a time=on"], ["SUB a", "SUB a time=on"]):
        ask(welcomed(server), *lines)
    groups = server.broker.channels[b"a"].encoding_groups.values()
    assert sorted(map(len, groups)) == [1, 3]


def test_watchers_receive_times_between_presence_changes() -> None:
    server = FakeServer()
    ann, bob = welcomed(server), welcomed(server)
    ask(ann, "SUB a time=on presence=on")
    bob.send("SUB a", "PUB a 1", "UNSUB a")
    server.turn()
    assert ann.received() == ["JOIN a p2 p2", f"MSG a 1 {EIGHT} p2 1", "LEAVE a p2 p2"]


def test_events_before_the_channel_was_closed_may_be_between_the_times() -> None:
    """The channel is opened by an event, so nothing is known about those before."""
    server = FakeServer()
    ann = welcomed(server)
    ask(ann, "PUB a 1")
    server.now += 310
    server.wall += 3_600
    server.broker.expire_histories()
    server.turn()
    assert b"a" not in server.broker.channels
    ask(ann, "PUB a 2")
    assert ask(ann, "HIST a after=-2h before=-30m") == ["LOST a 1 1", "OK 0"]
    assert ask(ann, "HIST a after=-0s") == ["OK 0"]


@pytest.mark.parametrize(
    "previous, lost",
    [(None, []), (Position(b"e1", 3), []), (Position(b"e1", 5), ["LOST a 1 5"])],
    ids=["unknown", "numbering restarts", "numbering continues"],
)
def test_only_events_of_the_present_numbering_are_lost(previous: Position | None, lost: list[str]) -> None:
    server = FakeServer()
    ann = welcomed(server)
    ask(ann, "SUB a")
    server.broker.reset(b"a", ChannelState(Position(b"e2", 5), begin=5, previous=previous))
    server.turn()
    ann.received()
    assert ask(ann, "HIST a after=-1h") == [*lost, "OK 0"]
