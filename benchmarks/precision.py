"""What numbers of half the size cost: the recommended recipe in float32 and in bfloat16.

    python -m benchmarks.precision                  # what is not finished yet
    python -m benchmarks.precision --seeds 0,1      # with a second seed
    python -m benchmarks.precision --quick          # does all work?

The folds of benchmarks.accuracy; both ways are run on the same machine, pre-training included,
with `--amp off` and `--amp bf16`. The summary is in RESULTS/precision.csv.
"""

import dataclasses
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import pandas as pd

from benchmarks import job_options, jobs, methods, variants
from benchmarks.accuracy import make_task
from benchmarks.accuracy_summary import flat, scores
from benchmarks.jobs import Benchmark, Done, pooled
from benchmarks.tasks import Method, Result, Task
from slivit.config import PRECISIONS
from slivit.utils.errors import run_script
from slivit.utils.files import atomic_write

REFERENCE = "float32"


def _method(amp: str) -> Method:
    def run(task: Task) -> Result:
        return methods.slivit(dataclasses.replace(task, amp=amp))

    return Method(run, f"{variants.VARIANTS[methods.RECOMMENDED]}, --amp {amp}")


BENCHMARK = Benchmark("precision", {PRECISIONS[amp]: _method(amp) for amp in ("off", "bf16")},
                      make_task)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    args = job_options.build_parser(BENCHMARK, __doc__).parse_args(argv)
    job_options.check(args, BENCHMARK)
    jobs.run(BENCHMARK, args, summarise)


def summarise(done: dict[str, list[Done]], results: Path) -> str:
    """Write precision.csv, of the folds and seeds that are finished both ways; return its text."""
    both = [{(one.job.fold, one.job.seed) for one in mine if one.finished}
            for mine in done.values()]
    shared = set.intersection(*both) if len(both) == len(BENCHMARK.methods) else set()
    if not shared:
        return "no fold is finished in both types of number"
    rows = []
    for seeds in ({seed} for seed in sorted({seed for _, seed in shared})):
        rows += _rows(done, shared, seeds)
    if len({seed for _, seed in shared}) > 1:
        rows += _rows(done, shared, {seed for _, seed in shared})
    table = flat(rows)
    results.mkdir(parents=True, exist_ok=True)
    with atomic_write(results / "precision.csv") as part:
        table.to_csv(part, index=False)
    return table.to_string(index=False)


def _rows(done: dict[str, list[Done]], shared: set[tuple[int, int]], seeds: set[int]
          ) -> list[dict]:
    """Return the rows of both ways on what they share, predictions averaged over the seeds."""
    tables = {name: pooled([one for one in mine if (one.job.fold, one.job.seed) in shared
                            and one.job.seed in seeds]) for name, mine in done.items()}
    keys = ("n", "folds", "roc_auc", "roc_auc_ci", "difference", "difference_ci")
    minutes = {name: pd.Series([one.read_facts()["seconds"] / 60 for one in mine
                                if (one.job.fold, one.job.seed) in shared
                                and one.job.seed in seeds]).mean()
               for name, mine in done.items()}
    return [{"precision": row["method"], "seeds": " ".join(map(str, sorted(seeds))),
             **{key: row[key] for key in keys}, "minutes": minutes[row["method"]]}
            for row in scores(tables, REFERENCE)]


if __name__ == "__main__":
    run_script(main)
