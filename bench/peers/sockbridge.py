"""sockbridge itself."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bench.contestant import (
    ACKNOWLEDGED_TCP,
    ACKNOWLEDGED_WEBSOCKET,
    QUIET_TCP,
    QUIET_WEBSOCKET,
    SOCKETIO,
    TCP,
    WEBSOCKET,
)
from bench.drivers.sockbridge import AcknowledgedJson, QuietLines, RecoveringJson, SockbridgeSocketIo
from bench.machine import server_python
from bench.peers.process import HOST, Plan, Server, free_ports
from twistedsock.bench.clients import Driver, Target
from twistedsock.bench.wires import Json, Lines
from twistedsock.speedups import IMPLEMENTATION

TWISTD = "import site, sys; site.addsitedir(sys.argv.pop(1)); from twisted.scripts.twistd import run; run()"
"""The first argument is the folder of installed packages, because Debian's Python does not belong to the environment
of the checkout."""

LINES: Mapping[str, Driver] = {TCP: Lines(), ACKNOWLEDGED_TCP: Lines(), QUIET_TCP: QuietLines()}
JSON: Mapping[str, Driver] = {WEBSOCKET: Json(), QUIET_WEBSOCKET: Json(), ACKNOWLEDGED_WEBSOCKET: AcknowledgedJson()}
WIRES = (*LINES, *JSON)


def targets(tcp: int, web: int) -> dict[str, Target]:
    """The protocols of the two ports."""
    lines = {wire: Target(driver, (HOST, tcp)) for wire, driver in LINES.items()}
    return lines | {wire: Target(driver, (HOST, web)) for wire, driver in JSON.items()}


class Sockbridge(Server):
    """Default settings. ``options`` are the options of a variant, and ``name`` distinguishes variants."""

    wires = frozenset((*WIRES, SOCKETIO))

    def __init__(self, *options: str, name: str = "sockbridge") -> None:
        super().__init__()
        self.name = name
        self.options = options

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return f"{metadata.version('sockbridge')} {IMPLEMENTATION} on Python {server_python().version}"

    def _run(self) -> None:
        super()._run()
        if "--workers" in self.options:  # the first of them accepts connections before the others can
            self._await_log("workers serve these addresses")

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        python = server_python()
        command = [
            *(python.path, "-S", "-c", TWISTD, python.packages, "-n", "--pidfile=", "sockbridge"),
            *(f"--tcp=tcp:{tcp}:interface={HOST}", f"--web=tcp:{web}:interface={HOST}"),
            *self.options,
        ]
        recovering = {WEBSOCKET: Target(RecoveringJson(), (HOST, web))} if "--state" in self.options else {}
        socketio = {SOCKETIO: Target(SockbridgeSocketIo(), (HOST, web))}
        return Plan(command, targets(tcp, web) | recovering | socketio)
