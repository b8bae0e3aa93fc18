"""Variants of sockbridge's own protocols; those of `sockbridge bench` are in twistedsock/bench/wires.py."""

import re
from collections.abc import Sequence

from bench.drivers.socketio import MESSAGE, SocketIo
from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import NICK, Json, Lines, client_frame, server_frame


class QuietLines(Lines):
    """Successful publications are not replied to."""

    name = "lines, quiet"
    reply_mark = b""

    def prepare(self) -> Sequence[Exchange]:
        return [*super().prepare(), Exchange(b"QUIET on\n", b"OK\n")]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""


class AcknowledgedJson(Json):
    """Publications have ids, and are replied to. All ids have the same number of digits."""

    name = "websocket, acknowledged"
    reply_mark = b'{"type":"ok"'

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [
            client_frame(b'{"type":"publish","id":%d,"channel":"%b","data":"%b"}' % (number, channel, payload))
            for number, payload in enumerate(payloads, 100_000)
        ]


class RecoveringJson(Json):
    """Subscriptions can continue at a position."""

    name = "websocket, recovering"

    def recover(self, channel: bytes, reply: bytes) -> Exchange:
        """Subscribe at the position in ``reply``, which is that to an earlier subscription."""
        found = re.search(rb'"offset":(\d+),"epoch":("[^"]*")', reply)
        if found is None:
            raise ValueError(f"no position in {reply!r}")
        request = b'{"type":"subscribe","id":1,"channel":"%b","since":%b,"epoch":%b}' % (channel, found[1], found[2])
        return Exchange(client_frame(request), b'"recovered":true')


class SockbridgeSocketIo(SocketIo):
    """Socket.IO on the main namespace. Events have the time of publication, whose length is predictable."""

    name = "sockbridge socket.io"
    is_predictable = False
    is_size_predictable = True
    # Engine.IO: a ping of the server every 25 seconds.
    keep_alive: ServerPing | None = ServerPing(server_frame(b"2"), client_frame(b"3"))

    def prepare(self) -> Sequence[Exchange]:
        return [Exchange(client_frame(MESSAGE + b'21["nick","%b"]' % NICK), MESSAGE + b"31[{")]

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        step = super().subscribe(channel, number)
        return step._replace(until=MESSAGE + b"3%d[{" % number)

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        meta = b'{"channel":"%b","offset":%d,"time":1764394200123,"from":"%b"}'
        return [
            server_frame(MESSAGE + b'2["message","%b",%b]' % (payload, meta % (channel, offset, NICK)))
            for offset, payload in enumerate(payloads, 1)
        ]
