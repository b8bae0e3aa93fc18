"""A repeated request with an idempotency key gets the first response, and publishes only once."""

from typing import Any

import pytest

from tests.fakes import Ticking
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error
from twistedsock.limits.principal import LOCAL
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import BYTES, TEXT, PayloadKind, Payloads, Publication, RepeatedOffset
from twistedsock.session import idempotency
from twistedsock.session.idempotency import (
    KEY_BYTES,
    KEY_LIFETIME_SECONDS,
    Idempotency,
    OnceResult,
    PublishResponse,
)

DONE = PublishResponse(b"done")
EMPTY = PublishResponse(b"")
FIRST, REPEATED = OnceResult(DONE, False), OnceResult(DONE, True)


@pytest.fixture
def clock() -> Ticking:
    return Ticking(0)


@pytest.fixture
def known(clock: Ticking) -> Idempotency:
    return Idempotency(clock)


def once(
    known: Idempotency, key: bytes, body: bytes = b"f", answer: Any = DONE, *, sender: bytes = b"ann"
) -> OnceResult:
    """The result of a request whose publication, if it runs, returns the answer."""
    return known.once((sender, b"kitchen", key), body, lambda key, fingerprint: answer)


def test_repeats_the_response_without_publishing_again(known: Idempotency) -> None:
    runs: list[bytes] = []

    def publish(key: bytes, fingerprint: bytes) -> PublishResponse:
        runs.append(key)
        return DONE

    assert known.once((b"ann", b"kitchen", b"1"), b"f", publish) == FIRST
    assert known.once((b"ann", b"kitchen", b"1"), b"f", publish) == REPEATED
    assert known.once((b"ann", b"kitchen", b"1"), b"g", publish) == OnceResult(KEY_REUSED, False)
    assert len(runs) == 1
    for other in ((b"ann", b"kitchen", b"2"), (b"bob", b"kitchen", b"1"), (b"ann", b"yard", b"1")):
        assert known.once(other, b"f", publish) == FIRST
    assert len(runs) == 4


def test_repetition_of_an_unfinished_request_gets_its_response(known: Idempotency) -> None:
    answer = Future[PublishResponse]()
    told: list[PublishResponse | Error] = []
    assert once(known, b"1", answer=answer) == OnceResult(answer, False)
    again = once(known, b"1", answer=UNAVAILABLE)
    assert again.is_repeated and isinstance(again.outcome, Future)
    again.outcome.then(told.append)
    assert once(known, b"1", b"g").outcome == KEY_REUSED
    answer.settle(DONE)
    assert told == [DONE]
    assert once(known, b"1", answer=UNAVAILABLE) == REPEATED


@pytest.mark.parametrize("late", [False, True])
def test_errors_are_not_remembered(known: Idempotency, late: bool) -> None:
    answer: Any = Future[PublishResponse]() if late else UNAVAILABLE
    told: list[PublishResponse | Error] = []
    once(known, b"1", answer=answer)
    if late:
        again = once(known, b"1").outcome
        assert isinstance(again, Future)
        again.then(told.append)
        answer.settle(UNAVAILABLE)
        assert told == [UNAVAILABLE]
    assert len(known) == 0
    assert once(known, b"1", b"g") == FIRST


def test_responses_without_a_publication_are_not_remembered(known: Idempotency) -> None:
    nothing = PublishResponse(b"nothing", is_done=False)
    assert once(known, b"1", answer=nothing) == OnceResult(nothing, False)
    assert once(known, b"1") == FIRST


def test_exceptions_are_not_remembered(known: Idempotency) -> None:
    with pytest.raises(ZeroDivisionError):
        known.once((b"ann", b"kitchen", b"1"), b"f", lambda *keys: 1 / 0)  # type: ignore[arg-type, return-value]
    assert len(known) == 0
    assert once(known, b"1") == FIRST


def test_forgets_old_keys(known: Idempotency, clock: Ticking) -> None:
    once(known, b"1")
    clock.now += KEY_LIFETIME_SECONDS / 2
    once(known, b"2")
    clock.now += KEY_LIFETIME_SECONDS / 2
    assert once(known, b"1", b"g") == FIRST
    assert once(known, b"2") == REPEATED


