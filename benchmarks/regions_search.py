"""Settings from which those of benchmarks.regions were chosen, scored on the training hemisphere.

    python -m benchmarks.regions_search                       # what is not finished yet
    python -m benchmarks.regions_search --methods densenet_lr2_e8 --sizes 100
    python -m benchmarks.regions_search --summary

The crops of the test have no say: methods learn from labelled crops of the left hemisphere as in
benchmarks.regions, and predict 400 others of it, which are not labelled there. Those overlap with
the crops that were learned from, so that scores are higher than on the other hemisphere. The
summary is in RESULTS/regions_search.csv.
"""

import dataclasses
import functools
import shlex
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd

from benchmarks import job_options, jobs, networks, region_methods, regions
from benchmarks.jobs import Benchmark, Done, Job
from benchmarks.methods import DENSENET, FEW, NARROW, RESNET, volume_network
from benchmarks.nodules import LEFT_OUT
from benchmarks.region_crops import REGIONS
from benchmarks.region_methods import (
    FROZEN,
    IMAGES,
    METHODS,
    NATIVE,
    OWN_VOXELS,
    READ,
    SSL,
    WHOLE,
    few,
    fine_tune,
    frozen,
    supervised_backbone,
)
from benchmarks.region_summary import score
from benchmarks.tasks import Method, Result, Task
from slivit.utils.errors import run_script
from slivit.utils.files import atomic_write

SIZES = (25, 50, 100, 800)
N_SCORED = 400  # crops
END_TO_END = {f"end_to_end_lr{k}": f"{WHOLE} --lr {k}e-4 --bb_lr {k}e-4" for k in (3, 5, 10, 20)}
SLICES = {"slices": IMAGES, "slices_e6": f"{IMAGES} --n_epochs 6",
          "slices_lr1": f"{IMAGES} --lr 1e-3", "slices_lr4": f"{IMAGES} --lr 4e-3"}
BOTH_WAYS = {f"ssl_slices_lr{k}_few": f"{IMAGES} --lr {k}e-4" for k in (2, 5, 20)}
AUGMENTED = {f"ssl_few_aug{k}": f"{FEW} --img_size 64 --feature_augments {k}" for k in (4, 8)}
NETWORKS = {f"{network}_lr{k}_e{epochs}": dataclasses.replace(usual, lr=k * 1e-3, n_epochs=epochs)
            for network, usual in (("resnet18", RESNET), ("densenet", DENSENET))
            for k in (1, 2, 4, 8) for epochs in (8, 14)}


def end_to_end(name: str, task: Task) -> Result:
    """Train SLIViT from random weights with one of END_TO_END."""
    return fine_tune(task, name, END_TO_END[name])


def slices(name: str, task: Task) -> Result:
    """Pre-train on slices of the labelled crops with one of SLICES, then as in regions."""
    return frozen(task, name, *supervised_backbone(task, SLICES[name]))


def both_ways(name: str, task: Task) -> Result:
    """Pre-train on the pool without labels, then on slices with one of BOTH_WAYS."""
    return few(task, name, *region_methods.both_ways(task, BOTH_WAYS[name]))


def augmented(name: str, task: Task) -> Result:
    """The recipe for few volumes after the pool without labels, with augmented copies of crops."""
    backbone, before = region_methods.self_supervised_backbone(task)
    return fine_tune(task, name, f"{AUGMENTED[name]} --bb_path {shlex.quote(str(backbone))}",
                     before)


def as_it_is(name: str, task: Task) -> Result:
    """A method of benchmarks.regions as it is."""
    return METHODS[name].run(task)


def network(name: str, task: Task) -> Result:
    """Train a 3D network with one of NETWORKS."""
    count = len(task.fold.target.labels)
    make = (functools.partial(networks.resnet18, NARROW, count) if name.startswith("resnet")
            else functools.partial(networks.densenet, count))
    return volume_network(task, name, make, NETWORKS[name], NATIVE)


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks: to predict crops of the training hemisphere that have no label."""
    crops = regions.crops_in(scratch, quick)
    fold = regions.make_fold(crops, job.size, job.seed)
    pool = regions.shuffled_pool(crops, job.seed)
    split = np.where(fold.split == "test", LEFT_OUT, fold.split)
    split[pool[-min(N_SCORED, len(pool) // 4):]] = "test"
    return regions.task_of(dataclasses.replace(fold, split=split), job, scratch, quick)


BENCHMARK = Benchmark("regions_search", {
    **{name: Method(functools.partial(end_to_end, name), f"{flags} {READ}")
       for name, flags in END_TO_END.items()},
    **{name: Method(functools.partial(slices, name), f"{flags}; {FROZEN} {READ}")
       for name, flags in SLICES.items()},
    **{name: Method(functools.partial(both_ways, name), f"{SSL}; {flags}; {FEW} {READ}")
       for name, flags in BOTH_WAYS.items()},
    **{name: Method(functools.partial(augmented, name), f"{SSL}; {flags} {READ}")
       for name, flags in AUGMENTED.items()},
    **{name: Method(functools.partial(as_it_is, name), METHODS[name].settings)
       for name in ("few_volumes", "few_volumes_slices", "ssl_few", "ssl_frozen")},
    **{name: Method(functools.partial(network, name), f"{recipe}, {OWN_VOXELS}")
       for name, recipe in NETWORKS.items()}}, make_task, n_folds=1, sizes=SIZES)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    parser = job_options.build_parser(BENCHMARK, __doc__)
    regions.add_options(parser, SIZES)
    args = parser.parse_args(argv)
    sizes = regions.check_options(args, BENCHMARK)
    if not args.summary:
        regions.crops_in(args.scratch, args.quick, args.templates)
    jobs.run(BENCHMARK, args, summarise, sizes)


def summarise(by_method: dict[str, list[Done]], results: Path) -> str:
    """Write regions_search.csv of what is finished; return it as text."""
    rows = []
    for one in [one for done in by_method.values() for one in done if one.finished]:
        value, _, labels = score(one.read_predictions())
        rows.append({"variant": one.job.method, "crops": one.job.size, "roc_auc": value,
                     **{region: labels[region] for region in REGIONS},
                     "minutes": one.read_facts()["seconds"] / 60})
    if not rows:
        return "no variant is finished"
    table = pd.DataFrame(rows).groupby(["variant", "crops"], sort=False)
    table = table.mean().assign(seeds=table.size()).reset_index()
    table = table.sort_values(["crops", "roc_auc"], ascending=[True, False]).round(4)
    results.mkdir(parents=True, exist_ok=True)
    with atomic_write(results / "regions_search.csv") as part:
        table.to_csv(part, index=False)
    return table.to_string(index=False)


if __name__ == "__main__":
    run_script(main)
