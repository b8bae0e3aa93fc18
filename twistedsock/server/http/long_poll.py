"""Long polling: a request that is answered when something happens, for clients that have nothing better."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twistedsock.auth.identity import Right
from twistedsock.codecs.http_api import LAST_EVENT_ID, Asked, of_one, of_several, read_asked, read_channels
from twistedsock.codecs.query import ApiError
from twistedsock.errors import Error
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.values import Position
from twistedsock.server.http.checks import recheck_auth
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.registry import ServerContext
from twistedsock.session.request import HistoryPage

MAX_SECONDS = 60.0
"""That a request may wait: proxies wait as long, as a rule."""

ARGUMENTS = ("since", "epoch", "last", "wait", *LAST_EVENT_ID)


class LongPollEndpoint:
    """One for a server. Those who wait are bounded as connections are."""

    def __init__(self, context: ServerContext, reactor: Any) -> None:
        self._context = context
        self._reactor = reactor

    def of_one(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events`` with ``wait``."""
        request.arguments.only(ARGUMENTS)
        self._ask(request, [request.channel_name], lambda several: of_one(several[0]))

    def of_several(self, request: HTTPRequest) -> None:
        """``GET /events?channel=…``, where no stream is asked for."""
        request.arguments.only(ARGUMENTS, repeated=("channel",))
        self._ask(request, read_channels(request.arguments), of_several)

    def _ask(self, request: HTTPRequest, channels: list[bytes], write: Callable[[list[HistoryPage]], bytes]) -> None:
        header = request.header(b"last-event-id").decode("latin-1")
        asked = read_asked(request.arguments, channels, header)
        seconds = request.arguments.seconds("wait", MAX_SECONDS) or 0.0
        request.charge(len(asked.known) - 1)
        poll = LongPoll(self._context, self._reactor, request, asked, write)
        poll.begin(seconds)


class LongPoll:
    """One request. The right to read is looked at when it is answered, not only when it asks."""

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        request: HTTPRequest,
        asked: Asked,
        write: Callable[[list[HistoryPage]], bytes],
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._request = request
        self._asked = asked
        self._write = write
        self._places: dict[bytes, Position | None] = dict(asked.known)
        self._channels: dict[bytes, Channel] = {}
        self._timer: Any = None
        self._seconds = 0.0
        self._rung = False

    def begin(self, seconds: float) -> None:
        """Answer now if there is something to tell, else when there is, or after that time."""
        self._seconds = seconds
        error = self._forbids()
        if error is not None:
            raise ApiError(error)
        self._open(iter(list(self._places)))

    def _open(self, names: Iterator[bytes]) -> None:
        for name in names:
            answer = self._context.broker.open(name, self._request.visitor.principal)
            if isinstance(answer, Future):
                on_result(answer, partial(self._opened, name, names))
                return
            if not self._take(name, answer):
                return
        self._look()

    def _opened(self, name: bytes, names: Iterator[bytes], outcome: Channel | Error) -> None:
        if self._take(name, outcome):
            self._open(names)

    def _take(self, name: bytes, outcome: Channel | Error) -> bool:
        """One more channel is there; it stays as long as this waits for it."""
        if isinstance(outcome, Error):
            self._let_go()
            self._request.refuse(outcome)
            return False
        self._channels[name] = outcome
        self._context.broker.notify_once(outcome, self._ring)
        return True

    def _look(self) -> None:
        request, channels = self._request, self._context.broker.channels
        vanished = [name for name, channel in self._channels.items() if channels.get(name) is not channel]
        if vanished:  # while others were being opened
            self._open(iter(vanished))
            return
        several = self._kept()
        error = self._forbids()
        if error is not None:
            self._let_go()
            request.refuse(error)
        elif request.is_gone:
            self._let_go()
        elif not self._seconds or self._context.draining or any(map(_tells, several)):
            self._answer(several)
        else:
            for kept in several:
                if self._places[kept.channel] is None:
                    self._places[kept.channel] = Position(kept.position.epoch, kept.stop - 1)
            request.on_gone, request.on_drain = self._let_go, self._end
            self._timer = self._reactor.callLater(self._seconds, self._end)

    def _kept(self) -> list[HistoryPage]:
        """What there is to tell; each channel is looked at once more, as the last look may have been a while ago."""
        visitor, broker, kept = self._request.visitor, self._context.broker, list[HistoryPage]()
        # First all of them: what one commits can make another one's log give way. From then on nothing changes until
        # the answer is written, so what it says of the events is true of the events that it has.
        for channel in self._channels.values():
            broker.notify_once(channel, self._ring)  # so that it does not vanish when another one is committed
        for channel in self._channels.values():
            broker.update_history(channel)
            broker.notify_once(channel, self._ring)  # once more, as that may have rung
        for name, channel in self._channels.items():
            place = self._places[name]
            if place is None and self._asked.last is None:
                place = Position(channel.epoch, channel.head)
            if place is not None and self._asked.known[name] is None and place.epoch != channel.epoch:
                # All of the new epoch has come since the client began to wait.
                place = Position(channel.epoch, channel.history.first - 1)
            since, epoch = (None, None) if place is None else (place.offset, place.epoch)
            one = visitor.look_into(channel, self._asked.last, since, epoch)
            if self._asked.known[name] is None:
                one = HistoryPage(one.channel, one.position, one.start, one.stop, None, one.lost, one.events)
            kept.append(one)
        return kept

    def _ring(self) -> None:
        """Something has come, and nothing may be done just now."""
        if not self._rung and self._timer is not None:
            self._rung = True
            self._context.broker.postpone(self._end)

    def _end(self) -> None:
        """Answer with what there is."""
        if self._timer is None:
            return
        several, error = self._kept(), self._forbids()
        self._let_go()
        if error is not None:
            self._request.refuse(error)
        else:
            self._answer(several)

    def _answer(self, several: list[HistoryPage]) -> None:
        body = self._write(several)
        self._let_go()
        self._request.answer_json(200, body)

    def _forbids(self) -> Error | None:
        """Why it may not be told; its token may have run out, or the policy be another, since it began to wait."""
        error = recheck_auth(self._request)
        if error is not None:
            return error
        visitor = self._request.visitor
        refusals = [visitor.check_access(channel, Right.READ) for channel in self._asked.known]
        return next((error for error in refusals if error is not None), None)

    def _let_go(self) -> None:
        self._request.on_gone = self._request.on_drain = None
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        for channel in self._channels.values():
            self._context.broker.cancel_notify(channel, self._ring)


def _tells(kept: HistoryPage) -> bool:
    """Whether a client is to hear of it at once."""
    return kept.start < kept.stop or kept.lost is not None or kept.recovered is False
