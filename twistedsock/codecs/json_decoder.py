"""The JSON protocol, inwards: messages to commands (docs/reference/json-protocol.md).

``decode`` turns one message into a command, and ``JSON_LINE_DECODER`` one line. An error carries the ``id`` of the
message, even if the message is not valid JSON, because the client waits for it. A busy publisher sends messages that
differ only in their text, and ``decode_alike`` reads those without parsing each."""

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import replace

from twistedsock.codecs.payload import (
    BAD_BASE64,
    BOM,
    JSON_WHITESPACE,
    MAX_DEPTH,
    NOT_UTF8_LINE,
    UNPAIRED_SURROGATE,
    alike_texts,
    build_payloads,
    decode_base64,
    is_too_deep,
    is_utf8,
    replace_unpaired_surrogates,
)
from twistedsock.codecs.times import parse_moment
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME, is_idempotency_key
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Tag
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command, InvalidCommand, Publish
from twistedsock.session.history_query import Bound, HistoryQuery

_Count = Annotated[int, Meta(ge=0, le=MAX_OFFSET)]


class _Request(msgspec.Struct, gc=False):
    """The fields of all messages. Unknown fields are ignored."""

    type: str
    id: Raw | UnsetType = UNSET
    channel: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    base64: Raw | UnsetType = UNSET  # only publications have it, and a key
    key: Raw | UnsetType = UNSET
    name: str | UnsetType = UNSET
    nick: str | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    token: str | UnsetType = UNSET
    last: _Count | UnsetType = UNSET
    since: _Count | UnsetType = UNSET
    after: Raw | UnsetType = UNSET  # only histories have bounds: other messages can have these fields for themselves
    before: Raw | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    presence: bool = False
    echo: bool = True


class _Envelope(msgspec.Struct, gc=False):
    """The fields that are needed to answer an invalid message."""

    type: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET


_read = msgspec.json.Decoder(_Request).decode

_read_envelope = msgspec.json.Decoder(_Envelope).decode

_read_text = msgspec.json.Decoder(str).decode

_read_bound = msgspec.json.Decoder(_Count | str).decode

# As integers: to look for a byte with a bytes object costs ten times as much (CPython first tries it as an integer).
_QUOTE, _BACKSLASH = b'"\\'

_INTEGER = re.compile(rb"-?[0-9]+")

_DATA = re.compile(rb'"data": ?"')
"""The start of a text, as JavaScript and Python write it."""

_BAD_JSON = Error(ErrorCode.BAD_JSON, "invalid message: send one JSON object")

_BAD_TYPE = Error(
    ErrorCode.BAD_TYPE,
    "unknown type: send subscribe, unsubscribe, publish, history, who, list, nick, auth, ping or info",
)

_BAD_BINARY = InvalidCommand(
    Error(ErrorCode.BAD_JSON, "invalid binary message: send one JSON object on one line, a line feed, and the bytes")
)

_NOT_PUBLISH = Error(ErrorCode.BAD_TYPE, "unknown type: the type of a binary message is publish")

_TOO_DEEP = Error(ErrorCode.BAD_JSON, f"data too deep: at most {MAX_DEPTH} levels are allowed")

_EXPECTED_BOUND = 'expected an offset, as a number, or a time such as "2026-11-29T05:00:00Z" or "-1h"'

_BAD_ID = InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, "invalid id: send an integer or a string"))


class _InvalidField(Exception):
    """A required field is missing, or the value of a field is not valid."""


MAX_HEADER_BYTES = 4_096
"""Of the JSON in a binary message: enough for the longest names, written in escapes, and an id. It is decoded before
the rate limit applies, so it must be cheap."""


def decode_binary(message: bytes) -> Command:
    """The command in a binary message: a publication without its payload in JSON, a line feed, and the payload."""
    end = message.find(b"\n", 0, MAX_HEADER_BYTES + 1)
    header = message[: max(0, end)]
    return decode(header, message[end + 1 :]) if is_utf8(header) and end >= 0 else _BAD_BINARY


def decode(message: bytes, payload: bytes | None = None) -> Command:
    """The command in a message, which is valid UTF-8. ``payload`` are the bytes that the message publishes, if they are
    not part of it."""
    try:
        request = _read(message)
    except msgspec.ValidationError as error:
        return _diagnose(message, str(error))
    except (msgspec.DecodeError, RecursionError) as error:
        return _explain(message, error)
    tag: Tag = None
    if request.id is not UNSET:
        tag = bytes(request.id)
        if not tag.isdigit() and not _is_tag(tag):
            return _BAD_ID
    build = _TYPES.get(request.type)
    if build is None:
        return InvalidCommand(_BAD_TYPE, tag)
    try:
        return build(request, tag) if payload is None else _publish_binary(request, tag, payload)
    except _InvalidField as invalid:
        return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, str(invalid)), tag)


