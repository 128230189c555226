"""Methods that tell which regions of the brain a crop holds (benchmarks.regions)."""

import dataclasses
import hashlib
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import bb_train
import finetune
from benchmarks import methods, networks, probes
from benchmarks.methods import FEW, FEW_VOLUMES, NARROW, RESNET, volume_network
from benchmarks.nodule_files import save, write_table
from benchmarks.nodules import Fold
from benchmarks.region_crops import CROPS
from benchmarks.tasks import QUICK, SMALLEST, Method, Result, Task, run_on
from slivit.cli.parser import read_recipe
from slivit.config import Augmentation, Preprocess
from slivit.data.scan_table import SPLITS
from slivit.data.transforms import to_uint8, window_range
from slivit.training.self_supervised.method import SelfSupervisedMethod
from slivit.training.self_supervised.vicreg import VICReg
from slivit.utils.files import write_json

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
SMALL = "--img_size 32"  # in a quick run
SSL = ("--task ssl --img_size 64 --backbone convnext_atto_bn --weights none --drop_path 0 "
       f"--window {WINDOW} --n_epochs 5 --b_size 8 --slices_per_volume 8 --lr 1e-3")
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
    backbone, before = supervised_backbone(task)
    return fine_tune(task, "supervised_slices",
                     f"{FROZEN} --bb_path {shlex.quote(str(backbone))}", before)


def few_volumes(task: Task) -> Result:
    """The recipe for few volumes on a backbone of random weights."""
    return fine_tune(task, "few_volumes", f"{FEW_VOLUMES}{f' {SMALLEST}' if task.quick else ''}")


def few_volumes_slices(task: Task) -> Result:
    """The recipe for few volumes on the backbone of supervised_slices."""
    backbone, before = supervised_backbone(task)
    return fine_tune(task, "few_volumes_slices", f"{FEW} --img_size 64 --bb_path "
                     f"{shlex.quote(str(backbone))}", before)


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


def self_supervised_backbone(task: Task, flags: str = SSL,
                             method: type[SelfSupervisedMethod] = VICReg) -> tuple[Path, float]:
    """Return a backbone that bb_train.py has trained on the pool without labels, and seconds.

    The pool is all crops of the left hemisphere that are not scored; one of twenty shows the loss.
    A backbone is trained once for a seed and method.

    Args:
        task: what is asked.
        flags: of bb_train.py.
        method: of learning without labels.
    """
    table = task.fold.scans.table
    rows = np.flatnonzero((table["hemisphere"] == "left") & (task.fold.split != "test"))
    split = np.where(np.arange(len(rows)) % SHOWN, "train", "val")
    crops = table.loc[rows].assign(Split=split)
    settings = f"{flags} {COMMON} --seed {task.seed}"
    settings += f" {SMALLEST}_bn {SMALL} {QUICK}" if task.quick else ""
    return _trained_once(task, settings, "self_supervised_backbones", lambda folder: write_table(
        crops, list(map(Path, crops["path"])), (), folder / "volumes.csv"),
        [crops["path"].tolist(), split.tolist(), *[method.name] * (method is not VICReg)], method)


def supervised_backbone(task: Task, images: str = IMAGES) -> tuple[Path, float]:
    """Return a backbone that bb_train.py has trained on slices of the labelled crops, and seconds.

    Each slice has the labels of its crop, whatever the slice itself shows. A backbone is trained
    once for a fold, seed and size.

    Args:
        task: what is asked.
        images: flags of bb_train.py, with the epochs for 800 crops.
    """
    usual = bb_train.build_parser().parse_args(shlex.split(images)).n_epochs
    settings = f"{images} {COMMON} --seed {task.seed} --n_epochs {task.epochs(usual)}"
    settings += f" {SMALLEST}_bn {SMALL} {QUICK}" if task.quick else ""
    return _trained_once(task, settings, "supervised_backbones", lambda folder: write_slices(
        task.fold, folder, task.scratch / "slices"),
        [task.fold.scans.table["path"].tolist(), task.fold.split.tolist(), STEP])


def _trained_once(task: Task, settings: str, kind: str, write: Callable[[Path], Path],
                  scans: list, method: type[SelfSupervisedMethod] = VICReg) -> tuple[Path, float]:
    """Return the backbone of bb_train.py, run where it has not been yet, and seconds.

    Args:
        task: what is asked.
        settings: flags.
        kind: folder of such backbones.
        write: writes the table into a folder; returns its path.
        scans: what the table says, by which backbones are told apart.
        method: of learning without labels, where the flags ask for it.
    """
    digest = hashlib.sha256(f"{settings} {scans}".encode()).hexdigest()
    folder = task.scratch / kind / f"seed_{task.seed}_{digest[:12]}"
    path, done = folder / "run" / "backbone.safetensors", folder / "done.json"
    if done.exists():
        return path, json.loads(done.read_text(encoding="utf-8"))["seconds"]
    table = write(folder)
    start = time.process_time()
    bb_train.main(["--meta_csv", str(table), *shlex.split(settings), "--out_dir",
                   str(path.parent), "--amp", task.amp], method)
    seconds = time.process_time() - start
    (path.parent / "last.pt").unlink()
    write_json(done, {"settings": settings, "seconds": seconds})
    return path, seconds


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


_INPUT = f"{VOLUMES} {COMMON}; {CROPS}"
_OWN_VOXELS = f"{AUGMENTATION}; {CROPS}"
METHODS = {
    "end_to_end": Method(end_to_end, f"{WHOLE} {RATE} {_INPUT}"),
    "supervised_slices": Method(supervised_slices, f"one slice of {STEP}: {IMAGES}; then {FROZEN} "
                                f"{_INPUT}"),
    "few_volumes": Method(few_volumes, f"{FEW_VOLUMES} {_INPUT}"),
    "few_volumes_slices": Method(few_volumes_slices, f"one slice of {STEP}: {IMAGES}; then {FEW} "
                                 f"--img_size 64 {_INPUT}"),
    "probe_random": Method(probe_random, f"{probes.RANDOM}, {probes.LOGISTIC}; {CROPS}"),
    "resnet18_narrow": Method(resnet18_narrow, f"widths {NARROW}, {RESNET}, {_OWN_VOXELS}"),
    "densenet": Method(densenet, f"16 features, growth 12, blocks (3, 6, 12, 8), {DENSENET}, "
                       f"{_OWN_VOXELS}"),
}
