"""The messages of the load, in the line protocol and in the JSON protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

FILLER = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_" * 1024

SIZES = (0, 5, 12, 40, 90, 20, 7, 300, 33, 1_000, 60, 120, 2, 4_000, 50, 150)
"""Bytes of filler, in turn."""

BIG_EVERY, BIG = 500, 60_000
"""One in this many events is that large."""


@dataclass(frozen=True)
class Content:
    """A payload that contains its own number; every third is JSON."""

    text: bytes
    is_json: bool

    @property
    def in_json(self) -> bytes:
        """The payload as written in a JSON message."""
        return self.text if self.is_json else b'"' + self.text + b'"'


def content(number: int, size: int | None = None) -> Content:
    """The payload published under that number: always the same, so that a reader can check it."""
    if size is None:
        size = BIG if number % BIG_EVERY == 0 else SIZES[number % len(SIZES)]
    if number % 3 == 0:
        return Content(b'{"number": %d, "filler": "%b"}' % (number, FILLER[:size]), True)
    return Content(b"number %d %b" % (number, FILLER[:size]), False)


class Heard(msgspec.Struct, rename={"kind": "type"}):
    """A message from the server. For an event ``data`` is its payload: as text of a line, or as JSON."""

    kind: str
    channel: str = ""
    id: int = 0
    offset: int = 0
    first: int = 0
    last: int = 0
    data: msgspec.Raw = msgspec.Raw()
    epoch: str = ""
    recovered: bool | None = None
    code: str = ""
    peer: dict[str, str] = {}
    events: list[msgspec.Raw] = []

    @property
    def is_reply(self) -> bool:
        return self.kind in ("ok", "error", "pong")


class Dialect(Protocol):
    """Encodes commands and decodes messages."""

    def subscribe(self, id: int, channel: bytes, options: Mapping[str, Any] = {}) -> bytes: ...
    def publish(self, id: int, channel: bytes, content: Content) -> bytes: ...
    def command(self, id: int, name: str, channel: bytes = b"", nick: str = "") -> bytes: ...
    def shown(self, content: Content) -> bytes: ...
    def read(self, message: bytes) -> Heard: ...


class Lines:
    """The line protocol. It has no ids: replies arrive in order."""

    def subscribe(self, id: int, channel: bytes, options: Mapping[str, Any] = {}) -> bytes:
        words = [f"{name}={'on' if value is True else value}" for name, value in options.items()]
        return b" ".join([b"SUB", channel, *(word.encode() for word in words)])

    def publish(self, id: int, channel: bytes, content: Content) -> bytes:
        return b"PUB %b %b" % (channel, content.text)

    def command(self, id: int, name: str, channel: bytes = b"", nick: str = "") -> bytes:
        verb = {"unsubscribe": "UNSUB", "history": "HIST"}.get(name, name.upper())
        return b" ".join([word for word in (verb.encode(), channel, nick.encode()) if word])

    def shown(self, content: Content) -> bytes:
        return content.text

    def read(self, message: bytes) -> Heard:
        kind, _, rest = message.partition(b" ")
        if kind == b"MSG" or kind == b"EVENT":
            channel, offset, _, payload = rest.split(b" ", 3)
            return Heard("event", channel.decode(), offset=int(offset), data=msgspec.Raw(payload))
        if kind == b"LOST":
            channel, start, end = rest.split(b" ")
            return Heard("lost", channel.decode(), first=int(start), last=int(end))
        if kind in (b"JOIN", b"LEAVE"):
            where, id, nick = rest.decode().split(" ")
            return Heard(kind.lower().decode(), where, peer={"id": id, "nick": nick})
        if kind == b"OK":
            told = dict(word.split("=", 1) for word in rest.decode().split(" ") if "=" in word)
            head = told.get("offset", rest.decode() if rest.isdigit() else "0")
            recovered = {"yes": True, "no": False}.get(told.get("recovered", ""))
            return Heard("ok", offset=int(head), epoch=told.get("epoch", ""), recovered=recovered)
        if kind == b"ERR":
            return Heard("error", code=rest.partition(b" ")[0].decode())
        return Heard(kind.lower().decode())


class Json:
    """The JSON protocol."""

    def subscribe(self, id: int, channel: bytes, options: Mapping[str, Any] = {}) -> bytes:
        return msgspec.json.encode({"type": "subscribe", "id": id, "channel": channel.decode(), **options})

    def publish(self, id: int, channel: bytes, content: Content) -> bytes:
        return b'{"type":"publish","id":%d,"channel":"%b","data":%b}' % (id, channel, content.in_json)

    def command(self, id: int, name: str, channel: bytes = b"", nick: str = "") -> bytes:
        said: dict[str, Any] = {"type": name, "id": id}
        if channel:
            said["channel"] = channel.decode()
        if nick:
            said["nick"] = nick
        return msgspec.json.encode(said)

    def shown(self, content: Content) -> bytes:
        return content.in_json

    def read(self, message: bytes) -> Heard:
        return _decode(message)


_decode = msgspec.json.Decoder(Heard, strict=False).decode

LINES, JSON = Lines(), Json()
