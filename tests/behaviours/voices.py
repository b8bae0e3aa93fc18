"""Peers as they are in themselves, whatever dialect they speak.

A voice is asked in domain verbs and tells what it hears as the messages of the JSON dialect, without the ids; so one
behaviour can be expected of all. What it hears must also be proper for its dialect: a line holds no control
characters, an answer carries the id of its command.
"""

import json
import re
from collections import deque
from typing import Any

from tests.event_streams import FallbackClient
from twistedsock.testing import FakeClient, FakeServer

Message = dict[str, Any]

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
LOUD = tuple('{["')
"""With these a line's payload begins that may be JSON."""


def settle(server: FakeServer) -> None:
    """Let everything come to rest, however late the backplane is."""
    for _ in range(6):
        if hasattr(server.backplane, "release"):
            server.backplane.release()
        server.turn()


class Voice:
    def __init__(self, server: FakeServer, peer: Any) -> None:
        self.server = server
        self.client = peer
        self.heard: list[Message] = []
        self.received()

    @property
    def id(self) -> str:
        id: str = self.client.id
        return id

    def asks(self, verb: str, **fields: Any) -> Message:
        """Ask, let everything come to rest, and give the answer; what else came is heard later."""
        self.send(verb, **fields)
        settle(self.server)
        self._listen()
        answers = [message for message in self.heard if message["type"] in ("ok", "error", "pong")]
        assert len(answers) == 1, answers
        self.heard.remove(answers[0])
        return answers[0]

    def received(self) -> list[Message]:
        """All that came since the last look, when everything has come to rest."""
        settle(self.server)
        self._listen()
        heard, self.heard = self.heard, []
        return heard

    def send(self, verb: str, **fields: Any) -> None:
        """Say one command."""
        raise NotImplementedError

    def says_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        """Say several commands that come in one read."""
        raise NotImplementedError

    def _listen(self) -> None:
        raise NotImplementedError


