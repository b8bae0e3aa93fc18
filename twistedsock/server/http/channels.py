"""Endpoints that list channels, and the members of one."""

from twistedsock.codecs import http_api
from twistedsock.codecs.query import PAGINATION_PARAMETERS, read_pagination
from twistedsock.errors import Error
from twistedsock.limits.rate import member_price, search_price
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.values import Member, Page
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.context import ServerContext


class ChannelsEndpoint:
    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def list_channels(self, request: HTTPRequest) -> None:
        """``GET /channels``: the channels that the client can read, with ``last=1`` also their newest events."""
        parameters = request.parameters
        parameters.allow_only(("prefix", "last", *PAGINATION_PARAMETERS))
        with_last = parameters.integer("last", 1) == 1
        prefix, pagination = (parameters.text("prefix") or "").encode(), read_pagination(parameters)
        readable = request.broker_client.readable()
        request.charge(search_price(len(self._context.broker.channels), 0 if readable is None else readable.stars))

        def respond(page: Page | Error) -> None:
            assert isinstance(page, Page)
            request.respond_json(200, http_api.channels_response(page, with_last))

        def is_wanted() -> bool:
            return not request.is_finished

        found = self._context.channel_index.find(
            prefix, pagination.after, pagination.limit, request.principal, readable, is_wanted
        )
        found.then(respond)

    def list_members(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/members``: the subscribers on all nodes."""
        parameters, channel = request.parameters, request.channel_name
        parameters.allow_only(PAGINATION_PARAMETERS)
        pagination = read_pagination(parameters)

        def respond(members: list[Member] | Error) -> None:
            if isinstance(members, Error):
                request.respond_error(members)
                return
            request.charge_afterwards(member_price(len(members)))
            page, after = pagination.page(members, lambda member: member.id)
            request.respond_json(200, http_api.members_response(channel, page, len(members), after))

        on_result(request.broker_client.members(channel), respond)
