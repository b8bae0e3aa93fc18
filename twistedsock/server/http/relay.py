"""Passes requests to the node that has their session, and answers those that other nodes pass on.

A session over HTTP belongs to one node, its owner, and its id or key begins with the name of that node. A request of
its client can reach another node, which sends it to the owner in a message, and relays the answer. The id is the
secret that authorizes the request, as if it had reached the owner.

Messages are lost when the connection of a node ends. So the relaying node repeats every ``RENEW_SECONDS`` which
requests it waits for. The owner keeps each answer until it is confirmed: it sends it again if that was lost, and
reports to the session if the client cannot have received it.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import INTERNAL, UNAVAILABLE, Error, ErrorCode
from twistedsock.limits.principal import Principal
from twistedsock.limits.rate import answer_price
from twistedsock.limits.shares import MemoryBudget
from twistedsock.pubsub.backplane import SendsToNodes
from twistedsock.server.connection import log_exception
from twistedsock.server.http import relay_messages as messages

RENEW_SECONDS = 3.0

MAX_SILENT_RENEWALS = 3
"""Renewals without a sign of the other node until it counts as failed: 9 to 12 seconds."""

MAX_PASSED_BYTES = 16 * 1024 * 1024
"""Requests that other nodes have not answered, with ``REQUEST_BYTES`` for each: 16,000 polls, or 60 of the longest
requests with commands. When it is reached, the clients that use most are rejected."""

REQUEST_BYTES = 1_000

MAX_UNCONFIRMED_BYTES = 1024 * 1024
"""Answers on their way to one node, at least one. The others wait, so that the buffer of a Redis for a node that does
not read stays below its limit, 32 MiB by default."""

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Half of the longest message that the hub of several workers accepts."""

TOO_MANY_PASSED = Error(
    ErrorCode.UNAVAILABLE, "too many requests wait for the process that has their session: try again later"
)

TOO_LONG_ANSWER = Error(ErrorCode.UNAVAILABLE, "the answer is too long for another process: connect again")

OWNER_UNAVAILABLE = Error(
    ErrorCode.UNAVAILABLE, "the process that has this session does not answer: the request may have been handled"
)


class ClientRequest(Protocol):
    """The interface of an ``HTTPRequest`` for the handlers of sessions."""

    method: bytes
    on_disconnect: Callable[[], object] | None
    on_shutdown: Callable[[], object] | None

    @property
    def body(self) -> bytes: ...
    def header(self, name: bytes) -> bytes: ...
    def charge_afterwards(self, price: float) -> None: ...
    def respond(self, status: int, content_type: bytes, body: bytes) -> None: ...
    def respond_error(self, error: Error, status: int | None = None) -> None: ...


class PassableRequest(ClientRequest, Protocol):
    """A request of a client of this node."""

    path: bytes

    @property
    def principal(self) -> Principal: ...


class RelayedRequest:
    """A request that another node has passed to this one. Handlers use it like an ``HTTPRequest``, and respond once."""

    __slots__ = (
        "_content_type",
        "_counted",
        "_relay",
        "_sender",
        "answer",
        "body",
        "id",
        "is_sent",
        "method",
        "missed",
        "number",
        "on_disconnect",
        "on_shutdown",
        "on_undelivered",
        "principal",
        "renewals",
    )

    def __init__(self, relay: "Relay", sender: "_Sender", request: messages.Request) -> None:
        self.number = request.number
        self.id = request.id
        """The id of its session."""
        self.method = request.method
        self.body = request.body
        self.principal = request.principal
        self.on_disconnect: Callable[[], object] | None = None
        """Called if the client disconnects before the response."""
        self.on_shutdown: Callable[[], object] | None = None
        """Called if the node that has the client shuts down before the response."""
        self.on_undelivered: Callable[[], object] | None = None
        """Called if the client has perhaps not been sent the response."""
        self.answer: messages.Answer | None = None
        self.is_sent = False
        self.renewals = 0
        """Renewals since the answer was sent."""
        self.missed = 0
        """Renewals of its node that have not arrived, or did not contain this request."""
        self._relay = relay
        self._sender = sender
        self._content_type = request.content_type
        self._counted = relay.budget.adjust(0, len(request.body), request.principal)

    def header(self, name: bytes) -> bytes:
        return self._content_type if name == b"content-type" else b""

    def charge_afterwards(self, price: float) -> None:
        """Does nothing: the node that has the client charges for the response."""

    def respond(self, status: int, content_type: bytes, body: bytes) -> None:
        if len(body) <= MAX_ANSWER_BYTES:
            self._respond(messages.Answer(self.number, status, content_type, body))
            return
        self.respond_error(TOO_LONG_ANSWER)
        if self.on_undelivered is not None:
            self.on_undelivered()

    def respond_error(self, error: Error, status: int | None = None) -> None:
        self._respond(messages.Answer(self.number, status, code=error.code.value, message=error.message))

    def _respond(self, answer: messages.Answer) -> None:
        if self.answer is not None or self.number not in self._sender.requests:
            return
        self.answer = answer
        self.on_disconnect = self.on_shutdown = None
        self.body = b""
        self._counted = self._relay.budget.adjust(self._counted, len(answer.body), self.principal)
        self._sender.waiting.append(self)
        self._relay.send_answers(self._sender)

    def end(self, is_delivered: bool) -> None:
        """The node that has the client needs nothing more."""
        self.body = b""
        self._counted = self._relay.budget.adjust(self._counted, 0, self.principal)
        notify = self.on_disconnect if self.answer is None else self.on_undelivered
        self.on_disconnect = self.on_shutdown = self.on_undelivered = None
        if notify is not None and not is_delivered:
            notify()


