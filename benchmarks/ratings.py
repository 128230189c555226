"""The radiologists' ratings: malignancy (1 to 5, regression) of volumes, eight labels of images.

    python -m benchmarks.ratings               # what is not finished yet
    python -m benchmarks.ratings --summary

Five folds by patient, as in benchmarks.accuracy. Names that begin with `image_` predict the eight
0/1 labels of every nodule's largest slice (2,004 of volumes and those rated neither malignant nor
benign); the others predict the mean malignancy rating from volumes. The summaries are in
RESULTS/ratings_volumes.csv and ratings_images.csv.
"""

import dataclasses
import time
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd
import torch
from torchvision.models import resnet18

import bb_train
from benchmarks import job_options, jobs, methods, networks, nodules
from benchmarks.accuracy_summary import flat
from benchmarks.jobs import Benchmark, Done, Job, pooled
from benchmarks.methods import METHODS
from benchmarks.nodules import RATING
from benchmarks.tasks import PLAIN_IMAGES, QUICK, SMALLEST, Method, Result, Task, count, run_script
from slivit.config import Preprocess, Target
from slivit.metrics.evaluation import evaluate
from slivit.report.formatting import score_text
from slivit.utils.errors import run_script as run_main
from slivit.utils.files import atomic_write

IMAGES = "image_"
LABELS = Target("multilabel", nodules.IMAGE_LABELS)
IMAGE = Preprocess(img_size=32, window="full", mean=(0.0,) * 3, std=(1.0,) * 3)
RESNET = networks.Recipe(1e-3, 32, 12)
SCRATCH = f"{PLAIN_IMAGES} --backbone convnext_atto_bn"
SCORES = {"regression": ("r2", "spearman", "mae"), "multilabel": ("roc_auc", "pr_auc")}


def image_backbone(task: Task) -> Result:
    """The plain recipe's backbone with its classifier."""
    return run_script(task, "image_backbone", bb_train.main,
                      PLAIN_IMAGES + (f" {SMALLEST} {QUICK}" if task.quick else ""))


def image_backbone_bn(task: Task) -> Result:
    """The same with BatchNorm and larger initial weights (see models.backbone)."""
    return run_script(task, "image_backbone_bn", bb_train.main,
                      SCRATCH + (f" {SMALLEST}_bn {QUICK}" if task.quick else ""))


def image_resnet18(task: Task) -> Result:
    """torchvision's ResNet-18 with the 3D one's stem for small scans, from random weights."""
    start = time.process_time()
    torch.manual_seed(task.seed)
    network = resnet18(num_classes=len(LABELS.labels))
    network.maxpool = torch.nn.Identity()
    network.conv1 = torch.nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False)
    recipe = dataclasses.replace(RESNET, n_epochs=task.epochs(RESNET.n_epochs))
    model = networks.DenseClassifier(network, IMAGE)
    pred = networks.train(model, task.fold, IMAGE, recipe, task.seed, task.folder("image_resnet18"))
    return Result(pred, count(model), time.process_time() - start)


def image_area(task: Task) -> Result:
    """The area of the outline alone, larger for every label but `benign` and `calcified`."""
    test = task.fold.scans.scans[task.fold.rows("test")]
    area = test.sum(axis=(1, 2)) / (255 * test[0].size)
    signs = [label in ("benign", "calcified") for label in LABELS.labels]
    return Result(np.stack([1 - area if less else area for less in signs], axis=1), 0, 0.0)


METHODS_OF_RATINGS = {
    **{name: METHODS[name] for name in ("slivit", "plain", "resnet18_narrow",
                                        "shape_boosting", "volume")},
    "image_backbone": Method(image_backbone, PLAIN_IMAGES),
    "image_backbone_bn": Method(image_backbone_bn, SCRATCH),
    "image_resnet18": Method(image_resnet18, f"stem of 3 pixels, stride 2, no pooling; {RESNET}"),
    "image_shape_boosting": Method(methods.shape_boosting, METHODS["shape_boosting"].settings,
                                   seeds=(0,)),
    "image_area": Method(image_area, "area", seeds=(0,)),
}


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks of its method."""
    volumes, images = nodules.load(jobs.FEW if quick else None)
    if job.method.startswith(IMAGES):
        fold = nodules.make_fold(job.fold, nodules.all_images(volumes, images), images, LABELS, 2)
    else:
        fold = nodules.make_fold(job.fold, volumes, images, RATING)
    return Task(fold, job.seed, scratch, quick, fold, f"fold_{job.fold}_seed_{job.seed}")


BENCHMARK = Benchmark("ratings", METHODS_OF_RATINGS, make_task)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    args = job_options.build_parser(BENCHMARK, __doc__).parse_args(argv)
    job_options.check(args, BENCHMARK)
    jobs.run(BENCHMARK, args, summarise)


def summarise(by_method: dict[str, list[Done]], results: Path) -> str:
    """Write a table of each kind, of methods whose jobs are all finished; return their text."""
    lines = []
    for name, target, mine in (
            ("volumes", RATING, lambda method: not method.startswith(IMAGES)),
            ("images", LABELS, lambda method: method.startswith(IMAGES))):
        rows = []
        for method, done in by_method.items():
            if mine(method) and done:
                left = [one for one in done if not one.finished]
                if left:
                    lines.append(f"{method}: not finished: {len(left)} of {len(done)} jobs")
                else:
                    rows.append({"method": method, **scores(pooled(done), target)})
        if rows:
            results.mkdir(parents=True, exist_ok=True)
            key = SCORES[target.task][0]
            rows.sort(key=lambda row: -row[key])
            with atomic_write(results / f"ratings_{name}.csv") as part:
                flat(rows).to_csv(part, index=False)
            lines += as_text(rows, target)
    return "\n".join(lines)


def scores(table: pd.DataFrame, target: Target) -> dict:
    """Return the scores with their intervals; of several labels, their means, and each ROC-AUC."""
    ends = [f"_{label}" for label in target.labels] if len(target.labels) > 1 else [""]
    truth, pred = (table[[f"{kind}{end}" for end in ends]] for kind in ("truth", "pred"))
    measured = evaluate(truth, pred, target, table["patient"])
    several = len(ends) > 1
    part = measured["mean"] if several else measured["labels"][target.labels[0]]
    row = {"n": len(table)}
    for key in SCORES[target.task]:
        row |= {key: part[key], f"{key}_ci": part[f"{key}_ci"]}
    if several:
        row |= {label: measured["labels"][label]["roc_auc"] for label in target.labels}
    return row


def as_text(rows: list[dict], target: Target) -> list[str]:
    """Return the lines to print."""
    keys = SCORES[target.task]
    extra = target.labels if len(target.labels) > 1 else ()
    lines = [f"{target.task} of {', '.join(target.labels)}, {rows[0]['n']} scans out of fold",
             "  ".join(["method".ljust(21), *(key.rjust(24) for key in keys), *extra])]
    lines += ["  ".join([row["method"].ljust(21),
                         *(score_text(row, key).rjust(24) for key in keys),
                         *(f"{row[label]:.3f}".rjust(len(label)) for label in extra)])
              for row in rows]
    return lines


if __name__ == "__main__":
    run_main(main)
