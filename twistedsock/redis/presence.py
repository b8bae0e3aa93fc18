"""The members of this node in Redis, and the leases of all nodes.

The members of a node in a channel are a hash. A node renews its lease for all of them together. When the lease of a
node has ended, any other node removes its members, and reports to all that they have left; each channel is removed in
one step, so it is reported once.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.values import Member
from twistedsock.redis import presence_scripts as scripts
from twistedsock.redis.connection import Timing
from twistedsock.redis.resp import Call, ConnectionLost, ScriptCall, Unsent
from twistedsock.redis.wire import Names

CHANGES_PER_CALL = 500
"""Changes in one call, and channels that are listed again at a time, so that other calls are not delayed for long."""

CHANNELS_PER_COMPARISON = 50
"""Fewer, because the replies have the members."""

JOIN, RENAME, LEAVE, LIST, LEFT = b"+", b"=", b"-", b"*", b"!"
"""The operations of ``presence_scripts.CHANGE_MEMBERS``."""


class _Change:
    """A change of a member."""

    __slots__ = ("member", "operation")

    def __init__(self, operation: bytes, member: Member) -> None:
        self.operation = operation
        self.member = member


class Queue(Protocol):
    """Sends calls at the end of the turn."""

    def __call__(self, item: Call | Unsent) -> None: ...


class Presence:
    """``draw_name`` returns a random name."""

    def __init__(
        self, node_name: bytes, names: Names, queue: Queue, draw_name: Callable[[], bytes], timing: Timing
    ) -> None:
        self._node_name = node_name
        self._names = names
        self._queue = queue
        self._draw_name = draw_name
        self._lease_milliseconds = int(timing.lease * 1000)
        self._node: Node
        # How often this node was registered. A part of its name, because others may be removing the former one.
        self._incarnation = 1
        # The registry in which it is. It changes if the server loses its data.
        self._registry = b""
        # The number of members of this node in each channel.
        self._counts: dict[bytes, int] = {}
        self._growing: dict[bytes, _Changes] = {}
        # The members whose last change the server may not have, by channel and id.
        self._unsent: dict[bytes, dict[bytes, Member]] = {}
        # The operation for those of them that have left.
        self._leave = LEAVE
        self._is_registered = False
        self._has_waited = False
        self._is_leaving = False
        # The operation of ``_list_again`` if the connection was lost before it had listed all.
        self._unlisted = b""
        # Whether the registry has never had this name.
        self._is_new = True
        # The run of the server, and that in which the server is known to have the members of this node.
        self._fence = self._compared_fence = b""

    def start(self, node: Node) -> None:
        self._node = node

    @property
    def _name(self) -> bytes:
        return b"%b.%d" % (self._node_name, self._incarnation)

    # Members.

    def change(self, channel: bytes, operation: bytes, member: Member) -> None:
        """A member of this node has joined, has another nick, or has left."""
        step = {JOIN: 1, LEAVE: -1}.get(operation, 0)
        if step:
            self._counts[channel] = count = self._counts.get(channel, 0) + step
            if not count:
                del self._counts[channel]
        change = _Change(operation, member)
        if self._is_registered:
            self._gather(channel, change)
        else:
            self._keep(channel, member)

    def _gather(self, channel: bytes, change: _Change) -> None:
        changes = self._growing.get(channel)
        if changes is not None:
            changes.items.append(change)
            return
        changes = self._growing[channel] = _Changes(self, channel)
        changes.items.append(change)
        self._queue(changes)  # which abandons it at once if the connection is being lost

    def build(self, changes: "_Changes") -> list[Call]:
        """The calls for changes at the end of the turn."""
        if self._growing.get(changes.channel) is changes:
            del self._growing[changes.channel]
        channel, items, names, calls = changes.channel, iter(changes.items), self._names, list[Call]()
        keys = [names.members_of(self._name) + channel, names.channels_of(self._name)]
        while part := list(islice(items, CHANGES_PER_CALL)):
            arguments = [names.members_topics + channel, channel]
            for change in part:
                arguments += [change.operation, change.member.id, change.member.nick]
            done = partial(self._changed, channel, part)
            calls.append(ScriptCall(scripts.CHANGE_MEMBERS, keys, arguments, done, is_ordered=True))
        return calls

    def abandon(self, changes: "_Changes") -> None:
        """The connection was lost before the end of the turn."""
        self._growing.pop(changes.channel, None)
        for change in changes.items:
            self._keep(changes.channel, change.member)

    def _changed(self, channel: bytes, part: Sequence[_Change], reply: Any) -> None:
        if isinstance(reply, Exception):
            for change in part:
                self._keep(channel, change.member)

    def _keep(self, channel: bytes, member: Member) -> None:
        """Try again later. Changes before and after this one may have been made, so the member is set then to what it
        is then; a change that was made already is not reported again."""
        self._unsent.setdefault(channel, {})[member.id] = member

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, {}
        leave, self._leave = self._leave, LEAVE
        for channel, members in unsent.items():
            present = {member.id: member for member in self._node.local_members(channel)}
            for id, member in members.items():
                change = _Change(JOIN, present[id]) if id in present else _Change(leave, member)
                self._gather(channel, change)

    def list_call(self, channel: bytes, done: Callable[[Any], None]) -> Call:
        """A call whose reply are the members of a channel on all nodes."""
        return ScriptCall(scripts.LIST_MEMBERS, [self._names.leases], (self._names.all_members, channel), done)

    # Leases.

    def connected(self, fence: bytes) -> None:
        """``fence`` is the run of the server."""
        self._fence = fence
        self.renew()

    def disconnected(self) -> None:
        self._is_registered = self._has_waited = False

    def renew(self) -> None:
        """Register this node, or renew its lease, and remove those whose leases have ended."""
        if self._is_leaving:
            return
        names = self._names
        # Otherwise a node that was removed would not learn it if the reply that says so is lost.
        can_register = int(self._is_new)
        arguments = (self._name, self._lease_milliseconds, self._draw_name(), can_register)
        self._queue(ScriptCall(scripts.RENEW_LEASE, [names.leases, names.registry], arguments, self._renewed))

    def _renewed(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            return
        registry, was_registered, ended = reply
        if not was_registered and self._registry and not self._is_new:
            self._register_again(registry)
            return
        self._is_new = False
        if self._unsent and self._registry and not self._has_waited:
            # The other nodes were probably disconnected too, and would miss the reports.
            self._has_waited = True
            return
        self._registry = registry
        self._is_registered = True
        self._send_unsent()
        if self._compared_fence != self._fence:
            self._compare()
        self._compared_fence = self._fence
        if self._unlisted:
            operation, self._unlisted = self._unlisted, b""
            self._list_again(iter(list(self._counts)), operation)
        for name in ended:
            if name != self._name:
                self._remove(name, b"0", _do_nothing)

    def _register_again(self, registry: bytes) -> None:
        """Others have removed this node, and have reported that its members have left; or the server has lost its data,
        and nothing was reported."""
        was_removed, self._registry = registry == self._registry, registry
        unsent, self._unsent = self._unsent, {}
        self._is_registered = self._has_waited = False
        self._incarnation += 1
        self._is_new = True
        if not was_removed:
            self._unsent, self._leave = unsent, LEFT
        self.renew()
        self._list_again(iter(list(self._counts)), JOIN if was_removed else LIST)

    def _list_again(self, channels: Iterator[bytes], operation: bytes, reply: Any = None) -> None:
        """List the members of this node in some channels, and in the next when these are done."""
        if isinstance(reply, ConnectionLost):
            self._unlisted = operation
            return
        part = list(islice(channels, CHANGES_PER_CALL))
        for channel in part:
            known = self._unsent.get(channel, {})
            changes = _Changes(self, channel)
            for member in self._node.local_members(channel):
                if member.id not in known:
                    changes.items.append(_Change(operation, member))
            self._queue(changes)
        if part:
            self._queue(Call((b"PING",), partial(self._list_again, channels, operation)))

    def _compare(self) -> None:
        """Another run of the server can have old data: members that have left since, and not those that have joined.
        Compare all channels in which this node has members, or has them according to the server."""

        def compare_all(reply: Any) -> None:
            if isinstance(reply, Exception):
                self._compared_fence = b""
            else:
                self._compare_some(iter({*reply, *self._counts}))

        self._queue(Call((b"SMEMBERS", self._names.channels_of(self._name)), compare_all))

    def _compare_some(self, channels: Iterator[bytes]) -> None:
        """Compare some channels, and the next when these have answered."""
        part = list(islice(channels, CHANNELS_PER_COMPARISON))

        def compared(channel: bytes, reply: Any) -> None:
            if isinstance(reply, Exception):
                self._compared_fence = b""
                return
            members = {member.id: member for member in self._node.local_members(channel)}
            for id, nick in reply.items():
                if id not in members:
                    self._gather(channel, _Change(LEAVE, Member(id, nick)))
            for id, member in members.items():
                if id not in reply:
                    self._gather(channel, _Change(JOIN, member))
            if channel == part[-1]:
                self._compare_some(channels)

        for channel in part:
            key = self._names.members_of(self._name) + channel
            self._queue(Call((b"HGETALL", key), partial(compared, channel)))

    def _remove(self, name: bytes, is_forced: bytes, done: Callable[[], None]) -> None:
        names = self._names

        def removed(reply: Any) -> None:
            if isinstance(reply, int) and reply > 0:
                self._remove(name, is_forced, done)
            else:
                done()

        keys = [names.leases, names.channels_of(name)]
        arguments = (name, names.members_of(name), names.members_topics, is_forced)
        self._queue(ScriptCall(scripts.REMOVE_NODE, keys, arguments, removed))

    def leave_all(self, done: Callable[[], None]) -> None:
        """The node stops: its members leave at once."""
        self._is_registered, self._is_leaving = False, True
        self._remove(self._name, b"1", done)


class _Changes(Unsent):
    """The changes of one turn in one channel."""

    __slots__ = ("_presence", "channel", "items")

    def __init__(self, presence: Presence, channel: bytes) -> None:
        self._presence = presence
        self.channel = channel
        self.items: list[_Change] = []

    def build(self) -> Sequence[Call]:
        return self._presence.build(self)

    def abandon(self) -> None:
        self._presence.abandon(self)


def _do_nothing() -> None: ...
