"""Variants of the recommended recipe: how images and volumes are made and trained on."""

import dataclasses
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import finetune
from benchmarks.nodule_files import save, write_table
from benchmarks.nodules import IMAGE_LABELS, ORDINAL, Fold, image_table
from benchmarks.tasks import COMMON, QUICK, SMALLEST, Result, Task, run_script, trained_once
from demo.nodule_tables import choose_slices
from slivit.config import Target

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
    "b64": Variant("base at 64 pixels, pooled tokens, lowest loss kept (plain recipe)", A12L,
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
    "ord_64_bn_s3_ml": Variant("ord_64_bn_s3 with ordinal labels of volumes too",
                               f"{A3L}{SCRATCH}", f"{STORED} {POOL}", **RATED, slices=3,
                               ordinal_volumes=True),
    "e2e_base": Variant("base, trained on end to end", f"{A12} --img_size 32",
                        f"--n_epochs 10 {WHOLE} --img_size 32"),
    "e2e_adj32": Variant("base, end to end, adjacent slices, average of weights",
                         f"{A12} --img_size 32",
                         f"--n_epochs 8 {WHOLE} --img_size 32 --ema 0.99 --channels adjacent"),
    "e2e_adj64": Variant("b64, end to end, adjacent slices, average of weights", A12L,
                         f"--n_epochs 8 {WHOLE} {POOL} --ema 0.99 --channels adjacent"),
}


def train(name: str, task: Task) -> Result:
    """Pre-train and fine-tune one of VARIANTS; of ordinal labels, `malignant` is predicted."""
    backbone, before = pretrain(name, task)
    result = run_script(
        dataclasses.replace(task, fold=with_target(name, task.fold)), name, finetune.main,
        f"{VARIANTS[name].volumes} --bb_path {shlex.quote(str(backbone))}", before)
    shutil.rmtree(task.folder(name))
    return dataclasses.replace(result, pred=result.pred[:, :1])


def with_target(name: str, fold: Fold) -> Fold:
    """Return the fold with the labels of volumes that a variant has, `malignant` first."""
    if not VARIANTS[name].ordinal_volumes:
        return fold
    known = fold.scans.table.iloc[fold.rows("train")]
    labels = tuple(label for label in ORDINAL if known[label].nunique() > 1)
    return dataclasses.replace(fold, target=Target("multilabel", labels))


def pretrain(name: str, task: Task) -> tuple[Path, float]:
    """Return the backbone of a variant, fold and seed, and the seconds it took; trained once."""
    variant, fold = VARIANTS[name], task.pretraining
    flags = f"{variant.images} {COMMON} --flips hv --seed {task.seed} --amp {task.amp}"
    flags += f" {SMALLEST} {QUICK}" if task.quick else ""
    of_images = dataclasses.replace(variant, what="", volumes="", ordinal_volumes=False)
    return trained_once(task, flags, "image_backbones", lambda folder: write_images(
        fold, variant, folder, task.scratch / "search"),
        [of_images, fold.scans.table["nodule"].tolist(), fold.split.tolist()])


def write_images(fold: Fold, variant: Variant, folder: Path, shared: Path) -> Path:
    """Write the images of a variant's pre-training and their table, for bb_train.py."""
    table = image_table(fold, (*ORDINAL, *IMAGE_LABELS))
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
                names.append(f"{nodule}_{chosen}_{axis}")
                paths.append(save(shared / f"{names[-1]}_{kind}.npy", image))
    table = table.iloc[rows].assign(nodule=names)
    return write_table(table, paths, ORDINAL if variant.ordinal else IMAGE_LABELS,
                       folder / "images.csv")