def decode_alike(first: Publish, messages: Sequence[object], position: int) -> Publish | None:
    """One publication for the messages from ``position`` on that differ only in their text from the message before,
    whose command is ``first``. Returns None if there are none."""
    if first.tags != (None,) or first.payloads.kind is not TEXT or first.key:
        return None
    texts = _alike(messages, position)
    return replace(first, payloads=build_payloads(texts, TEXT), tags=(None,) * len(texts)) if texts else None


def _alike(items: Sequence[object], position: int) -> list[bytes]:
    """The texts of the messages from ``position`` on that differ only in their text from the one before."""
    first = items[position - 1]
    if not isinstance(first, bytes) or first.count(b'"data"') != 1:
        return []
    # Quotes in strings are escaped, so `"data"` is a key or a whole string, and with the colon it is a key. It occurs
    # once, so no other key has that name.
    opening = _DATA.search(first)
    if opening is None:
        return []
    return alike_texts(items, position, opening.end(), first.find(b'"', opening.end()))


def _is_tag(raw: bytes) -> bool:
    return raw.startswith(b'"') or _INTEGER.fullmatch(raw) is not None


def _diagnose(message: bytes, words: str) -> Command:
    """The error for a message that is no object, or whose fields have the wrong type."""
    try:
        envelope = _read_envelope(message)
    except msgspec.ValidationError:
        return InvalidCommand(_BAD_JSON)
    except (msgspec.DecodeError, RecursionError) as error:
        return _explain(message, error)
    tag: Tag = None
    if envelope.id is not UNSET:
        tag = bytes(envelope.id)
        if not _is_tag(tag):
            return _BAD_ID
    if envelope.type is UNSET or not bytes(envelope.type).startswith(b'"'):
        return InvalidCommand(_BAD_TYPE, tag)
    return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, words), tag)


def _explain(message: bytes, cause: Exception) -> Command:
    """The error for a message that is not valid JSON. It carries the id if that can be found."""
    if message.startswith(BOM) and not message.startswith(BOM * 2):
        return decode(message.removeprefix(BOM))
    replaced = replace_unpaired_surrogates(message)
    error = _BAD_JSON
    if isinstance(cause, RecursionError):
        error = _TOO_DEEP
    elif replaced is not message and _is_object(replaced):
        error = UNPAIRED_SURROGATE
    return InvalidCommand(error, find_tag(message))


def _is_object(message: bytes) -> bool:
    try:
        _read_envelope(message)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


