"""The worst errors: which, what is said of them, and what is drawn."""

import numpy as np
import pytest
from helpers import array_scans, preprocess
from PIL import Image
from report_samples import sample_strips

from slivit.config import Target
from slivit.explain.cases import ExplainedCase
from slivit.metrics.operating_point import Threshold
from slivit.prediction import Prediction
from slivit.report.evaluation import EvaluationResult
from slivit.report.worst_errors import worst_cases

NAN = np.nan


@pytest.fixture
def find(tmp_path):
    """Return the cases of labels and predictions; the scans get brighter from row to row."""
    def call(task, labels, pred, thresholds=None, count=5, rows=None, explained=()):
        labels = np.array(labels, dtype=np.float32)
        volumes = np.zeros((len(labels), 10, 8, 8), np.uint8)
        volumes += (20 * np.arange(len(labels), dtype=np.uint8))[:, None, None, None]
        scans = array_scans(volumes, labels, patients=tuple(f"P{i}" for i in range(len(labels))))
        target = Target(task, tuple("abcde"[:labels.shape[1]]))
        rows = np.arange(len(labels)) if rows is None else np.array(rows)
        predicted = Prediction(np.array(pred, dtype=float)[rows], np.zeros(len(rows), dtype=bool))
        measured = EvaluationResult(scans, rows, target, "test", predicted, thresholds)
        return worst_cases(measured, preprocess(8), tmp_path / "worst", count,
                           explained)
    return call


def test_binary_errors_are_measured_from_the_threshold(find):
    labels, pred = [[1], [0], [1], [0], [NAN]], [[0.15], [0.5], [0.9], [0.1], [0.0]]
    cases = find("binary", labels, pred, [Threshold("youden", 0.2, "validation")])
    assert [case.title for case in cases] == [
        "r1: false positive for a", "r0: false negative for a"]  # 0.3 of 0.8, 0.05 of 0.2
    assert cases[1].facts == (("Truth", "1"), ("Predicted", "0.150"), ("Threshold", "0.200"),
                              ("Patient", "P0"))
    assert [case.title for case in find("binary", labels, pred)] == [
        "r0: false negative for a", "r1: false positive for a"]  # of 0.5


def test_labels_take_turns_and_a_scan_is_shown_once(find):
    labels, pred = [[1, 0], [1, 0], [0, 1]], [[0.1, 0.9], [0.2, 0.6], [0.0, 0.4]]
    assert [case.title for case in find("multilabel", labels, pred, count=2)] == [
        "r0: false negative for a", "r1: false negative for a"]
    assert len(find("multilabel", labels, pred)) == 3


def test_the_surest_wrong_class_comes_first(find):
    cases = find("multiclass", np.eye(3)[[0, 1, 2]], [[.3, .4, .3], [.1, .2, .7], [0, 0, 1]])
    assert [case.title for case in cases] == ["r1: b predicted as c", "r0: a predicted as b"]


def test_regression_ranks_by_error_in_the_unit_of_the_label(find):
    cases = find("regression", [[10], [20], [NAN]], [[13], [12.5], [99]])
    assert [case.title for case in cases] == ["r1: a 7.5 too low", "r0: a 3 too high"]


def test_the_picture_shows_the_named_scan_in_the_grey_values_of_the_model(find):
    case, = find("binary", [[1], [1]], [[0.9], [0.1]], rows=[0, 1])
    with Image.open(case.picture) as picture:
        assert picture.size == (4 * 164 - 4, 2 * 164 - 4)  # 8 slices in two rows
        assert picture.convert("L").getpixel((80, 80)) == 20


def test_all_slices_that_the_model_saw_can_be_scrolled(find):
    case, = find("binary", [[1]], [[0.1]])
    view, = case.strips.views
    assert view.numbers == (1, 2, 4, 5, 6, 7, 9, 10) and view.count == 10
    assert view.heats == () and view.weights == ()


def test_an_error_that_is_explained_has_its_heat_map(find, tmp_path):
    strips = sample_strips()
    explained = [ExplainedCase(row, label, "", (), tmp_path, strips) for row, label in
                 ((0, "b"), (1, "a"), (2, "c"))]
    cases = find("multiclass", np.eye(3)[[0, 1, 0]], [[.3, .4, .3], [.1, .2, .7], [.1, .2, .7]],
                 explained=explained)
    assert [(case.title[:2], case.strips is strips) for case in cases] == [
        ("r1", False), ("r2", True), ("r0", True)]  # r1 is explained for another class
