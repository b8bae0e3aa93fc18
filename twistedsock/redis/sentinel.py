"""Redis Sentinel: several observers, which make a replica the master when the master fails, and know the address.

A node is connected to all Sentinels. Each is asked regularly, and reports a change at once (``+switch-master``). If
their answers differ, the one with the newest configuration counts: a Sentinel that was cut off from the others has an
older one. The server at the address must still say itself that it is a master: see ``server.read_fence``.
Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from twistedsock.redis.address import Address, Place
from twistedsock.redis.connection import Dialer, Surroundings
from twistedsock.redis.link import Reporter
from twistedsock.redis.resp import Call, RedisError, Subscribe

SWITCHED = b"+switch-master"


class Master(Struct, frozen=True):
    """What a Sentinel says. ``epoch`` is the number of the failover that has made this server the master."""

    host: str
    port: int
    epoch: int


class SentinelWatcher(Dialer):
    """The connection to one Sentinel. ``master`` is its answer, None if it is not connected, and ``problem`` the reason
    for that, empty if it is not known yet. ``changed`` is called when one of them has changed."""

    def __init__(
        self,
        sentinel: Place,
        address: Address,
        changed: Callable[[], None],
        read_password: Callable[[], str],
        surroundings: Surroundings,
    ) -> None:
        super().__init__(read_password, surroundings)
        self.master: Master | None = None
        self.problem = ""
        self._sentinel = sentinel
        self._address = address
        self._name = address.master.encode()
        self._changed = changed

    def find(self) -> None:
        address = self._address
        self.dial(Address(self._sentinel.host, self._sentinel.port, is_tls=address.is_tls, ca_file=address.ca_file))

    def opened(self) -> None:
        address = self._address
        hello = self.greet(address.sentinel_user, address.sentinel_password, self._check)
        if hello is not None:
            # Follows the topic first, so that no change is missed.
            self.send([hello, Subscribe([SWITCHED]), Call(self._question, self._first_answered)])

    @property
    def _question(self) -> tuple[bytes, ...]:
        return (b"SENTINEL", b"MASTER", self._name)

    def _check(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self.fail(f"the Sentinel refuses the connection: {reply}")

    def _first_answered(self, reply: Any) -> None:
        if self._note(reply):
            self.use()
            self._changed()

    def probe(self) -> Call:
        return Call(self._question, self._answered)

    def _answered(self, reply: Any) -> None:
        if self._note(reply):
            self.probe_later()
            self._changed()

    def received(self, topic: bytes, message: bytes) -> None:
        if message.split(b" ")[0] == self._name and self.master is not None:
            self.send([Call(self._question, self._switched)])

    def _switched(self, reply: Any) -> None:
        if self._note(reply):
            self._changed()

    def _note(self, reply: Any) -> bool:
        """Whether it is an answer."""
        if isinstance(reply, RedisError):
            if "No such master" in str(reply):
                self.fail(f"the Sentinel knows no master with the name {self._address.master!r}")
            else:
                self._check(reply)
        elif isinstance(reply, dict) and {b"ip", b"port", b"config-epoch"} <= reply.keys():
            host = reply[b"ip"].decode("utf-8", "replace")
            self.master, self.problem = Master(host, int(reply[b"port"]), int(reply[b"config-epoch"])), ""
            return True
        elif not isinstance(reply, Exception):
            self.fail("this is not a Sentinel")
        return False

    def lost(self) -> None:
        self.master = None

    def report(self, reason: str) -> None:
        self.problem = f"{self._sentinel}: {reason}"
        self._changed()


class Sentinels:
    """Finds the master that is named in ``address``. For the other arguments see ``Dialer``."""

    def __init__(
        self, address: Address, read_password: Callable[[], str], surroundings: Surroundings, reporter: Reporter
    ) -> None:
        self._watchers = [
            SentinelWatcher(sentinel, address, self._changed, read_password, surroundings)
            for sentinel in address.sentinels
        ]
        self._reporter = reporter
        self._moved: Callable[[str, int], None]
        self._found: Callable[[str, int], None] | None = None
        self._failed: Callable[[str], None]
        # The answer that counts. It is remembered when no Sentinel answers.
        self._master: Master | None = None
        self._is_loss_reported = False

    def start(self, moved: Callable[[str, int], None]) -> None:
        self._moved = moved
        for watcher in self._watchers:
            watcher.start_dialing()

    def stop(self) -> None:
        for watcher in self._watchers:
            watcher.stop()

    def locate(self, found: Callable[[str, int], None], failed: Callable[[str], None]) -> None:
        """Waits until a Sentinel answers, or all have failed."""
        self._found, self._failed = found, failed
        self._settle(self._newest())

    def _newest(self) -> Master | None:
        """The answer that counts. Sentinels that have been installed anew count again from 0: then all must agree."""
        masters = [watcher.master for watcher in self._watchers if watcher.master is not None]
        newest = max(masters, key=lambda master: master.epoch, default=None)
        known = self._master
        if newest is not None and known is not None and newest.epoch < known.epoch:
            return newest if len(masters) == len(self._watchers) else known
        return newest

    def _changed(self) -> None:
        master = self._newest()
        if master is None:
            self._report_loss()
        else:
            self._is_loss_reported = False
            former, self._master = self._master, master
            if former is not None and (former.host, former.port) != (master.host, master.port):
                self._moved(master.host, master.port)
        self._settle(master)

    def _settle(self, master: Master | None) -> None:
        found = self._found
        if found is None:
            return
        if master is not None:
            self._found = None
            found(master.host, master.port)
        elif all(watcher.problem for watcher in self._watchers):
            self._found = None
            self._failed(self._loss())

    def _loss(self) -> str:
        return f"no Sentinel answers: {', '.join(watcher.problem for watcher in self._watchers)}"

    def _report_loss(self) -> None:
        """While there is a connection to the master, it is still used."""
        if self._master is not None and not self._is_loss_reported and all(w.problem for w in self._watchers):
            self._is_loss_reported = True
            self._reporter.danger(f"{self._loss()}: a failover cannot be noticed")
