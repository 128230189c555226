"""All that is wrong with a meta.csv, in one message; and what is odd, in warnings."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import RUN_2D, RUN_3D, write_image, write_meta

import bb_train
import finetune
from slivit.data.meta_csv import read_meta
from slivit.data.splits import Splitting
from slivit.data.targets import fit_to_target, resolve_task
from slivit.utils.errors import UserError


def test_faults_of_every_kind_are_in_one_message(read, tmp_path):
    (tmp_path / "there.png").touch()
    with pytest.raises(UserError) as error:
        read("F_Name,Path,A,B_pred,B,Split,pid\n"
             "one,there.png,1,0,0,train,P1\n"
             ",gone.png,yes,0,0,holdout,P1\n"
             "two,./there.png,0,0,0,val,P1\n"
             "three,,0,0,1,test,\n"
             "four,x.png,\"0,5\",0,?,train,P2\n")
    message = str(error.value)
    for text in ("8 problems in this table", "B_pred cannot be a label",
                 "2 label cells are neither a number nor empty (empty means unknown):\n"
                 "  line 3, column A: 'yes'\n  line 6, column B: '?'\n",
                 "1 label cells contain a comma, for decimals or thousands:\n"
                 "  line 6, column A: '0,5'\n",
                 "3 cells must not be empty:\n  line 5: Path is empty\n  line 3: F_Name is empty\n"
                 "  line 5: pid is empty\n",
                 "1 rows have no split; expected train, val or test:\n  line 3: 'holdout'\n",
                 f"1 files are in more than one split, which would inflate every score:\n"
                 f"  {tmp_path}/there.png: train, val (lines 2, 4)\n",
                 "1 patients are in more than one split, which would inflate every score:\n"
                 "  P1: train, val\n",
                 "2 of 5 scans do not exist:\n  line 3: gone.png\n  line 6: x.png"):
        assert text in message


def test_faults_of_the_header_and_of_the_rows_are_in_one_message(read):
    with pytest.raises(UserError) as error:
        read("F_Name,split,Split,A\n1,train,x,yes\n", pid_col="person", pathologies=["A", "Z"])
    message = str(error.value)
    for text in ("column Path not found. Available: F_Name, split, Split, A",
                 "'split' and 'Split' could each be the column Split", "'person'", "'Z'"):
        assert text in message


@pytest.mark.parametrize(("columns", "named"), [
    ("F_Name,Path,A,split,Split", "'split' and 'Split' could each be the column Split"),
    ("F_Name,f_name,Path,A,B", "'F_Name' and 'f_name' could each be the column F_Name"),
    ("F_Name,PATH,Path,A,B", "'PATH' and 'Path' could each be the column Path"),
    ("F_Name,Path,A,patient,Patient", "patient, Patient could each be the patient column"),
])
def test_two_spellings_of_a_column_are_refused(read, columns, named):
    with pytest.raises(UserError, match=named):
        read(f"{columns}\n1,a,0,train,train\n2,b,1,val,val\n")


def rows(*cells):
    return "F_Name,Path,A,Split\n" + "".join(
        f"{k},{cell},{k % 2},{split}\n" for k, (cell, split) in enumerate(cells))


def links(folder: Path) -> list[str]:
    """Make an image and a folder of slices; return four other spellings of each."""
    write_image(folder / "scans/a.png", np.zeros((4, 4), np.uint8))
    write_image(folder / "scans/v/1.png", np.zeros((4, 4), np.uint8))
    (folder / "elsewhere").symlink_to("scans")
    (folder / "scans/b.png").symlink_to("a.png")
    (folder / "scans/w").symlink_to(folder / "scans/v")
    return [["elsewhere/a.png", "scans/b.png", "scans/../scans/a.png", f"{folder}/scans/a.png"],
            ["elsewhere/v", "scans/w", "scans/v/../v", f"{folder}/scans/v/"]]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("spelling", range(4))
def test_one_file_under_two_names_is_found_in_two_splits(read, tmp_path, kind, spelling, messages):
    other = links(tmp_path)[kind][spelling]
    name = ("scans/a.png", "scans/v")[kind]
    with pytest.raises(UserError, match="1 files are in more than one split") as error:
        read(rows((name, "train"), (other, "test"), ("c.png", "val")), 2 + kind)
    assert f"{tmp_path / name}: test, train (lines 2, 3)" in str(error.value)
    read(rows((name, "train"), (other, "train"), ("c.png", "val")), 2 + kind)
    assert "warning: meta.csv names 1 scan more than once" in messages


@pytest.mark.parametrize("other", ["v.npz:scan", "link.npz:scan", "hard.npz", "hard.npz:scan",
                                   "linked"])
def test_one_scan_by_other_ways_is_found_in_two_splits(read, tmp_path, other):
    np.savez(tmp_path / "v.npz", scan=np.zeros((2, 4, 4), np.uint8))
    (tmp_path / "link.npz").symlink_to("v.npz")
    (tmp_path / "hard.npz").hardlink_to(tmp_path / "v.npz")
    for k in (1, 2):
        write_image(tmp_path / f"v/{k}.png", np.zeros((4, 4), np.uint8))
        (tmp_path / "linked").mkdir(exist_ok=True)
        (tmp_path / f"linked/{k}.png").symlink_to(f"../v/{k}.png")
    first = "v" if other == "linked" else "v.npz"
    if other == "linked":
        (tmp_path / "again").mkdir()
        for k in (1, 2):
            (tmp_path / f"again/{k}.png").symlink_to(f"../v/{k}.png")
        first = "again"
    with pytest.raises(UserError, match="1 files are in more than one split"):
        read(rows((first, "train"), (other, "test"), ("c.npy", "val")), 3)


def test_arrays_of_one_file_are_scans_of_their_own(read, messages):
    scans = read(rows(("x.npz:a", "train"), ("x.npz:b", "test"), ("./y.npz:a", "val")), 3)
    assert len(scans) == 3
    assert not any("more than once" in text for text in messages)
    with pytest.raises(UserError, match="1 files are in more than one split"):
        read(rows(("x.npz:a", "train"), ("./x.npz:a", "test")), 3)


def test_drawn_split_keeps_the_spellings_of_a_file_together(read, tmp_path):
    links(tmp_path)
    paths = [f"{k}.png" for k in range(20)] + ["scans/a.png", "elsewhere/a.png", "scans/b.png"]
    text = "F_Name,Path,A\n" + "".join(f"{k},{path},{k % 2}\n" for k, path in enumerate(paths))
    for seed in range(5):
        assert len(set(read(text, splitting=Splitting(seed=seed)).split[20:])) == 1


def test_home_is_expanded_in_path_cells(read, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    scans = read(rows(("~/a.png", "train"), ("b.png", "val"), ("~absent.png", "test")))
    assert scans.read.paths == (tmp_path / "home/a.png", tmp_path / "b.png",
                                tmp_path / "~absent.png")


def test_backslashes_are_said(read, tmp_path):
    links(tmp_path)
    with pytest.raises(UserError, match="1 cells of Path have backslashes, as on Windows") as error:
        read(rows(("scans\\a.png", "train"), ("c\\d.png", "val")))
    assert "line 2: scans\\a.png\nWrite / for \\ in Path" in str(error.value)
    (tmp_path / "scans\\a.png").touch()  # a name may hold one
    assert read(rows(("scans\\a.png", "train"))).read.paths[0].exists()


@pytest.mark.parametrize(("first", "second"), [("7", "7.0"), ("P9", "P9\u200b"), ("007", "7"),
                                               ("Mu\u0308ller", "Müller"), ("P7", "p7"),
                                               ("P 7", "P7"), ("A-01", "a-1")])
def test_patients_that_are_written_alike_are_warned_of(read, messages, first, second):
    text = "F_Name,Path,A,Split,pid\n1,a,0,{}\n2,b,1,{}\n3,c,1,train,100\n4,d,0,val,1\n"
    read(text.format(f"train,{first}", f"test,{second}"))
    said = [text for text in messages if "count as different" in text]
    assert len(said) == 1
    low, high = sorted((first, second))
    where = {first: "train", second: "test"}
    assert ("in 1 group, patient ids differ only by case, spaces, leading zeros or the like, and "
            f"count as different patients: {low!r} ({where[low]}) and {high!r} ({where[high]})"
            ) in said[0]
    messages.clear()
    read(text.format("train,1.05", "test,1.5"))
    assert not any("count as different" in text for text in messages)


@pytest.mark.parametrize(("cells", "lost"), [
    (["16777216", "16777217", "0"], ["line 3: 16777217"]),
    (["2", "2.00000001", "0"], ["line 3: 2.00000001"]),
    (["9007199254740992", "9007199254740993", "0"], ["line 3: 9007199254740993"]),
])
def test_classes_that_would_become_one_are_refused(read, cells, lost):
    text = "F_Name,Path,A,Split\n" + "".join(f"{k},{k},{cell},train\n"
                                             for k, cell in enumerate(cells))
    scans = read(text)
    with pytest.raises(UserError, match="1 labels are so close to another whole number") as error:
        resolve_task(scans, "multiclass")
    for line in lost:
        assert f"column A, {line}" in str(error.value)
    assert resolve_task(scans, "regression")[1].task == "regression"


def test_zero_and_one_are_what_is_written(read):
    text = "F_Name,Path,A,Split\n1,a,0,train\n2,b,{},train\n3,c,1,train\n"
    assert resolve_task(read(text.format("1.0")))[1].task == "binary"
    target = resolve_task(read(text.format("1")))[1]
    for cell in ("1.00000001", "1e-60"):
        with pytest.raises(UserError, match=f"column A, line 3: {cell}"):
            resolve_task(read(text.format(cell)))
        with pytest.raises(UserError, match=f"column A, line 3: {cell}"):
            fit_to_target(read(text.format(cell)), target)


def test_numbers_of_a_regression_are_rounded_without_a_word(read):
    text = "F_Name,Path,A,Split\n1,a,0.1,train\n2,b,2.9999999999999996,train\n3,c,16777217,train\n"
    assert resolve_task(read(text))[1].task == "regression"


def test_missing_files_alone_are_left_to_the_check_of_the_headers(tmp_path):
    path = write_meta(tmp_path / "t.csv", F_Name=[1, 2], Path=["gone", os.devnull], A=[0, 1])
    assert len(read_meta(path, 2)) == 2


def test_label_values_and_splits_stand_in_the_same_message(tmp_path):
    (tmp_path / "meta.csv").write_text("F_Name,Path,A,Split,patient\na,a.png,2,train,P1\n"
                                       "b,b.png,1,val,nan\nc,c.png,0,test,P1\n")
    with pytest.raises(UserError) as error:
        bb_train.main(["--meta_csv", str(tmp_path / "meta.csv"), *RUN_2D, "--out_dir",
                       str(tmp_path / "out")])
    for text in ("1 labels are not 0, 1 or empty:\n  line 2, column A: 2", "P1: test, train",
                 "line 3: patient is 'nan'", "3 of 3 scans do not exist"):
        assert text in str(error.value)
    assert not (tmp_path / "out").exists()


def test_missing_scans_and_splits_stand_in_one_message(tmp_path):
    (tmp_path / "meta.csv").write_text("F_Name,Path,A,Split\na,a.npy,1,train\nb,b.npy,1,train\n")
    for script, run in ((bb_train, RUN_2D), (finetune, RUN_3D)):
        with pytest.raises(UserError) as error:
            script.main(["--meta_csv", str(tmp_path / "meta.csv"), *run, "--out_dir",
                         str(tmp_path / "out")])
        for text in ("no rows in the split val", "A: no negatives", "2 of 2 scans cannot be read"):
            assert text in str(error.value)


def test_regression_of_numbers_that_float32_cannot_tell_apart_is_refused(read):
    text = "F_Name,Path,A,Split\n" + "".join(f"{k},{k},{20240101 + k},train\n" for k in range(9))
    with pytest.raises(UserError, match="(?s)these labels differ only beyond them:\n  A, such as "
                                        "line"):
        resolve_task(read(text), "regression")


def test_windows_paths_are_said(tmp_path):
    (tmp_path / "meta.csv").write_text("F_Name,Path,A,Split\na,C:\\x.npy,1,train\n")
    with pytest.raises(UserError, match="Paths with backslashes are Windows paths: write /"):
        finetune.main(["--meta_csv", str(tmp_path / "meta.csv"), *RUN_3D, "--out_dir",
                       str(tmp_path / "out")])
