"""Deliveries: batches, retries, shutdown and what is logged."""

from typing import Any

import pytest
from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from tests.conftest import Messages
from tests.webhooks.conftest import Start
from twistedsock.pubsub.values import Member
from twistedsock.webhooks.delivery import (
    MAX_RETRY_AFTER_SECONDS,
    MAX_RETRY_WAIT_SECONDS,
    RetryDecision,
    backoff,
    parse_retry_after,
    retry_decision,
)

ANN = Member(b"id1", b"ann")
DROPPED = "(events dropped since the last message: {})"


def test_events_within_the_delay_are_delivered_together(start: Start) -> None:
    webhook = start(delay=0.5)
    webhook.publish("a")
    webhook.clock.advance(0.4)
    webhook.publish("b")
    assert not webhook.requests
    webhook.clock.advance(0.1)
    assert webhook.sent == ["a", "b"]


def test_full_batch_is_delivered_in_the_next_turn(start: Start) -> None:
    webhook = start(delay=5, batch_events=2)
    webhook.publish("a")
    webhook.deliver("b")
    assert webhook.sent == ["a", "b"]


def test_sends_one_request_at_a_time(start: Start) -> None:
    webhook = start(delay=0)
    webhook.deliver("a")
    webhook.publish("b")
    webhook.clock.advance(100)
    assert len(webhook.requests) == 1
    webhook.respond(204)
    webhook.clock.advance(0)
    assert (len(webhook.requests), webhook.sent) == (2, ["b"])
    webhook.respond()
    webhook.clock.advance(100)
    assert len(webhook.requests) == 2
    assert not webhook.clock.getDelayedCalls()


def test_empty_queue_needs_no_timer(start: Start) -> None:
    webhook = start()
    webhook.worker.wake()
    assert not webhook.clock.getDelayedCalls()


def test_presence_change_is_delivered_after_the_debounce_time(start: Start) -> None:
    webhook = start(debounce=3, delay=0)
    webhook.collector.joined(b"kitchen", ANN, 1)
    webhook.clock.advance(2.9)
    assert not webhook.requests
    webhook.clock.advance(0.2)
    webhook.clock.advance(0)
    assert webhook.sent == ["channel-occupied", "member-joined"]


def test_quick_reconnect_is_not_delivered(start: Start) -> None:
    webhook = start(debounce=3, delay=0)
    webhook.collector.left(b"kitchen", ANN, 0)
    webhook.clock.advance(1)
    webhook.collector.joined(b"kitchen", Member(b"id2", b"ann"), 1)
    webhook.clock.pump([1] * 10)
    assert not webhook.requests


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_retries_with_the_same_id_and_in_order(start: Start, messages: Messages, status: int) -> None:
    webhook = start(delay=0)
    webhook.deliver("a")
    webhook.respond(status)
    webhook.publish("b")
    for wait in (1, 2, 4):
        webhook.clock.advance(wait - 0.01)
        attempts = len(webhook.requests)
        webhook.clock.advance(0.01)
        assert (len(webhook.requests), webhook.sent) == (attempts + 1, ["a"])
        webhook.respond(status)
    webhook.clock.advance(8)
    assert {headers["Sockbridge-Delivery"] for _, headers, _ in webhook.requests} == {"id1"}
    assert [body["sent"] for body, *_ in webhook.requests] == sorted({body["sent"] for body, *_ in webhook.requests})
    webhook.respond()
    webhook.clock.advance(0)
    assert webhook.sent == ["b"]
    assert messages() == [f"webhook example.org: the receiver responded with {status}: retrying"]


def test_jitter_shortens_the_wait(start: Start, messages: Messages) -> None:
    webhook = start(delay=0)
    webhook.jitter = 0.5
    webhook.deliver("a")
    webhook.respond(503)
    webhook.clock.advance(0.5)
    assert len(webhook.requests) == 2
    messages()


