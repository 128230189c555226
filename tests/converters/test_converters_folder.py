"""make_folder_meta.py, on trees of class folders."""

import shutil

import nibabel
import numpy as np
import pandas as pd
import tifffile
from converters import GREY, read, refused, run, touch
from helpers import write_image
from PIL import Image
from pydicom.data import get_testdata_file


def test_images_in_split_folders_are_found_with_class_split_and_patient(scripts, tmp_path, capsys):
    names = ["Train/cat/P1_a.png", "Train/cat/P1_b.JPG", "Train/dog/P2_a.bmp",
             "test/cat/P4_a.png", "validation/dog/P3_a.png", "validation/owl/P3_b.tif"]
    for name in names:
        write_image(tmp_path / name, GREY)
    touch(tmp_path / "Train/cat/notes.txt", tmp_path / "Train/cat/._P1_a.png",
          tmp_path / "__MACOSX/Train/x.png")
    run(scripts.folder, tmp_path, "--patient_from", "/(P[0-9]+)_")
    scans = read(tmp_path / "meta.csv", 2)
    assert scans.ids == tuple(names)
    assert scans.label_names == ("cat", "dog", "owl")
    assert scans.labels.argmax(axis=1).tolist() == [0, 0, 1, 0, 1, 2]
    assert (scans.labels.sum(axis=1) == 1).all()
    assert scans.split.tolist() == ["train"] * 3 + ["test"] + ["val"] * 2
    assert scans.patients == ("P1", "P1", "P2", "P4", "P3", "P3")
    assert "ignored 2 hidden entries" in capsys.readouterr().out


def test_what_is_no_table_of_scans_is_never_replaced(scripts, tmp_path):
    write_image(tmp_path / "cat/P1_a.png", GREY)
    write_image(tmp_path / "dog/P2_a.png", GREY)
    run(scripts.folder, tmp_path)
    run(scripts.folder, tmp_path, "--overwrite")
    before = (tmp_path / "dog/P2_a.png").read_bytes()
    message = refused(scripts.folder, tmp_path, "--out", tmp_path / "dog/P2_a.png", "--overwrite")
    assert "--overwrite replaces a table of scans, which begins with 'F_Name,Path'" in message
    assert (tmp_path / "dog/P2_a.png").read_bytes() == before


