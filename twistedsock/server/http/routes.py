"""Which request is for which operation."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

CAPTURE = "{"
"""Begins the part of a path that may be anything; a path has one at most, between two slashes."""


class Route(msgspec.Struct, frozen=True):
    """``operation`` is called with the ``BridgeRequest``, and answers it now or later. A route of GET serves HEAD too,
    unless it does not ``answers_head``. ``most_body`` is how many bytes a POST may bring, None for as many as a message
    has. Where it ``asks_who``, a token is looked at first, and ``request.identity`` is there. One that ``drains`` is
    served while the server is going away, too."""

    method: str
    path: str
    operation: Callable[[Any], object]
    most_body: int | None = None
    asks_who: bool = True
    answers_head: bool = True
    drains: bool = False


class Found(msgspec.Struct, frozen=True):
    """What there is at a path: routes by method, and what stands in the place of the capture."""

    methods: dict[bytes, Route]
    captured: bytes = b""

    @property
    def allow(self) -> bytes:
        """The header of that name."""
        return b", ".join(self.methods)


class Routes:
    """All that can be asked for, besides files. It is shared by all listeners."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._literal: dict[bytes, Found] = {}
        self._captured: dict[tuple[bytes, bytes], dict[bytes, Route]] = {}
        for route in routes:
            before, brace, rest = route.path.partition(CAPTURE)
            after = rest.partition("}")[2]
            if brace:
                methods = self._captured.setdefault((before.encode(), after.encode()), {})
            else:
                methods = self._literal.setdefault(before.encode(), Found({})).methods
            methods[route.method.encode()] = route
            if route.method == "GET" and route.answers_head:
                methods[b"HEAD"] = route

    def find(self, path: bytes) -> Found | None:
        """What a path, as it is sent, leads to. What is captured is decoded; slashes in it are a part of it."""
        found = self._literal.get(path)
        if found is not None:
            return found
        for (before, after), methods in self._captured.items():
            if path.startswith(before) and path.endswith(after) and len(path) >= len(before) + len(after):
                return Found(methods, unquote_to_bytes(path[len(before) : len(path) - len(after)]))
        return None
