"""The line protocol from the first byte of a connection to the end of both streams."""

import json

import pytest
from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.logger import formatEvent

from tests.authority import Authority
from twistedsock.errors import CloseReason, ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakePolicy, FakeServer

HANDSHAKE_TIMEOUT = Limits().handshake_timeout

IAC_IP, IAC_AYT, DO_TIMING_MARK = b"\xff\xf4", b"\xff\xf6", b"\xff\xfd\x06"


def split_calls(lines, data):
    """Connections that sent this, in one write or split at one byte. Each is lost before the next one."""
    for cut in range(len(data) + 1):
        call = lines()
        call.received()
        call.send_bytes(data[:cut])
        call.send_bytes(data[cut:])
        yield call
        call.disconnect()


def test_answers_commands_in_order(call):
    call.send("NICK ann", "SUB kitchen", "PUB kitchen 21.5", "nonsense", "PING x")
    lines = call.received()
    assert lines[:3] == ["OK ann", "OK kitchen offset=0 epoch=e1", "OK 1"]
    assert lines[3].startswith("ERR unknown-command ")
    assert lines[4:] == ["PONG x", "MSG kitchen 1 ann 21.5"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_can_be_split_at_any_byte(lines, end):
    pipeline = end.join([b"SUB kitchen", b"PUB kitchen caf\xc3\xa9", b"PING", b""])
    answers = []
    for call in split_calls(lines, pipeline):
        answers.append([line.split(" ")[0] for line in call.received()])
        assert sorted(answers[-1]) == ["MSG", "OK", "OK", "PONG"]


def test_incomplete_line_waits_for_its_end(call):
    call.send_bytes(b"PI")
    call.send_bytes(b"NG a")
    assert call.received() == []
    call.send_bytes(b"ll\n")
    assert call.received() == ["PONG all"]


def test_skips_line_over_the_limit(call):
    call.send_bytes(b"PUB kitchen " + b"x" * 70_000)
    call.send_bytes(b"xxx\nPING\n")
    error, pong = call.received()
    assert error.startswith("ERR too-long ")
    assert pong == "PONG"


def test_quit_sends_bye_and_ends_the_stream(call):
    call.send("QUIT", "PING")
    assert call.received() == ["BYE"]
    assert call.transport.half_closed
    call.send("PING")
    assert call.received() == []
    call.half_close()
    assert call.transport.disconnecting


def test_control_d_quits_without_a_line_end(call):
    call.send_bytes(b"\x04")
    assert call.received() == ["BYE"]


def test_answers_all_commands_after_a_half_close(call):
    assert IHalfCloseableProtocol.providedBy(call.protocol)
    call.send_bytes(b"PUB kitchen 21.5\nPING\nPUB kitchen not run")
    call.half_close()
    assert call.received() == ["OK 1", "PONG", "BYE"]
    assert call.transport.half_closed
    call.half_close()
    assert call.transport.disconnecting
    call.disconnect()
    assert len(call.server.context.sessions) == 0


def test_half_close_waits_for_late_replies(make_lines):
    server = FakeServer(late=True)
    call = make_lines(server)()
    call.received()
    call.send("PUB kitchen 21.5")
    call.half_close()
    assert call.received() == []
    server.backplane.release()
    server.turn()
    assert call.received() == ["OK 1", "BYE"]


def test_aborts_connection_that_stays_open_after_bye(call, reactor):
    call.send("QUIT")
    reactor.advance(LINGER_SECONDS)
    assert call.transport.aborted


def test_lost_connection_releases_everything(call, reactor):
    call.send("SUB kitchen", "QUIT")
    call.disconnect()
    assert len(call.server.context.sessions) == call.server.context.connection_limiter.connections == 0
    assert call.server.broker.local_members(b"kitchen") == []
    assert not reactor.getDelayedCalls()
    call.disconnect()
    assert call.server.context.connection_limiter.connections == 0


@pytest.mark.parametrize("method", ["GET", "POST", "QUARREL"])
def test_http_request_is_rejected_and_not_run(call, method):
    listener = call.server.line_client()
    listener.send("SUB kitchen")
    listener.received()
    call.send_bytes(
        f"{method} /PUB HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nPUB kitchen one\r\n\r\nPUB kitchen two\r\n".encode()
    )
    call.send_bytes(b"PUB kitchen three\n")
    head, _, body = call.transport.output().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"http://127.0.0.1:8082/" in body
    assert call.transport.half_closed
    assert listener.received() == []


def test_recognizes_http_request_at_any_split(lines, server):
    request = b"GET / HTTP/1.1\r\nPUB kitchen one\r\n\r\nPUB kitchen two\r\n"
    for call in split_calls(lines, request):
        assert call.transport.output().startswith(b"HTTP/1.1 400 ")
    assert server.broker.channels == {}


@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["at once", "after a blank line"])
@pytest.mark.parametrize("cut", [3, 100, 70_000])
def test_http_request_with_a_long_path_runs_nothing(call, cut, before):
    """A page can request a path that is longer than the line limit, and put commands into the body."""
    request = b"POST /" + b"x" * 80_000 + b" HTTP/1.1\r\n\r\nPUB kitchen one\n"
    call.send_bytes(before)
    call.send_bytes(request[:cut])
    call.send_bytes(request[cut:])
    assert call.transport.output().startswith(b"HTTP/1.1 400 ")
    assert call.server.broker.channels == {}


