"""Attacks by remote clients: each gets an error or is closed, a bystander is served meanwhile, nothing is left behind,
and the log stays short. Attacks that need no socket are tested beside the module that resists them."""

import json
import re
import socket
import ssl
import time
from contextlib import suppress

import pytest

from tests.end_to_end.bystander import MAX_LATENCY_SECONDS
from tests.end_to_end.conftest import receive_all, receive_until
from tests.fuzz.grammars import frame

pytestmark = pytest.mark.end_to_end

TEXT, CONTINUATION, CLOSE, PING, PONG, FINAL = 0x01, 0x00, 0x88, 0x89, 0x8A, 0x80
KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
MEGABYTE = 1024 * 1024
INNER = "GET /bridge.json HTTP/1.1\r\nHost: {host}\r\n\r\n"


def upgrade(server, *headers):
    lines = [f"Host: {server.authority}", "Upgrade: websocket", "Connection: Upgrade", *headers]
    return ("GET /ws HTTP/1.1\r\n" + "\r\n".join(lines) + f"\r\n{KEY}\r\n").encode()


@pytest.fixture
def tell(open_socket):
    """``tell(address, data)``: the whole answer up to the end, which must follow."""

    def telling(address, data):
        with open_socket(address) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # the connection was closed in the middle
                connection.sendall(data)
            return receive_all(connection)

    return telling


def statuses(answers):
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)


# Pages of other sites.


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://a b\x1b[2J"]
)
def test_a_page_of_another_site_cannot_open_a_websocket(start, tell, bystander, origin):
    server = start()
    sentence = f"refused a WebSocket of origin {origin!r}; --allow-origin would allow it"
    with bystander(server, sentence):
        for _ in range(3):
            answer = tell(server.authority, upgrade(server, f"Origin: {origin}"))
            assert statuses(answer) == [b"403"]
            assert origin.encode() not in answer


@pytest.mark.parametrize(
    "request_",
    [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 99\r\n\r\nPUB {} boo\nPUB {} boo\n",
        "GET /\tPUB HTTP/1.1\r\nPUB {} boo\r\n\r\n",
        "POST /{} HTTP/1.0\nPUB {} boo\n\n",
        "POST /" + "x" * 70_000 + " HTTP/1.1\r\n\r\nPUB {} boo\n",
    ],
    ids=["form", "header", "old", "long"],
)
def test_commands_that_a_page_posts_to_the_line_port_are_not_run(
    server, tell, line_client, bystander, channel, request_
):
    with bystander(server):
        answer = tell(server.lines[0], request_.replace("{}", channel).encode())
        assert re.match(rb"WELCOME [^\n]*\nHTTP/1\.1 400 Bad Request\r\n", answer)
        assert server.page.encode() in answer
        assert b"OK" not in answer
    assert line_client(server.lines[0]).request(f"HIST {channel}") == "OK 0"


