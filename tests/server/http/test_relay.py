"""Requests that reach another node than the one that has their session, without sockets."""

import json
from collections import deque
from typing import Any

import msgspec
import pytest

from tests.conftest import Messages
from tests.fakes import FakeReactor
from tests.server.engineio_clients import NEW_WEBSOCKET, Echo, EnginePort, PendingPoll
from tests.server.http.clients import WebClient
from twistedsock.codecs.engineio import Packet, PacketType
from twistedsock.codecs.engineio_session import CloseCause
from twistedsock.errors import ErrorCode
from twistedsock.pubsub.backplane import MessageReceiver
from twistedsock.server.http import relay as relaying
from twistedsock.server.http.relay import MAX_PASSED_BYTES, MAX_SILENT_RENEWALS, RENEW_SECONDS, Relay
from twistedsock.testing import FakeServer

PING = {"type": "ping", "id": 7}

SUBSCRIBE = {"type": "subscribe", "id": 1, "channel": "k"}


class FakeNodes:
    """The end of one node. Messages arrive when ``Network.settle`` is called."""

    def __init__(self, network: "Network", name: bytes) -> None:
        self.node_name = name
        self.receiver: MessageReceiver | None = None
        self.is_connected = True
        self._network = network

    def send_to(self, node: bytes, content: bytes) -> bool:
        if self.is_connected:
            self._network.messages.append((self.node_name, node, content))
        return self.is_connected


class FakeNode:
    """A node with a web port, and an application for Engine.IO that returns every message."""

    def __init__(self, network: "Network", name: bytes, server: FakeServer) -> None:
        self.network = network
        self.server = server
        self.nodes = FakeNodes(network, name)
        self.relay = Relay(self.nodes, server.context.memory_budget, network.reactor.callLater, 1_000)
        self.echo = Echo()
        prefix = name.decode() + "-"
        self.engine = EnginePort(network.reactor, self.echo, server=server, prefix=prefix, relay=self.relay)
        self.web = self.engine.web

    def open_stream(self) -> tuple[WebClient, str]:
        """Open a session over HTTP. Returns its stream and its key."""
        client = self.web().open_stream("/stream")
        (welcome,) = client.received()
        return client, welcome.message["key"]

    def post(self, key: str, *commands: Any) -> WebClient:
        """Send commands, which are answered when the network is settled."""
        body = b"\n".join(json.dumps(command).encode() for command in commands)
        return self.web().request("/stream", "POST", body, Sockbridge_Stream=key)

    def status(self, key: str, *commands: Any) -> int:
        client = self.post(key, *commands)
        self.network.settle()
        return client.response()[0]

    def send(self, text: bytes) -> None:
        """Send a message to the only client of the application."""
        (connection,) = self.echo.connections
        connection.send(Packet(PacketType.MESSAGE, text))


class Network:
    """Two nodes, ``a`` and ``b``."""

    def __init__(self, reactor: FakeReactor, **limits: Any) -> None:
        self.reactor = reactor
        self.messages: deque[tuple[bytes, bytes, bytes]] = deque()
        self.a, self.b = (FakeNode(self, name, FakeServer(late=True, **limits)) for name in (b"a", b"b"))
        self.by_name = {b"a": self.a, b"b": self.b}

    def settle(self) -> None:
        """Deliver all messages, and run all turns."""
        while self.messages:
            sender, receiver, content = self.messages.popleft()
            nodes, node = self.by_name[sender].nodes, self.by_name.get(receiver)
            if node is not None and node.nodes.is_connected:
                assert node.nodes.receiver is not None
                node.nodes.receiver.received(sender, content)
            elif nodes.receiver is not None:
                nodes.receiver.unreachable(receiver)
            for each in self.by_name.values():
                each.server.turn()

    def pass_time(self, renewals: int) -> None:
        for _ in range(renewals):
            self.reactor.advance(RENEW_SECONDS)
            self.settle()

    def lose_messages(self) -> None:
        """As when the connections of nodes end."""
        self.messages.clear()

    def kill(self, node: FakeNode) -> None:
        """From now on, no message reaches the node or leaves it."""
        node.nodes.is_connected = False
        del self.by_name[node.nodes.node_name]


