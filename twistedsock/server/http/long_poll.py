"""Long polling: a request that is answered as soon as its channels have an event, for clients without streams."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twistedsock.auth.identity import Right
from twistedsock.codecs.http_api import (
    BOUND_PARAMETERS,
    EVENT_ID_PARAMETERS,
    StreamRequest,
    poll_response,
    poll_response_of_several,
    read_channels,
    read_stream_request,
)
from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import Error
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.values import Position
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.context import ServerContext
from twistedsock.session.history_query import HistoryQuery
from twistedsock.session.request import HistoryPage

MAX_WAIT_SECONDS = 60.0
"""Most proxies wait as long for a response."""

PARAMETERS = ("since", "epoch", "last", "wait", *EVENT_ID_PARAMETERS, *BOUND_PARAMETERS)

Encode = Callable[[list[HistoryPage]], bytes]


class LongPollEndpoint:
    """Waiting requests are limited by the number of connections."""

    def __init__(self, context: ServerContext, reactor: Any) -> None:
        self._context = context
        self._reactor = reactor

    def read_channel(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events`` with ``wait``."""
        request.parameters.allow_only(PARAMETERS)
        self._start(request, [request.channel_name], lambda pages: poll_response(pages[0]))

    def read_channels(self, request: HTTPRequest) -> None:
        """``GET /events?channel=…`` with ``wait``, or of a client that accepts JSON."""
        request.parameters.allow_only(PARAMETERS, repeated=("channel",))
        self._start(request, read_channels(request.parameters), poll_response_of_several)

    def _start(self, request: HTTPRequest, channels: list[bytes], encode: Encode) -> None:
        header = request.header(b"last-event-id").decode("latin-1")
        asked = read_stream_request(request.parameters, channels, header)
        seconds = request.parameters.seconds("wait", MAX_WAIT_SECONDS) or 0.0
        request.charge(len(asked.known) - 1)
        LongPoll(self._context, self._reactor, request, asked, encode).start(seconds)


