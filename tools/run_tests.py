"""Runs the parts of `make test` beside each other, and prints what each has written when it ends.

Most tests wait for sockets more than they compute: the parts that compute run beside them, and the tests under the
other Pythons get what is left of the processors.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path


def parts_of_make_test(make: str) -> list[list[str]]:
    return [
        [make, "--no-print-directory", "rest"],
        [make, "--no-print-directory", "coverage", "wstest", "web"],
        ["nice", "-n", "19", sys.executable, str(Path(__file__).with_name("pythons.py"))],
    ]


def run(parts: list[list[str]]) -> int:
    """Run commands at the same time, the first one with its output as it comes; returns how many have failed. The
    others are printed when they end, so that a failure is seen while the rest still runs."""
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in parts[1:])]
        pool = stack.enter_context(ThreadPoolExecutor(len(parts)))
        stack.callback(lambda: [process.terminate() for process in processes])
        for part, output in zip(parts, outputs, strict=True):
            stderr = None if output is None else subprocess.STDOUT
            processes.append(subprocess.Popen(part, stdin=subprocess.DEVNULL, stdout=output, stderr=stderr))
        waits = {pool.submit(process.wait): place for place, process in enumerate(processes)}
        failed = 0
        for wait in as_completed(waits):
            part, output, status = parts[waits[wait]], outputs[waits[wait]], wait.result()
            failed += status != 0
            sys.stdout.write(f"\n== {shlex.join(part)}: {'passed' if status == 0 else f'FAILED with {status}'}\n")
            if output is not None:
                output.seek(0)
                sys.stdout.write(output.read().decode(errors="replace"))
            sys.stdout.flush()
    return failed


def main(make: str) -> int:
    signal.signal(signal.SIGTERM, lambda *event: sys.exit(1))
    failed = run(parts_of_make_test(make))
    # The distributions are built alone: a build writes into the checkout.
    return int(run([[make, "--no-print-directory", "dist"]]) + failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
