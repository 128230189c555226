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
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

import bb_train
import finetune
from benchmarks import jobs, methods, networks, nodules
from benchmarks.accuracy_summary import auc
from benchmarks.jobs import Benchmark, Done, Job, pooled
from benchmarks.networks import Recipe
from benchmarks.nodule_files import save, write_table
from benchmarks.nodules import IMAGE_LABELS, LABEL, Fold, Nodules
from benchmarks.tasks import COMMON, QUICK, SMALLEST, Method, Result, Task, count, run_script
from slivit.config import Target
from slivit.errors import run_script as run_main
from slivit.runtime import whole_file

N_FOLDS = 3
CUTS = {"malignancy": (1.7, 2.3, 2.7, 3.3, 3.7, 4.3), "spiculation": (1.2, 1.7, 2.2, 3),
        "lobulation": (1.2, 1.7, 2.2, 3), "sphericity": (2.9, 3.4, 3.9, 4.4),
        "margin": (2.9, 3.9, 4.4), "texture": (3, 4.4), "subtlety": (2.9, 3.9, 4.4)}
ORDINAL = (LABEL, *(f"{name}_{cut}" for name, cuts in CUTS.items() for cut in cuts))
VIT = "--vit_dim 128 --vit_depth 2 --vit_heads 4 --vit_head_dim 32 --vit_mlp_dim 256"
IMAGES = ("--backbone convnext_atto --weights none --drop_path 0 --patience 0 --b_size 32 "
          "--lr 2e-3")
STORED = ("--freeze_backbone --feature_augments 4 --n_epochs 12 --patience 0 --b_size 32 --lr 5e-4 "
          f"--select loss {VIT}")
WHOLE = (f"--patience 0 --b_size 16 --lr 5e-4 --bb_lr 3e-4 --drop_path 0 --select loss {VIT}")


@dataclass(frozen=True)
class Variant:
    """One way to train SLIViT.

    Attributes:
        what: it tries, in words.
        images: flags of bb_train.py.
        volumes: flags of finetune.py.
        axes: of the volumes, along which the slice of the largest area is an image.
        ordinal: whether images have labels for ratings above several cuts, not eight labels.
        ordinal_volumes: whether volumes have, too.
        neighbours: whether an image's channels are three adjacent slices.
        slices: of a volume and axis that are images too, evenly over those it has a part in.
    """

    what: str
    images: str
    volumes: str
    axes: tuple[int, ...] = (0,)
    ordinal: bool = False
    ordinal_volumes: bool = False
    neighbours: bool = False
    slices: int = 0


