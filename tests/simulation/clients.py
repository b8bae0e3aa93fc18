"""Random clients. They send real commands, read the real bytes of the server, and check each message."""

import json
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.event_streams import Stream
from tests.simulation.following import Following, Position
from tests.simulation.world import Violation
from twistedsock.testing import JsonClient, LineClient, MessageClient

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode
    from tests.simulation.run import Run

SPACES = (0, 1, 60, 700, 3_000)
"""Bytes that a stalled socket still accepts."""
SIZES = (0, 0, 0, 10, 200, 1_500)
"""Bytes that a payload has at least."""
NAMES = ("message", "message", "message", "alarm")


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
        """The node has stopped. What it has written before may still arrive."""
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
        else:
            following.receive_lost(message["first"], message["last"])
            self.note(f"loses {message['first']} to {message['last']}", channel)
        self.positions[channel] = following.position

    def follow(self, channel: str, reply: dict[str, Any], since: Position | None, last: int, client_id: str) -> None:
        assert self.node is not None
        is_lost = partial(self.run.is_lost, self.node)
        following = Following(self.run.record, client_id, channel, reply, since, last, is_lost)
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


class Command(dict[str, Any]):
    """A command that waits for its reply: ``verb``, ``channel`` and its options. It ``is_prompt`` until the
    client has seen that the reply is not there at once."""