def write_volumes(root):
    """Write a volume of each kind, in two class folders."""
    stack = np.stack([GREY] * 3)
    for folder in ("sick", "well"):
        (root / folder).mkdir(parents=True)
    np.save(root / "sick/a1.npy", stack)
    np.savez(root / "sick/a2.npz", stack)
    for name in ("sick/a3.nii", "well/b1.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(stack, np.eye(4)), root / name)
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(root / "well/b2.tif", save_all=True, append_images=pages[1:])
    write_image(root / "well/b3/slice1.png", GREY)
    tifffile.imwrite(root / "well/b6.tiff", stack, imagej=True, truncate=True)  # one page for all
    (root / "well/b4").mkdir()
    shutil.copy(get_testdata_file("MR_small.dcm", download=False), root / "well/b4/IM0001")
    shutil.copy(get_testdata_file("SC_rgb_rle_2frame.dcm", download=False), root / "well/b5.dcm")
    return root


def test_volumes_of_every_kind_are_found_with_class_and_patient(scripts, tmp_path):
    run(scripts.folder, write_volumes(tmp_path / "tree"), "--out", tmp_path / "v.csv",
        "--patient_from", "[ab][0-9]")
    scans = read(tmp_path / "v.csv", 3)
    assert scans.ids == ("sick/a1.npy", "sick/a2.npz", "sick/a3.nii", "well/b1.nii.gz",
                         "well/b2.tif", "well/b3", "well/b4", "well/b5.dcm",
                         "well/b6.tiff")
    assert scans.label_names == ("sick", "well")
    assert scans.labels.tolist() == [[1, 0]] * 3 + [[0, 1]] * 6
    assert scans.patients == ("a1", "a2", "a3", "b1", "b2", "b3", "b4", "b5", "b6")
    table = pd.read_csv(tmp_path / "v.csv")
    assert list(table) == ["F_Name", "Path", "sick", "well", "patient"]
    assert table["Path"][5] == "tree/well/b3"


def test_images_beside_volumes_are_refused(scripts, tmp_path):
    write_volumes(tmp_path)
    write_image(tmp_path / "sick/one.png", GREY)
    write_image(tmp_path / "well/two.tif", GREY)  # one page
    message = refused(scripts.folder, tmp_path)
    assert "contains 9 volumes and 2 images; a table can list only one kind" in message
    assert "\n  sick/one.png\n  well/two.tif\n" in message


def test_the_two_files_of_a_pair_are_one_scan(scripts, tmp_path, capsys):
    for name in ("sick/a.hdr", "well/b.hdr"):
        (tmp_path / name).parent.mkdir()
        nibabel.Nifti1Pair(np.stack([GREY] * 3), np.eye(4)).to_filename(tmp_path / name)
    run(scripts.folder, tmp_path)
    assert read(tmp_path / "meta.csv", 3).ids == ("sick/a.hdr", "well/b.hdr")
    assert "ignored" not in capsys.readouterr().out


def test_entries_that_are_no_scans_are_all_listed(scripts, tmp_path):
    write_volumes(tmp_path)
    (tmp_path / "well/b2.tif").write_bytes(b"II*\0")
    touch(tmp_path / "sick/nested/deeper/1.png")
    message = refused(scripts.folder, tmp_path)
    assert "2 entries are not scans" in message
    assert f"\n  {tmp_path}/sick/nested: contains no slices (neither pictures nor DICOM" in message
    assert f"\n  {tmp_path}/well/b2.tif: cannot be read as an image" in message


def test_class_folders_that_cannot_be_labels_are_refused(scripts, tmp_path):
    for name in ("id", "Path", "a,b", "cnv_pred", "CNV", "cnv", "end ", "good"):
        write_image(tmp_path / name / "1.png", GREY)
    message = refused(scripts.folder, tmp_path)
    assert "7 folders have names that cannot be labels" in message
    assert "\n  'CNV'\n  'Path'\n  'a,b'\n  'cnv'\n  'cnv_pred'\n  'end '\n  'id'\n" in message


def test_other_trees_are_refused(scripts, tmp_path):
    assert "no such folder" in refused(scripts.folder, tmp_path / "absent")
    (tmp_path / "empty/train").mkdir(parents=True)
    assert "has 0 class folders" in refused(scripts.folder, tmp_path / "empty")
    shutil.rmtree(tmp_path / "empty")
    (tmp_path / "A").mkdir()
    assert "has 1 class folders, expected two or more" in refused(scripts.folder, tmp_path)
    (tmp_path / "B").mkdir()
    assert "the class folders contain no scans" in refused(scripts.folder, tmp_path)
    (tmp_path / "Test").mkdir()
    message = refused(scripts.folder, tmp_path)
    assert "has split folders (Test) and other folders beside them:\n  A\n  B\n" in message


def test_patients_must_be_found_and_in_one_split(scripts, tmp_path):
    for name in ("train/A/P1_1.png", "train/B/x_1.png", "test/A/P1_2.png", "test/B/P2_.png"):
        write_image(tmp_path / name, GREY)
    message = refused(scripts.folder, tmp_path, "--patient_from", "P([0-9]+)_[0-9]")
    assert "matches no patient in 2 of 4 paths:\n  test/B/P2_.png\n  train/B/x_1.png\n" in message
    message = refused(scripts.folder, tmp_path, "--patient_from", "(P1|x|P2)_")
    assert "1 patients are in more than one split" in message
    assert "\n  P1: test, train\n" in message
    message = refused(scripts.folder, tmp_path, "--patient_from", "(P1")
    assert "--patient_from (P1: is not a regular expression" in message
    assert not (tmp_path / "meta.csv").exists()
