"""Measure a model on a split and write what was found: used at the end of all three scripts."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slivit.config import Target
from slivit.datasets import Batch, ScanDataset, make_loader
from slivit.engine import predict
from slivit.metrics import evaluate, format_scores, predictions_table
from slivit.plots import plot_scores
from slivit.runtime import LOG, whole_file, write_json
from slivit.scans import Scans, match_names
from slivit.tasks import to_predictions


def closing_split(scans: Scans) -> str:
    """Return the split a finished training is measured on: test, or else validation, and say so."""
    if len(scans.rows("test")):
        return "test"
    LOG.info("%s has no test split: the scores below are of the validation split, on which the "
             "epoch was chosen", scans.name)
    return "val"


def measure(model: nn.Module, scans: Scans, split: str, target: Target, device: torch.device,
            b_size: int, n_workers: int, out_dir: Path, seed: int = 0,
            only: list[str] | None = None) -> dict:
    """Predict every row of a split in order; write scores, predictions and plots; print scores.

    Args:
        model: on `device`; its own `preprocess` is applied.
        scans: with the label columns of the model.
        split: `train`, `val`, `test` or `all`.
        target: the model's; scores are of these labels.
        device, b_size, n_workers: how to run.
        out_dir: gets `metrics.json`, `predictions.csv` and the plots.
        seed: of the bootstrap.
        only: labels to report; default all of the model's.

    Returns:
        The content of `metrics.json`.
    """
    rows = scans.rows(split)
    dataset = ScanDataset(scans, rows, model.preprocess)
    blank = []
    loader = make_loader(dataset, b_size, n_workers, device)
    logits, _ = predict(model.eval(), _note_blank(loader, blank), device, f"predict {split}",
                        len(loader))
    pred = to_predictions(logits, target)
    if only:
        scans, pred, target = _keep_labels(scans, pred, target, only)
    groups = np.asarray(scans.groups())[rows]
    metrics = evaluate(scans.labels[rows], pred, target, groups, split, seed)
    metrics["data"] = scans.name
    metrics["intervals_by"] = "row" if scans.patients is None else "patient"
    metrics["blank_scans"] = [scans.ids[row] for row, empty in zip(rows, blank, strict=True)
                              if empty]
    write_json(out_dir / "metrics.json", metrics)
    with whole_file(out_dir / "predictions.csv") as part:
        predictions_table(scans, rows, pred, target, split == "all").to_csv(part, index=False)
    plots = plot_scores(scans.labels[rows], pred, target, metrics, out_dir)
    LOG.info("%s, %s: %d scans, intervals by %s\n%s", scans.name, split, len(rows),
             metrics["intervals_by"], format_scores(metrics))
    if metrics["blank_scans"]:
        LOG.warning("warning: %d of these scans show nothing in the window %s (every pixel alike) "
                    "and are scored all the same; metrics.json names them",
                    len(metrics["blank_scans"]), model.preprocess.window)
    LOG.info("written to %s: %s", out_dir, ", ".join(
        ["metrics.json", "predictions.csv", *(plot.name for plot in plots)]))
    return metrics


def _note_blank(batches: Iterable[Batch], blank: list[bool]) -> Iterator[Batch]:
    """Pass batches on, and note of each scan whether all of its pixels are 0."""
    for batch in batches:
        blank += (batch.x.flatten(1).amax(dim=1) == 0).tolist()
        yield batch


def _keep_labels(scans: Scans, pred: np.ndarray, target: Target,
                 only: list[str]) -> tuple[Scans, np.ndarray, Target]:
    """Return scans, predictions (n, k) and target of some of the labels.

    Some of several classes are scored each on its own, as in multi-label.
    """
    columns = match_names(only, target.labels, "labels of the checkpoint")
    labels = tuple(target.labels[k] for k in columns)
    task = "multilabel" if target.task == "multiclass" else target.task
    return (scans.select_labels(labels), pred[:, columns],
            dataclasses.replace(target, task=task, labels=labels))
