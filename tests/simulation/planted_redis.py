"""Planted faults of the backplane for Redis. Each is looked for with the faults of servers that it needs."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from tests.simulation.faults import FaultRates
from tests.simulation.planting import Patch, Plant, planted_in
from tests.simulation.redis import RedisBackplanes, RedisFaults
from tests.simulation.world import World
from twistedsock.pubsub.values import Position
from twistedsock.redis import channels
from twistedsock.redis.channels import Channels
from twistedsock.redis.link import RedisLink
from twistedsock.redis.presence import Presence
from twistedsock.redis.publications import Publications
from twistedsock.redis.resp import ConnectionLost
from twistedsock.redis.shard import Shard

STEPS = 250


def plant(crash: float = 0.0, **faults: float) -> Callable[[Plant], Plant]:
    """A fault that runs with these faults of servers, connections and nodes can find."""

    def make(world: World, rates: FaultRates) -> RedisBackplanes:
        rates.crash = crash
        return RedisBackplanes(world, rates, RedisFaults(**faults))

    return planted_in(make, STEPS)


def do_nothing(*arguments: Any) -> None: ...


# Epochs.


@plant(promote=0.02, restore=0.02)
def no_fence(patch: Patch) -> None:
    """The plain design of offset and epoch: a server that has lost events continues the epoch that it finds."""
    connected = Shard.connected

    def connected_anyhow(self: Shard, server: Any, time: int, is_former_over: bool) -> None:
        connected(self, replace(server, fence=b"0" * 40), time, is_former_over)

    patch(Shard, "connected", connected_anyhow)


@plant(promote=0.02)
def chain_forgotten(patch: Patch) -> None:
    """A node does not learn what is left of the epoch that it knows."""
    patch(channels.wire, "parse_chain", lambda chain: [])


@plant(promote=0.02)
def good_one_too_high(patch: Patch) -> None:
    """One event more of the former epoch is taken for valid."""
    parse_chain = channels.wire.parse_chain

    def parse_wrong(chain: bytes) -> list[Position]:
        return [Position(link.epoch, link.offset + 1) for link in parse_chain(chain)]

    patch(channels.wire, "parse_chain", parse_wrong)


@plant(promote=0.02, restore=0.02)
def epoch_not_compared(patch: Patch) -> None:
    """After a new connection, a channel with the same offset in another epoch is taken for unchanged."""
    state_of = Channels._state

    def state(self: Channels, channel: bytes, known: Position | None, *arguments: Any) -> Any:
        found = state_of(self, channel, known, *arguments)
        position = getattr(found, "position", None)
        return replace(found, position=known) if known and position and position.offset == known.offset else found

    patch(Channels, "_state", state)


# Connections.


@plant(reset=0.3, silence=0.1)
def positions_not_compared(patch: Patch) -> None:
    """Events that were published while a node had no connection are not delivered."""
    patch(Channels, "_compared", do_nothing)


@plant(reset=0.03)
def topics_not_followed_again(patch: Patch) -> None:
    """A node with a new connection does not follow the topics of its channels."""
    compare = Channels._compare
    patch(Channels, "_compare", lambda self, *arguments, is_new: compare(self, *arguments, is_new=False))


@plant(silence=0.03)
def dead_connection_not_noticed(patch: Patch) -> None:
    """A connection on which nothing arrives is not given up."""
    patch(RedisLink, "_check_life", do_nothing)


@plant(split=0.03)
def replica_not_noticed(patch: Patch) -> None:
    """A server that has become a replica is used on."""
    patch(RedisLink, "fail", do_nothing)


# Publications without a reply.


@plant(reset=0.03)
def lost_reply_taken_for_ok(patch: Patch) -> None:
    """Publications whose replies were lost with the connection are confirmed."""
    published = Publications._published

    def confirm(self: Publications, group: Any, shard: Shard, reply: Any) -> None:
        published(self, group, shard, [1, b"", b"0", 0, b"0"] if isinstance(reply, ConnectionLost) else reply)

    patch(Publications, "_published", confirm)


@plant(reset=0.03)
def token_not_looked_up(patch: Patch) -> None:
    """Publications whose replies were lost are made again, although the server has them."""
    call = Publications._call
    patch(Publications, "_call", lambda self, group, shard, since: call(self, group, shard, b""))


@plant(stall=0.03)
def former_connection_not_ended(patch: Patch) -> None:
    """The server can still run the calls of a former connection after they were looked up."""
    ready = RedisLink._ready

    def ready_at_once(self: RedisLink, *arguments: Any) -> None:
        ready(self, *arguments)
        self._formers.clear()

    patch(RedisLink, "_ready", ready_at_once)


# Events.


@plant()
def own_entry_cut(patch: Patch) -> None:
    """A node delivers only the first of several publications of one turn to its own clients."""
    number = channels.wire.number
    patch(channels.wire, "number", lambda batches, first, time: list(number(batches, first, time))[:1])


# Members.


@plant(crash=0.02)
def lease_never_expires(patch: Patch) -> None:
    """The members of a node that was killed stay."""
    remove = Presence._remove

    def remove_self(self: Presence, name: bytes, is_forced: bytes, done: Any) -> None:
        if is_forced == b"1":
            remove(self, name, is_forced, done)

    patch(Presence, "_remove", remove_self)


@plant(reset=0.03)
def changes_of_members_lost(patch: Patch) -> None:
    """Members that have joined or left while there was no connection are forgotten."""
    patch(Presence, "_keep", do_nothing)


@plant(restore=0.02, promote=0.02)
def old_members_stay(patch: Patch) -> None:
    """The members of a node are those of an old snapshot."""
    patch(Presence, "_compare", do_nothing)


@plant(flush=0.03)
def members_not_listed_again(patch: Patch) -> None:
    """A server that has lost its data does not receive the members again."""
    patch(Presence, "_list_again", do_nothing)
