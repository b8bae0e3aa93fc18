"""Test clients with the same methods for every protocol.

They return the messages that they receive in the form of the JSON protocol, without ids, so that one test can check
all protocols. They also check the form: a line contains no control characters, a reply has the id of its command.
"""

import json
import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.event_streams import FallbackClient
from tests.session.clients import settle
from tests.socketio_clients import PLACEHOLDER, SocketIOClient
from twistedsock.codecs import http_api
from twistedsock.pubsub.future import Future
from twistedsock.session.request import HistoryPage, RequestClient
from twistedsock.testing import FakeClient, FakeServer

Message = dict[str, Any]

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
HERE = b"127.0.0.1:50001"
"""The address of an HTTP client."""

LOUD = tuple('{["')
"""The first characters of a payload that can be JSON in the line protocol."""


def outcome(reply: Message) -> str:
    """The code of an error, otherwise the type of the reply."""
    code: str = reply["code"] if reply["type"] == "error" else reply["type"]
    return code


def http_history(server: FakeServer) -> list[dict[str, Any]]:
    """The history of the channel ``kitchen`` over HTTP."""
    results: list[Any] = []
    answer = RequestClient(server.context, "", HERE).history(b"kitchen")
    if isinstance(answer, Future):
        answer.then(results.append)
        settle(server)
        answer = results[0]
    assert isinstance(answer, HistoryPage)
    events: list[dict[str, Any]] = json.loads(b"".join(http_api.history_response(answer)))["events"]
    return events


class ProtocolClient:
    with_time = False
    """Whether events have their ``time``. It is left out by default, because lines do not contain it by default."""

    def __init__(self, server: FakeServer, peer: Any) -> None:
        self.server = server
        self.client = peer
        self.messages: list[Message] = []
        self.received()

    @property
    def id(self) -> str:
        id: str = self.client.id
        return id

    def request(self, verb: str, **fields: Any) -> Message:
        """Send a command and return its reply. ``received`` returns the other messages later."""
        self.send(verb, **fields)
        settle(self.server)
        self._read()
        answers = [message for message in self.messages if message["type"] in ("ok", "error", "pong")]
        assert len(answers) == 1, answers
        self.messages.remove(answers[0])
        return answers[0]

    def received(self) -> list[Message]:
        """Return the messages since the last call."""
        settle(self.server)
        self._read()
        messages, self.messages = self.messages, []
        return messages

    def send(self, verb: str, **fields: Any) -> None:
        """Send one command."""
        raise NotImplementedError

    def send_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        """Send several commands that the server reads at once."""
        raise NotImplementedError

    def _read(self) -> None:
        raise NotImplementedError


