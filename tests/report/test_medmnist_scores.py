"""MedMNIST's AUC and ACC: the numbers of its own Evaluator, for whole splits only."""

import dataclasses

import numpy as np
import pytest
from helpers import write_medmnist
from medmnist import INFO, Evaluator

from slivit.data.named_sets import load_named
from slivit.data.splits import take_fraction
from slivit.data.targets import resolve_task
from slivit.metrics.medmnist_scores import medmnist_scores
from slivit.prediction import Prediction
from slivit.report import evaluation
from slivit.report.evaluation import EvaluationResult, ReportOptions, find_scores, keep_labels
from slivit.report.tables import score_tables
from slivit.report.terminal import format_scores

COUNTS = (30, 28, 42)  # of train, val and test


def load(folder, flag):
    """Return a made-up file of a set in its true format, as scans and target."""
    ndim, several = 3 if flag.endswith("3d") else 2, INFO[flag]["task"].startswith("multi-label")
    n_classes = len(INFO[flag]["label"])
    shape = (28,) * ndim + ((3,) if INFO[flag]["n_channels"] == 3 and ndim == 2 else ())
    path = write_medmnist(folder / f"{flag}.npz", COUNTS, shape, 2 if several else n_classes,
                          n_classes if several else 1)
    if several:  # so that each label has both values
        arrays, rng = dict(np.load(path)), np.random.default_rng(0)
        arrays |= {key: rng.integers(0, 2, array.shape, dtype=np.uint8)
                   for key, array in arrays.items() if key.endswith("labels")}
        np.savez(path, **arrays)
    return resolve_task(load_named(flag, ndim, folder))


def predict(scans, target, split):
    """Return made-up predictions of a split, some of them exactly 0.5."""
    rows, rng = scans.rows(split), np.random.default_rng(1)
    pred = rng.random((len(rows), len(target.labels)))
    if target.task == "multiclass":
        pred /= pred.sum(axis=1, keepdims=True)
    else:
        pred[:4] = 0.5
    return EvaluationResult(scans, rows, target, split,
                            Prediction(pred, np.zeros(len(rows), dtype=bool)),
                            [None] * len(target.labels))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Have the other scores without intervals."""
    whole = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate",
                        lambda *given, **named: whole(*given, **named, n_boot=2))


@pytest.mark.parametrize("flag", ["nodulemnist3d", "organmnist3d", "chestmnist", "retinamnist"])
def test_scores_are_those_of_medmnist(flag, tmp_path):
    measured = predict(*load(tmp_path, flag), "val" if flag == "chestmnist" else "test")
    metrics = find_scores(measured, ReportOptions())
    expected = Evaluator(flag, measured.split, root=str(tmp_path)).evaluate(measured.predicted.pred)
    assert metrics["medmnist"] == {"task": INFO[flag]["task"], "auc": expected.AUC,
                                   "acc": expected.ACC}
    assert metrics["labels"][measured.target.labels[0]]["roc_auc"] is not None
    line = f"as MedMNIST's Evaluator computes them: AUC {expected.AUC:.3f}, ACC {expected.ACC:.3f}"
    assert line in format_scores(metrics)
    table = next(one for one in score_tables(metrics) if "MedMNIST" in one.caption)
    assert [[str(cell) for cell in row] for row in table.rows] == [
        ["AUC", f"{expected.AUC:.3f}"], ["ACC", f"{expected.ACC:.3f}"]]
    assert ("at a probability of 0.5" in table.notes[0]) == (flag in ("nodulemnist3d",
                                                                      "chestmnist"))


def test_only_whole_splits_with_all_labels_have_them(tmp_path):
    scans, target = load(tmp_path, "organmnist3d")
    measured = predict(scans, target, "test")
    some = keep_labels(measured, list(target.labels[:3]))
    regression = dataclasses.replace(measured, target=dataclasses.replace(target,
                                                                          task="regression"))
    part = dataclasses.replace(predict(scans, target, "train"),
                               rows=take_fraction(scans, 0.5, 0).rows("train"))
    fold = predict(dataclasses.replace(scans, split=np.roll(scans.split, 1)), target, "test")
    table = dataclasses.replace(measured, scans=dataclasses.replace(scans, published=None))
    for other in (some, regression, part, fold, table, predict(scans, target, "all")):
        assert not evaluation.is_published_split(other)
    assert evaluation.is_published_split(measured)
    assert "medmnist" not in find_scores(some, ReportOptions())
    assert "MedMNIST" not in format_scores(find_scores(some, ReportOptions()))


@pytest.mark.parametrize(("truth", "acc"), [([[1], [1], [1]], 2 / 3), ([[1]], None)])
def test_what_is_not_defined_is_none(truth, acc):
    pred = np.array([[0.9], [0.2], [0.7]])[:len(truth)]
    assert medmnist_scores(np.array(truth), pred, "binary-class") == {"auc": None, "acc": acc}
