"""A relay on Bun."""

from pathlib import Path

from bench.contestant import QUIET_WEBSOCKET, WEBSOCKET
from bench.drivers.relay import Relay
from bench.peers.node import MODULES, RELAYS
from bench.peers.process import HOST, Plan, Server, free_ports, output_of
from twistedsock.bench.clients import Target

BUN = MODULES / "node_modules" / ".bin" / "bun"


class Bun(Server):
    """The relay of bench/relays/bun.mjs."""

    name = "bun"
    wires = frozenset((WEBSOCKET, QUIET_WEBSOCKET))

    def missing(self) -> str:
        return "" if BUN.exists() else "the npm package bun is missing; run bench/install"

    def version(self) -> str:
        return output_of(BUN, "--version").strip()

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        target = Target(Relay("bun websocket"), (HOST, port))
        return Plan([BUN, RELAYS / "bun.mjs", HOST, str(port)], dict.fromkeys(self.wires, target))
