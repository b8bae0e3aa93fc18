"""Clients with a session, of every protocol, whose sockets can stall: what they do, and what they must have read."""

import json
from collections import deque
from typing import Any

from tests.event_streams import FallbackClient, Stream, read_events
from tests.fuzz.model import CHANNELS, Cursor, Model, Position, check_history
from twistedsock.codecs.sse import parse_event_id

ROOMS = (0, 1, 50, 700, 3_000)
"""Bytes that a socket takes before it is full."""


class Client:
    """``act`` does one thing that such a client does; ``read`` looks at what it was sent."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.random = model.random

    def act(self) -> None:
        raise NotImplementedError

    def read(self) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError

    def check_nothing_is_overlooked(self) -> None:
        """All has come to rest, but no time has passed."""

    def check_complete(self) -> None:
        """Time has passed as well."""
        raise NotImplementedError

    def channel(self) -> str:
        return self.random.choice(CHANNELS)


class Asked(dict[str, Any]):
    """A command whose reply has not come."""


class SessionClient(Client):
    """A client with a session: lines, lines over WebSocket, JSON over WebSocket, JSON in ``/stream``. It either reads
    channels or asks for their history: on a line nobody could tell the two apart."""

    def __init__(self, model: Model, kind: str, asks_history: bool) -> None:
        super().__init__(model)
        self.kind = kind
        self.asks_history = asks_history
        self.positions: dict[str, Position] = {}
        self.connect()

    @property
    def is_json(self) -> bool:
        return self.kind in ("json", "stream")

    def connect(self) -> None:
        server = self.model.server
        self.peer: Any = FallbackClient(server) if self.kind == "stream" else getattr(server, f"{self.kind}_client")()
        self.asked: deque[Asked] = deque()
        self.cursors: dict[str, Cursor] = {}
        self.buffer = self.message = b""
        self.gathered: list[tuple[int, str]] = []
        self.gaps: list[tuple[int, int]] = []

    # What it says.

    def act(self) -> None:
        if self.peer.close_reason is not None:
            self.come_back()
            return
        what = self.random.random()
        if what < 0.25:
            self.publish(self.random.choice((1, 1, 2, 6)))
        elif what < 0.6:
            if self.asks_history:
                self.ask_history()
            else:
                self.subscribe(self.random.choice(CHANNELS[:-1]))
        elif what < 0.65 and self.cursors:
            self.say(Asked(verb="unsubscribe", channel=self.random.choice([*self.cursors])))
        elif what < 0.8:
            self.peer.outlet.room = self.random.choice(ROOMS)
        elif what < 0.95:
            self.peer.outlet.drain(self.random.choice((*ROOMS, None)))
        else:
            self.come_back()

    def come_back(self) -> None:
        """Its connection breaks, and it goes on where it was."""
        self.read()
        self.peer.disconnect()
        wanted = [*self.cursors]
        self.connect()
        for channel in wanted:
            self.subscribe(channel, recovers=True)

    def publish(self, count: int) -> None:
        channel = self.channel()
        asked = [Asked(verb="publish", channel=channel, data=self.model.payload()) for _ in range(count)]
        self.say(*asked)

    def subscribe(self, channel: str, recovers: bool = False) -> None:
        asked = Asked(verb="subscribe", channel=channel)
        if channel in self.positions and (recovers or self.random.random() < 0.6):
            asked["since"], asked["epoch"] = self.positions[channel]
        elif self.random.random() < 0.4:
            asked["last"] = self.random.choice((0, 1, 3, 9))
        self.say(asked)

    def ask_history(self) -> None:
        channel = self.channel()
        asked = Asked(verb="history", channel=channel)
        known = self.model.server.broker.channels.get(channel.encode())
        asked["known"] = 0 if known is None else known.head
        if self.random.random() < 0.5:
            asked["since"] = self.random.choice((0, max(0, asked["known"] - 3), asked["known"], 2))
        if self.random.random() < 0.3:
            asked["last"] = self.random.choice((0, 1, 5, 30))
        self.say(asked)

    def say(self, *asked: Asked) -> None:
        self.asked += asked
        if self.is_json:
            for one in asked:
                fields = {name: value for name, value in one.items() if name not in ("verb", "known")}
                self.peer.send_messages(json.dumps({"type": one["verb"], "id": 1, **fields}).encode())
            return
        verbs = {"publish": "PUB", "subscribe": "SUB", "unsubscribe": "UNSUB", "history": "HIST"}
        lines = []
        for one in asked:
            words = [verbs[one["verb"]], one["channel"]]
            words += [f"{name}={one[name]}" for name in ("since", "epoch", "last") if name in one]
            lines.append(" ".join([*words, *([one["data"]] if "data" in one else [])]))
        self.peer.send(*lines)

    # What it is sent.

    def read(self) -> None:
        self.buffer += self.peer.received_bytes()
        if self.kind == "line":
            *lines, self.buffer = self.buffer.split(b"\n")
            for line in lines:
                self.hear_line(line.decode())
        elif self.kind == "stream":
            whole, end, rest = self.buffer.rpartition(b"\n\n")
            if end:
                self.buffer = rest
                for event in read_events((whole + end).decode())[0]:
                    self.hear(event.message)
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
                    self.hear(json.loads(text))
                else:
                    self.hear_line(text)

    def hear_line(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        in_history = bool(self.asked) and self.asked[0]["verb"] == "history"
        if kind == "MSG":
            channel, offset, _, data = rest.split(" ", 3)
            if in_history:
                self.gathered.append((int(offset), data))
            else:
                self.hear({"type": "event", "channel": channel, "offset": int(offset), "data": data})
        elif kind == "LOST":
            channel, first, last = rest.split(" ")
            if in_history:
                # In its place, as the next line is behind it.
                assert not self.gathered or int(first) == max(self.gathered[-1][0], *self.last_gap()) + 1
                self.gaps.append((int(first), int(last)))
            else:
                self.hear({"type": "lost", "channel": channel, "first": int(first), "last": int(last)})
        elif kind == "OK":
            told = dict(word.split("=") for word in rest.split(" ") if "=" in word)
            message: dict[str, Any] = {"type": "ok", "channel": rest.split(" ")[0]}
            if "offset" in told:
                message |= {"offset": int(told["offset"]), "epoch": told["epoch"]}
            if "recovered" in told:
                message["recovered"] = told["recovered"] == "yes"
            if in_history:
                assert int(rest) == len(self.gathered), "OK counts what was sent"
            elif self.asked[0]["verb"] == "publish":
                message["offset"] = int(rest)
            self.hear(message)
        else:
            self.hear({"type": {"ERR": "error"}.get(kind, kind.lower()), "code": rest.split(" ")[0]})

    def last_gap(self) -> tuple[int, int]:
        return self.gaps[-1] if self.gaps else (0, 0)

    def hear(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "event":
            self.cursors[message["channel"]].event(message["offset"], message["data"])
            self.positions[message["channel"]] = self.cursors[message["channel"]].position
        elif kind == "lost":
            self.cursors[message["channel"]].lost(message["first"], message["last"])
            self.positions[message["channel"]] = self.cursors[message["channel"]].position
        elif kind == "ok":
            self.hear_ok(self.asked.popleft(), message)
        elif kind == "error":
            asked = self.asked.popleft()
            assert message["code"] == ("not-subscribed" if asked["verb"] == "unsubscribe" else "unavailable"), message
            self.gathered, self.gaps = [], []
        else:
            assert kind in ("welcome", "notice", "bye"), message

    def hear_ok(self, asked: Asked, answer: dict[str, Any]) -> None:
        channel = asked["channel"]
        if asked["verb"] == "publish":
            self.model.promised.append((asked["data"], channel, answer["offset"]))
        elif asked["verb"] == "unsubscribe":
            del self.cursors[channel]
        elif asked["verb"] == "subscribe":
            place = (asked["since"], asked["epoch"]) if "since" in asked else None
            before = self.cursors.get(channel)
            cursor = self.cursors[channel] = Cursor.begin(self.model, answer, place, asked.get("last"))
            if before is not None and before.epoch == cursor.epoch:
                # Nothing that it has not been sent yet is left out.
                cursor.next = min(cursor.next, before.next)
                cursor.earliest = min(cursor.earliest, before.earliest)
            self.positions[channel] = cursor.position
        else:
            self.hear_history(asked, answer)

    def hear_history(self, asked: Asked, answer: dict[str, Any]) -> None:
        position = None
        if self.is_json:
            self.gathered = [(event["offset"], event["data"]) for event in answer["events"]]
            lost = [answer["lost"]] if "lost" in answer else []
            self.gaps = [(gap["first"], gap["last"]) for gap in [*lost, *answer.get("gaps", [])]]
            position = answer["offset"], answer["epoch"]
        check_history(self.model, asked["channel"], asked, self.gathered, self.gaps, position)
        self.gathered, self.gaps = [], []

    def drain(self) -> None:
        self.peer.outlet.drain()
        if self.peer.close_reason is not None:
            self.come_back()

    def check_complete(self) -> None:
        assert not self.asked, f"{self.kind}: no answer to {self.asked[0]}"
        assert not self.buffer and not self.message and not self.peer.exceptions
        for cursor in self.cursors.values():
            cursor.check_complete()


class StreamClient(Client):
    """A stream of server-sent events, of one channel or of several, which goes on where it was by its last id."""

    def __init__(self, model: Model, channels: tuple[str, ...]) -> None:
        super().__init__(model)
        self.channels = channels
        self.id = ""
        self.last: int | None = self.random.choice((None, 3))
        self.connect()

    def connect(self) -> None:
        self.stream = Stream(self.model.server, self.channels, self.id, self.last)
        self.cursors: dict[str, Cursor] = {}
        places = parse_event_id(self.id, len(self.channels)) if self.id else [None] * len(self.channels)
        assert places is not None
        self.asked = {
            channel: None if place is None else (place.offset, place.epoch.decode())
            for channel, place in zip(self.channels, places, strict=True)
        }

    def act(self) -> None:
        what = self.random.random()
        if self.stream.endings or what < 0.15:
            self.come_back()
        elif what < 0.5:
            self.stream.outlet.room = self.random.choice(ROOMS)
        else:
            self.stream.outlet.drain(self.random.choice((*ROOMS, None)))

    def come_back(self) -> None:
        self.read()
        self.stream.session.connection_lost()
        self.connect()

    def read(self) -> None:
        for event in self.stream.received():
            message = event.message
            if event.kind == "ok":
                channel = message["channel"]
                self.cursors[channel] = Cursor.begin(self.model, message, self.asked[channel], self.last)
            elif event.kind == "message":
                self.cursors[message["channel"]].event(message["offset"], message["data"])
            elif event.kind == "lost":
                self.cursors[message["channel"]].lost(message["first"], message["last"])
                continue  # it has no id
            else:
                assert event.kind in ("welcome", "notice", "error"), event
                continue
            self.id = event.id
            self.check_id(message["channel"])

    def check_id(self, channel: str) -> None:
        """It says where the stream stands, of the channel of the event and of all others."""
        places = parse_event_id(self.id, len(self.channels))
        assert places is not None
        for name, place in zip(self.channels, places, strict=True):
            cursor = self.cursors.get(name)
            told = None if place is None else (place.offset, place.epoch.decode())
            if cursor is None:
                assert told == self.asked[name]
            elif cursor.earliest == cursor.next:
                assert told == cursor.position, f"{name} is at {cursor.position}, and its id says {told}"

    def drain(self) -> None:
        self.stream.outlet.drain()
        if self.stream.endings:
            self.come_back()

    def check_complete(self) -> None:
        assert not self.stream.faults and set(self.cursors) == {*self.channels}
        for cursor in self.cursors.values():
            cursor.check_complete()
