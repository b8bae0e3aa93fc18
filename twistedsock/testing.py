"""An in-memory server for tests, yours and ours: without sockets, clocks and a reactor.

``FakeServer`` is a whole server; ``line_client()`` and ``json_client()`` connect clients whose sockets can stall;
``turn()`` is a turn of the reactor. ``LateBackplane`` answers late, in bursts, and fails on demand.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from twistedsock.auth.identity import Identity, Policy, grants
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.codecs import json_decoder
from twistedsock.codecs.json_decoder import JSON_LINE_DECODER
from twistedsock.codecs.json_encoder import JSON_LINE_ENCODER, JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_decoder import LINE_DECODER, LINE_MESSAGE_DECODER, LineSplitter, split_messages
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, CloseReason, Error, ErrorCode
from twistedsock.limits.principal import LOCAL, Principal, address_principal
from twistedsock.limits.rate import RateLimiterPool
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import SOCKET_FULL, Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Position,
    PresenceChange,
    Publication,
    RepeatedOffset,
    cost,
)
from twistedsock.server.connection import open_session
from twistedsock.session.context import ServerContext, build_context
from twistedsock.session.encoder import Encoder, Endpoints
from twistedsock.session.input_pipeline import Decoder
from twistedsock.session.session import Session
from twistedsock.stats import TcpStats

T = TypeVar("T")

ENDS = Endpoints(b"127.0.0.1:50000", b"127.0.0.1:8081")


class FakeOutlet:
    """A socket that accepts ``room`` bytes (None: all) and keeps the rest in ``waiting``. ``stats`` are its TCP
    statistics."""

    def __init__(self) -> None:
        self.blocked = 0
        self.principal: Principal = LOCAL
        self.room: int | None = None
        self.sent = bytearray()
        self.waiting = bytearray()
        self.sends = 0
        self.on_drained: Callable[[], None] | None = None
        self.stats: TcpStats | None = None

    def tcp_stats(self) -> TcpStats | None:
        return self.stats

    def try_write(self, data: bytes) -> bool:
        if self.blocked:
            return False
        self.write(data)
        return True

    def write(self, data: bytes) -> None:
        self.sends += 1
        if self.blocked & SOCKET_FULL:
            self.waiting += data
            return
        taken = len(data) if self.room is None else min(self.room, len(data))
        self.sent += data[:taken]
        if self.room is not None:
            self.room -= taken
        if taken < len(data):
            self.waiting += data[taken:]
            self.blocked |= SOCKET_FULL

    def drain(self, room: int | None = None) -> None:
        """The client reads, so that the socket accepts ``room`` more bytes (None: all from now on)."""
        self.room = room
        waiting, self.waiting = bytes(self.waiting), bytearray()
        self.blocked &= ~SOCKET_FULL
        if waiting:
            self.sends -= 1
            self.write(waiting)
            if not self.blocked & SOCKET_FULL and self.on_drained is not None:
                self.on_drained()


class Turns:
    """The calls for the end of the turn."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def schedule(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def step(self) -> None:
        """Run one turn."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def run(self, most: int = 10_000) -> None:
        """Run turns until there are no calls left."""
        for _ in range(most):
            if not self._calls:
                return
            self.step()
        raise AssertionError("the server does not become idle")


class LateBackplane:
    """The memory backplane, but requests wait for ``release``. The next ``failing`` of them fail. Set ``is_ready`` to
    False to make it unavailable. The next ``skipping`` batches are not delivered, and the next ``repeating`` ones are
    delivered twice: both are faults of a backplane, which the server must survive. With ``keeps_history`` it returns
    all events that it has ordered from ``read``, except those before ``first_kept``; ``sent`` are the commands for
    other nodes."""

    is_ready = True

    def __init__(self, inner: MemoryBackplane, keeps_history: bool = False, node_name: bytes = b"") -> None:
        self.keeps_history = keeps_history
        self.node_name = node_name
        self.sent: list[NodeCommand] = []
        self._inner = inner
        self._log: dict[tuple[bytes, bytes], list[Batch]] = {}
        self._keys: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self._node: Any = None
        self._delivered: list[Callable[[], None]] = []
        self._asked: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.failing = self.skipping = self.repeating = 0
        self.first_kept = 1

    def __len__(self) -> int:
        """The number of requests without a response."""
        return len(self._asked)

    def start(self, node: Any) -> None:
        self._node = node
        self._inner.start(self)

    def stop(self) -> None: ...

    def release(self, most: int | None = None, backwards: bool = False) -> None:
        """Respond to the ``most`` oldest requests (None: all), or, ``backwards``, to the newest first."""
        count = len(self._asked) if most is None else min(most, len(self._asked))
        for _ in range(count):
            later, act = self._asked.pop() if backwards else self._asked.popleft()
            if self.failing:
                self.failing -= 1
                later.settle(UNAVAILABLE)
                continue
            # In one step, the delivery first: who is answered may ask at once for what was delivered.
            answer = act()
            self._deliver_now()
            later.settle(answer)

    def restart(self, inner: MemoryBackplane) -> None:
        """Drop all data, so that the channels get new epochs. Nodes learn that from the next event."""
        self._inner = inner
        inner.start(self)

    def announce(self, channel: bytes, good: Position | None = None) -> None:
        """Report the epoch of a channel, after ``restart``. ``good`` is the newest event of the former epoch that is
        still valid."""
        self._node.reset(channel, msgspec.structs.replace(self._inner.open(channel), previous=good))

    def _ask(self, act: Callable[[], T | Error]) -> Future[T]:
        later = Future[T]()
        self._asked.append((later, act))
        return later

    # Calls of the broker.

    def publish(self, publisher: Client, publication: Publication) -> Future[int]:
        # The nick is the one of now, not of later.
        now = Client(publisher.id, publisher.principal)
        now.nick = publisher.nick
        return self._ask(lambda: self._publish(now, publication))

    def _publish(self, publisher: Client, publication: Publication) -> int | Error:
        key = (publication.channel, publication.key)
        if publication.key and key in self._keys:
            first, fingerprint = self._keys[key]
            return RepeatedOffset(first) if fingerprint == publication.fingerprint else KEY_REUSED
        first = self._inner.publish(publisher, publication)
        self._keys[key] = first, publication.fingerprint
        return first

    def open(self, channel: bytes) -> Future[ChannelState]:
        return self._ask(lambda: self._inner.open(channel))

    def read(self, channel: bytes, after: Position, limit: int) -> Future[Sequence[Batch]]:
        return self._ask(lambda: self._read(channel, after, limit))

    def _read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        found: list[Batch] = []
        start = max(after.offset + 1, self.first_kept)
        for batch in self._log.get((channel, after.epoch), ()):
            if batch.end > start and limit > 0:
                found.append(batch.part(start, batch.end))
                limit -= cost(batch)
        return found

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Future[int]:
        def find() -> int:
            log = self._log.get((channel, epoch), ())
            kept = [batch for batch in log if batch.end > self.first_kept and batch.time < time]
            return kept[-1].end - 1 if kept else 0

        return self._ask(find)

    def close(self, channel: bytes) -> None:
        self._inner.close(channel)

    def join(self, channel: bytes, member: Member) -> None:
        self._inner.join(channel, member)
        self._deliver_now()

    def rename(self, channel: bytes, member: Member) -> None:
        self._inner.rename(channel, member)

    def leave(self, channel: bytes, member: Member) -> None:
        self._inner.leave(channel, member)
        self._deliver_now()

    def members(self, channel: bytes) -> Future[list[Member]]:
        return self._ask(lambda: self._inner.members(channel))

    def send(self, command: NodeCommand) -> None:
        self.sent.append(command)

    # Calls of the inner backplane.

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        if self.keeps_history:
            self._log.setdefault((name, epoch), []).append(batch)
        if self.skipping:
            self.skipping -= 1
            return
        times = 2 if self.repeating else 1
        self.repeating -= times - 1
        self._delivered += [lambda: self._node.deliver(name, epoch, batch)] * times

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        self._delivered.append(lambda: self._node.presence_changed(name, change))

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None:
        """Not called: the inner backplane does not count members."""

    def local_members(self, name: bytes) -> list[Member]:
        members: list[Member] = self._node.local_members(name)
        return members

    def reset(self, name: bytes, state: ChannelState) -> None:
        self._node.reset(name, state)

    def run_command(self, command: NodeCommand) -> None:
        self._node.run_command(command)

    def _deliver_now(self) -> None:
        delivered, self._delivered = self._delivered, []
        for deliver in delivered:
            deliver()


class FakePolicy:
    """A policy. ``anonymous`` are the rights of clients without a token. ``tokens`` maps each token to its subject, its
    rights, and its expiry. A client whose token was removed is rejected when its identity is checked again. ``admins``
    are subjects."""

    def __init__(
        self,
        anonymous: Mapping[str, str] | None = None,
        tokens: Mapping[str, tuple[str, Mapping[str, str], float | None]] | None = None,
        admins: Collection[str] = (),
    ) -> None:
        self.cookie = "bridge-token"
        self._anonymous = Identity(grants(anonymous or {}))
        self._tokens = tokens or {}
        self._admins = admins

    def anonymous(self, listener: str) -> Identity:
        return self._anonymous

    def by_token(self, token: bytes, listener: str) -> Identity | Error:
        if token.decode() not in self._tokens:
            return Error(ErrorCode.UNAUTHORIZED, "that token is not known")
        subject, granted, expires = self._tokens[token.decode()]
        is_admin = subject in self._admins
        return Identity(grants(granted), subject.encode(), expires, is_admin, proof=token.decode())

    def by_certificate(self, subject: bytes, listener: str) -> Identity | Error:
        return Identity(self._anonymous.grants, subject)

    def review(self, identity: Identity, listener: str) -> Identity | Error:
        if identity.proof:
            return self.by_token(identity.proof.encode(), listener)
        return self.by_certificate(identity.subject, listener) if identity.subject else self._anonymous


class FakeClient:
    """A connected client: ``send`` commands, then look at ``received``, the messages since the last call."""

    def __init__(
        self, server: "FakeServer", dialect: Encoder, codec: Decoder, outcome: Identity | Error | None = None
    ) -> None:
        self.server = server
        self.outlet = FakeOutlet()
        self.close_reason: CloseReason | None = None
        self.paused = False
        self.exceptions = 0
        self.pipeline = open_session(
            server.context,
            dialect,
            codec,
            self.outlet,
            ENDS,
            close=self._hang_up,
            pause=self._pause,
            resume=self._resume,
            on_exception=self._report,
        )
        self.session = self.pipeline.session
        self._looked = 0
        self.session.send_welcome(b"", outcome)

    @property
    def id(self) -> str:
        return self.session.client.id.decode()

    def read(self, size: int) -> None:
        """Count bytes that were read."""
        if self.pipeline.is_rate_limited:
            self.pipeline.bytes_received(size)

    def limit(self, **limits: float) -> None:
        """See ``limit_session``."""
        limit_session(self.session, self.server, **limits)

    def send_messages(self, *messages: bytes) -> None:
        """Send messages of the protocol, in one read."""
        self.read(sum(map(len, messages)))
        self.pipeline.submit(list(messages))

    def received_bytes(self) -> bytes:
        """The bytes that the client has received since the last call. Replies do not wait for the end of the turn."""
        self.session.flush()
        data = bytes(self.outlet.sent[self._looked :])
        self._looked = len(self.outlet.sent)
        return data

    def disconnect(self) -> None:
        """Close the connection."""
        self.pipeline.connection_lost()

    def _hang_up(self, ending: CloseReason) -> None:
        self.close_reason = ending
        self.paused = False  # because servers read the stream to its end

    def _pause(self) -> None:
        self.paused = True

    def _resume(self) -> None:
        self.paused = False

    def _report(self) -> None:
        self.exceptions += 1


def limit_session(session: Session, server: "FakeServer", **limits: float) -> None:
    """Make it the session of a remote client at 192.0.2.1, and set the limits of all remote clients. Rates that are not
    given are not limited."""
    told: dict[str, Any] = {"commands_per_second": 0, "bytes_per_second": 0, **limits}
    server.context.rate_limiters = RateLimiterPool(Limits(**told))
    session.is_rate_limited = True
    session.client.principal = address_principal("192.0.2.1")


class LineClient(FakeClient):
    """Uses the line protocol over a socket."""

    def __init__(self, server: "FakeServer", outcome: Identity | Error | None = None) -> None:
        self._splitter = LineSplitter(server.context.limits.max_line_bytes)
        super().__init__(server, LINE_ENCODER, LINE_DECODER, outcome)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes, in one read."""
        self.read(len(data))
        self.pipeline.submit(self._splitter.feed(data))

    def send(self, *lines: str) -> None:
        self.send_bytes("".join(line + "\n" for line in lines).encode())

    def received(self) -> list[str]:
        """The lines since the last call. Fails if the last one is incomplete."""
        data = self.received_bytes()
        assert data.endswith(b"\n") or not data, data[-100:]
        return data.decode().split("\n")[:-1]


