"""One server of the backplane: its connection, and the calls that leave in one write at the end of a turn."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from twistedsock.errors import UNAVAILABLE, Error, ErrorCode
from twistedsock.redis.link import LinkUser
from twistedsock.redis.resp import ConnectionLost, Item, RedisError, ShardTopic, Subscribe, Unsent, Unsubscribe
from twistedsock.redis.server import Server

OUT_OF_MEMORY = Error(ErrorCode.UNAVAILABLE, "Redis is out of memory: try again later")

TOO_FEW_REPLICAS = Error(ErrorCode.UNAVAILABLE, "Redis has too few replicas: try again later")


class Link(Protocol):
    """The connection to a server."""

    def start(self, user: LinkUser) -> None: ...

    def stop(self) -> None: ...

    def send(self, items: Sequence[Item]) -> None: ...

    def fail(self, reason: str) -> None: ...


class ShardUser(Protocol):
    """Is called by a shard."""

    def connected(self, shard: "Shard", is_former_over: bool) -> None:
        """Calls can be queued. ``is_former_over`` is False if the server may still run calls of a former connection."""

    def disconnected(self, shard: "Shard") -> None:
        """All calls that were sent have got ``ConnectionLost``."""

    def received(self, topic: bytes, message: bytes) -> None: ...

    def unfollowed(self, shard: "Shard", topic: bytes, reply: Exception | None) -> None:
        """A topic of a Cluster cannot be followed on this server, for the reason in ``reply``, or not any more."""


class Shard:
    """``schedule`` calls a function after some seconds, or after this turn. ``report`` is called with sentences for the
    operator."""

    def __init__(
        self,
        link: Link,
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], object],
    ) -> None:
        self.is_ready = False
        self.has_shard_topics = False
        """Whether it sends the messages about events only to its own clients: see ``Server``."""
        self.fence = b""
        """The run of the server."""
        self.time = 0
        """The newest time that is known of the clock of this server, in milliseconds: all that it writes from now on is
        not older."""
        self.connection = 0
        """The number of the connection, so that work which waits can notice that it is another one."""
        self._link = link
        self._user: ShardUser
        self._schedule = schedule
        self._report = report
        self._outgoing: list[Item | Unsent] = []
        self._is_flush_scheduled = False
        self._reported_error = ""

    def start(self, user: ShardUser) -> None:
        self._user = user
        self._link.start(self)

    def stop(self) -> None:
        self.is_ready = False
        self._link.stop()

    def follow(self, topics: Sequence[bytes]) -> None:
        """Follow topics with events."""
        if self.has_shard_topics:
            for topic in topics:
                self.queue(ShardTopic(topic, False, partial(self._followed, topic)))
        else:
            self.queue(Subscribe(topics))

    def _followed(self, topic: bytes, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self._user.unfollowed(self, topic, reply)

    def unfollow(self, topic: bytes) -> None:
        item = ShardTopic(topic, True, _ignore) if self.has_shard_topics else Unsubscribe([topic])
        self.queue(item)

    # The end of a turn.

    def queue(self, item: Item | Unsent) -> None:
        """Send this at the end of the turn."""
        if not self.is_ready:
            _abandon(item)
            return
        self._outgoing.append(item)
        if not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self._schedule(0, self._flush)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        outgoing, self._outgoing = self._outgoing, []
        items: list[Item] = []
        for item in outgoing:
            if isinstance(item, Unsent):
                items += item.build()
            else:
                items.append(item)
        if items:
            self._link.send(items)

    # Calls of the link.

    def connected(self, server: Server, time: int, is_former_over: bool) -> None:
        self.fence, self.has_shard_topics = server.fence, server.has_shard_topics
        self.time = time  # the clock of another server can be behind
        self.connection += 1
        self.is_ready = True
        self._user.connected(self, is_former_over)

    def disconnected(self) -> None:
        self.is_ready = False
        outgoing, self._outgoing = self._outgoing, []
        for item in outgoing:
            _abandon(item)
        self._user.disconnected(self)

    def received(self, topic: bytes, message: bytes) -> None:
        self._user.received(topic, message)

    def unfollowed(self, topic: bytes) -> None:
        self._user.unfollowed(self, topic, None)

    # Replies.

    def note_time(self, time: int) -> None:
        """The server has reported its time."""
        self.time = max(self.time, time)

    def has_succeeded(self) -> None:
        """The server has run a publication: its next error is reported, even if it is the same as before."""
        self._reported_error = ""

    def error(self, reply: Exception) -> Error:
        """The answer to a call that has failed."""
        if not isinstance(reply, RedisError):
            return UNAVAILABLE
        text = str(reply)
        if "READONLY" in text:
            self._schedule(0, partial(self._link.fail, "the server has become a replica"))
        elif text != self._reported_error:  # until a publication succeeds, not for each one
            self._reported_error = text
            self._report(f"Redis has rejected a call: {text}")
        if "OOM" in text:
            return OUT_OF_MEMORY
        if "NOREPLICAS" in text:
            return TOO_FEW_REPLICAS
        return UNAVAILABLE


def _abandon(item: Item | Unsent) -> None:
    """It cannot be sent."""
    if isinstance(item, Unsent):
        item.abandon()
    elif not isinstance(item, Subscribe):
        item.done(ConnectionLost())


def _ignore(reply: Any) -> None: ...
