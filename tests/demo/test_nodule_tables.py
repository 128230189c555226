"""The embedded nodules as files, with labels made of ratings."""

import numpy as np
import pandas as pd
import pytest

from demo import nodule_tables
from slivit.data.meta_csv import read_meta
from slivit.data.named_sets import DATA_DIR
from slivit.utils.errors import UserError

EVERY = 90  # only so many nodules are written


@pytest.fixture
def few(monkeypatch):
    read = nodule_tables._read

    def read_few(name):
        scans, table = read(name)
        return scans[::EVERY], table[::EVERY].reset_index(drop=True)

    monkeypatch.setattr(nodule_tables, "_read", read_few)


def test_tables_are_read_as_written_and_hold_no_test_patient_as_an_image(tmp_path, few):
    nodule_tables.main([str(tmp_path)])
    images, volumes = (read_meta(tmp_path / f"{name}.csv", ndim)
                       for name, ndim in (("images", 2), ("volumes", 3)))
    rated = pd.read_csv(DATA_DIR / "noduleshapes3d.csv", dtype=str).set_index("nodule")
    assert len(volumes) == -(-len(rated) // EVERY)
    assert set(images.split) == {"train", "val"} and set(volumes.split) == {"train", "val", "test"}
    assert images.label_names == volumes.label_names and len(images.label_names) == 27
    for name, label in zip(volumes.ids, volumes.labels, strict=True):
        assert label[0] == int(rated.loc[name, "malignant"])
        assert label[1:7].sum() == sum(float(rated.loc[name, "malignancy"]) > cut
                                       for cut in nodule_tables.CUTS["malignancy"])
    volume = volumes.read(0).slices
    name = volumes.ids[0]
    of_first = [row for row, image in enumerate(images.ids) if image.startswith(f"{name}_")]
    assert 9 <= len(of_first) <= 12
    for row in of_first:
        place, axis = map(int, images.ids[row].removeprefix(f"{name}_").split("_"))
        assert np.array_equal(images.read(row).slices[0], np.moveaxis(volume, axis, 0)[place])
    with pytest.raises(UserError, match="is not empty"):
        nodule_tables.main([str(tmp_path)])


def test_chosen_slices_are_spread_over_the_nodule():
    slices = np.zeros((28, 4, 4), np.uint8)
    slices[10:19, 0, 0], slices[11, :2] = 9, 9
    assert nodule_tables.choose_slices(slices, 0) == [11]
    assert nodule_tables.choose_slices(slices, 3) == [11, 12, 14, 16]
