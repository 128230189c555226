"""Trainings as jobs: each in a process of its own with one thread, never run twice.

A finished job leaves RESULTS/NAME/METHOD/fold_F_seed_S.csv (its predictions) and .json (what it
took); `n_SIZE` stands in the name where it learned from some of the volumes alone. `make results`
packs them into one archive for each benchmark (benchmarks.archive), where they are still finished.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import archive, nodules
from benchmarks.tasks import BACKBONE, Method, Task, pretrain
from slivit.data.named_sets import DATA_DIR
from slivit.utils.errors import RunError
from slivit.utils.files import atomic_write, write_json
from slivit.utils.runtime import versions

FEW = 150  # scans of a quick run


@dataclass(frozen=True)
class Job:
    """One training: a method (or BACKBONE) on a fold with a seed, from `size` volumes (0: all)."""

    method: str
    fold: int
    seed: int
    size: int = 0

    def __str__(self) -> str:
        few = f", {self.size} volumes" if self.size else ""
        return f"{self.method}, fold {self.fold}, seed {self.seed}{few}"

    @property
    def code(self) -> str:
        """The job on a command line."""
        return f"{self.method}:{self.fold}:{self.seed}:{self.size}"

    @staticmethod
    def of_code(code: str) -> "Job":
        """Return the job of a `code`."""
        method, *numbers = code.split(":")
        return Job(method, *map(int, numbers))


@dataclass(frozen=True)
class Benchmark:
    """Methods that are compared on the same folds.

    Attributes:
        name: of the module benchmarks.NAME and of the folder of results.
        methods: by name.
        make_task: (job, scratch, quick) -> the task; `scratch` is for the trainings' own files.
        n_folds: how many there are.
        sizes: numbers of volumes to learn from; 0: all.
    """

    name: str
    methods: dict[str, Method]
    make_task: Callable[[Job, Path, bool], Task]
    n_folds: int = nodules.N_FOLDS
    sizes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Done:
    """Where a job's results are, or will be.

    Attributes:
        predictions: a CSV of nodule (of regions: crop), patient where there are several, truth,
            pred (or truth_LABEL, pred_LABEL).
        job: of which they are.
        settings: with which the results must have been made.
    """

    predictions: Path
    job: Job
    settings: str

    @property
    def facts(self) -> Path:
        """The JSON of parameters, seconds, settings and versions."""
        return self.predictions.with_suffix(".json")

    @property
    def finished(self) -> bool:
        """Whether the results are there, made with these settings."""
        return self._is_file or (self.read_facts() or {}).get("settings") == self.settings

    @property
    def _is_file(self) -> bool:
        """Whether the results are there in files of their own, made with these settings."""
        return (self.predictions.exists() and self.facts.exists() and json.loads(
            self.facts.read_text(encoding="utf-8"))["settings"] == self.settings)

    @property
    def _place(self) -> tuple[Path, str, str]:
        """Where the archive has the job: folder, method and name."""
        return self.predictions.parents[1], self.predictions.parent.name, self.predictions.stem

    def read_facts(self) -> dict | None:
        """Return parameters, seconds, settings and versions; None where there are none."""
        if self._is_file:
            return json.loads(self.facts.read_text(encoding="utf-8"))
        return archive.facts_of(*self._place)

    def read_predictions(self) -> pd.DataFrame:
        """Return the predictions of a finished job."""
        if self._is_file:
            return pd.read_csv(self.predictions, dtype={"nodule": str, "patient": str})
        return archive.predictions_of(*self._place)








def jobs_of(benchmark: Benchmark, method: str, folds: list[int], seeds: list[int],
            sizes: Iterable[int] = (0,)) -> list[Job]:
    """Return the jobs of a method."""
    facts = benchmark.methods[method]
    return [Job(method, fold, seed, size) for size in sizes
            if facts.sizes is None or size in facts.sizes
            for seed in facts.seeds or seeds
            for fold in folds if facts.folds is None or fold in facts.folds]


def done(benchmark: Benchmark, job: Job, results: Path) -> Done:
    """Return where a job's results are."""
    few = f"_n_{job.size}" if job.size else ""
    name = f"fold_{job.fold}_seed_{job.seed}{few}.csv"
    return Done(results / benchmark.name / job.method / name, job,
                benchmark.methods[job.method].settings)


