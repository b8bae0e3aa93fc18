"""sockbridge itself."""

import sys
from importlib import metadata
from pathlib import Path

from bench.contestant import TCP, WEBSOCKET
from bench.peers.process import HOST, Plan, Server, free_ports
from twistedsock.bench.clients import Target
from twistedsock.bench.wires import Json, Lines

TWISTD = "from twisted.scripts.twistd import run; run()"


class Sockbridge(Server):
    """Default settings. ``options`` are the options of a variant, and ``name`` distinguishes variants."""

    wires = frozenset((TCP, WEBSOCKET))

    def __init__(self, *options: str, name: str = "sockbridge") -> None:
        super().__init__()
        self.name = name
        self.options = options

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return metadata.version("sockbridge")

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        command = [
            *(sys.executable, "-c", TWISTD, "-n", "--pidfile=", "sockbridge"),
            *(f"--tcp=tcp:{tcp}:interface={HOST}", f"--web=tcp:{web}:interface={HOST}"),
            *self.options,
        ]
        return Plan(command, {TCP: Target(Lines(), (HOST, tcp)), WEBSOCKET: Target(Json(), (HOST, web))})
