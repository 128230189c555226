"""ROC, precision-recall and calibration curves, a line per label."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from slivit.report.formatting import score_text
from slivit.report.plots.style import (
    diagonal,
    legend,
    new_figure,
    save_figure,
    tell_apart,
    unit_square,
)


@dataclass(frozen=True)
class Column:
    """A label as it is drawn.

    Attributes:
        name: as matplotlib shows it.
        truth, pred: (n,) of the scans whose label is known.
        scores: its entry in `metrics.json`.
        before: (n,) predictions before calibration, or None.
    """

    name: str
    truth: np.ndarray
    pred: np.ndarray
    scores: dict
    before: np.ndarray | None = None


def plot_roc(columns: list[Column], title: str, path: Path) -> Path:
    """Draw ROC curves, and a dot at the operating point where one was chosen."""
    figure, axes = new_figure()
    tell_apart(axes, len(columns))
    points = [column.scores.get("operating_point") for column in columns]
    for column, point in zip(columns, points, strict=True):
        fpr, tpr, _ = sk.roc_curve(column.truth, column.pred)
        line, = axes.plot(fpr, tpr, label=f"{column.name}: {score_text(column.scores, 'roc_auc')}")
        if point:
            axes.plot(1 - point["specificity"], point["sensitivity"], "o", markersize=8,
                      color=line.get_color(), markeredgecolor="white", zorder=5)
    diagonal(axes)
    marked = "\n(dot: operating point)" if any(points) else ""
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"ROC, {title}{marked}")
    unit_square(axes)
    legend(figure, axes, "lower right")
    return save_figure(figure, path)


def plot_pr(columns: list[Column], title: str, path: Path) -> Path:
    """Draw precision-recall curves over each label's prevalence."""
    figure, axes = new_figure()
    tell_apart(axes, len(columns))
    for column in columns:
        precision, recall, _ = sk.precision_recall_curve(column.truth, column.pred)
        line, = axes.step(recall, precision, where="post",
                          label=f"{column.name}: {score_text(column.scores, 'pr_auc')}")
        axes.axhline(column.truth.mean(), color=line.get_color(), linewidth=0.8, linestyle=":")
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)",
             title=f"Precision-recall, {title}\n(dotted: prevalence)")
    unit_square(axes)
    legend(figure, axes, "lower left")
    return save_figure(figure, path)


def plot_calibration(columns: list[Column], title: str, path: Path) -> Path:
    """Draw reliability diagrams (bins of equal size): one, or before and after calibration."""
    if all(column.before is None for column in columns):
        figure, axes = new_figure()
        _reliability(axes, columns, [column.pred for column in columns])
        axes.set_title(f"Calibration, {title}")
        legend(figure, axes, "upper left")
        return save_figure(figure, path)
    figure, panels = new_figure(10, 5.6, 1, 2)
    for axes, name, shown in zip(panels, ("before", "after"), (
            [column.before for column in columns], [column.pred for column in columns]),
            strict=True):
        _reliability(axes, columns, shown)
        axes.set_title(f"{name} temperature scaling")
        axes.legend(fontsize=8, loc="upper left")
    if len(columns) > 6:  # such legends would hide the curves
        for axes in panels:
            axes.get_legend().remove()
        names = [column.name for column in columns]
        figure.set_figheight(figure.get_figheight() + 0.3 * -(-len(names) // 4))
        figure.legend(panels[0].get_lines()[:len(names)], names, frameon=False, fontsize=8,
                      loc="outside lower center", ncols=4)
    figure.suptitle(f"Calibration, {title}")
    return save_figure(figure, path)


def _reliability(axes, columns: list[Column], shown: list[np.ndarray]) -> None:
    tell_apart(axes, len(columns))
    for column, pred in zip(columns, shown, strict=True):
        bins = int(np.clip(len(column.truth) // 20, 2, 10))
        observed, expected = calibration_curve(column.truth, pred, n_bins=bins,
                                               strategy="quantile")
        brier = np.mean((column.truth - pred) ** 2)
        axes.plot(expected, observed, marker="o", markersize=4,
                  label=f"{column.name}: Brier {brier:.3f}")
    diagonal(axes)
    axes.set(xlabel="predicted probability (bins of equal size)", ylabel="observed frequency")
    unit_square(axes)