@pytest.fixture
def network(autobahn_reactor: FakeReactor) -> Network:
    return Network(autobahn_reactor)


# Sessions over HTTP.


def test_commands_reach_the_session_through_another_node(network: Network) -> None:
    stream, key = network.a.open_stream()
    assert key.startswith("a-") and len(key) >= 26
    assert network.b.status(key, PING) == 204
    assert network.a.status(key, {**PING, "id": 8}) == 204
    assert [event.message["id"] for event in stream.received()] == [7, 8]


def test_errors_of_requests_are_relayed(network: Network) -> None:
    _, key = network.a.open_stream()
    client = network.b.web().request("/stream", "POST", b"\xff", Sockbridge_Stream=key, Content_Type="text/plain")
    network.settle()
    status, headers, body = client.response()
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(body)["code"] == "not-utf8"
    assert network.b.server.context.stats.errors[ErrorCode.NOT_UTF8] == 1


@pytest.mark.parametrize(
    "key", ["", "unknown", "a-unknown", "b-unknown", "A-unknown", "a-", "a-\u00e9", "a-" + "x" * 65]
)
def test_unknown_keys_are_not_found(network: Network, key: str) -> None:
    assert network.b.status(key, PING) == 404


def test_only_keys_that_another_node_can_have_cause_messages(network: Network) -> None:
    for key in ("unknown", "b-unknown", "ab-unknown", "A-unknown", "a-", "a-" + "x" * 65):
        network.b.post(key, PING)
    assert not network.messages


def test_requests_wait_like_those_of_the_node_itself(network: Network) -> None:
    stream, key = network.a.open_stream()
    first, second, third = (network.b.post(key, command) for command in (SUBSCRIBE, PING, PING))
    network.settle()
    network.pass_time(2 * MAX_SILENT_RENEWALS)
    assert third.response()[0] == 503 and not first.transport.value()
    second.disconnect()
    network.settle()
    network.a.server.backplane.release()
    network.settle()
    network.a.server.turn()
    network.settle()
    assert first.response()[0] == 204
    assert [event.message["id"] for event in stream.received()] == [1]


def test_end_of_the_session_rejects_requests_that_wait(network: Network) -> None:
    stream, key = network.a.open_stream()
    client = network.b.post(key, SUBSCRIBE)
    network.settle()
    stream.disconnect()
    network.settle()
    assert client.response()[0] == 404
    assert network.a.server.context.memory_budget.used == 0


# Owners that do not answer.


def test_owner_that_is_not_there_is_unavailable(network: Network) -> None:
    status, _, body = _response(network, network.b.post("c-unknown", PING))
    assert (status, json.loads(body)["code"]) == (503, "unavailable")


def test_node_without_connection_answers_at_once(network: Network) -> None:
    _, key = network.a.open_stream()
    network.b.nodes.is_connected = False
    assert network.b.post(key, PING).response()[0] == 503


def test_owner_that_hangs_is_unavailable_after_some_renewals(network: Network) -> None:
    _, key = network.a.open_stream()
    client = network.b.post(key, SUBSCRIBE)
    network.settle()
    for _ in range(MAX_SILENT_RENEWALS):
        network.reactor.advance(RENEW_SECONDS)
        network.lose_messages()
        assert not client.transport.value()
    network.reactor.advance(RENEW_SECONDS)
    assert client.response()[0] == 503


def test_request_that_was_lost_is_unavailable(network: Network) -> None:
    _, key = network.a.open_stream()
    client = network.b.post(key, PING)
    network.lose_messages()
    network.pass_time(1)
    assert client.response()[0] == 503


def test_short_absence_of_the_owner_does_not_end_an_older_request(network: Network) -> None:
    _, key = network.a.open_stream()
    client = network.b.post(key, SUBSCRIBE)
    network.settle()
    network.pass_time(1)
    network.a.nodes.is_connected = False
    network.pass_time(2)
    network.a.nodes.is_connected = True
    network.pass_time(1)
    network.a.server.backplane.release()
    network.a.server.turn()
    assert _response(network, client)[0] == 204