def client_hello(session_id):
    """A TLS client hello with a session id of 32 chosen bytes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    assert hello[43] == 32
    return hello[:44] + session_id.ljust(32, b"\n") + hello[76:]


def test_commands_in_a_tls_handshake_are_not_run(server, tell, line_client, bystander):
    channel = "hello"
    with bystander(server):
        answer = tell(server.lines[0], client_hello(f"\nPUB {channel} 1".encode()))
        assert answer.endswith(
            b"\nNOTICE this port does not use TLS: connect without TLS and send lines of text\nBYE\n"
        )
        assert b"OK" not in answer
        begun = time.monotonic()
        assert statuses(tell(server.authority, client_hello(b""))) == [b"400"]
        assert time.monotonic() - begun < 5
    assert line_client(server.lines[0]).request(f"HIST {channel}") == "OK 0"


# Heads and bodies of requests.


@pytest.mark.parametrize("later", [False, True], ids=["first", "kept-alive"])
def test_endless_headers_are_refused(server, open_socket, bystander, later):
    """431 from the server, or 400 from twisted.web, which reads later requests of a connection."""
    host = server.authority
    with bystander(server) as other, open_socket(host) as endless:
        if later:
            endless.sendall(INNER.format(host=host).encode())
            assert statuses(receive_until(endless, b"}")) == [b"200"]
        endless.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n".encode())
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(1_000):
                endless.sendall(b"X-More: and more\r\n" * 1_000)
        try:
            answer = endless.recv(65536)
        except ConnectionResetError:
            answer = b""  # it has sent far more than the server read
        assert statuses(answer) in ([[b"400"], []] if later else [[b"431"]])
        assert other.growth() < 4 * MEGABYTE


def test_unfinished_heads_do_not_disturb_other_clients(server, open_socket, bystander):
    """tests/server/test_web.py tests the timeouts themselves."""
    with bystander(server) as other:
        slow = [open_socket(server.authority) for _ in range(200)]
        for byte in upgrade(server)[:-4][:60]:
            for connection in slow:
                connection.sendall(bytes((byte,)))
        other.wait_for_rounds()


def test_a_handshake_sent_byte_by_byte_times_out(start, open_socket, bystander):
    """No byte extends the deadline."""
    server = start("--handshake-timeout=3")
    with bystander(server), open_socket(server.authority) as slow, open_socket(server.authority) as silent:
        head = iter(upgrade(server))
        answer, began = b"", time.monotonic()
        slow.settimeout(0.1)
        while not answer:
            slow.sendall(bytes((next(head),)))
            with suppress(TimeoutError):
                answer = slow.recv(65536)
        assert 2.5 < time.monotonic() - began < 3 + MAX_LATENCY_SECONDS
        assert statuses(answer) == statuses(silent.recv(65536)) == [b"408"]


@pytest.mark.parametrize("header", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_handshake_with_a_body_cannot_smuggle_requests_past_a_proxy(server, tell, bystander, header):
    with bystander(server):
        request = upgrade(server, header) + frame(0x81, b'{"type":"ping","id":1}')
        assert statuses(tell(server.authority, request)) == [b"400"]


SMUGGLED = {
    "two lengths": ("Content-Length: 5\r\nContent-Length: 60", "hello"),
    "one length twice": ("Content-Length: 5\r\nContent-Length: 5", "hello"),
    "a list of lengths": ("Content-Length: 5, 5", "hello"),
    "a length with a sign": ("Content-Length: +5", "hello"),
    "a length with an underscore": ("Content-Length: 5_0", "hello"),
    "a length in another base": ("Content-Length: 0x5", "hello"),
    "an ambiguous length": ("Content-Length: " + "9" * 5_000, "hello"),
    "a length, then chunks": ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "chunks, then a length": ("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
    "chunks twice": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "chunks under another name": ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
    "chunks that are not the last": ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
    "a space before the colon": ("Transfer-Encoding : chunked", "0\r\n\r\n"),
    "a bare line feed": ("X: y\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    "a bare carriage return": ("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n"),
    "a zero byte": ("X: y\0z", ""),
    "a chunk's size in C": ("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk that is too long": ("Transfer-Encoding: chunked", "5\r\nhelloXX0\r\n\r\n"),
    "a chunk's line that ends early": ("Transfer-Encoding: chunked", "5\nhello\r\n0\r\n\r\n"),
    "a line feed in a chunk's extension": ("Transfer-Encoding: chunked", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "endless trailers": ("Transfer-Encoding: chunked", "0\r\n" + "X: y\r\n" * 20_000),
}


@pytest.mark.parametrize("later", [False, True], ids=["first", "kept-alive"])
def test_ambiguous_requests_cannot_smuggle_another_one(server, tell, bystander, line_client, later):
    """Ambiguous requests get 400 and the connection closes: what follows is not answered. As the first request of a
    connection, and after a correct one."""
    host = server.authority
    inner = INNER.format(host=host)
    reader = line_client(server.lines[0])
    reader.request("SUB smuggled")
    with bystander(server):
        for name, (headers, body) in SMUGGLED.items():
            outer = f"POST /channels/smuggled/events HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n\r\n{body}"
            answer = tell(host, ((inner if later else "") + outer + inner).encode())
            assert statuses(answer) == ([b"200"] if later else []) + [b"400"], name
    assert reader.request("PING") == "PONG", "nothing was published"


def test_later_requests_of_a_connection_are_checked_like_the_first(start, open_socket, bystander):
    """The first request named the page's own host; each request is checked."""
    server = start()
    host = server.authority
    inner = INNER.format(host=host).encode()
    sentence = "refused a request for host 'evil.example'; --allow-host would allow it"
    with bystander(server, sentence), open_socket(host) as connection:
        connection.sendall(inner + INNER.format(host="evil.example").encode() + upgrade(server))
        answers = b""
        while len(statuses(answers)) < 3:
            answers += connection.recv(65536)
        assert statuses(answers) == [b"200", b"421", b"426"]


