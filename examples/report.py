"""Publishes the disk usage over HTTP with the standard library, then prints the latest reports of all machines.

    python3 examples/report.py [channel] [address]

Set TOKEN in the environment if the server requires a token. Failed requests are retried. The idempotency key makes sure
that the report is published once, even if only the response was lost.
"""

import json
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
import uuid

MAX_ATTEMPTS = 5


def request(url, report=None):
    """Send a GET request, or POST a report. Returns the decoded JSON."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())} if report else {}
    if "TOKEN" in os.environ:
        headers["Authorization"] = f"Bearer {os.environ['TOKEN']}"
    body = json.dumps(report).encode() if report else None
    for attempt in range(MAX_ATTEMPTS):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            problem = error.read().decode()
            # For other statuses, a retry would have the same result.
            if error.code not in (429, 503) or attempt == MAX_ATTEMPTS - 1:
                sys.exit(f"{url}: {problem}")
        except OSError as error:
            if attempt == MAX_ATTEMPTS - 1:
                sys.exit(f"{url}: {error}")
        time.sleep(2**attempt)


channel = sys.argv[1] if len(sys.argv) > 1 else "disks"
address = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8082"
events = f"{address}/channels/{channel}/events"

usage = shutil.disk_usage("/")
# Like df: the share of the space available to ordinary users (a part is reserved for root), rounded up.
full = -(-100 * usage.used // (usage.used + usage.free))
published = request(f"{events}?name=report", {"host": socket.gethostname(), "full": full})
print(f"published on {published['channel']} at offset {published['offset']}")
for event in request(f"{events}?last=5")["events"]:
    if event.get("name") == "report":
        print(f"{event['data']['host']}: {event['data']['full']} % full")
