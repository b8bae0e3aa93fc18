"""One webhook with a fake clock, a fixed jitter and a receiver that the test controls."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twistedsock.limits.principal import ELSEWHERE
from twistedsock.pubsub.values import Batch, Payloads
from twistedsock.webhooks.collector import EventCollector
from twistedsock.webhooks.config import EVENT_KINDS, WebhookTable, WebhookTarget
from twistedsock.webhooks.delivery import DeliveryWorker, Response

SECRET = "0123456789abcdef"
WALL = 1_795_383_000.0
"""Wall clock time when the monotonic clock shows 0."""


def table(**options: Any) -> WebhookTable:
    return WebhookTable(**({"url": "https://example.org/hook", "events": EVENT_KINDS, "secret": SECRET} | options))


def target(**options: Any) -> WebhookTarget:
    return WebhookTarget(table(**options), SECRET.encode())


def batch_of(*payloads: str, time: int = 0) -> Batch:
    """Events of ann with these payloads, from offset 1 on."""
    content = Payloads([payload.encode() for payload in payloads], sum(map(len, payloads)))
    return Batch(1, 1 + len(payloads), b"id1", b"ann", b"message", content, time)


class FakeWebhook:
    """One webhook. ``requests`` are the bodies, headers and pending responses of its requests."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.requests: list[tuple[dict[str, Any], dict[str, str], Deferred[Response]]] = []
        self.cancelled: list[Deferred[Any]] = []
        self.jitter = 1.0
        self._ids = iter(range(1, 1_000))
        self.worker = DeliveryWorker(self.clock, self.wall_clock, lambda: self.jitter)
        self.collector = self.worker.collector = EventCollector(
            target(**options),
            self.clock.seconds,
            self.wall_clock,
            lambda: f"id{next(self._ids)}",
            self.worker.wake,
            lambda channel: ELSEWHERE,
        )
        self.worker.replace_sender(self.send)

    def wall_clock(self) -> float:
        return WALL + self.clock.seconds()

    def send(self, body: bytes, headers: dict[str, str]) -> "Deferred[Response]":
        responded: Deferred[Response] = Deferred(self.cancelled.append)
        self.requests.append((json.loads(body), headers, responded))
        return responded

    def publish(self, *payloads: str) -> None:
        self.collector.published(b"kitchen", b"5f2c1a", batch_of(*payloads))

    def deliver(self, *payloads: str) -> None:
        """Publish, and run a turn, in which a webhook without delay sends its request."""
        self.publish(*payloads)
        self.clock.advance(0)

    def respond(self, status: int = 200, retry_after: str | None = None) -> None:
        """Respond to the last request."""
        self.requests[-1][2].callback(Response(status, retry_after))

    def fail(self, error: Exception) -> None:
        self.requests[-1][2].errback(error)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of the last request."""
        return self.requests[-1][0]["events"]

    @property
    def sent(self) -> list[Any]:
        """The events of the last request: the data if published, otherwise the type."""
        return [event.get("data", event["type"]) for event in self.events]


Start = Callable[..., FakeWebhook]
Describe = Callable[..., WebhookTable]
Target = Callable[..., WebhookTarget]


@pytest.fixture
def start() -> Start:
    """Start a webhook: ``start(delay=…)``."""
    return FakeWebhook


@pytest.fixture
def describe() -> Describe:
    """A table: ``describe(url=…)``."""
    return table


@pytest.fixture
def aim() -> Target:
    """A table with its secret: ``aim(url=…)``."""
    return target
