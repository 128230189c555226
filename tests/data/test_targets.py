"""Which task a table asks for, its loss, and its predictions."""

import numpy as np
import pytest
import torch
from helpers import label_scans

from slivit.config import Target
from slivit.data.targets import (
    check_splits,
    check_validation,
    expand_classes,
    fit_to_target,
    resolve_task,
)
from slivit.models.outputs import to_predictions
from slivit.training.losses import Objective, known_count, loss_sum
from slivit.utils.errors import UserError

NAN = float("nan")


def mean_loss(logits, labels, target):
    """Return the loss as a step of training minimises it."""
    return loss_sum(logits, labels, Objective(target)) / max(1, known_count(labels, target))


@pytest.mark.parametrize(("labels", "task"), [
    ([[0], [1], [NAN]], "binary"),
    ([[0, 1], [1, 0], [1, 1]], "multilabel"),
    ([[0.5], [1], [2]], "regression"),
])
def test_task_is_found_by_the_labels(labels, task):
    assert resolve_task(label_scans(labels))[1].task == task


def test_source_says_the_task():
    one_hot = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    scans = label_scans(one_hot, task="multiclass")
    assert resolve_task(scans)[1].task == "multiclass"
    assert resolve_task(scans.select_labels(["L0"]))[1].task == "binary"
    assert resolve_task(scans.select_labels(["L0", "L2"]))[1].task == "multilabel"


def test_binary_takes_one_column():
    with pytest.raises(UserError, match="found 2 label columns .L0, L1."):
        resolve_task(label_scans([[0, 1], [1, 0]]), "binary")


def test_column_of_class_numbers_becomes_one_column_a_class():
    scans, target = resolve_task(label_scans([[2], [0], [NAN], [5]]), "multiclass")
    assert target.labels == scans.label_names == ("L0_0", "L0_2", "L0_5")
    assert scans.labels[[0, 1, 3]].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert np.isnan(scans.labels[2]).all()


def test_class_numbers_are_whole_and_known():
    with pytest.raises(UserError, match="class numbers 0, 1, 2, ..., found -1, 0.5"):
        expand_classes(label_scans([[-1], [0.5]]), "L0")
    target = resolve_task(label_scans([[0], [1]]), "multiclass")[1]
    with pytest.raises(UserError, match="classes that the model does not know: L0_7"):
        fit_to_target(label_scans([[0], [7]]), target)


def test_trained_classes_fit_a_column_of_another_case():
    target = resolve_task(label_scans([[0], [1], [2]]), "multiclass")[1]
    other = fit_to_target(label_scans([[2], [2]], label_names=("l0",)), target)
    assert other.labels.tolist() == [[0, 0, 1], [0, 0, 1]]


def test_rows_that_are_not_one_hot_are_listed():
    labels = [[1, 0], [1, 1], [0, 1], [0, 0], [NAN, NAN]]
    with pytest.raises(UserError, match="exactly one 1 among L0, L1; 2 rows differ") as error:
        resolve_task(label_scans(labels), "multiclass")
    assert "r1: 1, 1" in str(error.value)
    assert "r3: 0, 0" in str(error.value)


def test_labels_that_are_not_zero_or_one_are_listed():
    with pytest.raises(UserError, match="1 labels are not 0, 1 or empty:\n  r1: L1 = 2"):
        resolve_task(label_scans([[0, 1], [1, 2], [NAN, 0]]), "multilabel")


def test_label_without_both_values_in_training_is_refused():
    labels = [[0, 0, 1], [1, 0, 1], [1, 1, NAN], [0, 1, 0]]
    with pytest.raises(UserError, match="cannot be learned from the training split") as error:
        resolve_task(label_scans(labels, ["train", "train", "val", "val"]))
    assert "L1: no positives" in str(error.value)
    assert "L2: no negatives" in str(error.value)
    assert "L0" not in str(error.value) and "--train_fraction" not in str(error.value)


def test_label_without_both_values_in_a_share_of_training_names_the_share():
    labels = [[0], [1], [0], [0]]
    with pytest.raises(UserError, match="no positives\nSplit differently, or raise "
                                        "--train_fraction"):
        resolve_task(label_scans(labels, ["train", "unused", "train", "val"]))


