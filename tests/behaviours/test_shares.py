"""Shared limits are divided fairly among clients, in every protocol."""

import pytest

from tests.behaviours.protocol_clients import Connect, ProtocolClient, http_history
from tests.session.clients import settle
from twistedsock.auth.identity import Identity, grants
from twistedsock.codecs.http_bodies import read_body
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.values import Position, Publication
from twistedsock.session.request import RequestClient
from twistedsock.testing import FakeServer


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late, max_channels=16, max_subscriptions=16, history_total_bytes=50_000)


@pytest.fixture
def greedy(server: FakeServer, connect_publisher: Connect) -> ProtocolClient:
    client = connect_publisher(server)
    client.client.session.client.principal = b"@198.51.100.7"
    return client


@pytest.fixture
def modest(server: FakeServer, connect_reader: Connect) -> ProtocolClient:
    client = connect_reader(server)
    client.client.session.client.principal = b"@192.0.2.1"
    return client


def test_one_client_cannot_use_up_the_channels(greedy: ProtocolClient, modest: ProtocolClient) -> None:
    kinds = [greedy.request("publish", channel=f"c{number}", data="x")["type"] for number in range(17)]
    assert kinds == ["ok"] * 16 + ["error"]
    assert modest.request("publish", channel="kitchen", data="x")["type"] == "ok"
    assert modest.request("subscribe", channel="yard")["type"] == "ok"
    assert greedy.request("publish", channel="more", data="x") == {"type": "error", "code": "limit"}
    assert modest.request("history", channel="kitchen")["events"][0]["data"] == "x"


def test_one_client_cannot_use_up_the_subscriptions(greedy: ProtocolClient, modest: ProtocolClient) -> None:
    kinds = [greedy.request("subscribe", channel=f"c{number}")["type"] for number in range(17)]
    assert kinds == ["ok"] * 16 + ["error"]
    assert modest.request("subscribe", channel="c0")["type"] == "ok"
    assert greedy.request("publish", channel="c0", data="x")["type"] == "ok"
    assert [message["data"] for message in modest.received()] == ["x"]


def test_one_client_cannot_push_out_the_history_of_another(greedy: ProtocolClient, modest: ProtocolClient) -> None:
    for number in range(20):
        modest.request("publish", channel="kitchen", data=str(number))
    for number in range(60):
        greedy.request("publish", channel=f"c{number % 8}", data="x" * 3_000)
    reply = greedy.request("history", channel="kitchen")
    assert [event["data"] for event in reply["events"]] == [str(number) for number in range(20)]


def test_http_requests_of_one_client_cannot_use_up_the_channels(server: FakeServer, reader: ProtocolClient) -> None:
    outcomes: list[object] = []

    def posts(channel: str, client: bytes, identity: Identity | None = None) -> None:
        request = RequestClient(server.context, "", client, identity)
        on_result(
            request.publish(Publication(channel.encode(), read_body(b"x" * 1_000, b"text/plain"))), outcomes.append
        )
        settle(server)

    for number in range(17):
        posts(f"c{number}", b"198.51.100.7:4000")
    assert [isinstance(outcome, Position) for outcome in outcomes] == [True] * 16 + [False]
    assert reader.request("publish", channel="kitchen", data="mine")["type"] == "ok"
    posts("yard", b"198.51.100.7:4000", Identity(grants({">": "rw"}), b"ann"))
    assert isinstance(outcomes[-1], Position), "a client with an identity counts apart from its address"
    assert [event["data"] for event in http_history(server)] == ["mine"]
