"""Mosquitto, an MQTT broker."""

from pathlib import Path

from bench.contestant import QUIET_TCP, QUIET_WEBSOCKET, TCP, WEBSOCKET
from bench.drivers.mqtt import Mqtt, MqttWebSocket
from bench.peers.debian import DebianServer
from bench.peers.process import HOST, Plan, free_ports
from twistedsock.bench.clients import Target

CONFIGURATION = """
listener {tcp} {host}
listener {web} {host}
protocol websockets
# Without it, version 2 requires a password.
allow_anonymous true
# The default drops messages beyond 1,000 for a slow reader.
max_queued_messages 0
# Off by default, and small packets would wait for the acknowledgement of the last.
set_tcp_nodelay true
log_dest stdout
# By default it says a line for every connection, too.
log_type error
log_type warning
"""


class MosquittoServer(DebianServer):
    """Persistence is off, which is the default. Version 2.0 serves its WebSockets ten times a second while its TCP
    connections are idle (issues 147 and 1390 of eclipse-mosquitto/mosquitto). WebSocket readers that have fallen behind
    proceed at that pace, one piece at a time, so with payloads of 4 KiB or more a load at full speed can nearly
    stop."""

    name = "mosquitto"
    package = "mosquitto"
    version_option = "-h"
    wires = frozenset((TCP, QUIET_TCP, WEBSOCKET, QUIET_WEBSOCKET))

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        configuration = folder / "mosquitto.conf"
        configuration.write_text(CONFIGURATION.format(host=HOST, tcp=tcp, web=web))
        targets = dict.fromkeys((TCP, QUIET_TCP), Target(Mqtt(), (HOST, tcp)))
        targets |= dict.fromkeys((WEBSOCKET, QUIET_WEBSOCKET), Target(MqttWebSocket(), (HOST, web)))
        return Plan([self.program(), "-c", configuration], targets)
