"""The loss, and probabilities that stay probabilities when it is weighted."""

import numpy as np
import pytest
import torch
from helpers import label_scans

from slivit.config import Target
from slivit.models.outputs import to_predictions
from slivit.training.losses import (
    Objective,
    WeightingOptions,
    auto_pos_weight,
    known_count,
    logit_shift,
    loss_sum,
    make_objective,
    row_weights,
)
from slivit.utils.errors import UserError

NAN = float("nan")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4000, 2))
RARE = (RNG.random(4000) < 1 / (1 + np.exp(3.5 - 1.5 * X[:, 0]))).astype(np.float32)[:, None]
BINARY = Target("binary", ("a",))


def test_loss_weighs_positives_and_smooths_labels():
    logits, labels = torch.tensor([[0.5], [-1.0]]), torch.tensor([[1.0], [0.0]])
    plus, minus = np.log1p(np.exp(-0.5)), np.log1p(np.exp(-1.0))
    assert float(loss_sum(logits, labels, Objective(BINARY, (3.0,)))) == pytest.approx(
        3 * plus + minus)
    smooth = float(loss_sum(logits, labels, Objective(BINARY, (), 0.2)))
    wrong = np.log1p(np.exp(0.5)) + np.log1p(np.exp(1.0))
    assert smooth == pytest.approx(0.9 * (plus + minus) + 0.1 * wrong)


def test_soft_classes_are_taken_as_they_are():
    logits = torch.tensor([[2.0, 0.0, 1.0]])
    target = Target("multiclass", ("a", "b", "c"))
    log = torch.log_softmax(logits, dim=1)[0]
    loss = loss_sum(logits, torch.tensor([[0.25, 0.75, 0.0]]), Objective(target))
    assert float(loss) == pytest.approx(float(-0.25 * log[0] - 0.75 * log[1]))


def test_automatic_weights_leave_unknown_labels_out():
    labels = np.array([[1, 0], [0, 0], [0, 1], [NAN, 1], [0, NAN]])
    assert auto_pos_weight(labels) == (3.0, 1.0)
    weights = row_weights(labels[:, :1], BINARY)
    assert weights[0] == pytest.approx(3 * weights[1])
    assert weights.sum() == pytest.approx(1)
    assert weights[3] == weights[1]  # unknown: as one of the many


def train(pos_weight=(), weights=None):
    """Return the logits of a logistic regression, trained until it rests."""
    line = torch.nn.Linear(2, 1).double()
    x, y = torch.from_numpy(X), torch.from_numpy(RARE).double()
    each = torch.ones(len(y)) if weights is None else torch.from_numpy(weights) * len(y)
    optimizer = torch.optim.LBFGS(line.parameters(), max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = sum(loss_sum(line(x[part]), y[part], Objective(BINARY, pos_weight)) * share
                   for part, share in ((y[:, 0] == 1, each[y[:, 0] == 1][0]),
                                       (y[:, 0] == 0, each[y[:, 0] == 0][0])))
        loss.backward()
        return loss
    optimizer.step(closure)
    return line(x).detach().numpy()


@pytest.mark.parametrize("by", ["pos_weight", "sampling", "both"])
def test_weighted_training_predicts_the_true_share(by):
    pos_weight = auto_pos_weight(RARE) if by != "sampling" else ()
    weights = row_weights(RARE, BINARY) if by != "pos_weight" else None
    logits = train(pos_weight, weights)
    raw = to_predictions(logits, BINARY).mean()
    shift = logit_shift(RARE, BINARY, pos_weight, weights)
    found = to_predictions(logits, Target("binary", ("a",), shift=shift)).mean()
    assert raw > 4 * RARE.mean()
    assert found == pytest.approx(RARE.mean(), rel=0.2)
    assert logit_shift(RARE, BINARY) == ()


def test_shift_takes_the_sampling_of_several_classes_off_again():
    hot = np.eye(3, dtype=np.float32)[[0] * 6 + [1] * 3 + [2]]
    target = Target("multiclass", ("a", "b", "c"))
    shift = np.array(logit_shift(hot, target, weights=row_weights(hot, target)))
    assert np.exp(shift) == pytest.approx(np.array([1 / 3, 1 / 3, 1 / 3]) / [0.6, 0.3, 0.1])
    even = to_predictions(np.zeros((1, 3)), Target("multiclass", target.labels,
                                                   shift=tuple(shift)))
    assert even[0] == pytest.approx([0.6, 0.3, 0.1])


def test_known_rows_and_labels_are_counted():
    labels = torch.tensor([[1.0, 0.0], [NAN, 1.0], [NAN, NAN]])
    assert known_count(labels, Target("multilabel", ("a", "b"))) == 3
    assert known_count(labels, Target("multiclass", ("a", "b"))) == 1


@pytest.mark.parametrize(("task", "flags", "message"), [
    ("regression", {"pos_weight": "auto"}, "--pos_weight is for 0/1 labels"),
    ("regression", {"label_smoothing": 0.1}, "--label_smoothing is for 0/1 labels"),
    ("regression", {"balanced_sampling": True}, "--balanced_sampling is for 0/1 labels"),
    ("multiclass", {"pos_weight": 2.0}, "--pos_weight applies to binary and multi-label tasks"),
])
def test_options_that_do_not_go_with_the_task_are_refused(task, flags, message):
    options = WeightingOptions(**flags)
    with pytest.raises(UserError, match=message):
        make_objective(options, label_scans([[0, 1], [1, 0]]), Target(task, ("L0", "L1")))
