"""Clients that end their stream and still read receive their responses, with each protocol of the web port."""

import json

import pytest

from tests.behaviours.protocol_clients import settle
from tests.event_streams import read_events
from tests.fuzz.grammars import HANDSHAKE, frame
from tests.server.clients import CLOSE, PING, TEXT, split_frames
from twistedsock.codecs.sse import KEEP_ALIVE_COMMENT
from twistedsock.errors import CloseReason
from twistedsock.server.http.sse import FIRST_PROBE_SECONDS, PROBE_INTERVAL_SECONDS

HOST = b"Host: 127.0.0.1:8082\r\n"


def get(target, *headers):
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (target, HOST, b"".join(header + b"\r\n" for header in headers))


def publish(server, channel, *payloads):
    server.line_client().send(*[f"PUB {channel} {payload}" for payload in payloads])
    server.turn()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET / HT",
        b"POST /events HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nab",
        b"POST /events HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_discards_incomplete_request(web, sent):
    client = web()
    client.send_bytes(sent)
    client.half_close()
    assert client.transport.output() == b"" and client.transport.disconnecting


def test_closes_idle_connection(web):
    client = web()
    client.send_bytes(get(b"/healthz"))
    assert client.response()[0] == 200 and not client.transport.disconnecting
    client.half_close()
    assert client.transport.disconnecting


def test_closes_rejected_request_at_once(web):
    client = web()
    client.send_bytes(b"nonsense\r\n\r\n")
    assert client.transport.half_closed and not client.transport.disconnecting
    client.half_close()
    assert client.transport.disconnecting


@pytest.mark.parametrize("headers", [(), (b"Connection: close",)])
def test_sends_long_history_completely(web, server, headers):
    publish(server, "k", *["x" * 1000] * 200)
    client = web()
    client.send_bytes(get(b"/channels/k/events", *headers))
    client.half_close()
    server.turn()
    output = client.transport.output()
    assert output.endswith(b"\r\n0\r\n\r\n") and output.count(b'"type":"event"') == 200
    assert client.transport.disconnecting and not client.transport.aborted


def test_answers_long_poll(web, server):
    client = web()
    client.send_bytes(get(b"/channels/k/events?wait=9"))
    client.half_close()
    server.turn()
    assert client.transport.output() == b"" and not client.transport.disconnecting
    publish(server, "k", "hot")
    status, _, body = client.response()
    assert (status, json.loads(body)["events"][0]["data"]) == (200, "hot")
    assert client.transport.disconnecting


def test_answers_all_pipelined_requests(web, server):
    client = web()
    client.send_bytes(get(b"/channels/k/events?wait=9") + get(b"/healthz") + get(b"/readyz") + b"GET /half HT")
    client.half_close()
    publish(server, "k", "hot")
    assert client.transport.output().count(b"HTTP/1.1 200 OK") == 3
    assert client.transport.disconnecting


@pytest.mark.parametrize("target", [b"/channels/k/events", b"/events?channel=k&channel=l", b"/stream"])
def test_event_stream_continues(web, server, reactor, target):
    client = web()
    client.send_bytes(get(target, b"Accept: text/event-stream"))
    client.half_close()
    client.half_close()  # when reading resumes, the transport reports the end once more
    publish(server, "k", "hot")
    text = client.transport.output().partition(b"\r\n\r\n")[2].decode()
    if target != b"/stream":
        assert read_events(text)[0][-1].message["data"] == "hot"
    assert not client.transport.disconnecting


def test_event_stream_after_other_requests_continues(web, server, reactor):
    client = web()
    client.send_bytes(get(b"/channels/k/events?wait=9") + get(b"/channels/k/events", b"Accept: text/event-stream"))
    client.half_close()
    publish(server, "k", "hot")
    assert b"event: welcome" in client.transport.output()
    reactor.turn()
    assert client.transport.output() == KEEP_ALIVE_COMMENT
    publish(server, "k", "hotter")
    assert b"hotter" in client.transport.output()