def test_http_request_with_a_long_method_runs_nothing(call):
    call.send_bytes(b"x" * 70_000)
    assert call.received()[0].startswith("ERR too-long ")
    call.send_bytes(b" /kitchen HTTP/1.1\r\nPUB kitchen one\n")
    assert call.transport.output().startswith(b"HTTP/1.1 400 ")
    assert call.server.broker.channels == {}


def test_first_line_over_the_memory_budget_runs_nothing(make_lines):
    server = FakeServer(max_buffered_bytes=10_000)
    call = make_lines(server)()
    call.received()
    call.send_bytes(b"QUARREL /" + b"x" * 20_000)
    call.send_bytes(b" HTTP/1.1\r\nPUB kitchen one\n")
    assert call.transport.output().startswith(b"HTTP/1.1 400 ")
    assert server.broker.channels == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 32 + b"\x20\nPUB kitchen one\n", "use TLS"),
        (b"\r\n\x16\x03\x01\nPUB kitchen one\n", "use TLS"),
        (b"\x80\x2e\x01\x00\x02\nPUB kitchen one\n", "UTF-8"),
        (b"\x00\x03\x00\x5c\x21\x12\xa4\x42\nPUB kitchen one\n", "UTF-8"),
        (b"PUB kitchen a\0b\nPUB kitchen one\n", "UTF-8"),
        (b"PUB kitchen caf\xe9\nPUB kitchen one\n", "UTF-8"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\nPUB kitchen one\n", "UTF-8"),
    ],
    ids=["TLS", "TLS behind an empty line", "SSL 2", "STUN", "NUL", "Latin-1", "PROXY header of version 2"],
)
def test_closes_other_protocols_and_runs_nothing(lines, server, data, words):
    for call in split_calls(lines, data):
        call.send("PUB kitchen two")
        notice, bye = call.received()
        assert notice.startswith("NOTICE ") and words in notice and bye == "BYE"
        assert call.transport.half_closed
    assert server.broker.channels == {}


def test_recognizes_tls_at_its_first_byte(call):
    call.send_bytes(b"\x16")
    assert call.received() == ["NOTICE this port does not use TLS: connect without TLS and send lines of text", "BYE"]


def test_after_the_first_line_nul_is_payload_and_latin_1_is_an_error(call):
    call.send_bytes(b"SUB kitchen\nPUB kitchen a\0b\nPUB kitchen caf\xe9\n\x16\x03\x01\nPING\n")
    subscribed, ok, latin, tls, pong, event = call.received()
    assert subscribed.startswith("OK kitchen") and ok == "OK 1" and pong == "PONG"
    assert latin.startswith("ERR not-utf8 ") and tls.startswith("ERR unknown-command ")
    assert event == 'MSG kitchen 1 p1 "a\\u0000b"'


@pytest.mark.parametrize(
    "payload", ["we now speak HTTP/3", "HTTP/3", "HTTP/1.1", "GET / HTTP/1.1", "a HTTP/1.1 b", "HTTP/1.1\nPUB news x"]
)
def test_first_line_can_publish_text_that_looks_like_http(lines, payload):
    data = f"PUB news {payload}\n".encode()
    for call in split_calls(lines, data):
        assert all(line.startswith("OK ") for line in call.received())


