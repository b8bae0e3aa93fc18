"""Redis Cluster: several servers, each of which has some of the 16,384 slots of the names of keys.

A node is connected to each server that has slots, and asks one of them regularly which ones those are. A server that
does not have the slot of a call answers with the one that has it: MOVED, or ASK while the keys of the slot are moving.
Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from twistedsock.redis.address import Address, Place
from twistedsock.redis.connection import Dialer, Surroundings
from twistedsock.redis.link import RedisLink, Reporter
from twistedsock.redis.resp import Call, RedisError
from twistedsock.redis.shard import Shard
from twistedsock.redis.shards import Redirect, ShardsUser
from twistedsock.redis.wire import SHARED_TAG, SLOTS, Names, slot

Ranges = Sequence[tuple[int, int, Place]]
"""First and last slot, and the server that has them."""


class MapReader(Dialer):
    """Reads which server has which slots, from one server after the other if one does not answer. ``read`` is called
    with each answer, ``failed`` with the reason if there is none. For the other arguments see ``Dialer``."""

    def __init__(
        self,
        address: Address,
        read: Callable[[Ranges], None],
        failed: Callable[[str], None],
        read_password: Callable[[], str],
        surroundings: Surroundings,
    ) -> None:
        super().__init__(read_password, surroundings)
        self._address = address
        self._read = read
        self._failed = failed
        self._places: Sequence[Place] = address.nodes
        self._next = 0

    def find(self) -> None:
        place = self._places[self._next % len(self._places)]
        self._next += 1
        self._place = place
        self.dial(replace(self._address, host=place.host, port=place.port))

    def opened(self) -> None:
        hello = self.greet(self._address.user, self._address.password, self._check)
        if hello is not None:
            self.send([hello, Call((b"CLUSTER", b"SLOTS"), self._first_answered)])

    def _check(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self.fail(f"the server refuses the connection: {reply}")

    def _first_answered(self, reply: Any) -> None:
        if not isinstance(reply, Exception):
            self.use()
        self._note(reply)

    def probe(self) -> Call:
        return Call((b"CLUSTER", b"SLOTS"), self._answered)

    def _answered(self, reply: Any) -> None:
        if not isinstance(reply, Exception):
            self.probe_later()
        self._note(reply)

    def ask_now(self) -> None:
        """The answer is out of date."""
        if self.is_used:
            self.send([Call((b"CLUSTER", b"SLOTS"), self._note)])

    def ask_another(self, reason: str) -> None:
        """The server may be cut off from the others."""
        if self.is_used and len(self._places) > 1:
            self.fail(reason)

    def _note(self, reply: Any) -> None:
        if isinstance(reply, RedisError) and "cluster support disabled" in str(reply):
            self.fail("the server is not a node of a Cluster: use an address such as redis://host:6379/0")
        elif isinstance(reply, Exception):
            self._check(reply)
        else:
            # A server that does not know its own name means the one at which it was asked.
            ranges = [(first, last, _place(owner, self._place.host)) for first, last, owner, *_ in reply]
            self._places = [*dict.fromkeys([place for _, _, place in ranges]), *self._address.nodes]
            self._read(ranges)

    def lost(self) -> None: ...

    def report(self, reason: str) -> None:
        self._failed(f"{self._place}: {reason}")


class ClusterShards:
    """The servers of a Cluster. For the arguments see ``RedisLink``."""

    def __init__(
        self,
        address: Address,
        names: Names,
        read_password: Callable[[], str],
        surroundings: Surroundings,
        reporter: Reporter,
    ) -> None:
        self._address = address
        self._names = names
        self._reactor = surroundings.reactor
        self._reporter = reporter
        self._link_arguments = (read_password, surroundings, self)
        self._reader = MapReader(address, self._update, self._map_failed, read_password, surroundings)
        self._user: ShardsUser
        self._shards: dict[Place, Shard] = {}
        self._slots: list[Shard | None] = [None] * SLOTS
        # The servers that have slots.
        self._owners: set[Shard | None] = {None}
        self._is_change_scheduled = False
        self._dangers: set[str] = set()

    def start(self, user: ShardsUser) -> None:
        self._user = user
        self._reader.start_dialing()

    def stop(self) -> None:
        self._reader.stop()
        for shard in self._shards.values():
            shard.stop()

    @property
    def is_ready(self) -> bool:
        return all(shard is not None and shard.is_ready for shard in self._owners)

    @property
    def shared(self) -> Shard | None:
        return self._slots[slot(SHARED_TAG)]

    def of(self, channel: bytes) -> Shard | None:
        return self._slots[self._names.slot(channel)]

    # Where the slots are.

    def _shard(self, place: Place) -> Shard:
        shard = self._shards.get(place)
        if shard is None:
            address = replace(self._address, host=place.host, port=place.port)
            link = RedisLink(address, *self._link_arguments)
            shard = self._shards[place] = Shard(link, self._reactor.callLater, self._reporter.danger)
            shard.start(self._user)
        return shard

    def _update(self, ranges: Ranges) -> None:
        slots: list[Shard | None] = [None] * SLOTS
        for first, last, place in ranges:
            slots[first : last + 1] = [self._shard(place)] * (last + 1 - first)
        if slots != self._slots:
            self._slots = slots
            self._change()

    def _change(self) -> None:
        """Stop the connections to servers that had slots, and have none any more."""
        former, self._owners = self._owners, set(self._slots)
        for place, shard in list(self._shards.items()):
            if shard in former and shard not in self._owners:
                del self._shards[place]
                shard.stop()
        if not self._is_change_scheduled:
            self._is_change_scheduled = True
            self._reactor.callLater(0, self._changed)

    def _changed(self) -> None:
        self._is_change_scheduled = False
        self._user.slots_changed()

    def redirect(self, shard: Shard, error: RedisError) -> Redirect | None:
        kind, _, rest = str(error).partition(" ")
        if kind in ("TRYAGAIN", "CLUSTERDOWN"):
            return Redirect(None, False)
        if kind not in ("MOVED", "ASK"):
            return None
        number, _, text = rest.partition(" ")
        host, _, port = text.rpartition(":")
        own = next((place.host for place, other in self._shards.items() if other is shard), "")
        target = self._shard(Place(host or own, int(port)))
        if kind == "MOVED" and self._slots[int(number)] is not target:
            self._slots[int(number)] = target
            self._change()
            self._reader.ask_now()
        return Redirect(target, kind == "ASK")

    def _map_failed(self, reason: str) -> None:
        if not self._shards:  # otherwise the links report what does not answer
            self._reporter.unavailable(reason)

    # Reports of the links.

    def connected(self, server: str) -> None:
        self._reporter.connected(server)

    def unavailable(self, reason: str) -> None:
        self._reporter.unavailable(reason)
        self._reader.ask_another("another server of the Cluster does not answer")

    def danger(self, sentence: str) -> None:
        """Report settings once that several servers have."""
        if sentence not in self._dangers:
            self._dangers.add(sentence)
            self._reporter.danger(sentence)


def _place(owner: Sequence[Any], asked: str) -> Place:
    host = owner[0].decode("utf-8", "replace") if owner[0] else ""
    return Place(asked if host in ("", "?") else host, owner[1])
