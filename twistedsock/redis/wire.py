"""The data that nodes store in Redis and send to each other: names, events, presence, commands."""

from binascii import crc_hqx
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from twistedsock.pubsub.values import (
    Batch,
    DisconnectClient,
    Member,
    NodeCommand,
    Payloads,
    Position,
    PresenceChange,
    Publication,
    StoredKind,
    read_kind,
    store_kind,
)

KEY_PREFIX = b"sockbridge:"


SLOTS = 16384
"""Parts of the names of a Cluster, each of which one server has."""

SHARED_TAG = b"shared"


class Names:
    """Names of keys, which are separate in each database, and of topics, which are not. In a Cluster, a part in braces
    decides where they are: that of a channel for its events, and one for all that is not of one channel."""

    def __init__(self, database: int, is_cluster: bool = False) -> None:
        self.is_cluster = is_cluster
        shared = KEY_PREFIX + (b"{%b}:" % SHARED_TAG if is_cluster else b"")
        self.leases = shared + b"nodes"
        self.registry = shared + b"registry"
        self.all_members = shared + b"members:"
        self._channels_of = shared + b"channels:"
        self.channel_topics = KEY_PREFIX + b"%d:channel:" % database
        self.members_topics = KEY_PREFIX + b"%d:members:" % database if is_cluster else self.channel_topics
        """The prefix of the topics with the changes of members."""
        self.nodes_topic = KEY_PREFIX + b"%d:nodes" % database
        self._node_topics = KEY_PREFIX + b"%d:node:" % database

    def _tagged(self, channel: bytes) -> bytes:
        # The colon makes that the part in braces is never empty, also if the channel begins with a brace.
        return b"{:%b}" % channel if self.is_cluster else channel

    def log(self, channel: bytes) -> bytes:
        return KEY_PREFIX + b"log:" + self._tagged(channel)

    def publication_key(self, channel: bytes, key: bytes) -> bytes:
        return KEY_PREFIX + b"key:%s %s" % (self._tagged(channel), key)

    def topic(self, channel: bytes) -> bytes:
        return self.channel_topics + self._tagged(channel)

    def channel(self, topic: bytes) -> bytes:
        """The channel of a topic with events, or with changes of members."""
        if topic.startswith(self.channel_topics):
            name = topic.removeprefix(self.channel_topics)
            return name[2:-1] if self.is_cluster else name
        return topic.removeprefix(self.members_topics)

    def slot(self, channel: bytes) -> int:
        """The slot of a channel in a Cluster."""
        return slot(b":" + channel.partition(b"}")[0])

    def members_of(self, node: bytes) -> bytes:
        """The prefix of the keys that hold the members of a node."""
        return self.all_members + node + b":"

    def channels_of(self, node: bytes) -> bytes:
        return self._channels_of + node

    def node_topic(self, node: bytes) -> bytes:
        """The topic of the messages to one node."""
        return self._node_topics + node


def slot(tag: bytes) -> int:
    """The slot of a name whose part in braces is this. Source: the Cluster specification of Redis, CRC-16/XMODEM."""
    return crc_hqx(tag, 0) % SLOTS


# Events.


class StoredBatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Events that one client published in a row. Their offsets and their time are those of the entry they are in."""

    publisher: bytes
    sender: bytes
    name: bytes
    kind: StoredKind
    is_plain: bool
    payloads: list[bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[StoredBatch]).decode


def store(publisher: bytes, sender: bytes, publication: Publication) -> StoredBatch:
    """A publication as it is stored."""
    payloads = publication.payloads
    items = list(payloads.items)
    return StoredBatch(publisher, sender, publication.name, store_kind(payloads.kind), payloads.is_plain, items)


def encode_events(batches: Sequence[StoredBatch]) -> bytes:
    return _encode(batches)


def decode_events(data: bytes) -> list[StoredBatch]:
    """Raises msgspec.MsgspecError."""
    return _decode(data)


def number(batches: Sequence[StoredBatch], first: int, time: int) -> Iterator[Batch]:
    """The batches of an entry with their offsets, from ``first`` on, and their time."""
    for batch in batches:
        items = batch.payloads
        end = first + len(items)
        payloads = Payloads(items, sum(map(len, items)), read_kind(batch.kind), batch.is_plain)
        yield Batch(first, end, batch.publisher, batch.sender, batch.name, payloads, time)
        first = end


class Arrival(msgspec.Struct, frozen=True):
    """A message about new events in a channel."""

    epoch: bytes
    first: int
    time: int
    node: bytes
    events: bytes


EVENTS = b"E"
"""The first byte of a message about new events."""


def parse_arrival(message: bytes) -> Arrival:
    """Raises ValueError."""
    header, _, events = message.partition(b"\n")
    epoch, first, time, node = header[1:].split(b" ")
    return Arrival(epoch, int(first), int(time), node, events)


def parse_chain(chain: bytes) -> list[Position]:
    """The epochs before the present one, newest first, each with its last valid offset."""
    links = [link.partition(b"-") for link in chain.split(b",")] if chain else []
    return [Position(epoch, int(offset)) for epoch, _, offset in links]


# Presence.


def parse_changes(message: bytes) -> list[PresenceChange]:
    """The changes of a message about members: lines of + or -, id, space and nick. Raises ValueError."""
    changes = []
    for line in message[1:].split(b"\n"):
        id, nick = line[1:].split(b" ")
        changes.append(PresenceChange(Member(id, nick), joined=line[:1] == b"+"))
    return changes


def parse_members(nodes: Sequence[Sequence[bytes]]) -> list[Member]:
    """The members of each node, as alternating ids and nicks."""
    return [Member(id, nick) for flat in nodes for id, nick in list(pairwise(flat))[::2]]


# Messages to other nodes.


class _Message(msgspec.Struct, frozen=True, array_like=True):
    node: bytes
    id: bytes
    message: bytes
    code: bytes


def encode_command(node: bytes, command: NodeCommand) -> bytes:
    return _encode(_Message(node, command.id, command.message, command.code))


def decode_command(data: bytes) -> tuple[bytes, NodeCommand]:
    """The node that has sent the command, and the command. Raises msgspec.MsgspecError."""
    message = msgspec.msgpack.decode(data, type=_Message)
    return message.node, DisconnectClient(message.id, message.message, message.code)


MESSAGE = b"M"
"""The first byte of a message to one node."""


def encode_message(node: bytes, content: bytes) -> bytes:
    """A message from ``node``."""
    return MESSAGE + node + b" " + content


def decode_message(data: bytes) -> tuple[bytes, bytes]:
    """The node that has sent a message, and its content."""
    node, _, content = data[len(MESSAGE) :].partition(b" ")
    return node, content
