"""Which channels there are, and who reads one."""

from twistedsock.codecs import http_api
from twistedsock.errors import Error
from twistedsock.limits.rate import member_price, search_price
from twistedsock.pubsub.channel_index import ChannelIndex, ChannelQuery, Page
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.values import Member
from twistedsock.server.http.request import PAGING, HTTPRequest, read_pagination
from twistedsock.session.registry import ServerContext


class ChannelsEndpoint:
    """One for a server, because the searches of all clients take turns."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._directory = ChannelIndex(context.broker)

    def all(self, request: HTTPRequest) -> None:
        """``GET /channels``: those that one may read."""
        arguments = request.arguments
        arguments.only(("prefix", *PAGING))
        prefix, paging = (arguments.text("prefix") or "").encode(), read_pagination(arguments)
        readable = request.visitor.readable()
        price = search_price(len(self._context.broker.channels), 0 if readable is None else readable.stars)
        request.charge(price)

        def tell(page: Page | Error) -> None:
            assert isinstance(page, Page)
            request.answer_json(200, http_api.channels(page))

        search = ChannelQuery(
            prefix, paging.after, paging.most, request.principal, readable, lambda: not request.is_gone
        )
        self._directory.look(search).then(tell)

    def members(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/members``: who reads it, on all nodes."""
        arguments, channel = request.arguments, request.channel_name
        arguments.only(PAGING)
        paging = read_pagination(arguments)

        def tell(members: list[Member] | Error) -> None:
            if isinstance(members, Error):
                request.refuse(members)
                return
            request.charge_afterwards(member_price(len(members)))
            page, following = paging.page(members, lambda member: member.id)
            request.answer_json(200, http_api.members(channel, page, len(members), following))

        on_result(request.visitor.members(channel), tell)
