"""Rejected clients are reported to the listeners of connections, with their address, the error and the origin."""

from typing import Any

import pytest

from tests.fakes import FakeReactor
from tests.server.clients import MakeLinePort, request_bytes, upgrade
from tests.server.http.clients import FakeSite, MakeWebPort
from twistedsock.errors import Error
from twistedsock.session.encoder import Endpoints
from twistedsock.testing import FakePolicy, FakeServer

REMOTE = "198.51.100.9"

Refusal = tuple[str, str, str, str]
"""Protocol, address, error code and origin."""


class Refusals(list[Refusal]):
    """The refusals of a server, in their order."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__()
        server.context.connection_events.listeners.append(self)

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str) -> None:
        self.append((protocol, endpoints.client.decode(), error.code.value.decode(), about))

    def opened(self, *ignored: Any) -> None: ...
    def stepped(self, *ignored: Any) -> None: ...
    def closed(self, *ignored: Any) -> None: ...


def test_reports_connections_over_the_limit(make_lines: MakeLinePort, make_web: MakeWebPort) -> None:
    server = FakeServer(max_connections_per_address=1)
    refusals = Refusals(server)
    lines, web = make_lines(server), make_web(server)
    lines(there=REMOTE)
    assert refusals == []
    lines(there=REMOTE)
    web(there=REMOTE)
    assert refusals == [("line", f"{REMOTE}:50000", "limit", ""), ("web", f"{REMOTE}:50000", "limit", "")]


def test_reports_connections_over_the_rate(make_lines: MakeLinePort) -> None:
    server = FakeServer(commands_per_second=1, commands_burst=1)
    refusals = Refusals(server)
    lines = make_lines(server)
    for _ in range(20):
        lines(there=REMOTE)
    assert refusals[-1] == ("line", f"{REMOTE}:50000", "rate", "")


@pytest.mark.parametrize(
    ("data", "code", "about"),
    [
        (upgrade(Origin="https://evil.example"), "forbidden", "https://evil.example"),
        (upgrade(Origin="a\x85b"), "forbidden", "a\x85b"),
        (upgrade().replace(b"127.0.0.1:8082", b"evil.example"), "forbidden", "evil.example"),
        (upgrade("/other"), "unknown-command", ""),
        (b"\x16\x03\x01\x02\x00", "bad-argument", ""),
    ],
)
def test_reports_rejected_handshakes(make_web: MakeWebPort, data: bytes, code: str, about: str) -> None:
    server = FakeServer()
    refusals = Refusals(server)
    make_web(server)().send_bytes(data)
    assert refusals == [("web", "127.0.0.1:50000", code, about)]


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({"Origin": "https://evil.example"}, ("http", "127.0.0.1:50000", "forbidden", "https://evil.example")),
        ({"Authorization": "Bearer wrong"}, ("http", "127.0.0.1:50000", "unauthorized", "")),
    ],
)
def test_reports_requests_of_rejected_clients(reactor: FakeReactor, headers: dict[str, str], refusal: Refusal) -> None:
    site = FakeSite(reactor, server=FakeServer(policy=FakePolicy({"lobby": "r"})))
    refusals = Refusals(site.server)
    site().send_bytes(request_bytes("/channels", **headers))
    assert refusals == [refusal]


def test_does_not_report_wrong_requests_of_accepted_clients(reactor: FakeReactor) -> None:
    site = FakeSite(reactor)
    refusals = Refusals(site.server)
    for path in ("/none", "/channels?limit=x"):
        site().send_bytes(request_bytes(path))
    assert refusals == []
