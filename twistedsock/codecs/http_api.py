"""The HTTP API: queries to commands, and results to JSON responses (docs/reference/http-api.md).

In this order: responses of single requests, responses of long polls, and the query of streams and long polls. Every
response ends with a line end, because people read them in terminals. Responses that can be long are generators of
pieces of about one chunk.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from twistedsock.codecs.json_encoder import event_message, lost_field, member_object, stream_events
from twistedsock.codecs.payload import quote, quote_name
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.query import QueryParameters, bad_parameter
from twistedsock.codecs.sse import format_event_id, format_position, parse_event_id
from twistedsock.errors import SINCE_WITHOUT_EPOCH, Error, ErrorCode
from twistedsock.pubsub.names import check_channel
from twistedsock.pubsub.values import ChannelInfo, Event, Member, Page, Position, Publication
from twistedsock.session.commands import MAX_OFFSET, Subscribe
from twistedsock.session.encoder import Piece
from twistedsock.session.history_query import HistoryQuery
from twistedsock.session.request import HistoryPage


def publish_response(channel: bytes, position: Position) -> bytes:
    """The position of the event that was published."""
    return b"%b\n" % _position_object(channel, position)


def batch_results(
    requested: Iterable[Publication | tuple[bytes, Error]],
    rows: Iterable[Publication],
    outcomes: Iterable[Position | Error],
) -> Iterator[tuple[bytes, Position | Error]]:
    """The result of each event of a batch request, in the order of ``requested``. ``rows`` are the publications that
    ``join_neighbours`` made of them, and ``outcomes`` the results of these."""
    each = iter(list(_one_by_one(rows, outcomes)))
    for event in requested:
        yield event if isinstance(event, tuple) else next(each)


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
    """The results of a batch request."""
    objects = [_result_object(channel, outcome) for channel, outcome in results]
    return b'{"results":[%b]}\n' % b",".join(objects)


def _result_object(channel: bytes, outcome: Position | Error) -> bytes:
    if isinstance(outcome, Error):
        detail = quote(outcome.message.encode())
        return b'{"channel":%b,"code":"%b","detail":%b}' % (quote(channel), outcome.code.value, detail)
    return _position_object(channel, outcome)


def _position_object(channel: bytes, position: Position) -> bytes:
    return b'{"channel":%b,"offset":%d,"epoch":%b}' % (quote_name(channel), position.offset, quote(position.epoch))


BOUND_PARAMETERS = ("after", "before")
"""Query parameters that limit a history by offsets or times. Streams and long polls reject them: these follow a channel
from a position, which times could only replace in the first of their requests."""


def read_history_query(parameters: QueryParameters) -> HistoryQuery:
    """The part of a history that a query asks for. Raises ``ApiError``."""
    return HistoryQuery(
        parameters.integer("last", MAX_OFFSET),
        parameters.integer("since", MAX_OFFSET),
        parameters.bound("after"),
        parameters.bound("before"),
    )


def history_response(page: HistoryPage) -> Iterator[Piece]:
    """A page of the history, in pieces. The history is read as the pieces are requested. Every requested offset up to
    that of ``next`` is the offset of an event, or in ``lost`` or ``gaps``. With ``before``, ``next`` is the position
    before the first later event, so that a client can continue there."""
    tail = b',"next":%b}\n' % quote(format_position(Position(page.position.epoch, page.stop - 1)))
    return stream_events(page.channel, page.events, b"{" + page_fields(page), tail)


def page_fields(page: HistoryPage) -> bytes:
    """The fields before the events, without the brace: channel, position, and the result of a recovery."""
    position = page.position
    head = b'"channel":%b,"epoch":%b,"offset":%d' % (quote_name(page.channel), quote(position.epoch), position.offset)
    if page.recovered is not None:
        head += b',"recovered":true' if page.recovered else b',"recovered":false'
    return head + lost_field(page.lost)


def history_etag(page: HistoryPage) -> bytes:
    """The ETag of a page of the history. It is weak, because the history can drop events while the page is being sent
    (RFC 9110 section 8.8.1). If the page ends before the newest event, it contains the offset of that, which is part of
    the response. It contains the first lost offset, because events can become too old for a relative time."""
    newest, last = page.position.offset, page.stop - 1
    return b'"%b:%d-%d%b%b"' % (
        page.position.epoch,
        page.start,
        last,
        b"" if last == newest else b"/%d" % newest,
        b"" if page.lost is None else b"-lost-%d" % page.lost.first,
    )


MAX_LISTED_BYTES = 512
"""Of an event in a list of channels. Longer ones are left out, so that a page has at most 1 MiB."""


def channels_response(page: Page, with_last: bool = False) -> bytes:
    """A page of channels. ``with_last`` adds the newest event of each."""
    objects = [
        b'{"channel":%b,"readers":%d,"offset":%d,"epoch":%b,"events":%d,"bytes":%d%b}'
        % (
            quote(one.channel),
            one.readers,
            one.position.offset,
            quote(one.position.epoch),
            one.events,
            one.size,
            _last_fields(one) if with_last else b"",
        )
        for one in page.channels
    ]
    return b'{"channels":[%b],"total":%d,"next":%b}\n' % (b",".join(objects), page.total, _or_null(page.following))


def _last_fields(one: ChannelInfo) -> bytes:
    """The time of the newest event, and the event if it is short."""
    if one.newest is None:
        return b',"time":null,"last":null'
    is_short = len(one.newest.payload) <= MAX_LISTED_BYTES
    event = event_message(quote(one.channel), one.newest) if is_short else b"null"
    return b',"time":%d,"last":%b' % (one.newest.time, event if len(event) <= MAX_LISTED_BYTES else b"null")


def members_response(channel: bytes, page: Sequence[Member], readers: int, following: bytes | None) -> bytes:
    """A page of the subscribers of a channel."""
    objects = b",".join([member_object(member) for member in page])
    return b'{"channel":%b,"members":[%b],"readers":%d,"next":%b}\n' % (
        quote(channel),
        objects,
        readers,
        _or_null(following),
    )


def _or_null(name: bytes | None) -> bytes:
    return b"null" if name is None else quote(name)


MAX_POLL_BYTES = 256 * 1024
"""Of events in one response, which has at least one. The next request receives the rest."""


def poll_response(page: HistoryPage) -> bytes:
    """The events of one channel, and the event id to continue from."""
    fields, position = _poll_fields(page, MAX_POLL_BYTES)
    return b'{%b,"next":%b}\n' % (fields, quote(format_event_id([position])))


def poll_response_of_several(pages: Sequence[HistoryPage]) -> bytes:
    """The events of several channels in the order of the request, and the event id to continue from."""
    objects, positions, room = list[bytes](), list[Position](), MAX_POLL_BYTES
    for page in pages:
        fields, position = _poll_fields(page, room)
        room -= len(fields)
        objects.append(b"{%b}" % fields)
        positions.append(position)
    return b'{"channels":[%b],"next":%b}\n' % (b",".join(objects), quote(format_event_id(positions)))


def _poll_fields(page: HistoryPage, room: int) -> tuple[bytes, Position]:
    quoted = quote_name(page.channel)
    messages, last, size = list[bytes](), page.start - 1, 0
    for event in page.events:
        # The next response begins at the gap, and reports it.
        if size > room or not isinstance(event, Event):
            break
        messages.append(event_message(quoted, event))
        size += len(messages[-1])
        last = event.offset
    return b'%b,"events":[%b]' % (page_fields(page), b",".join(messages)), Position(page.position.epoch, last)


MAX_STREAM_CHANNELS = 32
"""Channels of one stream: the id of each event has the position in all of them."""

EVENT_ID_PARAMETERS = ("lastEventId", "last-event-id")
"""Query parameters with the last event id. Polyfills of EventSource that cannot set headers append the first one to a
URL that can already have the second, so the first one is newer."""

NO_STREAM_CHANNEL = Error(ErrorCode.BAD_ARGUMENT, "channel: at least one is required")

TOO_MANY_STREAM_CHANNELS = Error(
    ErrorCode.BAD_ARGUMENT, f"channel: at most {MAX_STREAM_CHANNELS} are allowed in one stream"
)

INVALID_EVENT_ID = Error(
    ErrorCode.BAD_ARGUMENT,
    "invalid last event id: send epoch:offset for each channel, separated by commas, in the order of the channels",
)


class StreamRequest(msgspec.Struct, frozen=True):
    """A request for events of channels. ``known`` has the channels in the order of an event id, with the position to
    continue from, None to start at the end."""

    known: dict[bytes, Position | None]
    last: int | None
    presence: bool = False

    def commands(self) -> list[Subscribe]:
        """The commands that a session runs for it."""
        return [
            Subscribe(
                channel,
                last=self.last,
                since=None if position is None else position.offset,
                epoch=None if position is None else position.epoch,
                presence=self.presence,
            )
            for channel, position in self.known.items()
        ]


def read_channels(parameters: QueryParameters) -> list[bytes]:
    """The channels in a query, each once. Raises ``ApiError``."""
    return list(dict.fromkeys(name.encode() for name in parameters.texts("channel")))


def read_stream_request(parameters: QueryParameters, channels: Sequence[bytes], last_event_id: str) -> StreamRequest:
    """The request for these channels. ``last_event_id`` is the header with that name: a browser that reconnects sends
    it with an unchanged query, so it takes precedence over the query. Raises ``ApiError``."""
    if not channels:
        raise ApiError(NO_STREAM_CHANNEL)
    if len(channels) > MAX_STREAM_CHANNELS:
        raise ApiError(TOO_MANY_STREAM_CHANNELS)
    for channel in channels:
        error = check_channel(channel)
        if error is not None:
            raise ApiError(error)
    for name in BOUND_PARAMETERS:
        if name in parameters:
            raise bad_parameter(name, "only allowed when reading the history: continue with next of that response")
    since, epoch = parameters.integer("since", MAX_OFFSET), parameters.text("epoch")
    if (since is None) is not (epoch is None):
        raise ApiError(SINCE_WITHOUT_EPOCH)
    last = parameters.integer("last", MAX_OFFSET)
    presence = parameters.choice("presence", ("on", "off")) == "on"
    id = last_event_id or next(filter(None, map(parameters.text, EVENT_ID_PARAMETERS)), "")
    positions: Sequence[Position | None] = [None] * len(channels)
    if id:
        known = parse_event_id(id, len(channels))
        if known is None:
            raise ApiError(INVALID_EVENT_ID)
        positions = known
    elif since is not None and epoch is not None:
        if len(channels) > 1:
            raise bad_parameter("since", "only allowed with one channel; use last-event-id with several")
        positions = [Position(epoch.encode(), since)]
    return StreamRequest(dict(zip(channels, positions, strict=True)), last, presence)
