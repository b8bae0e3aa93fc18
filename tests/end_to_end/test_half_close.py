"""Clients that close their sending half and still read, like ``nc -N`` and TLS 1.3: each answer is complete."""

import socket
import ssl
import subprocess
import threading

import pytest

from tests.end_to_end.conftest import TIMEOUT_SECONDS, receive_until, unverified_tls

pytestmark = pytest.mark.end_to_end

EVENTS = 2000
TLS = "ssl:0:interface=127.0.0.1:"


def nc(server, data):
    """All bytes until the server closes the connection."""
    host, _, port = server.authority.rpartition(":")
    done = subprocess.run(
        ["nc", "-N", host, port], input=data, capture_output=True, timeout=TIMEOUT_SECONDS, check=True
    )
    return done.stdout


def publish(line_client, server, channel, payload, count=1):
    client = line_client(server.lines[0])
    client.socket.sendall(f"PUB {channel} {payload}\n".encode() * count)
    for _ in range(count):
        assert client.receive().startswith("OK ")


def get(target, *headers, version="HTTP/1.1"):
    return "\r\n".join([f"GET {target} {version}", "Host: localhost", *headers, "", ""]).encode()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
def test_a_long_history_is_complete(server, line_client, channel, version, headers):
    publish(line_client, server, channel, "x" * 1000, EVENTS)
    told = nc(server, get(f"/channels/{channel}/events", *headers, version=version))
    assert told.count(b'"type":"event"') == EVENTS
    assert told.endswith(b"\r\n0\r\n\r\n" if version == "HTTP/1.1" else b"}\n")


def test_a_long_poll_is_answered(server, line_client, channel):
    soon = threading.Timer(0.3, publish, (line_client, server, channel, "hot"))
    soon.start()
    told = nc(server, get(f"/channels/{channel}/events?wait=10"))
    soon.join()
    assert b'"data":"hot"' in told


def test_a_stream_continues(server, line_client, open_socket, channel):
    client = open_socket(server.authority)
    client.sendall(get(f"/channels/{channel}/events", "Accept: text/event-stream"))
    client.shutdown(socket.SHUT_WR)
    receive_until(client, b"event: ok")
    publish(line_client, server, channel, "hot")
    receive_until(client, b'"data":"hot"')


def test_a_stream_ends_soon_after_its_client_disconnects(server, line_client, open_socket, channel):
    client, watcher = open_socket(server.authority), line_client(server.lines[0])
    watcher.request(f"SUB {channel} presence=on")
    client.sendall(get(f"/channels/{channel}/events?nick=reader", "Accept: text/event-stream"))
    assert watcher.receive().startswith(f"JOIN {channel} ")
    client.shutdown(socket.SHUT_WR)
    receive_until(client, b":\n\n")
    client.close()
    assert watcher.receive().startswith(f"LEAVE {channel} ")


def answer_to_half_closing_tls(address, data):
    """The answer to commands and a close_notify of TLS 1.3 in one segment."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = unverified_tls(ssl.TLSVersion.TLSv1_3).wrap_bio(incoming, outgoing)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as connection:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        tls.write(data)
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        connection.sendall(outgoing.read())
        answer = b""
        while True:
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))
            except ssl.SSLZeroReturnError:  # the server's close_notify
                return answer


def test_commands_sent_with_close_notify_over_tls_1_3_are_answered(start, line_client, certificate):
    server = start(tcp=(TLS + certificate,), web=(TLS + certificate,))
    lines = answer_to_half_closing_tls(server.lines[0], b"PUB k x\nPING\n").splitlines()
    assert lines[1:] == [b"OK 1", b"PONG", b"BYE"]
    publisher = line_client(server.lines[0], True)
    publisher.socket.sendall(b"PUB k " + b"x" * 1000 + b"\n")
    assert publisher.receive() == "OK 2"
    told = answer_to_half_closing_tls(server.authority, get("/channels/k/events"))
    assert told.startswith(b"HTTP/1.1 200 OK") and told.count(b'"type":"event"') == 2
