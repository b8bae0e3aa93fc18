"""A webhook whose time, chance and receiver are those of the test."""

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent

from twistedsock.limits.principal import ELSEWHERE
from twistedsock.webhooks.collector import EventCollector
from twistedsock.webhooks.config import KINDS, WebhookTable, WebhookTarget
from twistedsock.webhooks.delivery import Answer, DeliveryWorker

SECRET = "0123456789abcdef"
WALL = 1_795_383_000.0
"""What the clock on the wall shows when the other one shows 0."""


def table(**said: Any) -> WebhookTable:
    return WebhookTable(**({"url": "https://example.org/hook", "events": KINDS, "secret": SECRET} | said))


def target(**said: Any) -> WebhookTarget:
    return WebhookTarget(table(**said), SECRET.encode())


class Bench:
    """One webhook. ``posts`` are the requests: their bodies, headers, and the Deferred of their answer."""

    def __init__(self, **said: Any) -> None:
        self.clock = Clock()
        self.posts: list[tuple[dict[str, Any], dict[str, str], Deferred[Answer]]] = []
        self.cancelled: list[Deferred[Any]] = []
        self.chance = 1.0
        self._ids = iter(range(1, 1_000))
        self.delivery = DeliveryWorker(self.clock, self.wall_clock, lambda: self.chance)
        self.hook = self.delivery.hook = EventCollector(
            target(**said),
            self.clock.seconds,
            self.wall_clock,
            lambda: f"id{next(self._ids)}",
            self.delivery.wake,
            lambda channel: ELSEWHERE,
        )
        self.delivery.use(self.post)

    def wall_clock(self) -> float:
        return WALL + self.clock.seconds()

    def post(self, body: bytes, headers: dict[str, str]) -> "Deferred[Answer]":
        answered: Deferred[Answer] = Deferred(self.cancelled.append)
        self.posts.append((json.loads(body), headers, answered))
        return answered

    def answer(self, status: int = 200, retry_after: str | None = None) -> None:
        """The last request."""
        self.posts[-1][2].callback(Answer(status, retry_after))

    def fail(self, error: Exception) -> None:
        self.posts[-1][2].errback(error)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of the last request."""
        return self.posts[-1][0]["events"]

    @property
    def told(self) -> list[Any]:
        """The data of what was published, or the type of what else was told, in the last request."""
        return [event.get("data", event["type"]) for event in self.events]


@pytest.fixture
def begin():
    """A webhook: ``begin(delay=…)``."""
    return Bench


@pytest.fixture
def describe():
    """``describe(url=…)``: a table."""
    return table


@pytest.fixture
def aim():
    """``aim(url=…)``: a table with its secret."""
    return target


@pytest.fixture
def said(logged):
    """What was logged since the last look: warnings, or what else."""

    def said(level=LogLevel.warn):
        events = [formatEvent(event) for event in logged if event["log_level"] is level]
        logged.clear()
        return events

    return said
