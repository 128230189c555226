"""Random signals, kills and damage on the real scripts, for as long as it is told.

    python -m tests.soak --minutes 60 --workers 2
    python -m tests.soak --only double,kill --minutes 5 --seed 1
    python -m tests.soak --trial double:17 --seed 1 --work_dir /tmp/soak_x   # one trial again

Every trial has a folder of its own in --work_dir; those of failed ones stay, with story.txt: the
commands, the moments of the signals, what was damaged, and what went wrong. A trial depends on the
seed, its kind and its number, but signals fall where the machine's speed of that moment puts them.
The reference runs in a --work_dir are used again: name a new one when the code has changed.
The exit code is 1 if any trial failed.
"""

import argparse
import itertools
import json
import queue
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slivit.utils.errors import RunError, UserError, run_script
from tests.soak import damage, signals, tamper, twice
from tests.soak.folders import broken_files
from tests.soak.inputs import write_inputs
from tests.soak.ledger import Ledger
from tests.soak.processes import Launcher
from tests.soak.scenarios import SCENARIOS
from tests.soak.trial import Bench, Reference, Trial

KINDS: dict[str, tuple[float, Callable[[Trial], None]]] = {  # with their shares of all trials
    "double": (5, signals.double), "single": (5, signals.single), "kill": (4, signals.kill),
    "damage": (5, damage.damage), "tamper": (4, tamper.tamper), "twice": (2, twice.twice)}
REFERENCES = "references.json"  # seconds of each, written when all are done
IMPORTS = "imports"             # among them: what a fresh process takes longer


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program's options."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60.0, metavar="X",
                        help="no trial begins after so many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N",
                        help="of everything random (default %(default)s)")
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--trial", metavar="KIND:N", help="this trial alone")
    parser.add_argument("--workers", type=int, default=1, metavar="N",
                        help="trials at a time (default %(default)s)")
    parser.add_argument("--work_dir", type=Path, metavar="DIR",
                        help="where everything is written: an empty folder, or that of an earlier "
                             "call (default: a new one in the system's temporary folder)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Prepare, try until the time is over, and say what was found."""
    args = build_parser().parse_args(argv)
    kinds = chosen_kinds(args)
    work = (args.work_dir or Path(tempfile.mkdtemp(prefix="soak_"))).absolute()
    if work.is_dir() and any(work.iterdir()) and not (work / REFERENCES).exists():
        raise UserError(f"--work_dir {work}: is not empty, and not of an earlier call; name "
                        "another folder")
    bench = Bench(work, args.seed)
    launchers = [Launcher() for _ in range(args.workers)]
    print(f"seed {args.seed}, in {work}", flush=True)
    try:
        if not (work / REFERENCES).exists():
            prepare(bench, launchers)
        load_references(bench)
        ledger = Ledger()
        planned = plan(kinds, args.seed)
        if args.trial:
            planned = [(kinds[0], int(args.trial.partition(":")[2]))]
        soak(bench, launchers, planned, ledger, time.monotonic() + 60 * args.minutes)
    finally:
        for launcher in launchers:
            launcher.close()
    again = f"python -m tests.soak --seed {args.seed} --work_dir {work} --trial"
    print(ledger.report(again), flush=True)
    if ledger.failed:
        sys.exit(1)


def chosen_kinds(args: argparse.Namespace) -> list[str]:
    """Return the kinds to be tried.

    Raises:
        UserError: there is no such kind, or no such trial.
    """
    kinds = args.only.split(",") if args.only else list(KINDS)
    if args.trial:
        kind, _, number = args.trial.partition(":")
        kinds = [kind]
        if not number.isdecimal():
            raise UserError(f"--trial {args.trial}: expected a kind and a number, as double:17")
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise UserError(f"no such kind: {', '.join(sorted(unknown))}; there are "
                        f"{', '.join(KINDS)}")
    return kinds


def plan(kinds: Sequence[str], seed: int) -> Iterator[tuple[str, int]]:
    """Yield the kind and the number of one trial after the other, without end."""
    rng, numbers = random.Random(seed), {kind: itertools.count() for kind in kinds}
    while True:
        kind = rng.choices(kinds, [KINDS[name][0] for name in kinds])[0]
        yield kind, next(numbers[kind])


def prepare(bench: Bench, launchers: list[Launcher]) -> None:
    """Write the inputs, run every scenario once, and measure what imports take.

    Raises:
        RunError: a scenario fails with nothing happening to it.
    """
    write_inputs(bench.work)
    references = {}
    free = queue.SimpleQueue()
    for launcher in launchers:
        free.put(launcher)

    def run(name: str, fresh: bool = False) -> float:
        launcher = free.get()
        folder = bench.work / "references" / (name + "_fresh" * fresh)
        trial = Trial(bench, launcher, "reference", 0, folder=folder)
        ended = trial.run(SCENARIOS[name].words(bench.work, folder), fresh=fresh)
        free.put(launcher)
        problems = [*trial.problems, *broken_files(folder)]
        if ended.code != 0 or problems:
            raise RunError(f"{name}: {' '.join(trial.story)} {problems} {ended.err}")
        return ended.seconds

    needed = sorted({scenario.needs for scenario in SCENARIOS.values() if scenario.needs})
    others = [name for name in SCENARIOS if name not in needed]
    with ThreadPoolExecutor(len(launchers)) as pool:
        for names in (needed, others):
            references |= zip(names, pool.map(run, names), strict=True)
        references[IMPORTS] = max(0.0, run("plain", fresh=True) - references["plain"])
    (bench.work / REFERENCES).write_text(json.dumps(references, indent=2), encoding="utf-8")


def load_references(bench: Bench) -> None:
    """Take the reference runs that there are."""
    references = json.loads((bench.work / REFERENCES).read_text(encoding="utf-8"))
    print("references: " + ", ".join(f"{name} {seconds:.1f} s"
                                     for name, seconds in references.items()), flush=True)
    bench.import_seconds = references.pop(IMPORTS)
    bench.references = {name: Reference(bench.work / "references" / name, seconds)
                        for name, seconds in references.items()}


def soak(bench: Bench, launchers: list[Launcher], planned: Iterable[tuple[str, int]],
         ledger: Ledger, deadline: float) -> None:
    """Try what is planned, a trial at a time with each launcher, until the deadline."""
    planned, lock, stop = iter(planned), threading.Lock(), threading.Event()

    def work(launcher: Launcher) -> None:
        while not stop.is_set() and time.monotonic() < deadline:
            with lock:
                kind, number = next(planned, (None, 0))
            if kind is None:
                return
            trial = Trial(bench, launcher, kind, number)
            try:
                KINDS[kind][1](trial)
            except Exception:  # a fault of this program is not to end the others' trials
                trial.problems.append(f"the soak program itself: {traceback.format_exc()}")
            ledger.add(trial)

    with ThreadPoolExecutor(len(launchers)) as pool:
        running = [pool.submit(work, launcher) for launcher in launchers]
        try:
            for one in running:
                one.result()
        except KeyboardInterrupt:
            print("stopping after the trials that run", flush=True)
            stop.set()


if __name__ == "__main__":
    run_script(main)
