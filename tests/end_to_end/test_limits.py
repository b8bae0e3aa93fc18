"""Every limit reached at once, in a real process: its memory stays within the sum of the limits, and a bystander is
served meanwhile."""

import re
import socket
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ServerProcess
from tests.fuzz.grammars import HANDSHAKE
from twistedsock.cli.memory_estimate import PROCESS, estimate_memory
from twistedsock.limits.settings import Limits

pytestmark = pytest.mark.end_to_end

KIB, MIB = 1024, 1024 * 1024
SMALL = {
    "history-bytes": 2 * MIB,
    "history-total-bytes": 8 * MIB,
    "max-channels": 300,
    "max-subscriptions-per-client": 50,
    "max-subscriptions": 400,
    "max-connections": 60,
    "max-pending-presence": 100,
    "read-timeout": 30,
}
READ = 64 * KIB
HELD_BY_ALL = 36 * MIB
"""Bytes that sixty connections hold, if each holds its maximum."""
FULL = b"ERR limit server memory limit reached"


def peak(server: ServerProcess) -> int:
    """The peak memory of the process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * KIB


class Flood:
    """A connection that sends as much as the sockets accept, without reading."""

    def __init__(self, address: str, first: bytes = b"", again: bytes = b"") -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        self.socket.sendall(first)
        self.socket.setblocking(False)
        self._again = again

    def press(self) -> None:
        """Until the sockets are full."""
        for _ in range(40):
            try:
                self.socket.send(self._again)
            except OSError:  # full, or closed by the server
                return

    def is_told(self, words: bytes) -> bool:
        """Whether it finds that, when it reads at last."""
        heard = bytearray()
        try:
            while data := self.socket.recv(READ):
                heard += data
        except OSError:
            pass
        return words in heard


def filled(line: bytes) -> bytes:
    return line * (READ // len(line))


def attacks(lines: str, web: str, web_head: bytes) -> Iterator[Flood]:
    """One of each kind at a time, repeatedly."""
    begun_frame = b"\x81\xfe\xff\xff\0\0\0\0" + b"x" * 60_000
    fragment = b"\x01\xfe\x7f\xff\0\0\0\0" + b"x" * 32_767
    kinds: list[tuple[str, bytes, bytes]] = [
        (lines, b"x" * 60_000, b""),
        (lines, b"", filled(b"HIST big\n")),
        (lines, b"", filled(b"?\n")),
        (lines, b"", filled(b"\n")),
        (lines, b"", filled(b"PUB not+allowed x\n")),
        (lines, b"", filled(b"WHO big\n")),
        (lines, b"SUB big presence=on last=10000\n", filled(b"PING x\n")),
        (lines, b"".join(b"SUB many%d\n" % number for number in range(100)), b""),
        (lines, b"".join(b"PUB channel%d x\n" % number for number in range(400)), b""),
        (lines, b"SUB big\n", filled(b"PUB big " + b"y" * 1_000 + b"\n")),
        (lines, b"", filled(b"SUB churn presence=on\nUNSUB churn\n")),
        (web, web_head, b""),
        (web, web_head + begun_frame, b""),
        (web, web_head + fragment, b"\0\x80\0\0\0\0" * 1_000),
        (web, web_head, b"\x89\x80\0\0\0\0" * 10_000),
        (web, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 90, b""),
    ]
    while True:
        for kind in kinds:
            yield Flood(*kind)


@pytest.mark.parametrize("held", [64 * MIB, 2 * MIB])
def test_memory_is_limited_and_a_bystander_is_served_at_every_limit(held, start, line_client, web_client, open_socket):
    """Whether each connection can hold its maximum, or all of them together less than that."""
    options = {**SMALL, "max-buffered-bytes": held}
    limits = Limits(**{name.replace("-", "_"): value for name, value in options.items()})  # type: ignore[arg-type]
    server = start(*(f"--{name}={value}" for name, value in options.items()))
    address, authority = server.lines[0], server.authority
    head = HANDSHAKE.replace(b"127.0.0.1:8082", authority.encode())
    at_rest = peak(server)
    bystander, page = line_client(address), web_client(server.page)
    for number in range(20):
        bystander.send(*[f"PUB big {number} " + "z" * 1_000] * 500)
        bystander.receive_until(f"OK {500 * number + 500}")
    floods = list(islice(attacks(address, authority, head), 57))
    waited = []
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        for flood in floods:
            flood.press()
        began = time.monotonic()
        assert bystander.request("PING") == "PONG"
        assert page.request(type="ping", id=1) == {"type": "pong", "id": 1}
        waited.append(time.monotonic() - began)
    assert open_socket(address).recv(100).startswith(b"WELCOME ")
    if held > HELD_BY_ALL:  # else some have been cut off
        assert open_socket(address).recv(100).startswith(b"ERR limit too many connections to this server")
    highest, bound = peak(server), estimate_memory(limits)
    told = sum(flood.is_told(FULL) for flood in floods)
    for flood in floods:
        flood.socket.close()
    print(f"{told} of {len(floods)} reached a limit")
    assert (told > 0) is (held < HELD_BY_ALL)
    # Two answers; and the machine may be busy with other tests.
    waited.sort()
    assert waited[len(waited) // 2] < 1, waited
    print(f"{highest / MIB:.0f} MiB of at most {bound.total / MIB:.0f}, answers in {waited[len(waited) // 2]:.3f} s")
    assert highest < bound.total, (highest / MIB, bound)
    assert highest - at_rest < bound.total - PROCESS  # memory of Python itself
    assert bystander.request("PING") == "PONG"