def test_does_not_remember_a_response_whose_key_was_forgotten(known: Idempotency, clock: Ticking) -> None:
    first, second = Future[PublishResponse](), Future[PublishResponse]()
    once(known, b"1", answer=first)
    once(known, b"2", answer=second)
    clock.now += KEY_LIFETIME_SECONDS
    assert once(known, b"1", b"g") == FIRST
    first.settle(PublishResponse(b"late"))
    second.settle(UNAVAILABLE)
    assert once(known, b"1", b"g") == REPEATED
    assert len(known) == 1


@pytest.fixture
def limited(clock: Ticking, monkeypatch: pytest.MonkeyPatch) -> Idempotency:
    """With room for eight keys."""
    monkeypatch.setattr(idempotency, "MAX_REMEMBERED_BYTES", 8 * KEY_BYTES)
    return Idempotency(clock)


def test_limits_the_keys_of_all_clients(limited: Idempotency) -> None:
    for number in range(9):
        once(limited, b"key", answer=EMPTY, sender=b"%d" % number)
    assert len(limited) == 8


def test_limits_the_bytes_of_responses(limited: Idempotency) -> None:
    for number in range(8):
        once(limited, b"%d" % number, answer=PublishResponse(b"x" * (KEY_BYTES // 4)))
    assert len(limited) == 6
    assert [once(limited, key).is_repeated for key in (b"2", b"1")] == [True, False]


def test_client_with_many_keys_loses_its_own_first(limited: Idempotency) -> None:
    for key in (b"1", b"2"):
        once(limited, key, answer=EMPTY, sender=b"bob")
    for number in range(100):
        once(limited, b"%d" % number, answer=EMPTY)
    assert len(limited) == 8
    assert all(once(limited, key, sender=b"bob").is_repeated for key in (b"1", b"2"))
    assert [once(limited, key).is_repeated for key in (b"99", b"94", b"93")] == [True, True, False]


def test_one_client_alone_can_use_all_keys(limited: Idempotency) -> None:
    for expected in (False, True):
        keys = [b"%d" % number for number in range(8)]
        assert [once(limited, key, answer=EMPTY).is_repeated for key in keys] == [expected] * 8


# In sessions.


def keyed(payload: bytes = b"21", kind: PayloadKind = TEXT, name: bytes = b"message") -> Publication:
    return Publication(b"kitchen", Payloads((payload,), len(payload), kind), name, b"1")


def test_publishes_once_in_sessions(known: Idempotency) -> None:
    first = known.publish_once(LOCAL, keyed(), lambda publication: 7)
    again = known.publish_once(LOCAL, keyed(), lambda publication: 8)
    assert first == again == 7
    assert not isinstance(first, RepeatedOffset) and isinstance(again, RepeatedOffset)


@pytest.mark.parametrize("other", [keyed(b"22"), keyed(kind=BYTES), keyed(name=b"alarm")])
def test_rejects_another_publication_with_the_key(known: Idempotency, other: Publication) -> None:
    known.publish_once(LOCAL, keyed(), lambda publication: 7)
    assert known.publish_once(LOCAL, other, lambda publication: 8) is KEY_REUSED


@pytest.mark.parametrize("is_shared", [False, True])
def test_passes_keys_to_a_backplane_that_remembers_them(clock: Ticking, is_shared: bool) -> None:
    """One for each client and channel, and another than that of an HTTP request."""
    passed: list[Publication] = []

    def publish(publication: Publication) -> int:
        passed.append(publication)
        return RepeatedOffset(7)

    for principal in (LOCAL, LOCAL, b"=ann"):
        known = Idempotency(clock, is_shared)
        assert isinstance(known.publish_once(principal, keyed(), publish), RepeatedOffset)
    first, again, other = [publication.key for publication in passed]
    assert first == again and (first != other) is (bool(first)) is is_shared
    assert len({publication.fingerprint for publication in passed}) == 1


def test_keys_of_http_requests_are_others(clock: Ticking) -> None:
    passed: list[bytes] = []

    def publish(key: bytes, fingerprint: bytes) -> PublishResponse:
        passed.append(key)
        return DONE

    def publish_in_session(publication: Publication) -> int:
        passed.append(publication.key)
        return 7

    known = Idempotency(clock, is_shared=True)
    assert known.once((LOCAL, b"kitchen", b"1"), b"21", publish) == FIRST
    assert not isinstance(known.publish_once(LOCAL, keyed(), publish_in_session), RepeatedOffset)
    assert len(set(passed)) == 2
