"""The pictures: one of each kind, and none where there is nothing to show."""

import numpy as np
import pytest
from PIL import Image
from report_samples import binary_scores, draw_data, metrics_of

from slivit.config import Target
from slivit.report.plots import curves as plot_curves
from slivit.report.plots.curves import Column
from slivit.report.plots.draw import plot_scores

CURVES = ["roc.png", "pr.png", "calibration.png"]
ONE_CLASS = Target("multilabel", ("a", "b"))


@pytest.mark.parametrize(("target", "point", "expected"), [
    (Target("multilabel", ("cost in $a^$", "b")), True, [*CURVES, "confusion.png"]),
    (Target("multilabel", tuple(f"label {k}" for k in range(27))), True,
     [*CURVES, "confusion.png"]),
    (Target("binary", ("a",)), False, CURVES),
    (Target("multiclass", ("a", "b", "$c")), False, [*CURVES, "confusion.png"]),
    (Target("regression", ("a", "b", "c", "d")), False, ["scatter.png", "bland_altman.png"]),
])
def test_every_task_has_its_plots(tmp_path, target, point, expected):
    truth, pred = draw_data(target, 80)
    metrics = metrics_of(target, truth, pred, point)
    files = plot_scores(truth, pred, target, metrics, tmp_path)
    assert [path.name for path in files] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    for path in files:
        with Image.open(path) as picture:
            grey = np.array(picture.convert("L"))
            assert np.unique(grey).size > 20
            assert grey[0].min() == grey[-1].min() == 255  # nothing is cut off


def test_a_label_of_one_class_has_no_curves(tmp_path):
    truth, pred = np.ones((4, 2)), np.full((4, 2), 0.7)
    metrics = metrics_of(ONE_CLASS, truth, pred)
    assert plot_scores(truth, pred, ONE_CLASS, metrics, tmp_path) == []


def test_the_operating_point_is_marked(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot_curves, "save_figure", lambda figure, path: drawn.append(figure))
    truth, pred = draw_data(Target("binary", ("a",)), 80)
    truth, pred = truth[~np.isnan(truth)], pred[~np.isnan(truth)]
    scores = binary_scores(truth, pred)
    plot_curves.plot_roc([Column("a", truth, pred, scores)], "", tmp_path / "roc.png")
    curve, dot, _ = drawn[0].axes[0].get_lines()
    point = scores["operating_point"]
    assert [values[0] for values in dot.get_data()] == [1 - point["specificity"],
                                                        point["sensitivity"]]
    assert dot.get_color() == curve.get_color()


def test_calibration_before_and_after_stand_side_by_side(tmp_path):
    truth, pred = np.tile([0.0, 1.0], 40), np.linspace(0.1, 0.9, 80)
    widths = []
    for before in (None, pred ** 2):
        column = Column("a", truth, pred, {"brier": 0.25}, before)
        plot_curves.plot_calibration([column], "", tmp_path / "calibration.png")
        with Image.open(tmp_path / "calibration.png") as picture:
            widths.append(picture.width)
    assert widths[1] > 1.5 * widths[0]
