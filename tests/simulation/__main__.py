"""Simulate many hours in little time: ``python -m tests.simulation --seed 1 --minutes 1``.

The runs have the seeds from ``--seed`` on. The command stops at the first failure, and prints its trace and the command
that repeats it. With ``--faults`` it plants one fault after the other, and shows how soon each is found.
"""

import argparse
import sys
import time
import traceback
from contextlib import nullcontext
from random import SystemRandom

from tests.simulation.planted import PLANTED
from tests.simulation.planting import MAX_RUNS, find, make_run, planted
from tests.simulation.run import ENGINES, Run, Totals
from tests.simulation.world import Violation


def simulate(seed: int, runs: int, minutes: float | None, fault: str | None, engine: str | None, steps: int) -> int:
    """Run seeds from ``seed`` on, until one fails. Returns the exit status."""
    start, total = time.perf_counter(), Totals()
    computed = time.process_time()
    for current in range(seed, seed + runs):
        if minutes is not None and time.perf_counter() - start >= 60 * minutes:
            break
        run = Run(current, ENGINES[engine]) if engine else make_run(current, fault)
        try:
            with planted(fault) if fault else nullcontext():
                total += run.simulate()
        except Exception as error:
            report_failure(run, current, fault, engine, error, steps)
            return 1
        if runs == 1:
            print(f"trace of {run.world.trace.count} steps, checksum {run.world.trace.digest:08x}")
    computed = time.process_time() - computed
    print(f"{total}; {total.seconds / 3600 / computed:.1f} hours per second of processor time")
    return 0


def report_failure(run: Run, seed: int, fault: str | None, engine: str | None, error: Exception, steps: int) -> None:
    channel = error.channel if isinstance(error, Violation) else ""
    print(f"The last steps{f' on channel {channel}' if channel else ''} (minutes:seconds, actor, channel, action):")
    for line in run.world.trace.lines(channel, steps):
        print(line)
    if not isinstance(error, Violation):
        traceback.print_exception(error, file=sys.stdout)
    print(f"\nseed {seed} failed: {error or type(error).__name__}")
    options = (f" --fault {fault}" if fault else "") + (f" --engine {engine}" if engine else "")
    print(f"repeat it: python -m tests.simulation --seed {seed}{options}")


def find_faults(seed: int) -> int:
    """Plant each fault, and search it. Returns the exit status."""
    missed = 0
    for name, fault in PLANTED.items():
        start = time.perf_counter()
        found = find(name, seed)
        missed += found is None
        result = f"in run {found[0]}" if found else f"NOT in {MAX_RUNS} runs"
        seconds = time.perf_counter() - start
        print(f"{name:32} found {result:12} {seconds:5.1f} s  {fault.plant.__doc__}", flush=True)
    print(f"{len(PLANTED) - missed} of {len(PLANTED)} planted faults were found")
    return 1 if missed else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="of the first run; random if it is not given")
    parser.add_argument("--runs", type=int, help="number of runs; by default 1, or as many as fit into --minutes")
    parser.add_argument("--minutes", type=float, help="time after which no more run begins")
    parser.add_argument("--steps", type=int, default=60, help="steps that are printed after a failure")
    parser.add_argument("--fault", choices=PLANTED, metavar="NAME", help="plant this fault first")
    parser.add_argument("--engine", choices=ENGINES, help="the backplane; by default a random one in each run")
    parser.add_argument("--faults", action="store_true", help="plant each fault, and search it")
    options = parser.parse_args(arguments)
    seed = SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    if options.faults:
        return find_faults(seed)
    runs = options.runs or (sys.maxsize if options.minutes else 1)
    return simulate(seed, runs, options.minutes or None, options.fault, options.engine, options.steps)


if __name__ == "__main__":
    sys.exit(main())
