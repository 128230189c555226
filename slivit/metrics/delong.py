"""Variance of the area under the ROC curve by DeLong, also for scans of the same patient.

DeLong, DeLong & Clarke-Pearson 1988, computed from midranks (Sun & Xu 2014); scans of the same
group are taken together as in Obuchowski 1997, which is the same where every group has one scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two areas: b - a, its standard error, z and two-sided p-value."""

    value: float
    error: float
    z: float
    p: float


def auc_interval(truth: np.ndarray, pred: np.ndarray, groups: Sequence[str] | None = None,
                 level: float = 0.95) -> list[float] | None:
    """Return the interval [low, high] of the area on its own scale, clipped to 0..1.

    Where the classes are separated completely the variance is 0 and the interval a point.

    Args:
        truth: (n,) of 0 and 1.
        pred: (n,) higher means more positive.
        groups: patient of each row; None where every row is its own.
        level: of confidence.

    Returns:
        None where a class has fewer than two groups.
    """
    area, *parts = _components(truth, pred)
    variance = _variance(truth, parts, groups)
    if variance is None:
        return None
    half = norm.ppf((1 + level) / 2) * np.sqrt(variance)
    return [float(np.clip(edge, 0, 1)) for edge in (area - half, area + half)]


def compare_auc(truth: np.ndarray, a: np.ndarray, b: np.ndarray,
                groups: Sequence[str] | None = None) -> Difference | None:
    """Test whether two predictors of the same rows have the same area (two-sided, normal).

    Args:
        truth: (n,) of 0 and 1.
        a, b: (n,) predictions.
        groups: patient of each row; None where every row is its own.

    Returns:
        None where a class has fewer than two groups, or where the areas differ and yet the
        variance of the difference is 0. Predictors that rank alike have p = 1.
    """
    area_a, *parts_a = _components(truth, a)
    area_b, *parts_b = _components(truth, b)
    variance = _variance(truth, [y - x for x, y in zip(parts_a, parts_b, strict=True)], groups)
    if variance is None:
        return None
    value, error = area_b - area_a, float(np.sqrt(variance))
    if error < 1e-12:
        return Difference(value, 0.0, 0.0, 1.0) if abs(value) < 1e-12 else None
    return Difference(value, error, value / error, float(2 * norm.sf(abs(value) / error)))


def _components(truth: np.ndarray, pred: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the area, and of each positive (negative) the share of negatives (positives) that it
    is ranked right against, ties counted half; areas of one class only are NaN."""
    positive = np.asarray(truth) == 1
    ranks = rankdata(pred)
    n_pos, n_neg = positive.sum(), (~positive).sum()
    of_pos = (ranks[positive] - rankdata(pred[positive])) / max(1, n_neg)
    of_neg = 1 - (ranks[~positive] - rankdata(pred[~positive])) / max(1, n_pos)
    return float(of_pos.mean()) if n_pos and n_neg else np.nan, of_pos, of_neg


def _variance(truth: np.ndarray, parts: Sequence[np.ndarray],
              groups: Sequence[str] | None) -> float | None:
    """Return the variance of the mean of the components; None under two groups of a class."""
    positive = np.asarray(truth) == 1
    names = np.arange(len(positive)) if groups is None else np.asarray(groups)
    _, member = np.unique(names, return_inverse=True)
    sums, variance = [], 0.0
    for side, part in zip((positive, ~positive), parts, strict=True):
        there = np.bincount(member[side], minlength=len(names)) > 0
        if there.sum() < 2:
            return None
        centred = np.bincount(member[side], part - part.mean(), minlength=len(names)) / side.sum()
        variance += (centred ** 2).sum() * there.sum() / (there.sum() - 1)
        sums.append(centred)
    count = int(member.max()) + 1
    variance += 2 * (sums[0] * sums[1]).sum() * count / (count - 1)
    return max(0.0, float(variance))
