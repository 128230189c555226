"""The figures of `--explain`."""

import numpy as np
from PIL import Image

from slivit.explain.figures import draw_explanation
from slivit.explain.heatmaps import ViewSaliency


def test_nothing_is_cut_off_where_slices_are_flat(tmp_path):
    weights, slices = np.full(3, 1 / 3), np.zeros((3, 1, 8, 8), np.uint8)
    for relevance in (weights, None):  # of a volume such as OCT, of an image
        look = ViewSaliency("acquisition", (3, 8, 8), np.arange(3), slices, (1.0, 9.0), weights,
                            relevance, np.ones((3, 1, 1)), 1.0)
        draw_explanation([look], ("scan", "label: predicted 0.5"), tmp_path / "x.png")
        pixels = np.array(Image.open(tmp_path / "x.png").convert("L"))
        for edge in (pixels[:2], pixels[-2:], pixels[:, :2].T, pixels[:, -2:].T):
            assert (edge == 255).all()
