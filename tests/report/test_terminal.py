"""What the terminal says: few lines, none of them long."""

import logging

import numpy as np
import pytest
from helpers import label_scans

from slivit.config import Target
from slivit.data.summary import summarise
from slivit.data.targets import describe_task
from slivit.metrics.comparison import compare
from slivit.metrics.evaluation import evaluate
from slivit.metrics.operating_point import Threshold
from slivit.report.terminal import format_comparison, format_groups, format_scores
from slivit.utils.log import WIDEST, Wrapped

RNG = np.random.default_rng(0)


def scores_of(count):
    names = tuple(f"{'finding' * 6}_{k}" for k in range(count))
    truth = RNG.integers(0, 2, (60, count)).astype(float)
    pred = np.clip(truth * np.linspace(0, 0.9, count) + RNG.random((60, count)) * 0.3, 0, 1)
    return evaluate(truth, pred, Target("multilabel" if count > 1 else "binary", names),
                    list(map(str, range(60))), n_boot=20,
                    thresholds=[Threshold("youden", 0.123456, "validation")] * count)


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (6, 6), (7, 6), (27, 6)])
def test_of_many_labels_the_best_and_the_worst_are_shown(count, shown):
    metrics = scores_of(count)
    lines = format_scores(metrics).splitlines()
    table = lines[1:lines.index("")]
    assert len([line for line in table if line.lstrip().startswith("finding")]) == shown
    assert any("report.html has all" in line for line in table) == (count > 6)
    assert any(line.lstrip().startswith("mean ") for line in table) == (count > 1)
    assert max(map(len, lines)) <= WIDEST
    ranked = sorted(metrics["labels"], key=lambda name: -metrics["labels"][name]["roc_auc"])
    values = [f"{metrics['labels'][name]['roc_auc']:.3f}" for name in ranked]
    if count > 6:
        found = [line.split()[3] for line in table if line.lstrip().startswith("finding")]
        assert found == values[:3] + values[-3:]


def test_many_labels_without_a_score_are_named_so():
    metrics = scores_of(9)
    for k, scores in enumerate(metrics["labels"].values()):
        scores["roc_auc"] = 0.7 if k == 2 else None
    assert "those with a score; report.html has all 9 labels" in format_scores(metrics)
    next(iter([one for one in metrics["labels"].values() if one["roc_auc"]]))["roc_auc"] = None
    assert "the first 6; none has a score; report.html has all 9" in format_scores(metrics)


def test_large_numbers_stay_apart():
    scores = {"n": 5, "r2": 0.997, "mae": 935993.4, "mae_ci": [635958.1, 11190396.2]}
    line = format_groups({"column": "site", "groups": {"a": {"n": 5, "labels": {"age": scores}}}})
    assert "0.997  935,993 (635,958 to 11,190,396)" in line


@pytest.mark.parametrize(("count", "lines"), [(2, 1 + 2 * 2), (9, 1 + 2 + 1)])
def test_groups_with_many_labels_have_a_line_each(count, lines):
    part = scores_of(count)
    text = format_groups({"column": "site", "groups": {"a": part, "b": part}}).splitlines()
    assert len(text) == lines
    assert max(map(len, text)) <= WIDEST
    assert (text[-1] == "  means over labels; report.html has each label") == (count == 9)


def test_of_many_labels_those_that_differ_most_are_compared():
    names = [f"{'finding' * 6}_{k}" for k in range(9)]
    truth = RNG.integers(0, 2, (60, 9)).astype(float)
    preds = [np.clip(truth * shift + RNG.random((60, 9)), 0, 2) for shift in (
        np.full(9, 0.5), np.linspace(0, 1, 9))]
    rows = compare(truth, preds, ["a/" * 90 + "fold_1", "b/" * 90 + "fold_2"],
                   Target("multilabel", tuple(names)), list(map(str, range(60))), 0, 20)
    text = format_comparison(rows).splitlines()
    assert len(text) == 1 + 6 * 2 + 1
    assert max(map(len, text)) <= WIDEST
    assert text[1].split()[2].endswith("fold_1,")
    assert "the 6 labels that differ most; report.html has all 9" in text[-1]


def test_models_of_one_file_name_are_told_apart_by_their_folders():
    truth = RNG.integers(0, 2, (60, 1)).astype(float)
    names = [f"{folder}/slivit.safetensors" for folder in ("without", "with")]
    rows = compare(truth, [truth, truth], names, Target("binary", ("y",)),
                   list(map(str, range(60))), 0, 20)
    assert " without, with " in format_comparison(rows)


def test_the_cohort_is_a_table():
    scans = label_scans([[0, 2.5], [1, 3.5], [np.nan, 1], [1, np.nan]],
                        ["train", "train", "val", "test"], patients=("a", "a", "b", "c"))
    assert summarise(scans).splitlines() == [
        "made up: 4 images",
        "  split  scans  patients      L0           L1",
        "  train      2         1  1 of 2  mean 3 of 2",
        "  val        1         1  0 of 0  mean 1 of 1",
        "  test       1         1  1 of 1       0 of 0"]
    many = label_scans(np.zeros((2, 27)), ["train", "test"])
    assert summarise(many).splitlines() == ["made up: 2 images, 27 labels", "  split  scans",
                                            "  train      1", "  test       1"]


def test_a_task_of_many_labels_is_a_line():
    target = Target("multilabel", tuple("abcdefghi"))
    assert describe_task(target, 2) == ("task: multilabel, predicting a, b, c, d, e, f and 3 more "
                                        "labels; also learned: 2 auxiliary labels")
    assert describe_task(Target("binary", ("x" * 200,)), 1) == (
        f"task: binary, predicting {'x' * 11}…{'x' * 12}; also learned: 1 auxiliary label")


def test_lines_are_wrapped_between_words():
    text = f"first\n{'word ' * 60}\n  {'x' * 200} end"
    lines = Wrapped("%(message)s").format(logging.makeLogRecord({"msg": text})).splitlines()
    assert lines[0] == "first"
    assert max(len(line) for line in lines if "x" not in line) <= WIDEST
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
