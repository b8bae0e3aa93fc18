"""Reports that one server requests from all other ones of a Redis: statistics, pages of lists, clients, logs.

The leases in Redis say which servers there are. A request is a message to all of them, and each report one to the
server that has asked. Nothing is stored in Redis, and nothing is sent unless a client looks at what is gathered.

Reports are compressed, and limited in number and size, because Redis disconnects a server that receives more messages
than it reads (``client-output-buffer-limit pubsub``, 32 MiB by default).
"""

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from zlib import crc32

import msgspec

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import Future, on_result
from twistedsock.redis.resp import Call
from twistedsock.redis.wire import Names

GATHER_SECONDS = 1.0
"""The time in which servers report. Later requests do not wait for a server that has not, until it reports again: so
one that hangs delays a single answer."""

MAX_GATHERED_BYTES = 4 * 1024 * 1024
"""Size of all reports for one request, compressed. A part of the messages that Redis keeps for a server."""

MAX_REPORT_BYTES = 256 * 1024
"""Size of one report, compressed: about 10,000 rows. A server compresses that in ten milliseconds."""

MAX_CONTENT_BYTES = 8 * 1024 * 1024
"""Size of one report when it is decompressed."""

MAX_AT_A_TIME = 4
"""Requests of this server that wait for reports. With ``MAX_GATHERED_BYTES``, half of what Redis keeps for it."""

MAX_QUEUED = 60
"""Requests that wait until others have been answered. A console has one to three every two seconds."""

MAX_PREPARED = 32
"""Reports that this server prepares at a time: more requests are answered without one."""

MIN_COMPRESSED_BYTES = 1024

REQUEST, REPORT = b"G", b"R"
"""The first byte of the messages."""

Report = Callable[[bytes], bytes | Future[bytes]]


class _Request(msgspec.Struct, frozen=True, array_like=True):
    node: bytes
    number: int
    topic: bytes
    limit: int
    """The size that the report can have."""


class _Report(msgspec.Struct, frozen=True, array_like=True):
    """``content`` is None if the server is busy, or has more than the limit."""

    node: bytes
    number: int
    is_compressed: bool
    content: bytes | None


_encode = msgspec.msgpack.Encoder().encode

_read_request = msgspec.msgpack.Decoder(_Request).decode

_read_report = msgspec.msgpack.Decoder(_Report).decode


class _Gathering:
    """A request of this server, while it waits for reports of ``missing``."""

    __slots__ = ("answer", "missing", "number", "reports", "topic")

    def __init__(self, topic: bytes, number: int) -> None:
        self.topic = topic
        self.number = number
        self.answer = Future[dict[bytes, bytes]]()
        self.missing: set[bytes] = set()
        self.reports: dict[bytes, bytes] = {}


