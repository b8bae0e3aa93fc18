"""Socket.IO over long polling meets each other protocol.

The other modules run the codec of Socket.IO for all pairs. Polling changes only how its packets travel. So here one
client that polls meets one client of each kind, in both directions, with what depends on the requests: attachments,
the order of acks and events, recovery, and a client that polls seldom.
"""

from base64 import b64decode, b64encode
from typing import Any

import pytest

from tests.behaviours.payloads import TEXTS, VALUES
from tests.behaviours.protocol_clients import KINDS, Message, ProtocolClient, SocketIOCommands
from tests.fakes import FakeReactor
from tests.server.engineio_clients import EnginePort, PendingPoll
from tests.session.clients import settle
from twistedsock.server.socketio import BrokerApplication
from twistedsock.testing import FakeServer

MIXED: list[dict[str, Any]] = [
    *[{"data": data} for data in (*TEXTS, *VALUES)],
    *[{"base64": b64encode(data).decode()} for data in (b"", b"\xff\x00", bytes(range(256)))],
]
"""Payloads of all kinds."""


class PollingPeer:
    """Packets as those of ``SocketIOClient``, in the requests of a client on a port of its own."""

    def __init__(self, server: FakeServer) -> None:
        reactor = FakeReactor()
        application = BrokerApplication(server.context, reactor)
        self.server = server
        self.id = ""
        self._port = EnginePort(reactor, application, application.engine_settings, server)
        self._query = self._port.open()
        self._poll: PendingPoll | None = None

    def join(self) -> Message:
        """Join the main namespace."""
        self.send("0")
        (reply,) = self.received()
        self.id = str(reply).split('"')[3]
        return {"sid": self.id}

    def send(self, *packets: str | bytes) -> None:
        parts = ["4" + one if isinstance(one, str) else "b" + b64encode(one).decode() for one in packets]
        assert self._port.post(self._query, "\x1e".join(parts).encode()) == 200

    def received(self) -> list[str | bytes]:
        """The packets since the last call. A request that has not been answered waits for the next call."""
        packets: list[str | bytes] = []
        while True:
            self._poll = self._poll or self._port.poll(self._query)
            self._port.wait(0)
            settle(self.server)
            self._port.wait(0)
            body = self._poll.body
            if body is None:
                return packets
            self._poll = None
            packets += [self._read(part) for part in body.decode().split("\x1e")]

    def _read(self, part: str) -> str | bytes:
        if part.startswith("b"):
            return b64decode(part[1:])
        assert part.startswith("4"), part
        return part[1:]


@pytest.fixture
def polling(server: FakeServer) -> ProtocolClient:
    return SocketIOCommands(server, PollingPeer(server))


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def other(request: pytest.FixtureRequest, server: FakeServer) -> ProtocolClient:
    client: ProtocolClient = request.param(server)
    return client


def event(publisher: ProtocolClient, offset: int, **payload: Any) -> Message:
    return {
        "type": "event",
        "channel": "kitchen",
        "offset": offset,
        "from": publisher.id,
        "name": "message",
        **payload,
    }


@pytest.mark.parametrize("publishes", [True, False], ids=["polling publishes", "polling reads"])
def test_delivers_payloads_unchanged(polling: ProtocolClient, other: ProtocolClient, publishes: bool) -> None:
    publisher, reader = (polling, other) if publishes else (other, polling)
    reader.request("subscribe", channel="kitchen")
    for offset, payload in enumerate(MIXED, 1):
        assert publisher.request("publish", channel="kitchen", **payload) == {"type": "ok", "offset": offset}
        assert reader.received() == [event(publisher, offset, **payload)]
    events = reader.request("history", channel="kitchen")["events"]
    assert events == [event(publisher, offset, **MIXED[offset - 1]) for offset in range(len(MIXED) - 4, len(MIXED) + 1)]


def test_events_stay_in_the_history_while_a_client_does_not_poll(
    server: FakeServer, polling: ProtocolClient, other: ProtocolClient
) -> None:
    """The request that waits is answered with the first event."""
    polling.request("subscribe", channel="kitchen")
    for number in range(1, 10):
        other.request("publish", channel="kitchen", data=str(number))
    lost = {"type": "lost", "channel": "kitchen", "first": 2, "last": 4}
    assert polling.received() == [
        event(other, 1, data="1"),
        lost,
        *[event(other, offset, data=str(offset)) for offset in range(5, 10)],
    ]


def test_commands_of_one_request_are_answered_in_order(polling: ProtocolClient, other: ProtocolClient) -> None:
    other.request("subscribe", channel="kitchen")
    polling.request("subscribe", channel="kitchen")
    polling.send_together(
        ("publish", {"channel": "kitchen", "data": "a"}),
        ("publish", {"channel": "kitchen", "base64": "AQ=="}),
        ("publish", {"channel": "a*", "data": "b"}),
        ("publish", {"channel": "kitchen", "data": [1]}),
    )
    messages = polling.received()
    replies = [message.get("code", message.get("offset")) for message in messages if message["type"] != "event"]
    events = [event(polling, 1, data="a"), event(polling, 2, base64="AQ=="), event(polling, 3, data=[1])]
    assert replies == [1, 2, "bad-channel", 3]
    assert [message for message in messages if message["type"] == "event"] == other.received() == events


def test_client_that_polls_resumes_where_it_was(
    server: FakeServer, polling: ProtocolClient, other: ProtocolClient
) -> None:
    epoch = polling.request("subscribe", channel="kitchen")["epoch"]
    for text in "abc":
        other.request("publish", channel="kitchen", data=text)
    again = SocketIOCommands(server, PollingPeer(server))
    assert again.request("subscribe", channel="kitchen", since=1, epoch=epoch)["recovered"] is True
    assert again.received() == [event(other, 2, data="b"), event(other, 3, data="c")]
