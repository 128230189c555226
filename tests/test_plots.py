"""The pictures: one of each kind, and none where there is nothing to show."""

import numpy as np
import pytest
from PIL import Image

from slivit.config import Target
from slivit.metrics import evaluate
from slivit.plots import plot_scores

TRUTH = np.array([[0, 1], [1, 1], [0, np.nan], [1, 1]])
PRED = np.array([[0.2, 0.9], [0.7, 0.8], [0.2, 0.1], [0.2, 0.3]])


@pytest.mark.parametrize(("target", "truth", "expected"), [
    (Target("multilabel", ("cost in $a^$", "one class")), TRUTH,
     ["roc.png", "pr.png", "calibration.png"]),
    (Target("regression", ("a", "b")), TRUTH, ["scatter.png"]),
    (Target("multilabel", ("a", "b")), TRUTH[:, [1, 1]], []),
])
def test_plots_of_a_task(tmp_path, target, truth, expected):
    metrics = evaluate(truth, PRED, target, list("wxyz"), "test", n_boot=20)
    files = plot_scores(truth, PRED, target, metrics, tmp_path)
    assert [path.name for path in files] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    for path in files:
        with Image.open(path) as picture:
            assert np.unique(np.array(picture.convert("L"))).size > 20
