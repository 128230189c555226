"""Several models on the same scans: differences of scores, their intervals and p-values."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from slivit.config import Target
from slivit.metrics import bootstrap, delong
from slivit.metrics.evaluation import N_BOOT
from slivit.metrics.scores import point_scores

TESTS = ("p_bootstrap", "p_delong")


def compare(truth: np.ndarray, preds: Sequence[np.ndarray], names: Sequence[str], target: Target,
            groups: Sequence[str], seed: int = 0, n_boot: int = N_BOOT) -> list[dict]:
    """Compare every pair of models label by label.

    All models are scored on the same draws of groups, as in evaluation.evaluate, so that what the
    scans have in common cancels. ROC-AUC has DeLong's paired test besides. Holm's correction is
    over all rows of the same score and test.

    Args:
        truth: (n, K), NaN where unknown.
        preds: of each model, (n, K) probabilities or values.
        names: of the models.
        target: what the columns are.
        groups: patient (or row id) of each row.
        seed: of the bootstrap.
        n_boot: replicates.

    Returns:
        A row per pair, label and score (roc_auc and pr_auc; for regression mae and r2): label,
        score, a, b, value_a, value_b, difference (b - a), difference_ci, p_bootstrap,
        p_bootstrap_holm, p_delong, p_delong_holm. What is undefined is None.
    """
    truth = np.asarray(truth, np.float64)
    preds = [np.asarray(pred, np.float64) for pred in preds]
    is_regression = target.task == "regression"
    keys = ("mae", "r2") if is_regression else ("roc_auc", "pr_auc")
    counts, member = bootstrap.cluster_counts(groups, None if is_regression else truth == 1,
                                              n_boot, seed)
    scorer = bootstrap.regression if is_regression else bootstrap.ranking
    measured = {}  # of a label and a model: known truth and predictions, scores, replicates
    for k, label in enumerate(target.labels):
        rows = np.flatnonzero(~np.isnan(truth[:, k]))
        for m, pred in enumerate(preds):
            t, p = truth[rows, k], pred[rows, k]
            draws = dict.fromkeys(keys, np.full(n_boot, np.nan))
            if len(np.unique(member[rows])) > 1:
                draws = bootstrap.replicate(scorer(t, p, member[rows]), counts, member[rows])
            measured[label, m] = t, p, point_scores(t, p, target.task), draws, member[rows]
    table = [_row(label, key, names, pair, [measured[label, m] for m in pair])
             for pair in combinations(range(len(preds)), 2)
             for label in target.labels for key in keys]
    for key in keys:
        rows = [row for row in table if row["score"] == key]
        for test in TESTS:
            adjusted = holm([row[test] for row in rows])
            for row, value in zip(rows, adjusted, strict=True):
                row[f"{test}_holm"] = value
    return table


def _row(label: str, key: str, names: Sequence[str], pair: tuple[int, int],
         measured: list[tuple]) -> dict:
    (truth, pred_a, scores_a, draws_a, member), (_, pred_b, scores_b, draws_b, _) = measured
    row = {"label": label, "score": key, "a": names[pair[0]], "b": names[pair[1]],
           "value_a": scores_a[key], "value_b": scores_b[key], "difference": None,
           "difference_ci": None, "p_bootstrap": None, "p_bootstrap_holm": None,
           "p_delong": None, "p_delong_holm": None}
    if scores_a[key] is None or scores_b[key] is None:
        return row
    replicates = draws_b[key] - draws_a[key]
    row["difference"] = scores_b[key] - scores_a[key]
    row["difference_ci"] = bootstrap.interval(replicates)
    if row["difference_ci"] is not None:
        row["p_bootstrap"] = bootstrap_p(replicates)
    if key == "roc_auc":
        test = delong.compare_auc(truth, pred_a, pred_b, member)
        row["p_delong"] = None if test is None else test.p
    return row


def bootstrap_p(replicates: np.ndarray) -> float:
    """Return the two-sided p-value of no difference from bootstrap replicates of a difference.

    Twice the smaller of the shares of replicates at or below 0 and at or above 0, at most 1: the
    level at which the percentile interval would just reach 0 (Efron & Tibshirani 1993, chapter 15,
    achieved significance levels by way of intervals). One is added to both counts (Davison &
    Hinkley 1997, chapter 4), so that it is never 0: the smallest is 2 / (replicates + 1).

    Args:
        replicates: (n_boot,) differences, NaN where undefined, at least one that is not.
    """
    valid = replicates[np.isfinite(replicates)]
    tail = min((valid <= 0).sum(), (valid >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(valid) + 1)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted by Holm's step-down procedure (1979), in the given order.

    The i-th smallest of m is multiplied by m - i + 1, is at least as large as those before it and
    at most 1. None stays None and does not count.
    """
    adjusted: list[float | None] = [None] * len(values)
    order = sorted((k for k, value in enumerate(values) if value is not None),
                   key=lambda k: values[k])
    largest = 0.0
    for i, k in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - i) * values[k]))
        adjusted[k] = largest
    return adjusted


