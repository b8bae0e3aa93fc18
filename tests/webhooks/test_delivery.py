"""Batches leave one at a time, in order, again after a failure, and once more at the end."""

import pytest
from OpenSSL.SSL import Error as SSLError
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from twistedsock.pubsub.values import Batch, Member, Payloads

ANN = Member(b"id1", b"ann")


def publish(bench, *payloads):
    content = Payloads([payload.encode() for payload in payloads], sum(map(len, payloads)))
    bench.hook.published(b"kitchen", b"5f2c1a", Batch(1, 1 + len(payloads), b"id1", b"ann", b"message", content))


def test_what_happens_within_a_moment_leaves_together(begin):
    bench = begin(delay=0.5)
    publish(bench, "a")
    bench.clock.advance(0.4)
    publish(bench, "b")
    assert not bench.posts
    bench.clock.advance(0.1)
    assert bench.told == ["a", "b"]


def test_a_full_batch_leaves_in_the_next_turn(begin):
    bench = begin(delay=5, batch_events=2)
    publish(bench, "a")
    publish(bench, "b")
    bench.clock.advance(0)
    assert bench.told == ["a", "b"]


def test_one_request_at_a_time(begin):
    bench = begin(delay=0)
    publish(bench, "a")
    bench.clock.advance(0)
    publish(bench, "b")
    bench.clock.advance(100)
    assert len(bench.posts) == 1
    bench.answer(204)
    bench.clock.advance(0)
    assert (len(bench.posts), bench.told) == (2, ["b"])
    bench.answer()
    bench.clock.advance(100)
    assert len(bench.posts) == 2
    assert not bench.clock.getDelayedCalls()


def test_nobody_is_told_while_nothing_happens(begin):
    bench = begin()
    bench.delivery.wake()
    assert not bench.clock.getDelayedCalls()


def test_presence_leaves_when_it_has_lasted(begin):
    bench = begin(debounce=3, delay=0)
    bench.hook.joined(b"kitchen", ANN, 1)
    bench.clock.advance(2.9)
    assert not bench.posts
    bench.clock.advance(0.2)
    bench.clock.advance(0)
    assert bench.told == ["channel-occupied", "member-joined"]


def test_a_quick_reconnect_sends_nothing(begin):
    bench = begin(debounce=3, delay=0)
    bench.hook.left(b"kitchen", ANN, 0)
    bench.clock.advance(1)
    bench.hook.joined(b"kitchen", Member(b"id2", b"ann"), 1)
    bench.clock.pump([1] * 10)
    assert not bench.posts


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_a_failure_is_tried_again_with_the_same_id_and_in_order(begin, said, status):
    bench = begin(delay=0)
    publish(bench, "a")
    bench.clock.advance(0)
    bench.answer(status)
    publish(bench, "b")
    for wait in (1, 2, 4):
        bench.clock.advance(wait - 0.01)
        attempts = len(bench.posts)
        bench.clock.advance(0.01)
        assert (len(bench.posts), bench.told) == (attempts + 1, ["a"])
        bench.answer(status)
    bench.clock.advance(8)
    assert {headers["Sockbridge-Delivery"] for _, headers, _ in bench.posts} == {"id1"}
    assert [body["sent"] for body, *_ in bench.posts] == sorted({body["sent"] for body, *_ in bench.posts})
    bench.answer()
    bench.clock.advance(0)
    assert bench.told == ["b"]
    assert said() == [f"webhook example.org: the receiver answered {status}; it is tried again"]


def test_chance_says_when(begin, said):
    bench = begin(delay=0)
    bench.chance = 0.5
    publish(bench, "a")
    bench.clock.advance(0)
    bench.answer(503)
    bench.clock.advance(0.5)
    assert len(bench.posts) == 2
    said()


def test_the_receiver_can_say_when(begin, said):
    bench = begin(delay=0)
    publish(bench, "a")
    bench.clock.advance(0)
    bench.answer(429, "30")
    bench.clock.advance(29.9)
    assert len(bench.posts) == 1
    bench.clock.advance(0.1)
    assert len(bench.posts) == 2
    said()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(), "ConnectionRefusedError: Connection was refused by other side."),
        (ResponseNeverReceived([Failure(CancelledError())]), "no answer came within 10 s"),
        (TimeoutError(), "no answer came within 10 s"),
        (ResponseNeverReceived([Failure(ConnectionRefusedError())]), "ConnectionRefusedError: Connection was refused"),
        (SSLError([("SSL routines", "", "certificate verify failed")]), "Error: certificate verify failed"),
        (ValueError("x" * 1_000), "ValueError: xxx"),
        (ValueError("a\nb\x1b[2J"), "ValueError: a?b?[2J; "),
    ],
)
def test_no_answer_is_a_failure(begin, said, error, words):
    bench = begin(delay=0)
    publish(bench, "before")
    bench.clock.advance(0)
    bench.answer(200)
    publish(bench, "a")
    bench.clock.advance(0)
    assert bench.delivery.figures.last_status == 200
    bench.fail(error)
    (told,) = said()
    assert told.startswith(f"webhook example.org: {words}")
    assert told.endswith("; it is tried again")
    assert len(told) < 300
    bench.clock.advance(1)
    assert (len(bench.posts), bench.told) == (3, ["a"])
    assert (bench.delivery.figures.last_status, bench.delivery.figures.failed) == (0, 1)


