"""The common part of all random clients: a connection to a node, positions, and checks of each message."""

import json
from typing import TYPE_CHECKING, Any

from tests.simulation.following import Following, Position
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode
    from tests.simulation.run import Run

SPACES = (0, 1, 60, 700, 3_000)
"""Bytes that a stalled socket still accepts."""

SIZES = (0, 0, 0, 10, 200, 1_500)
"""Bytes that a payload has at least."""
NAMES = ("message", "message", "message", "alarm")


def draw_value(world: World) -> Any:
    """A payload: text, text that must be escaped, or JSON. Each has a number of its own."""
    number, kind = world.serial(), world.random.randrange(5)
    filling = "x" * world.random.choice(SIZES)
    if kind == 0:
        return {"n": number, "filling": filling}
    if kind == 1:
        return [number, 2.5, None, "{"]
    if kind == 2:
        return f'{number}:é"\\\n\x01{filling}'
    return f"{number}:{filling}"


def read_json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Violation(f"received malformed JSON: {text!r}") from error


class Client:
    """One client program. It is connected to one node, and keeps its positions when it connects to another."""

    def __init__(self, run: "Run", name: str) -> None:
        self.run = run
        self.world = run.world
        self.random = run.world.random
        self.name = name
        self.node: SimulatedNode | None = None
        self.positions: dict[str, Position] = {}
        self.followed: dict[str, Following] = {}
        self.received = 0
        """Events that it has received."""
        self.connect()

    # Connections.

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed the connection."""
        raise NotImplementedError

    @property
    def outlet(self) -> Any:
        raise NotImplementedError

    def connect(self) -> None:
        """Connect to a node that runs."""
        self.followed = {}
        self.node = self.random.choice(self.run.nodes)
        self.node.clients[self] = None
        self.open_connection(self.node)

    def open_connection(self, node: "SimulatedNode") -> None:
        raise NotImplementedError

    def close_connection(self) -> None:
        raise NotImplementedError

    def disconnect(self) -> None:
        """Break the connection."""
        if self.node is not None:
            self.read()
            self.note("disconnects")
            del self.node.clients[self]
            self.node = None
            self.close_connection()

    def connection_broken(self) -> None:
        """The node has stopped. Its last output may still arrive."""
        if self.random.random() < 0.5:
            self.read()
        self.node = None
        self.note("is disconnected, because the node has stopped")

    def reconnect(self) -> None:
        self.disconnect()
        self.connect()

    def stall(self) -> None:
        self.outlet.room = self.random.choice(SPACES)
        self.note(f"reads {self.outlet.room} more bytes and stalls")

    def drain(self) -> None:
        room = self.random.choice((*SPACES, None, None))
        self.note("reads again" if room is None else f"reads {room} more bytes")
        self.outlet.drain(room)
        self.read()

    def finish(self) -> None:
        """At the end: read all from now on, and connect again if the connection is closed."""
        if self.node is None or self.is_closed:
            self.reconnect()
        else:
            self.outlet.drain()
            self.read()

    def act(self) -> None:
        """Do one random thing."""
        raise NotImplementedError

    def take_received(self) -> bytes:
        """The bytes that have arrived since the last call."""
        sent = self.outlet.sent
        data = bytes(sent)
        sent.clear()
        return data

    def read(self) -> None:
        """Read and check what has arrived."""
        raise NotImplementedError

    # Events.

    def receive(self, message: dict[str, Any]) -> None:
        """Check a message about a channel, which the client follows."""
        kind, channel = message["type"], message["channel"]
        following = self.followed.get(channel)
        if following is None:
            raise Violation(f"{channel}: {self.name} received {message}, but has no subscription", channel)
        if kind == "event":
            following.receive_event(message["offset"], message["name"], message["data"], message["time"])
            self.received += 1
            self.note(f"receives {message['offset']}", channel)
        elif kind == "reset":
            following.receive_reset(message["epoch"], message["good"], message["offset"])
            self.note(f"is reset to {message['epoch']} after {message['offset']}, good: {message['good']}", channel)
        else:
            following.receive_lost(message["first"], message["last"])
            self.note(f"loses {message['first']} to {message['last']}", channel)
        self.positions[channel] = following.position

    def follow(self, channel: str, reply: dict[str, Any], since: Position | None, last: int, client_id: str) -> None:
        assert self.node is not None
        following = Following(self.run.record, client_id, channel, reply, since, last, self.node)
        if reply.get("since") != following.since:
            following.fail(f"continues at {reply.get('since')} instead of {following.since} after {since}")
        if channel in self.followed:
            following.replace(self.followed[channel])
        self.followed[channel] = following
        self.positions[channel] = following.position

    def check_end(self) -> None:
        """At the end, when all is quiet."""
        for following in self.followed.values():
            following.check_caught_up()

    def note(self, action: str, channel: str = "") -> None:
        self.world.note(self.name, action, channel)

    def fail(self, message: str) -> None:
        raise Violation(f"{self.name}: {message}")