class _Sender:
    """A node that has passed requests to this one."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.requests: dict[int, RelayedRequest] = {}
        self.waiting: deque[RelayedRequest] = deque()
        """Requests whose answers have not been sent."""
        self.unconfirmed_bytes = 0


class _Passed:
    """A request that this node has passed on. ``is_renewed`` is True if its owner could be asked about it since."""

    __slots__ = ("is_renewed", "principal", "request", "size")

    def __init__(self, request: PassableRequest) -> None:
        self.is_renewed = False
        self.request = request
        self.principal = request.principal
        self.size = REQUEST_BYTES + len(request.body)


class _Owner:
    """A node to which this one has passed requests."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.requests: dict[int, _Passed] = {}
        self.silent_renewals = 0


class Relay:
    """``budget`` counts the memory of clients. ``schedule`` calls a function after some seconds. ``first_number`` must
    be random, so that no request has the number of one before this node was started again."""

    def __init__(
        self,
        nodes: SendsToNodes,
        budget: MemoryBudget,
        schedule: Callable[[float, Callable[[], None]], object],
        first_number: int,
    ) -> None:
        self.budget = budget
        self.handlers: dict[bytes, Callable[[RelayedRequest], object]] = {}
        """Handle requests of other nodes, by path. They are called with a ``RelayedRequest``."""
        self.rejected_handlers: dict[bytes, Callable[[bytes], object]] = {}
        """Called with the id of a session if another node has rejected a request of it, by path."""
        self._nodes = nodes
        self._schedule = schedule
        self._last_number = first_number
        self._session_id = re.compile(rb"([a-z0-9]{%d})-[A-Za-z0-9_-]{1,64}" % len(nodes.node_name))
        self._passed = MemoryBudget(MAX_PASSED_BYTES)
        self._owners: dict[bytes, _Owner] = {}
        self._senders: dict[bytes, _Sender] = {}
        self._is_scheduled = False
        nodes.receiver = self

    def id_with_owner(self, secret: str) -> str:
        """An id for a session of this node."""
        return f"{self._nodes.node_name.decode()}-{secret}"

    def find_owner(self, id: bytes) -> bytes | None:
        """The name of the other node that a session with this id can belong to. None if it can be only of this one."""
        found = self._session_id.fullmatch(id)
        return None if found is None or found[1] == self._nodes.node_name else found[1]

    # Requests of clients of this node.

    def pass_on(self, id: bytes, request: PassableRequest) -> bool:
        """Have a request answered by the owner of a session. Returns False if only this node can be the owner."""
        name = self.find_owner(id)
        if name is None:
            return False
        passed = _Passed(request)
        if self._passed.is_exceeded_by(passed.principal, passed.size):
            request.respond_error(TOO_MANY_PASSED)
            return True
        self._last_number = number = self._last_number + 1
        content_type, body = request.header(b"content-type"), request.body
        message = messages.Request(number, request.path, id, request.method, content_type, body, passed.principal)
        if not self._send(name, message):
            request.respond_error(UNAVAILABLE)
            return True
        owner = self._owners.setdefault(name, _Owner(name))
        owner.requests[number] = passed
        self._passed.add(passed.size, passed.principal)
        request.on_disconnect = partial(self._client_disconnected, owner, number)
        request.on_shutdown = partial(self._send, name, messages.Release(number))
        self._renew_later()
        return True

    def report_rejected(self, id: bytes, path: bytes) -> None:
        """The request of a session cannot be handled, because its body is too long or not complete."""
        name = self.find_owner(id)
        if name is not None:
            self._send(name, messages.Rejected(path, id))

    def _client_disconnected(self, owner: _Owner, number: int) -> None:
        self._remove(owner, number)
        self._send(owner.name, messages.Finish(number, False))

    def _remove(self, owner: _Owner, number: int) -> PassableRequest | None:
        passed = owner.requests.pop(number, None)
        if passed is None:
            return None
        if not owner.requests:
            del self._owners[owner.name]
        self._passed.add(-passed.size, passed.principal)
        return passed.request

    def _fail(self, owner: _Owner, numbers: Iterable[int]) -> None:
        """The owner does not answer these requests."""
        for number in numbers:
            request = self._remove(owner, number)
            if request is not None:
                request.respond_error(OWNER_UNAVAILABLE)

    def _answered(self, node: bytes, answer: messages.Answer) -> None:
        owner = self._owners.get(node)
        request = None if owner is None else self._remove(owner, answer.number)
        if request is not None:
            if answer.code:
                request.respond_error(Error(ErrorCode(answer.code), answer.message), answer.status)
            else:
                request.charge_afterwards(int(answer_price(len(answer.body))))
                request.respond(answer.status or 200, answer.content_type, answer.body)
        self._send(node, messages.Finish(answer.number, request is not None))

    def _renewed(self, node: bytes, message: messages.Renewed) -> None:
        owner = self._owners.get(node)
        if owner is not None:
            self._fail(owner, message.unknown)

    # Requests of other nodes.

    def _requested(self, node: bytes, message: messages.Request) -> None:
        sender = self._senders.setdefault(node, _Sender(node))
        request = sender.requests[message.number] = RelayedRequest(self, sender, message)
        self._renew_later()
        handler = self.handlers.get(message.path)
        try:
            if handler is None:
                request.respond_error(UNAVAILABLE)
            else:
                handler(request)
        except ApiError as failed:
            request.respond_error(failed.error, failed.status)
        except Exception:
            log_exception()
            request.respond_error(INTERNAL)

    def send_answers(self, sender: _Sender) -> None:
        """Send the answers that wait, as far as the node has confirmed those before."""
        waiting = sender.waiting
        while waiting:
            request = waiting[0]
            size = _size(request)
            if sender.unconfirmed_bytes and sender.unconfirmed_bytes + size > MAX_UNCONFIRMED_BYTES:
                break
            waiting.popleft()
            if request.number in sender.requests:
                sender.unconfirmed_bytes += size
                request.is_sent = True
                self._send(sender.name, request.answer)

    def _end(self, sender: _Sender, number: int, is_delivered: bool) -> None:
        request = sender.requests.pop(number, None)
        if request is None:
            return
        if request.is_sent:
            sender.unconfirmed_bytes -= _size(request)
        request.end(is_delivered)
        self.send_answers(sender)
        if not sender.requests:
            self._senders.pop(sender.name, None)

    def _finished(self, node: bytes, message: messages.Finish) -> None:
        sender = self._senders.get(node)
        if sender is not None:
            self._end(sender, message.number, message.is_delivered)

    def _renew(self, node: bytes, message: messages.Renew) -> None:
        sender = self._senders.get(node)
        requests = {} if sender is None else sender.requests
        for number in message.numbers:
            request = requests.get(number)
            if request is None:
                continue
            request.missed = 0
            if request.is_sent:
                request.renewals += 1
                if request.renewals > 1:  # with the first one, the answer may have been on its way
                    request.renewals = 0
                    self._send(node, request.answer)
        self._send(node, messages.Renewed([number for number in message.numbers if number not in requests]))

    def _released(self, node: bytes, message: messages.Release) -> None:
        sender = self._senders.get(node)
        request = None if sender is None else sender.requests.get(message.number)
        if request is not None and request.on_shutdown is not None:
            request.on_shutdown()

    def _rejected(self, node: bytes, message: messages.Rejected) -> None:
        handler = self.rejected_handlers.get(message.path)
        if handler is not None:
            handler(message.id)

    # Other nodes.

    def _send(self, node: bytes, message: messages.Message | None) -> bool:
        return self._nodes.send_to(node, messages.encode(message))

    def received(self, node: bytes, content: bytes) -> None:
        """A message of another node. Raises ``msgspec.MsgspecError`` if it cannot be read."""
        message = messages.decode(content)
        owner = self._owners.get(node)
        if owner is not None:
            owner.silent_renewals = 0
        _RECEIVERS[type(message)](self, node, message)

    def unreachable(self, node: bytes) -> None:
        """A message could not be delivered, because no node of this name is connected. It may be for a moment only, so
        older requests wait until it has been silent for long."""
        owner = self._owners.get(node)
        if owner is not None:
            self._fail(owner, [number for number, passed in owner.requests.items() if not passed.is_renewed])

    def _renew_later(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._schedule(RENEW_SECONDS, self._time_passed)

    def _time_passed(self) -> None:
        self._is_scheduled = False
        for owner in list(self._owners.values()):
            owner.silent_renewals += 1
            if owner.silent_renewals > MAX_SILENT_RENEWALS:
                self._fail(owner, list(owner.requests))
                continue
            for passed in owner.requests.values():
                passed.is_renewed = True
            self._send(owner.name, messages.Renew(list(owner.requests)))
        for sender in list(self._senders.values()):
            for request in list(sender.requests.values()):
                request.missed += 1
                if request.missed > MAX_SILENT_RENEWALS:
                    self._end(sender, request.number, False)
        if self._owners or self._senders:
            self._renew_later()


def _size(request: RelayedRequest) -> int:
    assert request.answer is not None
    return REQUEST_BYTES + len(request.answer.body)


_RECEIVERS: Mapping[type, Callable[[Relay, bytes, Any], None]] = {
    messages.Request: Relay._requested,
    messages.Finish: Relay._finished,
    messages.Renew: Relay._renew,
    messages.Release: Relay._released,
    messages.Rejected: Relay._rejected,
    messages.Answer: Relay._answered,
    messages.Renewed: Relay._renewed,
}
