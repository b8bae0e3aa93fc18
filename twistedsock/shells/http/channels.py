"""Which channels there are, and who reads one."""

from twistedsock.core.access import Right
from twistedsock.core.bridge import Bridge
from twistedsock.core.directory import Directory, Page, Search
from twistedsock.core.errors import Refusal
from twistedsock.core.events import Member
from twistedsock.core.later import when_known
from twistedsock.shells.http.paging import PAGING, read_paging
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.wire import http_answers

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
        arguments.only(("prefix", *PAGING))
        prefix, paging = (arguments.text("prefix") or "").encode(), read_paging(arguments)
        visitor = request.visitor
        charged = len(self._bridge.broker.channels) // SEEN_FOR_ONE
        if charged:
            request.charge(charged)

        def forbids(channel: bytes) -> Refusal | None:
            return visitor.forbids(channel, Right.READ)

        def tell(page: Page | Refusal) -> None:
            assert isinstance(page, Page)
            request.answer_json(200, http_answers.channels(page))

        search = Search(prefix, paging.after, paging.most, forbids, lambda: not request.is_gone)
        self._directory.look(search).then(tell)

    def members(self, request: BridgeRequest) -> None:
        """``GET /channels/{channel}/members``: who reads it, on all nodes."""
        arguments, channel = request.arguments, request.channel_name
        arguments.only(PAGING)
        paging = read_paging(arguments)

        def tell(members: list[Member] | Refusal) -> None:
            if isinstance(members, Refusal):
                request.refuse(members)
                return
            page, following = paging.page(members, lambda member: member.id)
            request.answer_json(200, http_answers.members(channel, page, len(members), following))

        when_known(request.visitor.members(channel), tell)
