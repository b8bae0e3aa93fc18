"""Random clients that read a stream of server-sent events."""

from typing import TYPE_CHECKING, Any

from tests.event_streams import Stream
from tests.simulation.clients import Client, read_json
from tests.simulation.following import Position
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode
    from tests.simulation.run import Run


class StreamClient(Client):
    """A stream of server-sent events of one or two channels, which resumes with the id of its last event."""

    def __init__(self, run: "Run", name: str) -> None:
        self.channels = run.world.random.sample(
            run.channels, min(len(run.channels), run.world.random.choice((1, 2, 2)))
        )
        self.last_id = ""
        super().__init__(run, name)

    @property
    def is_closed(self) -> bool:
        return bool(self.stream.endings)

    @property
    def outlet(self) -> Any:
        return self.stream.outlet

    def open_connection(self, node: "SimulatedNode") -> None:
        self.buffer = b""
        self.last = self.random.choice((None, None, 3))
        self.since = self.parse_id(self.last_id)
        self.note(f"connects to {node.name} with the id {self.last_id or '-'}")
        self.stream = Stream(node, self.channels, self.last_id, self.last)

    def close_connection(self) -> None:
        self.stream.session.connection_lost()

    def parse_id(self, id: str) -> dict[str, Position | None]:
        parts = id.split(",") if id else [""] * len(self.channels)
        positions: list[Position | None] = []
        for part in parts:
            epoch, _, offset = part.partition(":")
            positions.append((int(offset), epoch) if part else None)
        return dict(zip(self.channels, positions, strict=True))

    def act(self) -> None:
        choice = self.random.random()
        if self.node is None or self.is_closed or choice < 0.15:
            self.reconnect()
        elif choice < 0.5:
            self.stall()
        else:
            self.drain()

    def read(self) -> None:
        if not self.outlet.sent:
            return
        complete, end, rest = (self.buffer + self.take_received()).rpartition(b"\n\n")
        self.buffer = rest
        if end:
            for block in complete.split(b"\n\n"):
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
                if b"data" in fields:
                    self.read_event(read_json(fields[b"data"]), fields.get(b"id", b"").decode())

    def read_event(self, message: dict[str, Any], id: str) -> None:
        kind, channel = message["type"], message.get("channel", "")
        if kind == "ok":
            self.note(f"is subscribed at {message['offset']} of {message['epoch']}", channel)
            self.follow(channel, message, self.since[channel], self.last or 0, "")
        elif kind in ("event", "lost", "reset"):
            self.receive(message)
        elif kind == "error":
            if message["code"] != "unavailable":
                self.fail(f"received {message}")
        elif kind not in ("welcome", "notice", "bye"):
            self.fail(f"received {message}")
        if id:
            self.last_id = id
            self.check_id(channel)

    def check_id(self, channel: str) -> None:
        """The id has the position of each channel."""
        for name, position in self.parse_id(self.last_id).items():
            following = self.followed.get(name)
            if following is None:
                if position != self.since[name]:
                    self.fail(f"the id {self.last_id} has another position of {name} than {self.since[name]}")
            elif following.earliest == following.next and position != following.position:
                raise Violation(f"{name}: the id {self.last_id} is not at {following.position}", name)

    def check_end(self) -> None:
        super().check_end()
        if {*self.followed} != {*self.channels}:
            self.fail("not all channels of the stream are open")
        if self.stream.faults:
            self.fail("an internal error has happened")
