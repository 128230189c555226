"""How predictions agree with the truth: confusion matrices, scatter and Bland-Altman plots."""

from pathlib import Path

import numpy as np

from slivit.report.formatting import score_text
from slivit.report.plots.curves import Column
from slivit.report.plots.style import new_figure, new_panels, plain, save_figure

MOST_PANELS = 12  # small confusion matrices in one picture


def plot_confusion(names: list[str], counts: np.ndarray, title: str, path: Path) -> Path:
    """Draw the confusion matrix of several classes.

    Args:
        names: K classes.
        counts: (K, K), rows truth, columns predicted.
        title: above it.
        path: of the PNG.
    """
    side = 2.6 + 0.55 * len(names)
    figure, axes = new_figure(side + 0.6, side)
    _matrix(axes, counts, 9 if len(names) < 9 else 8)
    shown = [plain(name, 18) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), shown)
    axes.set(xlabel="predicted", ylabel="true",
             title=f"Confusion, {title}\n(scans; shade: share of the true class)")
    return save_figure(figure, path)


def plot_decisions(columns: list[Column], title: str, path: Path) -> Path:
    """Draw the 2 x 2 table of every label at its operating point, at most MOST_PANELS of them."""
    shown = columns[:MOST_PANELS]
    figure, panels = new_panels(len(shown), 4, 2.5 if len(shown) > 1 else 4.4, 2.7, 0.6)
    for axes, column in zip(panels, shown, strict=True):
        point = column.scores["operating_point"]
        _matrix(axes, np.array([[point["tn"], point["fp"]], [point["fn"], point["tp"]]]), 10)
        axes.set_xticks((0, 1), ("no", "yes"))
        axes.set_yticks((0, 1), ("no", "yes"))
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"{column.name}\nat {point['threshold']:.3f} or more", fontsize=10)
    some = "" if len(shown) == len(columns) else f" (first {len(shown)} of {len(columns)} labels)"
    figure.suptitle(f"Confusion, {title}{some}", fontsize=12)
    return save_figure(figure, path)


def plot_scatter(columns: list[Column], title: str, path: Path) -> Path:
    """Draw predicted over true values, a panel per label."""
    figure, panels = new_panels(len(columns), 3, 4.8, 4.8)
    for column, axes in zip(columns, panels, strict=True):
        truth, pred = column.truth, column.pred
        axes.scatter(truth, pred, s=12, alpha=0.5)
        if len(truth):
            ends = [min(truth.min(), pred.min()), max(truth.max(), pred.max())]
            axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"{column.name}, true", ylabel=f"{column.name}, predicted",
                 title=f"{title}\nR² {score_text(column.scores, 'r2')}")
        axes.grid(alpha=0.3)
    return save_figure(figure, path)


def plot_bland_altman(columns: list[Column], title: str, path: Path) -> Path:
    """Draw differences over means with bias and limits of agreement (Bland & Altman 1986)."""
    figure, panels = new_panels(len(columns), 3, 4.8, 4.8)
    for column, axes in zip(columns, panels, strict=True):
        difference = column.pred - column.truth
        axes.scatter((column.truth + column.pred) / 2, difference, s=12, alpha=0.5)
        for key, name, style in (("loa_high", "upper limit", "--"), ("bias", "bias", "-"),
                                 ("loa_low", "lower limit", "--")):
            value = column.scores.get(key)
            if value is None:
                continue
            axes.axhline(value, color="black", linewidth=1, linestyle=style,
                         label=f"{name} {value:.4g}")
            interval = column.scores.get(f"{key}_ci")
            if interval:
                axes.axhspan(*interval, color="grey", alpha=0.2, linewidth=0)
        axes.axhline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"{column.name}, mean of true and predicted",
                 ylabel="predicted - true", title=f"Bland-Altman, {title}")
        axes.margins(y=0.2)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="upper right")
    return save_figure(figure, path)


def _matrix(axes, counts: np.ndarray, fontsize: int) -> None:
    """Draw counts (K, K) shaded by their share of the row."""
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=fontsize,
                  color="white" if share[row, column] > 0.55 else "black")
