"""Keeps the channels of the server itself away from a backplane that connects several nodes."""

from collections.abc import Sequence

from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import Error
from twistedsock.pubsub.backplane import Backplane, Node
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, ChannelState, Member, NodeCommand, Position, Publication


class ReservedChannelsBackplane:
    """``own`` has the channels under ``$sys/``, in which each node reports itself; ``shared`` has the rest."""

    def __init__(self, shared: Backplane, own: MemoryBackplane) -> None:
        self.node_name = shared.node_name
        self.keeps_history = shared.keeps_history
        self.counts_members: bool = getattr(shared, "counts_members", False)
        self._shared = shared
        self._own = own

    @property
    def is_ready(self) -> bool:
        return self._shared.is_ready

    def start(self, node: Node) -> Future[bool] | None:
        self._own.start(node)
        return self._shared.start(node)

    def stop(self) -> Future[bool] | None:
        return self._shared.stop()

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        return self._of(publication.channel).publish(publisher, publication)

    def open(self, channel: bytes) -> ChannelState | Error | Future[ChannelState]:
        return self._of(channel).open(channel)

    def close(self, channel: bytes) -> None:
        self._of(channel).close(channel)

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch] | Error | Future[Sequence[Batch]]:
        return self._of(channel).read(channel, after, limit)

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int | Error | Future[int]:
        return self._of(channel).offset_before(channel, epoch, time)

    def join(self, channel: bytes, member: Member) -> None:
        self._of(channel).join(channel, member)

    def rename(self, channel: bytes, member: Member) -> None:
        self._of(channel).rename(channel, member)

    def leave(self, channel: bytes, member: Member) -> None:
        self._of(channel).leave(channel, member)

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        return self._of(channel).members(channel)

    def send(self, command: NodeCommand) -> None:
        self._shared.send(command)

    def _of(self, channel: bytes) -> Backplane:
        return self._own if is_reserved(channel) else self._shared
