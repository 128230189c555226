"""Scores with 95 % intervals, and the predictions table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from slivit.config import Target
from slivit.data.scan_table import Scans
from slivit.metrics import bootstrap, delong, weighted
from slivit.metrics import operating_point as operating
from slivit.metrics.scores import BOTH_CLASSES, COUNTS, class_scores, mean_scores, point_scores

N_BOOT = 2000
HEADS = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "r2": "R2", "pearson": "Pearson", "mae": "MAE"}
RATE_HEADS = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV",
              "npv": "NPV", "f1": "F1", "balanced_accuracy": "balanced accuracy"}
CLASS_HEADS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy",
               "kappa": "Cohen's kappa", "f1_macro": "F1, macro average",
               "f1_weighted": "F1, weighted average"}


def quick_scores(truth: np.ndarray, pred: np.ndarray, target: Target) -> dict[str, float | None]:
    """Return the mean scores over labels without intervals (after each epoch).

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
    """
    known = ~np.isnan(truth)
    return mean_scores({name: point_scores(truth[known[:, k], k], pred[known[:, k], k],
                                           target.task)
                        for k, name in enumerate(target.labels)})


def evaluate(truth: np.ndarray, pred: np.ndarray, target: Target, groups: Sequence[str],
             split: str, seed: int = 0, n_boot: int = N_BOOT,
             thresholds: Sequence[operating.Threshold | None] | None = None) -> dict:
    """Return the content of `metrics.json`.

    Intervals are percentile bootstrap intervals over whole groups (Efron & Tibshirani 1993,
    chapter 13; clusters as in Field & Welsh 2007); but for regression the groups are drawn within
    those that have a positive of the same labels. DeLong's interval stands beside that of ROC-AUC.
    Where only one group has known labels there is no interval.

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
        groups: patient (or row id) of each row.
        split: name of the split, to be recorded.
        seed: of the bootstrap.
        n_boot: replicates.
        thresholds: of each label, None for labels without an operating point; or None for all.
    """
    truth, pred = np.asarray(truth, np.float64), np.asarray(pred, np.float64)
    strata = None if target.task == "regression" else truth == 1
    counts, member = bootstrap.cluster_counts(groups, strata, n_boot, seed)
    labels, draws = {}, []
    for k, name in enumerate(target.labels):
        known = ~np.isnan(truth[:, k])
        threshold = thresholds[k] if thresholds is not None else None
        scores, found = _label(truth[known, k], pred[known, k], target.task, threshold, counts,
                               member[known])
        labels[name] = scores
        draws.append(found)
    mean = mean_scores(labels)
    means = {}
    for key in mean:
        defined = [found.get(key) for scores, found in zip(labels.values(), draws, strict=True)
                   if scores[key] is not None]
        if defined and all(one is not None for one in defined):
            means[key] = np.mean(defined, axis=0)
    metrics = {"split": split, "n": len(truth), "n_groups": counts.shape[1], "task": target.task,
               "labels": labels, "mean": _with_intervals(mean, means),
               "bootstrap": {"replicates": n_boot, "seed": seed, "level": 0.95}}
    if target.task == "multiclass":
        known = ~np.isnan(truth).any(axis=1)
        metrics["mean"] |= _classes(truth[known], pred[known], draws, counts, member[known])
        metrics["confusion"] = {"labels": list(target.labels),
                                "counts": _confusion(truth[known], pred[known])}
    return metrics


def _label(truth: np.ndarray, pred: np.ndarray, task: str, threshold: operating.Threshold | None,
           counts: np.ndarray, member: np.ndarray) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the scores of one label with intervals, and its replicates."""
    point, at = point_scores(truth, pred, task), None
    draws = {}
    if len(np.unique(member)) > 1:  # of one patient no interval can be had
        scorers = [weighted.regression(truth, pred)] if task == "regression" else [
            weighted.ranking(truth, pred), weighted.probability(truth, pred)]
        if threshold is not None:
            scorers.append(weighted.decision(truth, pred, threshold.value))
        draws = bootstrap.replicate(weighted.combine(*scorers), counts, member)
    scores = _with_intervals(point, draws)
    if task == "regression":
        return scores, draws
    both = point["roc_auc"] is not None
    scores["roc_auc_delong_ci"] = delong.auc_interval(truth, pred, member) if both else None
    if threshold is not None:
        at = _with_intervals(operating.point(truth, pred, threshold), draws)
    return {**scores, "operating_point": at}, draws


def _with_intervals(point: dict, draws: dict[str, np.ndarray]) -> dict:
    """Return the scores, each with the interval of its replicates; None without any."""
    found = {}
    for key, value in point.items():
        found[key] = value
        if key in (*COUNTS, "tp", "fp", "tn", "fn", "rule", "threshold", "chosen_on"):
            continue
        there = value is not None and key in draws
        found[f"{key}_ci"] = bootstrap.interval(draws[key]) if there else None
    return found


