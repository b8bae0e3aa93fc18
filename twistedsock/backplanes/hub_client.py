"""The backplane of a worker process: its end of the connection to the hub, without input or output.

While there is no connection, every request fails at once, and the channels stay open. With the next connection, the
backplane opens them again, and reports what was missed: events, or a new epoch if the hub has lost its memory.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub_link import Outlet
from twistedsock.backplanes.hub_messages import FrameReader, encode
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error, ErrorCode
from twistedsock.limits.shared_counts import Counts, SharedCounts
from twistedsock.pubsub.backplane import MessageReceiver, Node
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Position,
    PresenceChange,
    Publication,
    RepeatedOffset,
)

T = TypeVar("T")

MAX_IN_FLIGHT_BYTES = 8 * 1024 * 1024
"""Size of the publications that the hub has not answered. It is reached if the workers publish faster than the hub can
handle: then publishers get an error."""

MAX_UNANSWERED_PROBES = 2
"""Signs of life of the hub that are missed until it counts as hanging. With a single one, a worker that was busy itself
could take what it has not read yet for silence."""

MAX_REOPENING = 32
"""Channels that are being opened again at a time, because each answer can contain a history."""

MAYBE_PUBLISHED = Error(
    ErrorCode.UNAVAILABLE, "connection to the hub lost: the event may have been published, read the history"
)
"""The answer to publications that the hub may have received before the connection ended."""

HUB_TOO_SLOW = Error(ErrorCode.UNAVAILABLE, "too many publications wait: try again later")


class _Request:
    """``settle`` is called with the content of the answer, or with an error. ``on_loss`` is the answer if the
    connection ends, and ``size`` what the request counts for until it is answered."""

    __slots__ = ("on_loss", "settle", "size")

    def __init__(self, settle: Callable[[Any], None], on_loss: Error = UNAVAILABLE, size: int = 0) -> None:
        self.settle = settle
        self.on_loss = on_loss
        self.size = size


class WorkerBackplane:
    """``schedule`` calls a function at the end of the reactor's turn."""

    keeps_history = True
    counts_members = True
    is_one_server = True
    host: str | None = None

    def __init__(self, node_name: bytes, schedule: Callable[[Callable[[], None]], object]) -> None:
        self.node_name = node_name
        self.names: Sequence[str] = ()
        self.restarts = 0
        self.reports: dict[bytes, Callable[[bytes], bytes | Future[bytes]]] = {}
        """The reports of this worker: functions by the first word of a topic. They get the rest of it."""
        self.on_ready: Callable[[], object] | None = None
        """Called once, when the first connection is established."""
        self.counts: SharedCounts | None = None
        self.receiver: MessageReceiver | None = None
        self._schedule = schedule
        self._outlet: Outlet | None = None
        self._reader = FrameReader(messages.ToWorker)
        self._hub = b""
        self._is_welcome = self._is_hub_ready = False
        self._unanswered_probes = 0
        self._requests: dict[int, _Request] = {}
        self._last_number = 0
        self._in_flight = 0
        # The newest events of open channels.
        self._open: dict[bytes, Position] = {}
        # Open channels that have to be opened again.
        self._reopening: dict[bytes, None] = {}
        self._waiting: list[bytes] = []
        self._stopping: Future[bool] | None = None
        self._node: Node | None = None

    # The connection.

    def connected(self, outlet: Outlet) -> None:
        """Connected to the hub. Events are delivered when it has answered."""
        self._outlet = outlet
        self._unanswered_probes = 0
        self._reader = FrameReader(messages.ToWorker)
        self._send(messages.Hello(self.node_name, self._hub))
        self.flush()

    def received(self, data: bytes) -> None:
        """Raises ProtocolError if the data is not of a hub."""
        self._unanswered_probes = 0
        self._reader.feed(data)
        for request, message in self._reader:
            if type(message) is messages.Deliver:  # the most frequent one
                self._deliver(request, message)
            else:
                _HANDLERS[type(message)](self, request, message)

    def lost(self) -> None:
        """The connection has ended. Requests that wait for their answers fail."""
        self._outlet = None
        self._is_welcome = self._is_hub_ready = False
        if self.counts is not None:
            self.counts.disconnected()
        self._waiting.clear()
        self._reopening.clear()
        requests, self._requests, self._in_flight = self._requests, {}, 0
        for request in requests.values():
            request.settle(request.on_loss)
        if self._stopping is not None:
            self._say_goodbye(self._stopping)

    def flush(self) -> None:
        """Write what was sent in this turn."""
        waiting, self._waiting = self._waiting, []
        if waiting and self._outlet is not None:
            self._outlet.write(b"".join(waiting))

    def _send(self, message: messages.Message, request: int = 0) -> None:
        if not self._waiting:
            self._schedule(self.flush)
        body = encode(message)
        self._waiting += (messages.HEADER.pack(len(body), request), body)

    def _ask(self, message: messages.Message, request: _Request) -> None:
        self._last_number = number = self._last_number % 0xFFFFFFFF + 1
        self._requests[number] = request
        self._in_flight += request.size
        self._send(message, number)

    def _request(self, message: messages.Message) -> Any:
        """Send a request. Returns a future with the content of the answer, or an error."""
        if not self._is_welcome or self._is_hub_silent:
            return UNAVAILABLE
        answer = Future[Any]()
        self._ask(message, _Request(answer.settle))
        return answer

    def _answer(self, number: int, outcome: object) -> None:
        request = self._requests.pop(number, None)
        if request is not None:
            self._in_flight -= request.size
            request.settle(outcome)
            if self._stopping is not None and not self._requests:
                self._say_goodbye(self._stopping)

    # Start and stop.

    @property
    def is_ready(self) -> bool:
        return self._is_hub_ready and not self._is_hub_silent

    @property
    def _is_hub_silent(self) -> bool:
        return self._unanswered_probes > MAX_UNANSWERED_PROBES

    def probe(self) -> None:
        """Ask the hub for a sign of life. Call this every few seconds: a hub that hangs keeps its connections."""
        if self._is_welcome:
            self._unanswered_probes += 1
            self._send(messages.Probe())

    def _alive(self, request: int, message: messages.Alive) -> None:
        """All data of the hub is a sign of life."""

    @property
    def is_connected(self) -> bool:
        return self._is_welcome

    def start(self, node: Node) -> None:
        """The connection is made by its owner, before or after."""
        self._node = node
        if self._is_welcome:
            self._synchronize()

    def stop(self) -> Future[bool]:
        """The future is settled when all publications have been answered."""
        self._stopping = stopping = Future[bool]()
        if not self._requests:
            self._say_goodbye(stopping)
        return stopping

    def _say_goodbye(self, stopping: Future[bool]) -> None:
        self._stopping = None
        if self._outlet is not None:
            self._send(messages.Goodbye())
            self.flush()
        stopping.settle(True)

    def _welcome(self, request: int, message: messages.Welcome) -> None:
        self._hub = message.hub
        self._is_welcome, self._is_hub_ready = True, message.is_ready
        if self._node is not None:
            self._synchronize()
        if self.counts is not None:
            self.counts.connected()
        on_ready, self.on_ready = self.on_ready, None
        if on_ready is not None:
            on_ready()

    def _synchronize(self) -> None:
        """Tell the hub what this worker has."""
        assert self._node is not None
        for channel in self._open:
            members = self._node.local_members(channel)
            if members:
                self._send(messages.Members(channel, members))
        self._send(messages.Synced())
        self._reopening = dict.fromkeys(self._open)
        self._reopen_all()

    def _reopen_all(self) -> None:
        queue = deque(self._reopening)
        for _ in range(min(MAX_REOPENING, len(queue))):
            self._reopen_next(queue)

    def _reopen_next(self, queue: deque[bytes]) -> None:
        while queue:
            channel = queue.popleft()
            if channel in self._reopening:
                known = self._open[channel]
                self._ask(messages.Open(channel, known), _Request(partial(self._reopened, queue, channel, known)))
                return

    def _reopened(self, queue: deque[bytes], channel: bytes, known: Position, outcome: ChannelState | Error) -> None:
        if not self._is_welcome:  # the connection has been lost again
            return
        # After an error, the channel is opened when the hub is ready again.
        if not isinstance(outcome, Error) and channel in self._reopening:
            del self._reopening[channel]
            self._open[channel] = outcome.position
            if outcome.position != known and self._node is not None:
                self._node.reset(channel, outcome)
        self._reopen_next(queue)

    # Events.

    def publish(self, publisher: Client, publication: Publication) -> Error | Future[int]:
        if not self.is_ready or publication.channel in self._reopening:
            return UNAVAILABLE
        payloads = publication.payloads
        size = payloads.size + 48 * len(payloads.items)
        if self._in_flight + size > MAX_IN_FLIGHT_BYTES and self._in_flight:
            return HUB_TOO_SLOW
        answer = Future[int]()
        plain = Publication(publication.channel, payloads, publication.name, publication.key, publication.fingerprint)
        message = messages.PublishRequest(publisher.id, publisher.nick, publisher.principal, plain)
        self._ask(message, _Request(answer.settle, MAYBE_PUBLISHED, size))
        return answer

    def _deliver(self, request: int, message: messages.Deliver) -> None:
        channel, epoch, batch = message.channel, message.epoch, message.batch
        if channel in self._open:
            self._open[channel] = Position(epoch, batch.end - 1)
            if self._node is not None:
                self._node.deliver(channel, epoch, batch)
        if request:
            self._answer(request, batch.first)

    def open(self, channel: bytes) -> Error | Future[ChannelState]:
        if not self._is_welcome or self._is_hub_silent:
            return UNAVAILABLE
        answer = Future[ChannelState]()

        def opened(outcome: ChannelState | Error) -> None:
            if not isinstance(outcome, Error):
                self._open[channel] = outcome.position
                self._reopening.pop(channel, None)
            answer.settle(outcome)

        self._ask(messages.Open(channel, None), _Request(opened))
        return answer

    def close(self, channel: bytes) -> None:
        self._open.pop(channel, None)
        self._reopening.pop(channel, None)
        if self._is_welcome:
            self._send(messages.Close(channel))

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        return self._request(messages.Read(channel, after, limit))

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        return self._request(messages.FindOffset(channel, epoch, time))

    def _reset(self, request: int, message: messages.ResetChannel) -> None:
        if message.channel in self._open:
            self._open[message.channel] = message.state.position
            self._reopening.pop(message.channel, None)
            if self._node is not None:
                self._node.reset(message.channel, message.state)

    # Members.

    def join(self, channel: bytes, member: Member) -> None:
        self._send_if_connected(messages.Join(channel, member))

    def rename(self, channel: bytes, member: Member) -> None:
        self._send_if_connected(messages.Rename(channel, member))

    def leave(self, channel: bytes, member: Member) -> None:
        self._send_if_connected(messages.Leave(channel, member))

    def _send_if_connected(self, message: messages.Message, request: int = 0) -> None:
        """Without a connection, nothing is lost: the next one begins with all members."""
        if self._is_welcome:
            self._send(message, request)

    def members(self, channel: bytes) -> Error | Future[list[Member]]:
        return self._request(messages.ListMembers(channel))

    def _changed(self, request: int, message: messages.Changed) -> None:
        if self._node is not None:
            change = PresenceChange(message.member, message.joined)
            self._node.presence_changed(message.channel, change)
            if message.members is not None:
                self._node.members_changed(message.channel, change, message.members)

    # Between workers.

    def send(self, command: NodeCommand) -> None:
        self._send_if_connected(messages.Command(command))

    def send_to(self, node: bytes, content: bytes) -> bool:
        self._send_if_connected(messages.SendToWorker(node, content))
        return self._is_welcome

    def _sent_by_worker(self, request: int, message: messages.SentByWorker) -> None:
        if self.receiver is not None:
            self.receiver.received(message.node, message.content)

    def _worker_away(self, request: int, message: messages.WorkerAway) -> None:
        if self.receiver is not None:
            self.receiver.unreachable(message.node)

    @property
    def index(self) -> int:
        """The place of this worker among all."""
        return self.names.index(self.node_name.decode())

    def gather(self, topic: bytes) -> Error | Future[dict[bytes, bytes]]:
        """The reports of all other workers about a topic, by their names."""
        return self._request(messages.Gather(topic))

    def send_counts(self, counts: Counts) -> None:
        """The connections of some addresses and identities to this worker, for ``SharedCounts``."""
        self._send_if_connected(messages.ReportCounts(dict(counts)))

    def _counts_elsewhere(self, request: int, message: messages.CountsElsewhere) -> None:
        if self.counts is not None:
            self.counts.received(message.counts)

    def _run_command(self, request: int, message: messages.Command) -> None:
        if self._node is not None:
            self._node.run_command(message.command)

    def _ready(self, request: int, message: messages.Ready) -> None:
        self._is_hub_ready = message.is_ready
        if message.is_ready:
            self._reopen_all()

    def _asked(self, request: int, message: messages.Ask) -> None:
        topic, _, asked = message.topic.partition(b" ")
        report = self.reports.get(topic)
        content: bytes | Future[bytes] = b"" if report is None else report(asked)

        def send(outcome: bytes | Error) -> None:
            self._send_if_connected(messages.WorkerReport(b"" if isinstance(outcome, Error) else outcome), request)

        on_result(content, send)


