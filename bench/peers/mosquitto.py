"""Mosquitto, a broker of MQTT."""

from pathlib import Path

from bench.contestant import TCP, WEBSOCKET
from bench.drivers.mqtt import Mqtt, MqttWebSocket
from bench.peers.debian import DebianServer
from bench.peers.process import HOST, Plan, free_ports
from twistedsock.bench.clients import Target

CONFIGURATION = """
listener {tcp} {host}
listener {web} {host}
protocol websockets
# Without it, version 2 lets nobody in who has no password.
allow_anonymous true
# It would drop what is beyond 1,000 messages for a reader that is behind.
max_queued_messages 0
# Off by default, and small packets would wait for the acknowledgement of the last.
set_tcp_nodelay true
log_dest stdout
# By default it says a line for every connection, too.
log_type error
log_type warning
"""


class MosquittoServer(DebianServer):
    """Persistence is off, as is its default. Version 2.0 looks after its WebSockets ten times a second when nothing
    happens on its TCP connections (issues 147 and 1390 of eclipse-mosquitto/mosquitto): readers there that have fallen
    behind go on at that pace, a piece at a time, so flat out it may come to a crawl from 4 KiB a payload on."""

    name = "mosquitto"
    package = "mosquitto"
    version_option = "-h"
    wires = frozenset((TCP, WEBSOCKET))

    def plan(self, folder: Path) -> Plan:
        tcp, web = free_ports(2)
        configuration = folder / "mosquitto.conf"
        configuration.write_text(CONFIGURATION.format(host=HOST, tcp=tcp, web=web))
        targets = {TCP: Target(Mqtt(), (HOST, tcp)), WEBSOCKET: Target(MqttWebSocket(), (HOST, web))}
        return Plan([self.program(), "-c", configuration], targets)
