"""Endpoints that publish events and read the history of a channel."""

from msgspec.structs import replace

from twistedsock.auth.identity import Right
from twistedsock.codecs import http_api
from twistedsock.codecs.http_api import BOUND_PARAMETERS, read_history_query
from twistedsock.codecs.http_bodies import join_neighbours, read_batch, read_body
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.query import QueryParameters, bad_parameter
from twistedsock.errors import KEY_REUSED, Error, ErrorCode
from twistedsock.pubsub.future import Future, map_result, on_result
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME, is_idempotency_key
from twistedsock.pubsub.values import Position, Publication, RepeatedOffset
from twistedsock.server.http.headers import matches_etag
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.context import ServerContext
from twistedsock.session.idempotency import OnceResult, Publish, PublishResponse
from twistedsock.session.request import HistoryPage

INVALID_IDEMPOTENCY_KEY = Error(
    ErrorCode.BAD_ARGUMENT, "invalid Idempotency-Key: send it once, with 1 to 200 printable ASCII characters"
)

REPLAYED_HEADERS = {b"Idempotency-Replayed": b"true"}


class EventsEndpoint:
    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._idempotency = context.idempotency

    def publish(self, request: HTTPRequest) -> None:
        """``POST /channels/{channel}/events``: the body is the payload of one event."""
        parameters = request.parameters
        parameters.allow_only(("name", "nick"))
        name, nick = _name(parameters, "name") or DEFAULT_EVENT_NAME, _name(parameters, "nick")
        channel, body, content_type = request.channel_name, request.body, request.header(b"content-type")
        error = request.broker_client.check_access(channel, Right.WRITE)
        if error is not None:  # also if a response is stored for the idempotency key
            raise ApiError(error)
        publication = Publication(channel, read_body(body, content_type), name)

        def to_response(position: Position) -> PublishResponse:
            body = http_api.publish_response(channel, position)
            return PublishResponse(body, is_repeated=isinstance(position.offset, RepeatedOffset))

        def publish(key: bytes, fingerprint: bytes) -> PublishResponse | Error | Future[PublishResponse]:
            keyed = replace(publication, key=key, fingerprint=fingerprint)
            return map_result(request.broker_client.publish(keyed, nick), to_response)

        self._respond_once(request, 201, publish, channel, b"\0".join((name, nick, content_type, body)))

    def publish_batch(self, request: HTTPRequest) -> None:
        """``POST /events``: the body is a list of events."""
        parameters = request.parameters
        parameters.allow_only(("nick",))
        nick, body, content_type = _name(parameters, "nick"), request.body, request.header(b"content-type")
        items = read_batch(body, content_type, self._context.limits.max_message_bytes)
        request.charge(max(0, len(items) - 1))
        rows = list(join_neighbours(item for item in items if isinstance(item, Publication)))

        def to_response(outcomes: list[Position | Error]) -> PublishResponse:
            results = http_api.batch_results(items, rows, outcomes)
            offsets = [outcome.offset for outcome in outcomes if isinstance(outcome, Position)]
            is_repeated = bool(offsets) and all(isinstance(offset, RepeatedOffset) for offset in offsets)
            return PublishResponse(http_api.batch_response(results), bool(offsets), is_repeated)

        def publish(key: bytes, fingerprint: bytes) -> PublishResponse | Error | Future[PublishResponse]:
            keyed: list[Publication] = rows
            if key:
                keyed = [
                    replace(row, key=key + b"%d" % number, fingerprint=fingerprint) for number, row in enumerate(rows)
                ]
            return map_result(request.broker_client.publish_all(keyed, nick), to_response)

        self._respond_once(request, 200, publish, b"", b"\0".join((nick, content_type, body)))

    def _respond_once(
        self, request: HTTPRequest, status: int, publish: Publish, channel: bytes, content: bytes
    ) -> None:
        """Publish, or repeat the response to the first request with the same idempotency key."""
        key = _idempotency_key(request)
        if key is None:
            result = OnceResult(publish(b"", b""), False)
        else:
            result = self._idempotency.once((request.principal, channel, key), content, publish)

        def respond(outcome: PublishResponse | Error) -> None:
            if isinstance(outcome, Error):
                request.respond_error(outcome, 422 if outcome is KEY_REUSED else None)
            else:
                is_repeated = result.is_repeated or outcome.is_repeated
                request.respond_json(status, outcome.body, REPLAYED_HEADERS if is_repeated else None)

        on_result(result.outcome, respond)

    def read_history(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events``"""
        parameters = request.parameters
        parameters.allow_only(("since", "epoch", "last", *BOUND_PARAMETERS))
        query, epoch = read_history_query(parameters), parameters.text("epoch")
        if epoch is not None and query.since is None:
            raise bad_parameter("epoch", "it requires since")
        page = request.broker_client.history(request.channel_name, query, None if epoch is None else epoch.encode())
        on_result(page, lambda page: respond_with_history(request, page))


def respond_with_history(request: HTTPRequest, page: HistoryPage | Error) -> None:
    if isinstance(page, Error):
        request.respond_error(page)
        return
    tag = http_api.history_etag(page)
    headers = {b"ETag": b"W/" + tag}
    if matches_etag(request.header(b"if-none-match"), tag):
        request.respond(304, b"", b"", headers)
        return

    def is_allowed() -> bool:
        return (
            request.recheck_identity() is None and request.broker_client.check_access(page.channel, Right.READ) is None
        )

    request.stream_json(http_api.history_response(page), headers, is_allowed)


def _name(parameters: QueryParameters, name: str) -> bytes:
    """A name in the query, empty if it is absent. The broker checks its syntax."""
    text = parameters.text(name)
    if text == "":
        raise bad_parameter(name, "it must not be empty")
    return b"" if text is None else text.encode()


def _idempotency_key(request: HTTPRequest) -> bytes | None:
    keys = request.requestHeaders.getRawHeaders(b"idempotency-key", ())
    if not keys:
        return None
    if len(keys) > 1 or not is_idempotency_key(keys[0]):
        raise ApiError(INVALID_IDEMPOTENCY_KEY)
    return keys[0]
