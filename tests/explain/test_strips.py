"""The strips of the report's viewer: that each slice and its heat are where the viewer looks."""

import base64
import dataclasses
import io
import json

import numpy as np
from PIL import Image
from report_samples import sample_look, sample_strips

from slivit.explain import strips
from slivit.explain.heatmaps import ViewSaliency
from slivit.explain.strips import make_strips

RNG = np.random.default_rng(0)


def decoded(uri):
    """Return format and picture of a data URI."""
    head, content = uri.split(",")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == f"data:image/{picture.format.lower()};base64"
    return picture.format, picture


def noise(count, height, width, channels=1):
    """Return a look at noise in which nothing was explained."""
    slices = RNG.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return ViewSaliency("acquisition", (count, height, width), np.arange(count), slices,
                        (height, width))


def test_each_slice_lies_in_its_strip(monkeypatch):
    monkeypatch.setattr(strips, "TALLEST", 130)
    look = noise(5, 50, 40)
    look.slices[:] = RNG.integers(0, 256, (5, 1, 1, 40), dtype=np.uint8)  # stripes: PNG is smaller
    view = make_strips([look]).views[0]
    assert (view.width, view.height, view.pitch, view.per_strip) == (40, 50, 64, 2)
    pictures = [np.asarray(decoded(uri)[1]) for uri in view.slices]
    assert [len(picture) for picture in pictures] == [128, 128, 64]
    for i in range(5):
        start = i % 2 * 64
        shown = pictures[i // 2][start:start + 50]
        assert np.array_equal(shown, look.slices[i, 0])


def test_small_scans_are_not_changed_and_noise_is_packed_hard():
    kind, picture = decoded(make_strips([sample_look()]).views[0].slices[0])
    assert kind == "PNG" and np.asarray(picture)[::48, 0].tolist() == [20, 40, 60, 80, 100]
    uri = make_strips([noise(28, 256, 256)]).views[0].slices[0]
    kind, picture = decoded(uri)
    assert kind == "JPEG" and picture.size == (256, 28 * 256)
    assert len(uri) * 3 / 4 < 0.2 * 28 * 256 ** 2


def test_colour_stays_colour():
    look = noise(2, 32, 32, 3)
    look.slices[:] = np.array([200, 100, 30])[:, None, None]
    assert decoded(make_strips([look]).views[0].slices[0])[1].getpixel((9, 40)) == (200, 100, 30)


def test_heat_is_opaque_where_it_is_strong_and_weighted():
    view = make_strips([sample_look()]).views[0]
    heat = np.asarray(decoded(view.heats[0])[1].convert("RGBA"))
    assert heat.shape == (5 * view.heat_height, view.heat_width, 4)
    alpha = heat[..., 3].reshape(5, view.heat_height, view.heat_width)
    assert alpha[4, :, 0].min() == 255 and alpha[:, :, -1].max() == 0
    assert np.allclose(alpha[0, 0, 0] / 255, (1 / 5) / 0.6, atol=0.01)  # a fifth of the weight


def test_numbers_and_the_first_slice_shown():
    scan = sample_strips()
    assert [view.numbers for view in scan.views] == [(1, 3, 5, 7, 9), (1, 3, 5)]
    assert [view.count for view in scan.views] == [10, 6]
    assert scan.start == 7  # the last of the second view has a weight of 3/6
    plain = sample_strips(explained=False)
    assert plain.start == 2 and plain.views[0].heats == plain.views[0].weights == ()
    assert json.loads(json.dumps(dataclasses.asdict(scan)))["views"][1]["name"] == "coronal"
