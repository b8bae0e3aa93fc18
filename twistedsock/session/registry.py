"""What the sessions of a server share: the table of sessions, the listeners to their timelines, limits and the policy.

The types are generic in the session, so that this module does not import it; ``ServerContext`` is the one for sessions.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from twistedsock.auth.expiry import ExpiryWatcher
from twistedsock.auth.identity import Identity, Policy
from twistedsock.errors import Error
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.principal import is_remote
from twistedsock.limits.rate import RateLimiterPool
from twistedsock.limits.settings import Limits
from twistedsock.limits.shares import MemoryBudget
from twistedsock.pubsub.broker import Broker
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import Step
from twistedsock.stats import Stats

if TYPE_CHECKING:
    from twistedsock.pubsub.channel_index import ChannelIndex
    from twistedsock.session.idempotency import Idempotency

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class SessionRegistry(Generic[S]):
    """Sessions by id. ``draw_id`` returns a short random name; it is called again if that name is in use. With a
    ``node_name``, ids begin with it and a hyphen, so that they are unique over all nodes. Ids of other nodes are known
    by their form."""

    def __init__(self, draw_id: Callable[[], bytes], node_name: bytes = b"") -> None:
        self._draw_id = draw_id
        self._prefix = node_name + b"-" if node_name else b""
        self._remote_id = re.compile(rb"[a-z0-9]{%d}-[a-z0-9]+" % len(node_name)) if node_name else None
        self._sessions: dict[bytes, S | None] = {}
        self._on_empty: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[S]:
        return iter([session for session in self._sessions.values() if session is not None])

    def __contains__(self, id: bytes) -> bool:
        return id in self._sessions

    def is_id(self, name: bytes) -> bool:
        """Whether a name is the id of a client here or can be one of another node. Such a name is no valid nick."""
        return name in self._sessions or self.is_remote_id(name)

    def is_remote_id(self, name: bytes) -> bool:
        """Whether a name has the form of the ids of other nodes."""
        if self._remote_id is None or self._remote_id.fullmatch(name) is None:
            return False
        return not name.startswith(self._prefix)

    def new_id(self) -> bytes:
        """Reserve an unused id until ``remove``."""
        while (id := self._prefix + self._draw_id()) in self._sessions:
            pass
        self._sessions[id] = None
        return id

    def add(self, id: bytes, session: S) -> None:
        self._sessions[id] = session

    def get(self, id: bytes) -> S | None:
        return self._sessions.get(id)

    def remove(self, id: bytes) -> None:
        """Release an id."""
        self._sessions.pop(id, None)
        if not self._sessions and self._on_empty is not None:
            self._on_empty()

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call back when the last session is removed, or now if all are."""
        self._on_empty = callback
        if not self._sessions:
            callback()


class ConnectionListener(Protocol[S_contra]):
    """Receives the timelines of all connections. Its methods must not raise, and not keep the session."""

    def opened(self, session: S_contra) -> None:
        """A session was opened."""

    def stepped(self, session: S_contra, step: Step) -> None:
        """A step was added to its timeline."""

    def closed(self, session: S_contra) -> None:
        """It is closed. Its socket may still be open, for a last reading of its statistics."""

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str) -> None:
        """A client was rejected before it had a session: at ``line`` or ``web`` ports, or with an ``http`` request.
        ``about`` is what it sent, if that explains the error: the origin."""


class ConnectionEvents(Generic[S]):
    """Calls all ``listeners``, in their order."""

    __slots__ = ("listeners",)

    def __init__(self) -> None:
        self.listeners: list[ConnectionListener[S]] = []

    def opened(self, session: S) -> None:
        for listener in self.listeners:
            listener.opened(session)

    def stepped(self, session: S, step: Step) -> None:
        for listener in self.listeners:
            listener.stepped(session, step)

    def closed(self, session: S) -> None:
        for listener in self.listeners:
            listener.closed(session)

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str = "") -> None:
        for listener in self.listeners:
            listener.refused(endpoints, protocol, error, about)


@dataclass(slots=True)
class SessionContext(Generic[S]):
    broker: Broker
    sessions: SessionRegistry[S]
    connection_limiter: ConnectionLimiter
    channel_index: "ChannelIndex"
    """One for a server, because the searches of all clients take turns."""
    idempotency: "Idempotency"
    limits: Limits
    version: bytes
    started: float
    """The broker's clock at the start of the server."""
    wall_clock: Callable[[], float]
    """Returns seconds since 1970. It can jump."""
    expiry_watcher: ExpiryWatcher
    rate_limiters: RateLimiterPool
    """The rates of remote clients."""
    policy: Policy | None = None
    """None: all clients have all rights. After the first connection, change it by ``ServerContext.change_policy``."""
    draining: bool = False
    """True while the server shuts down: it closes its sessions and accepts no new ones."""
    connection_events: ConnectionEvents[S] = field(default_factory=ConnectionEvents)

    @property
    def memory_budget(self) -> MemoryBudget:
        """Of all connections together."""
        return self.broker.memory_budget

    @property
    def stats(self) -> Stats:
        return self.broker.stats

    def is_admin(self, identity: Identity | None, client: bytes) -> bool:
        """True for administrators: identities that the policy declares to be one or, without a policy, clients on this
        machine. ``client`` is the client's address as text."""
        if self.policy is None:
            return not is_remote(client)
        return identity is not None and identity.is_admin

    def uptime(self) -> int:
        """Seconds since the start."""
        return int(self.broker.clock() - self.started)
