"""Which rows are train, val and test."""

import numpy as np
import pytest
from helpers import write_meta

from slivit.data.meta_csv import read_meta
from slivit.data.ratio import parse_ratio
from slivit.data.splits import Splitting, fill_in, split_by_group
from slivit.utils.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a table of these paths and further columns."""
    def from_columns(paths, **columns):
        options = {key: columns.pop(key) for key in ("seed", "ratio") if key in columns}
        n = len(paths)
        table = write_meta(tmp_path / "meta.csv", F_Name=range(n), Path=paths,
                           A=[i % 2 for i in range(n)], **columns)
        return read_meta(table, 2, splitting=Splitting(**options))
    return from_columns


def test_rows_without_a_split_are_kept_out_however_many_steps_from_a_test_patient():
    split = np.array(["test", "", "", "", ""])
    patients, files = ["a", "a", "b", "b", "c"], ["0", "1", "1", "2", "3"]  # file 1 is of a and b
    assert fill_in(split, patients, files).tolist() == ["test", "unused", "unused", "unused",
                                                        "train"]


def test_spellings_of_split_are_known(read):
    words = ["train", "Train", "val", "VALID", "validation", "Test", "testing"]
    split = read([f"{i}.png" for i in range(7)], Split=words).split
    assert split.tolist() == ["train", "train", "val", "val", "val", "test", "test"]


def test_unknown_split_words_are_listed(read):
    with pytest.raises(UserError, match="2 rows have no split") as error:
        read(["a", "b", "c"], split=["train", "holdout", ""])
    assert "line 3: 'holdout'" in str(error.value)
    assert "line 4: ''" in str(error.value)


def test_split_by_the_last_such_folder_in_path(read):
    split = read(["train/1.png", "x/train/Val/2.png", "a/TEST/deep/3.png"]).split
    assert split.tolist() == ["train", "val", "test"]


def test_rows_outside_the_split_folders_are_listed(read):
    with pytest.raises(UserError, match="1 rows have no split.*folder in Path") as error:
        read(["train/1.png", "2.png", "val/3.png"])
    assert "line 3: '2.png'" in str(error.value)


def test_split_column_goes_before_folders(read):
    assert read(["train/1.png", "train/2.png"], Split=["test", "val"]).split.tolist() == ["test",
                                                                                           "val"]


def test_ratio_divides_patients_the_same_way_for_the_same_seed(read):
    paths = [f"{i}.png" for i in range(40)]
    patients = [f"P{i // 2}" for i in range(40)]
    first, again, other = (read(paths, pid=patients, seed=seed).split for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert all(first[i] == first[i + 1] for i in range(0, 40, 2))
    assert [int((first == name).sum()) for name in ("train", "val", "test")] == [28, 6, 6]


def test_order_of_rows_does_not_change_the_split():
    groups = [f"P{i}" for i in range(20)]
    split = split_by_group(groups, (0.5, 0.25, 0.25), 3)
    backwards = split_by_group(groups[::-1], (0.5, 0.25, 0.25), 3)
    assert split.tolist() == backwards[::-1].tolist()


def test_without_patients_rows_are_divided_and_that_is_said(read, messages):
    paths = [f"{i}.png" for i in range(10)] + ["0.png"]
    split = read(paths, ratio=(0.5, 0.3, 0.2)).split
    assert np.unique(split[:10], return_counts=True)[1].tolist() == [2, 5, 3]
    assert split[0] == split[10]
    assert any("row (no patient column)" in text for text in messages)


@pytest.mark.parametrize("text", ["0.7,0.3", "1,0,0,0", "0.7,0.2,0.2", "a,b,c", "0,0.5,0.5",
                                  "1.2,-0.1,-0.1", "inf,0,0", "0.7,nan,0.3"])
def test_bad_ratios_are_refused(text):
    with pytest.raises(UserError, match="three fractions for train, val and test"):
        parse_ratio(text)


def test_small_tables_leave_no_share_empty():
    found = split_by_group(["a", "b", "c", "d"], (0.7, 0.15, 0.15), seed=0)
    assert sorted(found) == ["test", "train", "train", "val"]
    assert set(split_by_group(["a", "b", "c", "d"], (0.8, 0.2, 0), seed=0)) == {"train", "val"}
