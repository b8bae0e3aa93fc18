"""The connections of each address and identity to all servers of one Redis, which the servers send to each other.

Nothing is stored in Redis. A server sends its counts of those principals that have a part of their limit on it, when
they change. It requests those of all servers when it connects. While it has any, it repeats a sign of life: when that
is missing, its counts are dropped.
"""

from collections.abc import Callable

import msgspec

from twistedsock.limits.connections import max_connections_of
from twistedsock.limits.principal import Principal
from twistedsock.limits.settings import Limits
from twistedsock.limits.shared_counts import Counts, SharedCounts

PARTS = 16
"""A server reports a principal that has at least this part of its limit there: with the default limit, 32 connections.
So a server knows few principals, and N servers accept at most N/16 of the limit too many."""

MAX_SILENT_RENEWALS = 4
"""Signs of life that are missed until the counts of a server are dropped: with one in 3 seconds, 12 to 15 seconds."""

COUNTS = b"C"
"""The first byte of a message about counts. Commands begin with another one."""


class _Message(msgspec.Struct, frozen=True, array_like=True):
    node: bytes
    asks: bool
    """Whether the receivers must report all of theirs."""
    counts: dict[bytes, int]


_encode = msgspec.msgpack.Encoder().encode

_decode = msgspec.msgpack.Decoder(_Message).decode


class ConnectionCounts:
    """``publish`` sends a message to all servers, if there is a connection to Redis."""

    def __init__(self, node_name: bytes, limits: Limits, publish: Callable[[bytes], object]) -> None:
        self.shared: SharedCounts | None = None
        self._node_name = node_name
        self._limits = limits
        self._publish = publish
        # The counts that this server has sent, and those that it has received.
        self._reported: dict[Principal, int] = {}
        self._nodes: dict[bytes, dict[Principal, int]] = {}
        self._silent: dict[bytes, int] = {}

    # This server.

    def connected(self) -> None:
        """Messages of all servers are received from now on."""
        self._reported.clear()
        self._nodes.clear()
        self._silent.clear()
        if self.shared is not None:
            self._send({}, asks=True)
            self.shared.connected()

    def disconnected(self) -> None:
        if self.shared is not None:
            self.shared.disconnected()

    def report(self, counts: Counts) -> None:
        """The counts of some principals have changed."""
        news: dict[Principal, int] = {}
        for principal, count in counts.items():
            if PARTS * count >= max_connections_of(principal, self._limits):
                news[principal] = self._reported[principal] = count
            elif self._reported.pop(principal, 0):
                news[principal] = 0
        if news:
            self._send(news)

    def renew(self) -> None:
        """Give a sign of life, and drop the counts of servers that have given none. Call this every few seconds."""
        if self._reported:
            self._send({})
        for node in list(self._nodes):
            self._silent[node] += 1
            if self._silent[node] > MAX_SILENT_RENEWALS:
                del self._silent[node]
                self._update(self._nodes.pop(node))

    def _send(self, counts: dict[Principal, int], asks: bool = False) -> None:
        self._publish(COUNTS + _encode(_Message(self._node_name, asks, counts)))

    # The other servers.

    def received(self, data: bytes) -> None:
        """A message of any server. Raises msgspec.MsgspecError."""
        message = _decode(data[len(COUNTS) :])
        node = message.node
        if node == self._node_name:
            return
        if message.asks:
            self._silent.pop(node, None)
            self._update(self._nodes.pop(node, {}))
            if self._reported:
                self._send(self._reported)
            return
        if node in self._nodes or message.counts:
            known = self._nodes.setdefault(node, {})
            self._silent[node] = 0
            for principal, count in message.counts.items():
                known.pop(principal, None)
                if count:
                    known[principal] = count
            self._update(message.counts)

    def _update(self, principals: Counts) -> None:
        """The connections of some principals to other servers have changed."""
        if self.shared is not None:
            nodes = self._nodes.values()
            self.shared.received({one: sum([counts.get(one, 0) for counts in nodes]) for one in principals})
