"""A client that asks one thing after the other over HTTP, on connections that are none."""

import json

from tests.behaviours.voices import settle
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER


class Answer:
    """What has come. ``is_whole`` is whether all of it is there, as far as its head tells."""

    def __init__(self, data):
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.is_whole = len(self.body) == int(self.headers.get("content-length", len(self.body)))
        if self.headers.get("transfer-encoding") == "chunked":
            self._join_chunks()

    def _join_chunks(self):
        rest, self.body, self.is_whole = self.body, b"", False
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            self.body, rest = self.body + rest[:count], rest[count + 2 :]
            if not count:
                self.is_whole = not rest

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The status and the code of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        return self.status, self.json["code"]


class Asking:
    """``ask("GET", path)`` asks on the connection that there is, and gives the answer when all has come to rest."""

    def __init__(self, server, reactor, wire):
        self.server = server
        self._wire = wire
        routes = Routes(build_routes(server.context, reactor, list))
        self.site = HTTPSite(reactor, server.context, OriginPolicy(AllowedOrigins()), routes, DEFAULT_LISTENER)
        self.connect()

    def connect(self, there="127.0.0.1"):
        """Another connection, from there."""
        self.transport = self._wire(port=8082, there=there)
        self.protocol = HTTPConnection(self.site, self.transport.getPeer())
        self.protocol.makeConnection(self.transport)

    def send(self, method, path, body=b"", **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:8082"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)

    def settle(self):
        """Let everything come to rest, however late the backplane is."""
        settle(self.server)

    def heard(self):
        return Answer(self.transport.heard())

    def __call__(self, method, path, body=b"", **headers):
        self.send(method, path, body, **headers)
        self.settle()
        return self.heard()
