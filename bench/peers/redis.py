"""Redis Pub/Sub."""

from pathlib import Path

from bench.contestant import ACKNOWLEDGED_TCP, TCP
from bench.drivers.redis import Redis
from bench.peers.debian import DebianServer
from bench.peers.process import HOST, Plan, free_ports
from twistedsock.bench.clients import Target

CONFIGURATION = """
bind {host}
port {port}
dir {folder}
# Pub/Sub keeps nothing; writing the empty store now and then would only disturb.
save ""
appendonly no
# It would cut off a reader that is 32 MB behind, or 8 MB for a minute.
client-output-buffer-limit pubsub 0 0 0
# Its default is 10,000.
maxclients 20000
"""


class RedisServer(DebianServer):
    """One thread reads, publishes and writes, which is the default."""

    name = "redis"
    package = "redis-server"
    wires = frozenset((TCP, ACKNOWLEDGED_TCP))

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        configuration = folder / "redis.conf"
        configuration.write_text(CONFIGURATION.format(host=HOST, port=port, folder=folder))
        return Plan([self.program(), configuration], dict.fromkeys(self.wires, Target(Redis(), (HOST, port))))
