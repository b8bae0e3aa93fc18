"""A relay that uses websockets, the usual WebSocket library for asyncio."""

from pathlib import Path

from bench.contestant import QUIET_WEBSOCKET, WEBSOCKET
from bench.drivers.relay import Relay
from bench.peers.process import HOST, INSTALLED, Plan, Server, free_ports, output_of
from twistedsock.bench.clients import Target

PYTHON = INSTALLED / "websockets" / "bin" / "python"
RELAY = INSTALLED.parent / "relays" / "websockets_relay.py"
VERSIONS = "import platform, websockets; print(websockets.__version__, 'on Python', platform.python_version())"


class Websockets(Server):
    """The relay of bench/relays/websockets_relay.py."""

    name = "websockets"
    wires = frozenset((WEBSOCKET, QUIET_WEBSOCKET))

    def missing(self) -> str:
        return "" if PYTHON.exists() else "its environment is missing; run bench/install"

    def version(self) -> str:
        return output_of(PYTHON, "-c", VERSIONS).strip()

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        target = Target(Relay("websockets websocket"), (HOST, port))
        return Plan([PYTHON, RELAY, HOST, str(port)], dict.fromkeys(self.wires, target))