def test_label_without_both_values_in_test_is_a_warning(messages):
    resolve_task(label_scans([[0], [1], [0]], ["train", "train", "test"]))
    assert [text for text in messages if "warning" in text] == [
        "warning: L0 has no positives in test: its scores there are left empty"]


def test_constant_regression_label_is_refused():
    with pytest.raises(UserError, match="fewer than two different values in the training split"):
        resolve_task(label_scans([[3.5], [3.5], [4]], ["train", "train", "val"]), "regression")


def test_empty_splits_are_named_with_the_sizes_of_the_others():
    scans = label_scans([[0], [1], [0]], ["train", "train", "test"])
    with pytest.raises(UserError, match="no rows in the split val; found train 2, val 0, test 1"):
        check_splits(scans, ("train", "val"))


def test_validation_without_a_label_cannot_choose_an_epoch():
    scans = label_scans([[0], [1], [np.nan]], ["train", "train", "val"])
    with pytest.raises(UserError, match="none of the 1 scans in the split val has a label of L0"):
        check_validation(scans)
    check_validation(label_scans([[0, np.nan], [np.nan, 1]], ["train", "val"]))


@pytest.mark.parametrize(("task", "expected"), [
    ("multilabel", (np.log1p(np.exp(-2)) + np.log1p(np.exp(1)) + np.log1p(np.exp(-0.5))) / 3),
    ("regression", (3 ** 2 + 2.25 ** 2 + 1.5 ** 2) / 3),
])
def test_unknown_labels_count_neither_in_loss_nor_in_gradient(task, expected):
    logits = torch.tensor([[2.0, 1.0], [9.0, 0.5]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0], [NAN, 1.0]])
    target = Target(task, ("a", "b"), mean=(3.0, 5.0), std=(2.0, 4.0))
    loss = mean_loss(logits, labels, target)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected)
    assert (logits.grad != 0).tolist() == [[True, True], [False, True]]


def test_multiclass_loss_leaves_unknown_rows_out():
    logits = torch.tensor([[2.0, 1.0, 0.0], [9.0, 0.5, 1.0]], requires_grad=True)
    labels = torch.tensor([[0.0, 1.0, 0.0], [NAN] * 3])
    loss = mean_loss(logits, labels, Target("multiclass", ("a", "b", "c")))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(np.log(np.exp([2, 1, 0]).sum()) - 1)
    assert not logits.grad[1].any()


@pytest.mark.parametrize("task", ["multilabel", "multiclass", "regression"])
def test_batch_without_any_known_label_has_loss_zero(task):
    logits = torch.ones(2, 2, requires_grad=True)
    target = Target(task, ("a", "b"), mean=(0.0, 0.0), std=(1.0, 1.0))
    loss = mean_loss(logits, torch.full((2, 2), NAN), target)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_regression_is_standardised_by_training_and_back():
    scans, target = resolve_task(label_scans([[100.0], [104.0], [NAN], [900.0]],
                                             ["train", "train", "train", "val"]), "regression")
    assert (target.mean, target.std) == ((102.0,), (2.0,))
    exact = torch.tensor([[-1.0], [1.0]])
    assert float(mean_loss(exact, torch.from_numpy(scans.labels[:2]), target)) == 0
    assert to_predictions(exact.numpy(), target).tolist() == [[100.0], [104.0]]


def test_predictions_are_probabilities():
    logits = np.array([[0.0, 2.0], [-700.0, 3.0]])
    alone = to_predictions(logits, Target("multilabel", ("a", "b")))
    assert alone[0].tolist() == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    shared = to_predictions(logits, Target("multiclass", ("a", "b")))
    assert shared.sum(axis=1).tolist() == pytest.approx([1, 1])
    assert shared[0, 0] == pytest.approx(1 / (1 + np.exp(2)))


def test_mixed_columns_are_not_guessed_at():
    scans = label_scans([[0, 61.5], [1, 70], [1, 48]])
    with pytest.raises(UserError, match="L0 contain only 0 and 1, L1 also other numbers"):
        resolve_task(scans)
    assert resolve_task(scans, "regression")[1].task == "regression"