def _classes(truth: np.ndarray, pred: np.ndarray, labels: list[dict[str, np.ndarray]],
             counts: np.ndarray, member: np.ndarray) -> dict:
    """Return the scores of the likeliest class with intervals; `labels`: replicates of each."""
    point = class_scores(truth, pred)
    if len(np.unique(member)) < 2:
        return _with_intervals(point, {})
    is_so, said = truth.argmax(axis=1), pred.argmax(axis=1)
    confusion = weighted.confusion(is_so, said, truth.shape[1])
    top = weighted.probability((is_so == said).astype(float), pred.max(axis=1))
    draws = bootstrap.replicate(weighted.combine(confusion, top), counts, member)
    draws["ece_top"] = draws["ece"]
    for key in BOTH_CLASSES:
        scores = np.stack([found[key] for found in labels], axis=1)
        support = np.where(np.isnan(scores), 0, draws["support"])
        draws[f"{key}_weighted"] = operating.ratio((support * np.nan_to_num(scores)).sum(axis=1),
                                                   support.sum(axis=1))
    return _with_intervals(point, draws)


def _confusion(truth: np.ndarray, pred: np.ndarray) -> list[list[int]]:
    counts = np.zeros((truth.shape[1], truth.shape[1]), dtype=int)
    np.add.at(counts, (truth.argmax(axis=1), pred.argmax(axis=1)), 1)
    return counts.tolist()


def predictions_table(scans: Scans, rows: np.ndarray, pred: np.ndarray, target: Target,
                      with_split: bool = False) -> pd.DataFrame:
    """Return the content of `predictions.csv`: a row per scan, in the data's order.

    Columns: id, patient where known, split if asked for, then for each label its truth (empty if
    unknown) and `LABEL_pred`.
    """
    table = pd.DataFrame({"id": [scans.ids[row] for row in rows]})
    if scans.patients is not None:
        table["patient"] = [scans.patients[row] for row in rows]
    if with_split:
        table["split"] = scans.split[rows]
    for k, name in enumerate(target.labels):
        truth = scans.labels[rows, k]
        whole = target.task != "regression"
        table[name] = pd.array(truth, dtype="Float64").astype("Int64") if whole else truth
        table[f"{name}_pred"] = pred[:, k]
    return table


def format_scores(metrics: dict) -> str:
    """Return the scores as a table to print, a line per label and one for the mean.

    Below it, where there are any, the scores of the likeliest class and those at the operating
    points, a line per label.
    """
    rows = dict(metrics["labels"])
    if len(rows) > 1:
        rows["mean"] = metrics["mean"]
    lines = _score_lines("label", rows)
    width = _width("label", rows)
    lines += [f"  {head} {score_text(metrics['mean'], key)}" for key, head in CLASS_HEADS.items()
              if key in metrics["mean"]]
    points = {name: scores["operating_point"] for name, scores in metrics["labels"].items()
              if scores.get("operating_point")}
    if points:
        lines += ["", "  " + "at the threshold".ljust(max(width, 18))
                  + "".join(head.rjust(25) for head in RATE_HEADS.values())]
        lines += ["  " + name.ljust(max(width, 18))
                  + "".join(score_text(point, key).rjust(25) for key in RATE_HEADS)
                  + f"   {point['threshold']:.4g} ({point['rule']}, chosen on "
                  + f"{point['chosen_on']})" for name, point in points.items()]
    return "\n".join(lines)


def format_groups(by_group: dict) -> str:
    """Return the scores of each group of scans as a table to print, a line per group and label."""
    rows = {f"{value}, {name}": scores for value, part in by_group["groups"].items()
            for name, scores in part["labels"].items()}
    return "\n".join(_score_lines(by_group["column"], rows))


def _score_lines(head: str, rows: dict[str, dict]) -> list[str]:
    """Return a line of heads and one per row; the first row says which scores there are."""
    keys = [key for key in HEADS if key in next(iter(rows.values()))]
    ranked = "roc_auc" in keys
    width = _width(head, rows)
    lines = ["  " + head.ljust(width) + "n".rjust(6) + ("positive".rjust(10) if ranked else "")
             + "".join(f"{HEADS[key]} (95 % interval)".rjust(30) for key in keys)
             + ("prevalence".rjust(12) if ranked else "")]
    for name, scores in rows.items():
        line = "  " + name.ljust(width) + str(scores.get("n", "")).rjust(6)
        if ranked:
            line += str(scores.get("n_pos", "")).rjust(10)
        line += "".join(score_text(scores, key).rjust(30) for key in keys)
        lines.append(line + (score_text(scores, "prevalence").rjust(12) if "n_pos" in scores
                             else ""))
    return lines


def _width(head: str, rows: dict[str, dict]) -> int:
    return max(len(head), *(len(name) for name in rows)) + 2


def score_text(scores: dict, key: str) -> str:
    """Return a score with its interval, such as `0.912 (0.880 to 0.941)`, or `-` if undefined."""
    if scores.get(key) is None:
        return "-"
    text = f"{scores[key]:.3f}"
    if scores.get(f"{key}_ci"):
        text += " ({:.3f} to {:.3f})".format(*scores[f"{key}_ci"])
    return text
