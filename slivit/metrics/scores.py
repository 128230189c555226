"""Scores of one label or one set of classes, without intervals, by scikit-learn and SciPy."""

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk

from slivit.metrics.bootstrap import ECE_BINS, ece_bin

COUNTS = ("n", "n_pos", "prevalence")  # what a label's scores hold that has no interval
BOTH_CLASSES = ("roc_auc", "pr_auc")
REGRESSION = ("r2", "pearson", "spearman", "mae", "rmse", "bias", "loa_low", "loa_high")
NO_MEAN = (*COUNTS, "bias", "loa_low", "loa_high")  # what is not averaged over labels


def point_scores(truth: np.ndarray, pred: np.ndarray, task: str) -> dict[str, float | None]:
    """Score one label.

    Args:
        truth: (n,) known labels.
        pred: (n,) probabilities, or values for regression.
        task: of config.TASKS.

    Returns:
        n, n_pos, prevalence, roc_auc, pr_auc, brier, ece; or n and REGRESSION. A score that the
        rows do not define (one class only, fewer than two different values) is None.
    """
    truth, pred = np.asarray(truth, np.float64), np.asarray(pred, np.float64)
    n = len(truth)
    if task == "regression":
        return {"n": n, **_regression(truth, pred)}
    n_pos = int(truth.sum())
    both = 0 < n_pos < n
    return {
        "n": n,
        "n_pos": n_pos,
        "prevalence": n_pos / n if n else None,
        "roc_auc": float(sk.roc_auc_score(truth, pred)) if both else None,
        "pr_auc": float(sk.average_precision_score(truth, pred)) if both else None,
        "brier": float(np.mean((truth - pred) ** 2)) if n else None,
        "ece": expected_calibration_error(truth, pred) if n else None,
    }


def _regression(truth: np.ndarray, value: np.ndarray) -> dict[str, float | None]:
    """Limits of agreement are bias +- 1.96 SD (n - 1) of predicted - true (Bland & Altman 1986)."""
    if not len(truth):
        return dict.fromkeys(REGRESSION)
    spread = _varies(truth)
    both = spread and _varies(value)
    off = value - truth
    bias = float(off.mean())
    half = 1.96 * float(off.std(ddof=1)) if len(off) > 1 else None
    return {
        "r2": float(sk.r2_score(truth, value)) if spread else None,
        "pearson": float(pearsonr(truth, value)[0]) if both else None,
        "spearman": float(spearmanr(truth, value)[0]) if both else None,
        "mae": float(np.abs(off).mean()),
        "rmse": float(np.sqrt((off ** 2).mean())),
        "bias": bias,
        "loa_low": None if half is None else bias - half,
        "loa_high": None if half is None else bias + half,
    }


def _varies(values: np.ndarray) -> bool:
    return bool(np.ptp(values) > 1e-9 * np.abs(values).max())  # not by rounding alone


def expected_calibration_error(truth: np.ndarray, pred: np.ndarray) -> float:
    """Return the mean distance between P(label) and the share of scans that have the label.

    In 15 bins of equal width, each counted by its scans (Guo et al. 2017), of the probability of
    the label itself, not of whichever class is the likelier. Noise only adds to it: in small
    samples it is too high, and its bootstrap replicates are higher still.

    Args:
        truth: (n,) of 0 and 1, n > 0.
        pred: (n,) probabilities in 0..1.
    """
    gaps = np.bincount(ece_bin(pred), truth - pred, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(truth))


def class_scores(truth: np.ndarray, pred: np.ndarray) -> dict[str, float | None]:
    """Score the likeliest class, and the label scores averaged by how frequent the classes are.

    Args:
        truth: (n, K) one-hot, known.
        pred: (n, K) probabilities.

    Returns:
        accuracy, balanced_accuracy, kappa, f1_macro, f1_weighted, precision_macro,
        precision_weighted, roc_auc_weighted, pr_auc_weighted (one-vs-rest) and ece_top (of the
        likeliest class, Guo et al. 2017). Averages over classes as in bootstrap.confusion.
    """
    keys = ("accuracy", "balanced_accuracy", "kappa", "f1_macro", "f1_weighted",
            "precision_macro", "precision_weighted", "roc_auc_weighted", "pr_auc_weighted",
            "ece_top")
    if not len(truth):
        return dict.fromkeys(keys)
    true, predicted = truth.argmax(axis=1), pred.argmax(axis=1)
    one = len(np.unique(np.append(true, predicted))) == 1  # kappa would be 0 / 0
    values = [float(np.mean(true == predicted)),
             float(sk.recall_score(true, predicted, labels=np.unique(true), average="macro")),
             None if one else float(sk.cohen_kappa_score(true, predicted))]
    for score in (sk.f1_score, sk.precision_score):
        values += [float(score(true, predicted, average=average, zero_division=0))
                  for average in ("macro", "weighted")]
    labels = [point_scores(t, p, "binary") for t, p in zip(truth.T, pred.T, strict=True)]
    for key in BOTH_CLASSES:
        there = [label for label in labels if label[key] is not None]
        values.append(float(np.average([label[key] for label in there],
                                      weights=[label["n_pos"] for label in there]))
                     if there else None)
    values.append(expected_calibration_error((true == predicted).astype(float), pred.max(axis=1)))
    return dict(zip(keys, values, strict=True))


def mean_scores(labels: dict[str, dict]) -> dict[str, float | None]:
    """Return the unweighted mean over the labels that have a score, for every score."""
    first = next(iter(labels.values()))
    means = {}
    for key in first:
        if key in NO_MEAN or key == "operating_point" or key.endswith("_ci"):
            continue
        values = [scores[key] for scores in labels.values() if scores[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means