# WebSocket frames.


def closes_with(client):
    """The code of the next close frame. Answers the close, unless the server has disconnected by then."""
    first, payload = client.receive_frame()
    assert first == CLOSE, (first, payload)
    with suppress(BrokenPipeError, ConnectionResetError):
        client.socket.sendall(frame(CLOSE, payload[:2]))
    return int.from_bytes(payload[:2], "big")


def flood(connection, data, most):
    """Send ``data`` repeatedly until this many bytes are sent or the server accepts none for a second. Returns the
    number."""
    connection.settimeout(1)
    sent = 0
    with suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
        while sent < most:
            sent += connection.send(data)
    return sent


def test_endless_fragments_reach_the_message_limit(server, web_client, bystander):
    with bystander(server):
        greedy = web_client(server.page)
        greedy.socket.sendall(frame(TEXT, b"x" * 30_000))
        greedy.socket.sendall(frame(CONTINUATION, b"x" * 30_000))
        greedy.socket.sendall(frame(CONTINUATION, b"x" * 30_000))
        assert closes_with(greedy) == 1009


def test_empty_fragments_are_limited(server, web_client, bystander):
    with bystander(server, grows=4 * MEGABYTE):
        endless = web_client(server.page)
        endless.socket.sendall(frame(TEXT, b""))
        for _ in range(66):
            endless.socket.sendall(frame(CONTINUATION, b"") * 1_000)
        assert closes_with(endless) == 1009


def test_a_message_in_one_byte_fragments_needs_little_memory(server, web_client, bystander, channel):
    message = json.dumps({"type": "publish", "id": 1, "channel": channel, "data": "x" * 20_000}).encode()
    parts = [frame(TEXT, b"")] + [frame(CONTINUATION, message[index : index + 1]) for index in range(len(message))]
    with bystander(server, grows=4 * MEGABYTE):
        patient = web_client(server.page)
        patient.socket.sendall(b"".join(parts[:10_000]))
        patient.socket.sendall(frame(PING, b"between"))
        assert patient.receive_frame() == (PONG, b"between")
        patient.socket.sendall(b"".join(parts[10_000:]) + frame(FINAL, b""))
        assert patient.receive() == {"type": "ok", "id": 1, "offset": 1}


def test_the_server_stops_reading_a_client_that_floods_pings(server, web_client, bystander):
    """Only the sockets buffer pongs."""
    with bystander(server, grows=4 * MEGABYTE):
        rude = web_client(server.page)
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        pings = frame(PING, b"x" * 125)
        sent = flood(rude.socket, pings * 100, 16 * MEGABYTE)
        assert sent < 16 * MEGABYTE, "the server went on reading although the client did not read its pongs"


SMALLEST = {
    "pings": (b"", frame(PING, b"")),
    "pongs": (b"", frame(PONG, b"")),
    "fragments": (frame(TEXT, b""), frame(CONTINUATION, b"")),
    "messages in two parts": (b"", frame(TEXT, b"") + frame(FINAL, b"{}")),
    "messages": (b"", frame(0x81, b"")),
}


@pytest.mark.parametrize("kind", SMALLEST)
def test_floods_of_empty_frames_do_not_disturb_other_clients(start, web_client, bystander, kind):
    """Five at once, each as fast as it can. The clients answer nothing and read nothing."""
    server = start()
    before, data = SMALLEST[kind]
    with bystander(server, gone=False, grows=16 * MEGABYTE) as other:
        flooders = [web_client(server.page) for _ in range(5)]
        for flooder in flooders:
            flooder.socket.setblocking(False)
            flooder.socket.send(before)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            for flooder in flooders:
                with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    flooder.socket.send(data * 1_000)
            time.sleep(0.001)
        other.wait_for_rounds()
        assert other.slowest < MAX_LATENCY_SECONDS / 3
    server.kill()  # the frames already sent would keep it busy for a while


