"""How sure each prediction is, and whether it is right: the order of `worst/` and `explain/`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slivit.config import Target
from slivit.metrics.operating_point import Threshold

HALF = 0.5  # the threshold of a label without an operating point


@dataclass(frozen=True)
class Verdict:
    """Predictions held against the truth; every array is (n, K).

    Attributes:
        known: bool, where there is something to be right or wrong about: the truth is known, and of
            several classes it is the predicted one.
        right: bool, whether the prediction is on the side of the truth; for regression, exact.
        size: float64, how confident it is. Binary and multi-label: how far beyond the threshold the
            probability lies, as a share of how far it could. Several classes: the probability. For
            regression, which says nothing of that, the absolute error.
    """

    known: np.ndarray
    right: np.ndarray
    size: np.ndarray


def judge(truth: np.ndarray, pred: np.ndarray, target: Target,
          thresholds: Sequence[Threshold | None] | None = None) -> Verdict:
    """Hold predictions against the truth.

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
        thresholds: of each label, from which on a probability counts as positive; see `limits`.
    """
    known = ~np.isnan(truth)
    if target.task == "regression":
        error = np.abs(pred - truth)
        return Verdict(known, error == 0, error)
    if target.task == "multiclass":
        predicted = np.arange(truth.shape[1]) == pred.argmax(axis=1)[:, None]
        return Verdict(known & predicted, truth == 1, pred)
    limit = limits(thresholds, truth.shape[1])
    positive = pred >= limit
    room = np.where(positive, 1 - limit, limit)
    return Verdict(known, positive == (truth == 1), np.abs(pred - limit) / np.maximum(room, 1e-9))


def limits(thresholds: Sequence[Threshold | None] | None, count: int) -> np.ndarray:
    """Return the thresholds (K,) of `count` labels; 0.5 where there is none."""
    return np.array([HALF if one is None else one.value for one in thresholds or [None] * count])


def ranked(chosen: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the positions where `chosen` (n,) is, those of the largest `size` (n,) first."""
    at = np.flatnonzero(chosen)
    return at[np.argsort(-size[at], kind="stable")]
