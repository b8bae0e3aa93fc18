"""Relays that run on Node."""

import json
import shutil
from pathlib import Path

from bench.contestant import QUIET_WEBSOCKET, WEBSOCKET
from bench.peers.process import HOST, INSTALLED, Plan, Server, free_ports, output_of
from twistedsock.bench.clients import Driver, Target

MODULES = INSTALLED / "node"
RELAYS = INSTALLED.parent / "relays"


class NodeRelay(Server):
    """``package`` is the npm package that the program ``relay`` uses."""

    package: str
    relay: str
    driver: Driver
    wires = frozenset((WEBSOCKET, QUIET_WEBSOCKET))

    def missing(self) -> str:
        if shutil.which("node") is None:
            return "node is missing; run bench/install"
        if not self._folder_of_package().is_dir():
            return f"the npm package {self.package} is missing; run bench/install"
        return ""

    def version(self) -> str:
        about = json.loads((self._folder_of_package() / "package.json").read_text())
        return f"{about['version']} on Node {output_of('node', '--version').strip().removeprefix('v')}"

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        command: list[str | Path] = ["node", RELAYS / self.relay, HOST, str(port), str(MODULES)]
        return Plan(command, dict.fromkeys(self.wires, Target(self.driver, (HOST, port))))

    def _folder_of_package(self) -> Path:
        return MODULES / "node_modules" / self.package
