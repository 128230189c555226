"""What a model was made of, for its checkpoint and for reports (Mitchell et al. 2019)."""

import dataclasses
import hashlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.hub import title_of
from slivit.config import Augmentation, Target
from slivit.data.scan_table import SPLITS, ScanTable
from slivit.utils.log import counted
from slivit.utils.precision import precision_name
from slivit.utils.runtime import versions

OPTIONS = ("lr", "bb_lr", "b_size", "accumulate", "n_epochs", "weight_decay", "warmup_epochs",
           "patience", "select", "drop_path", "label_smoothing", "pos_weight", "balanced_sampling",
           "layer_decay", "ema", "mixup", "train_fraction", "amp", "freeze_backbone",
           "unfreeze_after", "feature_augments", "auxiliary", "weights", "method",
           "slices_per_volume")
WITHOUT_LABELS = ", without labels"  # after the name of what a backbone was trained on
AFTER = ", after "  # what it was trained on earlier

RESEARCH = ("Research. Not a medical device; its scores hold for scans like those it was evaluated "
            "on.")


def training_facts(scans: ScanTable, target: Target, augmentation: Augmentation, options: dict,
                   starts_from: str | None = None) -> dict:
    """Return what a checkpoint says of its training, JSON-serialisable.

    Args:
        scans: with the label columns of the target.
        target: what is predicted.
        augmentation: random transforms of training scans.
        options: of the script; those that shape the training are kept.
        starts_from: what the backbone was trained on, where that was a checkpoint.
    """
    return {"cohort": {split: cohort(scans, scans.rows(split), target) for split in SPLITS
                       if len(scans.rows(split))},
            "augmentation": dataclasses.asdict(augmentation), "backbone_data": starts_from,
            "options": {key: options[key] for key in OPTIONS if key in options}}


def cohort(scans: ScanTable, rows: np.ndarray, target: Target) -> dict:
    """Return counts of some rows: scans, patients, and of each label what is known."""
    labels = {}
    for name, column in zip(target.labels, scans.labels[rows].T, strict=True):
        known = column[~np.isnan(column)].astype(np.float64)
        labels[name] = {"known": len(known)}
        if target.task == "regression":
            labels[name] |= {"mean": float(known.mean()) if len(known) else None,
                             "sd": float(known.std()) if len(known) else None}
        else:
            labels[name]["positive"] = int(known.sum())
    patients = None
    if scans.patients is not None:
        patients = len({scans.patients[row] for row in rows})
    return {"scans": len(rows), "patients": patients, "labels": labels}


def cohort_table(cohorts: dict[str, dict], target: Target) -> pd.DataFrame:
    """Return cohorts as a table to print: a row per count (the index), a column per cohort."""
    table = {}
    for name, facts in cohorts.items():
        column = {"scans": str(facts["scans"]),
                  "patients": "unknown" if facts["patients"] is None else str(facts["patients"])}
        for label in target.labels:
            counts = facts["labels"].get(label, {"known": 0})
            column[label] = _label_text(counts, target)
        table[name] = column
    return pd.DataFrame(table).rename_axis("Count of")


def _label_text(counts: dict, target: Target) -> str:
    known = counts["known"]
    if not known:
        return "unknown"
    if target.task == "regression":
        return f"{counts['mean']:.4g} ± {counts['sd']:.3g} (of {known})"
    return f"{counts['positive']} of {known} ({100 * counts['positive'] / known:.1f} %)"


