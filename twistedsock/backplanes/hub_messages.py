"""The protocol between a worker process and the hub, in both directions: frames with messages, without input or output.

A frame is the length of its body, the number of a request, and a body. Both numbers are 4 bytes, the highest first. The
body is a message in MessagePack (https://msgpack.org), encoded by msgspec. The number is 0, or that of the request that
the message is, or that it answers. Both ends are processes of the same installation, so the protocol has no versions.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, TypeVar

import msgspec

from twistedsock.pubsub.values import Batch, ChannelState, DisconnectClient, Member, Position, Publication

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""The maximum of a body. The longest ones are answers to ``Open`` with the history of a channel, see
``MAX_TAIL_BYTES``, and publications of the longest message that a client can send."""

MAX_TAIL_BYTES = 16 * 1024 * 1024
"""The largest history that an answer to ``Open`` contains. A worker reads older events in chunks."""

HEADER = Struct(">II")

T = TypeVar("T")


class ProtocolError(Exception):
    """The other end does not speak this protocol, or the data is damaged. The connection must be closed."""


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Messages are arrays that begin with a number, their tag."""


class _OfMember(Message, frozen=True):
    """About a member of a channel."""

    channel: bytes
    member: Member


# From a worker to the hub.


class Hello(Message, tag=1, frozen=True):
    """The first message. ``hub`` is the hub that the worker was connected to before, or empty: if it is another one,
    its clients are members already, and their joins are not announced again."""

    node_name: bytes
    hub: bytes


class Synced(Message, tag=2, frozen=True):
    """The members of all channels have been sent, by ``Members``."""


class Members(Message, tag=3, frozen=True):
    """To the hub: clients of the worker that are members of a channel, after the connection was established. To a
    worker: all members, as an answer."""

    channel: bytes
    members: Sequence[Member]


class PublishRequest(Message, tag=4, frozen=True):
    publisher: bytes
    sender: bytes
    principal: bytes
    publication: Publication


class Open(Message, tag=5, frozen=True):
    """``known`` is the newest event that the worker has, if it has opened the channel before."""

    channel: bytes
    known: Position | None


class Close(Message, tag=6, frozen=True):
    channel: bytes


class Read(Message, tag=7, frozen=True):
    channel: bytes
    after: Position
    limit: int


class Join(_OfMember, tag=8, frozen=True): ...


class Rename(_OfMember, tag=9, frozen=True): ...


class Leave(_OfMember, tag=10, frozen=True): ...


class ListMembers(Message, tag=11, frozen=True):
    channel: bytes


class Gather(Message, tag=12, frozen=True):
    """Ask all other workers for a report."""

    topic: bytes


class WorkerReport(Message, tag=13, frozen=True):
    """The answer of a worker to ``Ask``."""

    content: bytes


class Goodbye(Message, tag=14, frozen=True):
    """The worker stops: its members leave at once."""


class FindOffset(Message, tag=15, frozen=True):
    """``Backplane.offset_before``"""

    channel: bytes
    epoch: bytes
    time: int


class ReportCounts(Message, tag=16, frozen=True):
    """The connections of some addresses and identities to this worker. A worker that has just connected has none."""

    counts: dict[bytes, int]


class Probe(Message, tag=18, frozen=True):
    """Asks for ``Alive``."""


class SendToWorker(Message, tag=17, frozen=True):
    """``SendsToNodes.send_to``"""

    node: bytes
    content: bytes


# From the hub to a worker.


class Welcome(Message, tag=20, frozen=True):
    """The answer to ``Hello``. ``hub`` is a random name of the hub process."""

    hub: bytes
    is_ready: bool


class Ready(Message, tag=21, frozen=True):
    """Whether the hub can answer publications, when that has changed."""

    is_ready: bool


class Offset(Message, tag=22, frozen=True):
    """The answer to ``FindOffset``, and to a publication that is not delivered to this worker now."""

    offset: int
    is_repeated: bool = False
    """Whether it is a ``RepeatedOffset``."""


class Deliver(Message, tag=23, frozen=True):
    """An event. It is also the answer to its publication if that came from this worker."""

    channel: bytes
    epoch: bytes
    batch: Batch


class OpenedChannel(Message, tag=24, frozen=True):
    """The answer to ``Open``."""

    state: ChannelState


class ResetChannel(Message, tag=25, frozen=True):
    channel: bytes
    state: ChannelState


class Batches(Message, tag=26, frozen=True):
    """The answer to ``Read``."""

    batches: Sequence[Batch]


class Changed(_OfMember, tag=27, frozen=True):
    """A member has joined or left. One worker is also sent the number of ``members`` on all workers: it notifies
    observers."""

    joined: bool
    members: int | None = None


class Failure(Message, tag=28, frozen=True):
    """The answer to any request that has failed."""

    code: bytes
    message: str


class Ask(Message, tag=29, frozen=True):
    """Asks for a report. The answer is a ``WorkerReport`` with the same number."""

    topic: bytes


class Reports(Message, tag=30, frozen=True):
    """The answer to ``Gather``: reports of other workers by their names. A worker that does not answer is missing."""

    reports: dict[bytes, bytes]


class CountsElsewhere(Message, tag=31, frozen=True):
    """The connections of some addresses and identities to all other workers, as ``SharedCounts.received`` has them."""

    counts: dict[bytes, int]


class Alive(Message, tag=34, frozen=True):
    """The hub does not hang."""


class SentByWorker(Message, tag=32, frozen=True):
    """The content of a ``SendToWorker`` of another worker."""

    node: bytes
    content: bytes


class WorkerAway(Message, tag=33, frozen=True):
    """A message was not delivered, because no worker of this name is connected."""

    node: bytes


# In both directions.


class Command(Message, tag=40, frozen=True):
    """To be run by all other nodes."""

    command: DisconnectClient


ToHub = (
    Hello
    | Synced
    | Members
    | PublishRequest
    | Open
    | Close
    | Read
    | Join
    | Rename
    | Leave
    | ListMembers
    | Gather
    | WorkerReport
    | Goodbye
    | FindOffset
    | ReportCounts
    | Probe
    | SendToWorker
    | Command
)

ToWorker = (
    Welcome
    | Ready
    | Offset
    | Deliver
    | OpenedChannel
    | ResetChannel
    | Batches
    | Members
    | Changed
    | Failure
    | Ask
    | Reports
    | CountsElsewhere
    | Alive
    | SentByWorker
    | WorkerAway
    | Command
)

encode = msgspec.msgpack.Encoder().encode
"""The body of a message."""


def frame(request: int, body: bytes) -> bytes:
    return HEADER.pack(len(body), request) + body


class FrameReader:
    """Splits a stream into frames, and decodes their bodies as one of two unions: ``ToHub`` or ``ToWorker``. The data
    of an incomplete frame is joined once, however many pieces it arrives in."""

    def __init__(self, messages: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(messages).decode
        self._pieces: list[bytes] = []
        self._data = b""
        self._start = 0
        self._size = 0
        """Bytes that have not been read."""
        self._needed = HEADER.size

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """The requests and messages that are complete. Data can be added while this is iterated over, and the rest be
        read by another iterator. Raises ProtocolError."""
        while self._size >= self._needed:
            if self._pieces:
                self._data = b"".join([self._data[self._start :], *self._pieces])
                self._pieces.clear()
                self._start = 0
            length, request = HEADER.unpack_from(self._data, self._start)
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes, more than {MAX_FRAME_BYTES}")
            end = self._start + HEADER.size + length
            if HEADER.size + length > self._size:
                self._needed = HEADER.size + length
                return
            body = self._data[self._start + HEADER.size : end]
            self._start, self._needed = end, HEADER.size
            self._size -= HEADER.size + length
            if not self._size:
                self._data, self._start = b"", 0
            try:
                message = self._decode(body)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                raise ProtocolError(str(error)) from None
            yield request, message


def newer_than(known: Position | None, state: ChannelState) -> ChannelState:
    """The state of a channel without the events that a worker has."""
    if known is None or known.epoch != state.position.epoch:
        return state
    older = [batch for batch in state.tail if batch.end <= known.offset + 1]
    newer = [batch.part(known.offset + 1, batch.end) for batch in state.tail[len(older) :]]
    time = older[-1].time if older else state.time
    return ChannelState(state.position, newer, time, state.begin, state.previous)
