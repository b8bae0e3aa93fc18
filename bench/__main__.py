"""`python -m bench`: measure sockbridge and other servers side by side, and write the report.

Without arguments it runs every workload and writes bench/RESULTS.md and the pictures of docs/images. A part of the
workloads, or a quick run, is written below bench/results/, which also keeps all measurements.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.contestant import Contestant
from bench.machine import describe
from bench.measuring import MAX_SECONDS
from bench.peers.process import allow_files
from bench.results import Results, read
from bench.run import Turn, capacity, measure, turns, with_rates
from bench.servers import OURS, servers
from bench.workloads import GROUPS, WORKLOADS, Workload
from twistedsock.bench.measurement import duration

BENCH = Path(__file__).parent
RAW = BENCH / "results"

SECONDS, QUICK_SECONDS = 1.5, 0.1
"""Duration of one measurement."""

MINUTES = 60.0
"""Maximum duration of the whole run."""


def main() -> int:
    given = _options().parse_args()
    if given.read:
        found = read(given.read)
        report.write(found, _places(given, whole=bool(found.about.get("whole"))))
        return 0
    workloads = _chosen(given.workloads)
    chosen = _servers(given.servers)
    whole = len(workloads) == len(WORKLOADS) and not given.servers and not given.quick
    if given.quick:
        workloads = [workload.small() for workload in workloads]
    seconds, rounds = (QUICK_SECONDS, 1) if given.quick else (SECONDS, given.rounds)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # no server must be left behind
    try:
        return _run(workloads, chosen, seconds, rounds, given, whole)
    except KeyboardInterrupt:
        print(f"interrupted; the results so far are in {RAW}", file=sys.stderr)
        return 130


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workloads", nargs="*", help=f"groups ({', '.join(GROUPS)}) or single workloads; all")
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="which servers take part; all that are installed")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is measured (3)")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"no measurement begins after these ({MINUTES:g})"
    )
    parser.add_argument("--quick", action="store_true", help="small and short, to see that all works: no figures")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the report and its pictures")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="measure nothing: report what an earlier run has found"
    )
    parser.add_argument("--list", action="version", version=_list(), help="list workloads and servers, and leave")
    return parser


def _list() -> str:
    lines = [f"{workload.name:26} {workload.group}" for workload in WORKLOADS]
    return "\n".join([*lines, "", " ".join(server.name for server in servers())])


def _places(given: argparse.Namespace, whole: bool) -> report.Places:
    if given.out:
        return report.Places(given.out / "RESULTS.md", given.out)
    if whole:
        return report.Places(BENCH / "RESULTS.md", BENCH.parent / "docs" / "images")
    return report.Places(RAW / "RESULTS.md", RAW)


def _chosen(names: Sequence[str]) -> list[Workload]:
    unknown = set(names) - GROUPS.keys() - {workload.name for workload in WORKLOADS}
    if unknown:
        raise SystemExit(f"there is no workload {', '.join(sorted(unknown))}; --list shows all")
    return [workload for workload in WORKLOADS if not names or {workload.name, workload.group} & set(names)]


def _servers(names: Sequence[str] | None) -> list[Contestant]:
    """Raises SystemExit for an unknown name, or for a requested server that is not installed."""
    known = {server.name: server for server in servers()}
    for name in names or ():
        if name not in known:
            raise SystemExit(f"there is no server {name}; there are {', '.join(known)}")
        if missing := known[name].missing():
            raise SystemExit(f"{name}: {missing}")
    return [server for name, server in known.items() if not names or name in names]


def _run(
    workloads: list[Workload],
    chosen: list[Contestant],
    seconds: float,
    rounds: int,
    given: argparse.Namespace,
    whole: bool,
) -> int:
    allow_files()
    places = _places(given, whole)
    present = [server for server in chosen if not server.missing()]
    about = describe()
    about["versions"] = {server.name: server.version() for server in present}
    about["left out"] = {server.name: server.missing() for server in chosen if server.missing()}
    about.update({"rounds": rounds, "seconds": seconds, "quick": given.quick, "whole": whole})
    if any(workload.share for workload in workloads):
        ours = next(server for server in servers() if server.name == OURS)
        about["capacity"] = capacity(ours, seconds)
        workloads = with_rates(workloads, float(str(about["capacity"])))
    plan = turns(workloads, present, rounds)
    for name, reason in about["left out"].items():  # type: ignore[attr-defined]
        print(f"{name} is left out: {reason}", file=sys.stderr)
    print(f"{len(plan)} measurements, about {duration(_estimate(plan, seconds, given.minutes))}", file=sys.stderr)
    results = Results({**about, "workloads": {workload.name: workload.rate for workload in workloads if workload.rate}})
    raw = RAW / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    measure(plan, results, seconds, given.minutes, sys.stderr, raw)
    print(f"all figures: {raw}", file=sys.stderr)
    report.write(results, places)
    print(f"report: {places.report}", file=sys.stderr)
    return 0


def _estimate(plan: Sequence[Turn], seconds: float, minutes: float) -> float:
    return min(minutes * 60 + MAX_SECONDS, sum(turn.seconds(seconds) for turn in plan))


if __name__ == "__main__":
    sys.exit(main())
