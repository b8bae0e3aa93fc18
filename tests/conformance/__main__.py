"""Runs the Autobahn WebSocket TestSuite against an echo server: ``python -m tests.conformance [--quick]``.

The quick set omits large messages, and compression, which the server declines. It runs twice, because a handshake is
answered either by the server or by Autobahn. The full set adds the rest, and TLS, which has another outlet.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.authority import Authority
from tests.conformance.echo import COUNTED, OTHER_HANDSHAKES, OTHER_MESSAGES, SHORT_HANDSHAKES, SHORT_MESSAGES
from tests.conformance.report import Broken, Outcome, read_outcomes, verdict
from tests.conformance.suite import CHECKOUT, FOLDER, get_python2, install
from twistedsock.server.web_endpoints import JSON_PROTOCOL

REPORTS = FOLDER / "reports"

LONG = ("9.*", "12.*", "13.*")

PROGRESS = 5.0
"""Seconds between two progress messages."""

PATIENCE = 20.0
"""Seconds for the server to listen, and to end."""

TROUBLE = re.compile(r"Traceback|Unhandled|#(?:error|critical)\]")


class Run(NamedTuple):
    """One server and the cases that it is tested with. ``handshake`` is the kind that must have been used; the run is
    aborted after ``minutes``."""

    name: str
    path: str
    handshake: str
    cases: tuple[str, ...]
    excluded: tuple[str, ...]
    minutes: float
    options: tuple[str, ...] = ()
    secure: bool = False


QUICK = (
    Run("our handshake", "/ws", SHORT_HANDSHAKES, ("*",), LONG, 3),
    # With a query, Autobahn does the handshake.
    Run("Autobahn's handshake", "/ws?long=1", OTHER_HANDSHAKES, ("*",), LONG, 3),
)
# The cases of group 9 send at most 16 MiB; 7.1.6 sends 256 KiB, more than the default limit.
LARGE = ("--max-message-bytes", str(16 * 1024 * 1024))
FULL = (
    *QUICK,
    Run("over TLS", "/ws", SHORT_HANDSHAKES, ("*",), LONG, 3, secure=True),
    Run("large and compressed", "/ws", SHORT_HANDSHAKES, ("7.1.6", *LONG), (), 60, LARGE),
)


@contextmanager
def server(run: Run, folder: Path) -> Iterator[str]:
    """Run a server on a free port, and return its address. Raises Broken if it does not start, or ends with an
    error."""
    log, endpoint = folder / "server.log", "tcp:0:interface=127.0.0.1"
    if run.secure:
        Authority(folder).issue("server", "localhost")
        endpoint = f"ssl:0:interface=127.0.0.1:privateKey={folder}/server.key:certKey={folder}/server.pem"
    command = [sys.executable, "-m", "tests.conformance.echo", "--tcp", "none", "--web", endpoint]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *run.options], cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r"\] web on (\S+): ", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"{run.name}: the server did not start; it said:\n{log.read_text()}")
            time.sleep(0.05)
        yield found[1]
        process.terminate()
        if process.wait(PATIENCE) != 0 or TROUBLE.search(log.read_text()):
            raise Broken(f"{run.name}: the server said:\n{log.read_text()}")
    finally:
        process.kill()
        process.wait()


def carry_out(run: Run, wstest: Sequence[str | Path], progress: bool) -> list[Outcome]:
    """Read the report of one run. Raises Broken."""
    folder = REPORTS / run.name.replace(" ", "-").replace("'", "")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    log, spec = folder / "server.log", folder / "spec.json"
    with server(run, folder) as address:
        url = f"{'wss' if run.secure else 'ws'}://{address}{run.path}"
        target = {"agent": run.name, "url": url, "protocols": [JSON_PROTOCOL]}
        wanted = {"outdir": str(folder), "servers": [target], "cases": run.cases, "exclude-cases": run.excluded}
        spec.write_text(json.dumps({**wanted, "exclude-agent-cases": {}}))
        count = ask([*wstest, "-m", "fuzzingclient", "-s", spec], run, progress)
    counted = json.loads(log.read_text().rpartition(COUNTED)[2])
    print(f"  {run.name:22} " + ", ".join(f"{number} {what}" for what, number in counted.items()), flush=True)
    unseen = [way for way in (run.handshake, SHORT_MESSAGES, OTHER_MESSAGES) if not counted[way]]
    if unseen:
        raise Broken(f"{run.name}: there were no {' and no '.join(unseen)}, so these were not tried")
    return read_outcomes(folder, run.name, count)


def ask(command: Sequence[str | Path], run: Run, progress: bool) -> int:
    """Run the suite, and return the number of its cases. Raises Broken if that takes too long."""
    count, begun, case, start = 0, 0, "none", time.monotonic()
    shown = start
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        timer = threading.Timer(run.minutes * 60, process.kill)
        timer.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.match(r"Ok, will run (\d+) test cases", line):
                    count = int(found[1])
                elif found := re.match(r"Running test case ID (\S+)", line):
                    begun, case, now = begun + 1, found[1], time.monotonic()
                    if progress and now - shown >= PROGRESS:
                        shown = now
                        print(f"  {run.name:22} {now - start:5.0f} s: case {case}, {begun} of {count}", flush=True)
        finally:
            timer.cancel()
            process.kill()
    if time.monotonic() - start >= run.minutes * 60:
        raise Broken(f"{run.name}: given up after {run.minutes} minutes, at case {case}")
    return count


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description="Run the Autobahn TestSuite.")
    parser.add_argument("--quick", action="store_true", help="leave out large messages, compression and TLS")
    options = parser.parse_args(arguments)
    try:
        python2 = get_python2()
        if python2 is None:
            print("NOT RUN: the Autobahn TestSuite needs Python 2.7, which is not here; PYTHON2=/path/to/it names one.")
            return 0
        wstest = install(python2)
    except subprocess.CalledProcessError as error:
        print(f"The Autobahn TestSuite cannot be installed: {error}", file=sys.stderr)
        return 1
    start = time.monotonic()
    runs = QUICK if options.quick else FULL
    print(f"The Autobahn TestSuite, {'quick' if options.quick else 'full'} set:", flush=True)
    try:
        with ThreadPoolExecutor(len(runs)) as pool:
            asked = [pool.submit(carry_out, run, wstest, not options.quick) for run in runs]
            outcomes = [outcome for future in asked for outcome in future.result()]
    except Broken as error:
        print(f"FAILED: {error}")
        return 1
    words, success = verdict(outcomes)
    print(f"{words}\n{time.monotonic() - start:.0f} s; the whole report is in {REPORTS}")
    return int(not success)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
