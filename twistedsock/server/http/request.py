"""One request, as operations see it: who asks for what, and how it is answered."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import nsmallest
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from twisted.web.http import Request

from twistedsock.auth.identity import Identity, Policy
from twistedsock.codecs.query import LIMIT_OVER, MEDIA_TYPE, STATUS, ApiError, QueryParameters, problem_details
from twistedsock.errors import INTERNAL, TOO_FAST, Error, ErrorCode
from twistedsock.limits.principal import Principal, subject_principal
from twistedsock.limits.rate import RateLimiter, answer_price, unreadable_price
from twistedsock.server.connection import log_exception
from twistedsock.server.http.checks import BAD_TOKEN, RejectedRequest, check_request, recheck_auth
from twistedsock.server.http.response import StreamingResponse
from twistedsock.server.http.routes import Found, Route
from twistedsock.server.sockets import ListenerConfig, endpoints_of
from twistedsock.session.encoder import Endpoints
from twistedsock.session.registry import ServerContext
from twistedsock.session.request import RequestClient

if TYPE_CHECKING:
    from twistedsock.server.http.connection import HTTPConnection
    from twistedsock.server.http.static import StaticFile

PAGE = {
    b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}
"""Sent with every file. Our pages need nothing but their own files and their own socket."""

DATA = {
    b"Content-Security-Policy": b"default-src 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cache-Control": b"no-store",
}
"""Sent with every other answer: nobody is to show it as a page, or to keep it."""

ALLOWED_HEADERS = (
    b"Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Sockbridge-Stream"
)
"""Headers that pages of allowed origins can send. Implementations of EventSource send Cache-Control."""

EXPOSED_HEADERS = b"Allow, ETag, Idempotency-Replayed, Retry-After, WWW-Authenticate"
"""Headers that pages of allowed origins can read, besides those that every page can read (Fetch, "CORS-safelisted
response-header name")."""

PREFLIGHT_AGE = 600
"""Seconds that a browser may remember what it was allowed."""


def block(headers: Mapping[bytes, bytes]) -> bytes:
    """Headers as they are written; ValueError where one of them would be two."""
    written = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
    if not written.count(b"\r") == written.count(b"\n") == len(headers):
        raise ValueError("a header holds a line break")
    return written


BODILESS = (204, 304)
"""Answers that have no body, and say nothing of one (RFC 9110 section 6.4.1)."""

JSON = b"application/json"

_DATA = block(DATA)

_EXPOSED = b"Access-Control-Expose-Headers: %s\r\n" % EXPOSED_HEADERS


class HTTPRequest(Request):
    """What an operation gets. It is answered once, by ``answer``, ``answer_json`` or ``refuse``, now or later;
    where the client has gone meanwhile, answers are thrown away. An operation may raise ``ApiError``."""

    channel: Any
    method: bytes
    content = None

    query = b""
    file: "StaticFile | None" = None
    found: Found | None = None
    route: Route | None = None
    origin = b""
    """Of which page it comes, if that may ask; empty where no page asks."""
    identity: Identity | None = None
    """Who asks, where there is a policy and the route asks who. None for who has shown nothing."""
    judged_by: Policy | None = None
    """The policy that has found that out."""
    has_begun = False
    """Whether its head is there."""
    _rejection: RejectedRequest | None = None
    _arguments: QueryParameters | None = None
    _answered = False

    def __init__(self, channel: "HTTPConnection", queued: object = False) -> None:
        super().__init__(channel, queued)
        self.connection = channel
        self._body = bytearray()
        self.on_gone: Callable[[], object] | None = None
        """To be called when the client goes before it has been answered."""
        self.on_drain: Callable[[], object] | None = None
        """To be called when the server goes away while this one waits to be answered: it is to be answered soon."""

    # Who asks for what.

    @property
    def context(self) -> ServerContext:
        return self.connection.site.context

    @property
    def reactor(self) -> Any:
        return self.connection.site.reactor

    @property
    def listening(self) -> ListenerConfig:
        return self.connection.site.listening

    @property
    def ends(self) -> Endpoints:
        """Both ends of its connection; the client's as a trusted proxy tells it."""
        return endpoints_of(self.transport, self.connection.peer)

    @property
    def meter(self) -> RateLimiter | None:
        """What it is charged to; None if the rate is not limited."""
        return self.connection.meter_of(self.principal)

    @property
    def principal(self) -> Principal:
        """Whose request it is, for rates, limits and shared tables: an identity that it proves, else its address."""
        subject = b"" if self.identity is None else self.identity.subject
        return subject_principal(subject) if subject else self.connection.principal

    @property
    def is_admin(self) -> bool:
        return self.context.is_admin(self.identity, self.ends.client)

    @property
    def visitor(self) -> RequestClient:
        """Who asks, for what is asked of the broker."""
        return RequestClient(self.context, self.listening.endpoint, self.ends.client, self.identity)

    @property
    def captured(self) -> bytes:
        """What stands in the place of the capture of the route's path, decoded; it may be no UTF-8."""
        return b"" if self.found is None else self.found.captured

    @property
    def channel_name(self) -> bytes:
        """What the path captures, where that is a channel."""
        return self.captured

    @property
    def arguments(self) -> QueryParameters:
        """Its query; raises ``ApiError`` where it cannot be read."""
        if self._arguments is None:
            self._arguments = QueryParameters(self.query)
        return self._arguments

    @property
    def body(self) -> bytes:
        """What it brings."""
        return bytes(self._body)

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for an answer any longer; also when there was one."""
        return self._answered or bool(self._disconnected)

    def header(self, name: bytes) -> bytes:
        """A header, in lower case, of which only one is expected; "" where there is none."""
        return cast(bytes, self.getHeader(name)) or b""

    def charge(self, price: float) -> None:
        """It costs that much more than the one command that each request costs; raises ``ApiError`` if that exceeds the
        rate."""
        if price and self.connection.is_too_fast(self.principal, price):
            raise ApiError(TOO_FAST)

    def charge_afterwards(self, price: float) -> None:
        """It turned out to cost that much more; it is not refused any more."""
        if (meter := self.meter) is not None:
            meter.charge(price)

    # How it is answered.

    def answer(self, status: int, kind: bytes, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> None:
        """A whole answer. ``headers`` stand in place of those that all data has; ``kind`` is the type of the body."""
        if self.is_gone:
            return
        head = self._head(status, kind, len(body), _DATA if headers is None else block(headers))
        self._answered, self.on_gone, self.on_drain = True, None, None
        self.context.stats.count_response(self.method, status)
        # In one send, the head and the body.
        whole = head if self.method == b"HEAD" or status in BODILESS else head + body
        self.context.stats.sent += len(whole)
        self.channel.write(whole)
        self.code, self.startedWriting = status, 1
        self.finish()

    def answer_json(self, status: int, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> None:
        """JSON, and ``headers`` besides those that all data has."""
        self.charge_afterwards(int(answer_price(len(body))))
        self.answer(status, JSON, body, {**DATA, **headers} if headers else None)

    def answer_in_pieces(
        self, pieces: Iterator[bytes], headers: Mapping[bytes, bytes], is_allowed: Callable[[], bool]
    ) -> None:
        """JSON that may be long, no faster than the client reads it. ``pieces`` are of about a chunk, and are asked for
        when there is room for them; the answer breaks off where it ``is_allowed`` no longer."""
        if self.method == b"HEAD":
            self.answer_head({b"Content-Type": JSON, **DATA, **headers})
            return
        if self.is_gone:
            return
        first = next(pieces)
        second = next(pieces, None)
        if second is None:
            self.answer_json(200, first, headers)
            return
        self._answered = True
        self.context.stats.count_response(self.method, 200)
        # HTTP/1.0 has no chunks: the end of the connection is the end of the answer, and a reset is no end.
        self.chunked = int(self.clientproto == b"HTTP/1.1")
        framing = {b"Transfer-Encoding": b"chunked"} if self.chunked else {}
        self.channel.write(self._head(200, JSON, None, block({**DATA, **headers, **framing})))
        self.code, self.startedWriting = 200, 1
        StreamingResponse(self, self._charged(chain((first, second), pieces)), is_allowed).begin()

    def _charged(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.charge_afterwards(answer_price(len(piece)))
            yield piece

    def refuse(self, error: Error, status: int | None = None, headers: Mapping[bytes, bytes] | None = None) -> None:
        """Tell why not. The status is that of the code, where no other is given."""
        self.context.stats.count_error(error.code)
        more = dict(headers or {})
        status = status or STATUS[error.code]
        if error.code is ErrorCode.UNAUTHORIZED:
            more.setdefault(b"WWW-Authenticate", b"Bearer")
        elif error.code is ErrorCode.LIMIT:
            more.setdefault(b"Retry-After", b"%d" % LIMIT_OVER)
        elif error.code is ErrorCode.RATE:
            more.setdefault(b"Retry-After", b"%d" % (self.meter.wait if self.meter is not None else 1))
        self.answer(status, MEDIA_TYPE, problem_details(error, status), {**DATA, **more})

    def answer_head(self, headers: Mapping[bytes, bytes]) -> None:
        """The answer to HEAD, where nobody knows how long the body would be."""
        if self.is_gone:
            return
        self._answered = True
        self.context.stats.count_response(self.method, 200)
        self.channel.write(self._head(200, b"", None, block(dict(headers))))
        self.code, self.startedWriting = 200, 1
        self.finish()

    def give_away(self, owner: Any, headers: Mapping[bytes, bytes]) -> bytes:
        """The connection is another protocol's from here on: what comes in goes to it, and what goes out is its own.
        Gives the head of an answer without an end, which it is to write before all else."""
        self._answered = True
        self.context.stats.count_response(self.method, 200)
        self.connection.persistent = False
        head = self._head(200, b"", None, block(dict(headers)))
        self.connection.give_away(owner)
        return head

    def _head(self, status: int, kind: bytes, length: int | None, headers: bytes) -> bytes:
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())]
        lines.append(b"Date: %s\r\n" % self.connection.site.date)
        if kind:
            lines.append(b"Content-Type: %s\r\n" % kind)
        if length is not None and status not in BODILESS:
            lines.append(b"Content-Length: %d\r\n" % length)
        lines.append(headers)
        if self.origin and not (self.file is not None and self.file.is_for_everybody):
            lines.append(b"Access-Control-Allow-Origin: %s\r\n" % self.origin)
            lines.append(_EXPOSED)
        if self.file is None:
            lines.append(b"Vary: Origin\r\n")
        if not self.connection.persistent:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    # What the connection tells.

    def begin(self, method: bytes, uri: bytes, version: bytes, length: int | None) -> None:
        """The head is there. ``length`` is that of the body, None where it is told later."""
        self.has_begun = True
        self.method, self.uri, self.clientproto = method, uri, version
        self.set_target(uri)
        self._rejection = check_request(self, length)

    def set_target(self, target: bytes) -> None:
        """Set the path and the query from a target in origin form."""
        self.path, _, self.query = target.partition(b"?")

    @property
    def is_document(self) -> bool:
        """Whether a browser wants to show the answer as a page, in a tab or in a frame (Fetch Metadata, section 2).
        Browsers omit that header over plain HTTP, but then they accept HTML."""
        mode, accept = self.header(b"sec-fetch-mode"), self.header(b"accept").lower()
        return mode == b"navigate" or (not mode and b"text/html" in accept and b"text/event-stream" not in accept)

    @property
    def is_preflight(self) -> bool:
        """Whether a browser asks what a page may ask (the Fetch standard, "CORS-preflight request")."""
        return bool(self.method == b"OPTIONS" and self.origin and self.header(b"access-control-request-method"))

    @property
    def allow(self) -> bytes:
        """The methods of its path, as the header Allow lists them; empty if there is nothing at the path."""
        if self.file is not None:
            return b"GET, HEAD"
        if self.path == b"*":  # the server as a whole (RFC 9110 section 9.3.7)
            return b"GET, HEAD, POST, DELETE"
        return b"" if self.found is None else self.found.allow

    @property
    def is_refused(self) -> bool:
        return self._rejection is not None

    @property
    def most_body(self) -> int:
        """Bytes that it may bring."""
        given = None if self.route is None else self.route.most_body
        return self.context.limits.max_message_bytes if given is None else given

    @property
    def too_long(self) -> Error:
        """It brings more."""
        return Error(ErrorCode.TOO_LONG, f"that is longer than {self.most_body} bytes")

    def came(self, data: bytes) -> Error | None:
        """A piece of the body; why it may not be, if so."""
        if self._rejection is None:
            self._body += data
            if len(self._body) > self.most_body:
                return self.too_long
        return None

    @property
    def held(self) -> int:
        """Bytes of the body that are held."""
        return len(self._body)

    def forget_body(self) -> None:
        """Nobody needs it any longer."""
        self._body = bytearray()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        self.process()

    def process(self) -> None:
        """Answer it, or begin to."""
        if self._rejection is not None:
            self.refuse(self._rejection.error, self._rejection.status, self._rejection.headers)
        elif self.method == b"OPTIONS":
            self._answer_options()
        elif self.file is not None:
            self.file.answer(self)
        elif (error := recheck_auth(self)) is not None:
            self.refuse(error, headers=BAD_TOKEN)
        elif self.route is not None:
            self._run(self.route)

    def _run(self, route: Route) -> None:
        self.connection.site.has_asked(self)
        try:
            route.operation(self)
        except ApiError as refused:
            if refused.error.code is ErrorCode.BAD_JSON:
                self.charge_afterwards(unreadable_price(len(self._body)))
            self.refuse(refused.error, refused.status)
        except Exception:
            log_exception()
            self.refuse(INTERNAL)

    def _answer_options(self) -> None:
        """Answer a preflight request, or any other OPTIONS, which is the default health check of HAProxy."""
        headers = {b"Allow": self.allow, **DATA}
        if self.is_preflight:
            headers = {
                b"Access-Control-Allow-Methods": self.allow,
                b"Access-Control-Allow-Headers": ALLOWED_HEADERS,
                b"Access-Control-Max-Age": b"%d" % PREFLIGHT_AGE,
            }
        self.answer(204, b"", b"", headers)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if self.on_gone is not None:
            on_gone, self.on_gone = self.on_gone, None
            on_gone()

    # What Twisted would do with a body, or with cookies.

    def gotLength(self, length: int | None) -> None:
        """Nothing is kept on a disk."""

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        self.connection.body_came(self, data)

    def parseCookies(self) -> None:
        """They are looked at where a policy wants one."""


T = TypeVar("T")

DEFAULT_PAGE_SIZE = 100
"""Entries of a list, where nothing else is asked for."""

MAX_ON_PAGE = 1_000
"""At most: some hundred kibibytes, which are written in one go."""

PAGING = ("after", "limit")
"""The arguments by which a page is asked for."""


class Pagination(msgspec.Struct, frozen=True):
    """What is wanted: ``most`` entries at most, of those behind ``after``."""

    after: bytes
    most: int

    def page(self, entries: Iterable[T], name: Callable[[T], bytes]) -> tuple[list[T], bytes | None]:
        """Those that are wanted, by name, and what the next page is ``after``; None where there is none."""
        found = nsmallest(self.most + 1, [entry for entry in entries if name(entry) > self.after], key=name)
        return found[: self.most], name(found[self.most - 1]) if len(found) > self.most else None


def read_pagination(arguments: QueryParameters) -> Pagination:
    """Raises ``Refused``."""
    after = (arguments.text("after") or "").encode()
    return Pagination(after, arguments.whole("limit", MAX_ON_PAGE, least=1) or DEFAULT_PAGE_SIZE)


# TODO-MERGED-DOC: Headers that many answers have.

# TODO-MERGED-DOC: Lists that are told a page at a time, by name: who reads on asks for what comes ``after`` the
# last that was told.
