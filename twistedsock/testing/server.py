"""A whole server in memory, and an access policy for it."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from twistedsock.auth.identity import Identity, Policy, grants
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import Error, ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.session.context import ServerContext, build_context
from twistedsock.testing.backplane import LateBackplane
from twistedsock.testing.clients import JsonClient, JsonLineClient, LineClient, MessageClient
from twistedsock.testing.outlet import Turns


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
