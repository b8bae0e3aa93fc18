"""A client of the web port, over a transport that is none."""

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.event_streams import read_events
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.web import WebFactory


class Client:
    """One connection to the web port."""

    def __init__(self, factory, transport):
        self.transport = transport
        self.protocol = factory.buildProtocol(transport.getPeer())
        transport.protocol = self.protocol
        self.protocol.makeConnection(transport)
        self.head = ""
        self._text = ""
        self._id = ""

    def asks(self, target, method="GET", body=b"", **headers):
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1:8082"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        return self

    def answer(self):
        """Status, headers and body of what has come."""
        head, _, body = self.transport.heard().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split(" ")[1]), headers, body

    def streams(self, target, **headers):
        self.asks(target, **{"Accept": "text/event-stream", **headers})
        status, self.headers, body = self.answer()
        assert status == 200, (status, body)
        self._text = body.decode()
        return self

    def received(self):
        self._text += self.transport.heard().decode()
        whole, _, self._text = self._text.rpartition("\n\n")
        events, self._id = read_events(whole + "\n\n", self._id) if whole else ([], self._id)
        return events

    def goes(self):
        self.protocol.connectionLost(Failure(ConnectionDone()))


def web_port(reactor, wire, server, interval=0):
    """Gives what connects to it."""
    routes = Routes(build_routes(server.context, reactor, list, ping_interval=interval))
    factory = WebFactory(server.context, reactor, OriginPolicy(AllowedOrigins()), 0, 0, 0, list, routes=routes)
    return lambda: Client(factory, wire(port=8082))
