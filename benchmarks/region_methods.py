"""Methods that tell which regions of the brain a crop holds (benchmarks.regions)."""

import dataclasses
import shlex
from pathlib import Path

import numpy as np

import bb_train
import finetune
from benchmarks import methods, networks, probes
from benchmarks.methods import FEW, FEW_VOLUMES, NARROW, RESNET, volume_network
from benchmarks.nodule_files import save, write_table
from benchmarks.nodules import Fold
from benchmarks.region_crops import CROPS
from benchmarks.tasks import QUICK, SMALLEST, Method, Result, Task, run_on, trained_once
from slivit.cli.parser import read_recipe
from slivit.config import Augmentation, Preprocess
from slivit.data.scan_table import SPLITS
from slivit.data.transforms import to_uint8, window_range

WINDOW, AUGMENTATION = "percentile", Augmentation(flips="", jitter=1.0)  # sides are not alike
COMMON = "--flips none --jitter 1 --n_cpu 0 --gpu_id cpu --quiet --overwrite"
N_SLICES = CROPS.shape[2]
VOLUMES = f"--window {WINDOW} --n_slices {N_SLICES}"
WHOLE = ("--img_size 64 --token pool --backbone convnext_atto --weights none --n_epochs 4 "
         "--patience 0 --b_size 16 --drop_path 0 --select loss "
         "--vit_dim 128 --vit_depth 2 --vit_heads 4 --vit_head_dim 32 --vit_mlp_dim 256")
RATE = "--lr 1e-3 --bb_lr 1e-3"  # of two tried in benchmarks.regions_search, the better
IMAGES = ("--img_size 64 --window full --backbone convnext_atto_bn --weights none --drop_path 0 "
          "--n_epochs 3 --patience 0 --b_size 32 --lr 2e-3 --select loss")
AMP = "bf16"  # of SLIViT on every machine; in it, the 3D ResNet's loss becomes NaN
SMALL = "--img_size 32"  # in a quick run
UNLABELLED = ("--task ssl --img_size 64 --backbone convnext_atto_bn --weights none --drop_path 0 "
              f"--window {WINDOW} --b_size 8 --slices_per_volume 8 --lr 1e-3")
SSL = f"{UNLABELLED} --n_epochs 10"  # after seven it hardly gains (benchmarks.without_labels)
THEN = f"{IMAGES} --lr 2e-4"  # after SSL; of three tried in benchmarks.regions_search, the best
SHOWN = 20  # one of so many unlabelled crops shows the loss
STEP = 2  # of a crop's slices, every second one is an image
FROZEN = " ".join(read_recipe("plain_volumes"))  # the recommended recipe, but for what is outlines'
DENSENET = dataclasses.replace(methods.DENSENET, n_epochs=8)  # 14 are hardly better
NATIVE = Preprocess(img_size=CROPS.shape[0], window=WINDOW, mean=(0.0,) * 3, std=(1.0,) * 3,
                    n_slices=N_SLICES)


def end_to_end(task: Task) -> Result:
    """SLIViT from random weights, backbone and integrator trained together."""
    return fine_tune(task, "end_to_end", f"{WHOLE} {RATE}{f' {SMALLEST}' if task.quick else ''}")


def supervised_slices(task: Task) -> Result:
    """SLIViT on a backbone that has learned the crops' labels from their slices, frozen."""
    return frozen(task, "supervised_slices", *supervised_backbone(task))


def few_volumes(task: Task) -> Result:
    """The recipe for few volumes on a backbone of random weights."""
    return fine_tune(task, "few_volumes", f"{FEW_VOLUMES}{f' {SMALLEST}' if task.quick else ''}")


def few_volumes_slices(task: Task) -> Result:
    """The recipe for few volumes on the backbone of supervised_slices."""
    return few(task, "few_volumes_slices", *supervised_backbone(task))


def original_tokens(task: Task) -> Result:
    """The same backbone with the tokens of the original: blocks of channels over all slices."""
    backbone, before = supervised_backbone(task)
    return methods.on_features(task, "original_tokens",
                               methods.original(backbone, task.fold, WINDOW), before)


def mean_logits(task: Task) -> Result:
    """The same backbone without the integrator: a linear classifier of each slice, averaged."""
    backbone, before = supervised_backbone(task)
    return methods.on_features(task, "mean_logits",
                               methods.slice_mean(backbone, task.fold, WINDOW), before)