class LongPoll:
    """One request. Access is checked when it starts and again when it is answered."""

    def __init__(
        self, context: ServerContext, reactor: Any, request: HTTPRequest, asked: StreamRequest, encode: Encode
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._request = request
        self._asked = asked
        self._encode = encode
        self._positions: dict[bytes, Position | None] = dict(asked.known)
        self._channels: dict[bytes, Channel] = {}
        self._timer: Any = None
        self._seconds = 0.0
        self._is_notified = False

    def start(self, seconds: float) -> None:
        """Respond now if there are events, otherwise at the next event or after ``seconds``."""
        self._seconds = seconds
        error = self._check_access()
        if error is not None:
            raise ApiError(error)
        self._open(iter(list(self._positions)))

    def _open(self, names: Iterator[bytes]) -> None:
        for name in names:
            outcome = self._context.broker.channels.open(name, self._request.broker_client.principal)
            if isinstance(outcome, Future):
                on_result(outcome, partial(self._opened, name, names))
                return
            if not self._add_channel(name, outcome):
                return
        self._respond_or_wait()

    def _opened(self, name: bytes, names: Iterator[bytes], outcome: Channel | Error) -> None:
        if self._add_channel(name, outcome):
            self._open(names)

    def _add_channel(self, name: bytes, outcome: Channel | Error) -> bool:
        """Wait for events of a channel, which keeps it open. False if it could not be opened."""
        if isinstance(outcome, Error):
            self._stop_waiting()
            self._request.respond_error(outcome)
            return False
        self._channels[name] = outcome
        outcome.notify_once(self._notify)
        return True

    def _respond_or_wait(self) -> None:
        request, channels = self._request, self._context.broker.channels
        closed = [name for name, channel in self._channels.items() if channels.get(name) is not channel]
        if closed:  # while the other channels were being opened
            self._open(iter(closed))
            return
        pages = self._read()
        error = self._check_access()
        if error is not None:
            self._stop_waiting()
            request.respond_error(error)
        elif request.is_finished:
            self._stop_waiting()
        elif not self._seconds or self._context.draining or any(map(_has_news, pages)):
            self._respond_from_backplane(pages)
        else:
            for page in pages:
                if self._positions[page.channel] is None:
                    self._positions[page.channel] = Position(page.position.epoch, page.stop - 1)
            request.on_disconnect, request.on_shutdown = self._stop_waiting, self._finish
            self._timer = self._reactor.callLater(self._seconds, self._finish)

    def _read(self) -> list[HistoryPage]:
        """The events since the positions of the client. Pending publications are committed first, because the last
        flush may have been some time ago."""
        client, broker, pages = self._request.broker_client, self._context.broker, list[HistoryPage]()
        # All channels are committed before the first is read, because a commit can shorten the history of another
        # channel. Nothing changes from then on until the response is written.
        for channel in self._channels.values():
            channel.notify_once(self._notify)  # keeps it open while another channel is committed
        for channel in self._channels.values():
            broker.histories.update(channel)
            channel.notify_once(self._notify)  # again, because the commit may have notified
        for name, channel in self._channels.items():
            position = self._positions[name]
            if position is None and self._asked.last is None:
                position = Position(channel.epoch, channel.head)
            if position is not None and self._asked.known[name] is None and position.epoch != channel.epoch:
                # The client did not ask for an epoch, and all events of this one are newer than its request.
                position = Position(channel.epoch, channel.history.first - 1)
            since, epoch = (None, None) if position is None else (position.offset, position.epoch)
            page = client.read_page(channel, HistoryQuery(self._asked.last, since), epoch)
            if self._asked.known[name] is None:
                page = HistoryPage(page.channel, page.position, page.start, page.stop, None, page.lost, page.events)
            pages.append(page)
        return pages

    def _notify(self) -> None:
        """Called by the broker at an event, when nothing may be done at once."""
        if not self._is_notified and self._timer is not None:
            self._is_notified = True
            self._context.broker.scheduler.defer(self._finish)

    def _finish(self) -> None:
        """Respond with the events that there are."""
        if self._timer is None:
            return
        pages, error = self._read(), self._check_access()
        self._stop_waiting()
        if error is not None:
            self._request.respond_error(error)
        else:
            self._respond(pages)

    def _respond(self, pages: list[HistoryPage]) -> None:
        body = self._encode(pages)
        self._stop_waiting()
        self._request.respond_json(200, body)

    def _respond_from_backplane(self, pages: list[HistoryPage]) -> None:
        """Respond, but first ask the backplane for the events after the client's positions that are not in memory."""
        broker = self._context.broker
        missing = [index for index, page in enumerate(pages) if page.lost is not None and broker.reads_older]
        awaited = len(missing)

        def store(index: int, outcome: HistoryPage | Error) -> None:
            nonlocal awaited
            if isinstance(outcome, HistoryPage):
                pages[index] = outcome
            awaited -= 1
            if not awaited:
                self._respond_if_allowed(pages)

        if not missing:
            self._respond(pages)
            return
        self._request.on_disconnect = self._stop_waiting
        for index in missing:
            page = pages[index]
            position = self._positions[page.channel]
            assert position is not None  # only the events after a position can be lost
            query = HistoryQuery(self._asked.last, position.offset)
            answer = self._request.broker_client.history(page.channel, query, position.epoch)
            on_result(answer, partial(store, index))

    def _respond_if_allowed(self, pages: list[HistoryPage]) -> None:
        error = self._check_access()
        if error is None:
            self._respond(pages)
        else:
            self._stop_waiting()
            self._request.respond_error(error)

    def _check_access(self) -> Error | None:
        """The token may have expired, or the policy changed, since the request started to wait."""
        error = self._request.recheck_identity()
        if error is not None:
            return error
        client = self._request.broker_client
        errors = [client.check_access(channel, Right.READ) for channel in self._asked.known]
        return next((error for error in errors if error is not None), None)

    def _stop_waiting(self) -> None:
        self._request.on_disconnect = self._request.on_shutdown = None
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        for channel in self._channels.values():
            self._context.broker.channels.cancel_notify(channel, self._notify)


def _has_news(page: HistoryPage) -> bool:
    """True if the page has to be sent at once."""
    return page.start < page.stop or page.lost is not None or page.recovered is False
