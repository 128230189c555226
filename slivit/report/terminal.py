"""Scores as tables for the terminal."""

from collections.abc import Sequence
from pathlib import PurePath

from slivit.metrics.comparison import TESTS
from slivit.report.formatting import (
    MEDMNIST,
    NAMES,
    SHARES,
    number,
    p_value,
    plain_text,
    score_text,
)
from slivit.utils.log import short

FIRST = ("roc_auc", "pr_auc", "r2", "pearson", "mae")  # those of a task's that there are
RATES = ("sensitivity", "specificity", "ppv", "npv")
CLASSES = ("accuracy", "balanced_accuracy", "kappa", "f1_macro", "f1_weighted")
LONGEST_MODEL = 20            # letters of a model's path
MOST_LABELS, EXTREMES = 6, 3  # of more labels than these, so many best and worst are shown


def format_scores(metrics: dict) -> str:
    """Return the scores as a table to print, a line per label and one for the mean.

    Below it, where there are any, the scores of the likeliest class, MedMNIST's own, and those at
    the operating points, a line per label. Of many labels the best and the worst are shown.
    """
    rows, hidden = _choose(metrics["labels"])
    if len(metrics["labels"]) > 1:
        rows["mean"] = metrics["mean"]
    lines = _score_lines("label", rows)
    if hidden:
        lines.append(f"  {hidden}; report.html has all {len(metrics['labels'])} labels")
    width = _width("label", rows)
    lines += [f"  {NAMES[key]} {score_text(metrics['mean'], key)}" for key in CLASSES
              if key in metrics["mean"]]
    if "medmnist" in metrics:
        lines.append("  as MedMNIST's Evaluator computes them: " + ", ".join(
            f"{name} {score_text(metrics['medmnist'], key)}" for key, name in MEDMNIST.items()))
    points = {name: scores["operating_point"] for name, scores in rows.items()
              if scores.get("operating_point")}
    if points:
        lines += ["", "  " + "at the threshold".ljust(max(width, 18))
                  + "".join(NAMES[key].rjust(23) for key in RATES)]
        lines += ["  " + short(name).ljust(max(width, 18))
                  + "".join(f" {score_text(point, key)}".rjust(23) for key in RATES)
                  + f"   {number(point['threshold'])} ({point['rule']}, {point['chosen_on']})"
                  for name, point in points.items()]
    return "\n".join(lines)


def _choose(labels: dict[str, dict]) -> tuple[dict[str, dict], str]:
    """Return the labels to show, and which of many they are, in words; empty where all are."""
    if len(labels) <= MOST_LABELS:
        return dict(labels), ""
    key = "roc_auc" if "roc_auc" in next(iter(labels.values())) else "r2"
    known = [name for name in labels if labels[name].get(key) is not None]
    ranked = sorted(known, key=lambda name: -labels[name][key])
    if len(ranked) > MOST_LABELS:
        shown = ranked[:EXTREMES] + ranked[-EXTREMES:]
        return {name: labels[name] for name in shown}, f"the {EXTREMES} best and {EXTREMES} worst"
    shown = ranked or list(labels)[:MOST_LABELS]
    return {name: labels[name] for name in shown}, (
        "those with a score" if ranked else f"the first {MOST_LABELS}; none has a score")




def format_groups(by_group: dict) -> str:
    """Return the scores of each group of scans as a table to print.

    A line per group and label; of many labels, one of their mean.
    """
    many = any(len(part["labels"]) > MOST_LABELS for part in by_group["groups"].values())
    rows = {}
    for value, part in by_group["groups"].items():
        if many:
            rows[value] = {"n": part["n"], **part["mean"]}
        else:
            rows |= {f"{value}, {name}": scores for name, scores in part["labels"].items()}
    lines = _score_lines(by_group["column"], rows)
    return "\n".join(lines + ["  means over labels; report.html has each label"] * many)


def _score_lines(head: str, rows: dict[str, dict]) -> list[str]:
    """Return a line of heads and one per row; the first row says which scores there are."""
    keys = [key for key in FIRST if key in next(iter(rows.values()))]
    ranked = "roc_auc" in keys
    width = _width(head, rows)
    lines = ["  " + head.ljust(width) + "n".rjust(6) + ("positive".rjust(10) if ranked else "")
             + "".join(f"  {NAMES[key]} (95 % interval)".rjust(30) for key in keys)
             + ("prevalence".rjust(12) if ranked else "")]
    for name, scores in rows.items():
        line = "  " + short(name).ljust(width) + str(scores.get("n", "")).rjust(6)
        if ranked:
            line += str(scores.get("n_pos", "")).rjust(10)
        line += "".join(f"  {score_text(scores, key)}".rjust(30) for key in keys)
        lines.append(line + (score_text(scores, "prevalence").rjust(12) if "n_pos" in scores
                             else ""))
    return lines


def _width(head: str, rows: dict[str, dict]) -> int:
    return max(len(head), *(len(short(name)) for name in rows)) + 2


def _two_models(a: str, b: str) -> str:
    """Return two models' paths in short; where files of one name differ by folder, the folders."""
    paths = PurePath(a), PurePath(b)
    if paths[0].name == paths[1].name and paths[0].parent.name and paths[1].parent.name:
        a, b = (str(path.parent) for path in paths)
    return f"{short(a, LONGEST_MODEL, end=True)}, {short(b, LONGEST_MODEL, end=True)}"


def format_comparison(rows: Sequence[dict]) -> str:
    """Return the rows of `compare` as a table to print; p-values are those after Holm.

    Of many labels, those whose scores differ most.
    """
    heads = ("label", "score", "models", "a", "b", "b - a (95 % interval)", "p bootstrap, Holm",
             "p DeLong, Holm")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    gaps = {label: max(abs(row["difference"] or 0) for row in rows if row["label"] == label)
            for label in labels}
    shown = labels if len(labels) <= MOST_LABELS else sorted(labels, key=lambda k: -gaps[k])[
        :MOST_LABELS]
    table = [heads]
    for row in rows:
        if row["label"] not in shown:
            continue
        table.append((short(row["label"]), NAMES[row["score"]], _two_models(row["a"], row["b"]),
                      score_text(row, "value_a"), score_text(row, "value_b"),
                      score_text(row, "difference", share=row["score"] in SHARES),
                      *(plain_text(p_value(row[f"{test}_holm"])) for test in TESTS)))
    widths = [max(len(line[k]) for line in table) for k in range(len(heads))]
    lines = ["  " + "  ".join(cell.ljust(width) if k < 3 else cell.rjust(width)
                              for k, (cell, width) in enumerate(zip(line, widths, strict=True)))
             for line in table]
    if len(shown) < len(labels):
        lines.append(f"  the {MOST_LABELS} labels that differ most; report.html has all "
                     f"{len(labels)}")
    return "\n".join(lines)
