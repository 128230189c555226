"""The pictures a run leaves."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from slivit.config import Target
from slivit.metrics import score_text
from slivit.runtime import whole_file

FEW_LABELS = 3  # more have their legend below the plot
SCORE_NAMES = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "r2": "R²"}


def _figure(width: float = 5.5, height: float = 5.0, columns: int = 1):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _curves(count: int):
    """Return a figure and axes whose colours tell `count` curves apart (up to 20)."""
    figure, axes = _figure()
    axes.set_prop_cycle(color=colormaps["tab10" if count <= 10 else "tab20"].colors)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as part:
        figure.savefig(part, dpi=120)


def plot_history(log: list[dict], score: str, path: Path) -> None:
    """Draw loss and validation score over epochs; a dotted line marks the epoch kept."""
    figure, (left, right) = _figure(9, 3.8, 2)
    epochs = [row["epoch"] for row in log]
    left.plot(epochs, [row["train_loss"] for row in log], marker=".", label="training")
    left.plot(epochs, [row["val_loss"] for row in log], marker=".", label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    values = [np.nan if row[f"val_{score}"] is None else row[f"val_{score}"] for row in log]
    right.plot(epochs, values, marker=".", color="tab:orange", label="validation")
    right.set(xlabel="epoch", ylabel=SCORE_NAMES.get(score, score))
    best = max(i for i, row in enumerate(log) if row["best"])
    if np.isfinite(values).any():  # at least 0.05 high, so that noise does not look like a trend
        low, high = np.nanmin(values), np.nanmax(values)
        half = max(0.025, 0.55 * (high - low))
        right.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
    for axes, kept in ((left, log[best]["val_loss"]), (right, values[best])):
        axes.axvline(epochs[best], linestyle=":", color="grey",
                     label=f"kept: epoch {epochs[best]}, {kept:.3f}")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)


def plot_scores(truth: np.ndarray, pred: np.ndarray, target: Target, metrics: dict,
                out_dir: Path) -> list[Path]:
    """Draw ROC, PR and calibration curves, or a scatter plot for regression.

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
        metrics: of metrics.evaluate, for the legends.
        out_dir: where the pictures go.

    Returns:
        The files written; none of a kind for which no label has both classes.
    """
    columns = []
    for k, name in enumerate(target.labels):
        known = ~np.isnan(truth[:, k])
        shown = name.replace("$", r"\$")  # no formula
        columns.append((shown, truth[known, k], pred[known, k], metrics["labels"][name]))
    title = f"{metrics['split']}: {metrics['n']} scans"
    if target.task == "regression":
        return [_plot_scatter(columns, title, out_dir / "scatter.png")]
    columns = [column for column in columns if column[3]["roc_auc"] is not None]
    if not columns:
        return []
    return [_plot_roc(columns, title, out_dir / "roc.png"),
            _plot_pr(columns, title, out_dir / "pr.png"),
            _plot_calibration(columns, title, out_dir / "calibration.png")]


def _plot_roc(columns: list, title: str, path: Path) -> Path:
    figure, axes = _curves(len(columns))
    for name, truth, pred, scores in columns:
        fpr, tpr, _ = sk.roc_curve(truth, pred)
        axes.plot(fpr, tpr, label=f"{name}: {score_text(scores, 'roc_auc')}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"ROC, {title}",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return _finish(figure, axes, path, "lower right")


def _plot_pr(columns: list, title: str, path: Path) -> Path:
    figure, axes = _curves(len(columns))
    for name, truth, pred, scores in columns:
        precision, recall, _ = sk.precision_recall_curve(truth, pred)
        line, = axes.step(recall, precision, where="post",
                          label=f"{name}: {score_text(scores, 'pr_auc')}")
        axes.axhline(truth.mean(), color=line.get_color(), linewidth=0.8, linestyle=":")
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)",
             title=f"Precision-recall, {title}\n(dotted: prevalence)",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return _finish(figure, axes, path, "lower left")


def _plot_calibration(columns: list, title: str, path: Path) -> Path:
    figure, axes = _curves(len(columns))
    for name, truth, pred, scores in columns:
        bins = int(np.clip(len(truth) // 20, 2, 10))
        observed, expected = calibration_curve(truth, pred, n_bins=bins, strategy="quantile")
        axes.plot(expected, observed, marker="o", markersize=4,
                  label=f"{name}: Brier {scores['brier']:.3f}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="predicted probability (bins of equal size)", ylabel="observed frequency",
             title=f"Calibration, {title}", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return _finish(figure, axes, path, "upper left")


def _plot_scatter(columns: list, title: str, path: Path) -> Path:
    figure, grid = _figure(4.8 * len(columns), 4.8, len(columns))
    for (name, truth, pred, scores), axes in zip(columns, np.atleast_1d(grid), strict=True):
        axes.scatter(truth, pred, s=12, alpha=0.5)
        if len(truth):
            ends = [min(truth.min(), pred.min()), max(truth.max(), pred.max())]
            axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"{name}, true", ylabel=f"{name}, predicted",
                 title=f"{title}\nR² {score_text(scores, 'r2')}")
        axes.grid(alpha=0.3)
    _save(figure, path)
    return path


def _finish(figure: Figure, axes, path: Path, place: str) -> Path:
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    labelled = len(axes.get_legend_handles_labels()[0])
    if labelled > FEW_LABELS:
        rows = -(-labelled // 2)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows)
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    else:
        axes.legend(frameon=True, fontsize=8, loc=place)
    _save(figure, path)
    return path
