"""What tests of HTTP share: a site without a port, connections to it, and answers that have been read."""

import json

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER
from twistedsock.testing import FakeServer

HOST = "127.0.0.1:8082"


def ask(path="/", method="GET", body=b"", **headers):
    """A request as it is sent."""
    headers = {"Host": HOST, **headers}
    if body and "Transfer_Encoding" not in headers:
        headers.setdefault("Content_Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Answer:
    """One answer."""

    def __init__(self, head, body):
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split(" ")[1])
        self.lines = lines
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.body = body

    @property
    def problem(self):
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)

    @property
    def code(self):
        return self.problem["code"]


def read_answers(data, method="GET"):
    """All answers in what was heard, which must be whole."""
    answers = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        answer = Answer(head, b"")
        size = 0 if method == "HEAD" else int(answer.headers.get("content-length", 0))
        answer.body, data = data[:size], data[size:]
        assert len(answer.body) == size
        answers.append(answer)
    return answers


class Visit:
    """A connection of HTTP under test."""

    def __init__(self, site, transport, peer=None, is_proxied=False):
        self.transport = transport
        self.protocol = HTTPConnection(site, peer or transport.getPeer(), is_proxied)
        self.protocol.makeConnection(transport)

    def send_bytes(self, data):
        self.protocol.dataReceived(data)
        return self.received()

    def received(self, method="GET"):
        return read_answers(self.transport.heard(), method)

    def asks(self, path="/", method="GET", body=b"", **headers):
        """Its one answer."""
        self.protocol.dataReceived(ask(path, method, body, **headers))
        (answer,) = self.received(method)
        return answer

    @property
    def is_closing(self):
        return self.transport.disconnecting or self.transport.half_closed or self.transport.disconnected

    def is_lost(self):
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Place:
    """A site, and its hall. ``routes`` are added to ours; ``place()`` is a new visit."""

    def __init__(self, reactor, wire, routes=(), origins=None, listening=DEFAULT_LISTENER, server=None):
        self.reactor, self.server = reactor, server or FakeServer()
        context = self.server.context
        table = Routes([*build_routes(context, reactor, lambda: []), *routes])
        self.gate = OriginPolicy(origins or AllowedOrigins())
        self.site = HTTPSite(reactor, context, self.gate, table, listening)
        self._wire = wire

    def __call__(self, here="127.0.0.1", there="127.0.0.1", is_proxied=False):
        return Visit(self.site, self._wire(here, 8082, there), is_proxied=is_proxied)
