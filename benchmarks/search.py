"""Variants from which the recommended recipe was chosen.

    python -m benchmarks.search                        # what is not finished yet
    python -m benchmarks.search --methods b64,ord_64
    python -m benchmarks.search --summary

They are compared on three folds of the embedded sets' own training and validation patients, so that
their test patients have no say in it. The summary is in RESULTS/search.csv: the mean over folds of
each variant's ROC-AUC less that of the nodules' volume, and the ROC-AUC of all folds' predictions
together.
"""

import dataclasses
import functools
import time
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks import job_options, jobs, methods, networks, nodules, variants
from benchmarks.accuracy_summary import auc
from benchmarks.jobs import Benchmark, Done, Job, pooled
from benchmarks.networks import Recipe
from benchmarks.nodules import LABEL, Fold
from benchmarks.tasks import Method, Result, Task, count
from slivit.utils.errors import run_script as run_main
from slivit.utils.files import atomic_write

N_FOLDS = 3
RATES = {f"{network}_lr{k}": k * 1e-3 for network, rates in
         (("resnet18", (1, 2, 4, 8)), ("densenet", (2, 4))) for k in rates}


def train_network(name: str, task: Task) -> Result:
    """Train the narrow 3D ResNet-18, or the DenseNet, with one of RATES."""
    recipe = _recipe(name)
    recipe = dataclasses.replace(recipe, n_epochs=task.epochs(recipe.n_epochs))
    start = time.process_time()
    torch.manual_seed(task.seed)
    network = (networks.densenet() if name.startswith("densenet") else
               networks.resnet18(methods.NARROW))
    model = networks.DenseClassifier(network, networks.VOLUME)
    pred = networks.train(model, task.fold, networks.VOLUME, recipe, task.seed, task.folder(name))
    return Result(pred, count(model), time.process_time() - start)


def _recipe(name: str) -> Recipe:
    usual = methods.DENSENET if name.startswith("densenet") else methods.RESNET
    return dataclasses.replace(usual, lr=RATES[name])


def _what(name: str) -> str:
    """Return a method in words."""
    if name in variants.VARIANTS:
        return variants.VARIANTS[name].what
    network = "3D DenseNet" if name.startswith("densenet") else "narrow 3D ResNet-18"
    return f"{network}, learning rate {RATES[name]:g}"


def _settings(name: str) -> str:
    return (f"{_recipe(name)}" if name.startswith("densenet") else
            f"widths {methods.NARROW}, {_recipe(name)}")


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks: a fold of the embedded training and validation patients."""
    volumes, images = nodules.load(jobs.FEW if quick else None)
    volumes = volumes.take((volumes.table["split"] != "test").to_numpy())
    table = volumes.table
    others, test = list(StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0).split(
        table, table[LABEL], table["patient"]))[job.fold]
    rest = table.iloc[others]
    _, val = next(StratifiedGroupKFold(nodules.VAL_PARTS, shuffle=True, random_state=1).split(
        rest, rest[LABEL], rest["patient"]))
    split = np.full(len(table), "train", dtype="<U8")
    split[test], split[others[val]] = "test", "val"
    fold = Fold(job.fold, volumes, 3, nodules.TARGET, split, images)
    return Task(fold, job.seed, scratch, quick, fold, f"fold_{job.fold}_seed_{job.seed}")


BENCHMARK = Benchmark("search", {
    **{name: Method(functools.partial(variants.train, name), f"{variant}")
       for name, variant in variants.VARIANTS.items()},
    **{name: Method(functools.partial(train_network, name), _settings(name)) for name in RATES}},
    make_task, n_folds=N_FOLDS)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    args = job_options.build_parser(BENCHMARK, __doc__).parse_args(argv)
    job_options.check(args, BENCHMARK)
    jobs.run(BENCHMARK, args, summarise)


def summarise(by_method: dict[str, list[Done]], results: Path) -> str:
    """Write search.csv of the variants whose jobs are all finished; return it as text."""
    sizes = nodules.load()[0].table.set_index("nodule")["volume_mm3"]
    rows = []
    for method, done in by_method.items():
        if done and all(one.finished for one in done):
            table = pooled(done)
            volume = sizes.loc[table.index]
            gains = [auc(part["truth"], part["pred"]) - auc(part["truth"], volume.loc[part.index])
                     for _, part in table.groupby("fold")]
            rows.append({"variant": method, "what": _what(method), "folds": len(gains),
                         "gain": np.mean(gains), "roc_auc": auc(table["truth"], table["pred"]),
                         "volume_roc_auc": auc(table["truth"], volume)})
    if not rows:
        return "no variant is finished"
    table = pd.DataFrame(rows).sort_values("gain", ascending=False).round(4)
    results.mkdir(parents=True, exist_ok=True)
    with atomic_write(results / "search.csv") as part:
        table.to_csv(part, index=False)
    return table.to_string(index=False)


if __name__ == "__main__":
    run_main(main)
