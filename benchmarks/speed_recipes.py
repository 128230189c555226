"""Stored features against end to end; the demonstration's recipe against the paper's."""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import finetune
from benchmarks import nodules
from benchmarks.nodules import as_scans
from benchmarks.speed_steps import MEAN, STD
from slivit.cli.parser import read_recipe
from slivit.cli.records import integrator_config
from slivit.config import Preprocess
from slivit.data.datasets import TrainingSet, scan_training_set
from slivit.data.named_sets import DATA_DIR
from slivit.models.slivit import SLIViT
from slivit.training.frozen_features import FeatureOptions, frozen_training_set
from slivit.training.losses import Objective, loss_sum
from slivit.utils.session import Session

CPU = torch.device("cpu")
QUICK = "--n_epochs 1 --backbone convnext_zepto_rms"
PRETRAIN, FINETUNE = (" ".join(read_recipe(name)) for name in ("nodules_images",
                                                                 "nodules_volumes"))
PAPER = ("--weights none --n_epochs 6 --patience 0", "--n_epochs 3 --patience 0 --lr 1e-4")
"""The scripts' own defaults, which have the paper's sizes, for long enough to see them rise."""


def frozen(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Measure an epoch of the recommended recipe's model on nodules, both ways in turn.

    Returns:
        Rows of what, volumes, seconds, ratio (of end to end to it). `features` are computed once
        in a run, for the plain volumes; each augmented version takes as long again.
    """
    count = 24 if quick else 200
    args = finetune.build_parser().parse_args(shlex.split(FINETUNE))
    backbone = "convnext_zepto_rms" if quick else backbone_name()
    volumes, images = nodules.load(2 * count)
    scans = as_scans(nodules.make_fold(0, volumes, images))
    preprocess = Preprocess(args.img_size, "full", MEAN, STD, n_slices=28)
    torch.manual_seed(0)
    model = SLIViT(backbone, 1, preprocess, integrator_config(args))
    run = Session(CPU, quiet=True)
    options = FeatureOptions(0, scans.augmentation, 16, 0)
    raw = scan_training_set(scans, preprocess, scans.augmentation, run, 16, 0)
    _set_averages(model, raw)
    taken: dict[str, list[float]] = {"features": [], "epoch, frozen": [], "epoch, end to end": []}
    for k in range(repeats + 1):  # the first is to warm up
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            stored = frozen_training_set(model, scans, options, Path(folder), run)
            times = [time.perf_counter() - start, _epoch(model.integrator, stored),
                     _epoch(model, raw)]
        for kept, seconds in zip(taken.values(), times, strict=True):
            if k:
                kept.append(seconds)
    medians = {what: statistics.median(kept) for what, kept in taken.items()}
    return [{"what": what, "volumes": len(scans.rows("train")), "seconds": round(seconds, 3),
             "ratio": round(medians["epoch, end to end"] / seconds, 1), "repeats": repeats}
            for what, seconds in medians.items()]


@torch.no_grad()
def _set_averages(model: SLIViT, data: TrainingSet) -> None:
    """Give BatchNorm averages as pre-training leaves them.

    With none, gradients shrink to denormal numbers, which take a CPU twice the time.
    """
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = None  # all batches count alike
    for batch in data.batches(1, 0):
        model.slice_features(*data.inputs(batch))


def _epoch(model: nn.Module, data: TrainingSet) -> float:
    """Train a model, or a part of one, for an epoch; return the seconds."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    start = time.perf_counter()
    for batch in data.batches(1, 0):
        logits = model(*data.inputs(batch))
        loss = loss_sum(logits, batch.y, Objective(nodules.TARGET)) / len(batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def backbone_name() -> str:
    """Return the backbone of the recommended recipe."""
    words = shlex.split(PRETRAIN)
    return words[words.index("--backbone") + 1]


def recipes(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Run both recipes once, from nothing, on the embedded sets, and follow their validation.

    The recommended one reads the files of demo.nodule_tables; their writing counts.

    Returns:
        Rows of recipe, stage (`pretrain` or `finetune`), epoch, minutes since the recipe began,
        val_roc_auc (of the stage's own validation); the last row of a recipe has goal, the best
        score on volumes of the recipe that does worse, and minutes_to_goal.
    """
    rows = []
    for name, flags in (("recommended", (PRETRAIN, FINETUNE)), ("paper's sizes", PAPER)):
        with tempfile.TemporaryDirectory() as folder:
            mine, before, tables = [], 0.0, {"pretrain": [], "finetune": []}
            backbone = Path(folder) / "pretrain" / "backbone.safetensors"
            if name == "recommended":
                before = _run(["-m", "demo.nodule_tables", f"{folder}/tables"], threads)
                tables = {stage: ["--meta_csv", f"{folder}/tables/{kind}.csv"] for stage, kind in
                          (("pretrain", "images"), ("finetune", "volumes"))}
            for stage, script, extra in (("pretrain", "bb_train.py", tables["pretrain"]), (
                    "finetune", "finetune.py",
                    [*tables["finetune"], "--bb_path", str(backbone)])):
                words = shlex.split(flags[stage == "finetune"])
                words += shlex.split(QUICK if stage == "pretrain" else "--n_epochs 1") * quick
                out = Path(folder) / stage
                seconds = _run([script, *words, *extra, "--out_dir", str(out), "--quiet",
                                "--gpu_id", "cpu"], threads)
                mine += _epochs(name, stage, out, before, seconds)
                before += seconds
        rows += mine
    return with_goal(rows)


def with_goal(rows: list[dict]) -> list[dict]:
    """Return the rows, a recipe's last with `goal` and `minutes_to_goal`; see `recipes`."""
    tuned: dict[str, list[dict]] = {}
    for row in rows:
        if row["stage"] == "finetune":
            tuned.setdefault(row["recipe"], []).append(row)
    goal = min(max(row["val_roc_auc"] for row in mine) for mine in tuned.values())
    for mine in tuned.values():
        mine[-1] |= {"goal": goal, "minutes_to_goal": next(
            row["minutes"] for row in mine if row["val_roc_auc"] >= goal)}
    return rows


def _run(command: list[str], threads: int) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, cwd=DATA_DIR.parent,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return time.perf_counter() - start


def _epochs(recipe: str, stage: str, out: Path, before: float, seconds: float) -> list[dict]:
    """Return a row per epoch; a run's other seconds (start, features, report) precede them all."""
    log = pd.read_csv(out / "log.csv")
    ends = before + seconds - log["seconds"].sum() + log["seconds"].cumsum()
    return [{"recipe": recipe, "stage": stage, "epoch": int(epoch), "minutes": round(end / 60, 2),
             "val_roc_auc": round(score, 4)}
            for epoch, end, score in zip(log["epoch"], ends, log["val_roc_auc"], strict=True)]

