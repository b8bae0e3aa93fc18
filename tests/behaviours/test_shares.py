"""What all clients share is shared fairly, whatever they speak."""

from collections.abc import Callable

import pytest

from tests.behaviours.test_http import history
from tests.behaviours.voices import Voice, settle
from twistedsock.auth.identity import Identity, grants
from twistedsock.codecs.http_api import read_body
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.values import Position, Publication
from twistedsock.session.request import RequestClient
from twistedsock.testing import FakeServer

GREEDY, MODEST = b"@198.51.100.7", b"@192.0.2.1"

Meets = Callable[[FakeServer], Voice]


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late, max_channels=16, max_subscriptions=16, history_total_bytes=50_000)


def comes(meets: Meets, server: FakeServer, principal: bytes) -> Voice:
    voice = meets(server)
    voice.client.session.client.principal = principal
    return voice


def test_one_client_cannot_use_up_the_channels(server: FakeServer, publisher_meets: Meets, reader_meets: Meets) -> None:
    greedy, modest = comes(publisher_meets, server, GREEDY), comes(reader_meets, server, MODEST)
    kinds = [greedy.asks("publish", channel=f"c{number}", data="x")["type"] for number in range(17)]
    assert kinds == ["ok"] * 16 + ["error"]
    assert modest.asks("publish", channel="kitchen", data="x")["type"] == "ok"
    assert modest.asks("subscribe", channel="yard")["type"] == "ok"
    assert greedy.asks("publish", channel="more", data="x") == {"type": "error", "code": "limit"}
    assert modest.asks("history", channel="kitchen")["events"][0]["data"] == "x"


def test_one_client_cannot_use_up_the_subscriptions(
    server: FakeServer, publisher_meets: Meets, reader_meets: Meets
) -> None:
    greedy, modest = comes(publisher_meets, server, GREEDY), comes(reader_meets, server, MODEST)
    kinds = [greedy.asks("subscribe", channel=f"c{number}")["type"] for number in range(17)]
    assert kinds == ["ok"] * 16 + ["error"]
    assert modest.asks("subscribe", channel="c0")["type"] == "ok"
    assert greedy.asks("publish", channel="c0", data="x")["type"] == "ok"
    assert [message["data"] for message in modest.received()] == ["x"]


def test_one_client_cannot_push_out_the_history_of_another(
    server: FakeServer, publisher_meets: Meets, reader_meets: Meets
) -> None:
    greedy, modest = comes(publisher_meets, server, GREEDY), comes(reader_meets, server, MODEST)
    for number in range(20):
        modest.asks("publish", channel="kitchen", data=str(number))
    for number in range(60):
        greedy.asks("publish", channel=f"c{number % 8}", data="x" * 3_000)
    told = greedy.asks("history", channel="kitchen")
    assert [event["data"] for event in told["events"]] == [str(number) for number in range(20)]


def test_requests_of_one_client_cannot_use_up_what_voices_need(server: FakeServer, reader: Voice) -> None:
    outcomes: list[object] = []

    def posts(channel: str, client: bytes, identity: Identity | None = None) -> None:
        visitor = RequestClient(server.context, "", client, identity)
        on_result(
            visitor.publish(Publication(channel.encode(), read_body(b"x" * 1_000, b"text/plain"))), outcomes.append
        )
        settle(server)

    for number in range(17):
        posts(f"c{number}", b"198.51.100.7:4000")
    assert [isinstance(outcome, Position) for outcome in outcomes] == [True] * 16 + [False]
    assert reader.asks("publish", channel="kitchen", data="mine")["type"] == "ok"
    posts("yard", b"198.51.100.7:4000", Identity(grants({">": "rw"}), b"ann"))
    assert isinstance(outcomes[-1], Position), "who proves an identity is another client than its address"
    assert [event["data"] for event in history(server)] == ["mine"]
