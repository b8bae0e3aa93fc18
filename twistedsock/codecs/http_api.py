"""What is published over HTTP: bodies to contents. JSON of users is checked, and spliced as it came."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from twistedsock.codecs.json_encoder import event_message, lost_field, member_object, stream_events
from twistedsock.codecs.payload import (
    BOM,
    JSON_WHITESPACE,
    MAX_DEPTH,
    UNPAIRED_SURROGATE,
    build_payloads,
    has_unpaired_surrogate,
    is_json,
    is_too_deep,
    is_utf8,
    quote,
    quote_name,
)
from twistedsock.codecs.query import ApiError, QueryParameters, bad_parameter
from twistedsock.codecs.sse import format_event_id, format_position, parse_event_id
from twistedsock.errors import SINCE_WITHOUT_EPOCH, Error, ErrorCode
from twistedsock.pubsub.channel_index import Page
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME, check_channel
from twistedsock.pubsub.values import JSON, TEXT, Lost, Member, Payloads, Position, Publication
from twistedsock.session.commands import MAX_OFFSET, Subscribe
from twistedsock.session.request import HistoryPage

MAX_BATCH_EVENTS = 1_000
"""Events in one request of the batch form: enough that the request itself costs nothing beside them, few enough that
they take about a share of time."""

MAX_BATCH_BYTES = 1024 * 1024
"""In such a request: an event of a kibibyte each."""

FORM_TYPE = b"application/x-www-form-urlencoded"
"""What curl says of whatever it is given; nobody sends a form here."""

_NOT_UTF8 = Error(ErrorCode.NOT_UTF8, "the body is UTF-8; this one is not")

_BAD_JSON = Error(ErrorCode.BAD_JSON, "the body is one JSON value, as its Content-Type says; this one is not")

_NO_BATCH = Error(ErrorCode.BAD_JSON, 'the body is one JSON object, {"events": […]}')

_TOO_DEEP = Error(ErrorCode.BAD_JSON, f"data has at most {MAX_DEPTH} levels")

_CHARSET = Error(ErrorCode.BAD_TYPE, "the charset of a body is utf-8")

_TYPE = Error(
    ErrorCode.BAD_TYPE, "a body is application/json or text/plain; without a Content-Type it is what it looks like"
)

_BATCH_TYPE = Error(ErrorCode.BAD_TYPE, "this body is application/json")


class _Item(msgspec.Struct, gc=False):
    """Unknown fields are ignored, as in the JSON dialect."""

    channel: str
    data: Raw
    name: str = DEFAULT_EVENT_NAME.decode()


class _Batch(msgspec.Struct, gc=False):
    events: Annotated[list[_Item], Meta(max_length=MAX_BATCH_EVENTS)]


_check = msgspec.json.Decoder(Raw).decode

_read_batch = msgspec.json.Decoder(_Batch).decode

_read_text = msgspec.json.Decoder(str).decode


def without_bom(body: bytes) -> bytes:
    """JSON without the byte order mark that some programs write before it (RFC 8259 section 8.1)."""
    return body.removeprefix(BOM)


def read_body(body: bytes, kind: bytes) -> Payloads:
    """What a body publishes; ``kind`` is its Content-Type, "" where it has none. Raises ``ApiError``."""
    essence = _essence(kind)
    _see_utf8(body)
    if _says_json(essence):
        body = without_bom(body)
        try:
            return _content(bytes(_check(body)))
        except (msgspec.DecodeError, RecursionError):
            raise ApiError(
                UNPAIRED_SURROGATE if has_unpaired_surrogate(body.strip(JSON_WHITESPACE)) else _BAD_JSON
            ) from None
    if essence in (b"", FORM_TYPE):
        bare = without_bom(body).strip(JSON_WHITESPACE)
        if has_unpaired_surrogate(bare):
            raise ApiError(UNPAIRED_SURROGATE)
        return build_payloads((bare,), JSON) if is_json(bare) else build_payloads((body,), TEXT)
    if essence.startswith(b"text/"):
        return build_payloads((body,), TEXT)
    raise ApiError(_TYPE)


def read_batch(body: bytes, kind: bytes, most: int) -> list[Publication | tuple[bytes, Error]]:
    """What a body of the batch form publishes, in its order: of those that cannot be, the channel and why. ``most`` is
    how many bytes the data of one event may have. Raises ``ApiError`` where it is no such body at all."""
    essence = _essence(kind)
    if not _says_json(essence) and essence not in (b"", FORM_TYPE):
        raise ApiError(_BATCH_TYPE)
    _see_utf8(body)
    try:
        items = _read_batch(without_bom(body)).events
    except msgspec.ValidationError as error:
        raise ApiError(Error(ErrorCode.BAD_ARGUMENT, str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        raise ApiError(_json_error(without_bom(body), _NO_BATCH)) from None
    return [_publishing(item, most) for item in items]


def join_neighbours(publications: Iterable[Publication]) -> Iterator[Publication]:
    """The same publications in the same order, with neighbours joined that can be."""
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


def _publishing(item: _Item, most: int) -> Publication | tuple[bytes, Error]:
    channel, raw = item.channel.encode(), bytes(item.data)
    if len(raw) > most:
        return channel, Error(ErrorCode.TOO_LONG, f"data has at most {most} bytes")
    try:
        return Publication(channel, _content(raw), item.name.encode())
    except ApiError as refused:
        return channel, refused.error


def _content(raw: bytes) -> Payloads:
    """Of a JSON value that has been checked: a string is that text."""
    if raw.startswith(b'"'):
        return build_payloads((_read_text(raw).encode() if b"\\" in raw else raw[1:-1],), TEXT)
    if is_too_deep(raw):
        raise ApiError(_TOO_DEEP)
    return build_payloads((raw,), JSON)


def _essence(kind: bytes) -> bytes:
    """The media type without its parameters, which may name one charset only (RFC 9110 section 8.3.1)."""
    essence, *parameters = kind.lower().split(b";")
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip().strip(b'"') not in (b"utf-8", b"utf8"):
            raise ApiError(_CHARSET)
    return essence.strip()


def _says_json(essence: bytes) -> bool:
    return essence == b"application/json" or (essence.startswith(b"application/") and essence.endswith(b"+json"))


def _see_utf8(body: bytes) -> None:
    if not is_utf8(body):
        raise ApiError(_NOT_UTF8)


def publish_response(channel: bytes, place: Position) -> bytes:
    """An event has got its place."""
    return b"%b\n" % _placed(channel, place.offset, place.epoch)


def batch_results(
    asked: Iterable[Publication | tuple[bytes, Error]],
    rows: Iterable[Publication],
    outcomes: Iterable[Position | Error],
) -> Iterator[tuple[bytes, Position | Error]]:
    """What became of each that was asked for, in its order. ``rows`` are those that were published, with those in a row
    that are alike as one, and ``outcomes`` what became of them."""
    each = iter(list(_one_by_one(rows, outcomes)))
    for one in asked:
        yield one if isinstance(one, tuple) else next(each)


def _one_by_one(
    rows: Iterable[Publication], outcomes: Iterable[Position | Error]
) -> Iterator[tuple[bytes, Position | Error]]:
    for row, outcome in zip(rows, outcomes, strict=True):
        for number in range(len(row.payloads)):
            if isinstance(outcome, Position):
                yield row.channel, Position(outcome.epoch, outcome.offset + number)
            else:
                yield row.channel, outcome


def batch_response(results: Iterable[tuple[bytes, Position | Error]]) -> bytes:
    """What became of the events of the batch form, each with its channel."""
    told = [_result(channel, outcome) for channel, outcome in results]
    return b'{"results":[%b]}\n' % b",".join(told)


def _result(channel: bytes, outcome: Position | Error) -> bytes:
    if isinstance(outcome, Error):
        words = quote(outcome.message.encode())
        return b'{"channel":%b,"code":"%b","detail":%b}' % (quote(channel), outcome.code.value, words)
    return _placed(channel, outcome.offset, outcome.epoch)


def _placed(channel: bytes, offset: int, epoch: bytes) -> bytes:
    return b'{"channel":%b,"offset":%d,"epoch":%b}' % (quote_name(channel), offset, quote(epoch))


def history_response(kept: HistoryPage) -> Iterator[bytes]:
    """What a log holds, in pieces; the log is read when the next piece is asked for. Every offset before ``next`` is
    that of an event, or in ``lost`` or ``gaps``."""
    following = format_position(Position(kept.position.epoch, kept.position.offset))
    tail = b',"next":%b}\n' % quote(following)
    return stream_events(kept.channel, kept.events, b"{" + page_fields(kept), tail)


def page_fields(kept: HistoryPage) -> bytes:
    """What stands before the events, without the brace: the channel, where it stands, and what became of a place to go
    on from."""
    position = kept.position
    head = b'"channel":%b,"epoch":%b,"offset":%d' % (quote_name(kept.channel), quote(position.epoch), position.offset)
    if kept.recovered is not None:
        head += b',"recovered":true' if kept.recovered else b',"recovered":false'
    return head + lost_field(kept.lost)


def history_etag(kept: HistoryPage) -> bytes:
    """What tells an answer from another to the same question. It is weak, as the log may have let go events while they
    were being told (RFC 9110 section 8.8.1)."""
    return b'"%b:%d-%d"' % (kept.position.epoch, kept.start, kept.stop - 1)


def channels_response(page: Page) -> bytes:
    """A page of channels."""
    told = [
        b'{"channel":%b,"readers":%d,"offset":%d,"epoch":%b,"events":%d,"bytes":%d}'
        % (quote(one.channel), one.readers, one.position.offset, quote(one.position.epoch), one.events, one.size)
        for one in page.channels
    ]
    return b'{"channels":[%b],"total":%d,"next":%b}\n' % (b",".join(told), page.total, _or_null(page.following))


def members_response(channel: bytes, page: Sequence[Member], readers: int, following: bytes | None) -> bytes:
    """A page of who reads a channel."""
    told = b",".join([member_object(member) for member in page])
    return b'{"channel":%b,"members":[%b],"readers":%d,"next":%b}\n' % (
        quote(channel),
        told,
        readers,
        _or_null(following),
    )


def _or_null(name: bytes | None) -> bytes:
    return b"null" if name is None else quote(name)


MAX_POLL_BYTES = 256 * 1024
"""Bytes of events in one answer, and one event at least; the next request gets the rest."""


def poll_response(kept: HistoryPage) -> bytes:
    """What has come on one channel."""
    told, place = _object(kept, MAX_POLL_BYTES)
    return b'{%b,"next":%b}\n' % (told, quote(format_event_id([place])))


def poll_response_of_several(several: Sequence[HistoryPage]) -> bytes:
    """What has come on several, in the order in which they were asked for."""
    objects, places, room = list[bytes](), list[Position](), MAX_POLL_BYTES
    for kept in several:
        told, place = _object(kept, room)
        room -= len(told)
        objects.append(b"{%b}" % told)
        places.append(place)
    return b'{"channels":[%b],"next":%b}\n' % (b",".join(objects), quote(format_event_id(places)))


def _object(kept: HistoryPage, room: int) -> tuple[bytes, Position]:
    quoted = quote_name(kept.channel)
    messages, last, size = list[bytes](), kept.start - 1, 0
    for event in kept.events:
        # A gap is told by the next answer, which begins there.
        if size > room or isinstance(event, Lost):
            break
        messages.append(event_message(quoted, event))
        size += len(messages[-1])
        last = event.offset
    return b'%b,"events":[%b]' % (page_fields(kept), b",".join(messages)), Position(kept.position.epoch, last)


MAX_STREAM_CHANNELS = 32
"""Channels of one stream: each event carries the place in all of them."""

EVENT_ID_PARAMETERS = ("lastEventId", "last-event-id")
"""Query parameters with the id of the last event. Polyfills of EventSource, which cannot set headers everywhere, append
the first to a URL that may have the second already, so the first is the newer one."""

NO_STREAM_CHANNEL = Error(ErrorCode.BAD_ARGUMENT, "channel: at least one must be named")

TOO_MANY_STREAM_CHANNELS = Error(ErrorCode.BAD_ARGUMENT, f"channel: at most {MAX_STREAM_CHANNELS} can be read together")

INVALID_EVENT_ID = Error(
    ErrorCode.BAD_ARGUMENT,
    "the last event id is none of these channels: it has epoch:offset for each, with commas between, in the order in "
    "which they are named",
)


class StreamRequest(msgspec.Struct, frozen=True):
    """``known`` are the channels, in the order of an id, with the place from which to go on in each."""

    known: dict[bytes, Position | None]
    last: int | None
    presence: bool = False

    def commands(self) -> list[Subscribe]:
        """What a session is to be asked for it."""
        return [
            Subscribe(
                channel,
                last=self.last,
                since=None if place is None else place.offset,
                epoch=None if place is None else place.epoch,
                presence=self.presence,
            )
            for channel, place in self.known.items()
        ]


def read_channels(arguments: QueryParameters) -> list[bytes]:
    """Those that a query names, each once. Raises ``ApiError``."""
    return list(dict.fromkeys(name.encode() for name in arguments.texts("channel")))


def read_stream_request(arguments: QueryParameters, channels: Sequence[bytes], last_event_id: str) -> StreamRequest:
    """What is asked of these channels. ``last_event_id`` is the header of that name: a browser that comes back shows
    it, and asks for the rest as before; it goes before the query. Raises ``ApiError``."""
    if not channels:
        raise ApiError(NO_STREAM_CHANNEL)
    if len(channels) > MAX_STREAM_CHANNELS:
        raise ApiError(TOO_MANY_STREAM_CHANNELS)
    for channel in channels:
        error = check_channel(channel)
        if error is not None:
            raise ApiError(error)
    since, epoch = arguments.integer("since", MAX_OFFSET), arguments.text("epoch")
    if (since is None) is not (epoch is None):
        raise ApiError(SINCE_WITHOUT_EPOCH)
    last = arguments.integer("last", MAX_OFFSET)
    presence = arguments.choice("presence", ("on", "off")) == "on"
    id = last_event_id or next(filter(None, map(arguments.text, EVENT_ID_PARAMETERS)), "")
    places: Sequence[Position | None] = [None] * len(channels)
    if id:
        known = parse_event_id(id, len(channels))
        if known is None:
            raise ApiError(INVALID_EVENT_ID)
        places = known
    elif since is not None and epoch is not None:
        if len(channels) > 1:
            raise bad_parameter("since", "it is of one channel; of several, last-event-id tells the place in each")
        places = [Position(epoch.encode(), since)]
    return StreamRequest(dict(zip(channels, places, strict=True)), last, presence)


# TODO-MERGED-DOC: What HTTP answers, as JSON that is spliced from bytes which are JSON already. Each answer
# ends with a line end, as it may be shown in a terminal; those that may be long come in pieces of about a
# chunk.

# TODO-MERGED-DOC: What who waits for events is answered, as JSON: about so much at most that leaves in one go,
# and where to go on.

# TODO-MERGED-DOC: What a stream of server-sent events, or who waits for events, asks for: channels, and where
# it stands in them.