def test_an_exception_while_sending_is_a_failed_attempt(begin, said):
    bench = begin(delay=0, retry_for=10)
    works = bench.delivery.post

    def post(body, headers):
        raise ValueError("cannot be sent")

    bench.delivery.post = post
    publish(bench, "a")
    bench.clock.advance(0)
    publish(bench, "b")
    assert said() == ["webhook example.org: ValueError: cannot be sent; it is tried again"]
    assert (bench.delivery.figures.failed, bench.delivery.figures.queued) == (1, 2)
    bench.delivery.post = works
    bench.clock.advance(1)
    assert bench.told == ["a"]
    bench.answer()
    bench.clock.advance(0)
    assert bench.told == ["b"]


def test_what_cannot_be_sent_for_too_long_is_dropped_and_counted(begin, said):
    bench = begin(delay=0, retry_for=10)

    def post(body, headers):
        raise ValueError("cannot be sent")

    bench.delivery.post = post
    publish(bench, "a", "b")
    bench.clock.pump([0, 1, 2, 4, 8])
    figures = bench.delivery.figures
    assert (figures.failed, figures.dropped, figures.queued) == (5, 2, 0)
    said()


def test_an_exception_while_the_body_is_written_is_a_failed_attempt(begin, said, monkeypatch):
    bench = begin(delay=0)
    monkeypatch.setattr(bench.hook, "write", lambda batch: 1 / 0)
    publish(bench, "a")
    bench.clock.advance(0)
    assert said() == ["webhook example.org: ZeroDivisionError: division by zero; it is tried again"]
    monkeypatch.undo()
    bench.clock.advance(1)
    assert bench.told == ["a"]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
def test_who_refuses_is_not_asked_again_and_the_next_one_tells(begin, said, status):
    bench = begin(delay=0)
    publish(bench, "a", "b")
    bench.clock.advance(0)
    bench.answer(status)
    bench.clock.advance(100)
    assert len(bench.posts) == 1
    assert said() == [f"webhook example.org: the receiver answered {status}; events dropped since the last word: 2"]
    publish(bench, "c")
    bench.clock.advance(0)
    assert bench.told == ["dropped", "c"]
    assert bench.events[0]["count"] == 2


def test_the_log_is_told_once_a_minute(begin, said):
    bench = begin(delay=0)
    for _ in range(30):
        publish(bench, "a")
        bench.clock.advance(0)
        bench.answer(404)
        bench.clock.advance(3)
    assert said() == [
        "webhook example.org: the receiver answered 404; events dropped since the last word: 1",
        "webhook example.org: the receiver answered 404; events dropped since the last word: 20",
    ]


@pytest.mark.parametrize("age", [0, 10_000])
def test_what_is_tried_in_vain_for_too_long_is_dropped(begin, said, age):
    bench = begin(delay=0, retry_for=10)
    bench.clock.advance(age)
    publish(bench, "a")
    bench.clock.advance(0)
    for wait in (1, 2, 4, 8):
        bench.answer(500)
        bench.clock.advance(wait)
    assert (len(bench.posts), bench.delivery.figures.dropped) == (5, 0)
    bench.answer(500)
    publish(bench, "b")
    bench.clock.advance(0)
    assert bench.told == ["dropped", "b"]
    assert said() == ["webhook example.org: the receiver answered 500; it is tried again"]


def test_more_than_may_wait_is_dropped_told_and_counted(begin, said):
    bench = begin(delay=0, queue_events=10)
    publish(bench, "first")
    bench.clock.advance(0)
    publish(bench, *map(str, range(25)))
    assert said() == [
        "webhook example.org: more is queued than may be, so the oldest events go; "
        "events dropped since the last word: 15"
    ]
    assert bench.delivery.figures.dropped == 15
    bench.answer()
    bench.clock.advance(0)
    assert bench.told == ["dropped", *map(str, range(15, 25))]
    assert bench.events[0]["count"] == 15
    bench.answer()
    assert said(LogLevel.info) == []


def test_the_log_is_told_when_all_is_well_again(begin, said):
    bench = begin(delay=0)
    for status in (200, 503, 200, 200):
        if status != 200 or len(bench.posts) != 2:
            publish(bench, "a")
        bench.clock.advance(1)
        bench.answer(status)
    assert said(LogLevel.info) == ["webhook example.org: deliveries are taken again"]


def test_figures(begin, said):
    bench = begin(delay=0, queue_events=5)
    publish(bench, "a", "b", "c")
    figures = bench.delivery.figures
    assert (figures.queued, figures.delivered, figures.last_status) == (3, 0, 0)
    bench.clock.advance(0)
    under_way = bench.delivery.figures
    assert (under_way.queued, under_way.queued_bytes) == (3, figures.queued_bytes)
    bench.answer(503)
    bench.clock.advance(1)
    bench.answer(200)
    publish(bench, *"1234567")
    bench.clock.advance(0)
    bench.answer(400)
    figures = bench.delivery.figures
    assert (figures.queued, figures.queued_bytes, figures.delivered, figures.dropped) == (0, 0, 3, 7)
    assert (figures.failed, figures.last_status) == (2, 400)
    said()


