"""Few labels where grey values count: which regions of the brain does a crop of a T1 scan hold?

    python -m benchmarks.regions                       # what is not finished yet
    python -m benchmarks.regions --sizes 25,100 --seeds 0
    python -m benchmarks.regions --summary

The scan and its atlas are those of Debian's package mricron-data (`apt-get install mricron-data`),
read where they lie. 2,000 crops of 24 x 48 x 48 voxels (1.5 x 1 x 1 mm) of the left hemisphere are
the pool to learn from, 400 of the right one, mirrored, are the test. Eight labels say whether a
crop has at least 150 voxels of a region. A size counts the labelled crops of training and
validation together; a seed draws them, and the weights. With fewer crops all methods are trained
for more epochs, by the root of what is missing, in smaller batches. The summary is in
RESULTS/regions.csv and regions.png, some of the crops in regions_crops.png.

What this is not: there is one person, anatomy alone and no disease. Crops overlap, and the halves
of one brain are much alike, so that nothing follows about other people or scanners.
"""

import argparse
import dataclasses
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np

from benchmarks import job_options, jobs, region_crops
from benchmarks.jobs import Benchmark, Done, Job
from benchmarks.nodules import LEFT_OUT, Fold, Nodules
from benchmarks.region_crops import CROPS, REGIONS, TEMPLATES, Crops
from benchmarks.region_methods import AMP, AUGMENTATION, METHODS
from benchmarks.region_summary import draw_crops, summarise
from benchmarks.tasks import Task
from slivit.cli import types
from slivit.config import Target
from slivit.utils.errors import UserError, run_script
from slivit.utils.runtime import derive_seed

SIZES = (25, 50, 100, 200, 400, 800)
LEAST, MOST = 16, max(SIZES)  # labelled crops; the first MOST in a seed's order may be labelled
VAL_PARTS = 8  # one of so many labelled crops is for validation
SMALLEST_BATCH = 8
TARGET = Target("multilabel", REGIONS)


def chosen(quick: bool) -> Crops:
    """Return how crops are drawn: in a quick run there are few."""
    return dataclasses.replace(CROPS, n_pool=jobs.FEW, n_test=jobs.FEW // 3) if quick else CROPS


def crops_in(scratch: Path, quick: bool, templates: Path = TEMPLATES) -> Nodules:
    """Return the crops, made where they are not there yet."""
    folder, crops = scratch / "regions_crops", chosen(quick)
    if not region_crops.is_made(folder, crops):
        region_crops.make(folder, region_crops.read_templates(templates), crops)
    return region_crops.load(folder)


def make_fold(crops: Nodules, size: int, seed: int) -> Fold:
    """Return what a size and a seed let a method learn from, and the crops of the test.

    The pool is put in a random order of the seed, of which the first MOST may be labelled. One of
    eight is for validation. A smaller set is part of a larger one, and each part begins with crops
    that have both classes of every label.
    """
    table, pool = crops.table, shuffled_pool(crops, seed)[:MOST]
    truth = table[list(REGIONS)].to_numpy()
    n_val = max(2, round(size / VAL_PARTS))
    split = np.full(len(table), LEFT_OUT, dtype="<U8")
    split[table["hemisphere"] == "right"] = "test"
    borders = len(pool) // VAL_PARTS
    for part, rows, count in (("val", pool[:borders], n_val), ("train", pool[borders:],
                                                              size - n_val)):
        split[rows[covering_first(truth[rows])][:count]] = part
    return Fold(0, crops, 3, TARGET, split, crops.take(np.arange(0)), AUGMENTATION)


def shuffled_pool(crops: Nodules, seed: int) -> np.ndarray:
    """Return the rows of the pool in a seed's own random order."""
    pool = np.flatnonzero(crops.table["hemisphere"] == "left")
    return np.random.default_rng(derive_seed(seed, 0)).permutation(pool)


def covering_first(truth: np.ndarray) -> np.ndarray:
    """Return an order of rows that begins with few in which every label has both classes.

    Each time the row comes next that has most of the classes still missing; the others follow as
    they are.

    Args:
        truth: (n, K) of 0 and 1.
    """
    has = np.concatenate([truth == 1, truth == 0], axis=1)
    missing, first = has.any(axis=0), []
    while missing.any():
        first.append(int(has[:, missing].sum(axis=1).argmax()))
        missing &= ~has[first[-1]]
    return np.array([*first, *(k for k in range(len(has)) if k not in first)])


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks of its method."""
    fold = make_fold(crops_in(scratch, quick), job.size, job.seed)
    return task_of(fold, job, scratch, quick)


def task_of(fold: Fold, job: Job, scratch: Path, quick: bool) -> Task:
    """Return the task of a fold: the fewer crops, the more epochs and the smaller batches."""
    return Task(fold, job.seed, scratch, quick, fold, f"seed_{job.seed}_n_{job.size}",
                stretch=(MOST / job.size) ** 0.5, b_size=max(SMALLEST_BATCH, job.size // 8),
                amp="off" if quick else AMP)


BENCHMARK = Benchmark("regions", METHODS, make_task, n_folds=1, sizes=SIZES)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    parser = job_options.build_parser(BENCHMARK, __doc__)
    parser.set_defaults(seeds=[0, 1, 2])
    add_options(parser, SIZES)
    args = parser.parse_args(argv)
    sizes = check_options(args, BENCHMARK)
    if not args.summary:
        crops = crops_in(args.scratch, args.quick, args.templates)
        if not args.job:
            draw_crops(crops, args.results / "regions_crops.png")
    jobs.run(BENCHMARK, args, summarise_found, sizes)


def add_options(parser: argparse.ArgumentParser, sizes: tuple[int, ...]) -> None:
    """Add the options of benchmarks of regions."""
    parser.add_argument("--sizes", type=job_options.numbers, default=list(sizes), metavar="A,B",
                        help=f"labelled crops (default {','.join(map(str, sizes))}; in a quick "
                             f"run {sizes[0]} alone)")
    parser.add_argument("--templates", type=types.path, default=TEMPLATES, metavar="DIR",
                        help="folder of ch2.nii.gz, ch2bet.nii.gz, aal.nii.gz and aal.nii.txt "
                             "(default %(default)s)")


def check_options(args: argparse.Namespace, benchmark: Benchmark) -> list[int]:
    """Check what `add_options` and job_options.build_parser added; return the sizes to run.

    Raises:
        UserError: a size, method, seed or fold is none.
    """
    job_options.check(args, benchmark)
    if not LEAST <= min(args.sizes) <= max(args.sizes) <= MOST:
        raise UserError(f"--sizes {','.join(map(str, args.sizes))}: expected {LEAST} to {MOST} "
                        "labelled crops")
    return args.sizes[:1] if args.quick else args.sizes


def summarise_found(by_method: dict[str, list[Done]], results: Path) -> str:
    """Summarise what is finished."""
    return summarise([one for one in sum(by_method.values(), []) if one.finished], results)


if __name__ == "__main__":
    run_script(main)
