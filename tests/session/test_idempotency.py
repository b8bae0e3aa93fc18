"""Tests of idempotency keys: a repeated request gets the first response and publishes only once."""

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
    """Counts its calls."""

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


def test_repeats_the_response_without_publishing_again(known: Idempotency) -> None:
    deed = Deed()
    assert known.once(name(b"1"), b"f", deed) == OnceResult(DONE, False)
    assert known.once(name(b"1"), b"f", deed) == OnceResult(DONE, True)
    assert known.once(name(b"2"), b"f", deed) == OnceResult(DONE, False)
    assert known.once(name(b"1", b"bob"), b"f", deed) == OnceResult(DONE, False)
    assert known.once((b"ann", b"yard", b"1"), b"f", deed) == OnceResult(DONE, False)
    assert deed.times == 4


def test_rejects_another_request_with_the_same_key(known: Idempotency) -> None:
    deed = Deed()
    known.once(name(b"1"), b"f", deed)
    assert known.once(name(b"1"), b"g", deed) == OnceResult(KEY_REUSED, False)
    assert deed.times == 1


def test_repetition_of_an_unfinished_request_gets_its_response(known: Idempotency) -> None:
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
def test_errors_are_not_remembered(known: Idempotency, late: bool) -> None:
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


def test_responses_without_a_publication_are_not_remembered(known: Idempotency) -> None:
    nothing = PublishResponse(b"nothing", is_done=False)
    assert known.once(name(b"1"), b"f", Deed(nothing)) == OnceResult(nothing, False)
    assert known.once(name(b"1"), b"f", Deed()) == OnceResult(DONE, False)


def test_exceptions_are_not_remembered(known: Idempotency) -> None:
    def fails() -> PublishResponse:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        known.once(name(b"1"), b"f", fails)
    assert len(known) == 0
    assert known.once(name(b"1"), b"f", Deed()) == OnceResult(DONE, False)


def test_forgets_old_keys(known: Idempotency, clock: Clock) -> None:
    known.once(name(b"1"), b"f", Deed())
    clock.now += KEY_LIFETIME_SECONDS / 2
    known.once(name(b"2"), b"f", Deed())
    clock.now += KEY_LIFETIME_SECONDS / 2
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, False)
    assert known.once(name(b"2"), b"f", Deed()) == OnceResult(DONE, True)


def test_limits_the_keys_of_all_clients(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 3 * KEY_BYTES)
    known = Idempotency(clock)
    for key in (b"a", b"b", b"c", b"d"):
        known.once(name(key, key), b"f", Deed(PublishResponse(b"")))
    assert len(known) == 3


def test_limits_the_bytes_of_responses(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 3 * KEY_BYTES)
    known = Idempotency(clock)
    for key in (b"1", b"2", b"3"):
        known.once(name(key), b"f", Deed(PublishResponse(b"x" * (KEY_BYTES // 4))))
    assert len(known) == 2
    assert not known.once(name(b"1"), b"f", Deed()).is_repeated


def test_client_with_many_keys_loses_its_own_first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_client_alone_can_use_all_keys(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MAX_REMEMBERED_BYTES", 8 * KEY_BYTES)
    known = Idempotency(clock)
    for number in range(8):
        known.once(name(b"%d" % number), b"f", Deed(PublishResponse(b"")))
    assert all(known.once(name(b"%d" % number), b"f", Deed(PublishResponse(b""))).is_repeated for number in range(8))


def test_does_not_remember_a_response_whose_key_was_forgotten(known: Idempotency, clock: Clock) -> None:
    first, second = Future[PublishResponse](), Future[PublishResponse]()
    known.once(name(b"1"), b"f", Deed(first))
    known.once(name(b"2"), b"f", Deed(second))
    clock.now += KEY_LIFETIME_SECONDS
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, False)
    first.settle(PublishResponse(b"late"))
    second.settle(UNAVAILABLE)
    assert known.once(name(b"1"), b"g", Deed()) == OnceResult(DONE, True)
    assert len(known) == 1
