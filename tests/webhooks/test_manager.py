"""All webhooks of a server: start, configuration and shutdown."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet.testing import MemoryReactorClock

from tests.webhooks.conftest import Target, batch_of
from twistedsock.limits.principal import ELSEWHERE
from twistedsock.pubsub.backplane import Observer
from twistedsock.webhooks.manager import WebhookManager


class FakeServerWithWebhooks:
    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()
        self.observers: list[Observer] = []
        self.manager = WebhookManager(
            self.observers, self.reactor, "1.2", lambda: 1_000.0, lambda: "id", lambda: 1.0, lambda channel: ELSEWHERE
        )

    def publish(self, *payloads: str) -> None:
        for observer in self.observers:
            observer.published(b"kitchen", b"5f2c1a", batch_of(*payloads))

    @property
    def queued(self) -> dict[str, int]:
        return {name: statistics.queued for name, statistics in self.manager.statistics.items()}


@pytest.fixture
def fake() -> FakeServerWithWebhooks:
    return FakeServerWithWebhooks()


@pytest.fixture
def local(aim: Target) -> Target:
    """A target whose host needs no DNS lookup."""
    return lambda **options: aim(**({"url": "http://127.0.0.1:9000/"} | options))


def test_no_webhooks_cost_nothing(fake: FakeServerWithWebhooks) -> None:
    fake.manager.configure([])
    assert fake.observers == []
    assert (fake.manager.statistics, fake.manager.warnings) == ({}, [])
    fake.manager.drain(5)
    assert fake.manager.stop().called
    assert not fake.reactor.getDelayedCalls()


def test_server_without_webhooks_does_not_load_treq(tmp_path: Path) -> None:
    program = (
        "import sys, twistedsock.service;"
        "print([name for name in sys.modules if name.startswith('treq') or name.startswith('twistedsock.webhooks')])"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {f"twistedsock.webhooks{name}" for name in ("", ".config", ".manager")}
    assert set(finished.stdout.strip("[]\n").replace("'", "").split(", ")) == loaded


def test_every_webhook_queues_its_events(fake: FakeServerWithWebhooks, local: Target) -> None:
    fake.manager.configure([local(name="a"), local(name="b", events=("member-joined",))])
    fake.publish("1", "2")
    assert fake.queued == {"a": 2, "b": 0}


def test_configured_webhook_keeps_its_queue(fake: FakeServerWithWebhooks, local: Target) -> None:
    fake.manager.configure([local(name="a"), local(name="b")])
    before = list(fake.observers)
    fake.publish("1")
    fake.manager.configure([local(name="a"), local(name="b", url="http://127.0.0.1:9001/"), local(name="c")])
    assert fake.observers[:2] == before
    fake.publish("2")
    assert fake.queued == {"a": 2, "b": 2, "c": 1}
    fake.reactor.advance(1)
    assert [port for _, port, *_ in fake.reactor.tcpClients] == [9000, 9001, 9000]


def test_removed_webhook_delivers_its_queue(fake: FakeServerWithWebhooks, local: Target) -> None:
    fake.manager.configure([local(name="a")])
    fake.publish("1")
    fake.manager.configure([])
    assert fake.observers == []
    fake.reactor.advance(0)
    assert len(fake.reactor.tcpClients) == 1
    fake.manager.drain(5)
    stopped = fake.manager.stop()
    assert not stopped.called
    fake.manager.abort()
    assert stopped.called


def test_removed_webhook_with_an_empty_queue_is_stopped(fake: FakeServerWithWebhooks, local: Target) -> None:
    fake.manager.configure([local(name="a")])
    fake.manager.configure([])
    fake.manager.drain(5)
    assert fake.manager.stop().called


def test_shutdown_is_limited_in_time(fake: FakeServerWithWebhooks, local: Target, logged: list[dict[str, Any]]) -> None:
    fake.manager.configure([local(name="a")])
    fake.publish("1")
    fake.manager.drain(5)
    stopped = fake.manager.stop()
    fake.reactor.advance(4.9)
    assert not stopped.called
    fake.reactor.advance(0.1)
    assert stopped.called
    assert not fake.reactor.getDelayedCalls()
    assert logged[-1]["count"] == 1


def test_shutdown_is_immediate_with_empty_queues(fake: FakeServerWithWebhooks, local: Target) -> None:
    fake.manager.configure([local(name="a")])
    fake.manager.drain(5)
    assert fake.manager.stop().called
    assert not fake.reactor.getDelayedCalls()


def test_returns_warnings_of_targets(fake: FakeServerWithWebhooks, local: Target) -> None:
    fake.manager.configure([msgspec.structs.replace(local(name="a"), warning="look out"), local(name="b")])
    assert fake.manager.warnings == ["look out"]
