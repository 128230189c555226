"""Temperature scaling."""

import numpy as np
import pytest
from scipy.special import expit

from slivit.config import Target
from slivit.training.calibration import RANGE, fit_temperature
from slivit.training.losses import plain_loss

BINARY = Target("binary", ("a",))
MULTI = Target("multilabel", ("a", "b"))
CLASSES = Target("multiclass", ("a", "b", "c"))
NAN = float("nan")


def made_up(n, k, target, seed=0):
    """Return honest logits (n, k) and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 2
    if target.task == "multiclass":
        noise = rng.gumbel(size=(n, k))
        return logits, np.eye(k)[(logits + noise).argmax(axis=1)]
    return logits, (rng.random((n, k)) < expit(logits)).astype(np.float32)


@pytest.mark.parametrize(("target", "k"), [(BINARY, 1), (MULTI, 2), (CLASSES, 3)])
@pytest.mark.parametrize("sureness", [0.4, 1, 3])
def test_temperature_undoes_over_and_underconfidence(target, k, sureness):
    logits, labels = made_up(4000, k, target)
    found = fit_temperature(logits * sureness, labels, target)
    assert found == pytest.approx(sureness, rel=0.08)
    best = plain_loss(logits * sureness / found, labels.astype(float), target)
    for other in (found * 0.97, found * 1.03):
        assert best < plain_loss(logits * sureness / other, labels.astype(float), target)
    assert fit_temperature(logits * sureness, labels, target) == found


def test_unknown_labels_do_not_count():
    logits, labels = made_up(200, 2, MULTI)
    more = np.vstack([logits, [[50, -50]]]), np.vstack([labels, [[NAN, NAN]]])
    assert fit_temperature(*more, MULTI) == pytest.approx(fit_temperature(logits, labels, MULTI))


def test_the_shift_is_not_taken_off_again():
    logits, labels = made_up(300, 1, BINARY)
    shifted = Target("binary", ("a",), shift=(1.5,))
    assert fit_temperature(logits, labels, shifted) == fit_temperature(logits, labels, BINARY)


def test_separable_labels_stop_at_the_end_of_the_range():
    logits = np.array([[-3.0], [-1], [1], [3]])
    labels = (logits > 0).astype(float)
    assert fit_temperature(logits, labels, BINARY) == pytest.approx(RANGE[0], rel=1e-3)
    assert fit_temperature(-logits, labels, BINARY) == pytest.approx(RANGE[1], rel=1e-3)


@pytest.mark.parametrize(("logits", "labels", "target"), [
    ([[0.3], [1.2]], [[3.0], [4.0]], Target("regression", ("a",), mean=(0.0,), std=(1.0,))),
    (np.zeros((0, 1)), np.zeros((0, 1)), BINARY),
    ([[0.3], [1.2]], [[1], [1]], BINARY),
    ([[0.3], [1.2]], [[NAN], [1]], BINARY),
    ([[0.0], [0.0]], [[0], [1]], BINARY),
    ([[0.3, 2, 1], [1.2, 0, 1]], np.full((2, 3), NAN), CLASSES),
    ([[0.3, 2, 1], [1.2, 0, 1]], [[1, 0, 0], [1, 0, 0]], CLASSES),
    ([[2.0, 2, 2], [1, 1, 1]], [[1, 0, 0], [0, 1, 0]], CLASSES),
])
def test_nothing_to_fit_gives_none(logits, labels, target):
    assert fit_temperature(np.array(logits), np.array(labels, float), target) is None
