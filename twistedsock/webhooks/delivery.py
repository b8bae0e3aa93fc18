"""Delivers the batches of one webhook in order, one request at a time, with retries."""

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as ResponseTimeoutError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.webhooks.collector import EventCollector
from twistedsock.webhooks.queue import DeliveryBatch

FIRST_RETRY_SECONDS = 1.0
"""Maximum wait before the first retry. It doubles with each further one."""

MAX_RETRY_WAIT_SECONDS = 60.0
"""A receiver that is available again gets its events within a minute."""

MAX_RETRY_AFTER_SECONDS = 600.0
"""Maximum wait that a receiver can ask for."""

LOG_INTERVAL_SECONDS = 60.0
"""Minimum interval between two log messages about one webhook that fails or drops events."""

MAX_MESSAGE_LENGTH = 200
"""Characters of an error message in the log, which can contain data of the receiver."""

_RETRYABLE_STATUSES = {408, 429}

_log = Logger()


class RetryDecision(Enum):
    DELIVERED = "delivered"
    RETRY = "retry"
    REJECTED = "rejected"


def retry_decision(status: int) -> RetryDecision:
    """The meaning of a status (RFC 9110 section 15). Redirects are not followed and count as a rejection."""
    if 200 <= status < 300:
        return RetryDecision.DELIVERED
    return RetryDecision.RETRY if status >= 500 or status in _RETRYABLE_STATUSES else RetryDecision.REJECTED


def backoff(failed_attempts: int, random: Callable[[], float]) -> float:
    """Seconds before the next attempt: exponential backoff with full jitter, so that the senders of one receiver
    spread. ``random`` returns numbers from 0 to 1."""
    return random() * min(MAX_RETRY_WAIT_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failed_attempts - 1, 30))


def parse_retry_after(value: str | None, now: float) -> float:
    """The seconds of a header ``Retry-After`` (RFC 9110 section 10.2.3), 0 if it is absent or invalid. ``now`` is wall
    clock time."""
    if value is None:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


class DeliveryStatistics(msgspec.Struct):
    queued: int = 0
    """Events that wait or are being delivered, and their bytes."""
    queued_bytes: int = 0
    delivered: int = 0
    """Events delivered and dropped, and failed attempts, since the start."""
    dropped: int = 0
    failed: int = 0
    last_status: int = 0
    """Status of the last attempt. 0 before the first one, and if there was no response."""


class Response(msgspec.Struct, frozen=True):
    status: int
    retry_after: str | None = None


Send = Callable[[bytes, dict[str, str]], "Deferred[Response]"]
"""Send a body with headers. Fails if there is no response in time."""


