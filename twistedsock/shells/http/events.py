"""Publishing over HTTP, and the history: thin over what a visitor may ask."""

import re
from collections.abc import Callable
from hashlib import sha256

from twistedsock.core.access import Right
from twistedsock.core.bridge import Bridge
from twistedsock.core.commands import MOST
from twistedsock.core.errors import Code, Refusal
from twistedsock.core.idempotency import OTHER_REQUEST, Answered, Idempotency, Told
from twistedsock.core.later import Later, and_then, when_known
from twistedsock.core.names import DEFAULT_EVENT_NAME
from twistedsock.core.visitor import Kept, Place, Publishing
from twistedsock.shells.http.files import names
from twistedsock.shells.http.judgement import judge_again
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.wire import http_answers
from twistedsock.wire.arguments import Arguments, wrong
from twistedsock.wire.http_bodies import read_batch, read_body, together
from twistedsock.wire.problems import Refused

_KEY = re.compile(rb"[ -~]{1,200}")
BAD_KEY = Refusal(Code.BAD_ARGUMENT, "an Idempotency-Key is 1 to 200 printable ASCII characters")

REPLAYED = {b"Idempotency-Replayed": b"true"}

Act = Callable[[], Told | Refusal | Later[Told]]


class Events:
    """Remembers what was published under which key, so there is one for a server."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._known = Idempotency(bridge.broker.clock)

    def publish(self, request: BridgeRequest) -> None:
        """``POST /channels/{channel}/events``: the body is the event."""
        arguments = request.arguments
        arguments.only(("name", "nick"))
        name, nick = _name(arguments, "name") or DEFAULT_EVENT_NAME, _name(arguments, "nick")
        channel, body, kind = request.channel_name, request.body, request.header(b"content-type")
        refusal = request.visitor.forbids(channel, Right.WRITE)
        if refusal is not None:  # what was done under a key is none of theirs either
            raise Refused(refusal)
        content = read_body(body, kind)

        def act() -> Told | Refusal | Later[Told]:
            answer = request.visitor.publish(channel, content, name, nick)
            return and_then(answer, lambda place: Told(http_answers.published(channel, place)))

        self._once(request, 201, act, channel, b"\0".join((name, nick, kind, body)))

    def publish_all(self, request: BridgeRequest) -> None:
        """``POST /events``: the body is a list of events."""
        arguments = request.arguments
        arguments.only(("nick",))
        nick, body, kind = _name(arguments, "nick"), request.body, request.header(b"content-type")
        asked = read_batch(body, kind, self._bridge.limits.max_message)
        request.charge(max(0, len(asked) - 1))
        rows = list(together(one for one in asked if isinstance(one, Publishing)))

        def tell(outcomes: list[Place | Refusal]) -> Told:
            results = http_answers.results(asked, rows, outcomes)
            is_done = any(isinstance(outcome, Place) for outcome in outcomes)
            return Told(http_answers.published_together(results), is_done)

        def act() -> Told | Refusal | Later[Told]:
            return and_then(request.visitor.publish_all(rows, nick), tell)

        self._once(request, 200, act, b"", b"\0".join((nick, kind, body)))

    def _once(self, request: BridgeRequest, status: int, act: Act, place: bytes, told: bytes) -> None:
        """Act, or tell what was done under the same key before."""
        key = _key(request)
        if key is None:
            answered = Answered(act(), False)
        else:
            answered = self._known.once((request.principal, place, key), sha256(told).digest(), act)

        def tell(outcome: Told | Refusal) -> None:
            if isinstance(outcome, Refusal):
                request.refuse(outcome, 422 if outcome is OTHER_REQUEST else None)
            else:
                request.answer_json(status, outcome.body, REPLAYED if answered.again else None)

        when_known(answered.outcome, tell)

    def history(self, request: BridgeRequest) -> None:
        """``GET /channels/{channel}/events``: what the log holds."""
        arguments = request.arguments
        arguments.only(("since", "epoch", "last"))
        last, since, epoch = arguments.whole("last", MOST), arguments.whole("since", MOST), arguments.text("epoch")
        if epoch is not None and since is None:
            raise wrong("epoch", "it comes with since")
        answer = request.visitor.history(request.channel_name, last, since, None if epoch is None else epoch.encode())
        when_known(answer, lambda kept: tell_history(request, kept))


def tell_history(request: BridgeRequest, kept: Kept | Refusal) -> None:
    """Answer with what a log holds, unless the client has that already."""
    if isinstance(kept, Refusal):
        request.refuse(kept)
        return
    tag = http_answers.tag(kept)
    headers = {b"ETag": b"W/" + tag}
    if names(request.header(b"if-none-match"), tag):
        request.answer(304, b"", b"", headers)
        return

    def is_allowed() -> bool:
        return judge_again(request) is None and request.visitor.forbids(kept.channel, Right.READ) is None

    request.answer_in_pieces(http_answers.history(kept), headers, is_allowed)


def _name(arguments: Arguments, name: str) -> bytes:
    """A name in the query, or "" where it is not given; what it may be is asked later."""
    text = arguments.text(name)
    if text == "":
        raise wrong(name, "it must not be empty")
    return b"" if text is None else text.encode()


def _key(request: BridgeRequest) -> bytes | None:
    keys = request.requestHeaders.getRawHeaders(b"idempotency-key", ())
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Refused(BAD_KEY)
    return keys[0]