class LineClient(ProtocolClient):
    """Uses the line protocol, over TCP or in WebSocket messages."""

    SHORT = {"subscribe": "SUB", "unsubscribe": "UNSUB", "publish": "PUB", "history": "HIST"}

    def __init__(self, server: FakeServer, peer: FakeClient) -> None:
        self._asked: deque[str] = deque()
        self._collected: list[Message] = []
        self._gaps: list[Message] = []
        super().__init__(server, peer)

    def send(self, verb: str, **fields: Any) -> None:
        self.send_together((verb, fields))

    def send_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        self._asked += [verb for verb, _ in commands]
        self.client.send(*(self._line(verb, **fields) for verb, fields in commands))

    def _line(
        self,
        verb: str,
        channel: str = "",
        data: Any = None,
        base64: str | None = None,
        name: str = "",
        nick: str = "",
        token: str = "",
        prefix: str = "",
        **options: Any,
    ) -> str:
        words = ["EMIT" if name else self.SHORT.get(verb, verb.upper())]
        if base64 is not None:
            words[0] += "BIN"
        words += [word for word in (channel, name, nick, token, prefix) if word]
        words += [f"{option}={self._value(option, value)}" for option, value in options.items() if option != "raw"]
        if self.with_time and verb in ("subscribe", "history"):
            words.append("time=on")
        if verb == "publish":
            words.append(options.get("raw") or self._payload(data) if base64 is None else base64)
        return " ".join(words)

    def _value(self, option: str, value: Any) -> str:
        return {"presence": "on", "echo": "off"}.get(option, str(value))

    def _payload(self, data: Any) -> str:
        plain = isinstance(data, str) and not data.startswith(LOUD) and not CONTROL.search(data)
        return data if plain else json.dumps(data)

    def _read(self) -> None:
        for line in self.client.received():
            assert not CONTROL.search(line), ascii(line)
            kind, _, rest = line.partition(" ")
            message = getattr(self, f"_read_{kind.lower()}")(rest)
            if message is not None:
                self.messages.append(message)

    def _read_welcome(self, rest: str) -> Message:
        return {"type": "welcome"}

    def _read_msg(self, rest: str) -> Message | None:
        channel, offset, *time, sender, payload = rest.split(" ", 3 + self.with_time)
        return self._event(channel, offset, time, sender, "message", payload)

    def _read_event(self, rest: str) -> Message | None:
        channel, offset, *time, sender, name, payload = rest.split(" ", 4 + self.with_time)
        return self._event(channel, offset, time, sender, name, payload)

    def _read_bin(self, rest: str) -> Message | None:
        channel, offset, *time, sender, name, encoded = rest.split(" ")
        assert len(time) == self.with_time
        return self._event(channel, offset, time, sender, name, encoded, "base64")

    def _event(
        self,
        channel: str,
        offset: str,
        time: list[str],
        sender: str,
        name: str,
        payload: str,
        field: str = "data",
    ) -> Message | None:
        data = json.loads(payload) if payload.startswith(LOUD) else payload
        event = {"channel": channel, "offset": int(offset), "from": sender, "name": name, field: data}
        if time:
            event["time"] = round(datetime.fromisoformat(time[0]).timestamp() * 1000)
        if self._asked and self._asked[0] == "history":  # then it belongs to the OK that follows
            self._collected.append({"type": "event", **event})
            return None
        return {"type": "event", **event}

    def _read_member(self, rest: str) -> None:
        _, id, nick = rest.split(" ")
        self._collected.append({"id": id, "nick": nick})

    def _read_channel(self, rest: str) -> None:
        channel, readers, offset = rest.split(" ")
        self._collected.append({"channel": channel, "readers": int(readers), "offset": int(offset)})

    def _read_ok(self, rest: str) -> Message:
        verb = self._asked.popleft()
        fields = dict(word.split("=", 1) for word in rest.split(" ") if "=" in word)
        answer: Message = {"type": "ok"}
        if verb == "publish":
            answer["offset"] = int(rest)
        elif verb in ("history", "who"):
            collected, self._collected = self._collected, []
            assert rest == str(len(collected))
            answer["events" if verb == "history" else "members"] = collected
            gaps, self._gaps = self._gaps, []
            if gaps:
                answer["lost"] = gaps
        elif verb == "list":
            collected, self._collected = self._collected, []
            assert rest.startswith(f"{len(collected)} total=")
            answer |= {"channels": collected, "total": int(fields["total"]), "next": fields.get("next")}
        elif verb == "subscribe":
            answer |= {"channel": rest.split(" ")[0], "offset": int(fields["offset"]), "epoch": fields["epoch"]}
            if "recovered" in fields:
                answer["recovered"] = fields["recovered"] == "yes"
        elif verb == "info":
            answer |= {"peer": {"id": fields["id"], "nick": fields["nick"]}, "from": fields["from"], "to": fields["to"]}
            answer |= {"channels": int(fields["channels"]), "uptime": int(fields["uptime"])}
            answer["version"] = fields["version"]
        elif verb == "auth":
            answer["nick"] = rest.split(" ")[0]
            if "expires" in fields:
                answer["expires"] = int(fields["expires"])
        else:
            answer["nick" if verb == "nick" else "channel"] = rest
        return answer

    def _read_err(self, rest: str) -> Message:
        self._asked.popleft()
        code, _, words = rest.partition(" ")
        assert words
        return {"type": "error", "code": code}

    def _read_pong(self, rest: str) -> Message:
        self._asked.popleft()
        return {"type": "pong"}

    def _read_join(self, rest: str, kind: str = "join") -> Message:
        channel, id, nick = rest.split(" ")
        return {"type": kind, "channel": channel, "peer": {"id": id, "nick": nick}}

    def _read_leave(self, rest: str) -> Message:
        return self._read_join(rest, "leave")

    def _read_lost(self, rest: str) -> Message | None:
        channel, first, last = rest.split(" ")
        gap = {"first": int(first), "last": int(last)}
        if self._asked and self._asked[0] == "history":  # then it belongs to the OK that follows
            self._gaps.append(gap)
            return None
        return {"type": "lost", "channel": channel, **gap}

    def _read_reset(self, rest: str) -> Message:
        channel, *fields = rest.split(" ")
        values = dict(field.split("=") for field in fields)
        good, offset = int(values["good"]), int(values["offset"])
        return {"type": "reset", "channel": channel, "epoch": values["epoch"], "good": good, "offset": offset}

    def _read_bye(self, rest: str) -> None:
        """Other protocols have no such message."""

    def _read_notice(self, rest: str) -> Message:
        return {"type": "notice", "text": rest}