def read_frames(data: bytes) -> list[str]:
    """The text messages in unmasked frames, with fragments joined (RFC 6455 section 5.2)."""
    messages: list[str] = []
    gathered, position = b"", 0
    while position < len(data):
        final, size, position = data[position] & 0x80, data[position + 1], position + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, position = int.from_bytes(data[position : position + width], "big"), position + width
        gathered += data[position : position + size]
        position += size
        if final:
            messages.append(gathered.decode())
            gathered = b""
    assert position == len(data) and not gathered, "half a message"
    return messages


class MessageClient(FakeClient):
    """Uses the line protocol over WebSocket."""

    def __init__(self, server: "FakeServer") -> None:
        super().__init__(server, LINE_MESSAGE_ENCODER, LINE_MESSAGE_DECODER)

    def send_messages(self, *messages: bytes) -> None:
        self.read(sum(map(len, messages)))
        self.pipeline.submit(split_messages(messages, self.server.context.limits.max_message_bytes))

    def send(self, *lines: str) -> None:
        self.send_messages(*(line.encode() for line in lines))

    def received(self) -> list[str]:
        return read_frames(self.received_bytes())


class JsonClient(FakeClient):
    """Uses the JSON protocol over WebSocket."""

    def __init__(
        self, server: "FakeServer", encoder: Encoder = JSON_MESSAGE_ENCODER, decoder: Decoder = json_decoder
    ) -> None:
        super().__init__(server, encoder, decoder)

    def send(self, *messages: dict[str, Any]) -> None:
        self.send_messages(*(json.dumps(message).encode() for message in messages))

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(message) for message in read_frames(self.received_bytes())]