def test_waits_as_long_as_retry_after_asks(start: Start, messages: Messages) -> None:
    webhook = start(delay=0)
    webhook.deliver("a")
    webhook.respond(429, "30")
    webhook.clock.advance(29.9)
    assert len(webhook.requests) == 1
    webhook.clock.advance(0.1)
    assert len(webhook.requests) == 2
    messages()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(), "ConnectionRefusedError: Connection was refused by other side."),
        (ResponseNeverReceived([Failure(CancelledError())]), "no response within 10 s"),
        (TimeoutError(), "no response within 10 s"),
        (ResponseNeverReceived([Failure(ConnectionRefusedError())]), "ConnectionRefusedError: Connection was refused"),
        (SSLError([("SSL routines", "", "certificate verify failed")]), "Error: certificate verify failed"),
        (ValueError("x" * 1_000), "ValueError: xxx"),
        (ValueError("a\nb\x1b[2J"), "ValueError: a?b?[2J: "),
    ],
)
def test_retries_without_a_response_and_logs_the_reason(
    start: Start, messages: Messages, error: Exception, words: str
) -> None:
    webhook = start(delay=0)
    webhook.deliver("before")
    webhook.respond(200)
    webhook.deliver("a")
    assert webhook.worker.statistics.last_status == 200
    webhook.fail(error)
    (message,) = messages()
    assert message.startswith(f"webhook example.org: {words}")
    assert message.endswith(": retrying")
    assert len(message) < 300
    webhook.clock.advance(1)
    assert (len(webhook.requests), webhook.sent) == (3, ["a"])
    assert (webhook.worker.statistics.last_status, webhook.worker.statistics.failed) == (0, 1)


def cannot_send(body: bytes, headers: dict[str, str]) -> Deferred[Any]:
    raise ValueError("cannot be sent")


def test_exception_of_the_sender_is_a_failed_attempt(start: Start, messages: Messages) -> None:
    webhook = start(delay=0, retry_for=10)
    works = webhook.worker.send
    webhook.worker.send = cannot_send
    webhook.deliver("a")
    webhook.publish("b")
    assert messages() == ["webhook example.org: ValueError: cannot be sent: retrying"]
    assert (webhook.worker.statistics.failed, webhook.worker.statistics.queued) == (1, 2)
    webhook.worker.send = works
    webhook.clock.advance(1)
    assert webhook.sent == ["a"]
    webhook.respond()
    webhook.clock.advance(0)
    assert webhook.sent == ["b"]


def test_drops_a_batch_that_cannot_be_sent(start: Start, messages: Messages) -> None:
    webhook = start(delay=0, retry_for=10)
    webhook.worker.send = cannot_send
    webhook.publish("a", "b")
    webhook.clock.pump([0, 1, 2, 4, 8])
    statistics = webhook.worker.statistics
    assert (statistics.failed, statistics.dropped, statistics.queued) == (5, 2, 0)
    messages()


