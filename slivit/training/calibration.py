"""Temperature scaling: one number that makes probabilities as sure as they are right."""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from slivit.checkpoints.checkpoint import Validation
from slivit.config import Target
from slivit.models.outputs import unweighted
from slivit.training.losses import plain_loss

RANGE = (0.05, 20.0)  # temperatures tried


def fit_temperature(logits: np.ndarray, labels: np.ndarray, target: Target) -> float | None:
    """Return the temperature T that makes the mean log-loss of logits / T smallest.

    One T for all labels, fitted on validation (Guo et al. 2017, section 4.2); it changes no
    ranking. The loss has one minimum in 1 / T, so that the search, by bounded Brent, finds it; one
    beyond RANGE (labels that the logits separate completely) becomes the nearest end of RANGE.

    Args:
        logits: (n, K), with Target.shift already taken off.
        labels: (n, K) of 0 and 1, NaN where unknown.
        target: what the columns are.

    Returns:
        T > 0; None for regression and where there is nothing to fit: no label known in two classes,
        or logits that do not differ.
    """
    if target.task == "regression":
        return None
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    rows = ~np.isnan(labels)
    if target.task == "multiclass":
        rows[:] = rows.all(axis=1, keepdims=True)
        flat = not (np.ptp(logits, axis=1) > 0)[rows[:, 0]].any()
    else:
        flat = not logits[rows].any()
    seen = [np.unique(label[row]).size for label, row in zip(labels.T, rows.T, strict=True)]
    if flat or max(seen) < 2:
        return None
    plain = replace(target, shift=())

    def loss(log_sharpness: float) -> float:
        return plain_loss(logits * np.exp(log_sharpness), labels, plain)

    low, high = (-np.log(edge) for edge in reversed(RANGE))
    best = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(-best.x))


def temperature_of(validation: Validation, target: Target) -> float | None:
    """Return the temperature for a model's validation outputs; see `fit_temperature`."""
    return fit_temperature(unweighted(validation.logits, target), validation.labels, target)