def test_the_log_tells_that_it_was_too_long(begin, said):
    bench = begin(delay=0, retry_for=0)
    publish(bench, "a")
    bench.clock.advance(0)
    bench.answer(500)
    assert said() == [
        "webhook example.org: the receiver answered 500, for too long; events dropped since the last word: 1"
    ]


class TestTheEnd:
    def test_with_nothing_to_tell_it_comes_at_once(self, begin):
        bench = begin()
        bench.delivery.hasten()
        assert bench.delivery.end().called
        assert not bench.clock.getDelayedCalls()

    def test_what_waits_leaves_and_what_comes_of_those_who_leave(self, begin, said):
        bench = begin(delay=5, debounce=5, batch_events=2)
        publish(bench, "a", "b", "c")
        bench.hook.joined(b"kitchen", ANN, 1)
        bench.delivery.hasten()
        bench.clock.advance(0)
        assert bench.told == ["a", "b"]
        bench.hook.left(b"kitchen", ANN, 0)
        ended = bench.delivery.end()
        told = []
        while not ended.called:
            told += bench.told
            bench.answer()
            bench.clock.advance(0)
        assert told == [
            *("a", "b", "c"),
            *("channel-occupied", "member-joined", "member-left", "channel-vacated"),
        ]
        assert said() == []
        assert not bench.clock.getDelayedCalls()

    def test_what_waits_for_another_attempt_is_tried_once_more(self, begin, said):
        bench = begin(delay=0)
        publish(bench, "a")
        bench.clock.advance(0)
        bench.answer(503, "500")
        bench.delivery.hasten()
        assert len(bench.posts) == 2
        ended = bench.delivery.end()
        assert not ended.called
        bench.answer()
        assert ended.called
        assert bench.delivery.figures.delivered == 1
        said()

    @pytest.mark.parametrize("is_first", [True, False])
    def test_what_fails_then_is_counted_in_the_log(self, begin, said, is_first):
        bench = begin(delay=0, batch_events=1)
        publish(bench, "a", "b", "c")
        bench.delivery.hasten()
        bench.clock.advance(0)
        ended = bench.delivery.end() if is_first else None
        bench.answer(503)
        ended = ended or bench.delivery.end()
        assert ended.called
        assert said() == [
            "webhook example.org: the receiver answered 503",
            "webhook example.org: 3 events were not delivered",
        ]
        assert not bench.clock.getDelayedCalls()

    def test_who_does_not_answer_is_not_waited_for(self, begin, said):
        bench = begin(delay=0)
        publish(bench, "a")
        bench.delivery.hasten()
        bench.clock.advance(0)
        ended = bench.delivery.end()
        bench.delivery.give_up()
        assert bench.cancelled == [bench.posts[-1][2]]
        assert ended.called
        assert said()[-1] == "webhook example.org: 1 events were not delivered"
        publish(bench, "b")
        assert not bench.clock.getDelayedCalls()

    def test_who_was_given_up_before_it_began_is_over(self, begin, said):
        bench = begin(delay=5)
        publish(bench, "a")
        bench.delivery.hasten()
        ended = bench.delivery.end()
        bench.delivery.give_up()
        assert ended.called
        assert said() == ["webhook example.org: 1 events were not delivered"]
        assert not bench.clock.getDelayedCalls()

    def test_who_was_given_up_before_it_ended_is_over(self, begin, said):
        bench = begin(delay=5)
        publish(bench, "a")
        bench.delivery.hasten()
        bench.delivery.give_up()
        assert bench.delivery.end().called
        assert said() == ["webhook example.org: 1 events were not delivered"]
        assert not bench.clock.getDelayedCalls()


def test_another_way_is_taken_at_once(begin, said):
    bench = begin(delay=0)
    publish(bench, "a")
    bench.clock.advance(0)
    bench.answer(503)
    others = []

    def post(body, headers):
        others.append(body)
        return Deferred()

    bench.delivery.use(post)
    assert len(others) == 1
    assert not bench.clock.getDelayedCalls()
    said()


def test_a_fault_in_handling_an_answer_is_logged_and_the_batch_sent_again(begin, logged):
    bench = begin(delay=0)
    publish(bench, "a")
    bench.clock.advance(0)
    bench.posts[-1][2].callback(None)
    (event,) = [event for event in logged if event["log_level"] is LogLevel.critical]
    assert event["log_failure"].check(AttributeError)
    logged.clear()
    publish(bench, "b")
    assert (bench.delivery.figures.failed, bench.delivery.figures.queued) == (1, 2)
    bench.clock.advance(1)
    assert bench.told == ["a"]
    bench.answer()
    bench.clock.advance(0)
    assert bench.told == ["b"]