def test_answer_that_was_lost_is_sent_again(network: Network) -> None:
    stream, key = network.a.open_stream()
    client = network.b.post(key, PING)
    network.by_name[b"a"].nodes.receiver.received(b"b", network.messages.popleft()[2])  # type: ignore[union-attr]
    network.lose_messages()
    network.pass_time(1)
    assert not client.transport.value()  # the answer may have been on its way
    network.pass_time(1)
    assert client.response()[0] == 204
    assert [event.message["id"] for event in stream.received()] == [7]


def test_unknown_messages_are_errors(network: Network) -> None:
    with pytest.raises(msgspec.MsgspecError):
        network.a.relay.received(b"b", b"\x93\xcc\xff")


def test_handlers_that_fail_are_logged_and_answered(network: Network, messages: Messages) -> None:
    _, key = network.a.open_stream()

    def fail(request: object) -> None:
        raise ZeroDivisionError

    network.a.relay.handlers[b"/stream"] = fail
    assert network.b.status(key, PING) == 500
    assert len(messages()) == 1
    network.a.relay.handlers.clear()
    assert network.b.status(key, PING) == 503


# Limits.


def test_limits_the_requests_that_wait_by_client(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "REQUEST_BYTES", MAX_PASSED_BYTES // 50)

    def start(there: str) -> WebClient:
        return network.b.web(there=there).request("/stream", "POST", b"{}", Sockbridge_Stream="a-unknown")

    waiting: list[WebClient] = []
    while not (client := start("192.0.2.1")).transport.value():
        waiting.append(client)
    assert 45 < len(waiting) < 60
    assert json.loads(client.response()[2])["code"] == "unavailable"
    waiting.append(start("192.0.2.2"))
    network.settle()
    assert {client.response()[0] for client in waiting} == {404}
    assert _response(network, start("192.0.2.1"))[0] == 404


def test_long_answers_wait_for_those_before(network: Network) -> None:
    sessions = [network.a.engine.open() for _ in range(3)]
    polls = [network.b.engine.poll(session) for session in sessions]
    network.settle()
    for connection in network.a.echo.connections:
        connection.send(Packet(PacketType.MESSAGE, b"x" * 700_000))
    assert len(network.messages) == 1
    network.settle()
    assert [len(poll.body or b"") for poll in polls] == [700_001] * 3


def test_answer_that_is_too_long_ends_the_session(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "MAX_ANSWER_BYTES", 1_000)
    poll = network.b.engine.poll(network.a.engine.open())
    network.settle()
    network.a.send(b"x" * 1_000)
    network.settle()
    assert poll.response is not None and poll.response.error == (503, "unavailable")
    assert network.a.echo.causes == [CloseCause.TRANSPORT]


def test_answers_are_in_the_memory_budget(network: Network) -> None:
    session = network.a.engine.open()
    network.b.engine.poll(session)
    network.settle()
    network.a.send(b"x" * 700_000)
    assert network.a.server.context.memory_budget.used == 700_001
    network.settle()
    assert network.a.server.context.memory_budget.used == 0


# Engine.IO.


def test_session_that_polls_uses_both_nodes(network: Network) -> None:
    session = network.a.engine.open()
    assert "sid=a-s1" in session
    poll, post = network.b.engine.poll(session), network.b.engine.start(session, "POST", b"4hello")
    network.settle()
    assert (poll.body, post.body) == (b"4hello", b"ok")
    poll, post = network.a.engine.poll(session), network.b.engine.start(session, "POST", b"4again")
    network.settle()
    assert (poll.body, post.body) == (b"4again", b"ok")


def test_errors_of_sessions_have_the_form_of_the_protocol(network: Network) -> None:
    for sid in ("a-unknown", "b-unknown", "unknown"):
        poll = network.b.engine.poll(f"?EIO=4&transport=polling&sid={sid}")
        network.settle()
        assert poll.response is not None and poll.response.status == 400
        assert poll.response.json == {"code": 1, "message": "Session ID unknown"}
    session = network.a.engine.open()
    post = network.b.engine.start(session, "POST", b"9")
    network.settle()
    assert post.response is not None and post.response.json["code"] == 3
    assert network.a.echo.causes == [CloseCause.INVALID]


def test_polls_are_held_while_both_nodes_live(network: Network) -> None:
    session = network.a.engine.open()
    poll = network.b.engine.poll(session)
    network.settle()
    network.pass_time(2 * MAX_SILENT_RENEWALS)
    network.a.send(b"late")
    network.settle()
    assert poll.body == b"4late"


def test_client_that_disconnects_ends_its_session(network: Network) -> None:
    session = network.a.engine.open()
    poll = network.b.engine.poll(session)
    network.settle()
    poll.client.disconnect()
    network.settle()
    assert network.a.echo.causes == [CloseCause.TRANSPORT]


def test_session_ends_with_the_packets_that_a_client_did_not_wait_for(network: Network) -> None:
    session = network.a.engine.open()
    poll = network.b.engine.poll(session)
    network.settle()
    network.a.send(b"lost")
    poll.client.disconnect()
    network.settle()
    assert network.a.echo.causes == [CloseCause.TRANSPORT]


@pytest.mark.parametrize("is_answered", [False, True])
def test_session_ends_with_the_node_that_relays_its_poll(network: Network, is_answered: bool) -> None:
    session = network.a.engine.open()
    network.b.engine.poll(session)
    network.settle()
    network.kill(network.b)
    if is_answered:
        network.a.send(b"lost")
    network.pass_time(MAX_SILENT_RENEWALS)
    assert network.a.echo.causes == []
    network.pass_time(1)
    assert network.a.echo.causes == [CloseCause.TRANSPORT]


def test_session_continues_if_only_the_confirmation_was_lost(network: Network) -> None:
    session = network.a.engine.open()
    poll = network.b.engine.poll(session)
    network.settle()
    network.a.send(b"one")
    network.by_name[b"b"].relay.received(b"a", network.messages.popleft()[2])
    network.lose_messages()
    assert poll.body == b"4one"
    next_poll = network.b.engine.poll(session)
    network.pass_time(MAX_SILENT_RENEWALS + 1)
    network.a.send(b"two")
    network.settle()
    assert next_poll.body == b"4two" and network.a.echo.causes == []


def test_client_polls_again_when_the_relaying_node_shuts_down(network: Network) -> None:
    session = network.a.engine.open()
    poll, command = network.b.engine.poll(session), network.b.post(network.a.open_stream()[1], SUBSCRIBE)
    network.settle()
    network.b.web.factory.site.shut_down(lambda: None)
    network.b.server.turn()
    network.settle()
    assert poll.body == b"6" and not command.transport.value()
    assert network.a.echo.causes == []


def test_owner_that_shuts_down_closes_the_session(network: Network) -> None:
    session = network.a.engine.open()
    poll = network.b.engine.poll(session)
    network.settle()
    network.a.engine.endpoint.close_all()
    network.a.server.turn()
    network.settle()
    assert poll.body == b"1"


def test_body_that_is_too_long_ends_the_session(network: Network) -> None:
    session = network.a.engine.open()
    assert network.b.engine.request(session, "POST", Content_Length="1000001").status == 413
    network.settle()
    assert network.a.echo.causes == [CloseCause.TRANSPORT]


def test_websocket_that_reaches_another_node_leaves_the_session_polling(network: Network) -> None:
    session = network.a.engine.open()
    socket = network.b.engine.websocket(session.replace("polling", "websocket"))
    assert socket.close_code() == 1008
    poll = network.b.engine.poll(session)
    network.settle()
    network.a.send(b"hello")
    network.settle()
    assert poll.body == b"4hello"
    assert network.b.engine.websocket(NEW_WEBSOCKET).status == 101


def test_charges_clients_where_they_are_connected(autobahn_reactor: FakeReactor) -> None:
    network = Network(autobahn_reactor, commands_per_second=1, commands_burst=20)
    session = network.a.engine.open()

    def poll() -> PendingPoll:
        return network.b.engine.start(session, there="192.0.2.7")

    waiting = poll()
    network.settle()
    network.a.send(b"x" * 900_000)
    network.settle()
    assert waiting.response is not None and waiting.response.status == 200
    refused = poll()
    assert refused.response is not None and refused.response.status == 429


def _response(network: Network, client: WebClient) -> tuple[int, dict[str, str], bytes]:
    network.settle()
    return client.response()
