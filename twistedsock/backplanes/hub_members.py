"""The members of all channels on all workers, which the hub keeps.

The members of a worker whose connection has ended stay for a while. When it connects again, it reports those that it
has; its others have left.
"""

from collections.abc import Callable

from twistedsock.pubsub.values import Member

Membership = tuple[bytes, bytes]
"""A channel, and the id of a member."""

Announce = Callable[[bytes, Member, bool, int], None]
"""Called with a channel, the member that has joined it or left it, whether it has joined, and the number of members."""


class HubMembers:
    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        # The members of each channel by their id, with the name of their node.
        self._channels: dict[bytes, dict[bytes, tuple[bytes, Member]]] = {}
        # By the name of the node.
        self._memberships: dict[bytes, dict[Membership, None]] = {}
        # Those of a node that has connected again and has not confirmed them yet.
        self._unconfirmed: dict[bytes, dict[Membership, None]] = {}

    def list(self, channel: bytes) -> list[Member]:
        return [member for _, member in self._channels.get(channel, {}).values()]

    def join(self, node_name: bytes, channel: bytes, member: Member, is_announced: bool) -> None:
        members, membership = self._channels.setdefault(channel, {}), (channel, member.id)
        is_new = member.id not in members
        members[member.id] = (node_name, member)
        self._memberships.setdefault(node_name, {})[membership] = None
        self._unconfirmed.get(node_name, {}).pop(membership, None)
        if is_new and is_announced:
            self._announce(channel, member, True, len(members))

    def rename(self, node_name: bytes, channel: bytes, member: Member) -> None:
        members = self._channels.get(channel, {})
        if member.id in members:
            members[member.id] = (node_name, member)

    def leave(self, node_name: bytes, channel: bytes, id: bytes) -> None:
        members = self._channels.get(channel, {})
        if id not in members or members[id][0] != node_name:
            return
        _, member = members.pop(id)
        if not members:
            del self._channels[channel]
        memberships = self._memberships[node_name]
        memberships.pop((channel, id), None)
        if not memberships:
            del self._memberships[node_name]
        self._announce(channel, member, False, len(members))

    # Nodes.

    def has_node(self, node_name: bytes) -> bool:
        """Whether a node has members."""
        return node_name in self._memberships

    def node_connected(self, node_name: bytes) -> None:
        """Its members are unconfirmed until it reports them."""
        self._unconfirmed[node_name] = dict(self._memberships.get(node_name, ()))

    def node_disconnected(self, node_name: bytes) -> None:
        self._unconfirmed.pop(node_name, None)

    def node_synced(self, node_name: bytes) -> None:
        """The members of a node that has connected again are complete: its other former members have left."""
        for channel, id in self._unconfirmed.pop(node_name, ()):
            self.leave(node_name, channel, id)

    def remove_node(self, node_name: bytes) -> None:
        """All members of a node have left."""
        for channel, id in list(self._memberships.get(node_name, ())):
            self.leave(node_name, channel, id)
