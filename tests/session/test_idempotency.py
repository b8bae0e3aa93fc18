"""A key under which something is done once: asked again, while it is under way, otherwise, and when it is forgotten."""

from typing import Any

import pytest

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import Future
from twistedsock.session import request
from twistedsock.session.request import (
    KEY_BYTES,
    KEY_LIFETIME_SECONDS,
    KEY_REUSED,
    Idempotency,
    OnceResult,
    PublishResponse,
)

DONE = PublishResponse(b"done")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Deed:
    """Something that is done; it counts how often."""

    def __init__(self, answer: Any = DONE) -> None:
        self.answer = answer
        self.times = 0

    def __call__(self) -> Any:
        self.times += 1
        return self.answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Idempotency:
    return Idempotency(clock)


def name(key: bytes, who: bytes = b"ann") -> tuple[bytes, bytes, bytes]:
    return who, b"kitchen", key


def test_what_has_been_done_is_answered_and_not_done_again(known: Idempotency) -> None:
    deed = Deed()
    assert known.once(name(b"1"), b"f", deed) == OnceResult(DONE, False)
    assert known.once(name(b"1"), b"f", deed) == OnceResult(DONE, True)
    assert known.once(name(b"2"), b"f", deed) == OnceResult(DONE, False)
    assert known.once(name(b"1", b"bob"), b"f", deed) == OnceResult(DONE, False)
    assert known.once((b"ann", b"yard", b"1"), b"f", deed) == OnceResult(DONE, False)
    assert deed.times == 4


def test_another_request_under_the_same_key_is_refused(known: Idempotency) -> None:
    deed = Deed()
    known.once(name(b"1"), b"f", deed)
    assert known.once(name(b"1"), b"g", deed) == OnceResult(KEY_REUSED, False)
    assert deed.times == 1


def test_who_asks_while_it_is_under_way_gets_the_same_outcome(known: Idempotency) -> None:
    answer = Future[PublishResponse]()
    deed, told = Deed(answer), []
    assert known.once(name(b"1"), b"f", deed) == OnceResult(answer, False)
    again = known.once(name(b"1"), b"f", deed)
    assert again.is_repeated and isinstance(again.outcome, Future)
    again.outcome.then(told.append)
    assert known.once(name(b"1"), b"g", deed).outcome == KEY_REUSED
    answer.settle(DONE)
    assert told == [DONE] and deed.times == 1
    assert known.once(name(b"1"), b"f", deed) == OnceResult(DONE, True)


@pytest.mark.parametrize("late", [False, True])
def test_what_was_refused_may_be_done_the_next_time(known: Idempotency, late: bool) -> None:
    answer: Any = Future[PublishResponse]() if late else UNAVAILABLE
    told: list[PublishResponse | Error] = []
    known.once(name(b"1"), b"f", Deed(answer))
    if late:
        again = known.once(name(b"1"), b"f", Deed()).outcome
        assert isinstance(again, Future)
        again.then(told.append)
        answer.settle(UNAVAILABLE)
        assert told == [UNAVAILABLE]
    assert len(known) == 0
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, False)


def test_what_tells_of_nothing_done_may_be_done_the_next_time(known: Idempotency) -> None:
    nothing = PublishResponse(b"nothing", is_done=False)
    assert known.once(name(b"1"), b"f", Deed(nothing)) == OnceResult(nothing, False)
    assert known.once(name(b"1"), b"f", Deed()) == OnceResult(DONE, False)


def test_a_fault_leaves_nothing_behind(known: Idempotency) -> None:
    def fails() -> PublishResponse:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        known.once(name(b"1"), b"f", fails)
    assert len(known) == 0
    assert known.once(name(b"1"), b"f", Deed()) == OnceResult(DONE, False)


def test_a_key_is_forgotten_when_it_is_old(known: Idempotency, clock: Clock) -> None:
    known.once(name(b"1"), b"f", Deed())
    clock.now += KEY_LIFETIME_SECONDS / 2
    known.once(name(b"2"), b"f", Deed())
    clock.now += KEY_LIFETIME_SECONDS / 2
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, False)
    assert known.once(name(b"2"), b"f", Deed()) == OnceResult(DONE, True)


def test_keys_of_several_clients_are_bounded_together(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 3 * KEY_BYTES)
    known = Idempotency(clock)
    for key in (b"a", b"b", b"c", b"d"):
        known.once(name(key, key), b"f", Deed(PublishResponse(b"")))
    assert len(known) == 3


def test_answers_are_bounded_in_bytes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 3 * KEY_BYTES)
    known = Idempotency(clock)
    for key in (b"1", b"2", b"3"):
        known.once(name(key), b"f", Deed(PublishResponse(b"x" * (KEY_BYTES // 4))))
    assert len(known) == 2
    assert not known.once(name(b"1"), b"f", Deed()).is_repeated


def test_a_client_with_many_keys_forgets_its_own_first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 8 * KEY_BYTES)
    known = Idempotency(clock)
    for key in (b"1", b"2"):
        known.once(name(key, b"bob"), b"f", Deed(PublishResponse(b"")))
    for number in range(100):
        known.once(name(b"%d" % number), b"f", Deed(PublishResponse(b"")))
    assert len(known) == 8
    assert (
        known.once(name(b"1", b"bob"), b"f", Deed()).is_repeated
        and known.once(name(b"2", b"bob"), b"f", Deed()).is_repeated
    )
    assert known.once(name(b"99"), b"f", Deed()).is_repeated and known.once(name(b"94"), b"f", Deed()).is_repeated
    assert not known.once(name(b"93"), b"f", Deed()).is_repeated


def test_a_client_alone_can_use_all_keys(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 8 * KEY_BYTES)
    known = Idempotency(clock)
    for number in range(8):
        known.once(name(b"%d" % number), b"f", Deed(PublishResponse(b"")))
    assert all(known.once(name(b"%d" % number), b"f", Deed(PublishResponse(b""))).is_repeated for number in range(8))


def test_what_was_forgotten_under_way_is_not_remembered(known: Idempotency, clock: Clock) -> None:
    first, second = Future[PublishResponse](), Future[PublishResponse]()
    known.once(name(b"1"), b"f", Deed(first))
    known.once(name(b"2"), b"f", Deed(second))
    clock.now += KEY_LIFETIME_SECONDS
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, False)
    first.settle(PublishResponse(b"late"))
    second.settle(UNAVAILABLE)
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, True)
    assert len(known) == 1
