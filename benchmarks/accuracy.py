"""Malignant or benign, 5-fold cross-validation by patient on all nodules: SLIViT and others.

    python -m benchmarks.accuracy                                   # what is not finished yet
    python -m benchmarks.accuracy --methods slivit,volume --folds 0 --seeds 0,1,2
    python -m benchmarks.accuracy --summary --seeds 0,1,2           # table and figure alone
    python -m benchmarks.accuracy --quick                           # two minutes: does all work?

Every method is trained on every fold, pre-training of the backbone included, each in a process of
its own with one thread. A finished job is not run again, so that the benchmark can be spread over
several calls. The summary is in RESULTS/accuracy.csv and accuracy.png.
"""

from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

from benchmarks import job_options, jobs, nodules, pretraining
from benchmarks.accuracy_summary import summarise
from benchmarks.jobs import Benchmark, Job
from benchmarks.methods import METHODS
from benchmarks.tasks import Task
from slivit.utils.errors import run_script


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks of its method."""
    fold = nodules.make_fold(job.fold, *nodules.load(jobs.FEW if quick else None))
    return Task(fold, job.seed, scratch, quick, fold, f"fold_{job.fold}_seed_{job.seed}")


BENCHMARK = Benchmark("accuracy", METHODS | {"ssl_few": pretraining.METHODS["ssl_few"]}, make_task)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    args = job_options.build_parser(BENCHMARK, __doc__).parse_args(argv)
    job_options.check(args, BENCHMARK)
    jobs.run(BENCHMARK, args, summarise)


if __name__ == "__main__":
    run_script(main)
