"""From logits to predictions: probabilities, or values in the label's own unit."""

import numpy as np
import torch

from slivit.config import Target


def unweighted(logits: np.ndarray, target: Target) -> np.ndarray:
    """Return float64 logits (n, K) without what weighted training has added (Target.shift)."""
    return np.asarray(logits, dtype=np.float64) - np.array(target.shift or 0.0)


def to_predictions(logits: np.ndarray, target: Target, temperature: float = 1.0) -> np.ndarray:
    """Turn logits (n, K) into probabilities in 0..1, or into values in the label's own unit.

    What weighted training has added to the logits is taken off, then they are divided by the
    temperature (calibration.fit_temperature).
    """
    logits = torch.from_numpy(unweighted(logits, target) / temperature)
    if target.task == "multiclass":
        return torch.softmax(logits, dim=1).numpy()
    if target.task == "regression":
        return (logits * logits.new_tensor(target.std) + logits.new_tensor(target.mean)).numpy()
    return torch.sigmoid(logits).numpy()
