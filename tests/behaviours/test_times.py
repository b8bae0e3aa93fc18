"""The times of events, and histories between times, in all protocols."""

from typing import Any

import pytest

from tests.behaviours.protocol_clients import ProtocolClient
from tests.session.clients import settle
from twistedsock.testing import FakePolicy, FakeServer

EIGHT = 1_800_000_000_000
"""The time of the first event: 8:00 UTC, in milliseconds since 1970."""
MINUTE = 60_000


def publish_each_minute(server: FakeServer, count: int) -> None:
    """Publish events on ``kitchen``: the first one at 8:00, the last one now."""
    writer = server.line_client()
    for number in range(1, count + 1):
        server.wall += 60 * (number > 1)
        writer.send(f"PUB kitchen {number}")
        settle(server)


def times(events: list[dict[str, Any]]) -> list[int]:
    return [event["time"] for event in events]


def test_live_replayed_and_old_events_have_the_same_time(server: FakeServer, reader: ProtocolClient) -> None:
    reader.with_time = True
    reader.request("subscribe", channel="kitchen")
    publish_each_minute(server, 3)
    live = reader.received()
    assert times(live) == [EIGHT, EIGHT + MINUTE, EIGHT + 2 * MINUTE]
    reader.request("subscribe", channel="kitchen", last=3)
    assert reader.received() == live
    assert reader.request("history", channel="kitchen")["events"] == live


def test_a_slow_client_receives_times_when_it_catches_up(server: FakeServer, reader: ProtocolClient) -> None:
    reader.with_time = True
    reader.request("subscribe", channel="kitchen")
    reader.client.outlet.room = 0
    publish_each_minute(server, 3)
    reader.client.outlet.drain()
    assert times(reader.received()) == [EIGHT, EIGHT + MINUTE, EIGHT + 2 * MINUTE]


def test_time_does_not_go_back_with_the_clock(server: FakeServer, reader: ProtocolClient) -> None:
    reader.with_time = True
    publish_each_minute(server, 2)
    server.wall -= 3_600
    publish_each_minute(server, 1)
    newest = EIGHT + MINUTE
    assert times(reader.request("history", channel="kitchen")["events"]) == [EIGHT, newest, newest]


@pytest.mark.parametrize(
    "bounds, offsets",
    [
        ({"after": 2}, [3, 4, 5]),
        ({"after": 1, "before": 4}, [2, 3]),
        ({"after": 1, "before": 4, "last": 1}, [3]),
        ({"after": "-150s"}, [3, 4, 5]),
        ({"before": "-150s"}, [1, 2]),
        ({"after": "2027-01-15T08:01:00Z", "since": 3}, [4, 5]),
        ({"after": "2027-01-15T10:01:00+02:00", "before": 5}, [3, 4]),
        ({"after": "-1d", "before": "2027-01-15T08:00:00.001Z"}, [1]),
        ({"after": "-1h", "last": 2}, [4, 5]),
        ({"after": "-0s"}, []),
    ],
    ids=str,
)
def test_reads_history_between_offsets_and_times(
    server: FakeServer, reader: ProtocolClient, bounds: dict[str, Any], offsets: list[int]
) -> None:
    publish_each_minute(server, 5)
    reply = reader.request("history", channel="kitchen", **bounds)
    assert [event["offset"] for event in reply["events"]] == offsets and "lost" not in reply


@pytest.mark.parametrize(
    "bounds, lost",
    [
        ({"after": "-1h"}, (1, 3)),
        ({"after": "-1h", "since": 1}, (2, 3)),
        ({"after": "-1h", "last": 6}, (3, 3)),
        ({"after": "-1h", "last": 5}, None),
        ({"after": "-301s"}, (1, 3)),
        ({"after": "-300s"}, None),
        ({"after": "-1h", "before": "-5m"}, (1, 2)),
        ({"after": "-1h", "before": 3}, (1, 2)),
        ({"after": "-1m", "before": "-1h"}, None),
        ({"before": "-1m"}, None),
        ({"after": 2}, (3, 3)),
    ],
    ids=str,
)
def test_reports_dropped_events_that_may_be_between_the_bounds(
    server: FakeServer, reader: ProtocolClient, bounds: dict[str, Any], lost: tuple[int, int] | None
) -> None:
    """The history has dropped events 1 to 3; it knows the time of event 3, five minutes ago."""
    publish_each_minute(server, 8)
    reply = reader.request("history", channel="kitchen", **bounds)
    expected = None if lost is None else [{"first": lost[0], "last": lost[1]}]
    assert reply.get("lost") == expected


@pytest.mark.parametrize("bound", ["yesterday", "-1", "1h", "2026-11-29", "2026-02-30T05:00:00Z", "-1y"])
def test_rejects_an_invalid_time(server: FakeServer, reader: ProtocolClient, bound: str) -> None:
    assert reader.request("history", channel="kitchen", before=bound) == {"type": "error", "code": "bad-argument"}


def test_events_before_the_bound_are_lost_with_the_right_to_read(late: bool, connect_reader: Any) -> None:
    server = FakeServer(late, policy=FakePolicy({"kitchen": "rw"}))
    writer = server.line_client()
    for _ in range(20):
        writer.send(f"PUB kitchen {'x' * 20_000}")
    settle(server)
    reader = connect_reader(server)
    reader.client.outlet.room = 0
    reader.send("history", channel="kitchen", after="-1h", before=16)
    settle(server)
    server.context.change_policy(FakePolicy({}))
    settle(server)
    reader.client.outlet.drain()
    (reply,) = [message for message in reader.received() if message["type"] == "ok"]
    sent = len(reply["events"])
    assert 0 < sent < 15 and reply["lost"] == [{"first": sent + 1, "last": 15}]


def test_reports_events_that_a_closed_channel_had_before_the_bound(late: bool, connect_reader: Any) -> None:
    """The channel is opened by a new event, and the times of the others are not known."""
    server = FakeServer(late, history_age=10.0)
    publish_each_minute(server, 2)
    server.now += 11
    server.broker.expire_histories()
    assert not server.broker.channels
    server.wall += 60
    publish_each_minute(server, 1)
    reply = connect_reader(server).request("history", channel="kitchen", since=0, before="-30s")
    assert (reply["events"], reply["lost"]) == ([], [{"first": 1, "last": 2}])
