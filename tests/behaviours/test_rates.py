"""Clients that exceed their rate get errors for the excess commands; clients that continue are disconnected."""

from tests.behaviours.protocol_clients import ProtocolClient
from twistedsock.errors import CloseReason
from twistedsock.testing import FakeServer


def limit_rate(client: ProtocolClient, burst: int) -> None:
    """Allow one command a second from now on, and ``burst`` commands at once."""
    client.client.limit(commands_per_second=1, commands_burst=burst)


def test_rejects_only_the_commands_beyond_the_rate(
    server: FakeServer, publisher: ProtocolClient, reader: ProtocolClient
) -> None:
    """Replies keep the order of the commands, and commands succeed again after a second."""
    reader.request("subscribe", channel="a")
    limit_rate(publisher, 2)
    publisher.send_together(
        ("publish", {"channel": "a", "data": "one"}),
        ("nick", {"nick": "ann"}),
        ("publish", {"channel": "a", "data": "two"}),
        ("ping", {}),
    )
    answers = publisher.received()
    assert [answer["type"] for answer in answers] == ["ok", "ok", "error", "error"]
    assert {answer["code"] for answer in answers[2:]} == {"rate"}
    server.now += 1
    assert publisher.request("publish", channel="a", data="three")["offset"] == 2
    assert [message["data"] for message in reader.received()] == ["one", "three"]


def test_closes_a_client_that_continues_to_exceed_its_rate(
    server: FakeServer, publisher: ProtocolClient, reader: ProtocolClient
) -> None:
    """Other clients are not affected."""
    reader.request("subscribe", channel="a")
    limit_rate(publisher, 2)
    publisher.send_together(*[("ping", {})] * 7)
    assert [message["type"] for message in publisher.received()] == ["pong", "pong", "error", "error", "notice"]
    assert publisher.client.close_reason is CloseReason.POLICY
    assert reader.received() == [] and reader.request("ping")["type"] == "pong"