def test_exception_while_the_body_is_encoded_is_a_failed_attempt(
    start: Start, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = start(delay=0)
    monkeypatch.setattr(webhook.collector, "encode", lambda batch: 1 / 0)
    webhook.deliver("a")
    assert messages() == ["webhook example.org: ZeroDivisionError: division by zero: retrying"]
    monkeypatch.undo()
    webhook.clock.advance(1)
    assert webhook.sent == ["a"]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
def test_rejected_batch_is_dropped_and_reported_by_the_next(start: Start, messages: Messages, status: int) -> None:
    webhook = start(delay=0)
    webhook.deliver("a", "b")
    webhook.respond(status)
    webhook.clock.advance(100)
    assert len(webhook.requests) == 1
    assert messages() == [
        f"webhook example.org: the receiver responded with {status}: batch dropped " + DROPPED.format(2)
    ]
    webhook.deliver("c")
    assert webhook.sent == ["dropped", "c"]
    assert webhook.events[0]["count"] == 2


def test_logs_failures_at_most_once_a_minute(start: Start, messages: Messages) -> None:
    webhook = start(delay=0)
    for _ in range(30):
        webhook.deliver("a")
        webhook.respond(404)
        webhook.clock.advance(3)
    assert messages() == [
        "webhook example.org: the receiver responded with 404: batch dropped " + DROPPED.format(1),
        "webhook example.org: the receiver responded with 404: batch dropped " + DROPPED.format(20),
    ]


@pytest.mark.parametrize("age", [0, 10_000])
def test_drops_a_batch_after_the_retry_time(start: Start, messages: Messages, age: int) -> None:
    webhook = start(delay=0, retry_for=10)
    webhook.clock.advance(age)
    webhook.deliver("a")
    for wait in (1, 2, 4, 8):
        webhook.respond(500)
        webhook.clock.advance(wait)
    assert (len(webhook.requests), webhook.worker.statistics.dropped) == (5, 0)
    webhook.respond(500)
    webhook.deliver("b")
    assert webhook.sent == ["dropped", "b"]
    assert messages() == ["webhook example.org: the receiver responded with 500: retrying"]


def test_full_queue_drops_the_oldest_events_and_reports_them(start: Start, messages: Messages) -> None:
    webhook = start(delay=0, queue_events=10)
    webhook.deliver("first")
    webhook.publish(*map(str, range(25)))
    assert messages() == ["webhook example.org: queue full: dropping the oldest events " + DROPPED.format(15)]
    assert webhook.worker.statistics.dropped == 15
    webhook.respond()
    webhook.clock.advance(0)
    assert webhook.sent == ["dropped", *map(str, range(15, 25))]
    assert webhook.events[0]["count"] == 15
    webhook.respond()
    assert messages(LogLevel.info) == []


def test_logs_the_recovery_of_a_receiver(start: Start, messages: Messages) -> None:
    webhook = start(delay=0)
    for status in (200, 503, 200, 200):
        if status != 200 or len(webhook.requests) != 2:
            webhook.publish("a")
        webhook.clock.advance(1)
        webhook.respond(status)
    assert messages(LogLevel.info) == ["webhook example.org: deliveries succeed again"]


def test_counts_queued_delivered_dropped_and_failed(start: Start, messages: Messages) -> None:
    webhook = start(delay=0, queue_events=5)
    webhook.publish("a", "b", "c")
    statistics = webhook.worker.statistics
    assert (statistics.queued, statistics.delivered, statistics.last_status) == (3, 0, 0)
    webhook.clock.advance(0)
    under_way = webhook.worker.statistics
    assert (under_way.queued, under_way.queued_bytes) == (3, statistics.queued_bytes)
    webhook.respond(503)
    webhook.clock.advance(1)
    webhook.respond(200)
    webhook.deliver(*"1234567")
    webhook.respond(400)
    statistics = webhook.worker.statistics
    assert (statistics.queued, statistics.queued_bytes, statistics.delivered, statistics.dropped) == (0, 0, 3, 7)
    assert (statistics.failed, statistics.last_status) == (2, 400)
    messages()


def test_logs_a_batch_that_was_dropped_after_the_retry_time(start: Start, messages: Messages) -> None:
    webhook = start(delay=0, retry_for=0)
    webhook.deliver("a")
    webhook.respond(500)
    assert messages() == [
        "webhook example.org: the receiver responded with 500: batch dropped after 0 s of retries " + DROPPED.format(1)
    ]


class TestShutdown:
    def test_stops_at_once_with_an_empty_queue(self, start: Start) -> None:
        webhook = start()
        webhook.worker.drain()
        assert webhook.worker.stop().called
        assert not webhook.clock.getDelayedCalls()

    def test_delivers_pending_events_and_those_of_closing_sessions(self, start: Start, messages: Messages) -> None:
        webhook = start(delay=5, debounce=5, batch_events=2)
        webhook.publish("a", "b", "c")
        webhook.collector.joined(b"kitchen", ANN, 1)
        webhook.worker.drain()
        webhook.clock.advance(0)
        assert webhook.sent == ["a", "b"]
        webhook.collector.left(b"kitchen", ANN, 0)
        stopped = webhook.worker.stop()
        sent: list[Any] = []
        while not stopped.called:
            sent += webhook.sent
            webhook.respond()
            webhook.clock.advance(0)
        assert sent == [
            *("a", "b", "c"),
            *("channel-occupied", "member-joined", "member-left", "channel-vacated"),
        ]
        assert messages() == []
        assert not webhook.clock.getDelayedCalls()

    def test_sends_a_batch_that_waits_for_a_retry_once_more(self, start: Start, messages: Messages) -> None:
        webhook = start(delay=0)
        webhook.deliver("a")
        webhook.respond(503, "500")
        webhook.worker.drain()
        assert len(webhook.requests) == 2
        stopped = webhook.worker.stop()
        assert not stopped.called
        webhook.respond()
        assert stopped.called
        assert webhook.worker.statistics.delivered == 1
        messages()

    @pytest.mark.parametrize("is_first", [True, False])
    def test_logs_the_number_of_undelivered_events(self, start: Start, messages: Messages, is_first: bool) -> None:
        webhook = start(delay=0, batch_events=1)
        webhook.publish("a", "b", "c")
        webhook.worker.drain()
        webhook.clock.advance(0)
        stopped = webhook.worker.stop() if is_first else None
        webhook.respond(503)
        stopped = stopped or webhook.worker.stop()
        assert stopped.called
        assert messages() == [
            "webhook example.org: the receiver responded with 503",
            "webhook example.org: 3 events were not delivered",
        ]
        assert not webhook.clock.getDelayedCalls()

    def test_abort_cancels_the_request(self, start: Start, messages: Messages) -> None:
        webhook = start(delay=0)
        webhook.publish("a")
        webhook.worker.drain()
        webhook.clock.advance(0)
        stopped = webhook.worker.stop()
        webhook.worker.abort()
        assert webhook.cancelled == [webhook.requests[-1][2]]
        assert stopped.called
        assert messages()[-1] == "webhook example.org: 1 events were not delivered"
        webhook.publish("b")
        assert not webhook.clock.getDelayedCalls()

    def test_abort_before_the_first_request(self, start: Start, messages: Messages) -> None:
        webhook = start(delay=5)
        webhook.publish("a")
        webhook.worker.drain()
        stopped = webhook.worker.stop()
        webhook.worker.abort()
        assert stopped.called
        assert messages() == ["webhook example.org: 1 events were not delivered"]
        assert not webhook.clock.getDelayedCalls()

    def test_abort_before_stop(self, start: Start, messages: Messages) -> None:
        webhook = start(delay=5)
        webhook.publish("a")
        webhook.worker.drain()
        webhook.worker.abort()
        assert webhook.worker.stop().called
        assert messages() == ["webhook example.org: 1 events were not delivered"]
        assert not webhook.clock.getDelayedCalls()


def test_new_sender_retries_at_once(start: Start, messages: Messages) -> None:
    webhook = start(delay=0)
    webhook.deliver("a")
    webhook.respond(503)
    bodies = []

    def send(body: bytes, headers: dict[str, str]) -> Deferred[Any]:
        bodies.append(body)
        return Deferred()

    webhook.worker.replace_sender(send)
    assert len(bodies) == 1
    assert not webhook.clock.getDelayedCalls()
    messages()


def test_internal_error_is_logged_and_the_batch_sent_again(start: Start, logged: list[dict[str, Any]]) -> None:
    webhook = start(delay=0)
    webhook.deliver("a")
    webhook.requests[-1][2].callback(None)
    (event,) = [event for event in logged if event["log_level"] is LogLevel.critical]
    assert event["log_failure"].check(AttributeError)
    logged.clear()
    webhook.publish("b")
    assert (webhook.worker.statistics.failed, webhook.worker.statistics.queued) == (1, 2)
    webhook.clock.advance(1)
    assert webhook.sent == ["a"]
    webhook.respond()
    webhook.clock.advance(0)
    assert webhook.sent == ["b"]


# Retries.


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        *((status, RetryDecision.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, RetryDecision.RETRY) for status in (408, 429, 500, 502, 503, 504, 599)),
        *((status, RetryDecision.REJECTED) for status in (300, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422)),
    ],
)
def test_decides_by_the_status(status: int, decision: RetryDecision) -> None:
    assert retry_decision(status) is decision


def test_backoff_doubles_up_to_a_minute() -> None:
    waits = [backoff(attempt, lambda: 1.0) for attempt in range(1, 10)]
    assert waits == [1, 2, 4, 8, 16, 32, MAX_RETRY_WAIT_SECONDS, MAX_RETRY_WAIT_SECONDS, MAX_RETRY_WAIT_SECONDS]
    assert backoff(10**9, lambda: 1.0) == MAX_RETRY_WAIT_SECONDS


def test_backoff_has_full_jitter() -> None:
    assert backoff(4, lambda: 0.0) == 0.0
    assert backoff(4, lambda: 0.25) == 2.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("7", 7),
        (" 7 ", 7),
        ("9" * 5_000, MAX_RETRY_AFTER_SECONDS),
        ("601", MAX_RETRY_AFTER_SECONDS),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 29),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0),
        ("Fri, 31 Dec 2999 23:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
        ("", 0),
        ("-1", 0),
        ("soon", 0),
        ("²", 0),
        ("Fri, 31 Dec 99999999999 23:00:00 GMT", 0),
    ],
)
def test_parses_retry_after(value: str | None, seconds: float) -> None:
    assert parse_retry_after(value, 946_684_770.0) == seconds
