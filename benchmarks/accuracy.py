"""Malignant or benign, 5-fold cross-validation by patient on all nodules: SLIViT and others.

    python -m benchmarks.accuracy                                   # what is not finished yet
    python -m benchmarks.accuracy --methods slivit,volume --folds 0 --seeds 0,1,2
    python -m benchmarks.accuracy --summary --seeds 0,1,2           # table and figure alone
    python -m benchmarks.accuracy --quick                           # two minutes: does all work?

Every method is trained on every fold, pre-training of the backbone included, each in a process of
its own with one thread. A finished job leaves RESULTS/accuracy/METHOD/fold_F_seed_S.csv and .json
and is not run again, so that the benchmark can be spread over several calls. The summary is in
RESULTS/accuracy.csv and accuracy.png.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import nodules
from benchmarks.accuracy_summary import Done, summarise
from benchmarks.methods import METHODS, Task, pretrain
from slivit import option_types as types
from slivit.errors import RunError, UserError, run_script
from slivit.named import DATA_DIR
from slivit.runtime import versions, whole_file, write_json

BACKBONE = "backbone"  # the job that pre-trains, before those of the methods
FEW = 150              # volumes of a quick run


@dataclass(frozen=True)
class Job:
    """One training: a method (or BACKBONE) on a fold with a seed."""

    method: str
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.method}, fold {self.fold}, seed {self.seed}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=types.names, default=list(METHODS), metavar="A,B",
                        help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--folds", type=numbers, default=list(range(nodules.N_FOLDS)),
                        metavar="A,B", help=f"of 0 to {nodules.N_FOLDS - 1} (default: all)")
    parser.add_argument("--seeds", type=numbers, default=[0], metavar="A,B",
                        help="(default 0); where nothing is random, and for the widest network, "
                             "seed 0 alone")
    parser.add_argument("--workers", type=types.positive_int, default=2, metavar="N",
                        help="trainings at a time (default %(default)s)")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), metavar="DIR",
                        help="(default %(default)s)")
    parser.add_argument("--scratch", type=Path, default=Path("runs/benchmarks"), metavar="DIR",
                        help="for the trainings' own files and logs (default %(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help=f"{FEW} volumes, one epoch, fold 0 alone; everything goes to "
                             "SCRATCH/quick")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # METHOD:FOLD:SEED, in this process
    return parser


def numbers(text: str) -> list[int]:
    """Return the numbers of a comma-separated list, each once."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers such as 0,1,2") from None


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    args = build_parser().parse_args(argv)
    unknown = [name for name in args.methods if name not in METHODS]
    if unknown or not set(args.folds) <= set(range(nodules.N_FOLDS)) or min(args.seeds) < 0:
        raise UserError(f"--methods {', '.join(METHODS)}; --folds 0 to {nodules.N_FOLDS - 1}; "
                        "--seeds 0 or more; found "
                        f"{', '.join(unknown) or f'folds {args.folds}, seeds {args.seeds}'}")
    if args.quick:
        args.folds = [0]
        if not args.job:
            args.scratch = args.scratch / "quick"
            args.results = args.scratch / "results"
    args.results, args.scratch = args.results.absolute(), args.scratch.absolute()
    if args.job:
        method, fold, seed = args.job.split(":")
        run_job(Job(method, int(fold), int(seed)), args)
        return
    failed = [] if args.summary else run_all(args)
    text = summarise(expected(args), args.results)
    print(text)
    if failed:
        raise RunError("failed: " + "; ".join(failed))


def jobs_of(method: str, folds: list[int], seeds: list[int]) -> list[Job]:
    """Return the jobs of a method."""
    facts = METHODS[method]
    return [Job(method, fold, seed) for seed in facts.seeds or seeds
            for fold in folds if facts.folds is None or fold in facts.folds]


def expected(args: argparse.Namespace) -> dict[str, list[Done]]:
    """Return the files of the jobs asked for, by method, whether they are there or not."""
    return {method: [done(job, args.results) for job in jobs_of(method, args.folds, args.seeds)]
            for method in args.methods}


def done(job: Job, results: Path) -> Done:
    """Return where a job's results are."""
    return Done(results / "accuracy" / job.method / f"fold_{job.fold}_seed_{job.seed}.csv",
                job.fold, job.seed, METHODS[job.method].settings)


def run_all(args: argparse.Namespace) -> list[str]:
    """Run what is not finished, backbones first; return what failed, each with its log."""
    jobs = [job for method in args.methods for job in jobs_of(method, args.folds, args.seeds)
            if not done(job, args.results).finished]
    backbones = dict.fromkeys(Job(BACKBONE, job.fold, job.seed) for job in jobs
                              if METHODS[job.method].pretrained)
    failed = []
    for stage in (list(backbones), jobs):
        with ThreadPoolExecutor(args.workers) as pool:
            failed += [line for line in pool.map(lambda job: start(job, args), stage) if line]
        if failed:  # a backbone that failed would be tried again by each method
            break
    return failed


def start(job: Job, args: argparse.Namespace) -> str | None:
    """Run a job in a process of its own; return what to say of it if it failed."""
    log = args.scratch / "logs" / f"{job.method}_{job.fold}_{job.seed}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.accuracy",
               "--job", f"{job.method}:{job.fold}:{job.seed}", "--results", str(args.results),
               "--scratch", str(args.scratch), *(["--quick"] if args.quick else [])]
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=DATA_DIR.parent, stdout=file, stderr=file, check=False,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    print(f"{job}: {f'failed, see {log}' if code else 'done'}", flush=True)
    return f"{job} (see {log})" if code else None


def run_job(job: Job, args: argparse.Namespace) -> None:
    """Train one method on one fold, write its predictions of the test part and what it took."""
    fold = nodules.make_fold(job.fold, *nodules.load(FEW if args.quick else None))
    task = Task(fold, job.seed, args.scratch, args.quick)
    if job.method == BACKBONE:
        pretrain(task)
        return
    result = METHODS[job.method].run(task)
    files = done(job, args.results)
    rows = fold.rows("test")
    table = fold.volumes.table.loc[rows, ["nodule", "patient"]].assign(
        truth=fold.truth[rows], pred=result.pred)
    files.predictions.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(files.predictions) as part:
        table.to_csv(part, index=False)
    write_json(files.facts, {  # last: it says that the job is finished
        "method": job.method, "fold": job.fold, "seed": job.seed,
        "parameters": result.n_parameters, "seconds": round(result.train_seconds, 1),
        "settings": files.settings, "quick": args.quick, "versions": library_versions()})
    shutil.rmtree(task.folder(job.method), ignore_errors=True)


def library_versions() -> dict[str, str]:
    """Return the versions that the results depend on."""
    import monai
    import sklearn

    return versions() | {"monai": monai.__version__, "scikit-learn": sklearn.__version__}


if __name__ == "__main__":
    run_script(main)
