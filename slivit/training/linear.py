"""The linear integrator, solved exactly: logistic or ridge regression on stored slice features.

With a few dozen volumes a network learns what these volumes happen to have in common. A linear
layer with a strong L2 penalty does so less, the more the penalty is chosen with care. Features are
scaled together, not one by one: so those that vary most, such as with the size of a lesion, are
used first (Hastie et al. 2009, section 3.4.1: the penalty shrinks directions of small variance
most).
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from slivit.data.scan_table import ScanTable
from slivit.models.integrator import LinearIntegrator
from slivit.training.feature_store import FeatureStore
from slivit.training.losses import Objective, known_count, loss_sum
from slivit.utils.log import LOG

STRENGTHS = tuple(float(10.0 ** k) for k in range(-5, 2))  # C: one over the penalty
USUAL = 1e-3    # where there are too few patients, or of a class, to choose
INNER_FOLDS = 5
MAX_ITER, TOLERANCE = 5000, 1e-7  # of logistic regression
CONSTANT = 1e-6  # of the largest feature: what varies less is rounding
AT_A_TIME = 256  # volumes whose slices are pooled


def solve(integrator: LinearIntegrator, stores: Sequence[FeatureStore], scans: ScanTable,
          objective: Objective, seed: int) -> tuple[float, int]:
    """Give the integrator the weights that fit the training volumes best under an L2 penalty.

    0/1 labels: logistic regression, each label on its own; multi-class: its multinomial form;
    regression: ridge regression of the standardised labels. Unknown labels are left out, and so
    are volumes without any label. How strong the penalty is, is chosen by the loss in up to five
    folds by patient within the training volumes.

    Args:
        integrator: on any device; its weights are changed.
        stores: features of the volumes as they are, then of augmented versions, which count as
            further volumes of the same patient.
        scans: gives labels, patients and splits.
        objective: what is predicted.
        seed: of the folds.

    Returns:
        The training loss, summed over the known labels of all versions, and how many they are.
    """
    rows = scans.rows("train")
    rows = rows[(~np.isnan(scans.labels[rows])).any(axis=1)]
    x = np.concatenate([_pooled(integrator, store, rows) for store in stores])
    y = np.tile(scans.labels[rows], (len(stores), 1))
    groups = np.tile(np.array(scans.groups())[rows], len(stores))
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64).mean()
    centred = x - mean
    if scale <= CONSTANT * np.abs(x).max():
        LOG.warning("warning: the features of all training volumes are the same, so that the model "
                    "predicts the same for every volume. Look at them with python -m slivit.check")
        centred[:], scale = 0.0, 1.0
    weight, bias, chosen = _fit(centred / scale, y, groups, objective, seed)
    integrator.penalty = ", ".join(chosen)
    with torch.no_grad():
        integrator.head.weight.copy_(torch.from_numpy(weight / scale))
        integrator.head.bias.copy_(torch.from_numpy(bias - weight @ mean / scale))
        logits = torch.from_numpy(x) @ integrator.head.weight.cpu().T + integrator.head.bias.cpu()
    labels = torch.from_numpy(y)
    return (float(loss_sum(logits, labels, objective)), known_count(labels, objective.target))


def _pooled(integrator: LinearIntegrator, store: FeatureStore, rows: np.ndarray) -> np.ndarray:
    """Return the vectors (n, embed_dim) float32 of stored volumes."""
    parts = [rows[start:start + AT_A_TIME] for start in range(0, len(rows), AT_A_TIME)]
    return np.concatenate([integrator.encode(
        torch.from_numpy(np.array(store.x[part])), torch.from_numpy(np.array(store.mask[part]))
    ).numpy() for part in parts])


def _fit(x: np.ndarray, y: np.ndarray, groups: np.ndarray, objective: Objective, seed: int
         ) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return weight (K, F) and bias (K,) of the best linear model of labels y (n, K).

    And the penalty of each model in words.
    """
    target, chosen = objective.target, []
    weight, bias = np.zeros((y.shape[1], x.shape[1])), np.zeros(y.shape[1])
    if target.task == "multiclass":
        known = ~np.isnan(y).any(axis=1)
        classes = y[known].argmax(axis=1)
        model = _best(_logistic(), x[known], classes, groups[known], seed, chosen)
        there = model.classes_
        if len(there) == 2:  # scikit-learn gives the logit of the second against the first
            weight[there], bias[there] = _halves(model.coef_[0]), _halves(model.intercept_[0])
        else:
            weight[there], bias[there] = model.coef_, model.intercept_
        bias[np.setdiff1d(np.arange(len(bias)), there)] = bias[there].min() - 10  # never seen
        return weight, bias, chosen
    for k, column in enumerate(y.T):
        known = ~np.isnan(column)
        values = column[known]
        if target.task == "regression":
            values, model = (values - target.mean[k]) / target.std[k], Ridge()
        elif len(np.unique(values)) < 2:  # the prevalence is all that is known
            share = np.clip(values.mean(), 0.5 / len(values), 1 - 0.5 / len(values))
            bias[k] = np.log(share / (1 - share))
            continue
        else:
            model = _logistic()
        model = _best(model, x[known], values, groups[known], seed, chosen)
        weight[k], bias[k] = np.ravel(model.coef_), float(np.ravel(model.intercept_)[0])
    return weight, bias, chosen


def _logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=MAX_ITER, tol=TOLERANCE)


def _best(model: LogisticRegression | Ridge, x: np.ndarray, y: np.ndarray, groups: np.ndarray,
          seed: int, chosen: list[str]) -> BaseEstimator:
    """Return the model fitted to all, with the penalty of the lowest loss in folds by patient.

    In words, the penalty is added to `chosen`.
    """
    if isinstance(model, Ridge):
        name, values = "alpha", [1 / strength for strength in STRENGTHS]
        usual, scoring, classes = 1 / USUAL, "neg_mean_squared_error", np.zeros(len(y))
    else:
        name, values = "C", STRENGTHS
        usual, scoring, classes = USUAL, "neg_log_loss", y
    folds = _folds(classes, groups, seed)
    if not folds:
        chosen.append(f"{name} {usual:g}")
        LOG.info("integrator: %s, since there are too few patients, or volumes of a class, to "
                 "choose it", chosen[-1])
        return model.set_params(**{name: usual}).fit(x, y)
    search = GridSearchCV(model, {name: values}, scoring=scoring, cv=folds).fit(x, y)
    chosen.append(f"{name} {search.best_params_[name]:g}")
    LOG.info("integrator: %s, chosen in %d folds by patient", chosen[-1], len(folds))
    return search.best_estimator_


def _folds(classes: np.ndarray, groups: np.ndarray, seed: int
           ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return up to five folds by patient, both parts of each with every class; maybe none."""
    count = min(INNER_FOLDS, len(np.unique(groups)),
                int(np.unique(classes, return_counts=True)[1].min()))
    if count < 2:
        return []
    parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    every = set(np.unique(classes))
    return [part for part in parts.split(classes, classes, groups)
            if all(set(classes[half]) == every for half in part)]


def _halves(value: np.ndarray | float) -> np.ndarray:
    return np.stack([-np.asarray(value) / 2, np.asarray(value) / 2])
