"""Finds the route of a request by its path and method."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

_CAPTURE = "{"
"""Begins the variable segment of a path. A path has at most one."""


class Route(msgspec.Struct, frozen=True):
    """A method of a path. ``handler`` is called with the ``HTTPRequest`` and responds at once or later."""

    method: str
    """A GET route serves HEAD too if ``answers_head``."""
    path: str
    """May contain one variable segment: ``/channels/{channel}/events``."""
    handler: Callable[[Any], object]
    max_body: int | None = None
    """Bytes of a request body. None: the maximum size of a message."""
    authenticates: bool = True
    """Authenticate the client before the handler is called, so that ``request.identity`` is set."""
    answers_head: bool = True
    takes_body: bool = False
    """Accept a request body with another method than POST."""
    available_during_shutdown: bool = False
    allows_every_origin: bool = False
    """Pages of every origin can read the response, without credentials."""
    allows_credentials: bool = False
    """Pages of allowed origins can read the response of a request with cookies. Browsers send cookies with every
    WebSocket of such a page, too."""
    on_rejected: Callable[[Any], object] | None = None
    """Called with a request whose body is too long or not complete in time. The handler is not called."""


class RouteMatch(msgspec.Struct, frozen=True):
    """The routes of a path by method, and the decoded value of its variable segment."""

    methods: dict[bytes, Route]
    captured: bytes = b""

    @property
    def allows_every_origin(self) -> bool:
        return any(route.allows_every_origin for route in self.methods.values())

    @property
    def allows_credentials(self) -> bool:
        return any(route.allows_credentials for route in self.methods.values())

    @property
    def allow(self) -> bytes:
        """The value of the header ``Allow``."""
        return b", ".join(self.methods)


class Routes:
    """All routes of the HTTP API. Shared by all listeners. Static files are not among them."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._literal: dict[bytes, RouteMatch] = {}
        self._variable: dict[tuple[bytes, bytes], dict[bytes, Route]] = {}
        self.max_body = 0
        """The largest ``max_body`` of a route that has one."""
        for route in routes:
            self.max_body = max(self.max_body, route.max_body or 0)
            before, brace, rest = route.path.partition(_CAPTURE)
            after = rest.partition("}")[2]
            if brace:
                methods = self._variable.setdefault((before.encode(), after.encode()), {})
            else:
                methods = self._literal.setdefault(before.encode(), RouteMatch({})).methods
            methods[route.method.encode()] = route
            if route.method == "GET" and route.answers_head:
                methods[b"HEAD"] = route

    def find(self, path: bytes) -> RouteMatch | None:
        """Match a path as it was sent. The variable segment is percent-decoded and can contain slashes."""
        found = self._literal.get(path)
        if found is not None:
            return found
        for (before, after), methods in self._variable.items():
            if path.startswith(before) and path.endswith(after) and len(path) >= len(before) + len(after):
                return RouteMatch(methods, unquote_to_bytes(path[len(before) : len(path) - len(after)]))
        return None
