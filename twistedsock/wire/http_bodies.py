"""What is published over HTTP: bodies to contents. JSON of users is checked, and spliced as it came."""

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from twistedsock.core.errors import Code, Refusal
from twistedsock.core.events import Content
from twistedsock.core.names import DEFAULT_EVENT_NAME
from twistedsock.core.visitor import Publishing
from twistedsock.wire.payloads import (
    BOM,
    MOST_DEPTH,
    SPACE,
    UNPAIRED,
    content_of,
    is_deep,
    is_json,
    is_unpaired,
    is_utf8,
)
from twistedsock.wire.problems import Refused

MOST_TOGETHER = 1_000
"""Events in one request of the batch form: enough that the request itself costs nothing beside them, few enough that
they take about a share of time."""

BATCH_BYTES = 1024 * 1024
"""In such a request: an event of a kibibyte each."""

FORM = b"application/x-www-form-urlencoded"
"""What curl says of whatever it is given; nobody sends a form here."""

_NOT_UTF8 = Refusal(Code.NOT_UTF8, "the body is UTF-8; this one is not")
_BAD_JSON = Refusal(Code.BAD_JSON, "the body is one JSON value, as its Content-Type says; this one is not")
_NO_BATCH = Refusal(Code.BAD_JSON, 'the body is one JSON object, {"events": […]}')
_TOO_DEEP = Refusal(Code.BAD_JSON, f"data has at most {MOST_DEPTH} levels")
_CHARSET = Refusal(Code.BAD_TYPE, "the charset of a body is utf-8")
_TYPE = Refusal(
    Code.BAD_TYPE, "a body is application/json or text/plain; without a Content-Type it is what it looks like"
)
_BATCH_TYPE = Refusal(Code.BAD_TYPE, "this body is application/json")


class _Item(msgspec.Struct, gc=False):
    """Unknown fields are ignored, as in the JSON dialect."""

    channel: str
    data: Raw
    name: str = DEFAULT_EVENT_NAME.decode()


class _Batch(msgspec.Struct, gc=False):
    events: Annotated[list[_Item], Meta(max_length=MOST_TOGETHER)]


_check = msgspec.json.Decoder(Raw).decode
_read_batch = msgspec.json.Decoder(_Batch).decode
_read_text = msgspec.json.Decoder(str).decode


def without_bom(body: bytes) -> bytes:
    """JSON without the byte order mark that some programs write before it (RFC 8259 section 8.1)."""
    return body.removeprefix(BOM)


def read_body(body: bytes, kind: bytes) -> Content:
    """What a body publishes; ``kind`` is its Content-Type, "" where it has none. Raises ``Refused``."""
    essence = _essence(kind)
    _see_utf8(body)
    if _says_json(essence):
        body = without_bom(body)
        try:
            return _content(bytes(_check(body)))
        except (msgspec.DecodeError, RecursionError):
            raise Refused(UNPAIRED if is_unpaired(body.strip(SPACE)) else _BAD_JSON) from None
    if essence in (b"", FORM):
        bare = without_bom(body).strip(SPACE)
        if is_unpaired(bare):
            raise Refused(UNPAIRED)
        return content_of((bare,), True) if is_json(bare) else content_of((body,), False)
    if essence.startswith(b"text/"):
        return content_of((body,), False)
    raise Refused(_TYPE)


def read_batch(body: bytes, kind: bytes, most: int) -> list[Publishing | tuple[bytes, Refusal]]:
    """What a body of the batch form publishes, in its order: of those that cannot be, the channel and why. ``most`` is
    how many bytes the data of one event may have. Raises ``Refused`` where it is no such body at all."""
    essence = _essence(kind)
    if not _says_json(essence) and essence not in (b"", FORM):
        raise Refused(_BATCH_TYPE)
    _see_utf8(body)
    try:
        items = _read_batch(without_bom(body)).events
    except msgspec.ValidationError as error:
        raise Refused(Refusal(Code.BAD_ARGUMENT, str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        raise Refused(UNPAIRED if is_unpaired(without_bom(body).strip(SPACE)) else _NO_BATCH) from None
    return [_publishing(item, most) for item in items]


def together(asked: Iterable[Publishing]) -> Iterator[Publishing]:
    """The same, but those in a row that differ in nothing but their data as one."""
    row: list[Publishing] = []
    for one in asked:
        if row and not _is_alike(row[0], one):
            yield _joined(row)
            row = []
        row.append(one)
    if row:
        yield _joined(row)


def _is_alike(one: Publishing, other: Publishing) -> bool:
    return (one.channel, one.name, one.content.is_json) == (other.channel, other.name, other.content.is_json)


def _joined(row: list[Publishing]) -> Publishing:
    first = row[0]
    if len(row) == 1:
        return first
    payloads = [one.content.payloads[0] for one in row]
    return Publishing(first.channel, content_of(payloads, first.content.is_json), first.name)


def _publishing(item: _Item, most: int) -> Publishing | tuple[bytes, Refusal]:
    channel, raw = item.channel.encode(), bytes(item.data)
    if len(raw) > most:
        return channel, Refusal(Code.TOO_LONG, f"data has at most {most} bytes")
    try:
        return Publishing(channel, _content(raw), item.name.encode())
    except Refused as refused:
        return channel, refused.refusal


def _content(raw: bytes) -> Content:
    """Of a JSON value that has been checked: a string is that text."""
    if raw.startswith(b'"'):
        return content_of((_read_text(raw).encode() if b"\\" in raw else raw[1:-1],), False)
    if is_deep(raw):
        raise Refused(_TOO_DEEP)
    return content_of((raw,), True)


def _essence(kind: bytes) -> bytes:
    """The media type without its parameters, which may name one charset only (RFC 9110 section 8.3.1)."""
    essence, *parameters = kind.lower().split(b";")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip().strip(b'"') not in (b"utf-8", b"utf8"):
            raise Refused(_CHARSET)
    return essence.strip()


def _says_json(essence: bytes) -> bool:
    return essence == b"application/json" or (essence.startswith(b"application/") and essence.endswith(b"+json"))


def _see_utf8(body: bytes) -> None:
    if not is_utf8(body):
        raise Refused(_NOT_UTF8)
