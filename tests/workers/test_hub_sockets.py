"""The hub and its workers over a real Unix socket, on a reactor in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = '''
import json, socket, sys
from twisted.internet import reactor
from twistedsock.backplanes.hub import Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.workers.hub_sockets import HubConnector, HubFactory
from twistedsock.backplanes.memory_history import MemoryHistoryBackplane
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication

path = sys.argv[1]
story, size = [], 3_000_000


class Node:
    def __init__(self, name):
        self.name = name

    def deliver(self, channel, epoch, batch):
        story.append([self.name, batch.first, batch.payloads.size])

    def reset(self, channel, state):
        story.append([self.name, "reset", state.position.offset])

    def local_members(self, name):
        return []


def start_hub():
    memory = MemoryHistoryBackplane(lambda: b"e", reactor.seconds, reactor.seconds, Limits())
    hub = Hub(memory, b"h", reactor.seconds, reactor.callLater, print)
    hub.start()
    return reactor.listenUNIX(path, HubFactory(hub))


def finish():
    for connector in connectors:
        connector.stop()
    port.stopListening()
    reactor.callLater(0.1, reactor.stop)


def publish(worker, size, then):
    answer = worker.publish(Client(worker.node_name + b"-a"), Publication(b"c", Payloads((b"x" * size,), size)))
    answer.then(lambda outcome: (story.append([worker.node_name.decode(), "answer", outcome]), then()))


workers = [WorkerBackplane(name, lambda call: reactor.callLater(0, call)) for name in (b"1", b"2")]
connectors = [HubConnector(worker, path, reactor) for worker in workers]
for worker, connector in zip(workers, connectors):
    connector.start()
    worker.start(Node(worker.node_name.decode()))
port = None


def begin():
    """The workers have tried without a hub."""
    global port
    port = start_hub()
    wait()


def wait():
    if not all(worker.is_ready for worker in workers):
        reactor.callLater(0.01, wait)
        return
    workers[1].open(b"c").then(lambda state: publish(workers[0], size, lambda: publish(workers[1], 5, finish)))


reactor.callLater(0.1, begin)
reactor.callLater(20, reactor.stop)
reactor.run()
print(json.dumps(story))
'''


@pytest.mark.end_to_end
def test_workers_connect_when_there_is_a_hub_and_exchange_large_events(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "hub")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    story = json.loads(ran.stdout)
    # Both are written in the same turn, to different processes.
    assert sorted(story[:2], key=str) == [["1", "answer", 1], ["2", 1, 3_000_000]]
    assert story[2:] == [["2", 2, 5], ["2", "answer", 2]]
