"""Who may read the figures over HTTP, and in which dress they come."""

import gzip

import pytest

from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER
from twistedsock.testing import FakePolicy


class Answer:
    def __init__(self, data):
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]

    def header(self, name):
        return ", ".join(value for known, value in self.headers if known == name)


@pytest.fixture
def ask(server, reactor, wire):
    """Ask on a connection of one's own: ``ask(method="GET", there="127.0.0.1", **headers)``."""
    routes = Routes(build_routes(server.context, reactor, list))
    site = HTTPSite(reactor, server.context, OriginPolicy(AllowedOrigins()), routes, DEFAULT_LISTENER)

    def asking(method="GET", there="127.0.0.1", **headers):
        transport = wire(port=8082, there=there)
        protocol = HTTPConnection(site, transport.getPeer())
        protocol.makeConnection(transport)
        lines = [f"{method} /metrics HTTP/1.1", "Host: 127.0.0.1:8082"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        protocol.dataReceived("\r\n".join([*lines, "", ""]).encode())
        return Answer(transport.heard())

    return asking


def test_without_a_policy_this_machine_may_look(ask):
    answer = ask()
    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nsockbridge_channels 0.0\n" in answer.body
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("cache-control") == "no-store"
    assert "Accept-Encoding" in answer.header("vary")


def test_without_a_policy_strangers_may_not(ask):
    answer = ask(there="192.0.2.7")
    assert answer.status == 403
    assert b'"forbidden"' in answer.body and b"sockbridge_" not in answer.body


@pytest.fixture
def policy(server):
    server.context.policy = FakePolicy({}, {"of-ann": ("ann", {}, None), "of-bob": ("bob", {}, None)}, admins=["ann"])


@pytest.mark.parametrize("there", ["127.0.0.1", "192.0.2.7"])
def test_with_a_policy_it_takes_an_administrator_s_token(ask, policy, there):
    assert ask(there=there, Authorization="Bearer of-ann").status == 200
    other = ask(there=there, Authorization="Bearer of-bob")
    assert (other.status, b'"forbidden"' in other.body) == (403, True)
    nobody = ask(there=there)
    assert (nobody.status, nobody.header("www-authenticate")) == (401, "Bearer")
    wrong = ask(there=there, Authorization="Bearer of-eve")
    assert (wrong.status, wrong.header("www-authenticate")) == (401, 'Bearer error="invalid_token"')
    assert all(b"sockbridge_" not in answer.body for answer in (other, nobody, wrong))


def test_it_comes_packed_where_that_is_asked_for(ask):
    answer = ask(Accept_Encoding="gzip;q=0.8, br")
    assert answer.header("content-encoding") == "gzip"
    assert b"\nsockbridge_channels 0.0\n" in gzip.decompress(answer.body)
    assert len(answer.body) < 5000
    assert ask(Accept_Encoding="gzip;q=0").header("content-encoding") == ""


def test_it_comes_as_openmetrics_where_that_is_asked_for(ask):
    answer = ask(Accept="application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5")
    assert answer.header("content-type").startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


def test_head_gets_what_get_gets_but_the_body(ask):
    answer = ask("HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.header("content-length")) > 1000


def test_nothing_else_can_be_done(ask):
    answer = ask("DELETE")
    assert (answer.status, answer.header("allow")) == (405, "GET, HEAD")


def test_while_the_server_goes_away_it_still_tells(ask, server):
    server.context.draining = True
    assert ask().status == 200


def test_requests_are_counted_the_refused_ones_too(ask, server):
    ask()
    ask("HEAD")
    ask("BREW")
    ask(there="192.0.2.7")
    stats = server.context.stats
    assert stats.requests == {(b"GET", 200): 1, (b"HEAD", 200): 1, (b"other", 405): 1, (b"GET", 403): 1}
    assert {code.decode(): count for code, count in stats.errors.items()} == {"unknown-command": 1, "forbidden": 1}