class SessionClient(Client):
    """A client with commands. With ``echo`` it asks for its own events. A client that ``reads_history`` has no
    subscriptions, because lines of a history look like live events."""

    client_class: Any

    def __init__(self, run: "Run", name: str) -> None:
        self.echo = run.world.chance(0.7)
        self.reads_history = run.world.chance(0.15)
        super().__init__(run, name)

    @property
    def is_closed(self) -> bool:
        return self.client.close_reason is not None

    @property
    def outlet(self) -> Any:
        return self.client.outlet

    def open_connection(self, node: "SimulatedNode") -> None:
        self.client = self.client_class(node)
        self.pending: deque[Command] = deque()
        self.buffer = b""
        self.own: set[str] = set()
        self.history: list[dict[str, Any]] = []
        self.note(f"connects to {node.name} as {self.client.id}")

    def close_connection(self) -> None:
        self.client.disconnect()

    def connection_broken(self) -> None:
        super().connection_broken()
        self.pending.clear()

    # What it does.

    def act(self) -> None:
        if self.node is None or self.is_closed:
            self.reconnect_and_recover()
            return
        choice = self.random.random()
        if choice < 0.45:
            self.publish(self.random.choice((1, 1, 1, 2, 6)))
        elif choice < 0.7:
            if self.reads_history:
                self.request_history()
            else:
                self.subscribe(self.random.choice(self.run.channels), self.random.random() < 0.5)
        elif choice < 0.73 and self.followed:
            self.send(Command(verb="unsubscribe", channel=self.random.choice(list(self.followed))))
        elif choice < 0.83:
            self.stall()
        elif choice < 0.95:
            self.drain()
        else:
            self.reconnect_and_recover()
        if self.node is not None:
            self.read()

    def reconnect_and_recover(self) -> None:
        channels = list(self.followed)
        self.reconnect()
        for channel in channels:
            self.subscribe(channel, True)

    def finish(self) -> None:
        if self.node is None or self.is_closed:
            self.outlet.drain()
            self.reconnect_and_recover()
        super().finish()

    def publish(self, count: int) -> None:
        channel, name = self.random.choice(self.run.channels), self.random.choice(NAMES)
        commands = []
        for _ in range(count):
            value = self.draw_value()
            self.run.record.send(channel, name, value)
            commands.append(Command(verb="publish", channel=channel, name=name, data=value))
        self.send(*commands)

    def draw_value(self) -> Any:
        number = self.world.serial()
        kind, filling = self.random.randrange(5), "x" * self.random.choice(SIZES)
        if kind == 0:
            return {"n": number, "filling": filling}
        if kind == 1:
            return [number, 2.5, None, "{"]
        if kind == 2:
            return f'{number}:é"\\\n\x01{filling}'
        return f"{number}:{filling}"

    def subscribe(self, channel: str, recovers: bool) -> None:
        command = Command(verb="subscribe", channel=channel)
        if recovers and channel in self.positions:
            command["since"], command["epoch"] = self.positions[channel]
        elif self.random.random() < 0.4:
            command["last"] = self.random.choice((0, 1, 3, 9))
        if not self.echo:
            command["echo"] = False
        command["is_prompt"] = not self.pending
        if self.random.random() < 0.2:
            command["presence"] = True
        self.send(command)

    def request_history(self) -> None:
        command = Command(verb="history", channel=self.random.choice(self.run.channels))
        head = self.run.head(command["channel"])
        if self.random.random() < 0.5:
            command["since"] = max(0, head - self.random.choice((0, 1, 5, 30)))
        if self.random.random() < 0.3:
            command["last"] = self.random.choice((0, 1, 5, 30))
        self.send(command)

    def send(self, *commands: Command) -> None:
        """Send commands in one read of the server."""
        first = commands[0]
        options = " ".join(f"{name}={first[name]}" for name in ("since", "epoch", "last", "echo") if name in first)
        count = f"{len(commands)} events" if first["verb"] == "publish" else options
        self.note(f"{first['verb']} {count}", first["channel"])
        self.pending += commands
        self.client.send(*map(self.encode, commands))
        self.read()
        for command in self.pending:
            command["is_prompt"] = False

    def encode(self, command: Command) -> Any:
        """The command as the protocol writes it."""
        raise NotImplementedError

    # What it receives.

    def read(self) -> None:
        if self.outlet.sent:
            self.buffer += self.take_received()
            for message in self.split():
                self.read_message(message)

    def split(self) -> Iterator[dict[str, Any]]:
        """The complete messages in the buffer."""
        raise NotImplementedError

    def read_message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in ("event", "lost"):
            if self.pending and self.pending[0]["verb"] == "history":
                self.history.append(message)
            else:
                self.receive(message)
                if kind == "event":
                    self.own.add(str(message["data"]))
        elif kind == "ok":
            self.read_ok(self.next_command(message), message)
        elif kind == "error":
            self.read_error(self.next_command(message), message["code"])
        elif kind not in ("welcome", "notice", "bye", "join", "leave"):
            self.fail(f"received {message}")

    def next_command(self, reply: dict[str, Any]) -> Command:
        if not self.pending:
            self.fail(f"received {reply} without a command")
        return self.pending.popleft()

    def read_error(self, command: Command, code: str) -> None:
        self.note(f"{command['verb']} fails: {code}", command["channel"])
        self.history = []
        if code != "unavailable" or not (self.run.had_faults or self.world.has_faults):
            expected = command["verb"] == "unsubscribe" and code == "not-subscribed"
            if not expected:
                self.fail(f"{command['verb']} on {command['channel']} failed: {code}")

    def read_ok(self, command: Command, reply: dict[str, Any]) -> None:
        verb, channel = command["verb"], command["channel"]
        if verb == "publish":
            self.run.record.check_confirmed(command["data"], channel, reply["offset"])
            if str(command["data"]) in self.own:
                raise Violation(f"{channel}: {self.name} received its own {reply['offset']} before its OK", channel)
            self.note(f"reads OK {reply['offset']}", channel)
        elif verb == "subscribe":
            since = (command["since"], command["epoch"]) if "since" in command else None
            recovered = f", recovered: {reply['recovered']}" if "recovered" in reply else ""
            self.note(f"is subscribed at {reply['offset']} of {reply['epoch']}{recovered}", channel)
            self.follow(channel, reply, since, command.get("last", 0), "" if self.echo else self.client.id)
            if since is not None and reply["recovered"] and command["is_prompt"]:
                self.check_recovered(channel)
        elif verb == "unsubscribe":
            del self.followed[channel]
        else:
            self.read_history(command, reply)

    def check_recovered(self, channel: str) -> None:
        """The reply has just been written, so the history must have all events that it promises."""
        following = self.followed[channel]
        assert self.node is not None
        if self.run.is_lost(self.node, channel, following.epoch, following.next):
            following.fail(f"recovered, but the history does not have {following.next}")

    def read_history(self, command: Command, reply: dict[str, Any]) -> None:
        history, self.history = self.history, []
        self.note(f"reads a history of {len(history)}", command["channel"])
        assert self.node is not None
        self.run.check_history(self.node, command["channel"], command.get("since"), command.get("last"), history)

    def check_end(self) -> None:
        super().check_end()
        if self.pending:
            self.fail(f"no reply to {self.pending[0]}")
        if self.buffer:
            self.fail(f"received half a message: {self.buffer!r}")
        if self.client.exceptions:
            self.fail("an internal error has happened")


VERBS = {"subscribe": "SUB", "unsubscribe": "UNSUB", "history": "HIST"}