def test_http_method_that_is_a_command_runs_nothing(call):
    """With DNS rebinding, a page can choose any method."""
    call.send_bytes(b"PUB /kitchen HTTP/1.1\r\nHost: a.example\r\n\r\nPUB kitchen one\n")
    assert call.transport.output().startswith(b"HTTP/1.1 400 ")
    assert call.server.broker.channels == {}


def test_ignores_byte_order_mark_before_the_first_line(lines):
    data = b"\xef\xbb\xbfPING 1\n\xef\xbb\xbfPING 2\n"
    for call in split_calls(lines, data):
        pong, error = call.received()
        assert pong == "PONG 1" and error.startswith("ERR unknown-command ")


def test_cr_nul_ends_a_line_at_any_split(lines):
    data = b"PING 1\r\0PUB kitchen a\0b\r\0" + b"PING 2" + DO_TIMING_MARK + b"\r\0PING 3\n"
    for call in split_calls(lines, data):
        words = call.transport.output().replace(b"\xff\xfc\x06", b"").decode().split()
        assert [word for word in words if word != "OK"][:2] == ["PONG", "1"]
        assert words[-4:] == ["PONG", "2", "PONG", "3"]


@pytest.mark.parametrize("size", [65_537, 70_000, 140_000])
def test_cr_nul_ends_a_skipped_line_at_any_split(call, size):
    call.send_bytes(b"PUB kitchen ".ljust(size // 2, b"x"))
    call.send_bytes(b"x" * (size - size // 2) + b"\r")
    call.send_bytes(b"\0PING\r\0")
    error, pong = call.received()
    assert error.startswith("ERR too-long ")
    assert pong == "PONG"


def test_later_line_that_looks_like_http_is_a_command(call):
    call.send("PING", "GET / HTTP/1.1")
    pong, error = call.received()
    assert pong == "PONG"
    assert error.startswith("ERR unknown-command ")


def test_tells_browser_that_there_is_no_web_port(make_lines, server):
    call = make_lines(server, web_address="")()
    call.received()
    call.send_bytes(b"GET / HTTP/1.1\r\n")
    assert b"no web port" in call.transport.output()


def test_refuses_telnet_options_and_removes_them(call):
    call.send_bytes(b"PUB kit\xff\xfb\x18chen a\xff\xfd\x01b\n")
    assert call.transport.output() == b"\xff\xfe\x18\xff\xfc\x01OK 1\n"
    call.send("HIST kitchen")
    assert call.received()[0] == "MSG kitchen 1 p1 ab"


@pytest.mark.parametrize("keys", [IAC_IP, IAC_AYT, IAC_IP * 3])
def test_interrupt_explains_quit_once(call, keys):
    call.send_bytes(keys)
    assert call.received() == ["NOTICE type QUIT to leave"]
    call.send("PING")
    assert call.received() == ["PONG"]


def test_sends_timing_mark_before_the_notice(call):
    """telnet discards what comes before the mark."""
    call.send_bytes(IAC_IP + DO_TIMING_MARK)
    assert call.transport.output() == b"\xff\xfc\x06NOTICE type QUIT to leave\n"


def test_telnet_sequences_can_be_split_at_any_byte(lines):
    data = b"PING a" + DO_TIMING_MARK + b"b\nPING \xff\xff\n"
    for call in split_calls(lines, data):
        assert call.transport.output().startswith(b"\xff\xfc\x06PONG ab\nERR not-utf8 ")


def test_telnet_options_after_quit_do_not_pause_reading(call):
    """The stream of a client that leaves must be read to its end."""
    call.transport.producer.pauseProducing()
    call.send_bytes(b"QUIT\n\xff\xfd\x01")
    assert call.transport.is_reading


def test_rejects_connection_over_the_limit(make_lines):
    server = FakeServer(max_connections=1)
    lines = make_lines(server)
    first, second = lines(), lines()
    assert second.received() == ["ERR limit too many connections to this server: try again later"]
    assert second.transport.half_closed
    second.send("PUB kitchen 21.5")
    assert second.received() == []
    assert server.context.stats.errors == {ErrorCode.LIMIT: 1}
    assert server.context.stats.received == 0
    first.send("PING")
    assert server.context.stats.received == len("PING\n")
    second.half_close()
    assert second.transport.disconnecting
    second.disconnect()
    assert server.context.connection_limiter.connections == 1
    first.disconnect()
    assert server.context.connection_limiter.connections == 0


def test_rejects_connections_over_the_limit_of_an_address(make_lines):
    lines = make_lines(FakeServer(max_connections_per_address=1))
    lines(there="192.0.2.1")
    refused = lines(there="192.0.2.1")
    assert refused.received() == ["ERR limit too many connections from this address: try again later"]
    assert lines(there="192.0.2.2").received()[0].startswith("WELCOME ")


def test_pauses_reading_while_replies_wait(call):
    call.transport.producer.pauseProducing()  # as with a full socket
    call.send("PING 1", "PING 2")
    assert not call.transport.is_reading
    assert call.received() == ["PONG 1", "PONG 2"]
    call.send("PING 3")
    assert call.received() == []
    call.transport.producer.resumeProducing()
    call.protocol.factory.reactor.turn()
    assert call.received() == ["PONG 3"]
    assert call.transport.is_reading


def test_pauses_reading_while_telnet_answers_wait(call):
    call.transport.producer.pauseProducing()
    call.send_bytes(DO_TIMING_MARK)
    assert not call.transport.is_reading
    call.transport.producer.resumeProducing()
    call.protocol.factory.reactor.turn()
    assert call.transport.is_reading
    call.transport.output()
    call.send("PING")
    assert call.received() == ["PONG"]


def test_can_close_session_whose_client_does_not_read(call):
    call.transport.producer.pauseProducing()
    call.send("PING 1")
    assert not call.transport.is_reading
    (session,) = call.server.context.sessions
    session.close(CloseReason.GOING_AWAY, b"enough")
    assert call.received() == ["PONG 1", "NOTICE enough", "BYE"]
    assert call.transport.producer is None
    assert (call.transport.half_closed, call.transport.is_reading) == (True, True)


def test_exception_is_logged_and_the_connection_continues(call, logged, monkeypatch):
    def explode(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(call.server.broker, "members", explode)
    call.send("WHO kitchen", "PING")
    error, pong = call.received()
    assert error.startswith("ERR internal ")
    assert pong == "PONG"
    (event,) = [event for event in logged if "log_failure" in event]
    logged.remove(event)
    assert formatEvent(event) == "internal error while a command was processed"


def test_factory_logs_nothing(lines, logged):
    factory = lines.factory
    factory.doStart()
    factory.doStop()
    assert logged == []
    assert factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)).factory is factory


class TestWithTLS:
    """A connection with TLS. Here its handshake is only reported."""

    @pytest.fixture
    def lines(self, make_lines, server):
        return make_lines(server, ListenerConfig("ssl:8081"))

    def test_welcome_waits_for_the_handshake(self, lines, server):
        call = lines()
        assert IHandshakeListener.providedBy(call.protocol)
        assert call.received() == []
        assert (len(server.context.sessions), server.context.connection_limiter.connections) == (0, 1)
        call.protocol.handshakeCompleted()
        assert call.received()[0].startswith("WELCOME sockbridge/1 id=p1 ")
        call.send("PING")
        assert call.received() == ["PONG"]
        call.disconnect()
        assert (len(server.context.sessions), server.context.connection_limiter.connections) == (0, 0)

    @pytest.mark.parametrize("known", [True, False])
    def test_certificate_authenticates_the_session(self, lines, server, tmp_path, known):
        server.context.policy = FakePolicy() if known else None
        Authority(tmp_path).issue("meter", "meter")
        call = lines()
        certificate = load_certificate(FILETYPE_PEM, (tmp_path / "meter.pem").read_bytes())
        call.transport.getPeerCertificate = lambda: certificate
        call.protocol.handshakeCompleted()
        call.send("NICK meter", "INFO")
        assert " nick=meter " in call.received()[-1]
        assert [session.client.nick for session in server.context.sessions] == [b"meter"]
        call.send("NICK another")
        assert call.received() == ["OK ~another" if known else "OK another"]

    def test_handshake_times_out(self, lines, reactor, server):
        late, ready = lines(), lines()
        reactor.advance(5)
        ready.protocol.handshakeCompleted()
        reactor.advance(HANDSHAKE_TIMEOUT - 5)
        assert (late.transport.aborted, ready.transport.aborted) == (True, False)
        late.disconnect()
        assert server.context.connection_limiter.connections == 1
        reactor.advance(HANDSHAKE_TIMEOUT)
        assert not ready.transport.aborted

    def test_connection_lost_during_the_handshake_is_released(self, lines, reactor, server):
        call = lines()
        call.disconnect()
        reactor.advance(HANDSHAKE_TIMEOUT)
        assert not call.transport.aborted
        assert server.context.connection_limiter.connections == 0

    def test_half_close_during_the_handshake_ends_the_connection(self, lines, server):
        call = lines()
        call.half_close()
        assert call.transport.disconnecting
        call.disconnect()
        assert server.context.connection_limiter.connections == 0

    def test_rejected_client_receives_the_reason(self, make_lines):
        server = FakeServer(max_connections=0)
        call = make_lines(server, ListenerConfig("ssl:8081"))()
        call.protocol.handshakeCompleted()
        assert call.received()[0].startswith("ERR limit ")
        assert len(server.context.sessions) == 0


class TestJson:
    """A first line that begins with a brace selects the JSON protocol."""

    @pytest.mark.parametrize("before", [b"", b"\n \r\n", "\ufeff".encode()])
    def test_messages_are_lines_and_replies_too(self, lines, before):
        call = lines()
        (welcome,) = call.received()
        assert welcome.startswith("WELCOME sockbridge/1 id=p1 ")
        call.send_bytes(before + b'{"type":"subscribe","id":1,"channel":"kitchen"}\r\n\n{"type":"ping"}\n')
        assert call.received() == [
            '{"type":"ok","id":1,"channel":"kitchen","offset":0,"epoch":"e1"}',
            '{"type":"pong"}',
        ]

    def test_messages_can_be_split_at_any_byte(self, lines):
        for call in split_calls(lines, b'{"type":"ping","id":1}\n{"type":"publish","channel":"a","data":"\xc3\xa9"}\n'):
            assert call.received() == ['{"type":"pong","id":1}']

    def test_payloads_cannot_break_lines_or_control_a_terminal(self, lines):
        call, page = lines(), lines()
        call.send('{"type":"subscribe","channel":"kitchen"}')
        page.received(), call.received()
        page.send('{"type":"publish","channel":"kitchen","data":["\x7f","\x9b2J",\r1]}')
        (event,) = call.received()
        assert event.endswith('"data":["\\u007f","\\u009b2J", 1]}')

    def test_commands_of_the_line_protocol_are_errors(self, lines, server):
        call = lines()
        call.received()
        call.send_bytes(b'{"type":"ping"}\nPUB kitchen 1\nPUB kitchen 2\nPUB kitchen \xe9\n\x04\n\x04')
        pong, *errors = call.received()
        assert [json.loads(error)["code"] for error in errors] == ["bad-json", "bad-json", "not-utf8", "bad-json"]
        assert not call.transport.half_closed and not server.broker.channels

    def test_first_message_over_the_limit_is_an_error_in_json(self, lines):
        call = lines()
        call.received()
        call.send_bytes(b'{"type":"' + b"x" * 70_000)
        call.send_bytes(b'"}\n{"type":"ping"}\n')
        error, pong = call.received()
        assert json.loads(error)["code"] == "too-long" and json.loads(pong) == {"type": "pong"}

    def test_later_message_does_not_select_the_protocol(self, call):
        call.send("PING", '{"type":"ping"}')
        pong, error = call.received()
        assert pong == "PONG" and error.startswith("ERR unknown-command ")

    def test_last_message_has_the_reason(self, lines):
        call = lines()
        call.send('{"type":"ping"}')
        call.received()
        call.protocol.pipeline.session.close(CloseReason.GOING_AWAY, b"the server is going away")
        notice, close = call.received()
        assert json.loads(notice) == {"type": "notice", "text": "the server is going away"}
        assert json.loads(close) == {"type": "close", "code": 1001, "reason": "the server is going away"}
        assert call.transport.half_closed
