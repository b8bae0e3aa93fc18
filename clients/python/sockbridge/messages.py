"""Messages of the JSON protocol: to bytes, and to what they mean (docs/reference/json-protocol.md)."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from sockbridge.errors import SockbridgeError
from sockbridge.values import Event, History, Lost, Position, Welcome, parse_time


def encode(message: dict[str, Any]) -> bytes:
    """A message as JSON. Raises TypeError or ValueError for what JSON cannot represent."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def decode(message: bytes) -> dict[str, Any]:
    """A message of the server. Raises SockbridgeError."""
    try:
        content = _parse(message)
    except (ValueError, RecursionError) as error:
        raise SockbridgeError("bad-answer", f"a message of the server is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SockbridgeError("bad-answer", "a message of the server is not a JSON object")
    return content


def _parse(message: bytes) -> Any:
    try:
        return json.loads(message)
    except ValueError:
        # Python limits integers to some thousand digits. Without this, the client would reconnect for the event again
        # and again.
        return json.loads(message, parse_int=_parse_integer)


def _parse_integer(digits: str) -> int | float:
    """An integer that Python accepts, or else infinity, as for other numbers that are too large."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def read_welcome(message: bytes) -> Welcome | None:
    """The first message of a server: a line, or JSON over WebSocket. None if it is that of another protocol. An error
    takes its place if there are too many connections: raises it."""
    if message.startswith(b"{"):
        content = decode(message)
        if content.get("type") == "error":
            raise SockbridgeError(content["code"], content["message"])
        fields, version = content, content.get("protocol")
    else:
        word, _, rest = message.decode(errors="replace").partition(" ")
        if word == "ERR":
            code, _, text = rest.partition(" ")
            raise SockbridgeError(code, text)
        name, _, options = rest.partition(" ")
        version = 1 if (word, name) == ("WELCOME", "sockbridge/1") else None
        fields = dict(option.partition("=")[::2] for option in options.split(" "))
    if version != 1 or not {"id", "from", "to"} <= fields.keys():
        return None
    return Welcome(fields["id"], fields["from"], fields["to"])


def publication(channel: str, data: Any, name: str | None, key: str | None = None) -> dict[str, Any]:
    """The message that publishes an event: bytes are written as base64 (RFC 4648 section 4)."""
    message: dict[str, Any] = {"type": "publish", "channel": channel}
    if isinstance(data, bytes | bytearray | memoryview):
        message["base64"] = b64encode(data).decode()
    else:
        message["data"] = data
    options = {"name": name, "key": key}
    return message | {option: value for option, value in options.items() if value is not None}


def read_event(content: dict[str, Any], epoch: str) -> Event:
    """The event in a message."""
    return Event(
        content["channel"],
        content["offset"],
        parse_time(content["time"]),
        content["from"],
        content["name"],
        content["data"] if "data" in content else b64decode(content["base64"], validate=True),
        epoch,
    )


def read_history(channel: str, answer: dict[str, Any]) -> History:
    epoch = answer["epoch"]
    missing = [*([answer["lost"]] if "lost" in answer else []), *answer.get("gaps", [])]
    return History(
        [read_event(each, epoch) for each in answer["events"]],
        [Lost(channel, each["first"], each["last"], epoch) for each in missing],
        Position(epoch, answer["offset"]),
    )
