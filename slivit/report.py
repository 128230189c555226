"""Measure a model on a split and write what was found: used at the end of all three scripts."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import nn

from slivit.config import Target
from slivit.datasets import Batch, ScanDataset, make_loader
from slivit.engine import predict
from slivit.metrics import evaluate, format_scores, predictions_table
from slivit.plots import plot_scores
from slivit.runtime import LOG, whole_file, write_json
from slivit.sampling import interleave
from slivit.scans import Scans, match_names
from slivit.session import Session
from slivit.tasks import to_predictions


def closing_split(scans: Scans) -> str:
    """Return the split a finished training is measured on: test, or else validation, and say so."""
    if len(scans.rows("test")):
        return "test"
    LOG.info("%s has no test split: the scores below are of the validation split, on which the "
             "epoch was chosen", scans.name)
    return "val"


def predict_scans(model: nn.Module, target: Target, scans: Scans, rows: np.ndarray, run: Session,
                  b_size: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Predict rows in order, each once; every process its share.

    Args:
        model: on the device; its own `preprocess` is applied.
        target: the model's.
        scans, rows: what to predict.
        run: where it runs.
        b_size: scans at a time.
        what: named by the progress bar.

    Returns:
        (n, K) probabilities or values, and bool (n,): whether the model was shown zeros only.
    """
    share = run.world.share(rows)
    loader = make_loader(ScanDataset(scans, share, model.preprocess), b_size, run.n_workers,
                         run.device)
    blank: list[bool] = []
    logits = np.empty((0, len(target.labels)), np.float32)
    if len(share):
        shown = run.world.main and not run.quiet
        logits, _ = predict(model.eval(), _note_blank(loader, blank), run.device,
                            f"predict {what}" if shown else None, len(loader))
    logits = interleave(run.world.join(logits))
    return to_predictions(logits, target), interleave(run.world.join(np.array(blank, dtype=bool)))


def measure(models: list[nn.Module], targets: list[Target], scans: Scans, split: str, run: Session,
            b_size: int, out_dir: Path, seed: int = 0, only: list[str] | None = None) -> None:
    """Predict every row of a split in order; write scores, predictions and plots; print scores.

    Args:
        models: on the device; of several, the predictions are averaged.
        targets: of each; their labels are the same.
        scans: with the label columns of the models.
        split: `train`, `val`, `test` or `all`.
        run: where it runs.
        b_size: scans at a time.
        out_dir: gets `metrics.json`, `predictions.csv` and the plots.
        seed: of the bootstrap.
        only: labels to report; default all of the models'.
    """
    rows = scans.rows(split)
    found = [predict_scans(model, target, scans, rows, run, b_size, split)
             for model, target in zip(models, targets, strict=True)]
    if not run.world.main:
        return
    pred = np.mean([one for one, _ in found], axis=0)
    blank = np.all([empty for _, empty in found], axis=0)
    if blank.any():
        LOG.warning("warning: %d of these scans show nothing in the window %s (every pixel alike) "
                    "and are scored all the same; metrics.json names them", blank.sum(),
                    models[0].preprocess.window)
    write_report(scans, rows, pred, targets[0], split, out_dir, seed, only,
                 {"blank_scans": [scans.ids[row] for row in rows[blank]], "models": len(models)})


def write_report(scans: Scans, rows: np.ndarray, pred: np.ndarray, target: Target, split: str,
                 out_dir: Path, seed: int, only: list[str] | None = None,
                 facts: dict | None = None, columns: dict | None = None) -> dict:
    """Write and print scores, predictions and plots of predictions that are already made.

    Args:
        scans, rows: what they are of.
        pred: (n, K).
        target: gives task and labels.
        split: as it is to be called.
        out_dir, seed, only: see measure.
        facts: to be recorded in `metrics.json` too.
        columns: of `predictions.csv`, beside its own.

    Returns:
        The content of `metrics.json`.
    """
    if only:
        scans, pred, target = _keep_labels(scans, pred, target, only)
    groups = np.asarray(scans.groups())[rows]
    metrics = evaluate(scans.labels[rows], pred, target, groups, split, seed)
    metrics["data"] = scans.name
    metrics["intervals_by"] = "row" if scans.patients is None else "patient"
    metrics |= facts or {}
    write_json(out_dir / "metrics.json", metrics)
    table = predictions_table(scans, rows, pred, target, split == "all").assign(**columns or {})
    with whole_file(out_dir / "predictions.csv") as part:
        table.to_csv(part, index=False)
    plots = plot_scores(scans.labels[rows], pred, target, metrics, out_dir)
    LOG.info("%s, %s: %d scans, intervals by %s\n%s", scans.name, split, len(rows),
             metrics["intervals_by"], format_scores(metrics))
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
