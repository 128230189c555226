"""Scores with 95 % intervals, and the predictions table."""

from collections.abc import Sequence

import numpy as np

from slivit.config import Target
from slivit.metrics import bootstrap, delong
from slivit.metrics import operating_point as operating
from slivit.metrics.scores import BOTH_CLASSES, COUNTS, class_scores, mean_scores, point_scores

N_BOOT = 2000
CALIBRATION = ("brier", "ece")  # scores that change with the temperature


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
             seed: int = 0, n_boot: int = N_BOOT,
             thresholds: Sequence[operating.Threshold | None] | None = None) -> dict:
    """Return the scores of `metrics.json`, with their intervals.

    Intervals are percentile bootstrap intervals over whole groups (Efron & Tibshirani 1993,
    chapter 13; clusters as in Field & Welsh 2007); but for regression the groups are drawn within
    those that have a positive of the same labels. DeLong's interval is beside that of ROC-AUC.
    Where only one group has known labels there is no interval.

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
        groups: patient (or row id) of each row.
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
        labels[name], replicates = _label(truth[known, k], pred[known, k], target.task, threshold,
                                          counts, member[known])
        draws.append(replicates)
    mean = mean_scores(labels)
    means = {}
    for key in mean:
        defined = [replicates.get(key) for scores, replicates
                   in zip(labels.values(), draws, strict=True) if scores[key] is not None]
        if defined and all(one is not None for one in defined):
            means[key] = np.mean(defined, axis=0)
    metrics = {"n": len(truth), "n_groups": counts.shape[1], "task": target.task,
               "labels": labels, "mean": _with_intervals(mean, means),
               "bootstrap": {"replicates": n_boot, "seed": seed, "level": 0.95}}
    if target.task == "multiclass":
        known = ~np.isnan(truth).any(axis=1)
        metrics["mean"] |= _classes(truth[known], pred[known], draws, counts, member[known])
        metrics["confusion"] = {"labels": list(target.labels),
                                "counts": _confusion(truth[known], pred[known])}
    return metrics


def calibration_scores(truth: np.ndarray, pred: np.ndarray, target: Target, groups: Sequence[str],
                       seed: int = 0, n_boot: int = N_BOOT) -> dict[str, dict]:
    """Return CALIBRATION of each label with its interval: what `evaluate` returns of them, alone.

    The arguments are those of `evaluate`; the task is not regression.
    """
    truth, pred = np.asarray(truth, np.float64), np.asarray(pred, np.float64)
    counts, member = bootstrap.cluster_counts(groups, truth == 1, n_boot, seed)
    labels = {}
    for k, name in enumerate(target.labels):
        known = ~np.isnan(truth[:, k])
        rows, draws = (truth[known, k], pred[known, k]), {}
        if len(np.unique(member[known])) > 1:
            scorer = bootstrap.probability(*rows, member[known])
            draws = bootstrap.replicate(scorer, counts, member[known])
        point = point_scores(*rows, target.task)
        labels[name] = _with_intervals({key: point[key] for key in CALIBRATION}, draws)
    return labels


def _label(truth: np.ndarray, pred: np.ndarray, task: str, threshold: operating.Threshold | None,
           counts: np.ndarray, member: np.ndarray) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the scores of one label with intervals, and its replicates."""
    point, at = point_scores(truth, pred, task), None
    draws = {}
    if len(np.unique(member)) > 1:  # one patient gives no interval
        scorers = [bootstrap.regression(truth, pred, member)] if task == "regression" else [
            bootstrap.ranking(truth, pred, member), bootstrap.probability(truth, pred, member)]
        if threshold is not None:
            scorers.append(bootstrap.decision(truth, pred, threshold.value, member))
        draws = bootstrap.replicate(bootstrap.combine(*scorers), counts, member)
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
    scores = {}
    for key, value in point.items():
        scores[key] = value
        if key in (*COUNTS, "tp", "fp", "tn", "fn", "rule", "threshold", "chosen_on"):
            continue
        there = value is not None and key in draws
        scores[f"{key}_ci"] = bootstrap.interval(draws[key]) if there else None
    return scores


def _classes(truth: np.ndarray, pred: np.ndarray, labels: list[dict[str, np.ndarray]],
             counts: np.ndarray, member: np.ndarray) -> dict:
    """Return the scores of the likeliest class with intervals; `labels`: replicates of each."""
    point = class_scores(truth, pred)
    if len(np.unique(member)) < 2:
        return _with_intervals(point, {})
    true, predicted = truth.argmax(axis=1), pred.argmax(axis=1)
    confusion = bootstrap.confusion(true, predicted, truth.shape[1], member)
    top = bootstrap.probability((true == predicted).astype(float), pred.max(axis=1), member)
    draws = bootstrap.replicate(bootstrap.combine(confusion, top), counts, member)
    draws["ece_top"] = draws["ece"]
    for key in BOTH_CLASSES:
        scores = np.stack([replicates[key] for replicates in labels], axis=1)
        support = np.where(np.isnan(scores), 0, draws["support"])
        draws[f"{key}_weighted"] = operating.ratio((support * np.nan_to_num(scores)).sum(axis=1),
                                                   support.sum(axis=1))
    return _with_intervals(point, draws)


def _confusion(truth: np.ndarray, pred: np.ndarray) -> list[list[int]]:
    counts = np.zeros((truth.shape[1], truth.shape[1]), dtype=int)
    np.add.at(counts, (truth.argmax(axis=1), pred.argmax(axis=1)), 1)
    return counts.tolist()