MAX_TOKENS = 5_000
"""Searched for an id in a message that is not valid JSON: about two milliseconds of work."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'

# An id, or other strings, or the characters between strings, or a string without an end.
_TOKEN = re.compile(
    rb'"id"\s*:\s*(-?(?:0|[1-9][0-9]*+)(?=[\s,}])|%b)?|(?:(?!"id"\s*:)%b[^"\[\]{}]*+)++|[^"]+|".*' % (_STRING, _STRING),
    re.DOTALL,
)


def find_tag(message: bytes) -> Tag:
    """The id in a message that can be invalid JSON: the last ``id`` at the level of the outermost object."""
    depth, tag = 0, None
    for token in islice(_TOKEN.finditer(message), MAX_TOKENS):
        text = token[0]
        if not text.startswith(b'"'):
            depth += text.count(b"{") + text.count(b"[") - text.count(b"}") - text.count(b"]")
        elif depth == 1 and token[1] is not None:
            tag = token[1]
    return tag if tag is not None and _is_readable(tag) else None


def _is_readable(tag: bytes) -> bool:
    """True for an integer, and for a string that is valid JSON."""
    if tag.startswith(b'"'):
        try:
            _read_text(tag)
        except msgspec.DecodeError:
            return False
    return True


def _required(request: _Request, field: str, value: str | UnsetType) -> bytes:
    if value is UNSET:
        raise _missing(request, field)
    return value.encode()


def _missing(request: _Request, field: str) -> _InvalidField:
    return _InvalidField(f"missing field: {request.type} requires {field}")


def _optional(value: int | UnsetType) -> int | None:
    return None if value is UNSET else value


def _bound(field: str, raw: Raw | UnsetType) -> Bound | None:
    """A number is an offset, a string is a time."""
    if raw is UNSET:
        return None
    try:
        value = _read_bound(raw)
    except msgspec.DecodeError:
        raise _InvalidField(f"invalid {field}: {_EXPECTED_BOUND}") from None
    if not isinstance(value, str):
        return value
    moment = parse_moment(value)
    if moment is None:
        raise _InvalidField(f"invalid {field} {value[:32]!r}: {_EXPECTED_BOUND}")
    return moment


def _publish(request: _Request, tag: Tag) -> Command:
    if request.base64 is not UNSET:
        return _publish_base64(request, tag, request.base64)
    if request.channel is UNSET:
        raise _missing(request, "channel")
    channel = request.channel.encode()
    name = DEFAULT_EVENT_NAME if request.name is UNSET else request.name.encode()
    if request.data is UNSET:
        raise _missing(request, "data or base64")
    key = b"" if request.key is UNSET else _read_key(request.key)
    raw = bytes(request.data)
    if raw[0] != _QUOTE:
        if is_too_deep(raw):
            return InvalidCommand(_TOO_DEEP, tag)
        return Publish(channel, build_payloads((raw,), JSON), name, key, tags=(tag,))
    text = _read_text(raw).encode() if _BACKSLASH in raw else raw[1:-1]
    return Publish(channel, build_payloads((text,), TEXT), name, key, tags=(tag,))


def _read_key(raw: Raw) -> bytes:
    try:
        key = _read_text(raw).encode()
    except msgspec.ValidationError:
        key = b""
    if not is_idempotency_key(key):
        raise _InvalidField("invalid key: send a string of 1 to 200 printable ASCII characters")
    return key


def _publish_base64(request: _Request, tag: Tag, base64: Raw) -> Command:
    if request.data is not UNSET:
        raise _InvalidField("too many fields: send either data or base64")
    try:
        encoded = _read_text(base64)
    except msgspec.ValidationError:
        raise _InvalidField("invalid base64: send a string") from None
    payload = decode_base64(encoded.encode())
    if payload is None:
        return InvalidCommand(BAD_BASE64, tag)
    return _publish_bytes(request, tag, payload)


def _publish_binary(request: _Request, tag: Tag, payload: bytes) -> Command:
    if request.type != "publish":
        return InvalidCommand(_NOT_PUBLISH, tag)
    if request.data is not UNSET or request.base64 is not UNSET:
        raise _InvalidField("too many fields: the bytes behind the line feed are the payload")
    return _publish_bytes(request, tag, payload)


def _publish_bytes(request: _Request, tag: Tag, payload: bytes) -> Command:
    channel = _required(request, "channel", request.channel)
    name = DEFAULT_EVENT_NAME if request.name is UNSET else request.name.encode()
    key = b"" if request.key is UNSET else _read_key(request.key)
    return Publish(channel, build_payloads((payload,), BYTES), name, key, tags=(tag,))


def _subscribe(request: _Request, tag: Tag) -> Command:
    return commands.Subscribe(
        _required(request, "channel", request.channel),
        last=_optional(request.last),
        since=_optional(request.since),
        epoch=None if request.epoch is UNSET else request.epoch.encode(),
        presence=request.presence,
        echo=request.echo,
        tag=tag,
    )


def _unsubscribe(request: _Request, tag: Tag) -> Command:
    return commands.Unsubscribe(_required(request, "channel", request.channel), tag)


def _history(request: _Request, tag: Tag) -> Command:
    query = HistoryQuery(
        _optional(request.last),
        _optional(request.since),
        _bound("after", request.after),
        _bound("before", request.before),
    )
    return commands.ReadHistory(_required(request, "channel", request.channel), query, tag=tag)


def _who(request: _Request, tag: Tag) -> Command:
    return commands.Who(_required(request, "channel", request.channel), tag)


def _list(request: _Request, tag: Tag) -> Command:
    prefix = b"" if request.prefix is UNSET else request.prefix.encode()
    return commands.ListChannels(prefix, _after_channel(request.after), tag)


def _after_channel(raw: Raw | UnsetType) -> bytes:
    """In a list, ``after`` is the name of a channel."""
    try:
        return b"" if raw is UNSET else _read_text(raw).encode()
    except msgspec.DecodeError:
        raise _InvalidField("invalid after: expected a channel") from None


def _nick(request: _Request, tag: Tag) -> Command:
    return commands.Nick(_required(request, "nick", request.nick), tag)


def _auth(request: _Request, tag: Tag) -> Command:
    return commands.Auth(_required(request, "token", request.token), tag)


def _ping(request: _Request, tag: Tag) -> Command:
    return commands.Ping(b"", tag)


def _info(request: _Request, tag: Tag) -> Command:
    return commands.Info(tag)


_TYPES: dict[str, Callable[[_Request, Tag], Command]] = {
    "publish": _publish,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "history": _history,
    "who": _who,
    "list": _list,
    "nick": _nick,
    "auth": _auth,
    "ping": _ping,
    "info": _info,
}


class JsonLineDecoder:
    """Decodes JSON lines. Unlike WebSocket messages, they can be blank, or not UTF-8."""

    find_tag = staticmethod(find_tag)
    decode_alike = staticmethod(decode_alike)

    def decode(self, line: bytes) -> Command | None:
        """The command in a line; None for a blank line."""
        if not line.isascii() and not is_utf8(line):
            return InvalidCommand(NOT_UTF8_LINE)
        return decode(line) if line.strip(JSON_WHITESPACE) else None


JSON_LINE_DECODER = JsonLineDecoder()
"""For JSON on the line port."""