def run(benchmark: Benchmark, args: argparse.Namespace,
        summarise: Callable[[dict[str, list[Done]], Path], str],
        sizes: Iterable[int] | None = None) -> None:
    """Do what checked options ask: one job in this process, or all not finished, and a summary.

    Args:
        benchmark: whose methods are run.
        args: of `build_parser`, after `check`.
        summarise: (where each method's results are, or will be; results) -> text to print.
        sizes: those asked for; None for all.

    Raises:
        RunError: a job failed; the others are done and summarised.
    """
    if args.job:
        run_job(benchmark, args)
        return
    wanted = {method: jobs_of(benchmark, method, args.folds, args.seeds, sizes or benchmark.sizes)
              for method in args.methods}
    failed = [] if args.summary else run_all(benchmark, sum(wanted.values(), []), args)
    shown = {method: [done(benchmark, job, args.results) for job in mine]
             for method, mine in wanted.items()}
    if not (args.summary or args.quick):
        shown = _begun(benchmark, max(args.seeds), args.results)
    print(summarise(shown, args.results))
    if failed:
        raise RunError("failed: " + "; ".join(failed))


def _begun(benchmark: Benchmark, last_seed: int, results: Path) -> dict[str, list[Done]]:
    """Return all jobs of the methods of which one is finished, so that a summary never shrinks."""
    every = {method: [done(benchmark, job, results) for job in jobs_of(
        benchmark, method, list(range(benchmark.n_folds)), list(range(last_seed + 1)),
        benchmark.sizes)] for method in benchmark.methods}
    return {method: mine for method, mine in every.items() if any(one.finished for one in mine)}


def run_all(benchmark: Benchmark, jobs: list[Job], args: argparse.Namespace) -> list[str]:
    """Run what is not finished, backbones first; return what failed, each with its log."""
    jobs = [job for job in jobs if not done(benchmark, job, args.results).finished]
    backbones = dict.fromkeys(Job(BACKBONE, job.fold, job.seed) for job in jobs
                              if benchmark.methods[job.method].pretrained)
    failed = []
    for stage in (list(backbones), jobs):
        with ThreadPoolExecutor(args.workers) as pool:
            failed += [line for line in pool.map(lambda job: _start(benchmark, job, args), stage)
                       if line]
        if failed:  # a backbone that failed would be tried again by each method
            break
    return failed


def _start(benchmark: Benchmark, job: Job, args: argparse.Namespace) -> str | None:
    """Run a job in a process of its own; return what to say of it if it failed."""
    log = args.scratch / "logs" / benchmark.name / f"{job.code.replace(':', '_')}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", "--job", job.code,
               "--results", str(args.results), "--scratch", str(args.scratch),
               *(["--quick"] if args.quick else [])]
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=DATA_DIR.parent, stdout=file, stderr=file, check=False,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    print(f"{job}: {f'failed, see {log}' if code else 'done'}", flush=True)
    return f"{job} (see {log})" if code else None


def run_job(benchmark: Benchmark, args: argparse.Namespace) -> None:
    """Train one method on one fold, write its predictions of the test part and what it took."""
    job = args.job
    task = benchmark.make_task(job, args.scratch, args.quick)
    if job.method == BACKBONE:
        pretrain(task)
        return
    result = benchmark.methods[job.method].run(task)
    files = done(benchmark, job, args.results)
    files.predictions.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in ("nodule", "patient") if name in task.fold.scans.table]
    table = task.fold.scans.table.loc[task.fold.rows("test"), names]
    several = len(task.fold.target.labels) > 1
    for k, label in enumerate(task.fold.target.labels):
        end = f"_{label}" if several else ""
        table[f"truth{end}"] = task.fold.truth[task.fold.rows("test"), k]
        table[f"pred{end}"] = result.pred[:, k]
    with atomic_write(files.predictions) as part:  # float32 has no more digits
        table.to_csv(part, index=False, float_format="%.7g")
    write_json(files.facts, {  # last: it says that the job is finished
        "method": job.method, "fold": job.fold, "seed": job.seed, "size": job.size,
        "parameters": result.n_parameters, "seconds": round(result.train_seconds, 1),
        "settings": files.settings, "quick": args.quick, "versions": library_versions()})
    shutil.rmtree(task.folder(job.method), ignore_errors=True)


def library_versions() -> dict[str, str]:
    """Return the versions that the results depend on."""
    import monai
    import sklearn

    return versions() | {"monai": monai.__version__, "scikit-learn": sklearn.__version__}


def pooled(jobs: list[Done]) -> pd.DataFrame:
    """Return a row per scan: nodule (index), patient, fold, truth, pred (mean) and pred of seeds.

    Each scan is in the test part of one fold, so that its predictions are of models that have not
    seen its patient.
    """
    parts = [one.read_predictions().assign(fold=one.job.fold, seed=one.job.seed) for one in jobs]
    table = pd.concat(parts, ignore_index=True)
    first = table.drop_duplicates("nodule").set_index("nodule").sort_index()
    mean = first.drop(columns=[name for name in first if name.startswith("pred")] + ["seed"])
    for name in [name for name in table if name.startswith("pred")]:
        by_seed = table.pivot(index="nodule", columns="seed", values=name)
        mean[name] = by_seed.mean(axis=1)
        if name == "pred":
            mean = mean.join(by_seed.add_prefix("seed_"))
    return mean
