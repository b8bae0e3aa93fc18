"""The servers of the backplane, and which of them has a channel: one server for all, or the nodes of a Cluster."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from twistedsock.redis.resp import Call, RedisError
from twistedsock.redis.shard import Link, Shard, ShardUser

RETRY_SECONDS = 0.05
"""How long a call waits whose server is not known or not connected yet, while a slot of a Cluster moves."""

MAX_RETRIES = 40
"""Two seconds: a Cluster without changes answers long before."""


class Redirect(NamedTuple):
    """Where a Cluster wants to have a call. ``shard`` is None if it must only be repeated a bit later. ``is_ask`` means
    that only this call is concerned: the slot is moving, and the server must be asked for it explicitly."""

    shard: Shard | None
    is_ask: bool

    def queue(self, call: Call) -> None:
        """Send a call there. Only if the server is connected."""
        assert self.shard is not None
        if self.is_ask:
            self.shard.queue(Call((b"ASKING",), _ignore))
        self.shard.queue(call)


class ShardsUser(ShardUser, Protocol):
    """Is called by the servers."""

    def slots_changed(self) -> None:
        """Channels may be on other servers."""


class Shards(Protocol):
    @property
    def is_ready(self) -> bool:
        """Whether all servers are connected."""
        ...

    @property
    def shared(self) -> Shard | None:
        """The server with all that is not of one channel: members, and messages to all nodes. None if it is not known
        yet."""
        ...

    def of(self, channel: bytes) -> Shard | None:
        """The server of a channel. None if it is not known yet."""

    def redirect(self, shard: Shard, error: RedisError) -> Redirect | None:
        """What an error reply of ``shard`` says about the place of a channel, None if it says something else. The call
        has had no effect."""

    def start(self, user: ShardsUser) -> None: ...

    def stop(self) -> None: ...


class OneShard:
    """One server for all. For the arguments see ``Shard``."""

    def __init__(
        self,
        link: Link,
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[str], object],
    ) -> None:
        self.shared = Shard(link, schedule, report)

    @property
    def is_ready(self) -> bool:
        return self.shared.is_ready

    def of(self, channel: bytes) -> Shard:
        return self.shared

    def redirect(self, shard: Shard, error: RedisError) -> None:
        return None

    def start(self, user: ShardsUser) -> None:
        self.shared.start(user)

    def stop(self) -> None:
        self.shared.stop()


def _ignore(reply: object) -> None: ...
