"""Two loops that do only what no server can do without, measured as if they were servers: the lower bounds of CPU time
for every server, in C, and for one in Python."""

from collections.abc import Sequence
from pathlib import Path

from bench.contestant import ACKNOWLEDGED_TCP, ACKNOWLEDGED_WEBSOCKET, QUIET_TCP, QUIET_WEBSOCKET, TCP, WEBSOCKET
from bench.machine import server_python
from bench.packets import compiled, missing_compiler
from bench.peers.process import HOST, Plan, Server, free_ports, output_of
from bench.peers.sockbridge import WIRES, targets
from twistedsock.bench.clients import Driver, Exchange, ServerPing, Target
from twistedsock.bench.wires import Json, Lines

SOURCE = Path(__file__).with_name("send_loop.c")
FLOOR = Path(__file__).with_name("relays") / "floor.py"


class Bare:
    """The publisher sends the bytes that sockbridge would send to its readers, if each event was the first of its
    channel. ``imitated`` is the driver of these readers, and ``is_acknowledged`` asks for a byte for each packet."""

    is_predictable = True
    is_size_predictable = False
    keep_alive: ServerPing | None = None

    def __init__(self, imitated: Driver, is_acknowledged: bool = False) -> None:
        self.name = f"bare {imitated.name}"
        self.reply_mark = b"+" if is_acknowledged else b""
        self._imitated = imitated

    def greet(self, host: str) -> Sequence[Exchange]:
        return []

    def prepare(self) -> Sequence[Exchange]:
        return [Exchange(b"A\n", b"\n")] if self.reply_mark else []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(b"S %b\n" % channel, b"\n")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return self.deliveries(channel, payloads, 1)

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [self._imitated.deliveries(channel, [payload], 1)[0] for payload in payloads]


class SendLoop(Server):
    """bench/send_loop.c, compiled when it starts. It has one port for all protocols."""

    name = "bare"
    wires = frozenset((TCP, WEBSOCKET, QUIET_TCP, QUIET_WEBSOCKET, ACKNOWLEDGED_TCP, ACKNOWLEDGED_WEBSOCKET))

    def missing(self) -> str:
        return missing_compiler()

    def version(self) -> str:
        return output_of("cc", "--version").partition("\n")[0]

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        drivers = {
            **dict.fromkeys((TCP, QUIET_TCP), Bare(Lines())),
            ACKNOWLEDGED_TCP: Bare(Lines(), is_acknowledged=True),
            **dict.fromkeys((WEBSOCKET, QUIET_WEBSOCKET), Bare(Json())),
            ACKNOWLEDGED_WEBSOCKET: Bare(Json(), is_acknowledged=True),
        }
        targets = {wire: Target(driver, (HOST, port)) for wire, driver in drivers.items()}
        return Plan([compiled(SOURCE, folder), str(port)], targets)


class Floor(Server):
    """bench/relays/floor.py, run by the same Python as sockbridge."""

    name = "floor"
    wires = frozenset(WIRES)

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return f"Python {server_python().version}"

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        return Plan([server_python().path, FLOOR, HOST, str(tcp), str(web)], targets(tcp, web))
