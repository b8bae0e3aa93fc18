"""Tokens in WebSocket handshakes, and how invalid ones are rejected."""

import json

import pytest
import txaio
from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.authority import Authority
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.web import WebFactory
from twistedsock.testing import FakePolicy, FakeServer, read_frames

POLICY = FakePolicy({"lobby": "r"}, {"good": ("ann", {"kitchen": "rw"}, None)})
PLAIN, THROUGH_AUTOBAHN = "", "X-Odd: \x80\r\n"
"""A header that is not ASCII is no part of a plain handshake."""


@pytest.fixture
def visit(reactor, wire, monkeypatch):
    """Open a WebSocket: ``visit(target, headers, policy)`` gives the status, the rest of the head, and the messages."""
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)

    def open_websocket(target="/ws", headers="", policy=POLICY, endpoint="tcp:8082", certificate=None):
        server = FakeServer(policy=policy)
        gate = OriginPolicy(AllowedOrigins())
        factory = WebFactory(server.context, reactor, gate, 0, 0, 3, list, ListenerConfig(endpoint))
        protocol, transport = factory.buildProtocol(None), wire("127.0.0.1", 8082, "127.0.0.1")
        transport.getPeerCertificate = lambda: certificate
        protocol.makeConnection(transport)
        protocol.dataReceived(
            (
                f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:8082\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
            ).encode("latin-1")
        )
        head, _, frames = transport.output().partition(b"\r\n\r\n")
        closing = b""
        if b"\x88" in frames:  # the close frame is last
            frames, closing = frames[: frames.rindex(b"\x88")], frames[frames.rindex(b"\x88") :]
        messages = [json.loads(text) for text in read_frames(frames)] if b" 101 " in head else []
        nicks = [guest.client.nick for guest in server.context.sessions]
        protocol.connectionLost(Failure(ConnectionDone()))
        return head.decode("latin-1"), messages, int.from_bytes(closing[2:4], "big"), nicks

    return open_websocket


@pytest.mark.parametrize("way", [PLAIN, THROUGH_AUTOBAHN])
@pytest.mark.parametrize(
    "target, header",
    [
        ("/ws?token=good", ""),
        ("/?token=good", ""),
        ("/ws", "Authorization: Bearer good\r\n"),
        ("/ws", "Cookie: bridge-token=good\r\n"),
    ],
)
def test_valid_token_authenticates_the_session(visit, way, target, header):
    head, messages, closing, nicks = visit(target, header + way)
    assert " 101 " in head
    assert [message["type"] for message in messages] == ["welcome"]
    assert (closing, nicks) == (0, [b"ann"])


@pytest.mark.parametrize("way", [PLAIN, THROUGH_AUTOBAHN])
def test_rejects_invalid_token_in_a_header_with_401(visit, way):
    head, messages, _, nicks = visit("/ws", "Authorization: Bearer bad\r\n" + way)
    assert head.startswith("HTTP/1.1 401 Unauthorized")
    assert 'WWW-Authenticate: Bearer error="invalid_token"' in head
    assert (messages, nicks) == ([], [])


@pytest.mark.parametrize("way", [PLAIN, THROUGH_AUTOBAHN])
@pytest.mark.parametrize("target, header", [("/ws?token=bad", ""), ("/ws", "Cookie: bridge-token=bad\r\n")])
def test_reports_invalid_token_of_a_page_in_the_connection(visit, way, target, header):
    head, messages, closing, _ = visit(target, header + way)
    assert " 101 " in head
    assert [message["type"] for message in messages] == ["welcome", "error"]
    assert messages[1]["code"] == "unauthorized"
    assert closing == 1008


@pytest.mark.parametrize("way", [PLAIN, THROUGH_AUTOBAHN])
@pytest.mark.parametrize("target, header", [("/ws?token=bad", ""), ("/ws", "Authorization: Bearer bad\r\n")])
def test_ignores_tokens_without_a_policy(visit, way, target, header):
    head, messages, closing, _ = visit(target, header + way, None)
    assert " 101 " in head and len(messages) == 1 and closing == 0


def test_cookie_does_not_allow_a_foreign_origin(visit):
    head, _, _, _ = visit("/ws", "Cookie: bridge-token=good\r\nOrigin: https://evil.example\r\n")
    assert " 403 " in head


@pytest.mark.parametrize("way", [PLAIN, THROUGH_AUTOBAHN])
@pytest.mark.parametrize(
    "endpoint, shown, target, nick",
    [
        ("ssl:8082", True, "/ws", b"meter"),
        ("ssl:8082", True, "/ws?token=good", b"ann"),
        ("ssl:8082", False, "/ws", None),
        ("tcp:8082", True, "/ws", None),
    ],
)
def test_token_takes_precedence_over_a_certificate(visit, tmp_path, way, endpoint, shown, target, nick):
    Authority(tmp_path).issue("meter", "meter")
    certificate = load_certificate(FILETYPE_PEM, (tmp_path / "meter.pem").read_bytes()) if shown else None
    head, _, _, nicks = visit(target, way, endpoint=endpoint, certificate=certificate)
    assert " 101 " in head
    assert nicks == [nick or b"p1"]


def test_policy_change_during_a_handshake_applies(reactor, wire, monkeypatch):
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)
    server = FakeServer(policy=POLICY)
    ticks = iter(range(1_000_000))
    server.clock = lambda: float(next(ticks))  # each part takes a whole time slice
    factory = WebFactory(
        server.context, reactor, OriginPolicy(AllowedOrigins()), 0, 0, 3, list, ListenerConfig("tcp:8082")
    )
    protocol, transport = factory.buildProtocol(None), wire("127.0.0.1", 8082, "127.0.0.1")
    protocol.makeConnection(transport)
    protocol.dataReceived(
        (
            "GET /ws?token=good HTTP/1.1\r\nHost: 127.0.0.1:8082\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"X-Long: {'x' * 500}\r\n{THROUGH_AUTOBAHN}\r\n"
        ).encode("latin-1")
    )
    assert transport.output() == b""
    server.context.change_policy(FakePolicy({"lobby": "r"}))
    server.turn()
    head, _, frames = transport.output().partition(b"\r\n\r\n")
    assert b" 101 " in head
    assert b"that token is not known" in frames
    assert [guest.client.nick for guest in server.context.sessions] == [b"p1"]
    protocol.connectionLost(Failure(ConnectionDone()))
