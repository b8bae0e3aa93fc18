"""Which page a channel's name asks for."""

import re

import msgspec

from twistedsock.core.names import RESERVED

FIGURES = RESERVED + b"figures"
CLOSED = RESERVED + b"closed"
PEER = RESERVED + b"peer/"
"""Before the id of a peer."""

ENDS = 500
"""Sessions that have ended whose records are kept: with their timelines about a MiB, and 3 MiB at most."""
ENDS_ROWS = 25
"""On one page of them: 25 with the longest names and reasons stay below ``pages.MOST_PAGE``."""

CHANNEL_ORDERS = ("name", "rate", "readers")
PEER_ORDERS = ("newest", "lag", "sent", "id")

_PAGE = re.compile(rb"(channels|peers)/([a-z]+)/(0|[1-9][0-9]{0,5})", re.DOTALL)
_CLOSED = re.compile(rb"closed/(0|[1-9][0-9]{0,5})")
_FIND = re.compile(rb"(channels|peers)/find/(.+)", re.DOTALL)
_PEER = re.compile(rb"peer/([^/]+)", re.DOTALL)
_ORDERS = {"channels": CHANNEL_ORDERS, "peers": PEER_ORDERS}


class Topic(msgspec.Struct, frozen=True):
    """``kind`` is channels, peers, peer or closed. Of channels and peers, either ``order`` and ``page`` are given, or
    ``text``, in small letters, which is looked for. Of a peer, ``text`` is its id. Of closed, ``page`` is given."""

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
    if found := _CLOSED.fullmatch(name):
        return Topic("closed", page=int(found[1]))
    if found := _PEER.fullmatch(name):
        return Topic("peer", text=found[1])
    return None
