"""Events as files: JSON lines and CSV, which `sockbridge state` exports, and JSON lines, which it imports."""

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TextIO

import msgspec

from twistedsock.codecs.http_bodies import read_body
from twistedsock.codecs.payload import (
    BAD_BASE64,
    build_payloads,
    decode_base64,
    encode_base64,
    payload_field,
    payload_to_json,
    quote_name,
)
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.times import format_time, parse_moment
from twistedsock.pubsub.names import check_event_name, check_nick
from twistedsock.pubsub.values import BYTES, JSON, Batch, Event, Payloads

CSV_COLUMNS = ("offset", "time", "from", "name", "data")

ROW_BYTES = 16 * 1024
"""Events that are imported together, in bytes of their lines. They become one row of the file: large enough that rows
cost little, and small enough that the server deletes hundreds of rows in one step without a pause."""

MAX_LINE_BYTES = 32 * 1024 * 1024
"""The longest line that is read: the largest event that a server can accept is 16 MiB, and JSON can escape its
characters."""


class EventFileError(ValueError):
    """A line cannot be imported. The message is one sentence for the operator."""


class _ImportedEvent(msgspec.Struct, rename={"sender": "from"}):
    """A line. Its offset is not used."""

    time: str
    sender: str
    name: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


_BREAKS = bytes.maketrans(b"\r\n", b"  ")

_read_line = msgspec.json.Decoder(_ImportedEvent).decode


def write_json(events: Iterable[Event], out: TextIO) -> None:
    for event in events:
        line = b'{"offset":%d,"time":"%b","from":%b,"name":%b,"%b":%b}\n' % (
            event.offset,
            format_time(event.time),
            quote_name(event.sender),
            quote_name(event.name),
            payload_field(event.kind),
            payload_to_json(_payload(event), event.kind),
        )
        out.write(line.decode())


def write_csv(events: Iterable[Event], out: TextIO) -> None:
    write = csv.writer(out, lineterminator="\n").writerow
    write(CSV_COLUMNS)
    for event in events:
        payload = encode_base64(event.payload) if event.kind is BYTES else _payload(event)
        texts = (format_time(event.time), event.sender, event.name, payload)
        write((event.offset, *[text.decode() for text in texts]))


def _payload(event: Event) -> bytes:
    """JSON on one line: it has line breaks between its parts only. Those of texts are escaped in JSON lines."""
    return event.payload.translate(_BREAKS) if event.kind is JSON else event.payload


FORMATS: dict[str, Callable[[Iterable[Event], TextIO], None]] = {"jsonl": write_json, "csv": write_csv}


def read_batches(file: BinaryIO, first: int, oldest: int, newest: int) -> Iterator[list[Batch]]:
    """The events of JSON lines, in pieces of about ``ROW_BYTES``, with offsets from ``first`` on. Their times, in
    milliseconds since 1970, must not decrease, and be from ``oldest`` to ``newest``. Raises EventFileError."""
    batches: list[Batch] = []
    size = number = 0
    offset, time = first, oldest
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if not line.strip():
            continue
        try:
            batch = _batch(line, offset)
            if batch.time < time:
                raise EventFileError(
                    "its time is before that of the event before it: sort the file, or choose another channel"
                )
            if batch.time > newest:
                raise EventFileError("its time is in the future")
        except EventFileError as error:
            raise EventFileError(f"line {number}: {error}") from None
        batches.append(batch)
        offset, time = batch.end, batch.time
        size += len(line)
        if size >= ROW_BYTES:
            yield batches
            batches, size = [], 0
    if batches:
        yield batches


def _imported_payloads(found: _ImportedEvent) -> Payloads:
    if isinstance(found.base64, str):
        if found.data is not msgspec.UNSET:
            raise EventFileError("it has both data and base64")
        payload = decode_base64(found.base64.encode())
        if payload is None:
            raise EventFileError(BAD_BASE64.message)
        return build_payloads((payload,), BYTES)
    if found.data is msgspec.UNSET:
        raise EventFileError("it has neither data nor base64")
    return read_body(bytes(found.data), b"application/json")


def _batch(line: bytes, offset: int) -> Batch:
    if len(line) == MAX_LINE_BYTES:
        raise EventFileError("it is too long to be an event")
    try:
        found = _read_line(line)
        payloads = _imported_payloads(found)
    except ApiError as error:
        raise EventFileError(error.error.message) from None
    except msgspec.ValidationError as error:
        raise EventFileError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EventFileError("it is not a JSON object in UTF-8") from None
    moment = parse_moment(found.time)
    if moment is None or moment.is_relative:
        raise EventFileError(f"invalid time {found.time[:32]!r}: expected a time such as 2026-11-29T05:00:00Z")
    sender, name = found.sender.encode(), found.name.encode()
    if invalid := check_nick(sender) or check_event_name(name):
        raise EventFileError(invalid.message)
    return Batch(offset, offset + 1, b"", sender, name, payloads, moment.milliseconds)
