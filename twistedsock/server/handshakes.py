"""WebSocket handshakes that were accepted before: all pages of a site send the same head, except for its key."""

import re
from typing import NamedTuple

from msgspec import structs

from twistedsock.auth.origins import ListenerScope
from twistedsock.codecs.http import RequestHead
from twistedsock.server.engineio_websocket import EngineWebSocketFactory
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.web_endpoints import WebSocketEndpoint

MAX_HANDSHAKES = 64
"""Different heads: pages times browsers. The oldest is forgotten for a new one."""

MAX_HEAD_BYTES = 2_048
"""Of a head that is remembered: browsers send 400 to 700 bytes without cookies."""

_KEY = re.compile(rb"\r\nSec-WebSocket-Key: ([A-Za-z0-9+/]{22}==)\r\n", re.IGNORECASE)


class Handshake(NamedTuple):
    """An accepted handshake in its plain form, see ``codecs.websocket.plain_key``."""

    head: RequestHead
    endpoint: WebSocketEndpoint | EngineWebSocketFactory


class AcceptedHandshakes:
    """Of one listener. Heads with credentials are not remembered, because these are secrets and differ between clients
    anyway; neither are those of proxies, which name the client. The decision depends on the rest of the head, on the
    end of the connection at the server, and on the allowed origins, which a reload replaces."""

    def __init__(self, origin_policy: OriginPolicy) -> None:
        self._policy = origin_policy
        self._origins = origin_policy.origins
        self._known: dict[tuple[bytes, ListenerScope], Handshake] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes, scope: ListenerScope) -> Handshake | None:
        """The handshake with this complete head, if an equal one was accepted before."""
        if self._origins is not self._policy.origins:
            self._known.clear()
            self._origins = self._policy.origins
        split = _KEY.search(data)
        if split is None:
            return None
        # Where the key was cut out is clear: a plain head has its name once.
        known = self._known.get((data[: split.start(1)] + data[split.end(1) :], scope))
        if known is None:
            return None
        return Handshake(structs.replace(known.head, key=split[1].decode()), known.endpoint)

    def add(self, data: bytes, scope: ListenerScope, handshake: Handshake) -> None:
        """Remember a handshake that was accepted, if it is plain and has nothing of one client only."""
        head, split = handshake.head, _KEY.search(data)
        is_personal = head.authorization or head.query or head.cookies or head.forwarded_for
        if split is None or not head.key or is_personal or len(data) > MAX_HEAD_BYTES:
            return
        if len(self._known) >= MAX_HANDSHAKES:
            del self._known[next(iter(self._known))]
        self._known[data[: split.start(1)] + data[split.end(1) :], scope] = handshake
