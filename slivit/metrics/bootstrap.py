"""Bootstrap by patient: draws of whole groups, scores of all replicates, intervals."""

from collections.abc import Callable, Sequence

import numpy as np

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
        scorer: of slivit.weighted: row weights (b, n) float64 -> scores by name, each (b,).
        counts, member: of `cluster_counts`; `member` may be of some of the rows only.
    """
    step = max(1, CELLS // max(1, len(member)))
    parts = [scorer(np.take(counts[start:start + step], member, axis=1).astype(np.float64))
             for start in range(0, len(counts), step)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def interval(replicates: np.ndarray, level: float = 0.95) -> list[float] | None:
    """Return the percentile interval [low, high]; None where under half the replicates count."""
    valid = replicates[np.isfinite(replicates)]
    if len(valid) < max(2, len(replicates) / 2):
        return None
    tail = 50 * (1 - level)
    return [float(edge) for edge in np.percentile(valid, [tail, 100 - tail])]
