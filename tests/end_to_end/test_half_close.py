"""Clients that close their sending half and still read, like ``nc -N`` and TLS 1.3: each answer is complete."""

import socket
import ssl
import subprocess
import threading

import pytest

from tests.end_to_end.conftest import TIMEOUT_SECONDS

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
    told = b""
    while b"event: ok" not in told:
        told += client.recv(65536)
    publish(line_client, server, channel, "hot")
    while b'"data":"hot"' not in told:
        more = client.recv(65536)
        assert more, told
        told += more


def test_a_stream_ends_soon_after_its_client_disconnects(server, line_client, open_socket, channel):
    client, watcher = open_socket(server.authority), line_client(server.lines[0])
    watcher.request(f"SUB {channel} presence=on")
    client.sendall(get(f"/channels/{channel}/events?nick=reader", "Accept: text/event-stream"))
    assert watcher.receive().startswith(f"JOIN {channel} ")
    client.shutdown(socket.SHUT_WR)
    while client.recv(65536).find(b":\n\n") < 0:
        pass
    client.close()
    assert watcher.receive().startswith(f"LEAVE {channel} ")


class HalfClosingTLS:
    """Sends commands and close_notify in one segment; ``heard`` is the answer."""

    def __init__(self, address, data, version):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
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
            self.heard = b""
            while True:
                try:
                    self.heard += tls.read(65536)
                except ssl.SSLWantReadError:
                    incoming.write(connection.recv(65536))
                except ssl.SSLZeroReturnError:  # the server's close_notify
                    return


def test_commands_sent_with_close_notify_over_tls_1_3_are_answered(start, line_client, certificate):
    server = start(tcp=(TLS + certificate,), web=(TLS + certificate,))
    lines = HalfClosingTLS(server.lines[0], b"PUB k x\nPING\n", ssl.TLSVersion.TLSv1_3).heard.splitlines()
    assert lines[1:] == [b"OK 1", b"PONG", b"BYE"]
    publisher = line_client(server.lines[0], True)
    publisher.socket.sendall(b"PUB k " + b"x" * 1000 + b"\n")
    assert publisher.receive() == "OK 2"
    told = HalfClosingTLS(server.authority, get("/channels/k/events"), ssl.TLSVersion.TLSv1_3).heard
    assert told.startswith(b"HTTP/1.1 200 OK") and told.count(b'"type":"event"') == 2
