"""The Python API inside a server: publish, subscribe, observe."""

import math
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from tests.conftest import Messages
from tests.fakes import Logged
from twistedsock import Bridge, BridgeError, BridgeEvent, BridgeObserver, BridgePosition, BridgeSubscription
from twistedsock.bridge.api import MAX_WAITING_BYTES as MAX_WAITING_CALLS_BYTES
from twistedsock.bridge.observers import FAILURE_LOG_SECONDS, MAX_WAITING_BYTES, MAX_WAITING_CALLS
from twistedsock.errors import CloseReason
from twistedsock.pubsub.values import Position
from twistedsock.testing import FakePolicy, FakeServer

DEEP: Any = []
for _ in range(5_000):
    DEEP = [DEEP]


def bridge_of(server: FakeServer) -> Bridge:
    bridge = Bridge(server.context)
    bridge.start()
    return bridge


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def bridge(server: FakeServer) -> Bridge:
    return bridge_of(server)


def result_of(deferred: "Deferred[Any]") -> Any:
    """The result, or the exception, of a Deferred that has fired."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    return result.value if isinstance(result, Failure) else result


def settle(server: FakeServer) -> None:
    """Run turns, and let the late backplane answer, until neither has work."""
    server.turn()
    while len(server.backplane):
        server.backplane.release()
        server.turn()


def values(events: list[BridgeEvent]) -> list[Any]:
    return [event.value for event in events]


# Publish.


def test_publish_returns_the_position_of_the_event(bridge: Bridge) -> None:
    assert result_of(bridge.publish("kitchen", "21.5")) == ("e1", 1)
    epoch, offset = result_of(bridge.publish("kitchen", "21.6"))
    assert (epoch, offset) == ("e1", 2)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("21.5", "21.5"),
        ({"celsius": 21.5}, '{"celsius":21.5}'),
        (["é"], '["é"]'),
        (21.5, "21.5"),
        (None, "null"),
        (math.nan, "null"),
        (datetime(2026, 11, 29, tzinfo=UTC), '"2026-11-29T00:00:00Z"'),
        ({"photo": b"\xff\xd8"}, '{"photo":"/9g="}'),
    ],
)
def test_publishes_str_as_text_and_other_values_as_json(
    server: FakeServer, bridge: Bridge, value: object, line: str
) -> None:
    client = server.line_client()
    client.send("SUB kitchen")
    bridge.publish("kitchen", value, name="reading", nick="oven")
    server.turn()
    assert client.received()[-1] == f"EVENT kitchen 1 oven reading {line}"


@pytest.mark.parametrize(
    ("channel", "value", "options", "code"),
    [
        ("a b", "", {}, "bad-channel"),
        ("$sys/stats", "", {}, "forbidden"),
        ("kitchen", "", {"name": "a b"}, "bad-name"),
        ("kitchen", "", {"nick": "a b"}, "bad-name"),
        ("kitchen", "x" * 601, {}, "too-long"),
        ("kitchen", b"x" * 601, {}, "too-long"),
        ("kitchen", "\ud83d", {}, "not-utf8"),
        ("kitchen", ["\ud83d"], {}, "not-utf8"),
        ("kitchen\ud83d", "", {}, "not-utf8"),
        ("kitchen", [[[[]]]] * 120, {}, None),
        ("kitchen", DEEP, {}, "bad-json"),
        ("kitchen", eval("[" * 101 + "]" * 101), {}, "bad-json"),
    ],
)
def test_publish_fails_with_the_code_of_the_catalogue(
    channel: str, value: object, options: dict[str, str], code: str | None
) -> None:
    bridge = bridge_of(FakeServer(max_message_bytes=1_200 if code is None else 600))
    result = result_of(bridge.publish(channel, value, **options))
    if code is None:
        assert isinstance(result, BridgePosition)
    else:
        assert isinstance(result, BridgeError)
        assert result.code == code
        assert str(result) == f"{code}: {result.message}"


def test_publish_fails_for_values_that_are_no_json(bridge: Bridge) -> None:
    assert isinstance(result_of(bridge.publish("kitchen", object())), TypeError)


@pytest.mark.parametrize("value", [b"\xff\xd8", bytearray(b"\xff\xd8"), memoryview(b"\xff\xd8")])
def test_publishes_bytes_and_delivers_them_as_bytes(server: FakeServer, bridge: Bridge, value: object) -> None:
    received: list[BridgeEvent] = []
    bridge.subscribe("kitchen", received.append)
    client = server.line_client()
    client.send("SUB kitchen")
    bridge.publish("kitchen", value)
    server.turn()
    assert client.received()[-1] == f"BIN kitchen 1 {received[0].sender} message /9g="
    assert values(received) == [b"\xff\xd8"] and "b'\\xff\\xd8'" in repr(received[0])
    assert values(result_of(bridge.history("kitchen")).events) == [b"\xff\xd8"]


def test_publish_waits_for_the_backplane() -> None:
    server = FakeServer(late=True)
    bridge = bridge_of(server)
    published, failed = bridge.publish("kitchen", "one"), bridge.publish("attic", "one")
    assert not published.called
    server.backplane.release(2)
    server.backplane.release(1)
    server.backplane.failing = 1
    server.backplane.release()
    assert result_of(published) == ("e1", 1)
    assert result_of(failed).code == "unavailable"


def test_calls_before_the_start_wait_for_it(server: FakeServer) -> None:
    bridge, events, forgotten = Bridge(server.context), list[BridgeEvent](), list[BridgeEvent]()
    published = bridge.publish("kitchen", "one")
    subscription = bridge.subscribe("kitchen", events.append, last=1)
    bridge.subscribe("kitchen", forgotten.append).unsubscribe()
    server.turn()
    assert not published.called and not subscription.subscribed.called
    bridge.start()
    server.turn()
    assert result_of(subscription.subscribed) == result_of(published) == ("e1", 1)
    assert (values(events), forgotten) == (["one"], [])


def fill(bridge: Bridge) -> None:
    """Let as much wait for the start as can."""
    while not bridge.publish("kitchen", "x" * 60_000).addErrback(lambda failure: None).called:
        pass


def test_calls_that_wait_for_the_start_are_limited(server: FakeServer) -> None:
    bridge = Bridge(server.context)
    waiting = bridge.publish("kitchen", "one")
    tracemalloc.start()
    fill(bridge)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 1.1 * MAX_WAITING_CALLS_BYTES
    rejected = (bridge.subscribe("kitchen", print).subscribed, bridge.history("kitchen"), bridge.members("kitchen"))
    assert [result_of(call).code for call in rejected] == ["unavailable"] * 3
    bridge.start()
    assert result_of(waiting) == ("e1", 1)
    assert isinstance(result_of(bridge.publish("kitchen", "two")), BridgePosition)


def test_calls_that_wait_for_the_start_fail_at_the_stop(server: FakeServer) -> None:
    bridge = Bridge(server.context)
    subscription = bridge.subscribe("kitchen", print)
    waiting = (bridge.publish("kitchen", "one"), subscription.subscribed, bridge.history("kitchen"))
    bridge.stop()
    assert [result_of(call).code for call in waiting] == ["unavailable"] * 3
    assert not subscription.is_active
    bridge.start()
    assert not len(server.context.sessions)


# Subscribe.


def test_callback_receives_events_of_all_clients(server: FakeServer, bridge: Bridge) -> None:
    events: list[BridgeEvent] = []
    subscription = bridge.subscribe("kitchen", events.append)
    server.turn()
    assert result_of(subscription.subscribed) == ("e1", 0)
    server.wall = 1_800_000_000.25
    client = server.json_client()
    client.send({"type": "publish", "channel": "kitchen", "data": {"celsius": 21.5}, "name": "reading"})
    bridge.publish("kitchen", "22", nick="oven")
    server.turn()
    first, second = events
    assert (first.channel, first.offset, first.position) == ("kitchen", 1, ("e1", 1))
    assert (first.sender, first.name, first.value) == (client.id, "reading", {"celsius": 21.5})
    assert first.time == datetime(2027, 1, 15, 8, 0, 0, 250_000, UTC)
    assert (second.sender, second.name, second.value) == ("oven", "message", "22")
    assert repr(second) == "<BridgeEvent kitchen 2 message from oven: '22'>"


def test_last_and_since_read_the_history(server: FakeServer, bridge: Bridge) -> None:
    positions = [result_of(bridge.publish("kitchen", value)) for value in "abc"]
    server.turn()
    for options, expected in [({"last": 2}, "bc"), ({"since": positions[0]}, "bc"), ({"since": positions[2]}, "")]:
        events: list[BridgeEvent] = []
        subscription = bridge.subscribe("kitchen", events.append, **options)
        server.turn()
        assert values(events) == list(expected)
        subscription.unsubscribe()


def test_nick_is_shown_in_the_list_of_members(server: FakeServer, bridge: Bridge) -> None:
    bridge.subscribe("kitchen", print, nick="recorder")
    client = server.line_client()
    client.send("WHO kitchen")
    assert client.received()[-2].endswith(" recorder")


@pytest.mark.parametrize(
    ("channel", "nick", "code"),
    [("a b", "", "bad-channel"), ("kitchen", "a b", "bad-name"), ("\ud83d", "", "not-utf8")],
)
def test_refused_subscription_fails_and_leaves_no_session(
    server: FakeServer, bridge: Bridge, channel: str, nick: str, code: str
) -> None:
    subscription = bridge.subscribe(channel, print, nick=nick)
    server.turn()
    assert result_of(subscription.subscribed).code == code
    assert not subscription.is_active and not len(server.context.sessions)


def test_unsubscribe_drops_events_that_wait(server: FakeServer, bridge: Bridge) -> None:
    events: list[BridgeEvent] = []

    def receive(event: BridgeEvent) -> None:
        events.append(event)
        subscription.unsubscribe()

    subscription = bridge.subscribe("kitchen", receive)
    bridge.publish("kitchen", "one"), bridge.publish("kitchen", "two")
    server.turn()
    assert values(events) == ["one"]
    assert not subscription.is_active and not len(server.context.sessions)
    subscription.unsubscribe()


def test_policy_does_not_apply_to_the_program_itself(server: FakeServer) -> None:
    server = FakeServer(policy=FakePolicy())
    bridge, events = bridge_of(server), list[BridgeEvent]()
    subscription = bridge.subscribe("kitchen", events.append)
    bridge.publish("kitchen", "one", nick="oven")
    server.turn()
    server.context.change_policy(FakePolicy())
    bridge.publish("kitchen", "two")
    server.turn()
    assert [event.sender for event in events][0] == "oven"
    assert values(events) == ["one", "two"] and subscription.is_active


# Callbacks that fail or are slow.


def test_logs_a_failing_callback_once_a_minute_and_continues(
    server: FakeServer, bridge: Bridge, messages: Messages
) -> None:
    events: list[BridgeEvent] = []

    def fail(event: BridgeEvent) -> None:
        raise RuntimeError("a fault")

    async def fail_later(event: BridgeEvent) -> None:
        raise RuntimeError("a fault")

    for callback in (fail, fail_later, events.append):
        bridge.subscribe("kitchen", callback)
    for _ in range(3):
        bridge.publish("kitchen", "one")
        server.turn()
    words = "the callback for events of kitchen failed; further failures are not logged for 60 s"
    assert messages() == [words, words]
    server.now += FAILURE_LOG_SECONDS
    bridge.publish("kitchen", "one")
    server.turn()
    assert messages() == [words, words]
    assert len(events) == 4


def test_next_event_waits_for_the_deferred_of_the_callback(server: FakeServer, bridge: Bridge) -> None:
    events, others, waiting = list[BridgeEvent](), list[BridgeEvent](), list[Deferred[None]]()

    def receive(event: BridgeEvent) -> Deferred[None]:
        events.append(event)
        waiting.append(Deferred())
        return waiting[-1]

    bridge.subscribe("kitchen", receive), bridge.subscribe("kitchen", others.append)
    bridge.publish("kitchen", "one"), bridge.publish("kitchen", "two")
    server.turn()
    assert (values(events), values(others)) == (["one"], ["one", "two"])
    waiting[0].callback(None)
    server.turn()
    assert values(events) == ["one", "two"]


def test_coroutine_is_awaited(server: FakeServer, bridge: Bridge) -> None:
    values, opened = list[object](), Deferred[str]()

    async def receive(event: BridgeEvent) -> None:
        values.append(await opened)
        values.append(event.value)

    bridge.subscribe("kitchen", receive)
    bridge.publish("kitchen", "one")
    server.turn()
    opened.callback("opened")
    server.turn()
    assert values == ["opened", "one"]


def test_unsubscribe_does_not_wait_for_a_callback(server: FakeServer, bridge: Bridge) -> None:
    waiting: Deferred[None] = Deferred()
    subscription = bridge.subscribe("kitchen", lambda event: waiting)
    bridge.publish("kitchen", "one"), bridge.publish("kitchen", "two")
    server.turn()
    subscription.unsubscribe()
    server.turn()
    assert not len(server.context.sessions)
    waiting.callback(None)
    server.turn()


class SlowReader:
    """A subscription whose callback waits for ``release``."""

    def __init__(self, bridge: Bridge, **options: Any) -> None:
        self.events: list[BridgeEvent] = []
        self._waiting: Deferred[None] = Deferred()
        self.subscription: BridgeSubscription = bridge.subscribe("kitchen", self._receive, **options)

    def _receive(self, event: BridgeEvent) -> object:
        self.events.append(event)
        return self._waiting if len(self.events) == 1 else None

    def release(self) -> None:
        self._waiting.callback(None)


@pytest.mark.parametrize("slow_consumer", ["skip", "close"])
def test_events_wait_in_the_history_and_lost_ones_are_reported(slow_consumer: str, messages: Messages) -> None:
    server = FakeServer(history_events=10, slow_consumer=slow_consumer)
    bridge, lost = bridge_of(server), list[tuple[int, int]]()
    reader = SlowReader(bridge, on_lost=lambda first, last: lost.append((first, last)))
    silent = SlowReader(bridge)
    for _ in range(40):
        bridge.publish("kitchen", "x" * 10_000)
        server.turn()
    assert server.context.memory_budget.used < 200_000, "a chunk for each"
    reader.release(), silent.release()
    server.turn()
    (gap,) = lost
    offsets = [event.offset for event in reader.events]
    assert offsets == [*range(1, gap[0]), *range(gap[1] + 1, 41)]
    assert gap[1] == 30, "the history has the last ten"
    assert [event.offset for event in silent.events] == offsets
    assert messages() == [f"lost events {gap[0]} to 30 of kitchen: the callback is too slow, or the history too short"]
    assert server.context.memory_budget.used == 0


def test_callbacks_are_called_in_time_slices(server: FakeServer, bridge: Bridge) -> None:
    events: list[BridgeEvent] = []

    def receive(event: BridgeEvent) -> None:
        events.append(event)
        server.now += 1

    bridge.subscribe("kitchen", receive)
    for _ in range(3):
        bridge.publish("kitchen", "one")
    steps = []
    while len(server.turns):
        server.turns.step()
        steps.append(len(events))
    assert {1, 2, 3} <= set(steps)


# Resets, and the end of subscriptions.


def test_position_of_another_epoch_is_a_reset(server: FakeServer, bridge: Bridge, messages: Messages) -> None:
    bridge.publish("kitchen", "one")
    bridge.publish("kitchen", "two")
    events, resets = list[BridgeEvent](), list[object]()
    former = BridgePosition("former", 3)
    bridge.subscribe("kitchen", events.append, since=former, last=1, on_reset=lambda *what: resets.append(what))
    bridge.subscribe("kitchen", events.append, since=former)
    server.turn()
    assert (resets, values(events)) == ([(("e1", 1), 0)], ["two"])
    assert messages() == ["kitchen has another epoch: events before 3 may be missing"]


def test_position_before_the_history_is_no_reset() -> None:
    server = FakeServer(history_events=1)
    bridge, what = bridge_of(server), list[object]()
    for value in "abc":
        bridge.publish("kitchen", value)
        server.turn()
    bridge.subscribe(
        "kitchen",
        lambda event: what.append(event.value),
        since=BridgePosition("e1", 1),
        on_lost=lambda first, last: what.append((first, last)),
        on_reset=lambda position, good: what.append("reset"),
    )
    server.turn()
    assert what == [(2, 2), "c"]


def test_position_after_the_newest_event_is_a_reset(server: FakeServer, bridge: Bridge) -> None:
    """The server has lost its memory, and has got the same epoch by chance."""
    resets: list[object] = []
    bridge.subscribe("kitchen", print, since=BridgePosition("e1", 7), on_reset=lambda *what: resets.append(what))
    server.turn()
    assert resets == [(("e1", 0), 0)]


def test_new_epoch_is_reported_and_the_subscription_continues() -> None:
    server = FakeServer(late=True)
    bridge, what = bridge_of(server), list[object]()
    bridge.subscribe(
        "kitchen",
        lambda event: what.append(event.position),
        on_reset=lambda position, good: what.append(("reset", position, good)),
    )
    settle(server)
    for value in "ab":
        bridge.publish("kitchen", value)
    settle(server)
    server.restart_backplane()
    server.backplane.announce(b"kitchen", Position(b"e1", 1))
    bridge.publish("kitchen", "c")
    settle(server)
    assert what == [("e1", 1), ("e1", 2), ("reset", ("e2", 0), 1), ("e2", 1)]


def test_administrator_can_disconnect_a_subscription(server: FakeServer, bridge: Bridge, messages: Messages) -> None:
    events: list[BridgeEvent] = []
    subscription = bridge.subscribe("kitchen", events.append)
    bridge.publish("kitchen", "one")
    (session,) = server.context.sessions
    assert session.protocol == "python"
    session.close(CloseReason.POLICY, b"disconnected by an administrator")
    server.turn()
    assert values(events) == ["one"], "events that were published before come first"
    assert not subscription.is_active and not len(server.context.sessions)
    assert messages() == ["the subscription to kitchen has ended: disconnected by an administrator"]


def test_subscriptions_end_with_the_server(server: FakeServer, bridge: Bridge, messages: Messages) -> None:
    subscription = bridge.subscribe("kitchen", print)
    server.turn()
    server.context.close_all(CloseReason.GOING_AWAY, b"the server is going away")
    server.turn()
    assert not subscription.is_active and not len(server.context.sessions)
    late = bridge.subscribe("kitchen", print)
    assert result_of(late.subscribed).code == "unavailable"
    assert messages() == []


def test_stop_waits_for_a_callback_and_says_so(server: FakeServer, bridge: Bridge, logged: Logged) -> None:
    reader = SlowReader(bridge)
    bridge.publish("kitchen", "one"), bridge.publish("kitchen", "two")
    server.turn()
    server.context.close_all(CloseReason.GOING_AWAY, b"the server is going away")
    server.turn()
    assert not reader.subscription.is_active and len(server.context.sessions) == 1
    assert [formatEvent(event) for event in logged] == ["stopping: waiting for the callback for events of kitchen"]
    logged.clear()
    reader.release()
    server.turn()
    assert values(reader.events) == ["one", "two"]
    assert not len(server.context.sessions)


# Read.


def test_history_is_read_by_offset_and_time(server: FakeServer, bridge: Bridge) -> None:
    for value in "abcd":
        bridge.publish("kitchen", value)
        server.turn()
        server.wall += 60
    first = datetime.fromtimestamp(1_800_000_000, UTC)
    for options, expected in [
        ({}, "abcd"),
        ({"last": 2}, "cd"),
        ({"after": 1, "before": 4}, "bc"),
        ({"after": first}, "bcd"),
        ({"after": first, "before": first + timedelta(minutes=3)}, "bc"),
        ({"before": first.astimezone(timezone(timedelta(hours=1))) + timedelta(minutes=1), "last": 1}, "a"),
    ]:
        history = result_of(bridge.history("kitchen", **options))
        assert values(history.events) == list(expected), options
        assert (history.lost, history.position) == (None, ("e1", 4))
    assert history.events[0].position == ("e1", 1)


def test_history_names_events_that_were_dropped() -> None:
    server = FakeServer(history_events=1)
    bridge = bridge_of(server)
    for value in "abc":
        bridge.publish("kitchen", value)
        server.turn()
    assert result_of(bridge.history("kitchen", after=0)).lost == (1, 2)


@pytest.fixture
def kept() -> FakeServer:
    """The history holds three of 40 events, which fill three chunks; the backplane has all."""
    server = FakeServer(late=True, keeps_history=True, history_events=3)
    bridge = bridge_of(server)
    for number in range(1, 41):
        bridge.publish("kitchen", f"{number:04}" + "x" * 4_000)
        settle(server)
        server.wall += 60
    return server


def test_history_includes_what_only_the_backplane_has(kept: FakeServer) -> None:
    bridge, start = bridge_of(kept), datetime.fromtimestamp(1_800_000_000, UTC)
    for options, first, last in [
        ({"after": 0}, 1, 40),
        ({"last": 30}, 11, 40),
        ({"after": start + timedelta(minutes=9), "before": start + timedelta(minutes=30)}, 11, 30),
        ({}, 38, 40),
    ]:
        deferred = bridge.history("kitchen", **options)
        settle(kept)
        history = result_of(deferred)
        assert [event.offset for event in history.events] == [*range(first, last + 1)]
        assert (history.lost, history.position) == (None, ("e1", 40))


def test_history_fails_if_it_cannot_be_read_to_its_end(kept: FakeServer) -> None:
    deferred = bridge_of(kept).history("kitchen", after=0)
    kept.backplane.release()
    kept.backplane.failing = 1
    settle(kept)
    error = result_of(deferred)
    assert isinstance(error, BridgeError) and error.code == "unavailable" and "read again" in error.message


def test_subscription_continues_after_a_history(server: FakeServer, bridge: Bridge) -> None:
    events: list[BridgeEvent] = []
    bridge.publish("kitchen", "one")
    history = result_of(bridge.history("kitchen"))
    bridge.publish("kitchen", "two")
    bridge.subscribe("kitchen", events.append, since=history.position)
    server.turn()
    assert values(history.events + events) == ["one", "two"]


def test_members_are_those_of_all_clients(server: FakeServer, bridge: Bridge) -> None:
    client = server.line_client()
    client.send("NICK ann", "SUB kitchen")
    assert result_of(bridge.members("kitchen")) == [(client.id, "ann")]
    assert result_of(bridge.members("attic")) == []


@pytest.mark.parametrize(
    ("channel", "options", "exception"),
    [("a b", {}, BridgeError), ("\ud83d", {}, BridgeError), ("kitchen", {"after": datetime(2026, 1, 1)}, ValueError)],
)
def test_invalid_read_fails(bridge: Bridge, channel: str, options: dict[str, Any], exception: type) -> None:
    assert isinstance(result_of(bridge.history(channel, **options)), exception)
    if exception is BridgeError:
        assert isinstance(result_of(bridge.members(channel)), BridgeError)


# Observe.


class Recorder(BridgeObserver):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def published(self, event: BridgeEvent) -> None:
        self.seen.append((event.channel, event.offset, event.value))

    def joined(self, channel: str, member: Any, subscribers: int) -> None:
        self.seen.append(("joined", channel, member.nick, subscribers))

    def left(self, channel: str, member: Any, subscribers: int) -> None:
        self.seen.append(("left", channel, member.nick, subscribers))


def test_observer_receives_events_and_presence_of_all_channels(server: FakeServer, bridge: Bridge) -> None:
    recorder, client = Recorder(), server.line_client()
    observation = bridge.observe(recorder)
    client.send("NICK ann", "SUB kitchen", "PUB kitchen 1", "PUB kitchen 2", "PUB attic 3", "UNSUB kitchen")
    client.send("SUB $sys/stats", "UNSUB $sys/stats")
    assert recorder.seen == [], "not in the same turn"
    server.turn()
    assert recorder.seen == [
        ("joined", "kitchen", "ann", 1),
        ("kitchen", 1, "1"),
        ("kitchen", 2, "2"),
        ("attic", 1, "3"),
        ("left", "kitchen", "ann", 0),
    ]
    client.send("PUB kitchen 4")
    observation.stop()
    observation.stop()
    client.send("PUB kitchen 5")
    server.turn()
    assert len(recorder.seen) == 5


def test_observer_is_called_in_time_slices(server: FakeServer, bridge: Bridge) -> None:
    class Slow(Recorder):
        def published(self, event: BridgeEvent) -> None:
            super().published(event)
            server.now += 1

    recorder = Slow()
    bridge.observe(recorder)
    server.line_client().send("PUB kitchen 1", "PUB kitchen 2", "PUB attic 3")
    steps = []
    while len(server.turns):
        server.turns.step()
        steps.append(len(recorder.seen))
    assert {1, 2, 3} <= set(steps)


def test_stopped_observer_does_not_receive_the_rest_of_a_batch(server: FakeServer, bridge: Bridge) -> None:
    class Once(Recorder):
        def published(self, event: BridgeEvent) -> None:
            super().published(event)
            observation.stop()

    recorder = Once()
    observation = bridge.observe(recorder)
    server.line_client().send("PUB kitchen 1", "PUB kitchen 2", "PUB kitchen 3")
    server.turn()
    assert recorder.seen == [("kitchen", 1, "1")]


@pytest.mark.parametrize("payload", ["", "x" * 60_000])
def test_observer_that_is_too_slow_learns_how_much_it_has_missed(
    server: FakeServer, bridge: Bridge, messages: Messages, payload: str
) -> None:
    class Counting(Recorder):
        def missed(self, calls: int) -> None:
            super().missed(calls)
            self.seen.append(("missed", calls))

    recorder, client = Counting(), server.line_client()
    bridge.observe(recorder)
    client.send("SUB kitchen")
    count = MAX_WAITING_BYTES // len(payload) if payload else MAX_WAITING_CALLS - 1
    for number in range(count + 2):
        bridge.publish("kitchen", payload or str(number))
    client.send("UNSUB kitchen")
    server.turn()
    assert recorder.seen[0] == ("joined", "kitchen", client.id, 1)
    assert [seen[1] for seen in recorder.seen[1:-1]] == list(range(1, count + 1))
    assert recorder.seen[-1] == ("missed", 3)
    assert messages() == [f"the observer {recorder!r} is too slow: it has missed 3 calls"]
    bridge.publish("kitchen", "later")
    server.turn()
    assert recorder.seen[-1] == ("kitchen", count + 3, "later")


def test_failing_observer_does_not_disturb_others(server: FakeServer, bridge: Bridge, messages: Messages) -> None:
    class Failing(BridgeObserver):
        def published(self, event: BridgeEvent) -> None:
            raise RuntimeError("a fault")

        def __repr__(self) -> str:
            return "Failing"

    recorder = Recorder()
    bridge.observe(Failing()), bridge.observe(BridgeObserver()), bridge.observe(recorder)
    client = server.line_client()
    client.send("SUB kitchen", "PUB kitchen 1", "PUB kitchen 2")
    server.turn()
    assert len(recorder.seen) == 3
    assert messages() == ["the observer Failing failed; further failures are not logged for 60 s"]
    client.disconnect()
    server.turn()


def test_time_is_a_datetime_that_programs_can_compare(server: FakeServer, bridge: Bridge) -> None:
    events: list[BridgeEvent] = []
    bridge.subscribe("kitchen", events.append)
    for _ in range(2):
        bridge.publish("kitchen", "one")
        server.turn()
        server.wall += 90
    assert events[1].time - events[0].time == timedelta(seconds=90)
