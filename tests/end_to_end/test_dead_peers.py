"""A machine that vanishes closes no connection: the server must find out by itself."""

import contextlib
import ctypes
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(sys.platform != "linux", reason="what makes a peer dead here is Linux's"),
]

SO_ATTACH_FILTER = 26
"""socket(7) and linux/filter.h: packets that a socket receives."""

UNREACHABLE_AFTER = 4


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def vanish(peer: socket.socket) -> None:
    """From now on the kernel of the client drops all packets that arrive, and so acknowledges none, as if its machine
    had vanished. The filter is one instruction: keep 0 bytes of each packet."""
    instruction = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\0\0", 8)
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(Program(1, ctypes.addressof(instruction))))


EVENTS = 200
"""Each of a kilobyte: more than the buffers below and those of the server hold."""


@pytest.fixture
def full(start: Callable[..., Any], line_client: Callable[..., Any]) -> Iterator[Callable[[], socket.socket]]:
    """Make a client that subscribed and does not read until its kernel's and the server's buffers are full."""
    server = start("--unreachable-timeout", str(UNREACHABLE_AFTER), "--send-buffer-bytes", "8192", web=("none",))
    host, port = server.lines[0].rsplit(":", 1)
    publisher = line_client(server.lines[0])

    def members() -> list[str]:
        publisher.send("WHO a")
        return list(publisher.receive_until("OK")[:-1])

    with contextlib.ExitStack() as stack:

        def client() -> socket.socket:
            reader = stack.enter_context(socket.socket())
            reader.settimeout(20)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((host, int(port)))
            reader.sendall(b"SUB a\n")
            while not members():
                pass
            publisher.send("QUIET on", *(f"PUB a {number} {'x' * 1000}" for number in range(EVENTS)), "QUIET off")
            publisher.receive_until("OK")
            return reader

        client.members = members  # type: ignore[attr-defined]
        yield client


def test_a_slow_or_pausing_client_stays_connected_and_loses_nothing(full):
    """Its machine answers, but TCP_USER_TIMEOUT would reset the connection."""
    reader = full()
    time.sleep(2 * UNREACHABLE_AFTER)
    heard = b""
    slow_until = time.monotonic() + 2 * UNREACHABLE_AFTER
    while not heard.endswith(b"\n") or heard.count(b"MSG a ") < EVENTS:
        is_slow = time.monotonic() < slow_until
        data = reader.recv(1000 if is_slow else 65536)
        assert data, "the bridge has closed the connection"
        heard += data
        if is_slow:
            time.sleep(0.2)
    assert [int(line.split()[2]) for line in heard.splitlines() if line.startswith(b"MSG")] == list(
        range(1, EVENTS + 1)
    )


def test_a_vanished_machine_with_full_buffers_is_detected_in_time(full, eventually):
    vanish(full())
    eventually(lambda: not full.members(), "the dead to be gone", 6 * UNREACHABLE_AFTER)


def test_a_vanished_machine_is_detected_in_time(start, line_client, eventually):
    """An idle client and one that was sent something. Living clients stay connected, however long they send nothing."""
    server = start("--unreachable-timeout", str(UNREACHABLE_AFTER), web=("none",))
    silent, busy, there, watcher = (line_client(server.lines[0]) for _ in range(4))
    for channel, peer in (("b", silent), ("a", busy), ("a", there), ("b", there)):
        peer.request(f"SUB {channel}")
    vanish(silent.socket)
    vanish(busy.socket)
    began = time.monotonic()
    watcher.request("PUB a sent to a dead one")

    def members() -> list[str]:
        watcher.send("WHO a", "WHO b")
        return [line.split()[2] for _ in "ab" for line in watcher.receive_until("OK")[:-1]]

    eventually(lambda: members() == [there.id] * 2, "the dead to be gone", 3 * UNREACHABLE_AFTER)
    assert time.monotonic() - began > UNREACHABLE_AFTER / 2
    assert there.receive().startswith("MSG a 1 ") and there.request("PING") == "PONG"
