"""What the terminal says: few lines, none of them long."""

import logging

import numpy as np
import pytest
from helpers import label_scans

from slivit.config import Target
from slivit.data.scan_table import summarise
from slivit.data.targets import describe_task
from slivit.metrics.evaluation import evaluate
from slivit.metrics.operating_point import Threshold
from slivit.report.terminal import format_scores
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
                                        "labels; 2 auxiliary labels are also learned")


def test_lines_are_wrapped_between_words():
    text = f"first\n{'word ' * 60}\n  {'x' * 200} end"
    lines = Wrapped("%(message)s").format(logging.makeLogRecord({"msg": text})).splitlines()
    assert lines[0] == "first"
    assert max(len(line) for line in lines if "x" not in line) <= WIDEST
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
