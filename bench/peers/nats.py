"""NATS without JetStream: it does not store events."""

from pathlib import Path

from bench.contestant import TCP, WEBSOCKET
from bench.drivers.nats import Nats, NatsWebSocket
from bench.peers.debian import DebianServer
from bench.peers.process import HOST, Plan, free_ports
from twistedsock.bench.clients import Target

CONFIGURATION = """
listen: "{host}:{tcp}"
# Compression is off unless asked for.
websocket {{ listen: "{host}:{web}", no_tls: true }}
# No ping may fall into a measurement.
ping_interval: "1h"
"""


class NatsServer(DebianServer):
    """Default settings: it buffers up to 64 MiB for a slow reader and accepts 65,536 connections."""

    name = "nats"
    package = "nats-server"
    wires = frozenset((TCP, WEBSOCKET))

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        configuration = folder / "nats.conf"
        configuration.write_text(CONFIGURATION.format(host=HOST, tcp=tcp, web=web))
        targets = {TCP: Target(Nats(), (HOST, tcp)), WEBSOCKET: Target(NatsWebSocket(), (HOST, web))}
        return Plan([self.program(), "-c", configuration], targets)