ALL_AXES = {"axes": (0, 1, 2)}
RATED = ALL_AXES | {"ordinal": True}
A12, A12L = f"{IMAGES} --n_epochs 12", f"{IMAGES} --n_epochs 12 --select loss --img_size 64"
A8, A8L = f"{IMAGES} --n_epochs 8 --img_size 32", f"{IMAGES} --n_epochs 8 --select loss"
A3L, SCRATCH = f"{IMAGES} --n_epochs 3 --select loss --img_size 64", " --backbone convnext_atto_bn"
POOL = "--img_size 64 --token pool"
VARIANTS = {
    "base": Variant("32 pixels, eight labels, axial slices, stored features",
                    f"{A12} --img_size 32", f"{STORED} --img_size 32"),
    "ax3": Variant("base with slices of all axes in pre-training", A8, f"{STORED} --img_size 32",
                   **ALL_AXES),
    "ax3v3": Variant("ax3 with three views", A8,
                     f"{STORED} --img_size 32 --views axial,coronal,sagittal", **ALL_AXES),
    "ord_a": Variant("ax3 with ordinal labels, lowest loss kept", f"{A8L} --img_size 32",
                     f"{STORED} --img_size 32", **RATED),
    "ord_64": Variant("ord_a at 64 pixels, pooled tokens", f"{A8L} --img_size 64",
                      f"{STORED} {POOL}", **RATED),
    "ord_64_ml": Variant("ord_64 with ordinal labels of volumes too", f"{A8L} --img_size 64",
                         f"{STORED} {POOL}", **RATED, ordinal_volumes=True),
    "ord_adj32": Variant("ord_a with adjacent slices as channels", f"{A8L} --img_size 32",
                         f"{STORED} --img_size 32 --channels adjacent", **RATED, neighbours=True),
    "b64": Variant("base at 64 pixels, pooled tokens, lowest loss kept (recommended)", A12L,
                   f"{STORED} {POOL}"),
    "b64f": Variant("b64 with flattened tokens", A12L, f"{STORED} --img_size 64"),
    "b64dp": Variant("b64 with stochastic depth 0.2 and dropout 0.2", f"{A12L} --drop_path 0.2",
                     f"{STORED} {POOL} --dropout 0.2 --emb_dropout 0.2"),
    "bn": Variant("b64 with BatchNorm and larger initial weights", f"{A12L}{SCRATCH}",
                  f"{STORED} {POOL}"),
    "ord_64_s3": Variant("ord_64 with three more slices an axis", f"{A3L}",
                         f"{STORED} {POOL}", **RATED, slices=3),
    "ord_64_bn": Variant("ord_64 with BatchNorm and larger initial weights",
                         f"{A8L} --img_size 64{SCRATCH}", f"{STORED} {POOL}", **RATED),
    "ord_64_bn_s3": Variant("ord_64_bn with three more slices an axis", f"{A3L}{SCRATCH}",
                            f"{STORED} {POOL}", **RATED, slices=3),
    "e2e_base": Variant("base, trained on end to end", f"{A12} --img_size 32",
                        f"--n_epochs 10 {WHOLE} --img_size 32"),
    "e2e_adj32": Variant("base, end to end, adjacent slices, average of weights",
                         f"{A12} --img_size 32",
                         f"--n_epochs 8 {WHOLE} --img_size 32 --ema 0.99 --channels adjacent"),
    "e2e_adj64": Variant("b64, end to end, adjacent slices, average of weights", A12L,
                         f"--n_epochs 8 {WHOLE} {POOL} --ema 0.99 --channels adjacent"),
}
RATES = {f"resnet18_lr{k}": k * 1e-3 for k in (1, 2, 4, 8)}


def train(name: str, task: Task) -> Result:
    """Pre-train and fine-tune one of VARIANTS."""
    variant, start = VARIANTS[name], time.process_time()
    folder = task.folder(name)
    quick = f" {SMALLEST} {QUICK}" if task.quick else ""
    table = write_images(task.fold, variant, folder, task.scratch / "search")
    backbone = folder / "images" / "backbone.safetensors"
    bb_train.main(["--meta_csv", str(table), *shlex.split(
        f"{variant.images} {COMMON} --flips hv --seed {task.seed}{quick}"),
        "--out_dir", str(backbone.parent)])
    target = Target("multilabel", ORDINAL) if variant.ordinal_volumes else task.fold.target
    found = run_script(dataclasses.replace(task, fold=dataclasses.replace(
        task.fold, target=target)), name, finetune.main,
        f"{variant.volumes} --bb_path {shlex.quote(str(backbone))}")
    return Result(found.pred[:, :1], found.n_parameters, time.process_time() - start)


def train_resnet(name: str, task: Task) -> Result:
    """Train the narrow 3D ResNet-18 with one of RATES."""
    recipe = _recipe(name)
    recipe = dataclasses.replace(recipe, n_epochs=task.epochs(recipe.n_epochs))
    start = time.process_time()
    torch.manual_seed(task.seed)
    model = networks.DenseClassifier(networks.resnet18(methods.NARROW), networks.VOLUME)
    pred = networks.train(model, task.fold, networks.VOLUME, recipe, task.seed, task.folder(name))
    return Result(pred, count(model), time.process_time() - start)


def _recipe(name: str) -> Recipe:
    return dataclasses.replace(methods.RESNET, lr=RATES[name])


