"""Bodies of HTTP requests to publications (docs/reference/http-api.md)."""

from collections.abc import Iterable, Iterator
from typing import Annotated, cast

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from twistedsock.codecs.payload import (
    BAD_BASE64,
    BOM,
    JSON_WHITESPACE,
    MAX_DEPTH,
    UNPAIRED_SURROGATE,
    build_payloads,
    decode_base64,
    has_unpaired_surrogate,
    is_json,
    is_too_deep,
    is_utf8,
)
from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Payloads, Publication

MAX_BATCH_EVENTS = 1_000
"""Events in one batch request: so many that the cost of the request itself does not matter, and so few that they take
about one time slice."""

MAX_BATCH_BYTES = 1024 * 1024
"""Of one batch request: 1 KiB for each event."""

FORM_TYPE = b"application/x-www-form-urlencoded"
"""The default of curl for all bodies. The API has no forms."""

BYTES_TYPE = b"application/octet-stream"
"""Bytes of no other type (RFC 2046 section 4.5.1)."""

_NOT_UTF8 = Error(ErrorCode.NOT_UTF8, "invalid body: not valid UTF-8")

_BAD_JSON = Error(ErrorCode.BAD_JSON, "invalid body: not one JSON value, as the Content-Type says")

_NO_BATCH = Error(ErrorCode.BAD_JSON, 'invalid body: send one JSON object, {"events": […]}')

_TOO_DEEP = Error(ErrorCode.BAD_JSON, f"data too deep: at most {MAX_DEPTH} levels are allowed")

_CHARSET = Error(ErrorCode.BAD_TYPE, "unsupported charset: send UTF-8")

_TYPE = Error(
    ErrorCode.BAD_TYPE,
    "unsupported Content-Type: send application/json, text/plain, application/octet-stream, or none to detect JSON",
)

_ONE_PAYLOAD = Error(ErrorCode.BAD_ARGUMENT, "invalid event: each has either data or base64")

_BATCH_TYPE = Error(ErrorCode.BAD_TYPE, "unsupported Content-Type: send application/json")


class _BatchEvent(msgspec.Struct, gc=False):
    """Unknown fields are ignored, as in the JSON protocol."""

    channel: str
    data: Raw | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    name: str = DEFAULT_EVENT_NAME.decode()


class _Batch(msgspec.Struct, gc=False):
    events: Annotated[list[_BatchEvent], Meta(max_length=MAX_BATCH_EVENTS)]


_check = msgspec.json.Decoder(Raw).decode

_read_batch = msgspec.json.Decoder(_Batch).decode

_read_text = msgspec.json.Decoder(str).decode


def without_bom(body: bytes) -> bytes:
    """JSON without the byte order mark that some programs write in front of it (RFC 8259 section 8.1)."""
    return body.removeprefix(BOM)


def read_body(body: bytes, content_type: bytes) -> Payloads:
    """The payload in the body of a publish request. ``content_type`` is b"" if there is no such header. Raises
    ``ApiError``."""
    media_type = _media_type(content_type)
    if media_type == BYTES_TYPE:
        return build_payloads((body,), BYTES)
    _check_utf8(body)
    if _is_json_type(media_type):
        body = without_bom(body)
        try:
            return _payloads(bytes(_check(body)))
        except (msgspec.DecodeError, RecursionError):
            raise ApiError(_json_error(body, _BAD_JSON)) from None
    if media_type in (b"", FORM_TYPE):
        stripped = without_bom(body).strip(JSON_WHITESPACE)
        if has_unpaired_surrogate(stripped):
            raise ApiError(UNPAIRED_SURROGATE)
        return build_payloads((stripped,), JSON) if is_json(stripped) else build_payloads((body,), TEXT)
    if media_type.startswith(b"text/"):
        return build_payloads((body,), TEXT)
    raise ApiError(_TYPE)


def read_batch(body: bytes, content_type: bytes, max_bytes: int) -> list[Publication | tuple[bytes, Error]]:
    """The events in the body of a batch request, in their order. For an event that is not valid, or has data of more
    than ``max_bytes``, the list has its channel and the error. Raises ``ApiError`` if the body as a whole is not
    valid."""
    media_type = _media_type(content_type)
    if not _is_json_type(media_type) and media_type not in (b"", FORM_TYPE):
        raise ApiError(_BATCH_TYPE)
    _check_utf8(body)
    try:
        items = _read_batch(without_bom(body)).events
    except msgspec.ValidationError as error:
        raise ApiError(Error(ErrorCode.BAD_ARGUMENT, str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        raise ApiError(_json_error(without_bom(body), _NO_BATCH)) from None
    return [_publication(item, max_bytes) for item in items]


def join_neighbours(publications: Iterable[Publication]) -> Iterator[Publication]:
    """The same publications in the same order. Neighbours that can be joined are."""
    row: list[Publication] = []
    for publication in publications:
        if row and not row[0].can_join(publication):
            yield row[0].joined(row[1:])
            row = []
        row.append(publication)
    if row:
        yield row[0].joined(row[1:])


def _json_error(body: bytes, otherwise: Error) -> Error:
    return UNPAIRED_SURROGATE if has_unpaired_surrogate(body.strip(JSON_WHITESPACE)) else otherwise


def _publication(item: _BatchEvent, max_bytes: int) -> Publication | tuple[bytes, Error]:
    channel, encoded = item.channel.encode(), item.base64
    if isinstance(item.data, UnsetType) is isinstance(encoded, UnsetType):
        raise ApiError(_ONE_PAYLOAD)
    raw = encoded.encode() if isinstance(encoded, str) else bytes(cast(Raw, item.data))
    if len(raw) > max_bytes:
        return channel, Error(ErrorCode.TOO_LONG, f"data too long: at most {max_bytes} bytes are allowed")
    try:
        payloads = _bytes_payloads(raw) if isinstance(encoded, str) else _payloads(raw)
        return Publication(channel, payloads, item.name.encode())
    except ApiError as invalid:
        return channel, invalid.error


def _payloads(raw: bytes) -> Payloads:
    """The payload of a valid JSON value. A string is a text payload."""
    if raw.startswith(b'"'):
        return build_payloads((_read_text(raw).encode() if b"\\" in raw else raw[1:-1],), TEXT)
    if is_too_deep(raw):
        raise ApiError(_TOO_DEEP)
    return build_payloads((raw,), JSON)


def _bytes_payloads(encoded: bytes) -> Payloads:
    payload = decode_base64(encoded)
    if payload is None:
        raise ApiError(BAD_BASE64)
    return build_payloads((payload,), BYTES)


def _media_type(content_type: bytes) -> bytes:
    """The media type without its parameters. The only charset allowed is UTF-8 (RFC 9110 section 8.3.1)."""
    media_type, *parameters = content_type.lower().split(b";")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip().strip(b'"') not in (b"utf-8", b"utf8"):
            raise ApiError(_CHARSET)
    return media_type.strip()


def _is_json_type(media_type: bytes) -> bool:
    return media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )


def _check_utf8(body: bytes) -> None:
    if not is_utf8(body):
        raise ApiError(_NOT_UTF8)