def ssl_few(task: Task) -> Result:
    """The recipe for few volumes on a backbone that has learned from the pool without labels."""
    return few(task, "ssl_few", *self_supervised_backbone(task))


def ssl_frozen(task: Task) -> Result:
    """SLIViT on that backbone, frozen."""
    return frozen(task, "ssl_frozen", *self_supervised_backbone(task))


def ssl_slices_few(task: Task) -> Result:
    """The recipe for few volumes, after that backbone has learned the slices' labels too."""
    return few(task, "ssl_slices_few", *both_ways(task))


def ssl_slices(task: Task) -> Result:
    """SLIViT on the backbone of ssl_slices_few, frozen."""
    return frozen(task, "ssl_slices", *both_ways(task))


def both_ways(task: Task, then: str = THEN) -> tuple[Path, float]:
    """Return a backbone that has learned without labels, then from slices, and seconds.

    Args:
        task: what is asked.
        then: flags of bb_train.py for the slices, with the epochs for 800 crops.
    """
    start, before = self_supervised_backbone(task)
    backbone, seconds = supervised_backbone(task, then, start)
    return backbone, before + seconds


def probe_random(task: Task) -> Result:
    """Logistic regression on the features of a random backbone."""
    return probes.probe_random(task, WINDOW)


def resnet18_narrow(task: Task) -> Result:
    """A 3D ResNet-18 of a quarter of the width, on the crops' own voxels."""
    count = len(task.fold.target.labels)
    return volume_network(task, "resnet18_narrow", lambda: networks.resnet18(NARROW, count), RESNET,
                          NATIVE)


def densenet(task: Task) -> Result:
    """A small 3D DenseNet, on the crops' own voxels."""
    count = len(task.fold.target.labels)
    return volume_network(task, "densenet", lambda: networks.densenet(count), DENSENET, NATIVE)


def few(task: Task, method: str, backbone: Path, before: float) -> Result:
    """Run the recipe for few volumes on a backbone, which took `before` seconds."""
    return fine_tune(task, method, f"{FEW} --img_size 64 --bb_path {shlex.quote(str(backbone))}",
                     before)


def frozen(task: Task, method: str, backbone: Path, before: float) -> Result:
    """Run SLIViT on a backbone, frozen, which took `before` seconds."""
    return fine_tune(task, method, f"{FROZEN} --bb_path {shlex.quote(str(backbone))}", before)


def fine_tune(task: Task, method: str, flags: str, before: float = 0.0) -> Result:
    """Run finetune.py on the labelled crops, read from their NIfTI files, as a user would.

    Args:
        task: what is asked.
        method: in whose folder it writes.
        flags: of finetune.py; those of the input are added.
        before: seconds already spent.
    """
    table = write_crops(task.fold, task.folder(method))
    small = f" {SMALL} --n_slices 4" if task.quick else ""
    return run_on(table, task, finetune.main, f"{flags} {VOLUMES} {COMMON}{small}", before)


def write_crops(fold: Fold, folder: Path) -> Path:
    """Write the table of a fold's crops for finetune.py; return its path."""
    rows = fold.rows(*SPLITS)
    table = fold.scans.table.loc[rows].assign(Split=fold.split[rows])
    return write_table(table, list(map(Path, table["path"])), fold.target.labels,
                       folder / "scans.csv")


def self_supervised_backbone(task: Task) -> tuple[Path, float]:
    """Return a backbone that bb_train.py has trained on the pool without labels, and seconds.

    The pool is all crops of the left hemisphere that are not scored; one of twenty shows the loss.
    A backbone is trained once for a seed.
    """
    settings = f"{SSL} {COMMON} --seed {task.seed} --amp {task.amp}"
    settings += f" {SMALLEST}_bn {SMALL} {QUICK}" if task.quick else ""
    scans = task.fold.scans.table["path"][task.fold.split != "test"].tolist()
    return trained_once(task, settings, "self_supervised_backbones",
                        lambda folder: write_pool(task.fold, folder), scans)


def write_pool(fold: Fold, folder: Path) -> Path:
    """Write the table of the pool's crops that are not scored, for bb_train.py."""
    table = fold.scans.table
    crops = table[(table["hemisphere"] == "left") & (fold.split != "test")]
    crops = crops.assign(Split=np.where(np.arange(len(crops)) % SHOWN, "train", "val"))
    return write_table(crops, list(map(Path, crops["path"])), (), folder / "volumes.csv")


