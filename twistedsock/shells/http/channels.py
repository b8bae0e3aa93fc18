"""Which channels there are, and who reads one."""

from heapq import nsmallest

from twistedsock.core.access import Right
from twistedsock.core.bridge import Bridge
from twistedsock.core.directory import Directory, Page, Search
from twistedsock.core.errors import Refusal
from twistedsock.core.events import Member
from twistedsock.core.later import when_known
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.wire import http_answers
from twistedsock.wire.arguments import Arguments

PAGE = 100
"""Entries of a list, where nothing else is asked for."""

MOST_ON_PAGE = 1_000
"""At most: some hundred kibibytes, which are written in one go."""

SEEN_FOR_ONE = 100
"""Channels that may be looked through for what one command costs: with a token half a millisecond, without a tenth."""


class Channels:
    """One for a server, as who asks waits for who has asked before."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._directory = Directory(bridge.broker)

    def all(self, request: BridgeRequest) -> None:
        """``GET /channels``: those that one may read."""
        arguments = request.arguments
        arguments.only(("prefix", "after", "limit"))
        prefix, after = _text(arguments, "prefix"), _text(arguments, "after")
        visitor, most = request.visitor, limit(arguments)
        charged = len(self._bridge.broker.channels) // SEEN_FOR_ONE
        if charged:
            request.charge(charged)

        def forbids(channel: bytes) -> Refusal | None:
            return visitor.forbids(channel, Right.READ)

        def tell(page: Page | Refusal) -> None:
            assert isinstance(page, Page)
            request.answer_json(200, http_answers.channels(page))

        search = Search(prefix, after, most, forbids, lambda: not request.is_gone)
        self._directory.look(search).then(tell)

    def members(self, request: BridgeRequest) -> None:
        """``GET /channels/{channel}/members``: who reads it, on all nodes."""
        arguments, channel = request.arguments, request.channel_name
        arguments.only(("after", "limit"))
        after, most = _text(arguments, "after"), limit(arguments)

        def tell(members: list[Member] | Refusal) -> None:
            if isinstance(members, Refusal):
                request.refuse(members)
                return
            found = nsmallest(most + 1, [member for member in members if member.id > after], key=lambda one: one.id)
            following = found[most - 1].id if len(found) > most else None
            request.answer_json(200, http_answers.members(channel, found[:most], len(members), following))

        when_known(request.visitor.members(channel), tell)


def limit(arguments: Arguments) -> int:
    """How many entries are wanted."""
    return arguments.whole("limit", MOST_ON_PAGE, least=1) or PAGE


def _text(arguments: Arguments, name: str) -> bytes:
    return (arguments.text(name) or "").encode()
