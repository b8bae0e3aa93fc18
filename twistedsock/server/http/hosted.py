"""Resources of twisted.web under the web port, each below a path of its own.

A request passes the checks of the web port (host, origin, rate, size). Then Twisted's own request renders the resource,
and writes its response to the connection of the web port.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from twistedsock.errors import Error, ErrorCode
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.routing import Route
from twistedsock.server.http.static import static_files

_NAME = re.compile(r"[A-Za-z0-9._~-]+")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
"""The methods that resources receive. The web port answers OPTIONS itself."""


INVALID_FORM = Error(ErrorCode.BAD_ARGUMENT, "invalid form: not multipart/form-data as its Content-Type says")


class HostedChannel:
    """What Twisted's request needs of its connection, for one request of the web port."""

    def __init__(self, request: HTTPRequest, site: Site) -> None:
        self.site = site
        self.transport: Any = request.transport
        self._request = request
        self._connection: Any = request.connection

    def getPeer(self) -> Any:
        return self._connection.client_address

    def getHost(self) -> Any:
        return self.transport.getHost()

    def isSecure(self) -> bool:
        return self._request.listener.secure or ISSLTransport.providedBy(self.transport)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        if not self._connection.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        on_disconnect = self._request.on_disconnect
        self._request.begin_response(int(code))
        self._request.on_disconnect = on_disconnect
        lines = [b"%b: %b\r\n" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self.write(b"HTTP/1.1 %b %b\r\n%b\r\n" % (code, reason, b"".join(lines)))

    def write(self, data: bytes) -> None:
        self._request.context.stats.sent += len(data)
        self._connection.write(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._connection.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._connection.unregisterProducer()

    def requestDone(self, hosted: Any) -> None:
        self._request.on_disconnect = None
        self._request.finish()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Called by Twisted for a form that it cannot parse."""
        self._request.respond_error(INVALID_FORM)

    def loseConnection(self) -> None:
        self._connection.loseConnection()


def hosted_routes(resources: Mapping[str, IResource], own_segments: Collection[str]) -> list[Route]:
    """The routes of resources by their name: the first segment of their paths. Raises ValueError for a name that cannot
    be one, or that the server uses itself."""
    root = Resource()
    for name, resource in resources.items():
        if not _NAME.fullmatch(name) or name in own_segments:
            raise ValueError(f"invalid name of a resource: {name!r} is not one free segment of a path")
        root.putChild(name.encode(), resource)
    site = Site(root)

    def handle(request: HTTPRequest) -> None:
        hosted: Any = Request(HostedChannel(request, site))
        hosted.requestHeaders = request.requestHeaders
        hosted.gotLength(len(request.body))
        hosted.handleContentChunk(request.body)
        hosted.parseCookies()
        request.on_disconnect = lambda: hosted.connectionLost(Failure(ConnectionDone()))
        hosted.requestReceived(request.method, request.uri, request.clientproto)

    return [
        Route(method, path, handle, authenticates=False, answers_head=False, takes_body=method not in ("GET", "HEAD"))
        for name in resources
        for path in (f"/{name}", f"/{name}/{{path}}")
        for method in METHODS
    ]


def own_segments(routes: Iterable[Route]) -> set[str]:
    """The first segments of the paths that the server uses itself."""
    paths = [route.path for route in routes] + [path.decode() for path in static_files()]
    return {path.split("/")[1] for path in paths}