def _error(message: messages.Failure) -> Error:
    for known in (UNAVAILABLE, HUB_TOO_SLOW, KEY_REUSED):
        if known.message == message.message:
            return known
    return Error(ErrorCode(message.code), message.message)


_HANDLERS: dict[type, Callable[[WorkerBackplane, int, Any], None]] = {
    messages.Welcome: WorkerBackplane._welcome,
    messages.Ready: WorkerBackplane._ready,
    messages.Offset: lambda self, request, message: self._answer(
        request, RepeatedOffset(message.offset) if message.is_repeated else message.offset
    ),
    messages.OpenedChannel: lambda self, request, message: self._answer(request, message.state),
    messages.ResetChannel: WorkerBackplane._reset,
    messages.Batches: lambda self, request, message: self._answer(request, message.batches),
    messages.Members: lambda self, request, message: self._answer(request, message.members),
    messages.Changed: WorkerBackplane._changed,
    messages.Failure: lambda self, request, message: self._answer(request, _error(message)),
    messages.Ask: WorkerBackplane._asked,
    messages.Reports: lambda self, request, message: self._answer(request, message.reports),
    messages.CountsElsewhere: WorkerBackplane._counts_elsewhere,
    messages.Alive: WorkerBackplane._alive,
    messages.SentByWorker: WorkerBackplane._sent_by_worker,
    messages.WorkerAway: WorkerBackplane._worker_away,
    messages.Command: WorkerBackplane._run_command,
}
