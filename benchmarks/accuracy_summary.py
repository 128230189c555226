"""The accuracy benchmark's table and figure, from the predictions that its jobs have left."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.jobs import Done, pooled
from benchmarks.nodules import LABEL, TARGET
from slivit.metrics.comparison import compare, holm
from slivit.metrics.evaluation import evaluate
from slivit.metrics.scores import point_scores
from slivit.report.formatting import score_text
from slivit.report.plots.style import new_figure
from slivit.utils.files import atomic_write

REFERENCE = "slivit"


def summarise(jobs: dict[str, list[Done]], results: Path) -> str:
    """Write accuracy.csv and accuracy.png; return the table as text.

    A method is measured on the folds that are finished. Of several seeds the predictions are
    averaged; then the table is accuracy_seeds.csv, and there is no figure.

    Args:
        jobs: of each method, all that were asked for.
        results: where the files go.
    """
    several = len({one.job.seed for mine in jobs.values() for one in mine}) > 1
    missing = {method: [job for job in mine if not job.finished] for method, mine in jobs.items()}
    there = {method: [one for one in mine if one.job.fold not in
                      {left.job.fold for left in missing[method]}]
             for method, mine in jobs.items()}
    complete = {method: mine for method, mine in there.items() if mine}
    lines = []
    if complete:
        rows = scores({method: pooled(mine) for method, mine in complete.items()})
        for row in rows:
            row |= costs(complete[row["method"]])
        results.mkdir(parents=True, exist_ok=True)
        with atomic_write(results / f"accuracy{'_seeds' * several}.csv") as part:
            flat(rows).to_csv(part, index=False)
        if not several:
            forest(rows, results / "accuracy.png")
        lines.append(as_text(rows))
    for method, left in missing.items():
        if left:
            lines.append(f"{method}: not finished, so not in the table: " + ", ".join(
                f"fold {one.job.fold} seed {one.job.seed}" for one in left))
    return "\n".join(lines)


def scores(predictions: dict[str, pd.DataFrame], reference_name: str = REFERENCE) -> list[dict]:
    """Return a row of scores per method, best first, compared with the reference where it is there.

    A method that was run on some folds alone is compared on their scans. DeLong's p-values are
    Holm-corrected over the methods.
    """
    reference = predictions.get(reference_name)
    rows = []
    for method, table in predictions.items():
        measured = evaluate(table[["truth"]], table[["pred"]], TARGET, table["patient"]
                         )["labels"][LABEL]
        folds = sorted(int(fold) for fold in table["fold"].unique())
        alone = [auc(table["truth"], table[name]) for name in table if name.startswith("seed_")]
        row = {"method": method, "n": len(table), "folds": " ".join(map(str, folds)),
               **{key: measured[key] for key in ("roc_auc", "roc_auc_ci", "pr_auc", "pr_auc_ci")},
               "within_fold_roc_auc": float(np.mean([auc(part["truth"], part["pred"])
                                                     for _, part in table.groupby("fold")])),
               "seeds": len(alone), "seed_mean": float(np.mean(alone)),
               "seed_sd": float(np.std(alone, ddof=1)) if len(alone) > 1 else None,
               "difference": None, "difference_ci": None, "p_delong": None}
        if reference is not None and method != reference_name and table.index.isin(
                reference.index).all():
            other = reference.loc[table.index]
            gain = compare(table[["truth"]], [other[["pred"]], table[["pred"]]],
                           [reference_name, method], TARGET, table["patient"])[0]
            row |= {key: gain[key] for key in ("difference", "difference_ci", "p_delong")}
        rows.append(row)
    adjusted = holm([row["p_delong"] for row in rows])
    rows = [row | {"p_delong_holm": p} for row, p in zip(rows, adjusted, strict=True)]
    return sorted(rows, key=lambda row: -row["roc_auc"])


def auc(truth: pd.Series, pred: pd.Series) -> float:
    """Return the ROC-AUC, NaN where one class is missing."""
    value = point_scores(truth.to_numpy(float), pred.to_numpy(float), TARGET.task)["roc_auc"]
    return np.nan if value is None else value


def costs(jobs: list[Done]) -> dict:
    """Return parameters and mean minutes of a core for a training, pre-training included."""
    facts = [job.read_facts() for job in jobs]
    return {"parameters": facts[0]["parameters"],
            "minutes": float(np.mean([one["seconds"] for one in facts])) / 60}


def flat(rows: list[dict]) -> pd.DataFrame:
    """Return the rows as a table, intervals in two columns each."""
    table = pd.DataFrame(rows)
    for name in [name for name in table if name.endswith("_ci")]:
        place = table.columns.get_loc(name)
        ends = [value or (np.nan, np.nan) for value in table.pop(name)]
        for k, end in enumerate(("low", "high")):
            table.insert(place + k, f"{name.removesuffix('_ci')}_{end}", [one[k] for one in ends])
    return table.round(6)


def as_text(rows: list[dict]) -> str:
    """Return the table to print."""
    heads = ("method", "folds", "ROC-AUC (95 % interval)", "PR-AUC (95 % interval)",
             "- slivit (95 % interval)", "p DeLong, Holm", "SD seeds", "within fold",
             "parameters", "minutes")
    table = [heads]
    for row in rows:
        table.append((
            row["method"], row["folds"], score_text(row, "roc_auc"), score_text(row, "pr_auc"),
            score_text(row, "difference", share=True), _p_text(row["p_delong_holm"]),
            _number(row["seed_sd"], ".4f"), _number(row["within_fold_roc_auc"], ".3f"),
            _number(row["parameters"], ",d"), _number(row["minutes"], ".1f")))
    widths = [max(len(line[k]) for line in table) for k in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) if k < 2 else cell.rjust(width)
                               for k, (cell, width) in enumerate(zip(line, widths, strict=True)))
                     for line in table)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _p_text(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _number(value, ".3f")


def forest(rows: list[dict], path: Path) -> None:
    """Draw the ROC-AUC of every method with its interval, best at the top."""
    figure, axes = new_figure(7.0, 1.2 + 0.35 * len(rows))
    for place, row in enumerate(reversed(rows)):
        colour = "tab:red" if row["method"] == REFERENCE else "tab:blue"
        low, high = row["roc_auc_ci"] or (row["roc_auc"],) * 2
        axes.plot([low, high], [place, place], color=colour)
        axes.plot(row["roc_auc"], place, "o", color=colour)
        axes.annotate(f"{row['roc_auc']:.3f}", (row["roc_auc"], place), (0, 5),
                      textcoords="offset points", ha="center", fontsize=8)
    names = [row["method"] if row["n"] == rows_most(rows) else f"{row['method']} (fold "
             f"{row['folds']})" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), names)
    axes.set(xlabel="ROC-AUC, out of fold, 95 % interval", ylim=(-0.6, len(rows) - 0.3))
    axes.grid(axis="x", alpha=0.3)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=150)


def rows_most(rows: list[dict]) -> int:
    """Return the largest number of scans that a method was measured on."""
    return max(row["n"] for row in rows)
