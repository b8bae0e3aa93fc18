"""Which channels there are, and who reads one."""

from twistedsock.core.bridge import Bridge
from twistedsock.core.directory import Directory, Page, Search
from twistedsock.core.errors import Refusal
from twistedsock.core.events import Member
from twistedsock.core.later import when_known
from twistedsock.core.rate import member_price, search_price
from twistedsock.shells.http.paging import PAGING, read_paging
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.wire import http_answers


class Channels:
    """One for a server, because the searches of all clients take turns."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._directory = Directory(bridge.broker)

    def all(self, request: BridgeRequest) -> None:
        """``GET /channels``: those that one may read."""
        arguments = request.arguments
        arguments.only(("prefix", *PAGING))
        prefix, paging = (arguments.text("prefix") or "").encode(), read_paging(arguments)
        readable = request.visitor.readable()
        price = search_price(len(self._bridge.broker.channels), 0 if readable is None else readable.stars)
        request.charge(price)

        def tell(page: Page | Refusal) -> None:
            assert isinstance(page, Page)
            request.answer_json(200, http_answers.channels(page))

        search = Search(prefix, paging.after, paging.most, request.principal, readable, lambda: not request.is_gone)
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
            request.charge_afterwards(member_price(len(members)))
            page, following = paging.page(members, lambda member: member.id)
            request.answer_json(200, http_answers.members(channel, page, len(members), following))

        when_known(request.visitor.members(channel), tell)