def _line_value(text: str) -> Any:
    """The payload on a line as a value: text, or JSON if it begins like JSON."""
    return read_json(text) if text[:1] in ("{", "[", '"') else text


class LineSessionClient(SessionClient):
    """Uses lines on a socket."""

    client_class = LineClient

    def encode(self, command: Command) -> str:
        verb, channel = command["verb"], command["channel"]
        if verb == "publish":
            value = command["data"]
            is_text = isinstance(value, str) and value.isprintable() and value[:1] not in '{["'
            payload = value if is_text else json.dumps(value)
            name = command["name"]
            return f"PUB {channel} {payload}" if name == "message" else f"EMIT {channel} {name} {payload}"
        words = [VERBS[verb], channel]
        words += [f"{name}={command[name]}" for name in ("since", "epoch", "last") if name in command]
        words += ["echo=off"] if "echo" in command else []
        words += ["presence=on"] if "presence" in command else []
        return " ".join(words)

    def split(self) -> Iterator[dict[str, Any]]:
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            yield self.parse(line.decode())

    def parse(self, line: str) -> dict[str, Any]:
        kind, _, rest = line.partition(" ")
        if kind == "MSG":
            channel, offset, _, data = rest.split(" ", 3)
            return self.event(channel, offset, "message", data)
        if kind == "EVENT":
            channel, offset, _, name, data = rest.split(" ", 4)
            return self.event(channel, offset, name, data)
        if kind == "LOST":
            channel, first, last = rest.split(" ")
            return {"type": "lost", "channel": channel, "first": int(first), "last": int(last)}
        if kind == "OK":
            return self.parse_ok(rest.split(" "))
        if kind == "ERR":
            return {"type": "error", "code": rest.split(" ")[0]}
        return {"type": kind.lower()}

    def event(self, channel: str, offset: str, name: str, data: str) -> dict[str, Any]:
        value = _line_value(data)
        return {"type": "event", "channel": channel, "offset": int(offset), "time": None, "name": name, "data": value}

    def parse_ok(self, words: list[str]) -> dict[str, Any]:
        fields = dict(word.split("=") for word in words if "=" in word)
        if "offset" in fields:
            reply: dict[str, Any] = {"type": "ok", "offset": int(fields["offset"]), "epoch": fields["epoch"]}
            if "recovered" in fields:
                reply["recovered"] = fields["recovered"] == "yes"
            return reply
        return {"type": "ok", "offset": int(words[0]) if words[0].isdigit() else None}


def split_frames(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The complete text messages in unmasked WebSocket frames, and the rest of the buffer (RFC 6455 section 5.2)."""
    messages: list[bytes] = []
    message, position, complete = b"", 0, 0
    while position + 2 <= len(buffer):
        size, head = buffer[position + 1], position + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, head = int.from_bytes(buffer[head : head + width], "big"), head + width
        if head + size > len(buffer):
            break
        message += buffer[head : head + size]
        is_final, position = buffer[position] & 0x80, head + size
        if is_final:
            messages.append(message)
            message, complete = b"", position
    return messages, buffer[complete:]


class MessageSessionClient(LineSessionClient):
    """Uses lines over WebSocket."""

    client_class = MessageClient

    def split(self) -> Iterator[dict[str, Any]]:
        messages, self.buffer = split_frames(self.buffer)
        for message in messages:
            yield self.parse(message.decode())


class JsonSessionClient(SessionClient):
    """Uses JSON over WebSocket."""

    client_class = JsonClient

    def encode(self, command: Command) -> dict[str, Any]:
        fields = {name: value for name, value in command.items() if name not in ("verb", "is_prompt")}
        return {"type": command["verb"], "id": 1, **fields}

    def split(self) -> Iterator[dict[str, Any]]:
        messages, self.buffer = split_frames(self.buffer)
        for message in messages:
            yield read_json(message)

    def read_history(self, command: Command, reply: dict[str, Any]) -> None:
        gaps = [reply["lost"]] if "lost" in reply else []
        gaps += reply.get("gaps", [])
        lost = [{"type": "lost", "channel": command["channel"], **gap} for gap in gaps]
        self.history = sorted([*reply["events"], *lost], key=lambda item: item.get("offset", item.get("first")))
        super().read_history(command, reply)


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
        elif kind in ("event", "lost"):
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


KINDS: tuple[type[Client], ...] = (
    LineSessionClient,
    LineSessionClient,
    MessageSessionClient,
    JsonSessionClient,
    JsonSessionClient,
    StreamClient,
    StreamClient,
)
