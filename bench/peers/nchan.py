"""Nchan, a module of nginx."""

import re
from pathlib import Path

from bench.contestant import ACKNOWLEDGED_WEBSOCKET, WEBSOCKET
from bench.drivers.nchan import PUBLISH, SUBSCRIBE, Nchan
from bench.peers.debian import DebianServer
from bench.peers.process import HOST, Plan, free_ports, output_of
from twistedsock.bench.clients import Target

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

CONFIGURATION = """
load_module {module};
daemon off;
# One process, like the other servers.
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    # The default closes a publisher's connection after 1,000 requests, and that of a slow one after 75 seconds.
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    server {{
        listen {host}:{port} backlog=4096;
        location ~ ^{publish}(\\d+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            # As many as sockbridge's history. The default of 10 drops events for slow readers.
            nchan_message_buffer_length 10000;
        }}
        location ~ ^{subscribe}(\\d+)$ {{
            nchan_subscriber websocket;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


class NchanServer(DebianServer):
    """Publishers send HTTP requests. A publisher over WebSocket would have a connection for each channel, too."""

    name = "nchan"
    package = "nginx"
    version_option = "-v"
    wires = frozenset((WEBSOCKET, ACKNOWLEDGED_WEBSOCKET))

    def missing(self) -> str:
        return super().missing() or ("" if MODULE.exists() else "libnginx-mod-nchan is missing; run bench/install")

    def version(self) -> str:
        found = re.search(
            r"[\d.]+", output_of("dpkg-query", "-W", "-f", "${source:Upstream-Version}", "libnginx-mod-nchan")
        )
        return f"{found[0].rstrip('.') if found else 'unknown'} on nginx {super().version()}"

    def plan(self, folder: Path) -> Plan:
        (port,) = free_ports(1)
        configuration = folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(module=MODULE, host=HOST, port=port, publish=PUBLISH, subscribe=SUBSCRIBE)
        )
        command: list[str | Path] = [self.program(), "-p", folder, "-c", configuration, "-e", "stderr"]
        return Plan(command, dict.fromkeys(self.wires, Target(Nchan(), (HOST, port))))
