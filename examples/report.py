"""Reports how full the disk is, by HTTP, with what Python brings along; then shows the last reports of all machines.

    python3 examples/report.py [channel] [address]

TOKEN, in the environment, is shown where the bridge asks for one. Whatever goes wrong on the way is tried again; the
key sees to it that the report is published once, even where it was the answer that got lost.
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

TRIES = 5


def ask(url, report=None):
    """Post a report, or get what there is; the answer as Python has it."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())} if report else {}
    if "TOKEN" in os.environ:
        headers["Authorization"] = f"Bearer {os.environ['TOKEN']}"
    body = json.dumps(report).encode() if report else None
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = error.read().decode()
            # Of the others a second try would change nothing.
            if error.code not in (429, 503) or attempt == TRIES - 1:
                sys.exit(f"{url}: {problem}")
        except OSError as error:
            if attempt == TRIES - 1:
                sys.exit(f"{url}: {error}")
        time.sleep(2**attempt)


channel = sys.argv[1] if len(sys.argv) > 1 else "disks"
address = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8082"
events = f"{address}/channels/{channel}/events"

usage = shutil.disk_usage("/")
# As df counts: of what ordinary users can have (a part is reserved for root), rounded up.
full = -(-100 * usage.used // (usage.used + usage.free))
placed = ask(f"{events}?name=report", {"host": socket.gethostname(), "full": full})
print(f"published on {placed['channel']} at offset {placed['offset']}")
for event in ask(f"{events}?last=5")["events"]:
    if event.get("name") == "report":
        print(f"{event['data']['host']}: {event['data']['full']} % full")
