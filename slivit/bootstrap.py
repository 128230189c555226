"""Bootstrap intervals by patient: scores of many weighted replicates at once."""

from collections.abc import Callable, Sequence

import numpy as np

CELLS = 4_000_000  # replicate-by-row cells held in memory at once


def cluster_counts(groups: Sequence[str], strata: np.ndarray | None, n_boot: int,
                   seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw whole groups with replacement, within strata of groups.

    Args:
        groups: group (patient, or row id) of each of n rows.
        strata: (n,) bool; a group belongs to the stratum of whether any of its rows is True, so
            that no replicate lacks positives. None for one stratum.
        n_boot: number of replicates.
        seed: of the draws.

    Returns:
        (n_boot, G) uint16, how often each group was drawn, and (n,) the group number of each row.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1
    stratum = np.zeros(count, dtype=bool)
    if strata is not None:
        np.logical_or.at(stratum, member, strata)
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_boot, count), dtype=np.uint16)
    for part in (np.flatnonzero(stratum), np.flatnonzero(~stratum)):
        if len(part):
            counts[:, part] = rng.multinomial(len(part), np.full(len(part), 1 / len(part)),
                                              size=n_boot)
    return counts, member


def replicate(score: Callable[[np.ndarray], np.ndarray], counts: np.ndarray,
              member: np.ndarray) -> np.ndarray:
    """Return the scores (n_boot,) of all replicates; NaN where a replicate has none.

    Args:
        score: row weights (b, n) -> scores (b,).
        counts, member: of `cluster_counts`; `member` may be of some of the rows only.
    """
    step = max(1, CELLS // max(1, len(member)))
    parts = [score(counts[start:start + step][:, member].astype(np.float64))
             for start in range(0, len(counts), step)]
    return np.concatenate(parts)


def interval(replicates: np.ndarray, level: float = 0.95) -> list[float] | None:
    """Return the percentile interval [low, high]; None where under half the replicates count."""
    valid = replicates[np.isfinite(replicates)]
    if len(valid) < max(2, len(replicates) / 2):
        return None
    tail = 50 * (1 - level)
    return [float(edge) for edge in np.percentile(valid, [tail, 100 - tail])]


def ranking_scorer(truth: np.ndarray,
                   score: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray],
                                               Callable[[np.ndarray], np.ndarray]]:
    """Return functions of row weights (b, n) that give weighted ROC-AUC and PR-AUC, each (b,).

    ROC-AUC is the Mann-Whitney statistic with ties counted half; PR-AUC is average precision.
    Both equal scikit-learn's with `sample_weight`.

    Args:
        truth: (n,) of 0 and 1.
        score: (n,) higher means more positive.
    """
    order = np.argsort(-score, kind="stable")
    positive = truth[order] == 1
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])

    def per_tie(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ordered = weights[:, order]
        return (np.add.reduceat(ordered * positive, starts, axis=1),
                np.add.reduceat(ordered * ~positive, starts, axis=1))

    def roc_auc(weights: np.ndarray) -> np.ndarray:
        pos, neg = per_tie(weights)
        all_pos, all_neg = pos.sum(axis=1), neg.sum(axis=1)
        below = all_neg[:, None] - np.cumsum(neg, axis=1) + neg / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (pos * below).sum(axis=1) / (all_pos * all_neg)

    def pr_auc(weights: np.ndarray) -> np.ndarray:
        pos, neg = per_tie(weights)
        found, flagged = np.cumsum(pos, axis=1), np.cumsum(pos + neg, axis=1)
        precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (pos * precision).sum(axis=1) / pos.sum(axis=1)

    return roc_auc, pr_auc


def weighted_mean(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of row weights (b, n) that gives the weighted mean of values (n,)."""
    def score(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return weights @ values / weights.sum(axis=1)
    return score


def regression_scorers(truth: np.ndarray, value: np.ndarray
                       ) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return functions of row weights (b, n) that give weighted r2, pearson, mae and rmse."""
    absolute = np.abs(truth - value)
    scale = truth.std() or 1.0
    truth, value = (truth - truth.mean()) / scale, (value - truth.mean()) / scale
    error = weighted_mean((truth - value) ** 2)  # r2 and pearson do not depend on the scale
    return {
        "r2": lambda w: 1 - _ratio(error(w), _cov(w, truth, truth)),
        "pearson": lambda w: _ratio(_cov(w, truth, value),
                                    np.sqrt(_cov(w, truth, truth) * _cov(w, value, value))),
        "mae": weighted_mean(absolute),
        "rmse": lambda w: scale * np.sqrt(error(w)),
    }


def _cov(weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    mean = weighted_mean
    return mean(a * b)(weights) - mean(a)(weights) * mean(b)(weights)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 1e-12, top / bottom, np.nan)
