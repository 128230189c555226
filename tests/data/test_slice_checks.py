"""Tables from which bb_train.py --task ssl has nothing to learn are refused."""

import numpy as np
import pytest
from helpers import train_without_labels, write_image, write_meta

from slivit.utils.errors import UserError


def one_slice(folder):
    """Volumes of one slice each."""
    for k in range(6):
        np.save(folder / f"{k}.npy", np.arange(1600).reshape(1, 40, 40))
    return {"Path": [f"{k}.npy" for k in range(6)], "Split": ["train"] * 4 + ["val"] * 2}


def grey(folder):
    """Images of one grey value."""
    for k in range(6):
        write_image(folder / f"{k}.png", np.full((40, 40), 9 * k, np.uint8))
    return {"Path": [f"{k}.png" for k in range(6)], "Split": ["train"] * 4 + ["val"] * 2}


def grey_validation(folder):
    """Images of which those of validation have one grey value."""
    table = grey(folder)
    for k in range(4):
        write_image(folder / table["Path"][k], np.arange(1600).reshape(40, 40).astype(np.uint8))
    return table


def all_kept_out(folder):
    """Images of patients in validation and test."""
    return grey(folder) | {"Split": ["", "", "val", "val", "test", "test"], "pid": list("abbbaa")}


def one_varied_slice(folder):
    """Volumes of which one slice shows something, so that neighbours have nothing to show."""
    volume = np.zeros((4, 40, 40))
    volume[1] = np.arange(1600).reshape(40, 40)
    for k in range(6):
        np.save(folder / f"{k}.npy", volume)
    return {"Path": [f"{k}.npy" for k in range(6)], "Split": ["train"] * 4 + ["val"] * 2}


def one_to_learn_from(folder):
    """An image in training, one in validation."""
    return {name: column[3:5] for name, column in grey(folder).items()}


@pytest.mark.parametrize(("make", "message"), [
    (one_slice, "all 6 volumes have one slice, but the two views of a pair are of neighbouring"),
    (grey, "all 4 scans to learn from have one grey value in the window percentile"),
    (grey_validation, "all 2 scans of validation have one grey value in the window percentile"),
    (all_kept_out, "no scan is left to learn from: 4 scans of 2 patients in validation and test, "
                   "and 2 scans without a split, of the same patients or files, are kept out"),
    (one_to_learn_from, "(?s)1 image in the split train, expected at least 2.*1 image in the split "
                        "val"),
])
def test_scans_that_teach_nothing_are_refused(make, message, tmp_path):
    columns = make(tmp_path)
    table = write_meta(tmp_path / "t.csv", F_Name=range(len(columns["Path"])), **columns)
    with pytest.raises(UserError, match=message):
        train_without_labels(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("val", "options", "message"), [
    (2, ("--b_size", "1"), "4 scans to learn from, alone in a batch, with a single slice that "
                           "shows anything: 0, 1, 2, 3. .*: omit --b_size, or give more"),
    (1, (), "1 scan of validation, alone in a batch, with a single slice that shows anything: 5. "
            ".*: put more scans into the split val")])
def test_a_batch_of_one_that_headers_do_not_tell_is_refused(val, options, message, tmp_path):
    columns = one_varied_slice(tmp_path)
    columns["Split"] = ["train"] * (6 - val) + ["val"] * val
    table = write_meta(tmp_path / "t.csv", F_Name=range(6), **columns)
    with pytest.raises(UserError, match=message):
        train_without_labels(table, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