def supervised_backbone(task: Task, images: str = IMAGES, start: Path | None = None
                        ) -> tuple[Path, float]:
    """Return a backbone that bb_train.py has trained on slices of the labelled crops, and seconds.

    Each slice has the labels of its crop, whatever the slice itself shows. A backbone is trained
    once for a fold, seed and size.

    Args:
        task: what is asked.
        images: flags of bb_train.py, with the epochs for 800 crops.
        start: a backbone to start from, instead of random weights.
    """
    usual = bb_train.build_parser().parse_args(shlex.split(images)).n_epochs
    settings = (f"{images} {COMMON} --seed {task.seed} --n_epochs {task.epochs(usual)} "
                f"--amp {task.amp}")
    settings += f" {SMALLEST}_bn {SMALL} {QUICK}" if task.quick else ""
    settings += f" --weights {shlex.quote(str(start))}" if start else ""
    return trained_once(task, settings, "supervised_backbones", lambda folder: write_slices(
        task.fold, folder, task.scratch / "slices"),
        [task.fold.scans.table["path"].tolist(), task.fold.split.tolist(), STEP])


def write_slices(fold: Fold, folder: Path, shared: Path) -> Path:
    """Write slices of the labelled crops and their table, for bb_train.py; files go to `shared`.

    Grey values are mapped by the window of the whole crop, as finetune.py maps them.
    """
    rows = np.repeat(fold.rows("train", "val"), -(-fold.scans.scans.shape[1] // STEP))
    table = fold.scans.table.loc[rows].assign(Split=fold.split[rows])
    names, paths = [], []
    for row in fold.rows("train", "val"):
        scan, name = np.asarray(fold.scans.scans[row]), fold.scans.table["nodule"][row]
        slices = to_uint8(scan, *window_range(scan, WINDOW))
        for number in range(0, len(slices), STEP):
            names.append(f"{name}_{number:02d}")
            paths.append(save(shared / f"{names[-1]}.npy", slices[number]))
    return write_table(table.assign(nodule=names), paths, fold.target.labels,
                       folder / "images.csv")


READ = f"{VOLUMES} {COMMON} --amp {AMP}; {CROPS}"  # how scripts see the crops
OWN_VOXELS = f"{AUGMENTATION}; {CROPS}"  # how 3D networks do
MOST = (800,)  # crops, on which parts of SLIViT are compared
_FEW_64 = f"{FEW} --img_size 64 {READ}"
_SLICES, _THEN = (f"one slice of {STEP}: {flags}; then " for flags in (IMAGES, THEN))
METHODS = {
    "end_to_end": Method(end_to_end, f"{WHOLE} {RATE} {READ}"),
    "supervised_slices": Method(supervised_slices, f"{_SLICES}{FROZEN} {READ}"),
    "few_volumes": Method(few_volumes, f"{FEW_VOLUMES} {READ}"),
    "few_volumes_slices": Method(few_volumes_slices, _SLICES + _FEW_64),
    "ssl_few": Method(ssl_few, f"{SSL}; {_FEW_64}"),
    "ssl_frozen": Method(ssl_frozen, f"{SSL}; {FROZEN} {READ}", sizes=MOST),
    "ssl_slices_few": Method(ssl_slices_few, f"{SSL}; {_THEN}{_FEW_64}"),
    "ssl_slices": Method(ssl_slices, f"{SSL}; {_THEN}{FROZEN} {READ}", sizes=MOST),
    "original_tokens": Method(original_tokens, f"{_SLICES}{FROZEN} (token channels_width) {READ}",
                              sizes=MOST),
    "mean_logits": Method(mean_logits, f"{_SLICES}{FROZEN} (mean of logits) {READ}", sizes=MOST),
    "probe_random": Method(probe_random, f"{probes.RANDOM}, {probes.LOGISTIC}; {CROPS}"),
    "resnet18_narrow": Method(resnet18_narrow, f"widths {NARROW}, {RESNET}, {OWN_VOXELS}"),
    "densenet": Method(densenet, f"16 features, growth 12, blocks (3, 6, 12, 8), {DENSENET}, "
                       f"{OWN_VOXELS}"),
}
