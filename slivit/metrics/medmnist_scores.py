"""AUC and ACC as MedMNIST's own Evaluator computes them, for comparison with published tables."""

import warnings

import numpy as np

CLASSES = ("multi-class", "ordinal-regression")  # tasks of exactly one of K classes


def medmnist_scores(truth: np.ndarray, pred: np.ndarray, task: str) -> dict[str, float | None]:
    """Return MedMNIST's two scores (Yang et al. 2023), by the functions of its package.

    AUC is the mean of the labels' or classes' ROC-AUC. ACC is the share of labels that are right at
    a probability of 0.5, or of scans whose most probable class is right.

    Args:
        truth: (n, K) of 0 and 1, one column for a binary task; one-hot for exactly one of K.
        pred: (n, K) probabilities.
        task: as MedMNIST calls it: `binary-class`, `multi-class`, `ordinal-regression` or
            `multi-label, binary-class`.

    Returns:
        `auc` and `acc`; None where the scans do not define it: for an AUC, where a label or class
        has no positives or no negatives.
    """
    from medmnist.evaluator import getACC, getAUC  # loads torch

    if len(truth) < 2:  # the functions would lose the axis
        return {"auc": None, "acc": None}
    labels = truth.argmax(axis=1)[:, None] if task in CLASSES else truth.astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, where a class is absent
        try:
            auc = float(getAUC(labels, pred, task))
        except ValueError:  # of its earlier versions, there
            auc = float("nan")
    return {"auc": auc if np.isfinite(auc) else None, "acc": float(getACC(labels, pred, task))}