WRONG_FRAMES = {
    "compressed, though it was refused": (b"\xc1\x85" + bytes(4) + b"hello", 1002),
    "a compressed bomb": (b"\xc1\xff" + (65_000_000).to_bytes(8) + bytes(4) + b"\x00" * 100, 1002),
    "not masked": (b"\x81\x05hello", 1002),
    "another kind of frame": (b"\x83\x80" + bytes(4), 1002),
    "a control frame in parts": (b"\x09\x80" + bytes(4), 1002),
    "a control frame that is too long": (b"\x89\xfe\x00\x7e" + bytes(4), 1002),
    "a continuation of nothing": (b"\x80\x80" + bytes(4), 1002),
    "a message within another": (frame(TEXT, b"a") + frame(TEXT, b"b"), 1002),
    "a length that is not the shortest": (b"\x81\xfe\x00\x05" + bytes(4) + b"hello", 1002),
    "a length of 2^63": (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1002),
    "far too long": (b"\x81\xff" + (1 << 40).to_bytes(8) + bytes(4), 1009),
    "binary": (frame(0x82, b"{}"), 1003),
    "not UTF-8": (frame(0x81, b"\xff"), 1007),
    "overlong UTF-8": (frame(0x81, b"\xc0\xaf"), 1007),
    "a surrogate in UTF-8": (frame(0x81, b"\xed\xa0\x80"), 1007),
    "half a character": (frame(TEXT, b"\xe2\x82") + frame(FINAL, b""), 1007),
    "a close code that is none": (frame(CLOSE, b"\x00\x01"), 1002),
    "a close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close whose reason is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}


def test_invalid_frames_close_the_connection_with_the_reason(server, web_client, bystander):
    with bystander(server):
        for name, (data, code) in WRONG_FRAMES.items():
            client = web_client(server.page)
            client.socket.sendall(data)
            assert closes_with(client) == code, name


@pytest.mark.parametrize(
    ("offer", "status"),
    [
        *((f"permessage-deflate{more}", b"101") for more in ("", "; server_max_window_bits=99")),
        ("permessage-deflate; client_max_window_bits=15; server_max_window_bits=15, x-webkit-deflate-frame", b"101"),
        *(("a;b" * 1_000, b"101"), ("a;" * 1_000, b"400")),
    ],
)
def test_compression_is_declined(server, open_socket, bystander, offer, status):
    """Data that is not unpacked cannot explode."""
    with bystander(server), open_socket(server.authority) as connection:
        connection.sendall(upgrade(server, f"Sec-WebSocket-Extensions: {offer}"))
        answer = connection.recv(65536)
        assert statuses(answer) == [status]
        assert b"sec-websocket-extensions:" not in answer.lower().partition(b"\r\n")[2]


# Commands.


def test_subscriptions_of_a_client_are_limited(server, line_client, web_client, bystander, channel):
    """Each is answered; memory stays that of a thousand."""
    with bystander(server, grows=8 * MEGABYTE):
        collector, page = line_client(server.lines[0]), web_client(server.page)
        collector.send(*(f"SUB {channel}-{number}" for number in range(10_000)))
        answers = [collector.receive() for _ in range(10_000)]
        assert [answer.split(" ")[1] for answer in answers] == [
            *(f"{channel}-{number}" for number in range(1_000)),
            *["limit"] * 9_000,
        ]
        assert set(answers[1_000:]) == {"ERR limit too many subscriptions: unsubscribe from another channel first"}
        for number in range(0, 10_000, 500):
            for other in range(number, number + 500):
                page.send(type="subscribe", id=other, channel=f"{channel}-{other}")
            replies = [page.receive() for _ in range(500)]
            assert [reply["id"] for reply in replies] == list(range(number, number + 500))
            assert {reply.get("code") for reply in replies} == ({None} if number < 1_000 else {"limit"})


@pytest.mark.parametrize("reads", [True, False])
def test_many_errors_in_a_row_are_all_answered(server, line_client, bystander, reads):
    """Each mistake is answered, as long as the client reads."""
    with bystander(server, grows=8 * MEGABYTE):
        clumsy = line_client(server.lines[0])
        if reads:
            for _ in range(20):
                clumsy.send(*["nonsense"] * 1_000)
                assert {clumsy.receive() for _ in range(1_000)} == {
                    "ERR unknown-command unknown command: try HELP, or QUIT to disconnect"
                }
        else:
            clumsy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            sent = flood(clumsy.socket, b"x\n" * 10_000, 16 * MEGABYTE)
            assert sent < 16 * MEGABYTE, "the server went on reading although the client did not read its errors"


def test_an_endless_line_is_reported_once_and_not_stored(server, line_client, bystander):
    with bystander(server, grows=4 * MEGABYTE):
        endless = line_client(server.lines[0])
        for _ in range(160):
            endless.send_bytes(b"x" * 100_000)
        endless.send_bytes(b"\nPING\n")
        assert endless.receive() == "ERR too-long line skipped: longer than 65536 bytes"
        assert endless.receive() == "PONG"


# The contents of commands, as a line client and a JSON client receive them.


@pytest.fixture
def stage(server, line_client, web_client, channel):
    """Publishers and readers of lines and of JSON."""

    class Stage:
        typist, reader = line_client(server.lines[0]), line_client(server.lines[0])
        page, viewer = web_client(server.page), web_client(server.page)

        def shown(self):
            """The next event, as the line reader and as the JSON reader receive it."""
            return self.reader.receive().split(" ", 4)[4], json.loads(self.viewer.receive_text(), parse_int=str)["data"]

        def posts(self, data):
            """Publish JSON text unchanged. Returns the error code, or None."""
            self.page.send_text(f'{{"type":"publish","id":1,"channel":"{channel}","data":{data}}}')
            return self.page.receive().get("code")

        def types(self, payload):
            """Publish a payload on a line."""
            self.typist.send_bytes(b"PUB %b %b\n" % (channel.encode(), payload))
            return self.typist.receive()

    stage = Stage()
    stage.reader.request(f"SUB {channel}")
    stage.viewer.request(type="subscribe", id=1, channel=channel)
    return stage


@pytest.mark.parametrize("depth", [101, 900, 1_100, 32_000])
def test_json_that_is_nested_too_deep_is_rejected_as_json(server, stage, bystander, depth):
    deep = "[" * depth + "]" * depth
    with bystander(server):
        assert stage.posts(deep) == "bad-json"
        assert stage.types(deep.encode()).startswith("OK ")
        assert stage.shown() == (f'"{deep}"', deep)


def test_json_with_100000_levels_is_too_long(server, stage, bystander):
    deep = "[" * 100_000 + "]" * 100_000
    with bystander(server):
        stage.page.send_text(f'{{"type":"publish","id":1,"channel":"a","data":{deep}}}')
        assert closes_with(stage.page) == 1009
        assert stage.types(deep.encode()).startswith("ERR too-long ")


@pytest.mark.parametrize("number", ["9" * 400, "1e999999", "-0.0", "1E-400", "0." + "1" * 5_000])
def test_huge_numbers_are_relayed_unchanged(server, stage, bystander, number):
    """They are never parsed."""
    with bystander(server):
        assert stage.posts(f"[{number}]") is None
        assert stage.types(f"[{number}]".encode()).startswith("OK ")
        for _ in range(2):
            assert stage.reader.receive().endswith(f" [{number}]")
            assert f'"data":[{number}]}}' in stage.viewer.receive_text()


def test_huge_numbers_are_rejected_as_arguments(server, stage, bystander):
    with bystander(server):
        for number in ("9" * 60_000, "9007199254740992", "-1", "1e999999", "NaN", "٣"):  # the last is a digit in Arabic
            assert stage.typist.request(f"SUB a last={number}").startswith("ERR bad-argument "), number
            stage.page.send_text(f'{{"type":"subscribe","id":1,"channel":"a","last":{number}}}')
            assert stage.page.receive()["code"] in ("bad-argument", "bad-json"), number
        # The reply repeats the id, so it is about as long as the command.
        stage.page.send_text(f'{{"type":"ping","id":{"9" * 60_000}}}')
        assert stage.page.receive_text() == f'{{"type":"pong","id":{"9" * 60_000}}}'


def test_lone_surrogates_are_rejected(server, stage, tell, bystander, channel):
    """Half a character, which UTF-8 cannot represent."""
    with bystander(server):
        for data in (r'"\ud800"', r'{"\udc00":1}', r'["\ud800\ud800"]'):
            assert stage.posts(data) == "bad-json"
            assert stage.types(data.encode()).startswith("ERR bad-json ")
            for kind in ("application/json", "application/x-www-form-urlencoded"):
                answer = tell(
                    server.authority,
                    f"POST /channels/{channel}/events HTTP/1.1\r\nHost: {server.authority}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n{data}".encode(),
                )
                assert statuses(answer) == [b"400"] and b'"code":"bad-json"' in answer
        for fields in (r'"type":"subscribe","channel":"\ud800"', r'"type":"nick","nick":"\udfff"'):
            stage.page.send_text(f'{{"id":1,{fields}}}')
            answer = stage.page.receive()
            assert (answer["id"], answer["code"]) == (1, "bad-json")
        assert stage.posts(r'"\ud83d\ude00"') is None
        assert stage.shown() == ("😀", "😀")


ESCAPES = ["\x1b[2J", "\x9b31m", "\r", "\x08", "\x07", "\x00", "\x7f", "\x85", "\x1b]0;title\x07"]


def test_no_terminal_escape_reaches_a_line_client(server, line_client, web_client, bystander, channel):
    """Not in an event, nor in a name, nor in a reply."""
    reader, page, typist = line_client(server.lines[0]), web_client(server.page), line_client(server.lines[0])
    reader.request(f"SUB {channel} presence=on")
    with bystander(server):
        for escape in ESCAPES:
            words = f"a{escape}b"
            for data in (words, [words], {words: 1}):
                for ascii_only in (True, False):
                    message = {"type": "publish", "id": 1, "channel": channel, "data": data}
                    page.send_text(json.dumps(message, ensure_ascii=ascii_only))
                    page.receive()
            page.send(type="publish", channel=channel, name=words, data=1)
            page.send(type="publish", channel=words, data=1)
            page.send(type="nick", nick=words)
            page.send(type="subscribe", channel=channel)
            page.send(type="unsubscribe", channel=channel)
            page.send(type="ping", id=2)
            while page.receive().get("id") != 2:
                pass
            typist.send(
                *(f"PUB {channel} {words}", f'PUB {channel} ["{words}"]', f"EMIT {channel} {words} x", words),
                *(f"SUB {words}", f"SUB x {words}=1", f"SUB x last={words}", f"SUB x presence={words}"),
                *(f"{verb} {words}" for verb in ("NICK", "WHO", "HELP", "QUIET", "PING")),
            )
            typist.send("PING the end")
            heard = typist.receive_until("PONG the end")
            typist.send("PUB " + channel + " done")
            while not (line := reader.receive()).endswith(" done"):
                heard.append(line)
            typist.receive()
            assert not [line for line in heard if re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", line)]


def test_invalid_utf8_and_byte_order_marks(server, stage, bystander):
    with bystander(server):
        assert stage.typist.request("PING") == "PONG"  # the first line must be UTF-8
        for wrong in (b"\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
            assert stage.types(wrong).startswith("ERR not-utf8 ")
        assert stage.typist.request("\ufeffPING").startswith("ERR unknown-command ")
        stage.page.send(type="ping", id=0)  # if the first message is not an object, the protocol is lines
        stage.page.receive()
        stage.page.send_text('\ufeff{"type":"ping","id":1}')
        assert stage.page.receive() == {"type": "pong", "id": 1}
        assert stage.typist.request("PING") == "PONG"
        assert stage.page.request(type="ping", id=1) == {"type": "pong", "id": 1}


# The log.


def test_requests_of_strangers_cannot_write_log_lines(start, tell, bystander):
    """Not in a header, and not by an error that the request causes."""
    server = start()
    host = server.authority
    forged = "2026-01-01T00:00:00+0000 [-] all is well"
    with bystander(
        server,
        "refused a WebSocket of origin '\\x85\\x9b\\xad'; --allow-origin would allow it",
        f"refused a WebSocket of origin {('http://' + 'x' * 93)!r}; --allow-origin would allow it",
        "refused a request for host '%25s.example'; --allow-host would allow it",
    ):
        tell(host, b"GET / HTTP/1.1\r\nHost: evil\x1b[2J\r\nConnection: close\r\n\r\n")
        tell(host, upgrade(server, "Origin: \x85\x9b\xad").decode().encode("latin-1"))
        tell(host, upgrade(server, "Origin: http://" + "x" * 10_000))
        tell(host, b"GET / HTTP/1.1\r\nHost: %25s.example\r\nConnection: close\r\n\r\n")
        tell(host, b"GET / HTTP/1.1\r\nHost: %s {log_source}\r\nConnection: close\r\n\r\n")
        for data in (
            f"GET / HTTP/1.1\r\nHost: x\n{forged}\r\n\r\n",
            f"GET /{forged} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
            f"{forged}\r\n\r\n",
            f"GET /%0a HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {forged}\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\nConnection: close\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\r\n",
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 99999\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            "\0" * 20_000,
        ):
            tell(host, data.replace("{host}", host).encode("latin-1"))
