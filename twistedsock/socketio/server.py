"""An application: its namespaces, and the limits of its clients."""

from collections.abc import Callable
from secrets import token_urlsafe

from twistedsock.codecs.engineio_session import EngineSettings
from twistedsock.codecs.socketio import MAIN_NAMESPACE
from twistedsock.server.engineio import EngineConnection
from twistedsock.socketio.connection import Connection
from twistedsock.socketio.namespace import Namespace

ID_BYTES = 15
"""Random bytes of an id: 20 characters, as in the reference implementation."""

DEFAULT_CONNECT_TIMEOUT_SECONDS = 45.0

MAX_PAYLOADS_PER_PACKET = 2
"""The maximum size of a packet with its attachments, in maximum payloads."""


def generate_id() -> str:
    """An id that cannot be guessed."""
    return token_urlsafe(ID_BYTES)


class SocketIO(Namespace):
    """An application, which is also its main namespace, ``/``. Times are seconds, sizes are bytes.

    A client that does not answer a ping within ``ping_timeout`` is disconnected. ``max_payload`` is the maximum size of
    a message, ``max_buffered_bytes`` of the packets that wait for one client: a slower client is disconnected.
    ``connect_timeout`` is the time that a client has to join its first namespace."""

    def __init__(
        self,
        *,
        ping_interval: float = 25.0,
        ping_timeout: float = 20.0,
        max_payload: int = 1_000_000,
        max_buffered_bytes: int = 4_000_000,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_SECONDS,
        generate_id: Callable[[], str] = generate_id,
    ) -> None:
        super().__init__(MAIN_NAMESPACE)
        self.generate_id = generate_id
        self.engine_settings = EngineSettings(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_payload=max_payload,
            max_buffered_bytes=max_buffered_bytes,
        )
        self.namespaces: dict[str, Namespace] = {MAIN_NAMESPACE: self}
        """By name. Clients can join only these. Read only."""
        self._connect_timeout = connect_timeout

    def of(self, name: str) -> Namespace:
        """The namespace of this name, which begins to exist with the first call."""
        namespace = self.namespaces.get(name)
        if namespace is None:
            namespace = self.namespaces[name] = Namespace(name)
        return namespace

    def open(self, engine: EngineConnection) -> Connection:
        """Called by the server for each new connection."""
        maximum = MAX_PAYLOADS_PER_PACKET * self.engine_settings.max_payload
        return Connection(self, engine, self._connect_timeout, maximum)
