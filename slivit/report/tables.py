"""The tables of a report: what both the HTML page and the Markdown file print."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from slivit.metrics.medmnist_scores import CLASSES as ONE_OF_CLASSES
from slivit.report.formatting import (
    MEDMNIST,
    NAMES,
    NONE,
    OVER_CLASSES,
    SHARES,
    Cell,
    count,
    number,
    p_value,
    score,
    text,
)

CURVES = ("roc_auc", "pr_auc", "brier", "ece")
DECISIONS = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "balanced_accuracy")
CLASSES = ("accuracy", "balanced_accuracy", "kappa", "f1_macro", "f1_weighted", "precision_macro",
           "precision_weighted", "roc_auc", "roc_auc_weighted", "pr_auc", "pr_auc_weighted",
           "brier", "ece", "ece_top")
VALUES = ("r2", "pearson", "spearman", "mae", "rmse")
AGREEMENT = ("bias", "loa_low", "loa_high")


@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes:
        caption: what it shows.
        columns: heads; the first column names the rows.
        rows, foot: cells, as many a row as there are heads.
        notes: sentences below it.
        legend: what its bars or shades mean; only the page has them.
        kind: `confusion` where columns are predicted and rows true classes, else empty.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = ()
    legend: str = ""
    kind: str = ""


def score_tables(metrics: dict) -> list[Table]:
    """Return the scores of all labels, as the task asks for."""
    labels, mean = metrics["labels"], metrics["mean"]
    level = round(100 * metrics["bootstrap"]["level"])
    if metrics["task"] == "regression":
        return [_values(labels, mean, level), _agreement(labels, level)]
    tables = [_curves(labels, mean, level, metrics["task"])]
    if "medmnist" in metrics:
        tables.append(_medmnist(metrics["medmnist"]))
    if metrics["task"] == "multiclass":
        rows = tuple((text(OVER_CLASSES[key]), score(mean, key)) for key in CLASSES if key in mean)
        note = ("Macro: mean over classes; weighted: by the number of scans of each class. "
                "Balanced accuracy is the macro-averaged recall.")
        tables.append(Table("Over all classes", ("Score", f"Value ({level} % interval)"), rows,
                            notes=(note,)))
        tables.append(_confusion(metrics["confusion"]))
    points = {name: scores["operating_point"] for name, scores in labels.items()
              if scores.get("operating_point")}
    return tables + ([_decisions(points, level), _counts(points)] if points else [])


def comparison_table(rows: list[dict]) -> Table:
    """Return what comparison.compare found; models are called A, B, ... and named below."""
    models = list(dict.fromkeys(name for row in rows for name in (row["a"], row["b"])))
    letter = {name: chr(ord("A") + i) for i, name in enumerate(models)}
    pairs = {(row["a"], row["b"]) for row in rows}
    delong = any(row["p_delong"] is not None for row in rows)
    columns = ["Label", *["Models"] * (len(pairs) > 1), "Score", "First", "Second", "Difference",
               "p, bootstrap", "Holm", *["p, DeLong", "Holm"] * delong]
    if len(pairs) == 1:
        columns[2:5] = "A", "B", "Difference, B − A"
    cells = []
    for row in rows:
        tests = ("bootstrap", "delong") if delong else ("bootstrap",)
        cells.append((
            text(row["label"]),
            *[text(f"{letter[row['a']]}, {letter[row['b']]}")] * (len(pairs) > 1),
            text(NAMES[row["score"]]),
            Cell(number(row["value_a"]), number=True), Cell(number(row["value_b"]), number=True),
            score(row, "difference", share=row["score"] in SHARES),
            *[p_value(row[f"p_{test}{holm}"]) for test in tests for holm in ("", "_holm")]))
    notes = [f"{letter[name]}: {name}" for name in models]
    notes.append("Difference: second minus first, both measured on the same scans. Holm: p values "
                 "corrected for the number of labels and pairs (Holm 1979).")
    return Table("Models compared", tuple(columns), tuple(cells), notes=tuple(notes))


def group_tables(by_group: dict, task: str) -> list[Table]:
    """Return a table per label, a row per group; of several labels, first one of their mean."""
    groups, column = by_group["groups"], by_group["column"]
    keys = VALUES + AGREEMENT if task == "regression" else CURVES
    names = list(next(iter(groups.values()))["labels"]) if groups else []
    tables = []
    if len(names) > 1:
        extra = CLASSES[:3] if task == "multiclass" else ()
        shown = [key for key in (*extra, *keys)
                 if any(key in group["mean"] for group in groups.values())]
        tables.append(_by_group(
            f"Mean over labels, by {column}", column, shown,
            {value: (group, group["mean"]) for value, group in groups.items()}))
    for name in names:
        scores_of = {value: (group, group["labels"][name]) for value, group in groups.items()}
        points = any(scores.get("operating_point") for _, scores in scores_of.values())
        tables.append(_by_group(f"{name}, by {column}", column,
                                [*keys, *DECISIONS[:2] * points], scores_of))
    return tables


def cohort_table(cohort: pd.DataFrame) -> Table:
    """Return the cohort as it comes; an index that says something becomes the first column."""
    if not isinstance(cohort.index, pd.RangeIndex):
        cohort = cohort.reset_index()
    columns = []
    for k, (_, values) in enumerate(cohort.items()):
        cells = [_plain(value) for value in values]
        number = k > 0 and all(cell.number or cell.text[:1].isdigit() for cell in cells)
        columns.append([dataclasses.replace(cell, number=number) for cell in cells])
    return Table("Cohort", tuple(map(str, cohort.columns)), tuple(zip(*columns, strict=True)))


def headline(metrics: dict) -> list[tuple[str, Cell, str]]:
    """Return the scores to be read first: name, value, and what to know beside it."""
    labels = list(metrics["labels"].values())
    one = len(labels) == 1
    scores = labels[0] if one else metrics["mean"]
    kind = "classes" if metrics["task"] == "multiclass" else "labels"
    mean = "" if one else f"mean of {len(labels)} {kind}"
    if metrics["task"] == "regression":
        return [(NAMES[key], score(scores, key), mean) for key in VALUES[:4]]
    if metrics["task"] == "multiclass":
        return [(NAMES[key], score(scores, key), mean if key == "roc_auc" else "")
                for key in ("roc_auc", *CLASSES[1:3], "accuracy")]
    prevalence = f"prevalence {number(scores['prevalence'])}" if one else mean
    first = [(NAMES[key], score(scores, key), about)
             for key, about in (("roc_auc", mean), ("pr_auc", prevalence))]
    point = one and scores.get("operating_point")
    if point:
        return first + [(NAMES[key], score(point, key), f"at {number(point['threshold'])} or more")
                        for key in DECISIONS[:2]]
    return first + [(NAMES[key], score(scores, key), mean) for key in CURVES[2:]]


def _curves(labels: dict, mean: dict, level: int, task: str) -> Table:
    columns = ("Class" if task == "multiclass" else "Label", "Positive", NAMES["roc_auc"],
               "DeLong's interval", NAMES["pr_auc"], "Prevalence",
               *[NAMES[key] for key in CURVES[2:]])
    scale = _scale(scores.get("roc_auc_ci") for scores in labels.values())
    rows = []
    for name, one in labels.items():
        delong = score(one, "roc_auc_delong").interval.strip("()") or NONE
        rows.append((text(name), _positive(one), score(one, "roc_auc", scale),
                     Cell(delong, number=True), score(one, "pr_auc"),
                     Cell(number(one["prevalence"]), number=True),
                     *[score(one, key) for key in CURVES[2:]]))
    foot = ()
    if len(labels) > 1:
        blank = Cell("", number=True)
        foot = ((text("Mean"), blank, score(mean, "roc_auc", scale), blank, score(mean, "pr_auc"),
                 blank, *[score(mean, key) for key in CURVES[2:]]),)
    note = ("The PR-AUC of an uninformative model is the prevalence. Brier score: mean squared "
            "error of the probability. ECE: expected calibration error.")
    return Table(f"Scores ({level} % intervals)", columns, tuple(rows), foot, (note,),
                 _bars(scale))


def _medmnist(scores: dict) -> Table:
    if scores["task"] in ONE_OF_CLASSES:
        note = "ACC: share of scans whose most probable class is right."
    else:
        note = "ACC: share of labels that are right at a probability of 0.5, not at the threshold."
    return Table("As MedMNIST's Evaluator computes them", ("Score", "Value"),
                 tuple((text(name), Cell(number(scores[key]), number=True))
                       for key, name in MEDMNIST.items()),
                 notes=(f"For comparison with published tables. {note}",))


def _decisions(points: dict, level: int) -> Table:
    rules = {(point["rule"], point["chosen_on"]) for point in points.values()}
    one = len(rules) == 1
    columns = ("Label", *["Rule"] * (not one), "Threshold", *[NAMES[key] for key in DECISIONS])
    rows = tuple((text(name), *[text(point["rule"])] * (not one),
                  Cell(number(point["threshold"]), number=True),
                  *[score(point, key) for key in DECISIONS])
                 for name, point in points.items())
    chosen = " and ".join(sorted({where for _, where in rules}))
    rule = f"Rule: {next(iter(rules))[0]}. " if one else ""
    notes = (f"{rule}The threshold was chosen on {chosen}; a scan at or above the threshold is "
             "called positive.",)
    return Table(f"At the operating point ({level} % intervals)", columns, rows, notes=notes)


def _counts(points: dict) -> Table:
    columns = ("Label", "True positive", "False positive", "True negative", "False negative")
    rows = tuple((text(name), *[count(point[key]) for key in ("tp", "fp", "tn", "fn")])
                 for name, point in points.items())
    return Table("Scans at the operating point", columns, rows)


def _confusion(confusion: dict) -> Table:
    names = tuple(confusion["labels"])
    rows = []
    for name, counts in zip(names, confusion["counts"], strict=True):
        total = sum(counts) or 1
        rows.append((text(name), *[Cell(f"{one:,}", number=True, share=one / total)
                                   for one in counts]))
    return Table("Confusion matrix: rows true, columns predicted", ("True", *names), tuple(rows),
                 legend="Shade: share of the true class.", kind="confusion")


def _values(labels: dict, mean: dict, level: int) -> Table:
    rows = tuple((text(name), count(one["n"]), *[score(one, key) for key in VALUES])
                 for name, one in labels.items())
    foot = ()
    if len(labels) > 1:
        foot = ((text("Mean"), Cell(""), *[score(mean, key) for key in VALUES]),)
    return Table(f"Scores ({level} % intervals)",
                 ("Label", "Known", *[NAMES[key] for key in VALUES]), rows, foot,
                 ("MAE: mean absolute error; RMSE: root mean squared error; both in the "
                  "unit of the label.",))


def _agreement(labels: dict, level: int) -> Table:
    rows = tuple((text(name), *[score(one, key) for key in AGREEMENT])
                 for name, one in labels.items())
    return Table(f"Bland-Altman limits of agreement ({level} % intervals)",
                 ("Label", *[NAMES[key] for key in AGREEMENT]), rows,
                 notes=("Bias: mean of predicted minus true. Limits: bias ± 1.96 standard "
                        "deviations of the differences (Bland & Altman 1986).",))


def _by_group(caption: str, column: str, keys: Iterable[str],
              scores_of: dict[str, tuple[dict, dict]]) -> Table:
    """Return scores by group; `found` has each group's own entry and the scores to print of it."""
    keys = list(keys)
    positive = any("n_pos" in scores for _, scores in scores_of.values())
    scale = _scale(scores.get("roc_auc_ci") for _, scores in scores_of.values())
    rows = []
    for value, (group, scores) in scores_of.items():
        merged = scores | (scores.get("operating_point") or {})
        scans = _positive(scores) if positive else count(scores.get("n", group["n"]))
        rows.append((text(value), scans,
                     *[score(merged, key, scale if key == "roc_auc" else None)
                       for key in keys]))
    heads = (column, "Positive" if positive else "Scans", *[NAMES[key] for key in keys])
    return Table(caption, heads, tuple(rows), legend=_bars(scale))


def _positive(scores: dict) -> Cell:
    return Cell(f"{scores['n_pos']:,} of {scores['n']:,}", number=True)


def _scale(intervals: Iterable[list[float] | None]) -> tuple[float, float] | None:
    """Return the ends of an axis that all intervals fit in, in tenths; None where there is none."""
    known = [interval for interval in intervals if interval]
    if not known:
        return None
    low = math.floor(10 * min(low for low, _ in known)) / 10
    return min(0.9, max(0.0, low)), 1.0


def _bars(scale: tuple[float, float] | None) -> str:
    return f"Bars: ROC-AUC and its interval from {scale[0]:g} to {scale[1]:g}." if scale else ""


def _plain(value: object) -> Cell:
    if isinstance(value, str):
        return text(value)
    if value is None or pd.isna(value):
        return Cell(NONE, number=True)
    if isinstance(value, float) and not float(value).is_integer():
        return Cell(f"{value:,.4g}", number=True)
    return count(int(value)) if isinstance(value, float | int) else text(str(value))
