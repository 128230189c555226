"""Operating points: which threshold makes a probability a decision, and how good it is."""

from dataclasses import dataclass

import numpy as np

RATES = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        name: `youden` (highest sensitivity + specificity, Youden 1950), `sensitivity` (at least
            `value`, with the highest specificity) or `specificity` (the other way round).
        value: in (0, 1]; None for `youden`.
    """

    name: str
    value: float | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value:g}"


@dataclass(frozen=True)
class Threshold:
    """A chosen operating point: a scan is positive where its prediction is at least `value`.

    Attributes:
        rule: as written on the command line, such as `sensitivity=0.95`.
        value: in the unit of the predictions.
        chosen_on: name of the split, such as `validation`.
    """

    rule: str
    value: float
    chosen_on: str


def parse_rule(text: str) -> Rule:
    """Read a rule such as `youden`, `sensitivity=0.95` or `specificity=0.9`.

    Raises:
        ValueError: saying what was found and what was expected.
    """
    name, equals, number = (part.strip() for part in text.strip().partition("="))
    if name == "youden" and not equals:
        return Rule(name)
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if name in ("sensitivity", "specificity") and 0 < value <= 1:
        return Rule(name, value)
    raise ValueError(f"found {text!r}, expected youden, sensitivity=VALUE or specificity=VALUE "
                     "with a VALUE above 0 and at most 1, such as sensitivity=0.95")


def choose(truth: np.ndarray, pred: np.ndarray, rule: Rule, chosen_on: str) -> Threshold | None:
    """Choose the threshold of one label.

    The threshold lies half way between the lowest prediction that is to be positive and the next
    one below, so that it does not hang on the last digit of one scan. Of equally good ones `youden`
    takes the lowest, which misses the fewest positives; the others the one that is best in what
    the rule names too.

    Args:
        truth: (n,) of 0 and 1, NaN where unknown.
        pred: (n,) probabilities.
        rule: see Rule.
        chosen_on: name of the split, to be recorded.

    Returns:
        The threshold, finite; None where the known rows are of one class only.
    """
    known = ~np.isnan(truth)
    truth, pred = truth[known] == 1, np.asarray(pred, dtype=np.float64)[known]
    if truth.all() or not truth.any():
        return None
    values, tie = np.unique(pred, return_inverse=True)
    cuts = np.append(values, np.nextafter(values[-1], np.inf))  # the last one: nothing is positive
    below = np.zeros((2, len(cuts)))  # negatives and positives under each cut
    for row, side in enumerate((~truth, truth)):
        below[row, 1:] = np.cumsum(np.bincount(tie[side], minlength=len(values)))
    tn, tp = below[0], truth.sum() - below[1]
    sensitivity, specificity = tp / truth.sum(), tn / (~truth).sum()
    enough = None if rule.value is None else rule.value - 1e-12
    if rule.name == "youden":
        best = int(np.argmax(np.round(sensitivity + specificity, 12)))
    elif rule.name == "sensitivity":
        most = specificity[sensitivity >= enough].max()
        best = int(np.flatnonzero(specificity == most)[0])
    else:
        most = sensitivity[specificity >= enough].max()
        best = int(np.flatnonzero(sensitivity == most)[-1])
    value = cuts[best]
    if 0 < best < len(values):
        middle = values[best - 1] + (values[best] - values[best - 1]) / 2
        value = middle if middle > values[best - 1] else value
    return Threshold(str(rule), float(value), chosen_on)


def rates(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores RATES from counts, or sums of weights, of any one shape.

    NaN where a score is undefined: sensitivity and balanced accuracy without positives,
    specificity and balanced accuracy without negatives, PPV where nothing is called positive, NPV
    where nothing is called negative, F1 where there is neither a positive nor a call of one.
    """
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {"sensitivity": sensitivity, "specificity": specificity,
            "ppv": ratio(tp, tp + fp), "npv": ratio(tn, tn + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "accuracy": ratio(tp + tn, tp + fp + tn + fn),
            "balanced_accuracy": (sensitivity + specificity) / 2}


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, NaN where bottom is not above 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, float), np.asarray(bottom, float))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def point(truth: np.ndarray, pred: np.ndarray, threshold: Threshold) -> dict[str, object]:
    """Return what `operating_point` holds in metrics.json, without intervals.

    Args:
        truth: (n,) of 0 and 1, known.
        pred: (n,) probabilities.
        threshold: see Threshold.
    """
    predicted, true = pred >= threshold.value, truth == 1
    counts = {"tp": int((predicted & true).sum()), "fp": int((predicted & ~true).sum()),
              "tn": int((~predicted & ~true).sum()), "fn": int((~predicted & true).sum())}
    values = {key: None if np.isnan(value) else float(value)
              for key, value in rates(**counts).items()}
    return {"rule": threshold.rule, "threshold": threshold.value,
            "chosen_on": threshold.chosen_on, **counts, **values}
