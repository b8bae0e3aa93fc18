"""The right to read the server's own channels, in every protocol."""

from typing import Any

import pytest

from tests.behaviours.protocol_clients import Connect, ProtocolClient, outcome
from tests.session.clients import settle
from twistedsock.metrics.sys_channels import TICK_SECONDS, Monitor
from twistedsock.session.encoder import Endpoints
from twistedsock.testing import FakePolicy, FakeServer

PAGES = ["$sys/figures", "$sys/channels/rate/0", "$sys/peers/newest/0", "$sys/peer/p1", "$sys/closed"]
TOKENS: dict[str, Any] = {
    "root": ("root", {}, None),
    "all": ("ann", {">": "rw"}, None),
    "figures": ("bob", {"$sys/figures": "rw"}, None),
}
POLICY = FakePolicy({">": "rw"}, TOKENS, admins=["root"])


def watched(server: FakeServer) -> Monitor:
    monitor = Monitor(server.context, lambda: 1, lambda: 1.0)
    monitor.attach()
    return monitor


def seconds(server: FakeServer, monitor: Monitor, count: int) -> None:
    for _ in range(count):
        server.now += TICK_SECONDS
        monitor.tick()
        settle(server)


def test_clients_on_this_machine_can_read_without_a_policy(server: FakeServer, reader: ProtocolClient) -> None:
    monitor = watched(server)
    for page in PAGES:
        assert reader.request("subscribe", channel=page)["type"] == "ok"
    seconds(server, monitor, 2)
    message = reader.received()
    assert {message["channel"] for message in message} == set(PAGES) - {"$sys/closed"}
    assert {message["from"] for message in message} == {"$sys"}
    figures = [message["data"] for message in message if message["name"] == "figures"]
    assert len(figures) == 2 and figures[0]["peers"]["total"] == 1
    assert reader.request("publish", channel="$sys/figures", data="mine")["code"] == "forbidden"


@pytest.mark.parametrize("verb", ["subscribe", "history", "who"])
def test_remote_clients_cannot_read_without_a_policy(server: FakeServer, reader: ProtocolClient, verb: str) -> None:
    reader.client.session.endpoints = Endpoints(b"192.0.2.1:5000", b"192.0.2.2:8081")
    for page in PAGES:
        assert outcome(reader.request(verb, channel=page)) == "forbidden"


@pytest.mark.parametrize("verb", ["subscribe", "history", "who"])
@pytest.mark.parametrize("token, allowed", [("", []), ("all", []), ("figures", PAGES[:1]), ("root", PAGES)])
def test_policy_requires_an_administrator_or_an_explicit_right(
    late: bool, connect_reader: Connect, verb: str, token: str, allowed: list[str]
) -> None:
    """A right to all channels is not enough, because these channels contain the addresses of clients."""
    server = FakeServer(late, policy=POLICY)
    reader = connect_reader(server)
    if token:
        reader.request("auth", token=token)
    error = "forbidden" if token else "unauthorized"
    assert [outcome(reader.request(verb, channel=page)) for page in PAGES] == [
        "ok" if page in allowed else error for page in PAGES
    ]


def test_former_administrators_receive_no_more_events(late: bool, connect_reader: Connect) -> None:
    server = FakeServer(late, policy=POLICY)
    monitor, reader = watched(server), connect_reader(server)
    reader.request("auth", token="root")
    reader.request("subscribe", channel="$sys/figures")
    server.context.change_policy(FakePolicy({}, TOKENS))
    seconds(server, monitor, 2)
    assert [message["type"] for message in reader.received()] == ["notice"]