class Gatherings:
    """``OtherProcesses`` of ``twistedsock.metrics.processes``: the servers on the same Redis. ``queue`` sends a call,
    only while ``connected``; ``schedule`` calls a function after some seconds; ``host`` is the name of this machine."""

    is_one_server = False
    restarts = 0

    def __init__(
        self,
        node_name: bytes,
        names: Names,
        queue: Callable[[Call], None],
        schedule: Callable[[float, Callable[[], None]], object],
        host: str,
    ) -> None:
        self.node_name = node_name
        self.host: str | None = host
        self.reports: dict[bytes, Report] = {}
        self._topics = names
        self._queue = queue
        self._schedule = schedule
        self._is_connected = False
        # The other servers, and those of them that have not answered the last request.
        self._nodes: set[bytes] = set()
        self._silent: set[bytes] = set()
        self._last_number = 0
        self._running: dict[int, _Gathering] = {}
        self._queued: deque[_Gathering] = deque()
        # The requests whose reports are being prepared.
        self._prepared: set[tuple[bytes, int]] = set()

    @property
    def names(self) -> Sequence[str]:
        """The servers that had a lease at the last request or connection, and this one."""
        return sorted(name.decode() for name in {*self._nodes, self.node_name})

    @property
    def index(self) -> int:
        """Probably another one than those of other servers."""
        return crc32(self.node_name)

    def connected(self) -> None:
        """Messages of all servers are received from now on."""
        self._is_connected = True
        # The servers are then known as missing if Redis goes away before the first request.
        self._ask_for_leases(self._learn)

    def disconnected(self) -> None:
        self._is_connected = False
        self._prepared.clear()
        gatherings = [*self._running.values(), *self._queued]
        self._running.clear()
        self._queued.clear()
        for gathering in gatherings:
            gathering.answer.settle(UNAVAILABLE)

    # Requests of this server.

    def gather(self, topic: bytes) -> Error | Future[dict[bytes, bytes]]:
        """The reports of all other servers, by their names. Requests for the same topic share them."""
        if not self._is_connected:
            return UNAVAILABLE
        for gathering in (*self._running.values(), *self._queued):
            if gathering.topic == topic:
                return gathering.answer
        if len(self._queued) >= MAX_QUEUED:
            return UNAVAILABLE
        self._last_number += 1
        gathering = _Gathering(topic, self._last_number)
        self._queued.append(gathering)
        self._begin_queued()
        return gathering.answer

    def _begin_queued(self) -> None:
        while self._queued and len(self._running) < MAX_AT_A_TIME and self._is_connected:
            gathering = self._queued.popleft()
            self._running[gathering.number] = gathering
            self._ask_for_leases(partial(self._ask, gathering))

    def _ask_for_leases(self, done: Callable[[Any], None]) -> None:
        self._queue(Call((b"ZRANGE", self._topics.leases, 0, -1), done))

    def _learn(self, leases: Any) -> None:
        """Leases have the name of a server, and how often it was registered."""
        if not isinstance(leases, Exception):
            self._nodes = {lease.rpartition(b".")[0] for lease in leases} - {self.node_name}
            self._silent &= self._nodes

    def _ask(self, gathering: _Gathering, leases: Any) -> None:
        """Ask the servers that have a lease."""
        if gathering.number not in self._running:
            return
        if isinstance(leases, Exception):
            self._end(gathering, UNAVAILABLE)
            return
        self._learn(leases)
        gathering.missing = self._nodes - self._silent
        if not self._nodes:
            self._end(gathering, gathering.reports)
            return
        limit = min(MAX_GATHERED_BYTES // len(self._nodes), MAX_REPORT_BYTES)
        request = _Request(self.node_name, gathering.number, gathering.topic, limit)
        self._publish(self._topics.nodes_topic, REQUEST + _encode(request))
        if gathering.missing:
            self._schedule(GATHER_SECONDS, partial(self._give_up, gathering))
        else:
            self._end(gathering, gathering.reports)

    def _give_up(self, gathering: _Gathering) -> None:
        if gathering.number in self._running:
            self._silent |= gathering.missing
            self._end(gathering, gathering.reports)

    def _end(self, gathering: _Gathering, outcome: Error | dict[bytes, bytes]) -> None:
        del self._running[gathering.number]
        gathering.answer.settle(outcome)
        self._begin_queued()

    def received_report(self, message: bytes) -> None:
        """Another server has answered. Raises msgspec.MsgspecError, ValueError."""
        report = _read_report(message[len(REPORT) :])
        self._silent.discard(report.node)
        gathering = self._running.get(report.number)
        if gathering is None or report.node not in self._nodes:
            return
        gathering.missing.discard(report.node)
        if report.content is not None:
            gathering.reports[report.node] = _decompress(report.content) if report.is_compressed else report.content
        if not gathering.missing:
            self._end(gathering, gathering.reports)

    # Requests of other servers.

    def received_request(self, message: bytes) -> None:
        """A server asks for a report, this one or another. Raises msgspec.MsgspecError, ValueError."""
        request = _read_request(message[len(REQUEST) :])
        if request.node == self.node_name:
            return
        key = (request.node, request.number)
        if len(self._prepared) >= MAX_PREPARED:
            self._send(request, None)
            return
        topic, _, asked = request.topic.partition(b" ")
        report = self.reports.get(topic)
        self._prepared.add(key)
        # After that time the report is of no use, also if the one that prepares it has failed.
        self._schedule(GATHER_SECONDS, partial(self._prepared.discard, key))

        def prepared(outcome: bytes | Error) -> None:
            if key in self._prepared:
                self._prepared.discard(key)
                self._send(request, None if isinstance(outcome, Error) else outcome)

        on_result(b"" if report is None else report(asked), prepared)

    def _send(self, request: _Request, content: bytes | None) -> None:
        is_compressed = content is not None and len(content) >= MIN_COMPRESSED_BYTES
        if content is not None and is_compressed:
            content = zlib.compress(content, 1) if len(content) <= MAX_CONTENT_BYTES else None
        if content is not None and len(content) > min(request.limit, MAX_REPORT_BYTES):
            content = None
        report = _Report(self.node_name, request.number, is_compressed, content)
        self._publish(self._topics.node_topic(request.node), REPORT + _encode(report))

    def _publish(self, topic: bytes, message: bytes) -> None:
        if self._is_connected:
            self._queue(Call((b"PUBLISH", topic, message), _ignore))


def _decompress(content: bytes) -> bytes:
    """Raises ValueError."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(content, MAX_CONTENT_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if reader.unconsumed_tail or not reader.eof:
        raise ValueError("a report that is too large, or incomplete")
    return data


def _ignore(reply: Any) -> None: ...
