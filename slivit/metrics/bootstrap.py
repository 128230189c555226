"""Bootstrap by patient: draws of whole groups, scores of all replicates, intervals."""

from collections.abc import Callable, Sequence

import numpy as np

from slivit.metrics.operating_point import rates, ratio

ECE_BINS = 15

# How often each group was drawn, (b, G) float64 -> scores of the b replicates by name, each (b,).
Scorer = Callable[[np.ndarray], dict[str, np.ndarray]]

CELLS = 400_000  # replicate-by-row cells worked on at once: what a processor's cache holds


def cluster_counts(groups: Sequence[str], strata: np.ndarray | None, n_boot: int,
                   seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw whole groups with replacement, within strata of groups.

    Args:
        groups: group (patient, or row id) of each of n rows.
        strata: (n,) or (n, K) bool; the stratum of a group is in which columns any of its rows is
            True, so that a replicate has as many groups with a positive of each label as the data.
            Strata of one group are put together, for alone it would never vary. None for one
            stratum.
        n_boot: number of replicates.
        seed: of the draws.

    Returns:
        (n_boot, G) uint16, how often each group was drawn, and (n,) the group number of each row,
        in the order of the sorted names: the order of the rows does not matter.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_boot, len(names)), dtype=np.uint16)
    for part in _strata(member, len(names), strata):
        counts[:, part] = _draw(len(part), n_boot, rng)
    return counts, member


