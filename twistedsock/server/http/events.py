"""Publishing over HTTP, and the history: thin over what a visitor may ask."""

import re
from collections.abc import Callable
from hashlib import sha256

from twistedsock.auth.identity import Right
from twistedsock.codecs import http_api
from twistedsock.codecs.http_api import read_batch, read_body, together
from twistedsock.codecs.query import ApiError, QueryParameters, bad_parameter
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.future import Future, map_result, on_result
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import Position
from twistedsock.server.http.checks import recheck_auth
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.static import names
from twistedsock.session.commands import MAX_OFFSET
from twistedsock.session.registry import ServerContext
from twistedsock.session.request import OTHER_REQUEST, Answered, HistoryPage, Idempotency, PublishRequest, Told

_KEY = re.compile(rb"[ -~]{1,200}")

BAD_KEY = Error(ErrorCode.BAD_ARGUMENT, "an Idempotency-Key is 1 to 200 printable ASCII characters")

REPLAYED = {b"Idempotency-Replayed": b"true"}

Act = Callable[[], Told | Error | Future[Told]]


class EventsEndpoint:
    """Remembers what was published under which key, so there is one for a server."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._known = Idempotency(context.broker.clock)

    def publish(self, request: HTTPRequest) -> None:
        """``POST /channels/{channel}/events``: the body is the event."""
        arguments = request.arguments
        arguments.only(("name", "nick"))
        name, nick = _name(arguments, "name") or DEFAULT_EVENT_NAME, _name(arguments, "nick")
        channel, body, kind = request.channel_name, request.body, request.header(b"content-type")
        error = request.visitor.check_access(channel, Right.WRITE)
        if error is not None:  # what was done under a key is none of theirs either
            raise ApiError(error)
        content = read_body(body, kind)

        def act() -> Told | Error | Future[Told]:
            answer = request.visitor.publish(channel, content, name, nick)
            return map_result(answer, lambda place: Told(http_api.published(channel, place)))

        self._once(request, 201, act, channel, b"\0".join((name, nick, kind, body)))

    def publish_all(self, request: HTTPRequest) -> None:
        """``POST /events``: the body is a list of events."""
        arguments = request.arguments
        arguments.only(("nick",))
        nick, body, kind = _name(arguments, "nick"), request.body, request.header(b"content-type")
        asked = read_batch(body, kind, self._context.limits.max_message_bytes)
        request.charge(max(0, len(asked) - 1))
        rows = list(together(one for one in asked if isinstance(one, PublishRequest)))

        def tell(outcomes: list[Position | Error]) -> Told:
            results = http_api.results(asked, rows, outcomes)
            is_done = any(isinstance(outcome, Position) for outcome in outcomes)
            return Told(http_api.published_together(results), is_done)

        def act() -> Told | Error | Future[Told]:
            return map_result(request.visitor.publish_all(rows, nick), tell)

        self._once(request, 200, act, b"", b"\0".join((nick, kind, body)))

    def _once(self, request: HTTPRequest, status: int, act: Act, place: bytes, told: bytes) -> None:
        """Act, or tell what was done under the same key before."""
        key = _key(request)
        if key is None:
            answered = Answered(act(), False)
        else:
            answered = self._known.once((request.principal, place, key), sha256(told).digest(), act)

        def tell(outcome: Told | Error) -> None:
            if isinstance(outcome, Error):
                request.refuse(outcome, 422 if outcome is OTHER_REQUEST else None)
            else:
                request.answer_json(status, outcome.body, REPLAYED if answered.again else None)

        on_result(answered.outcome, tell)

    def history(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events``: what the log holds."""
        arguments = request.arguments
        arguments.only(("since", "epoch", "last"))
        last, since, epoch = (
            arguments.whole("last", MAX_OFFSET),
            arguments.whole("since", MAX_OFFSET),
            arguments.text("epoch"),
        )
        if epoch is not None and since is None:
            raise bad_parameter("epoch", "it comes with since")
        answer = request.visitor.history(request.channel_name, last, since, None if epoch is None else epoch.encode())
        on_result(answer, lambda kept: tell_history(request, kept))


def tell_history(request: HTTPRequest, kept: HistoryPage | Error) -> None:
    """Answer with what a log holds, unless the client has that already."""
    if isinstance(kept, Error):
        request.refuse(kept)
        return
    tag = http_api.tag(kept)
    headers = {b"ETag": b"W/" + tag}
    if names(request.header(b"if-none-match"), tag):
        request.answer(304, b"", b"", headers)
        return

    def is_allowed() -> bool:
        return recheck_auth(request) is None and request.visitor.check_access(kept.channel, Right.READ) is None

    request.answer_in_pieces(http_api.history(kept), headers, is_allowed)


def _name(arguments: QueryParameters, name: str) -> bytes:
    """A name in the query, or "" where it is not given; what it may be is asked later."""
    text = arguments.text(name)
    if text == "":
        raise bad_parameter(name, "it must not be empty")
    return b"" if text is None else text.encode()


def _key(request: HTTPRequest) -> bytes | None:
    keys = request.requestHeaders.getRawHeaders(b"idempotency-key", ())
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise ApiError(BAD_KEY)
    return keys[0]
