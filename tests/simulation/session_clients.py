"""Random clients with commands: lines on a socket, lines over WebSocket, JSON over WebSocket."""

import json
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import NAMES, Client, draw_value, read_json
from tests.simulation.histories import HistoryCheck, draw_bounds, is_time
from tests.simulation.world import Violation
from twistedsock.testing import JsonClient, LineClient, MessageClient

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode
    from tests.simulation.run import Run


class Command(dict[str, Any]):
    """A command that waits for its reply: ``verb``, ``channel`` and its options. It ``is_prompt`` until the
    client has seen that the reply is not there at once."""


class SessionClient(Client):
    """A client with commands. With ``echo`` it asks for its own events, with ``has_times`` for the time of
    each event. A client that ``reads_history`` has no
    subscriptions, because lines of a history look like live events."""

    client_class: Any

    def __init__(self, run: "Run", name: str) -> None:
        self.echo = run.world.chance(0.7)
        self.reads_history = run.world.chance(0.15)
        self.has_times = run.world.chance(0.5)
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
        self.confirmed: dict[str, tuple[str, int]] = {}
        """Epoch and offset of its last publication in each channel: publications keep their order."""
        self.history: list[dict[str, Any]] = []
        self.note(f"connects to {node.name} as {self.client.id}")

    def close_connection(self) -> None:
        self.client.disconnect()

    def connection_broken(self) -> None:
        super().connection_broken()
        self.pending.clear()

    # Commands.

    def act(self) -> None:
        if self.node is None or self.is_closed:
            self.reconnect_and_recover()
            return
        choice = self.random.random()
        if choice < 0.45:
            self.publish(self.random.choice(self.run.channels), self.random.choice((1, 1, 1, 2, 6)))
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

    def publish(self, channel: str, count: int) -> None:
        name, commands = self.random.choice(NAMES), list[Command]()
        for _ in range(count):
            value = draw_value(self.world)
            self.run.record.send(channel, name, value)
            losses = self.node.losses if self.node else 0
            commands.append(Command(verb="publish", channel=channel, name=name, data=value, losses=losses))
        self.send(*commands)

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
        channel, record = self.random.choice(self.run.channels), self.run.record
        bounds = draw_bounds(self.world, record.channels.get(channel))
        assert self.node is not None
        check = HistoryCheck(record, self.node, channel, bounds)
        written = {name: time_text(bound) if is_time(bound) else bound for name, bound in bounds.items()}
        self.send(Command(verb="history", channel=channel, check=check, **written))

    def send(self, *commands: Command) -> None:
        """Send commands in one read of the server."""
        first = commands[0]
        names = ("since", "epoch", "after", "before", "last", "echo")
        options = " ".join(f"{name}={first[name]}" for name in names if name in first)
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

    # Replies and events.

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
        if kind == "reset":
            self.receive(message)
        elif kind in ("event", "lost"):
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
            epoch = self.run.record.check_confirmed(command["data"], channel, reply["offset"])
            following = self.followed.get(channel)
            if following is not None and self.run.record.is_newer(channel, epoch, following.epoch):
                following.fail(f"its event is {reply['offset']} of {epoch}, but the client has {following.epoch}")
            assert self.node is not None
            if str(command["data"]) in self.own and self.node.losses == command["losses"]:
                raise Violation(f"{channel}: {self.name} received its own {reply['offset']} before its OK", channel)
            last_epoch, last_offset = self.confirmed.get(channel, ("", 0))
            if epoch == last_epoch and reply["offset"] <= last_offset:
                raise Violation(f"{channel}: {self.name} reads OK {reply['offset']} after {last_offset}", channel)
            self.confirmed[channel] = epoch, reply["offset"]
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
        event = channel, following.epoch, following.next
        if self.node.has_dropped(*event) and not self.node.keeps(*event):
            following.fail(f"recovered, but the history does not have {following.next}")

    def read_history(self, command: Command, reply: dict[str, Any]) -> None:
        history, self.history = self.history, []
        self.note(f"reads a history of {len(history)}", command["channel"])
        command["check"].check(history)

    def check_end(self) -> None:
        super().check_end()
        if self.pending:
            self.fail(f"no reply to {self.pending[0]}")
        if self.buffer:
            self.fail(f"received half a message: {self.buffer!r}")
        if self.client.exceptions:
            self.fail("an internal error has happened")


NOT_SENT = ("verb", "is_prompt", "check", "losses")
"""Items of a command that are not part of it."""

VERBS = {"subscribe": "SUB", "unsubscribe": "UNSUB", "history": "HIST"}


def _line_value(text: str) -> Any:
    """The payload on a line as a value: text, or JSON if it begins like JSON."""
    return read_json(text) if text[:1] in ("{", "[", '"') else text


def time_text(milliseconds: int) -> str:
    """A time in a command."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _milliseconds(time: str) -> int:
    """The milliseconds since 1970 of a time such as 2026-11-29T05:30:00.123Z."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


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
        names = ("since", "epoch", "after", "before", "last")
        words += [f"{name}={command[name]}" for name in names if name in command]
        words += ["echo=off"] if "echo" in command else []
        words += ["presence=on"] if "presence" in command else []
        words += ["time=on"] if self.has_times and verb != "unsubscribe" else []
        return " ".join(words)

    def split(self) -> Iterator[dict[str, Any]]:
        *lines, self.buffer = self.buffer.split(b"\n")
        for line in lines:
            yield self.parse(line.decode())

    def parse(self, line: str) -> dict[str, Any]:
        try:
            return self.parse_words(line)
        except ValueError as error:
            raise Violation(f"received a malformed line: {line!r}") from error

    def parse_words(self, line: str) -> dict[str, Any]:
        kind, _, rest = line.partition(" ")
        if kind in ("MSG", "EVENT"):
            channel, offset, rest = rest.split(" ", 2)
            time, rest = rest.split(" ", 1) if self.has_times else ("", rest)
            _, rest = rest.split(" ", 1)
            name, data = rest.split(" ", 1) if kind == "EVENT" else ("message", rest)
            return self.event(channel, offset, time, name, data)
        if kind == "LOST":
            channel, first, last = rest.split(" ")
            return {"type": "lost", "channel": channel, "first": int(first), "last": int(last)}
        if kind == "RESET":
            channel, *fields = rest.split(" ")
            reset = dict(field.split("=") for field in fields)
            good, offset = int(reset["good"]), int(reset["offset"])
            return {"type": "reset", "channel": channel, "epoch": reset["epoch"], "good": good, "offset": offset}
        if kind == "OK":
            return self.parse_ok(rest.split(" "))
        if kind == "ERR":
            return {"type": "error", "code": rest.split(" ")[0]}
        return {"type": kind.lower()}

    def event(self, channel: str, offset: str, time: str, name: str, data: str) -> dict[str, Any]:
        return {
            "type": "event",
            "channel": channel,
            "offset": int(offset),
            "time": _milliseconds(time) if time else None,
            "name": name,
            "data": _line_value(data),
        }

    def parse_ok(self, words: list[str]) -> dict[str, Any]:
        fields = dict(word.split("=") for word in words if "=" in word)
        if "offset" in fields:
            reply: dict[str, Any] = {"type": "ok", "offset": int(fields["offset"]), "epoch": fields["epoch"]}
            if "since" in fields:
                reply["since"] = int(fields["since"])
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
        fields = {name: value for name, value in command.items() if name not in NOT_SENT}
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