class LineVoice(Voice):
    """Speaks lines, on a bare socket or in WebSocket messages."""

    VERBS = {
        "subscribe": "SUB",
        "unsubscribe": "UNSUB",
        "publish": "PUB",
        "history": "HIST",
        "who": "WHO",
        "nick": "NICK",
        "auth": "AUTH",
        "ping": "PING",
        "info": "INFO",
    }

    def __init__(self, server: FakeServer, peer: FakeClient) -> None:
        self._asked: deque[str] = deque()
        self._gathered: list[Message] = []
        self._gaps: list[Message] = []
        super().__init__(server, peer)

    def send(self, verb: str, **fields: Any) -> None:
        self.says_together((verb, fields))

    def says_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        self._asked += [verb for verb, _ in commands]
        self.client.send(*(self._line(verb, **fields) for verb, fields in commands))

    def _line(
        self,
        verb: str,
        channel: str = "",
        data: Any = None,
        name: str = "",
        nick: str = "",
        token: str = "",
        **options: Any,
    ) -> str:
        words = ["EMIT" if name else self.VERBS[verb]]
        words += [word for word in (channel, name, nick, token) if word]
        words += [f"{option}={self._value(option, value)}" for option, value in options.items() if option != "raw"]
        if verb == "publish":
            words.append(options.get("raw") or self._payload(data))
        return " ".join(words)

    def _value(self, option: str, value: Any) -> str:
        return {"presence": "on", "echo": "off"}.get(option, str(value))

    def _payload(self, data: Any) -> str:
        plain = isinstance(data, str) and not data.startswith(LOUD) and not CONTROL.search(data)
        return data if plain else json.dumps(data)

    def _listen(self) -> None:
        for line in self.client.received():
            assert not CONTROL.search(line), ascii(line)
            kind, _, rest = line.partition(" ")
            message = getattr(self, f"_read_{kind.lower()}")(rest)
            if message is not None:
                self.heard.append(message)

    def _read_welcome(self, rest: str) -> Message:
        return {"type": "welcome"}

    def _read_msg(self, rest: str) -> Message | None:
        channel, offset, sender, payload = rest.split(" ", 3)
        return self._event(channel, offset, sender, "message", payload)

    def _read_event(self, rest: str) -> Message | None:
        return self._event(*rest.split(" ", 4))

    def _event(self, channel: str, offset: str, sender: str, name: str, payload: str) -> Message | None:
        data = json.loads(payload) if payload.startswith(LOUD) else payload
        event = {"channel": channel, "offset": int(offset), "from": sender, "name": name, "data": data}
        if self._asked and self._asked[0] == "history":  # then it belongs to the OK that follows
            self._gathered.append({"type": "event", **event})
            return None
        return {"type": "event", **event}

    def _read_member(self, rest: str) -> None:
        _, id, nick = rest.split(" ")
        self._gathered.append({"id": id, "nick": nick})

    def _read_ok(self, rest: str) -> Message:
        verb = self._asked.popleft()
        told = dict(word.split("=", 1) for word in rest.split(" ") if "=" in word)
        answer: Message = {"type": "ok"}
        if verb == "publish":
            answer["offset"] = int(rest)
        elif verb in ("history", "who"):
            gathered, self._gathered = self._gathered, []
            assert rest == str(len(gathered))
            answer["events" if verb == "history" else "members"] = gathered
            gaps, self._gaps = self._gaps, []
            if gaps:
                answer["lost"] = gaps
        elif verb == "subscribe":
            answer |= {"channel": rest.split(" ")[0], "offset": int(told["offset"]), "epoch": told["epoch"]}
            if "recovered" in told:
                answer["recovered"] = told["recovered"] == "yes"
        elif verb == "info":
            answer |= {"peer": {"id": told["id"], "nick": told["nick"]}, "from": told["from"], "to": told["to"]}
            answer |= {"channels": int(told["channels"]), "uptime": int(told["uptime"]), "version": told["version"]}
        elif verb == "auth":
            answer["nick"] = rest.split(" ")[0]
            if "expires" in told:
                answer["expires"] = int(told["expires"])
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

    def _read_bye(self, rest: str) -> None:
        """The connection closes, which other dialects tell otherwise."""

    def _read_notice(self, rest: str) -> Message:
        return {"type": "notice", "text": rest}


class JsonVoice(Voice):
    """Speaks JSON; it gives its commands ids, integers and strings in turn, and finds them again in the answers."""

    def __init__(self, server: FakeServer, peer: FakeClient) -> None:
        self._count = 0
        self._asked: deque[int | str] = deque()
        super().__init__(server, peer)

    def send(self, verb: str, **fields: Any) -> None:
        self.says_together((verb, fields))

    def says_together(self, *commands: tuple[str, dict[str, Any]]) -> None:
        self.client.send_messages(*(self._message(verb, **fields) for verb, fields in commands))

    def _message(self, verb: str, raw: str = "", **fields: Any) -> bytes:
        self._count += 1
        id = self._count if self._count % 2 else f"é{self._count}"
        self._asked.append(id)
        message = json.dumps({"type": verb, "id": id, **fields})
        if raw:
            message = f'{message[:-1]},"data":{raw}}}'
        return message.encode()

    def _listen(self) -> None:
        for message in self.client.received():
            if message["type"] in ("ok", "error", "pong"):
                assert message.pop("id") == self._asked.popleft(), "an answer out of its order"
            if message["type"] == "error":
                assert message.pop("message")
            if "events" in message:
                assert message.pop("epoch") and isinstance(message.pop("offset"), int)
                gaps = [*([message.pop("lost")] if "lost" in message else []), *message.pop("gaps", [])]
                if gaps:  # as the other protocol reports them, in one list
                    message["lost"] = gaps
            if message["type"] == "welcome":
                message = {"type": "welcome"}
            self.heard.append(message)


KINDS = {
    "line": lambda server: LineVoice(server, server.line_client()),
    "line-over-websocket": lambda server: LineVoice(server, server.message_client()),
    "json": lambda server: JsonVoice(server, server.json_client()),
    "events": lambda server: JsonVoice(server, FallbackClient(server)),
}
"""How each kind of peer connects."""
