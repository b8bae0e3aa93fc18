"""`python -m bench.soak`: a server under churn for ten minutes, every delivery checked, and a chart of its memory.

It exits with status 1 if the server broke a promise or if its memory is not flat at the end. Measurements are written
below bench/results/; ``--publish`` also writes the chart to the documentation.
"""

import argparse
import asyncio
import random
import signal
import sys
import time
from pathlib import Path

from bench.machine import describe
from bench.peers.process import running
from bench.peers.sockbridge import Sockbridge
from bench.soak import samples
from bench.soak.bounds import Bounds
from bench.soak.picture import draw
from bench.soak.report import report
from bench.soak.run import Outcome, Soak, addresses
from bench.soak.samples import Sample
from bench.soak.verdict import judge
from bench.soak.world import World
from twistedsock.bench.measurement import Progress

RESULTS = Path(__file__).parents[1] / "results"
PUBLISHED = Path(__file__).parents[2] / "docs" / "images" / "soak.svg"

MAX_MINUTES = 24 * 60.0


def main() -> int:
    given = _options().parse_args()
    if given.read:
        about, found = samples.read(given.read)
        outcome = Outcome(found)
        outcome.verdict = judge(outcome.points)
        return _end(about, outcome, given)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # the bridge is not to be left behind
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    seconds = given.minutes * 60
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"soaking for {seconds:.0f} s and about a minute; seed {seed}", file=sys.stderr)
    try:
        return _run(Bounds(seconds), seed, given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="how long it is loaded (10)")
    parser.add_argument("--seed", type=int, help="which mix of all that is left to chance; another each time")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="where what is found is written")
    parser.add_argument("--publish", action="store_true", help=f"write the picture to {PUBLISHED.name} as well")
    parser.add_argument("--read", type=Path, metavar="FILE", help="load nothing: draw what an earlier run has found")
    return parser


def _minutes(words: str) -> float:
    minutes = float(words)
    if not 0 < minutes <= MAX_MINUTES:
        raise argparse.ArgumentTypeError(f"between 0 and {MAX_MINUTES:g}")
    return minutes


def _run(bounds: Bounds, seed: int, given: argparse.Namespace) -> int:
    about: dict[str, object] = {**describe(), "seconds": bounds.seconds, "seed": seed}
    minutes = max(1, round(bounds.seconds / 60))
    progress = Progress(sys.stderr, time.monotonic, [bounds.seconds / minutes] * minutes)
    begun = 0

    def told(sample: Sample) -> None:
        nonlocal begun
        done = sample.at / bounds.seconds * minutes
        if done >= begun and begun < minutes:
            begun += 1
            progress.start_step(f"{sample.resident / samples.MIB:.1f} MiB, {sample.connections} connections")
        progress.update(done % 1)

    with running(Sockbridge(*bounds.options())) as server:
        world = World(*addresses(server), bounds, random.Random(seed))
        soak = Soak(server, world, told)
        try:
            outcome = asyncio.run(soak.run())
        finally:
            progress.end()
            file = given.out / f"soak-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
            samples.write(file, about, soak.outcome.samples)
            print(f"all samples: {file}", file=sys.stderr)
    about["tally"] = {**world.tally.seen, "visits": world.tally.visits, "lost": world.tally.lost}
    about["wrongs"] = world.tally.wrongs
    if outcome.before and outcome.after:
        about["at rest"] = {"before": outcome.before.resident, "after": outcome.after.resident}
    samples.write(file, about, outcome.samples)
    return _end(about, outcome, given)


def _end(about: dict[str, object], outcome: Outcome, given: argparse.Namespace) -> int:
    print(report(about, outcome))
    for file in [given.out / "soak.svg", *[PUBLISHED] * given.publish]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(draw(outcome.samples, outcome.verdict).svg())
        print(f"picture: {file}", file=sys.stderr)
    return 1 if about.get("wrongs") or (outcome.verdict and not outcome.verdict.flat) else 0


if __name__ == "__main__":
    sys.exit(main())
