"""One request, as operations see it: who asks for what, and how it is answered."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from twisted.web.http import Request, datetimeToString

from twistedsock.core.access import Identity
from twistedsock.core.bridge import Bridge
from twistedsock.core.dialect import Ends
from twistedsock.core.errors import INTERNAL, TOO_FAST, Code, Refusal
from twistedsock.core.rate import Meter
from twistedsock.shells.faults import report_fault
from twistedsock.shells.http.headers import ALLOWED_HEADERS, DATA, PREFLIGHT_AGE, block
from twistedsock.shells.http.routes import Found, Route
from twistedsock.shells.listening import Listening
from twistedsock.shells.sockets import ends_of, here_of
from twistedsock.wire.arguments import Arguments
from twistedsock.wire.problems import LIMIT_OVER, MEDIA_TYPE, STATUS, Refused, problem

if TYPE_CHECKING:
    from twistedsock.shells.http.connection import HttpConnection
    from twistedsock.shells.http.files import StaticFile

NOTHING_HERE = Refusal(Code.UNKNOWN_COMMAND, "there is nothing here")
NOT_LIKE_THIS = Refusal(Code.UNKNOWN_COMMAND, "that cannot be done here; the header Allow tells what can")
ONE_HOST = Refusal(Code.BAD_ARGUMENT, "a request names one host, and one origin at most")
NO_BODY_HERE = Refusal(Code.BAD_ARGUMENT, "only a POST has a body")
GOING_AWAY = Refusal(Code.UNAVAILABLE, "the server is going away")

BODILESS = (204, 304)
"""Answers that have no body, and say nothing of one (RFC 9110 section 6.4.1)."""

PROXIED = (b"forwarded", b"via", b"x-forwarded-for")
"""Headers that proxies add (RFC 7239, RFC 9110 section 7.6.3)."""

JSON = b"application/json"

_DATA = block(DATA)


class BridgeRequest(Request):
    """What an operation gets. It is answered once, by ``answer``, ``answer_json``, ``refuse`` or ``open_stream``, now
    or later; where the client has gone meanwhile, answers are thrown away. An operation may raise
    ``Refused``."""

    channel: Any
    method: bytes
    content = None

    route: Route | None = None
    captured = b""
    """What stands in the place of the capture of the route's path, decoded; it may be no UTF-8."""
    query = b""
    identity: Identity | None = None
    """Who asks, where there is a policy and the route asks who; it may be nobody."""
    _file: "StaticFile | None" = None
    _origin = b""
    _refused: tuple[Refusal, int, dict[bytes, bytes]] | None = None
    _preflight: Found | None = None
    _arguments: Arguments | None = None
    _pieces: list[bytes]
    _size = 0
    _most = 0
    _answered = False

    def __init__(self, channel: "HttpConnection", queued: object = False) -> None:
        super().__init__(channel, queued)
        self.connection = channel
        self.on_gone: Callable[[], object] | None = None
        """To be called when the client goes before it has been answered, or before its stream has ended."""
        self.on_drain: Callable[[], object] | None = None
        """To be called when the server goes away while this one waits to be answered: it is to be answered soon."""

    # Who asks for what.

    @property
    def bridge(self) -> Bridge:
        return self.connection.site.bridge

    @property
    def reactor(self) -> Any:
        return self.connection.site.reactor

    @property
    def listening(self) -> Listening:
        return self.connection.site.listening

    @property
    def ends(self) -> Ends:
        """Both ends of its connection; the client's as a trusted proxy tells it."""
        return ends_of(self.transport, self.connection.peer)

    @property
    def meter(self) -> Meter | None:
        return self.connection.meter

    @property
    def is_admin(self) -> bool:
        return self.bridge.is_admin(self.identity, self.ends.client)

    @property
    def channel_name(self) -> bytes:
        """What the path captures, where that is a channel."""
        return self.captured

    @property
    def arguments(self) -> Arguments:
        """Its query; raises ``Refused`` where it cannot be read."""
        if self._arguments is None:
            self._arguments = Arguments(self.query)
        return self._arguments

    @property
    def body(self) -> bytes:
        """What it brings."""
        return b"".join(self._pieces)

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for an answer any longer."""
        return self._answered or bool(self._disconnected)

    def header(self, name: bytes) -> bytes:
        """A header, in lower case, of which only one is expected; "" where there is none."""
        return cast(bytes, self.getHeader(name)) or b""

    def charge(self, commands: int) -> None:
        """It is so many commands more than the one that each request is; raises ``Refused`` where that is too fast."""
        if self.connection.is_too_fast(commands):
            raise Refused(TOO_FAST)

    # How it is answered.

    def answer(self, status: int, kind: bytes, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> None:
        """A whole answer. ``headers`` stand in place of those that all data has; ``kind`` is the type of the body."""
        if self.is_gone:
            return
        self._answered = True
        self.bridge.tally.answer(self.method, status)
        head = self._head(status, kind, len(body), _DATA if headers is None else block(dict(headers)))
        # In one send, the head and the body.
        self.channel.write(head if self.method == b"HEAD" or status in BODILESS else head + body)
        self.code, self.startedWriting = status, 1
        self.finish()

    def answer_json(self, status: int, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> None:
        """JSON, and ``headers`` besides those that all data has."""
        self.answer(status, JSON, body, {**DATA, **headers} if headers else None)

    def refuse(self, refusal: Refusal, status: int | None = None, headers: Mapping[bytes, bytes] | None = None) -> None:
        """Tell why not. The status is that of the code, where no other is given."""
        self.bridge.tally.refuse(refusal.code)
        more = dict(headers or {})
        status = status or STATUS[refusal.code]
        if refusal.code is Code.UNAUTHORIZED:
            more.setdefault(b"WWW-Authenticate", b"Bearer")
        elif refusal.code is Code.LIMIT:
            more.setdefault(b"Retry-After", b"%d" % LIMIT_OVER)
        elif refusal.code is Code.RATE:
            more.setdefault(b"Retry-After", b"1")
        self.answer(status, MEDIA_TYPE, problem(refusal, status), {**DATA, **more})

    def open_stream(self, kind: bytes) -> tuple[Any, bytes]:
        """An answer without an end: gives the transport and the head of the answer, which is to be written before all
        else. What the client still says is dropped. The stream ends with ``close_stream``, or when ``on_gone`` is
        called."""
        self._answered = True
        self.bridge.tally.answer(self.method, 200)
        self.connection.persistent = False
        head = self._head(200, kind, None, _DATA)
        self.connection.become_stream(self)
        return self.connection.transport, head

    def close_stream(self) -> None:
        """What was written leaves, then the connection ends."""
        self.connection.end_stream()

    def _head(self, status: int, kind: bytes, length: int | None, headers: bytes) -> bytes:
        lines = [b"HTTP/1.1 %d %s\r\nDate: %s\r\n" % (status, HTTPStatus(status).phrase.encode(), datetimeToString())]
        if kind:
            lines.append(b"Content-Type: %s\r\n" % kind)
        if length is not None and status not in BODILESS:
            lines.append(b"Content-Length: %d\r\n" % length)
        lines.append(headers)
        if self._origin:
            lines.append(b"Access-Control-Allow-Origin: %s\r\n" % self._origin)
        if self._file is None:
            lines.append(b"Vary: Origin\r\n")
        if not self.connection.persistent:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    # What the connection tells.

    def begin(self, method: bytes, uri: bytes, length: int | None) -> None:
        """The head is there. ``length`` is that of the body, None where it is told later."""
        self.method, self.uri = method, uri
        self.path, _, self.query = uri.partition(b"?")
        self._pieces = []
        self._refused = self._judge(length)

    @property
    def is_refused(self) -> bool:
        return self._refused is not None

    def _judge(self, length: int | None) -> tuple[Refusal, int, dict[bytes, bytes]] | None:
        connection, site, headers = self.connection, self.connection.site, self.requestHeaders
        hosts, origins = headers.getRawHeaders(b"host", ()), headers.getRawHeaders(b"origin", ())
        if len(hosts) > 1 or len(origins) > 1:
            connection.persistent = False
            return ONE_HOST, 400, {}
        if any(map(headers.hasHeader, PROXIED)):
            # A proxy would send the next request of any client of its own this way, a WebSocket's among them.
            connection.persistent = False
        if connection.is_too_fast(1):
            return TOO_FAST, 429, {}
        # On a connection that is kept alive, each request can name another host.
        host, door = b"".join(hosts).decode("latin-1"), here_of(self.transport).door
        verdict = site.gate.judge_host(host, door)
        if verdict is not None:
            return Refusal(Code.FORBIDDEN, verdict[1]), verdict[0], {}
        self._file = site.files.get(self.path)
        if self._file is None and origins:
            verdict = site.gate.judge(host, origins[0].decode("latin-1"), door, "request")
            if verdict is not None:
                return Refusal(Code.FORBIDDEN, verdict[1]), verdict[0], {}
            self._origin = origins[0]
        return self._judge_method(length)

    def _judge_method(self, length: int | None) -> tuple[Refusal, int, dict[bytes, bytes]] | None:
        site = self.connection.site
        if length != 0 and self.method != b"POST":
            self.connection.persistent = False
            return NO_BODY_HERE, 400, {}
        if self._file is not None:
            allowed = self.method in (b"GET", b"HEAD")
            return None if allowed else (NOT_LIKE_THIS, 405, {b"Allow": b"GET, HEAD"})
        found = site.routes.find(self.path)
        if found is None:
            return NOTHING_HERE, 404, {}
        if (
            self.method == b"OPTIONS"
            and self._origin
            and self.requestHeaders.hasHeader(b"access-control-request-method")
        ):
            self._preflight = found
            return None
        route = self.route = found.methods.get(self.method)
        if route is None:
            return NOT_LIKE_THIS, 405, {b"Allow": found.allow}
        self.captured = found.captured
        if self.bridge.draining:
            self.connection.persistent = False
            if not route.drains:
                return GOING_AWAY, 503, {}
        if route.asks_who:
            outcome = self.connection.recognize(self)
            if isinstance(outcome, Refusal):
                return outcome, 401, {b"WWW-Authenticate": b'Bearer error="invalid_token"'}
            self.identity = outcome
        self._most = self.bridge.limits.max_message if route.most_body is None else route.most_body
        if length is not None and length > self._most:
            self.connection.persistent = False
            return self._too_long(), 413, {}
        return None

    def _too_long(self) -> Refusal:
        return Refusal(Code.TOO_LONG, f"that is longer than {self._most} bytes")

    def came(self, data: bytes) -> Refusal | None:
        """A piece of the body; why it may not be, if so."""
        if self._refused is not None:
            return None  # it is dropped
        self._size += len(data)
        if self._size > self._most:
            return self._too_long()
        self._pieces.append(data)
        return None

    @property
    def held(self) -> int:
        """Bytes of the body that are held."""
        return self._size

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        self.process()

    def process(self) -> None:
        if self._refused is not None:
            self.refuse(*self._refused)
        elif self._file is not None:
            self._file.answer(self)
        elif self._preflight is not None:
            self._answer_preflight(self._preflight)
        elif self.route is not None:
            self.connection.site.running[self] = None
            try:
                self.route.operation(self)
            except Refused as refused:
                self.refuse(refused.refusal, refused.status)
            except Exception:
                report_fault()
                self.refuse(INTERNAL)

    def _answer_preflight(self, found: Found) -> None:
        self.answer(
            204,
            b"",
            b"",
            {
                b"Access-Control-Allow-Methods": found.allow,
                b"Access-Control-Allow-Headers": ALLOWED_HEADERS,
                b"Access-Control-Max-Age": b"%d" % PREFLIGHT_AGE,
            },
        )

    def refuse_now(self, refusal: Refusal, status: int | None = None) -> None:
        """In the midst of its body."""
        self.refuse(refusal, status)

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
