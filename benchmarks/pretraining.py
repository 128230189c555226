"""What a few volumes are learned on: backbones of few images, of unlabelled scans, of both."""

import shlex
from pathlib import Path

import finetune
from benchmarks.methods import FEW
from benchmarks.nodule_files import write_images, write_unlabelled
from benchmarks.tasks import (
    COMMON,
    PLAIN_IMAGES,
    QUICK,
    SMALLEST,
    Method,
    Result,
    Task,
    run_script,
    trained_once,
)

SSL = ("--task ssl --img_size 64 --backbone convnext_atto_bn --weights none --drop_path 0 "
       "--n_epochs 5 --b_size 8 --slices_per_volume 8 --lr 1e-3 --amp bf16")
IMAGES = f"{PLAIN_IMAGES} --backbone convnext_atto_bn --amp bf16"  # one of each labelled nodule
THEN = f"{IMAGES} --lr 5e-4"  # after SSL


def few_images(task: Task) -> Result:
    """The recipe for few volumes on a backbone of labelled images of the same nodules."""
    return _few(task, "few_images", *_images(task, f"{IMAGES} --weights none"))


def ssl_few(task: Task) -> Result:
    """The recipe for few volumes on a backbone of all training scans, without labels."""
    return _few(task, "ssl_few", *_unlabelled(task))


def ssl_few_images(task: Task) -> Result:
    """The same, after the backbone has learned labels of images of the same nodules."""
    start, before = _unlabelled(task)
    backbone, seconds = _images(task, f"{THEN} --weights {shlex.quote(str(start))}")
    return _few(task, "ssl_few_images", backbone, before + seconds)


def _few(task: Task, method: str, backbone: Path, before: float) -> Result:
    return run_script(task, method, finetune.main,
                      f"{FEW} --img_size 64 --bb_path {shlex.quote(str(backbone))}", before)


def _unlabelled(task: Task) -> tuple[Path, float]:
    """Return a backbone of the fold's training patients, indeterminate nodules among them."""
    fold = task.pretraining
    return trained_once(task, _flags(task, SSL), "self_supervised_backbones",
                        lambda folder: write_unlabelled(fold, folder, task.scratch / "scans"),
                        ["nodules", fold.number])


def _images(task: Task, flags: str) -> tuple[Path, float]:
    """Return a backbone of one image of each nodule that the task has a label of."""
    usual = int(shlex.split(flags)[shlex.split(flags).index("--n_epochs") + 1])
    fold = task.fold
    return trained_once(task, _flags(task, f"{flags} --n_epochs {task.epochs(usual)}"),
                        "supervised_backbones",
                        lambda folder: write_images(fold, folder, task.scratch / "scans"),
                        ["nodules", fold.number, len(fold.rows("train", "val"))])


def _flags(task: Task, flags: str) -> str:
    small = f" {SMALLEST}_bn --img_size 32 {QUICK}" if task.quick else ""
    return f"{flags} {COMMON} --flips hv --seed {task.seed}{small}"


METHODS = {
    "few_images": Method(few_images, f"{IMAGES}, images of the same nodules; then {FEW}"),
    "ssl_few": Method(ssl_few, f"{SSL}; then {FEW}"),
    "ssl_few_images": Method(ssl_few_images, f"{SSL}; then {THEN}, images of the same nodules; "
                             f"then {FEW}"),
}
