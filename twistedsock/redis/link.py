"""The connection to Redis: examines the server, and prepares it.

A connection is used when the server has been examined and knows all scripts. Before that, it makes sure that the server
does nothing more that a former connection has sent: a server that was stopped for a while may still have that to read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from msgspec.structs import replace
from twisted.logger import Logger

from twistedsock.redis.address import Address
from twistedsock.redis.connection import Connection, Dialer, Surroundings
from twistedsock.redis.resp import Call, RedisError, load_scripts
from twistedsock.redis.server import (
    CHECKED_SETTINGS,
    Server,
    Unusable,
    examine,
    find_dangers,
    pairs,
    parse_info,
    read_fence,
    without_info,
)


class LinkUser(Protocol):
    """Is called by a link."""

    def connected(self, server: Server, time: int, is_former_over: bool) -> None:
        """Calls can be sent. ``time`` is that of the server, in milliseconds. ``is_former_over`` is False if the server
        may still run calls of a former connection."""

    def disconnected(self) -> None:
        """All calls without a reply have got ``ConnectionLost``."""

    def received(self, topic: bytes, message: bytes) -> None: ...

    def unfollowed(self, topic: bytes) -> None:
        """The server does not have a topic of a Cluster any more."""


class Reporter(Protocol):
    """Writes sentences for the operator into the log."""

    def connected(self, server: str) -> None: ...

    def unavailable(self, reason: str) -> None: ...

    def danger(self, sentence: str) -> None: ...


class LogReporter:
    """Writes into the log of Twisted."""

    _log = Logger()

    def connected(self, server: str) -> None:
        self._log.info("backplane: connected to {server}", server=server)

    def unavailable(self, reason: str) -> None:
        self._log.warn("backplane: {reason}: publications are rejected until it is connected", reason=reason)

    def danger(self, sentence: str) -> None:
        self._log.warn("backplane: {sentence}", sentence=sentence)


class Locator(Protocol):
    """Knows the address of the server, which can change."""

    def start(self, moved: Callable[[str, int], None]) -> None:
        """``moved`` is called with host and port when they are known, and when they have changed."""

    def stop(self) -> None: ...

    def locate(self, found: Callable[[str, int], None], failed: Callable[[str], None]) -> None:
        """Call one of these, once, with host and port or with the reason, now or later."""


class RedisLink(Dialer):
    """The user, the password, the database and TLS are those of ``address``, and so is the place unless there is a
    ``locator``. For the other arguments see ``Dialer``."""

    def __init__(
        self,
        address: Address,
        read_password: Callable[[], str],
        surroundings: Surroundings,
        reporter: Reporter,
        locator: Locator | None = None,
    ) -> None:
        super().__init__(read_password, surroundings)
        self._address = address
        self._locator = locator
        # Where the present connection, or attempt to connect, leads to.
        self._target = address
        self._reporter = reporter
        self._user: LinkUser
        self._server: Server | None = None
        self._client_id = 0
        # The connections, by process and number, that the server may not know to be over.
        self._formers: set[tuple[bytes, int]] = set()
        self._dangers: set[str] = set()

    def start(self, user: LinkUser) -> None:
        self._user = user
        if self._locator is not None:
            self._locator.start(self._moved)
        self.start_dialing()

    def stop(self) -> None:
        if self._locator is not None:
            self._locator.stop()
        super().stop()

    def received(self, topic: bytes, message: bytes) -> None:
        self._user.received(topic, message)

    def unfollowed(self, topic: bytes) -> None:
        self._user.unfollowed(topic)

    def report(self, reason: str) -> None:
        self._reporter.unavailable(f"{self._target}: {reason}" if self._address.nodes else reason)

    def lost(self) -> None:
        self._user.disconnected()

    # Connect.

    def find(self) -> None:
        if self._locator is None:
            self.dial(self._address)
        else:
            self._locator.locate(self._located, self.retry)

    def _located(self, host: str, port: int) -> None:
        self._target = replace(self._address, host=host, port=port)
        self.dial(self._target)

    def _moved(self, host: str, port: int) -> None:
        if (host, port) != (self._target.host, self._target.port):
            self.redial(f"the Sentinels have made another server the master, at {host}:{port}")

    def opened(self) -> None:
        """Examine the server."""
        hello = self.greet(self._address.user, self._address.password, self._greeted)
        if hello is None:
            return
        calls = [hello]
        if self._address.database:
            calls.append(Call((b"SELECT", self._address.database), self._check))
        settings: dict[str, str] = {}
        for name in CHECKED_SETTINGS:
            calls.append(Call((b"CONFIG", b"GET", name.encode()), lambda reply: settings.update(pairs(reply))))
        calls.append(Call((b"INFO",), partial(self._examine, self.connection, settings)))
        self.send(calls)

    def _greeted(self, reply: Any) -> None:
        if isinstance(reply, dict):
            self._client_id = reply.get(b"id", 0)
        elif "unknown command" in str(reply):
            self.fail("the server is too old: Redis 6.2 or newer, or Valkey, is required")
        else:
            self._check(reply)

    def _check(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self.fail(f"the server refuses the connection: {reply}")

    def _examine(self, connection: Connection | None, settings: dict[str, str], reply: Any) -> None:
        if isinstance(reply, RedisError):
            self.fail(str(without_info(reply)))
        if connection is not self.connection or isinstance(reply, Exception):
            return
        try:
            server = examine(parse_info(reply), bool(self._address.nodes))
        except Unusable as error:
            self.fail(str(error))
            return
        for danger in find_dangers(settings, has_replicas=self._locator is not None or bool(self._address.nodes)):
            if danger not in self._dangers:
                self._dangers.add(danger)
                self._reporter.danger(danger)
        calls = load_scripts(self._check)
        formers = self._formers = {former for former in self._formers if former[0] == server.process}
        for former in formers:
            calls.insert(0, Call((b"CLIENT", b"KILL", b"ID", former[1]), partial(self._killed, former)))
        calls.append(Call((b"TIME",), partial(self._ready, connection, server)))
        self.send(calls)

    def _killed(self, former: tuple[bytes, int], reply: Any) -> None:
        if not isinstance(reply, Exception):
            self._formers.discard(former)

    def _ready(self, connection: Connection | None, server: Server, reply: Any) -> None:
        if connection is not self.connection or isinstance(reply, Exception):
            self._check(reply)
            return
        is_former_over = not self._formers
        self._formers.add((server.process, self._client_id))
        self._server = server
        self.use()
        self._reporter.connected(f"{server.name} at {self._target}")
        seconds, microseconds = map(int, reply)
        self._user.connected(server, seconds * 1000 + microseconds // 1000, is_former_over)

    # Probe.

    def probe(self) -> Call:
        """Ask whether the server is still a master in the same run."""
        return Call((b"INFO", b"replication"), self._probe_answered)

    def _probe_answered(self, reply: Any) -> None:
        if isinstance(reply, Exception) or self._server is None:
            return
        try:
            fence = read_fence(parse_info(reply))
        except Unusable as error:
            self.fail(str(error))
            return
        if fence != self._server.fence:
            self.fail("the server has begun another run")
        else:
            self.probe_later()