class DeliveryWorker:
    """Delivers what ``collector`` has queued. ``random`` returns numbers from 0 to 1. Set ``collector`` and
    ``send`` before calling ``wake``."""

    collector: EventCollector
    send: Send

    def __init__(self, reactor: Any, wall_clock: Callable[[], float], random: Callable[[], float]) -> None:
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._random = random
        self._timer: Any = None
        self._batch: DeliveryBatch | None = None
        self._request: Deferred[Any] | None = None
        self._failed_attempts = 0
        self._first_attempt_at = 0.0
        self._delivered = 0
        self._failed = 0
        self._last_status = 0
        self._logged_at = -LOG_INTERVAL_SECONDS
        self._logged_dropped = 0
        self._seen_overflowed = 0
        self._is_failing = False
        self._waits_for_retry = False
        self._is_draining = False
        self._is_stopped = False
        self._stop_waiters: list[Deferred[None]] = []

    @property
    def statistics(self) -> DeliveryStatistics:
        queue, batch = self.collector.queue, self._batch
        return DeliveryStatistics(
            len(queue) + (len(batch.events) if batch is not None else 0),
            queue.bytes + (batch.size if batch is not None else 0),
            self._delivered,
            queue.dropped,
            self._failed,
            self._last_status,
        )

    def wake(self) -> None:
        """To be called when something was queued, or will be due later."""
        if self._request is None and not self._waits_for_retry and not self._is_stopped:
            due = self.collector.next_due()
            if due is not None:
                self._schedule(due)
        if self.collector.queue.overflowed != self._seen_overflowed:
            self._seen_overflowed = self.collector.queue.overflowed
            self._warn("queue full: dropping the oldest events")

    def replace_sender(self, send: Send) -> None:
        """Send with ``send`` from now on. A batch that waits for a retry is sent at once."""
        self.send = send
        if self._waits_for_retry:
            self._retry()

    # Shutdown.

    def drain(self) -> None:
        """Deliver without delay what is queued and will be queued, but stop at the first failure."""
        self._is_draining = True
        self.collector.drain()
        if self._waits_for_retry:
            self._retry()
        else:
            self.wake()

    def stop(self) -> "Deferred[None]":
        """Called after ``drain`` when nothing more will be queued. Fires when everything has been delivered, when that
        has failed, or when ``abort`` is called. Can be called several times."""
        stopped: Deferred[None] = Deferred()
        self._stop_waiters.append(stopped)
        if self._is_stopped or (self._request is None and not self.collector.queue):
            self._finish()
        return stopped

    def abort(self) -> None:
        """Stop without waiting for the response."""
        self._is_stopped = True
        if self._request is not None:
            self._request.cancel()
        if self._stop_waiters:
            self._finish()

    def _finish(self) -> None:
        self._is_stopped = True
        self._stop_timer()
        undelivered = self.statistics.queued
        if undelivered:
            _log.warn("webhook {name}: {count} events were not delivered", name=self._name, count=undelivered)
        waiters, self._stop_waiters = self._stop_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    # Attempts.

    def _schedule(self, due: float) -> None:
        wait = max(0.0, due - self._reactor.seconds())
        if self._timer is None:
            self._timer = self._reactor.callLater(wait, self._send_next_batch)
        elif self._timer.getTime() > due:
            self._timer.reset(wait)

    def _send_next_batch(self) -> None:
        self._timer = None
        self._batch = self.collector.next_batch()
        if self._batch is None:
            self.wake()
        else:
            self._failed_attempts = 0
            self._first_attempt_at = self._reactor.seconds()
            self._send(self._batch)

    def _retry(self) -> None:
        self._stop_timer()
        self._waits_for_retry = False
        assert self._batch is not None, "it waits for the retry"
        self._send(self._batch)

    def _send(self, batch: DeliveryBatch) -> None:
        # maybeDeferred: an exception while the request is made is a failed attempt like any other.
        self._request = request = maybeDeferred(lambda: self.send(*self.collector.encode(batch)))
        request.addCallbacks(self._handle_response, self._handle_failure)
        request.addErrback(self._handle_exception, batch)

    def _handle_exception(self, failure: Failure, batch: DeliveryBatch) -> None:
        """An internal error while a response was handled counts as a failed attempt, so that the batch is not lost."""
        _log.failure("webhook {name} failed", failure, name=self._name)
        if self._batch is batch and not self._waits_for_retry and not self._is_stopped:
            self._attempt_failed("internal error", 0.0)

    def _handle_response(self, response: Response) -> None:
        self._request = None
        self._last_status = response.status
        decision = retry_decision(response.status)
        if decision is RetryDecision.DELIVERED:
            assert self._batch is not None
            self._delivered += len(self._batch.events)
            if self._is_failing:
                self._is_failing = False
                _log.info("webhook {name}: deliveries succeed again", name=self._name)
            self._continue()
        elif decision is RetryDecision.RETRY:
            wait = parse_retry_after(response.retry_after, self._wall_clock())
            self._attempt_failed(f"the receiver responded with {response.status}", wait)
        else:
            self._failed += 1
            self._drop(f"the receiver responded with {response.status}: batch dropped")

    def _handle_failure(self, failure: Failure) -> None:
        self._request = None
        self._last_status = 0
        self._attempt_failed(_describe(failure, self.collector.table.timeout), 0.0)

    def _attempt_failed(self, reason: str, min_wait: float) -> None:
        assert self._batch is not None
        self._failed += 1
        self._failed_attempts += 1
        if self._is_draining:
            self._is_stopped = True
            self._warn(reason)
            if self._stop_waiters:
                self._finish()
        elif self._reactor.seconds() - self._first_attempt_at >= self.collector.table.retry_for:
            self._drop(f"{reason}: batch dropped after {self.collector.table.retry_for:g} s of retries")
        else:
            self._is_failing |= self._warn(f"{reason}: retrying")
            self._waits_for_retry = True
            wait = max(backoff(self._failed_attempts, self._random), min_wait)
            self._timer = self._reactor.callLater(wait, self._retry)

    def _drop(self, reason: str) -> None:
        assert self._batch is not None
        self.collector.queue.drop(self._batch)
        self._is_failing |= self._warn(reason)
        self._continue()

    def _continue(self) -> None:
        self._batch = None
        if self._stop_waiters and not self.collector.queue:
            self._finish()
        else:
            self.wake()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Logging.

    @property
    def _name(self) -> str:
        return self.collector.table.title

    def _warn(self, message: str) -> bool:
        """Log a warning, with the number of events dropped since the last one. Returns False if the last one was less
        than ``LOG_INTERVAL_SECONDS`` ago; then nothing is logged."""
        now = self._reactor.seconds()
        if now - self._logged_at < LOG_INTERVAL_SECONDS:
            return False
        self._logged_at = now
        dropped = self.collector.queue.dropped
        if dropped != self._logged_dropped:
            message += f" (events dropped since the last message: {dropped - self._logged_dropped})"
            self._logged_dropped = dropped
        _log.warn("webhook {name}: {message}", name=self._name, message=message)
        return True


def _describe(failure: Failure, timeout: float) -> str:
    """A message for operators. Twisted wraps the failure in a list of reasons."""
    error: Any = failure.value
    while getattr(error, "reasons", None):
        error = error.reasons[0].value
    if isinstance(error, (ResponseTimeoutError, ConnectTimeoutError, CancelledError)):
        return f"no response within {timeout:g} s"
    message: Any = error
    if error.args and isinstance(error.args[0], list):  # the error queue of OpenSSL
        message = ", ".join(str(one[-1]) for one in error.args[0])
    text = f"{type(error).__name__}: {message}"[:MAX_MESSAGE_LENGTH]
    # Data of the receiver in it must not forge a line of the log.
    return "".join(character if character.isprintable() else "?" for character in text)
