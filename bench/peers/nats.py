"""NATS without JetStream: it does not store events."""

import re
from pathlib import Path

from bench.contestant import ACKNOWLEDGED_TCP, ACKNOWLEDGED_WEBSOCKET, QUIET_TCP, QUIET_WEBSOCKET, TCP, WEBSOCKET
from bench.drivers.nats import Nats, NatsWebSocket
from bench.peers.process import HOST, INSTALLED, Plan, Server, free_ports, output_of
from twistedsock.bench.clients import Driver, Target

NATS_SERVER = INSTALLED / "nats" / "bin" / "nats-server"
"""The newest release, from PyPI."""

DEBIAN_NATS_SERVER = Path("/usr/sbin/nats-server")
"""Debian 12 has version 2.9, which needs less CPU for an event that is alone in its packet."""

CONFIGURATION = """
listen: "{host}:{tcp}"
# Compression is off unless asked for.
websocket {{ listen: "{host}:{web}", no_tls: true }}
# No ping may fall into a measurement.
ping_interval: "1h"
"""

LINES: dict[str, Driver] = {TCP: Nats(), QUIET_TCP: Nats(), ACKNOWLEDGED_TCP: Nats(is_acknowledged=True)}
MESSAGES: dict[str, Driver] = {
    WEBSOCKET: NatsWebSocket(),
    QUIET_WEBSOCKET: NatsWebSocket(),
    ACKNOWLEDGED_WEBSOCKET: NatsWebSocket(is_acknowledged=True),
}


class NatsServer(Server):
    """Default settings: it buffers up to 64 MiB for a slow reader and accepts 65,536 connections."""

    wires = frozenset((*LINES, *MESSAGES))

    def __init__(self, name: str = "nats", program: Path = NATS_SERVER) -> None:
        super().__init__()
        self.name = name
        self._program = program

    def missing(self) -> str:
        return "" if self._program.exists() else f"{self._program.name} is missing; run bench/install"

    def version(self) -> str:
        found = re.search(r"\d+(?:\.\d+)+", output_of(self._program, "--version"))
        return found[0] if found else "unknown"

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        configuration = folder / "nats.conf"
        configuration.write_text(CONFIGURATION.format(host=HOST, tcp=tcp, web=web))
        targets = {wire: Target(driver, (HOST, tcp)) for wire, driver in LINES.items()}
        targets |= {wire: Target(driver, (HOST, web)) for wire, driver in MESSAGES.items()}
        return Plan([self._program, "-c", configuration], targets)