def _strata(member: np.ndarray, count: int, strata: np.ndarray | None) -> list[np.ndarray]:
    if strata is None or not count:
        return [np.arange(count)]
    columns = np.asarray(strata).reshape(len(member), -1)
    pattern = np.zeros((count, columns.shape[1]), dtype=bool)
    np.logical_or.at(pattern, member, columns)
    _, which, sizes = np.unique(pattern, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    parts = [np.flatnonzero(which == k) for k in np.flatnonzero(sizes > 1)]
    alone = np.flatnonzero(sizes[which] == 1)
    return [*parts, alone] if len(alone) else parts


def _draw(size: int, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    counts = np.empty((n_boot, size), dtype=np.uint16)
    step = max(1, CELLS // max(1, size))
    for start in range(0, n_boot, step):
        part = counts[start:start + step]
        drawn = rng.integers(0, size, part.shape) + size * np.arange(len(part))[:, None]
        part[:] = np.bincount(drawn.ravel(), minlength=part.size).reshape(part.shape)
    return counts


def replicate(scorer: Scorer, counts: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of all replicates, each (n_boot,); NaN where a replicate has none.

    Args:
        scorer: made with the same `member`.
        counts, member: of `cluster_counts`; `member` may be of some of the rows only.
    """
    step = max(1, CELLS // max(1, len(member)))
    parts = [scorer(counts[start:start + step].astype(np.float64))
             for start in range(0, len(counts), step)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def interval(replicates: np.ndarray, level: float = 0.95) -> list[float] | None:
    """Return the percentile interval [low, high]; None where under half the replicates count."""
    valid = replicates[np.isfinite(replicates)]
    if len(valid) < max(2, len(replicates) / 2):
        return None
    tail = 50 * (1 - level)
    return [float(edge) for edge in np.percentile(valid, [tail, 100 - tail])]


def combine(*scorers: Scorer) -> Scorer:
    """Return the scorer of all that these score."""
    return lambda drawn: {key: value for scorer in scorers for key, value in scorer(drawn).items()}


def _summing(columns: np.ndarray, member: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return what sums columns (n, m) over the rows drawn: (b, G) -> (b, m)."""
    if member is None:
        totals = columns
    else:
        totals = np.column_stack([np.bincount(member, column) for column in columns.T])
    return lambda drawn: drawn[:, :len(totals)] @ totals


def ranking(truth: np.ndarray, pred: np.ndarray, member: np.ndarray | None = None) -> Scorer:
    """Return the scorer of `roc_auc` and `pr_auc`.

    ROC-AUC is the Mann-Whitney statistic with ties counted half; PR-AUC is average precision.

    Args:
        truth: (n,) of 0 and 1.
        pred: (n,) higher means more positive.
        member: (n,) the group number of each row; None where every row is its own.
    """
    order = np.argsort(-pred, kind="stable")
    positive = truth[order] == 1
    starts = np.flatnonzero(np.diff(pred[order], prepend=np.inf) != 0)
    ends = np.append(starts[1:], len(order))
    hits = np.add.reduceat(positive.astype(int), starts)
    starts, ends, hits = starts[hits > 0], ends[hits > 0], hits[hits > 0]
    of_group = order if member is None else member[order]
    positives, first = of_group[positive], np.cumsum(hits) - hits

    def score(drawn: np.ndarray) -> dict[str, np.ndarray]:
        total = np.zeros((len(drawn), len(order) + 1))
        np.cumsum(np.take(drawn, of_group, axis=1), axis=1, out=total[:, 1:])
        pos = np.add.reduceat(np.take(drawn, positives, axis=1), first, axis=1)
        hits = np.cumsum(pos, axis=1)
        flagged, before = np.take(total, ends, axis=1), np.take(total, starts, axis=1)
        all_pos = pos.sum(axis=1)
        all_neg = total[:, -1] - all_pos
        passed = (flagged + before + pos) / 2 - hits  # negatives above, half of those tied
        precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
        return {"roc_auc": ratio((pos * (all_neg[:, None] - passed)).sum(axis=1),
                                 all_pos * all_neg),
                "pr_auc": ratio((pos * precision).sum(axis=1), all_pos)}

    return score


def ece_bin(pred: np.ndarray) -> np.ndarray:
    """Return of each probability the number of its bin, of ECE_BINS of equal width in 0..1.

    A bin holds its upper edge, the first one 0 too (Guo et al. 2017).
    """
    return np.searchsorted(np.arange(1, ECE_BINS) / ECE_BINS, pred, side="left")


def probability(truth: np.ndarray, pred: np.ndarray, member: np.ndarray | None = None) -> Scorer:
    """Return the scorer of `brier` and `ece` (see scores.expected_calibration_error).

    The arguments are those of `ranking`.
    """
    gaps = np.zeros((len(truth), ECE_BINS))
    gaps[np.arange(len(truth)), ece_bin(pred)] = truth - pred
    summed = _summing(np.column_stack([np.ones(len(truth)), (truth - pred) ** 2, gaps]), member)

    def score(drawn: np.ndarray) -> dict[str, np.ndarray]:
        sums = summed(drawn)
        return {"brier": ratio(sums[:, 1], sums[:, 0]),
                "ece": ratio(np.abs(sums[:, 2:]).sum(axis=1), sums[:, 0])}

    return score


def decision(truth: np.ndarray, pred: np.ndarray, threshold: float,
             member: np.ndarray | None = None) -> Scorer:
    """Return the scorer of operating_point.RATES where a prediction of at least `threshold` is a
    yes.

    The other arguments are those of `ranking`.
    """
    predicted, true = pred >= threshold, truth == 1
    columns = np.column_stack([predicted & true, predicted & ~true, ~predicted & ~true,
                               ~predicted & true])
    summed = _summing(columns.astype(np.float64), member)
    return lambda drawn: rates(*summed(drawn).T)


def regression(truth: np.ndarray, value: np.ndarray, member: np.ndarray | None = None) -> Scorer:
    """Return the scorer of r2, pearson, spearman, mae, rmse, bias, loa_low and loa_high.

    `member` as in `ranking`.
    """
    scale = truth.std() if np.ptp(truth) > 0 else 1.0
    x, y, off = _standard(truth), _standard(value), (value - truth) / scale
    offset = off.mean()  # differences are squared about their mean, not about 0
    summed = _summing(np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y, np.abs(off),
                                       off - offset, (off - offset) ** 2]), member)
    of_group = np.arange(len(x)) if member is None else member
    ranks_x, ranks_y = _midranks(truth), _midranks(value)

    def score(drawn: np.ndarray) -> dict[str, np.ndarray]:
        total, *sums = summed(drawn).T
        weights = np.take(drawn, of_group, axis=1)
        mx, my, mxx, myy, mxy, mean_abs, mean_off, mean_off2 = (ratio(s, total) for s in sums)
        var_x, var_y, cov = mxx - mx ** 2, myy - my ** 2, mxy - mx * my
        off_var = np.maximum(mean_off2 - mean_off ** 2, 0)
        bias, mean_square = mean_off + offset, off_var + (mean_off + offset) ** 2
        spread = 1.96 * np.sqrt(off_var * ratio(total, total - 1))
        rank_x, rank_y = ranks_x(weights), ranks_y(weights)
        ranked = np.einsum("bn,bn,bn->b", weights, rank_x, rank_y)
        rank_var = (np.einsum("bn,bn,bn->b", weights, rank_x, rank_x)
                    * np.einsum("bn,bn,bn->b", weights, rank_y, rank_y))
        return {"r2": 1 - ratio(mean_square, np.where(var_x > 1e-12, var_x, 0)),
                "pearson": ratio(cov, np.sqrt(np.where((var_x > 1e-12) & (var_y > 1e-12),
                                                       var_x * var_y, 0))),
                "spearman": ratio(ranked, np.sqrt(rank_var)),
                "mae": scale * mean_abs, "rmse": scale * np.sqrt(mean_square),
                "bias": scale * bias,
                "loa_low": scale * (bias - spread), "loa_high": scale * (bias + spread)}

    return score


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() if np.ptp(values) > 0 else 1.0)


def _midranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of weights (b, n) that gives each row's midrank, less their mean."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf) != 0)
    edges = np.append(starts, len(order))
    tie = np.empty(len(order), dtype=int)
    tie[order] = np.repeat(np.arange(len(starts)), np.diff(edges))

    def ranks(weights: np.ndarray) -> np.ndarray:
        total = np.zeros((len(weights), len(order) + 1))
        np.cumsum(np.take(weights, order, axis=1), axis=1, out=total[:, 1:])
        edge = np.take(total, edges, axis=1)
        middle = (edge[:, 1:] + edge[:, :-1] - total[:, -1:]) / 2
        return np.take(middle, tie, axis=1)

    return ranks


def confusion(truth: np.ndarray, predicted: np.ndarray, count: int,
              member: np.ndarray | None = None) -> Scorer:
    """Return the scorer of accuracy, kappa and the averages over classes.

    As scikit-learn has them: averages of F1 and precision are over the classes that occur in truth
    or prediction, and a class that is never predicted has precision 0; balanced accuracy is the
    mean recall of the classes that occur in truth; kappa is Cohen's (1960), unweighted.

    Args:
        truth, predicted: (n,) class numbers.
        count: of classes.
        member: as in `ranking`.

    Returns:
        The scorer; `support` besides, the weight of each true class, (b, count).
    """
    cells, which = np.unique(truth * count + predicted, return_inverse=True)
    summed = _summing((which[:, None] == np.arange(len(cells))).astype(np.float64), member)

    def score(drawn: np.ndarray) -> dict[str, np.ndarray]:
        table = np.zeros((len(drawn), count * count))
        table[:, cells] = summed(drawn)
        table = table.reshape(-1, count, count)
        right, rows, cols = np.einsum("bkk->bk", table), table.sum(axis=2), table.sum(axis=1)
        total, there, true = rows.sum(axis=1), rows + cols > 0, rows > 0
        f1 = np.where(there, np.nan_to_num(ratio(2 * right, rows + cols)), 0)
        precision = np.nan_to_num(ratio(right, cols))
        recall = np.nan_to_num(ratio(right, rows))
        chance = (rows * cols).sum(axis=1)
        return {"accuracy": ratio(right.sum(axis=1), total),
                "balanced_accuracy": ratio(recall.sum(axis=1), true.sum(axis=1)),
                "kappa": ratio(total * right.sum(axis=1) - chance, total ** 2 - chance),
                "f1_macro": ratio(f1.sum(axis=1), there.sum(axis=1)),
                "f1_weighted": ratio((rows * f1).sum(axis=1), total),
                "precision_macro": ratio(precision.sum(axis=1), there.sum(axis=1)),
                "precision_weighted": ratio((rows * precision).sum(axis=1), total),
                "support": rows}

    return score
