"""All webhooks of a bridge: they begin, change and end together."""

import subprocess
import sys

import pytest
from twisted.internet.testing import MemoryReactorClock

from twistedsock.limits.principal import ELSEWHERE
from twistedsock.pubsub.values import Batch, Member, Payloads
from twistedsock.webhooks.manager import WebhookManager

ANN = Member(b"id1", b"ann")


class Bench:
    def __init__(self):
        self.reactor = MemoryReactorClock()
        self.observers = []
        self.webhooks = WebhookManager(
            self.observers, self.reactor, "1.2", lambda: 1_000.0, lambda: "id", lambda: 1.0, lambda channel: ELSEWHERE
        )

    def publish(self, *payloads):
        batch = Batch(1, 1 + len(payloads), b"id1", b"ann", b"message", Payloads(payloads, 1))
        for observer in self.observers:
            observer.published(b"kitchen", b"5f2c1a", batch)

    @property
    def queued(self):
        return {name: figures.queued for name, figures in self.webhooks.figures.items()}


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def local(aim):
    """A target whose host needs not be looked up."""
    return lambda **said: aim(**({"url": "http://127.0.0.1:9000/"} | said))


def test_without_any_nothing_is_paid(bench):
    bench.webhooks.use([])
    assert bench.observers == []
    assert (bench.webhooks.figures, bench.webhooks.warnings) == ({}, [])
    bench.webhooks.hasten(5)
    assert bench.webhooks.end().called
    assert not bench.reactor.getDelayedCalls()


def test_without_any_treq_is_not_loaded(tmp_path):
    program = (
        "import sys, twistedsock.service;"
        "print([name for name in sys.modules if name.startswith('treq') or name.startswith('twistedsock.webhooks')])"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {f"twistedsock.webhooks{name}" for name in ("", ".config", ".manager")}
    assert set(finished.stdout.strip("[]\n").replace("'", "").split(", ")) == loaded


def test_each_hears_what_happens(bench, local):
    bench.webhooks.use([local(name="a"), local(name="b", events=("member-joined",))])
    bench.publish(b"1", b"2")
    assert bench.queued == {"a": 2, "b": 0}


def test_those_that_stay_keep_what_they_have_queued(bench, local):
    bench.webhooks.use([local(name="a"), local(name="b")])
    before = list(bench.observers)
    bench.publish(b"1")
    bench.webhooks.use([local(name="a"), local(name="b", url="http://127.0.0.1:9001/"), local(name="c")])
    assert bench.observers[:2] == before
    bench.publish(b"2")
    assert bench.queued == {"a": 2, "b": 2, "c": 1}
    bench.reactor.advance(1)
    assert [port for _, port, *_ in bench.reactor.tcpClients] == [9000, 9001, 9000]


def test_who_is_gone_is_told_what_was_queued_and_nothing_else(bench, local):
    bench.webhooks.use([local(name="a")])
    bench.publish(b"1")
    bench.webhooks.use([])
    assert bench.observers == []
    bench.reactor.advance(0)
    assert len(bench.reactor.tcpClients) == 1
    bench.webhooks.hasten(5)
    ended = bench.webhooks.end()
    assert not ended.called
    bench.webhooks.give_up()
    assert ended.called


def test_who_is_gone_with_nothing_queued_is_over(bench, local):
    bench.webhooks.use([local(name="a")])
    bench.webhooks.use([])
    bench.webhooks.hasten(5)
    assert bench.webhooks.end().called


def test_the_end_waits_no_longer_than_it_may(bench, local, logged):
    bench.webhooks.use([local(name="a")])
    bench.publish(b"1")
    bench.webhooks.hasten(5)
    ended = bench.webhooks.end()
    bench.reactor.advance(4.9)
    assert not ended.called
    bench.reactor.advance(0.1)
    assert ended.called
    assert not bench.reactor.getDelayedCalls()
    assert logged[-1]["count"] == 1


def test_the_end_comes_at_once_where_nothing_waits(bench, local):
    bench.webhooks.use([local(name="a")])
    bench.webhooks.hasten(5)
    assert bench.webhooks.end().called
    assert not bench.reactor.getDelayedCalls()


def test_warnings(bench, local):
    import msgspec

    bench.webhooks.use([msgspec.structs.replace(local(name="a"), warning="look out"), local(name="b")])
    assert bench.webhooks.warnings == ["look out"]
