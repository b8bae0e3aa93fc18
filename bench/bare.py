"""A C loop that only sends, measured as if it were a server: the upper bound for every server."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.contestant import TCP
from bench.peers.process import HOST, NotStarted, Plan, Server, free_ports, output_of
from twistedsock.bench.clients import Exchange, ServerPing, Target
from twistedsock.bench.wires import Lines

SOURCE = Path(__file__).with_name("send_loop.c")


class Bare:
    """The publisher sends the bytes that sockbridge would send to its readers."""

    name = "bare"
    is_predictable = True
    is_size_predictable = False
    reply_mark = b""
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        return []

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(b"S\n", b"\n")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return self.deliveries(channel, payloads, 1)

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return Lines().deliveries(channel, payloads, number)


class SendLoop(Server):
    """bench/send_loop.c, compiled when it starts."""

    name = "bare"
    wires = frozenset((TCP,))

    def missing(self) -> str:
        return "" if shutil.which("cc") else "there is no C compiler called cc"

    def version(self) -> str:
        return output_of("cc", "--version").partition("\n")[0]

    def plan(self, folder: Path) -> Plan:
        program = folder / "send_loop"
        command: list[str | Path] = ["cc", "-O2", "-o", program, SOURCE]
        if (done := subprocess.run(command, capture_output=True, text=True)).returncode:
            raise NotStarted(f"{SOURCE.name} cannot be compiled:\n{done.stderr}")
        (port,) = free_ports(1)
        return Plan([program, str(port)], {TCP: Target(Bare(), (HOST, port))})
