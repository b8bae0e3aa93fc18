"""What the clients for asyncio, for programs without it and for Twisted share: the core, its state, and constants."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from sockbridge.address import Address, tls_context
from sockbridge.core import Core, State
from sockbridge.errors import SockbridgeError, explain
from sockbridge.queue import ReportQueues
from sockbridge.values import Position, Welcome

READ_BYTES = 65_536

DEFAULT_TIMEOUT_SECONDS = 60.0
"""For the answer to a command, connected or not."""


class BaseClient:
    """A connection to a server that reconnects by itself. ``options`` are those of the Core."""

    def __init__(
        self,
        address: Address,
        *,
        on_state: Callable[[State], None] | None,
        on_notice: Callable[[str, str], None] | None,
        **options: Any,
    ) -> None:
        self.address = address
        self._report_state = on_state
        self._core = Core(
            random.random,
            on_state=self._state_changed,
            on_notice=on_notice or (lambda text, code: None),
            on_renewal=self._renew_token,
            **options,
        )

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def error(self) -> SockbridgeError | None:
        """Why the last connection ended, or why the client is closed."""
        return self._core.error

    @property
    def welcome(self) -> Welcome | None:
        """The id of the client and both addresses, while it is connected."""
        return self._core.welcome

    def _connection_error(self, error: OSError) -> SockbridgeError:
        """What has prevented or ended a connection."""
        if self._core.state is State.OPEN:
            return SockbridgeError("disconnected", f"the connection to {self.address} ended: {explain(error)}")
        return SockbridgeError("unreachable", f"cannot connect to {self.address}: {explain(error)}")

    def _state_changed(self) -> None:
        if self._report_state is not None:
            self._report_state(self._core.state)

    def _renew_token(self) -> None:
        """The token expires soon: send a new one."""
        raise NotImplementedError


class QueueingClient(BaseClient):
    """A client whose subscriptions keep their reports until the program takes them. The parameters are those of
    ``connect``."""

    def __init__(
        self, address: Address, *, authorities: str | None, timeout: float | None, must_connect: bool, **options: Any
    ) -> None:
        super().__init__(address, **options)
        self._tls = tls_context(address, authorities)
        self._timeout = timeout
        self._must_connect = must_connect
        self._queues = ReportQueues(self._core)

    @property
    def positions(self) -> Mapping[str, Position]:
        """The position of each subscription that has not ended, that of the last event that the program has received.
        Store them, and pass them as ``since`` later."""
        return self._queues.positions


def token_error(error: BaseException) -> SockbridgeError:
    """The program's function for tokens has raised an exception: without a token, no connection is opened."""
    return SockbridgeError("unreachable", f"there is no token: {error or type(error).__name__}")