def test_event_stream_probes_its_client(web, server, reactor):
    """If the client has exited, its machine answers the first comment with a reset, and the next write fails."""
    client = web()
    client.send_bytes(get(b"/channels/k/events", b"Accept: text/event-stream"))
    client.transport.output()
    client.half_close()
    assert client.transport.output() == KEEP_ALIVE_COMMENT
    for seconds in (FIRST_PROBE_SECONDS, PROBE_INTERVAL_SECONDS, PROBE_INTERVAL_SECONDS):
        reactor.advance(seconds - 0.1)
        assert client.transport.output() == b""
        reactor.advance(0.1)
        assert client.transport.output() == KEEP_ALIVE_COMMENT
    client.disconnect()
    reactor.advance(PROBE_INTERVAL_SECONDS)
    assert not reactor.getDelayedCalls() and len(server.context.sessions) == 0


def test_event_stream_after_the_half_close_has_one_probe(web, reactor):
    """The end is reported again when reading resumes."""
    client = web()
    client.send_bytes(get(b"/events?channel=k&wait=1") + get(b"/channels/k/events", b"Accept: text/event-stream"))
    client.half_close()
    reactor.advance(1)
    reactor.turn()
    client.half_close()
    reactor.turn()
    assert client.transport.output().endswith(b"}\n\n" + KEEP_ALIVE_COMMENT)
    reactor.advance(FIRST_PROBE_SECONDS)
    assert client.transport.output() == KEEP_ALIVE_COMMENT


def test_closes_ended_event_stream(web, server):
    client = web()
    client.send_bytes(get(b"/channels/k/events", b"Accept: text/event-stream"))
    [session] = server.context.sessions
    session.close(CloseReason.POLICY, b"enough")
    assert client.transport.half_closed and not client.transport.disconnecting
    client.half_close()
    assert client.transport.disconnecting


@pytest.mark.parametrize("target", [b"/ws", b"/ws?"], ids=["short handshake", "Autobahn"])
def test_websocket_answers_its_input_and_closes(web, server, target):
    client = web()
    sent = b"".join(frame(TEXT, b'{"type":"ping","id":%d}' % number) for number in range(3))
    client.send_bytes(HANDSHAKE.replace(b"/ws", target) + sent)
    client.half_close()
    settle(server)
    *messages, close = split_frames(client.transport.output().partition(b"\r\n\r\n")[2])
    assert [b'"pong"' in payload for _, payload in messages] == [False, True, True, True]
    assert close == (CLOSE, b"\x03\xe8")
    assert client.transport.disconnecting
    client.disconnect()
    assert len(server.context.sessions) == 0


def test_websocket_answers_unparsed_input(web, server, monkeypatch):
    """TLS delivers the end of the stream while the input waits."""
    client = web()
    client.send_bytes(HANDSHAKE)
    client.transport.output()
    # At each check of the clock, the time slice is over.
    monkeypatch.setattr(server, "clock", iter(range(1, 10**6)).__next__)
    pings = b"".join(frame(PING, b"x" * 100) for _ in range(15))  # Autobahn receives a few at a time
    client.send_bytes(pings + frame(TEXT, b'{"type":"ping"}'))
    client.half_close()
    assert not client.transport.disconnecting
    settle(server)
    output = client.transport.output()
    assert b'{"type":"pong"}' in output and output.endswith(b"\x88\x02\x03\xe8")
    assert client.transport.disconnecting


def test_closing_websocket_does_not_wait_for_a_close_frame(web, server):
    client = web()
    client.send_bytes(HANDSHAKE)
    [session] = server.context.sessions
    session.close(CloseReason.POLICY, b"enough")
    assert not client.transport.disconnecting
    client.half_close()
    assert client.transport.disconnecting


def test_closes_handshake_rejected_by_autobahn(web):
    client = web()
    client.send_bytes(HANDSHAKE.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 99"))
    client.half_close()
    assert client.transport.disconnecting
