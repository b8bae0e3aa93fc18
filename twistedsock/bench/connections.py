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


class Refused(Wrong):
    """A server's answer is not the one that lets us go on: ``answer``."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(f"the server answered {answer[:500]!r}")
        self.answer = answer


def receive_until(connection: socket.socket, end: bytes, begins: bytes = b"") -> bytes:
    """Read until ``end`` has come. Raises Refused when the server closes, or what comes does not begin as it should."""
    data = b""
    while end not in data:
        more = connection.recv(65_536)
        data += more
        if not more or not data.startswith(begins[: len(data)]):
            raise Refused(data)
    if not data.startswith(begins):
        raise Refused(data)
    return data


def perform(connections: Sequence[socket.socket], steps: Sequence[Step], patience: float = PATIENCE) -> None:
    """Take steps on all connections together: say it on all, then await the answer on all."""
    for step in steps:
        ask([(connection, step) for connection in connections], patience)


def ask(asked: Sequence[tuple[socket.socket, Step]], patience: float = PATIENCE) -> None:
    """Say something on each connection, then await all answers. Raises Refused, TimeoutError."""
    for connection, step in asked:
        connection.settimeout(patience)
        if step.say:
            connection.sendall(step.say)
    for connection, step in asked:
        if step.until:
            receive_until(connection, step.until, step.begins)


def connect(
    target: Target,
    count: int,
    stack: ExitStack,
    told: Callable[[int], object] = lambda done: None,
    patience: float = PATIENCE,
) -> list[socket.socket]:
    """So many connections that have been greeted, and that the stack closes; ``told`` hears of progress."""
    connections: list[socket.socket] = []
    steps = target.driver.greet(target.host)
    while len(connections) < count:
        batch = []
        for _ in range(min(BATCH, count - len(connections))):
            connection = stack.enter_context(socket.create_connection(target.address, timeout=patience))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            batch.append(connection)
        perform(batch, steps, patience)
        connections += batch
        told(len(connections))
    return connections
