"""A .tac file: a server whose backplane fails over to an empty one when a client publishes on `failover`."""

import time
import uuid
from typing import Any

from twisted.application.service import Application

from twistedsock import make_service
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import ChannelState, Position, Publication

TCP = "tcp:0:interface=127.0.0.1"


def new_memory() -> MemoryBackplane:
    return MemoryBackplane(lambda: uuid.uuid4().hex.encode(), time.time)


class FailingOver:
    """Loses the last event of `kitchen`. The offsets of the new epoch begin again."""

    def __init__(self) -> None:
        self._memory = new_memory()

    def start(self, node: Node) -> None:
        self._node = node
        self._memory.start(node)

    def publish(self, publisher: Client, publication: Publication) -> int:
        if publication.channel == b"failover":
            former = self._memory.open(b"kitchen").position
            self._memory = new_memory()
            self._memory.start(self._node)
            new = self._memory.open(b"kitchen").position
            self._node.reset(b"kitchen", ChannelState(new, previous=Position(former.epoch, max(0, former.offset - 1))))
        return self._memory.publish(publisher, publication)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)


application = Application("failover")
backplane: Any = FailingOver()
make_service({"tcp": TCP, "web": TCP}, backplane=backplane).setServiceParent(application)
