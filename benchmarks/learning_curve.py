"""How many volumes each method needs: the folds of the accuracy benchmark with fewer to learn from.

    python -m benchmarks.learning_curve                       # what is not finished yet
    python -m benchmarks.learning_curve --sizes 25,100 --folds 0,1
    python -m benchmarks.learning_curve --summary

A size counts the volumes of training and validation together; a smaller set is part of a larger
one. The test parts stay whole. With fewer volumes all methods are trained for more epochs, by the
root of what is missing, in smaller batches. `slivit` and `plain` start from backbones that have
seen 2D images of all the fold's training patients, as the method assumes: labelled images are
plenty, volumes are few. `plain_few_images` and those with `few_images` in their name have images
of the volumes' patients alone, those with `ssl` all training scans without labels. Results at all
volumes are those of benchmarks.accuracy. The summary is in RESULTS/learning_curve.csv, .json and
.png.
"""

import dataclasses
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

from benchmarks import accuracy, job_options, jobs, nodules, pretraining, probes
from benchmarks.curve_summary import summarise
from benchmarks.jobs import Benchmark, Done, Job
from benchmarks.methods import METHODS, plain, plain_random
from benchmarks.tasks import Method, Result, Task
from slivit.utils.errors import UserError, run_script

SIZES = (25, 50, 100, 200, 400, 800)
LEAST = 8  # volumes; two of them for validation
SMALLEST_BATCH = 8


def plain_few_images(task: Task) -> Result:
    """The plain recipe whose backbone has seen no more patients than its integrator."""
    return plain(dataclasses.replace(task, pretraining=task.fold))


CURVE = {name: METHODS[name] for name in ("slivit", "plain", "resnet18_narrow",
                                          "resnet18_half_rate", "densenet", "shape_boosting",
                                          "frozen_logistic", "volume", "few_volumes")}
CURVE["plain_few_images"] = Method(
    plain_few_images, METHODS["plain"].settings + "; images of the same patients alone")
CURVE["plain_random"] = Method(
    plain_random, METHODS["plain"].settings + "; on random weights instead", sizes=(25, 50, 100))
CURVE["probe_random"] = Method(probes.probe_random, f"{probes.RANDOM}, {probes.LOGISTIC}")
CURVE["probe_few_images"] = Method(
    probes.probe_few_images, METHODS["frozen_logistic"].settings + "; images of the same patients "
    "alone", sizes=(25, 50))
CURVE |= pretraining.METHODS


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks of its method."""
    whole = nodules.make_fold(job.fold, *nodules.load(jobs.FEW if quick else None))
    name = f"fold_{job.fold}_seed_{job.seed}"
    if not job.size:
        return Task(whole, job.seed, scratch, quick, whole, name)
    few = nodules.with_few(whole, job.size, job.seed)
    there = len(whole.rows("train", "val"))
    return Task(few, job.seed, scratch, quick, whole, f"{name}_n_{job.size}",
                stretch=(there / job.size) ** 0.5, b_size=max(SMALLEST_BATCH, job.size // 8))


BENCHMARK = Benchmark("learning_curve", CURVE, make_task, sizes=SIZES)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    parser = job_options.build_parser(BENCHMARK, __doc__)
    parser.add_argument("--sizes", type=job_options.numbers, default=list(SIZES), metavar="A,B",
                        help=f"volumes (default {','.join(map(str, SIZES))})")
    args = parser.parse_args(argv)
    job_options.check(args, BENCHMARK)
    most = len(nodules.load()[0]) * (nodules.N_FOLDS - 1) // nodules.N_FOLDS
    if not LEAST <= min(args.sizes) <= max(args.sizes) < most:
        raise UserError(f"--sizes {','.join(map(str, args.sizes))}: expected {LEAST} to "
                        f"{most - 1} volumes")
    jobs.run(BENCHMARK, args, _with_all_volumes, sorted(args.sizes))


def _with_all_volumes(by_method: dict[str, list[Done]], results: Path) -> str:
    """Summarise what is finished, here and, at all volumes, of benchmarks.accuracy."""
    everything = sum(by_method.values(), [])
    at_all = accuracy.BENCHMARK
    everything += [jobs.done(at_all, job, results) for job in dict.fromkeys(dataclasses.replace(
        one.job, size=0) for one in everything if one.job.method in at_all.methods)]
    return summarise([one for one in everything if one.finished], results)


if __name__ == "__main__":
    run_script(main)
