"""The pictures a run leaves."""

import dataclasses
from pathlib import Path

import numpy as np

from slivit.config import Target
from slivit.report.formatting import NAMES
from slivit.report.plots.agreement import (
    plot_bland_altman,
    plot_confusion,
    plot_decisions,
    plot_scatter,
)
from slivit.report.plots.curves import Column, plot_calibration, plot_pr, plot_roc
from slivit.report.plots.style import new_figure, plain, save_figure
from slivit.utils.log import LONGEST_NAME


def plot_history(log: list[dict], score: str | None, path: Path) -> None:
    """Draw loss and, if there is one, validation score over epochs.

    A dotted line marks the epoch kept.
    """
    figure, panels = new_figure(9 if score else 4.8, 3.8, 1, 2 if score else 1)
    left, *others = np.atleast_1d(panels)
    epochs = [row["epoch"] for row in log]
    left.plot(epochs, [row["train_loss"] for row in log], marker=".", label="training")
    left.plot(epochs, [row["val_loss"] for row in log], marker=".", label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    best = max(i for i, row in enumerate(log) if row["best"])
    drawn = [(left, log[best]["val_loss"])]
    for right in others:
        values = [np.nan if row[f"val_{score}"] is None else row[f"val_{score}"] for row in log]
        right.plot(epochs, values, marker=".", color="tab:orange", label="validation")
        right.set(xlabel="epoch", ylabel=NAMES[score])
        if np.isfinite(values).any():  # at least 0.05 high: noise is not to look like a trend
            low, high = np.nanmin(values), np.nanmax(values)
            half = max(0.025, 0.55 * (high - low))
            right.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
        drawn.append((right, values[best]))
    for axes, kept in drawn:
        axes.axvline(epochs[best], linestyle=":", color="grey",
                     label=f"kept: epoch {epochs[best]}, {kept:.3f}")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def plot_scores(truth: np.ndarray, pred: np.ndarray, target: Target, metrics: dict,
                out_dir: Path, before: np.ndarray | None = None) -> list[Path]:
    """Draw ROC, PR and calibration curves and the confusion matrix; for regression, agreement.

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
        metrics: of evaluation.evaluate, for legends, operating points and the confusion matrix.
        out_dir: where the pictures go.
        before: (n, K) probabilities before temperature scaling, drawn beside those after it.

    Returns:
        The files written: roc.png, pr.png, calibration.png and confusion.png, or scatter.png and
        bland_altman.png. There are no curves where no label has both classes, and no confusion
        matrix of labels without an operating point.
    """
    columns = []
    for k, name in enumerate(target.labels):
        known = ~np.isnan(truth[:, k])
        columns.append(Column(plain(name, LONGEST_NAME), truth[known, k], pred[known, k],
                              metrics["labels"][name],
                              None if before is None else before[known, k]))
    title = f"{metrics['split']}: {metrics['n']} scans"
    if target.task == "regression":
        return [plot_scatter(columns, title, out_dir / "scatter.png"),
                plot_bland_altman(columns, title, out_dir / "bland_altman.png")]
    files = []
    both = [column for column in columns if column.scores["roc_auc"] is not None]
    if both:
        files = [plot_roc(both, title, out_dir / "roc.png"),
                 plot_pr(both, title, out_dir / "pr.png"),
                 plot_calibration(both, title, out_dir / "calibration.png")]
    confusion = metrics.get("confusion")
    decided = [dataclasses.replace(column, name=plain(name, 18))
               for name, column in zip(target.labels, columns, strict=True)
               if column.scores.get("operating_point")]
    if confusion:
        files.append(plot_confusion(confusion["labels"], np.array(confusion["counts"]), title,
                                    out_dir / "confusion.png"))
    elif decided:
        files.append(plot_decisions(decided, title, out_dir / "confusion.png"))
    return files
