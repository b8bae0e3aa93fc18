"""Which page a channel's name asks for."""

import re

import msgspec

from twistedsock.core.names import RESERVED

FIGURES = RESERVED + b"figures"
CLOSED = RESERVED + b"closed"
PEER = RESERVED + b"peer/"
"""Before the id of a peer."""

CHANNEL_ORDERS = ("name", "rate", "readers")
PEER_ORDERS = ("newest", "lag", "sent", "id")

_PAGE = re.compile(rb"(channels|peers)/([a-z]+)/(0|[1-9][0-9]{0,5})", re.DOTALL)
_FIND = re.compile(rb"(channels|peers)/find/(.+)", re.DOTALL)
_PEER = re.compile(rb"peer/([^/]+)", re.DOTALL)
_ORDERS = {"channels": CHANNEL_ORDERS, "peers": PEER_ORDERS}


class Topic(msgspec.Struct, frozen=True):
    """``kind`` is channels, peers or peer. Of channels and peers, either ``order`` and ``page`` are given, or ``text``,
    in small letters, which is looked for. Of a peer, ``text`` is its id."""

    kind: str
    order: str = ""
    page: int = 0
    text: bytes = b""


def parse_topic(channel: bytes) -> Topic | None:
    """What a channel is about that is told only while somebody reads it; None for any other."""
    if not channel.startswith(RESERVED):
        return None
    name = channel[len(RESERVED) :]
    if found := _FIND.fullmatch(name):
        return Topic(found[1].decode(), text=found[2].lower())
    if found := _PAGE.fullmatch(name):
        kind, order = found[1].decode(), found[2].decode()
        return Topic(kind, order, int(found[3])) if order in _ORDERS[kind] else None
    if found := _PEER.fullmatch(name):
        return Topic("peer", text=found[1])
    return None