class JsonLineClient(JsonClient):
    """Uses the JSON protocol on a socket of the line port, one message in each line."""

    def __init__(self, server: "FakeServer") -> None:
        self._splitter = LineSplitter(server.context.limits.max_line_bytes)
        self._splitter.has_verbs = False
        super().__init__(server, JSON_LINE_ENCODER, JSON_LINE_DECODER)

    def send_messages(self, *messages: bytes) -> None:
        data = b"".join(message + b"\n" for message in messages)
        self.read(len(data))
        self.pipeline.submit(self._splitter.feed(data))

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.received_bytes().decode().split("\n")[:-1]]


class FakeServer:
    """A whole server without a reactor. ``now`` is the clock; ids are p1, p2 …, epochs e1, e2 …"""

    def __init__(
        self,
        late: bool = False,
        policy: Policy | None = None,
        keeps_history: bool = False,
        node_name: bytes = b"",
        backplane: Any = None,
        **limits: Any,
    ) -> None:
        self.now = 1000.0
        self.clock: Callable[[], float] = lambda: self.now
        self.wall = 1_800_000_000.0
        self.turns = Turns()
        self._ids = self._epochs = 0
        memory = MemoryBackplane(self._draw_epoch, lambda: self.wall)
        if backplane is None:
            backplane = LateBackplane(memory, keeps_history, node_name) if late else memory
        self.backplane: Any = backplane
        self.context: ServerContext = build_context(
            self.backplane,
            Limits(**limits),
            "0.0",
            lambda: self.clock(),
            self.turns.schedule,
            self._draw_id,
            lambda: self.wall,
        )
        self.context.policy = policy
        self.broker = self.context.broker
        self.backplane.start(self.broker)

    def line_client(self) -> LineClient:
        return LineClient(self)

    def message_client(self) -> MessageClient:
        return MessageClient(self)

    def json_client(self) -> JsonClient:
        return JsonClient(self)

    def json_line_client(self) -> JsonLineClient:
        return JsonLineClient(self)

    def turn(self) -> None:
        """Run turns until the server is idle."""
        self.turns.run()

    def restart_backplane(self) -> None:
        """Drop all data of a late backplane."""
        self.backplane.restart(MemoryBackplane(self._draw_epoch, lambda: self.wall))

    def _draw_id(self) -> bytes:
        self._ids += 1
        return b"p%d" % self._ids

    def _draw_epoch(self) -> bytes:
        self._epochs += 1
        return b"e%d" % self._epochs
