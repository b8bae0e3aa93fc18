"""Random clients with a session, one class for each way to receive events: they act at random, and their sockets can
stall. Each message that they receive is compared with the model of ``tests.fuzz.model``."""

import json
from collections import deque
from datetime import datetime
from typing import Any

from tests.event_streams import FallbackClient, Stream, read_events
from tests.fuzz.model import CHANNELS, Cursor, Model, Position, check_history
from twistedsock.codecs.sse import parse_event_id

SPACES = (0, 1, 50, 700, 3_000)
"""Bytes that a socket accepts before it is full."""


PRESENCE = ("join", "leave")

OPTIONS = ("since", "epoch", "last", "after", "before")
"""Fields of JSON messages that are options of lines with the same values."""


class Client:
    """A client of any kind. A test calls ``act`` and ``read`` in random order."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.random = model.random

    def act(self) -> None:
        """Do one random thing: send a command, stall, read from the socket, or reconnect."""
        raise NotImplementedError

    def read(self) -> None:
        """Parse the bytes that were received since the last call, and compare them with the model."""
        raise NotImplementedError

    def drain(self) -> None:
        """Read from the socket without limit from now on. Reconnect if the server closed the connection."""
        raise NotImplementedError

    def check_waiting(self) -> None:
        """At the end, before any timeout expires: a client that waits for an event has received all others."""

    def check_complete(self) -> None:
        """At the end, after long polls have timed out: each command has a reply, and each event was received."""
        raise NotImplementedError

    def random_channel(self) -> str:
        return self.random.choice(CHANNELS)


class PendingCommand(dict[str, Any]):
    """A command that waits for its reply: the verb, and the fields of the JSON message. ``known`` is the newest offset
    when it was sent."""


class SessionClient(Client):
    """A client of the line protocol over TCP (``line``) or WebSocket (``message``), or of the JSON protocol over
    WebSocket (``json``) or ``/stream`` (``stream``). It either subscribes or reads histories: in the line protocol, the
    same ``MSG`` lines carry both."""

    def __init__(self, model: Model, kind: str, reads_history: bool) -> None:
        super().__init__(model)
        self.kind = kind
        self.reads_history = reads_history
        self.positions: dict[str, Position] = {}
        self.connect()

    @property
    def is_json(self) -> bool:
        return self.kind in ("json", "stream")

    def connect(self) -> None:
        server = self.model.server
        self.client: Any = FallbackClient(server) if self.kind == "stream" else getattr(server, f"{self.kind}_client")()
        self.pending: deque[PendingCommand] = deque()
        self.cursors: dict[str, Cursor] = {}
        self.buffer = self.message = b""
        self.history: list[tuple[int, str]] = []
        self.gaps: list[tuple[int, int]] = []
        self.timed: set[str] = set()
        """The channels with a subscription that has ``time=on``."""

    # Commands.

    def act(self) -> None:
        if self.client.close_reason is not None:
            self.reconnect()
            return
        choice = self.random.random()
        if choice < 0.25:
            self.publish(self.random.choice((1, 1, 2, 6)))
        elif choice < 0.6:
            if self.reads_history:
                self.request_history()
            else:
                self.subscribe(self.random.choice(CHANNELS[:-1]))
        elif choice < 0.65 and self.cursors:
            self.send(PendingCommand(verb="unsubscribe", channel=self.random.choice([*self.cursors])))
        elif choice < 0.8:
            self.client.outlet.room = self.random.choice(SPACES)
        elif choice < 0.95:
            self.client.outlet.drain(self.random.choice((*SPACES, None)))
        else:
            self.reconnect()

    def reconnect(self) -> None:
        """Break the connection, connect again, and subscribe to the same channels from the last position on."""
        self.read()
        self.client.disconnect()
        channels = [*self.cursors]
        self.connect()
        for channel in channels:
            self.subscribe(channel, recovers=True)

    def publish(self, count: int) -> None:
        channel = self.random_channel()
        commands = [PendingCommand(verb="publish", channel=channel, data=self.model.payload()) for _ in range(count)]
        self.send(*commands)

    def subscribe(self, channel: str, recovers: bool = False) -> None:
        command = PendingCommand(verb="subscribe", channel=channel)
        if channel in self.positions and (recovers or self.random.random() < 0.6):
            command["since"], command["epoch"] = self.positions[channel]
        elif self.random.random() < 0.4:
            command["last"] = self.random.choice((0, 1, 3, 9))
        if self.random.random() < 0.2:
            command["echo"] = False
        if not self.is_json and self.random.random() < 0.3:
            command["time"] = True
        self.send(command)

    def request_history(self) -> None:
        channel = self.random_channel()
        command = PendingCommand(verb="history", channel=channel)
        known = self.model.server.broker.channels.get(channel.encode())
        command["known"] = 0 if known is None else known.head
        if self.random.random() < 0.5:
            command["since"] = self.random.choice((0, max(0, command["known"] - 3), command["known"], 2))
        if self.random.random() < 0.3:
            command["last"] = self.random.choice((0, 1, 5, 30))
        for name in ("after", "before"):
            if self.random.random() < 0.2:
                command[name] = self.model.bound(command["known"])
        if not self.is_json and self.random.random() < 0.3:
            command["time"] = True
        self.send(command)

    def send(self, *commands: PendingCommand) -> None:
        self.pending += commands
        if self.is_json:
            for command in commands:
                fields = {name: value for name, value in command.items() if name not in ("verb", "known")}
                self.client.send_messages(json.dumps({"type": command["verb"], "id": 1, **fields}).encode())
            return
        verbs = {"publish": "PUB", "subscribe": "SUB", "unsubscribe": "UNSUB", "history": "HIST"}
        lines = []
        for command in commands:
            words = [verbs[command["verb"]], command["channel"]]
            words += [f"{name}={command[name]}" for name in OPTIONS if name in command]
            words += ["echo=off"] if "echo" in command else []
            words += ["time=on"] if "time" in command else []
            lines.append(" ".join([*words, *([command["data"]] if "data" in command else [])]))
        self.client.send(*lines)

    # Replies and events.

    def read(self) -> None:
        self.buffer += self.client.received_bytes()
        if self.kind == "line":
            *lines, self.buffer = self.buffer.split(b"\n")
            for line in lines:
                self.read_line(line.decode())
        elif self.kind == "stream":
            complete, end, rest = self.buffer.rpartition(b"\n\n")
            if end:
                self.buffer = rest
                for event in read_events((complete + end).decode())[0]:
                    self.read_message(event.message)
        else:
            self.read_frames()

    def read_frames(self) -> None:
        while len(self.buffer) >= 2:
            size, head = self.buffer[1], 2
            if size > 125:
                head = 4 if size == 126 else 10
                size = int.from_bytes(self.buffer[2:head], "big")
            if len(self.buffer) < head + size:
                return
            self.message += self.buffer[head : head + size]
            is_final, self.buffer = self.buffer[0] & 0x80, self.buffer[head + size :]
            if is_final:
                text, self.message = self.message.decode(), b""
                if self.is_json:
                    self.read_message(json.loads(text))
                else:
                    self.read_line(text)

    def read_line(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        in_history = bool(self.pending) and self.pending[0]["verb"] == "history"
        if kind == "MSG":
            channel = rest.split(" ", 1)[0]
            has_time = "time" in self.pending[0] if in_history else channel in self.timed
            channel, offset, *times, _, data = rest.split(" ", 3 + has_time)
            message = {"type": "event", "channel": channel, "offset": int(offset), "data": data}
            if times:
                message["time"] = round(datetime.fromisoformat(times[0]).timestamp() * 1000)
            if in_history:
                self.history.append((message["offset"], data))
                self.model.check_time(message)
            else:
                self.read_message(message)
        elif kind == "LOST":
            channel, first, last = rest.split(" ")
            if in_history:
                # The line is at its place: the events before it precede the gap.
                assert not self.history or int(first) == max(self.history[-1][0], *self.last_gap()) + 1
                self.gaps.append((int(first), int(last)))
            else:
                self.read_message({"type": "lost", "channel": channel, "first": int(first), "last": int(last)})
        elif kind == "RESET":
            channel, *words = rest.split(" ")
            values = dict(word.split("=") for word in words)
            offsets = {name: int(values[name]) for name in ("good", "offset")}
            self.read_message({"type": "reset", "channel": channel, "epoch": values["epoch"], **offsets})
        elif kind == "OK":
            fields = dict(word.split("=") for word in rest.split(" ") if "=" in word)
            message = {"type": "ok", "channel": rest.split(" ")[0]}
            if "offset" in fields:
                message |= {"offset": int(fields["offset"]), "epoch": fields["epoch"]}
            if "recovered" in fields:
                message["recovered"] = fields["recovered"] == "yes"
            if in_history:
                assert int(rest) == len(self.history), "OK has the number of events"
            elif self.pending[0]["verb"] == "publish":
                message["offset"] = int(rest)
            self.read_message(message)
        else:
            self.read_message({"type": {"ERR": "error"}.get(kind, kind.lower()), "code": rest.split(" ")[0]})

    def last_gap(self) -> tuple[int, int]:
        return self.gaps[-1] if self.gaps else (0, 0)

    def read_message(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "event":
            assert all(command.get("data") != message["data"] for command in self.pending), "an own event before its OK"
            self.model.check_time(message)
            self.cursors[message["channel"]].receive_event(message["offset"], message["data"])
            self.positions[message["channel"]] = self.cursors[message["channel"]].position
        elif kind == "lost":
            self.cursors[message["channel"]].receive_gap(message["first"], message["last"])
            self.positions[message["channel"]] = self.cursors[message["channel"]].position
        elif kind == "reset":
            self.cursors[message["channel"]].receive_reset(message["epoch"], message["good"], message["offset"])
            self.positions[message["channel"]] = self.cursors[message["channel"]].position
        elif kind == "ok":
            self.read_ok(self.pending.popleft(), message)
        elif kind == "error":
            command = self.pending.popleft()
            if command["verb"] == "unsubscribe":
                assert message["code"] == "not-subscribed" and command["channel"] not in self.cursors, message
            else:
                assert message["code"] == "unavailable", message
            self.model.failed |= {command["data"]} if "data" in command else set()
            self.history, self.gaps = [], []
        else:
            assert kind in ("welcome", "notice", "bye"), message

    def read_ok(self, command: PendingCommand, reply: dict[str, Any]) -> None:
        channel = command["channel"]
        if command["verb"] == "publish":
            self.model.confirmed.append((command["data"], channel, reply["offset"]))
        elif command["verb"] == "unsubscribe":
            del self.cursors[channel]
            self.timed.discard(channel)
        elif command["verb"] == "subscribe":
            since = (command["since"], command["epoch"]) if "since" in command else None
            before, client = self.cursors.get(channel), self.client.session.client.id
            own = client if "echo" in command else None
            cursor = self.cursors[channel] = Cursor.from_reply(self.model, reply, since, command.get("last"), own)
            if before is not None and before.epoch == cursor.epoch:
                cursor.follow(before, reply["offset"], client)
            self.positions[channel] = cursor.position
            self.timed = self.timed - {channel} | ({channel} if "time" in command else set())
        else:
            self.read_history(command, reply)

    def read_history(self, command: PendingCommand, reply: dict[str, Any]) -> None:
        position = None
        if self.is_json:
            self.history = [(event["offset"], event["data"]) for event in reply["events"]]
            for event in reply["events"]:
                self.model.check_time(event)
            lost = [reply["lost"]] if "lost" in reply else []
            self.gaps = [(gap["first"], gap["last"]) for gap in [*lost, *reply.get("gaps", [])]]
            position = reply["offset"], reply["epoch"]
        check_history(self.model, command["channel"], command, self.history, self.gaps, position)
        self.history, self.gaps = [], []

    def drain(self) -> None:
        self.client.outlet.drain()
        if self.client.close_reason is not None:
            self.reconnect()

    def check_complete(self) -> None:
        assert not self.pending, f"{self.kind}: no reply to {self.pending[0]}"
        assert not self.buffer and not self.message and not self.client.exceptions
        for cursor in self.cursors.values():
            cursor.check_complete()


class StreamClient(Client):
    """A stream of server-sent events for one or several channels. It reconnects with the id of the last event."""

    def __init__(self, model: Model, channels: tuple[str, ...], presence: bool = False) -> None:
        super().__init__(model)
        self.channels = channels
        self.presence = presence
        self.id = ""
        self.last: int | None = self.random.choice((None, 3))
        self.connect()

    def connect(self) -> None:
        self.stream = Stream(self.model.server, self.channels, self.id, self.last, presence=self.presence)
        self.cursors: dict[str, Cursor] = {}
        positions = parse_event_id(self.id, len(self.channels)) if self.id else [None] * len(self.channels)
        assert positions is not None
        self.since = {
            channel: None if position is None else (position.offset, position.epoch.decode())
            for channel, position in zip(self.channels, positions, strict=True)
        }

    def act(self) -> None:
        choice = self.random.random()
        if self.stream.endings or choice < 0.15:
            self.reconnect()
        elif choice < 0.5:
            self.stream.outlet.room = self.random.choice(SPACES)
        else:
            self.stream.outlet.drain(self.random.choice((*SPACES, None)))

    def reconnect(self) -> None:
        """The connection is lost, and only a part of the sent bytes arrives."""
        sent, start = self.stream.outlet.sent, self.stream.read_position
        del sent[start + self.random.randint(0, len(sent) - start) :]
        self.read()
        self.stream.session.connection_lost()
        self.connect()

    def read(self) -> None:
        for event in self.stream.received():
            message = event.message
            if event.kind == "ok":
                channel = message["channel"]
                self.cursors[channel] = Cursor.from_reply(self.model, message, self.since[channel], self.last)
            elif event.kind == "message":
                self.cursors[message["channel"]].receive_event(message["offset"], message["data"])
            elif event.kind == "reset":
                cursor = self.cursors[message["channel"]]
                cursor.receive_reset(message["epoch"], message["good"], message["offset"])
            elif event.kind == "lost":
                self.cursors[message["channel"]].receive_gap(message["first"], message["last"])
                continue  # a report of a gap has no id
            else:
                assert event.kind in ("welcome", "notice", "error") or (self.presence and event.kind in PRESENCE), event
                continue
            self.id = event.id
            self.check_id(message["channel"])

    def check_id(self, channel: str) -> None:
        """The id contains the position of each channel: of the event's own and of all others."""
        positions = parse_event_id(self.id, len(self.channels))
        assert positions is not None
        for name, position in zip(self.channels, positions, strict=True):
            cursor = self.cursors.get(name)
            in_id = None if position is None else (position.offset, position.epoch.decode())
            if cursor is None:
                assert in_id == self.since[name]
            elif cursor.earliest == cursor.next:
                assert in_id == cursor.position, f"{name} is at {cursor.position}, but its id has {in_id}"

    def drain(self) -> None:
        self.stream.outlet.drain()
        if self.stream.endings:
            self.reconnect()

    def check_complete(self) -> None:
        assert not self.stream.faults and set(self.cursors) == {*self.channels}
        for cursor in self.cursors.values():
            cursor.check_complete()
