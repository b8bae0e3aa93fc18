"""Crossbar.io, a router of WAMP."""

import json
import re
from pathlib import Path

from bench.contestant import WEBSOCKET
from bench.drivers.wamp import REALM, Wamp
from bench.peers.process import HOST, INSTALLED, Plan, Server, free_ports, output_of
from twistedsock.bench.clients import Target

CROSSBAR = INSTALLED / "crossbar" / "bin" / "crossbar"


def configuration(port: int) -> dict[str, object]:
    """A router in one process, open to all clients, like the first example of its documentation; it offers JSON
    only."""
    everything = {"call": False, "register": False, "publish": True, "subscribe": True}
    role = {"name": "anonymous", "permissions": [{"uri": "", "match": "prefix", "allow": everything}]}
    transport = {
        "type": "websocket",
        "endpoint": {"type": "tcp", "port": port, "interface": HOST},
        "url": f"ws://{HOST}:{port}/ws",
        "serializers": ["json"],
    }
    router = {"type": "router", "realms": [{"name": REALM.decode(), "roles": [role]}], "transports": [transport]}
    return {"version": 2, "controller": {}, "workers": [router]}


class Crossbar(Server):
    """A node with a controller and one router: two processes."""

    name = "crossbar"
    wires = frozenset((WEBSOCKET,))

    def missing(self) -> str:
        return "" if CROSSBAR.exists() else "its environment is missing; run bench/install crossbar"

    def version(self) -> str:
        found = re.search(r"Crossbar\.io +: (\S+)", output_of(CROSSBAR, "version"))
        return found[1] if found else "unknown"

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        (folder / "config.json").write_text(json.dumps(configuration(port)))
        command: list[str | Path] = [CROSSBAR, "start", "--cbdir", folder, "--loglevel", "warn"]
        return Plan(command, {WEBSOCKET: Target(Wamp(), (HOST, port))})