def card_rows(card: CheckpointHeader, evaluated_in: Iterable[torch.dtype] = ()
              ) -> tuple[tuple[str, str], ...]:
    """Return what a checkpoint says of itself, as names and values to print.

    Args:
        card: what its header says.
        evaluated_in: types of number in which it, and those beside it, were evaluated.
    """
    preprocess, training = card.preprocess, card.training
    rows = [
        ("Model", _model_text(card)),
        ("Predicts", f"{', '.join(card.target.labels)} ({card.target.task})" if card.target.labels
         else "nothing: it was pre-trained without labels" if not training.get("backbone_data")
         else "nothing: its last training was without labels"),
        ("Input", f"{preprocess.img_size} pixels per side, grey values: {preprocess.window}"
         + (f", {preprocess.n_slices} slices ({preprocess.slice_sampling}) of "
            f"{', '.join(preprocess.views)}" if preprocess.n_slices else "")
         + (", adjacent slices as channels" if preprocess.channels == "adjacent" else "")),
        ("Precision", _precision_text(card, evaluated_in)),
        ("Trained on", named_data(card)),
        _epoch_row(card)]
    if training.get("backbone_data"):
        rows.append(("Backbone pre-trained on", training["backbone_data"]))
    if training.get("augmentation"):
        rows.append(("Augmentation", f"flips {training['augmentation']['flips'] or 'none'}, jitter "
                                     f"{training['augmentation']['jitter']:g}"))
    if training.get("options"):
        rows.append(("Options", ", ".join(f"{key} {value}" for key, value in
                                          training["options"].items() if value is not None)))
    if card.temperature is not None:
        rows.append(("Temperature", f"{card.temperature:.4g} (used with --calibrate)"))
    if card.thresholds is not None:
        rows.append(("Operating point", ", ".join(
            f"{name} {value:.4g}" for name, value in zip(card.target.labels, card.thresholds,
                                                         strict=True) if value is not None)
            + " (Youden's index on validation)"))
    rows += [("Seed", str(card.seed)),
             ("Made with", ", ".join(f"{name} {value}" for name, value in card.versions.items())),
             ("Intended use", card.intended_use or RESEARCH)]
    return tuple(rows)


def _epoch_row(card: CheckpointHeader) -> tuple[str, str]:
    scores = ", ".join(f"{name} {value:.4g}" for name, value in card.score.items()
                       if value is not None)
    if is_solved(card):
        return "On validation", scores or "unknown"
    by = "by" if epoch_chosen(card) else "the last; on"
    return "Epoch kept", f"{card.epoch}, {by} validation: {scores}" if card.score else "unknown"


def is_solved(card: CheckpointHeader) -> bool:
    """Return whether a model was solved at once, so that it has no epochs."""
    return card.integrator is not None and card.integrator.kind == "linear"


def epoch_chosen(card: CheckpointHeader) -> bool:
    """Return whether validation scans chose the epoch: scores on them are then too optimistic."""
    return not is_solved(card) and card.training.get("options", {}).get("select") != "last"


def named_data(card: CheckpointHeader) -> str:
    """Return the name of what a model was trained on, and whether that was without labels."""
    return card.data["name"] + WITHOUT_LABELS * (not card.target.labels)


def lineage(card: CheckpointHeader) -> str:
    """Return the names of all that a model was trained on, what came last first."""
    before = card.training.get("backbone_data")
    return named_data(card) + (f"{AFTER}{before}" if before else "")


def _precision_text(card: CheckpointHeader, evaluated_in: Iterable[torch.dtype]) -> str:
    names = list(dict.fromkeys(map(precision_name, evaluated_in)))
    if names in ([], [card.precision]):
        return card.precision
    return f"trained in {card.precision}, evaluated in {' and '.join(names)}"


def _model_text(card: CheckpointHeader) -> str:
    """Return what a model is made of, in words."""
    if not card.integrator:
        return f"{card.backbone}, a 2D {'classifier' if card.target.labels else 'backbone'}"
    seen = "single slices"
    if not card.integrator.tokens_are_slices:
        seen = ("slices tiled into one picture (original SLIViT, "
                f"{card.integrator.token})")
    if card.integrator.kind == "linear":
        return (f"{card.backbone} over {seen}, linear integrator on the mean and the maximum of "
                "their features")
    return (f"{card.backbone} over {seen}, integrator of "
            f"{counted(card.integrator.depth, 'transformer block')}, width {card.integrator.dim}")


def provenance(paths: Sequence[Path], fingerprint: str) -> tuple[tuple[str, str], ...]:
    """Return what identifies a measurement: checkpoints, data, versions, command."""
    files = []
    for path in paths:
        with path.open("rb") as file:
            files.append((f"SHA-256 of {path.name}",
                          f"{hashlib.file_digest(file, 'sha256').hexdigest()} "
                          f"({title_of(path)})"))
    command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    return (*files, ("Data fingerprint", fingerprint),
            ("Versions", ", ".join(f"{name} {value}" for name, value in versions().items())),
            ("Command", command))