class JsonClient(ProtocolClient):
    """Uses JSON, with ids that are integers and strings in turn, and checks the ids of the replies."""

    def __init__(self, server: FakeServer, peer: FakeClient) -> None:
        self._count = 0
        self._asked: deque[int | str] = deque()
        super().__init__(server, peer)

    def send(self, verb: str, **fields: Any) -> None:
        self.send_together((verb, fields))

    def send_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        self.client.send_messages(*(self._message(verb, **fields) for verb, fields in commands))

    def _message(self, verb: str, raw: str = "", **fields: Any) -> bytes:
        self._count += 1
        id = self._count if self._count % 2 else f"é{self._count}"
        self._asked.append(id)
        message = json.dumps({"type": verb, "id": id, **fields})
        if raw:
            message = f'{message[:-1]},"data":{raw}}}'
        return message.encode()

    def _read(self) -> None:
        for message in self.client.received():
            if message["type"] in ("ok", "error", "pong"):
                assert message.pop("id") == self._asked.popleft(), "reply out of order"
            if message["type"] == "error":
                assert message.pop("message")
            if message["type"] == "event":
                self._read_time(message)
            if "events" in message:
                for event in message["events"]:
                    self._read_time(event)
                assert message.pop("epoch") and isinstance(message.pop("offset"), int)
                gaps = [*([message.pop("lost")] if "lost" in message else []), *message.pop("gaps", [])]
                if gaps:  # as the other protocol reports them, in one list
                    message["lost"] = gaps
            if message["type"] == "welcome":
                message = {"type": "welcome"}
            self.messages.append(message)

    def _read_time(self, event: Message) -> None:
        assert isinstance(event["time"], int)
        if not self.with_time:
            del event["time"]


class SocketIOCommands(ProtocolClient):
    """Uses the commands of Socket.IO's main namespace, and checks the ids of the acks."""

    ARGUMENTS = ("channel", "data", "nick", "token")

    def __init__(self, server: FakeServer, peer: Any) -> None:
        self._count = 0
        self._asked: deque[tuple[int, str]] = deque()
        assert peer.join() == {"sid": peer.id}
        super().__init__(server, peer)

    def send(self, verb: str, **fields: Any) -> None:
        self.send_together((verb, fields))

    def send_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        packets: list[str | bytes] = []
        for verb, fields in commands:
            packets += self._packets(verb, **fields)
        self.client.send(*packets)

    def _packets(self, verb: str, raw: str = "", base64: str | None = None, **fields: Any) -> list[str | bytes]:
        self._count += 1
        self._asked.append((self._count, verb))
        if base64 is not None:
            fields["data"] = PLACEHOLDER
        arguments = [verb, *[fields.pop(name) for name in self.ARGUMENTS if name in fields and name != "data"]]
        texts = [json.dumps(argument) for argument in arguments]
        if raw or "data" in fields:
            texts.append(raw or json.dumps(fields["data"]))
            fields.pop("data", None)
        text = f"[{','.join([*texts, json.dumps(fields)])}]"
        return [f"51-{self._count}{text}", b64decode(base64)] if base64 is not None else [f"2{self._count}{text}"]

    def _read(self) -> None:
        packets = deque(self.client.received())
        while packets:
            packet = packets.popleft()
            if packet.startswith("3"):
                self.messages.append(self._read_ack(packet))
                continue
            name, value, *meta = json.loads(packet.removeprefix("51-").removeprefix("2"))
            if name.startswith("#"):
                self.messages.append({"type": name[1:], **value})
                continue
            data = {"base64": b64encode(packets.popleft()).decode()} if packet.startswith("51-") else {"data": value}
            self.messages.append(self._event({"name": name, **data, **meta[0]}))

    def _event(self, event: Message) -> Message:
        assert isinstance(event["time"], int)
        if not self.with_time:
            del event["time"]
        return {"type": "event", **event}

    def _read_ack(self, packet: str) -> Message:
        id, verb = self._asked.popleft()
        assert packet.startswith(f"3{id}["), "reply out of order"
        (answer,) = json.loads(packet.removeprefix(f"3{id}"))
        if "error" in answer:
            assert answer["error"].pop("message")
            return {"type": "error", **answer["error"]}
        if verb == "publish":
            assert isinstance(answer.pop("time", 0), int)  # it is missing if the event has not arrived
        if verb == "history":
            assert answer.pop("epoch") and isinstance(answer.pop("offset"), int) and answer.pop("channel")
            answer["events"] = [self._event(event) for event in answer["events"]]
            gaps = [*([answer.pop("lost")] if "lost" in answer else []), *answer.pop("gaps", [])]
            if gaps:
                answer["lost"] = gaps
        return {"type": "pong" if verb == "ping" else "ok", **answer}


Connect = Callable[[FakeServer], ProtocolClient]

KINDS: dict[str, Connect] = {
    "line": lambda server: LineClient(server, server.line_client()),
    "line-over-websocket": lambda server: LineClient(server, server.message_client()),
    "json": lambda server: JsonClient(server, server.json_client()),
    "json-lines": lambda server: JsonClient(server, server.json_line_client()),
    "events": lambda server: JsonClient(server, FallbackClient(server)),
    "socketio": lambda server: SocketIOCommands(server, SocketIOClient(server)),
}
"""A function for each kind of client that connects one."""

TEXT_KINDS = {name: connect for name, connect in KINDS.items() if name != "socketio"}
"""Kinds whose messages can contain invalid base64, and whose invalid messages have an answer."""
