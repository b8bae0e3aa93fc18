"""The plain HTTP side of the web port: the page and what it needs, through twisted.web."""

import mimetypes
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from io import BytesIO
from typing import Any

import msgspec
from twisted.logger import Logger, LogPublisher
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from twistedsock.core.bridge import Bridge
from twistedsock.wire.http_head import MOST_HEADERS

JudgeHost = Callable[[str, Any], tuple[int, str] | None]

IDLE = 60
"""Seconds that a kept-alive HTTP connection may be silent."""

SECURITY = {
    b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}
"""Sent with every answer. The page needs nothing but its own files and its own socket."""

MOST_REQUESTS = 30
"""Requests on one connection, then it is closed. All that came in one read are answered in one go, and a read has room
for two thousand of them; a browser needs six for the page."""

PROXIED = ("Forwarded", "Via", "X-Forwarded-For")
"""Headers that proxies add (RFC 7239, RFC 9110 section 7.6.3)."""

# The types that matter must not depend on the machine's own table.
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


class Plain(Resource):
    """One answer, the same for everybody."""

    isLeaf = True

    def __init__(self, body: bytes, kind: str, status: int = 200, headers: dict[bytes, bytes] | None = None) -> None:
        super().__init__()
        self._body = body
        self._tag = b'"' + sha256(body).hexdigest()[:16].encode() + b'"'
        self._status = status
        self._headers = {
            b"Content-Type": (kind + "; charset=utf-8").encode(),
            b"Cache-Control": b"no-cache",
            **SECURITY,
            **(headers or {}),
        }

    def render_GET(self, request: Any) -> bytes:
        request.setResponseCode(self._status, HTTPStatus(self._status).phrase.encode())
        for name, value in self._headers.items():
            request.setHeader(name, value)
        if self._status == 200 and request.setETag(self._tag):
            return b""  # 304: the browser has it
        if request.method == b"HEAD":
            request.setHeader(b"Content-Length", b"%d" % len(self._body))
            return b""
        return self._body

    def render(self, request: Any) -> Any:
        """Twisted's own answer to other methods would lack our headers."""
        if request.method in (b"GET", b"HEAD"):
            return self.render_GET(request)
        return refused(405, "GET is all that can be done here", {b"Allow": b"GET, HEAD"}).render_GET(request)


def refused(status: int, words: str, headers: dict[bytes, bytes] | None = None) -> Plain:
    """An answer that refuses."""
    return Plain(words.encode() + b"\n", "text/plain", status, headers)


class Bodiless(Request):
    """A request whose body is thrown away as it comes: nothing here wants one, and Twisted would keep it all, however
    long it is."""

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Forget it."""


MOST_DIGITS = 19
"""Of a Content-Length: 2^63 has as many."""


class Channel(HTTPChannel):
    """An HTTP connection. Python reads no number of more than 4,300 digits, which Twisted does not expect: anybody
    could fill the log with tracebacks. And a body in chunks, which nothing here wants, can be of a byte each: one read
    of them takes it ten times as long as is fair to others, and there is no end to them."""

    transport: Any
    maxHeaders = MOST_HEADERS
    # It tells of each connection that was silent for too long: a stranger could fill the disk with them.
    _log = Logger(observer=LogPublisher())

    def dataReceived(self, data: bytes) -> None:
        """TLS goes on to deliver what comes behind the last answer, and Twisted is not prepared for it."""
        if not self.transport.disconnecting:
            super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        field = name.lower()
        if field == b"transfer-encoding" or (field == b"content-length" and len(value.strip()) > MOST_DIGITS):
            line = name + b": not read"  # so it is refused as any other that is not understood
        return super().headerReceived(line)

    def loseConnection(self) -> None:
        """Who does not answer the goodbye of TLS, or does not read, is waited for no longer than who says nothing."""
        super().loseConnection()
        self.setTimeout(None)
        if self._abortingCall is None:
            self._abortingCall = self.callLater(IDLE, self.forceAbortClient)


class BridgeSite(Site):
    """``/`` and its files, ``/bridge.json`` for the page, 426 at ``/ws``, 404 for the rest. What is asked for is not
    logged: a URL may hold a secret."""

    noisy = False
    protocol: Any = Channel
    requestFactory = Bodiless

    def __init__(
        self,
        reactor: Any,
        bridge: Bridge,
        judge_host: JudgeHost,
        lines: Callable[[], list[dict[str, object]]],
    ) -> None:
        super().__init__(Resource(), reactor=reactor, timeout=IDLE)
        self._judge_host = judge_host
        self._lines = lines
        self._version = bridge.version.decode()
        self._files = {b"/" + name.encode(): Plain(body, kind, 200, extra) for name, body, kind, extra in _static()}
        self._files[b"/"] = self._files.pop(b"/index.html")
        self._files[b"/ws"] = refused(
            426, "this is where the WebSocket is", {b"Upgrade": b"websocket", b"Connection": b"Upgrade"}
        )

    def getResourceFor(self, request: Any) -> Resource:
        channel = request.channel
        channel.requests_served = getattr(channel, "requests_served", 0) + 1
        if channel.requests_served >= MOST_REQUESTS:
            request.setHeader(b"Connection", b"close")
            channel.persistent = False
        if any(map(request.requestHeaders.hasHeader, PROXIED)):
            # A proxy would send the next request of any client of its own this way, a WebSocket's among them.
            request.setHeader(b"Connection", b"close")
            request.channel.persistent = False
        # On a connection that is kept alive, each request can name another host.
        verdict = self._judge_host((request.getHeader(b"host") or b"").decode("latin-1"), request.transport)
        if verdict is not None:
            return refused(*verdict)
        if request.path == b"/bridge.json":
            about = {"lines": self._lines(), "version": self._version}
            return Plain(msgspec.json.encode(about), "application/json")
        return self._files.get(request.path) or refused(404, "there is nothing here")

    def log(self, request: Any) -> None:
        """Nothing."""


def _static() -> list[tuple[str, bytes, str, dict[bytes, bytes] | None]]:
    found = []
    for file in files("twistedsock").joinpath("static").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        kind = _TYPES.get(suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        # The client is for anybody's page to import, and an import across origins asks for this.
        extra = {b"Access-Control-Allow-Origin": b"*"} if file.name == "sockbridge.js" else None
        found.append((file.name, file.read_bytes(), kind, extra))
    return found