def write_images(fold: Fold, variant: Variant, folder: Path, shared: Path) -> Path:
    """Write the images of a variant's pre-training and their table, for bb_train.py."""
    table = nodules.image_table(fold, (*ORDINAL, *IMAGE_LABELS))
    kind = "adjacent" if variant.neighbours else "single"
    rows, names, paths = [], [], []
    for k, (row, nodule, of_volume) in enumerate(zip(table["row"], table["nodule"],
                                                     table["of_volume"], strict=True)):
        scan = (fold.scans if of_volume else fold.images).scans[row]
        for axis in variant.axes if of_volume else [0]:
            slices = np.moveaxis(scan, axis, 0) if of_volume else scan[None]
            for chosen in choose_slices(slices, variant.slices):
                beside = np.clip([chosen - 1, chosen, chosen + 1], 0, len(slices) - 1)
                image = (np.moveaxis(slices[beside], 0, -1) if variant.neighbours else
                         slices[chosen])
                rows.append(k)
                names.append(f"{nodule}_{axis}_{chosen}")
                paths.append(save(shared / f"{names[-1]}_{kind}.npy", image))
    table = table.iloc[rows].assign(nodule=names)
    return write_table(table, paths, ORDINAL if variant.ordinal else IMAGE_LABELS,
                       folder / "images.csv")


def choose_slices(slices: np.ndarray, count: int) -> list[int]:
    """Return the slice of the largest area and `count` others, evenly over those of any area."""
    area = slices.sum(axis=(1, 2), dtype=np.int64)
    seen = np.flatnonzero(area)
    evenly = seen[np.round(np.linspace(0, len(seen) - 1, count + 2)[1:-1]).astype(int)]
    return sorted({int(area.argmax()), *evenly.tolist()})


def above_cuts(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return a 0/1 column for every cut of the ratings."""
    return {f"{name}_{cut}": (table[name] > cut).astype(int)
            for name, cuts in CUTS.items() for cut in cuts}


def make_task(job: Job, scratch: Path, quick: bool) -> Task:
    """Return what a job asks: a fold of the embedded training and validation patients."""
    parts = [Nodules(part.table.assign(**above_cuts(part.table)), part.scans)
             for part in nodules.load(jobs.FEW if quick else None)]
    volumes = parts[0].take((parts[0].table["split"] != "test").to_numpy())
    table = volumes.table
    others, test = list(StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0).split(
        table, table[LABEL], table["patient"]))[job.fold]
    rest = table.iloc[others]
    _, val = next(StratifiedGroupKFold(nodules.VAL_PARTS, shuffle=True, random_state=1).split(
        rest, rest[LABEL], rest["patient"]))
    split = np.full(len(table), "train", dtype="<U8")
    split[test], split[others[val]] = "test", "val"
    fold = Fold(job.fold, volumes, 3, nodules.TARGET, split, parts[1])
    return Task(fold, job.seed, scratch, quick, fold, f"fold_{job.fold}_seed_{job.seed}")


BENCHMARK = Benchmark("search", {
    **{name: Method(functools.partial(train, name), f"{variant}")
       for name, variant in VARIANTS.items()},
    **{name: Method(functools.partial(train_resnet, name),
                    f"widths {methods.NARROW}, {_recipe(name)}") for name in RATES}}, make_task)


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    args = jobs.build_parser(BENCHMARK, __doc__, N_FOLDS).parse_args(argv)
    jobs.check(args, BENCHMARK, N_FOLDS)
    jobs.run(BENCHMARK, args, summarise)


def summarise(found: dict[str, list[Done]], results: Path) -> str:
    """Write search.csv of the variants whose jobs are all finished; return it as text."""
    sizes = nodules.load()[0].table.set_index("nodule")["volume_mm3"]
    rows = []
    for method, done in found.items():
        if done and all(one.finished for one in done):
            table = pooled(done)
            volume = sizes.loc[table.index]
            gains = [auc(part["truth"], part["pred"]) - auc(part["truth"], volume.loc[part.index])
                     for _, part in table.groupby("fold")]
            what = (VARIANTS[method].what if method in VARIANTS
                    else f"narrow 3D ResNet-18, learning rate {RATES[method]:g}")
            rows.append({"variant": method, "what": what, "folds": len(gains),
                         "gain": np.mean(gains), "roc_auc": auc(table["truth"], table["pred"]),
                         "volume_roc_auc": auc(table["truth"], volume)})
    if not rows:
        return "no variant is finished"
    table = pd.DataFrame(rows).sort_values("gain", ascending=False).round(4)
    results.mkdir(parents=True, exist_ok=True)
    with whole_file(results / "search.csv") as part:
        table.to_csv(part, index=False)
    return table.to_string(index=False)


if __name__ == "__main__":
    run_main(main)
