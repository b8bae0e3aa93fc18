"""The web port as a resource of twisted.web, so that it can be a part of a ``Site`` of another program.

The connection of each request is handed over to the web port, which reads the request again. So every check and limit
of the web port applies, and WebSockets, streams and long polls work. An HTTP response closes the connection, because
the next request on it can be for another resource.
"""

from collections.abc import Sequence
from typing import Any

from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from twistedsock.codecs.problem_details import PROBLEM_TYPE, problem_details
from twistedsock.codecs.websocket import listed
from twistedsock.errors import Error, ErrorCode
from twistedsock.limits.principal import is_loopback
from twistedsock.server.http.twisted_web_internals import detach_transport
from twistedsock.server.sockets import host_of
from twistedsock.server.web import WebFactory

NO_HTTP_2 = Error(ErrorCode.BAD_ARGUMENT, "HTTP/2 is not supported here: use HTTP/1.1")

NO_POLICY_HERE = Error(
    ErrorCode.FORBIDDEN, "the server has no access policy, so it accepts clients on this machine only"
)

_CONNECTION_HEADERS = (b"connection", b"content-length", b"expect", b"keep-alive", b"transfer-encoding")
"""Headers that describe how a request is sent. The site has received all of it."""


class WebPortResource(Resource):
    """The pages, the HTTP API and the WebSockets of a server. Children that are added with ``putChild`` come first.
    The pages work only if this is the root of the site. Without an access policy and ``allow_insecure``, it rejects
    requests to an address that other machines can reach."""

    isLeaf = False

    def __init__(self, factory: WebFactory, allow_insecure: bool) -> None:
        super().__init__()
        self._factory = factory
        self._allow_insecure = allow_insecure

    def getChild(self, path: bytes, request: Any) -> Resource:
        return _Below(self, len(request.prepath) - 1)

    def render(self, request: Any) -> Any:
        return self.hand_over(request, len([segment for segment in request.prepath if segment]))

    def hand_over(self, request: Any, depth: int) -> Any:
        """Give the connection to the web port. ``depth`` is the number of segments of the path that lead to this
        resource."""
        if not isinstance(request.channel, HTTPChannel):
            return _reject(request, NO_HTTP_2, 505)
        if not self._is_allowed(request):
            return _reject(request, NO_POLICY_HERE, 403)
        data = _rebuild(request, depth, self._factory.site.max_body)
        dispatcher: Any = self._factory.buildProtocol(request.getClientAddress())
        transport, behind = detach_transport(request.channel, dispatcher)
        dispatcher.makeConnection(transport)
        if transport.connected and not transport.disconnecting:
            dispatcher.dataReceived(data + behind)
        return NOT_DONE_YET

    def _is_allowed(self, request: Any) -> bool:
        # That of the request can be set by a client, through ``twisted.web.vhost.VHostMonsterResource``.
        host = host_of(request.channel.getHost())
        return self._allow_insecure or self._factory.context.policy is not None or not host or is_loopback(host)


class _Below(Resource):
    """All paths below a ``WebPortResource``."""

    isLeaf = True

    def __init__(self, parent: WebPortResource, depth: int) -> None:
        super().__init__()
        self._parent = parent
        self._depth = depth

    def render(self, request: Any) -> Any:
        return self._parent.hand_over(request, self._depth)


def _reject(request: Any, error: Error, status: int) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", PROBLEM_TYPE)
    return problem_details(error, status)


def _rebuild(request: Any, depth: int, max_body: int) -> bytes:
    """The request as bytes, with the rest of its path after ``depth`` segments. A body that is too long for all paths
    is cut off after ``max_body`` bytes and one more, so that it is rejected."""
    path, mark, query = request.uri.partition(b"?")
    target = b"/" + b"/".join(path.split(b"/")[depth + 1 :]) + mark + query
    body = request.content.read(max_body + 1)
    request.content.close()
    headers: list[tuple[bytes, Sequence[bytes]]] = [
        (name, values)
        for name, values in request.requestHeaders.getAllRawHeaders()
        if name.lower() not in _CONNECTION_HEADERS
    ]
    headers.append((b"Connection", [b"Upgrade" if _is_websocket(request) else b"close"]))
    if body:
        headers.append((b"Content-Length", [b"%d" % len(body)]))
    lines = [b"%b: %b\r\n" % (name, value) for name, values in headers for value in values]
    return b"%b %b %b\r\n%b\r\n%b" % (request.method, target, request.clientproto, b"".join(lines), body)


def _is_websocket(request: Any) -> bool:
    """True for a WebSocket handshake, after which the connection has no other request. With another ``Upgrade``, the
    web port would keep the connection."""
    upgrade, connection = (
        listed(b",".join(request.requestHeaders.getRawHeaders(name, ())).decode("latin-1").lower())
        for name in (b"upgrade", b"connection")
    )
    return request.clientproto == b"HTTP/1.1" and "websocket" in upgrade and "upgrade" in connection
