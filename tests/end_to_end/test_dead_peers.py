"""A machine that is gone says no farewell: the bridge must find out by itself."""

import ctypes
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(sys.platform != "linux", reason="what makes a peer dead here is Linux's"),
]

SO_ATTACH_FILTER = 26
"""socket(7), and linux/filter.h: what a socket may receive."""

UNREACHABLE_AFTER = 4


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def vanish(peer: socket.socket) -> None:
    """From here on the peer's kernel sees nothing of what comes for it, and so acknowledges nothing; it looks as if its
    machine was gone. The filter is one instruction: of each packet, keep 0 bytes."""
    instruction = ctypes.create_string_buffer(b"\x06\0\0\0\0\0\0\0", 8)
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(Program(1, ctypes.addressof(instruction))))


def test_a_peer_whose_machine_is_gone_is_gone_in_time(
    start: Callable[..., Any], call: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    """One at rest, one that was sent something; who is there stays, however long it says nothing."""
    bridge = start("--unreachable-after", str(UNREACHABLE_AFTER), web=("none",))
    silent, busy, there, watcher = (call(bridge.lines[0]) for _ in range(4))
    for channel, peer in (("b", silent), ("a", busy), ("a", there), ("b", there)):
        peer.ask(f"SUB {channel}")
    vanish(silent.socket)
    vanish(busy.socket)
    began = time.monotonic()
    watcher.ask("PUB a sent in vain to one of them")

    def members() -> list[str]:
        watcher.say("WHO a", "WHO b")
        return [line.split()[2] for _ in "ab" for line in watcher.hear_until("OK")[:-1]]

    eventually(lambda: members() == [there.id] * 2, "the dead to be gone", 3 * UNREACHABLE_AFTER)
    assert time.monotonic() - began > UNREACHABLE_AFTER / 2
    assert there.hear().startswith("MSG a 1 ") and there.ask("PING") == "PONG"
