"""Opening connections: many together, each until the server has said that it may be used."""

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from twistedsock.bench.driver import Step, Target
from twistedsock.bench.streams import Wrong

BATCH = 50
"""Connections that are opened together: as a server's backlog of connections sees it, a small crowd."""

PATIENCE = 30.0
"""Seconds without an answer after which a connection is given up."""


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until ``end`` has come."""
    data = b""
    while end not in data:
        more = connection.recv(65_536)
        if not more:
            raise Wrong(f"the server closed; it had said {data[-500:]!r}")
        data += more
    return data


class Refused(Wrong):
    """A server's answer is not the one that lets us go on: ``answer``."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(f"the server answered {answer[:500]!r}")
        self.answer = answer


def perform(connections: Sequence[socket.socket], steps: Sequence[Step]) -> None:
    """Take steps on all connections together: say it on all, then await the answer on all."""
    for step in steps:
        ask([(connection, step) for connection in connections])


def ask(asked: Sequence[tuple[socket.socket, Step]]) -> None:
    """Say something on each connection, then await all answers. Raises Refused."""
    for connection, step in asked:
        connection.settimeout(PATIENCE)
        if step.say:
            connection.sendall(step.say)
    for connection, step in asked:
        if step.until:
            answer = receive_until(connection, step.until)
            if not answer.startswith(step.begins):
                raise Refused(answer)


def connect(
    target: Target, count: int, stack: ExitStack, told: Callable[[int], object] = lambda done: None
) -> list[socket.socket]:
    """So many connections that have been greeted, and that the stack closes; ``told`` hears of progress."""
    connections: list[socket.socket] = []
    steps = target.driver.greet(target.host)
    while len(connections) < count:
        batch = []
        for _ in range(min(BATCH, count - len(connections))):
            connection = stack.enter_context(socket.create_connection(target.address, timeout=PATIENCE))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            batch.append(connection)
        perform(batch, steps)
        connections += batch
        told(len(connections))
    return connections
