"""python -m slivit.check: what it finds, what it writes, and how it ends."""

import numpy as np
import pandas as pd
import pytest
from helpers import write_image, write_image_table, write_meta
from PIL import Image
from scan_files import write_nifti

from slivit import check
from slivit.utils.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture
def table(tmp_path):
    """A table of eight volumes: one blank, one double, one with another name in another split."""
    volumes = [RNG.integers(0, 255, (4, 9, 10), dtype=np.uint8) for _ in range(5)]
    volumes += [np.full((4, 9, 10), 7, np.uint8), volumes[0], volumes[1]]
    names = []
    for i, volume in enumerate(volumes):
        names.append(f"v{i}.npy" if i % 2 else f"v{i}")
        if i % 2:
            np.save(tmp_path / names[-1], volume)
        else:
            for k, pixels in enumerate(volume):
                write_image(tmp_path / names[-1] / f"{k}.png", pixels)
    return write_meta(tmp_path / "t.csv", F_Name=[f"s{i}" for i in range(8)], Path=names,
                      A=[0, 1, "", 1, 0, 1, 0, 1], size=[1.5, 2, 3, 4, 5, 6, 7, 8],
                      Split=["train"] * 4 + ["val", "val", "train", "test"],
                      pid=["p", "q", "r", "s", "t", "u", "p", "w"])


def run(table, out, *options):
    check.main(["--meta_csv", str(table), "--out_dir", str(out), *options])
    return pd.read_csv(out / "data_report.csv").set_index("id")


def test_counts_are_printed(table, tmp_path, capsys):
    run(table, tmp_path / "out")
    text = capsys.readouterr().out
    assert "t.csv: 8 volumes" in text
    assert "can be read: folders of pictures or of DICOM files; picture (.png, .jpg," in text
    assert "nifti (.nii, .nii.gz)" in " ".join(text.split())
    assert "  train      5         4  2 of 4  mean 3.5 of 5\n" in text
    assert "unknown: A in 1 of 8 scans" in text
    assert "files: 4 pictures, 4 array" in text
    assert "slices: 4\n" in text
    assert "height: 9, width: 10 pixels" in text
    assert "1 scan is blank (one value throughout): s5" in text
    assert ("2 scans have the same content as an earlier scan: s6 is the same as s0, "
            "s7 is the same as s1") in text
    assert ("2 scans have the same content as a scan in another split, which inflates the scores: "
            "s1 (train), s7 (test)") in text
    assert "every scan can be read, and no patient is in two splits" in text


def test_report_has_a_row_per_scan(table, tmp_path):
    report = run(table, tmp_path / "out")
    assert list(report.index) == [f"s{i}" for i in range(8)]
    assert report.loc["s0", ["slices", "height", "width", "dtype", "kind"]].tolist() == [
        4, 9, 10, "uint8", "pictures"]
    assert report["blank"].tolist() == [False] * 5 + [True] + [False] * 2
    assert report["same_as"].fillna("").tolist() == [""] * 6 + ["s0", "s1"]
    assert report.loc["s5", ["lowest", "highest"]].tolist() == [7, 7]
    assert np.isnan(report.loc["s2", "label A"])


def test_sheet_has_a_row_of_slices_per_volume(table, tmp_path):
    run(table, tmp_path / "out")
    sheet = np.asarray(Image.open(tmp_path / "out/contact_sheet.png").convert("L"))
    assert sheet.shape == (8 * 100, 260 + 4 * 100)
    first = sheet[:96, 260:356]
    assert first.std() > 20  # a slice is there
    assert (sheet[500 + 8:500 + 88, 260 + 8:260 + 88] == 0).all()  # the blank one
    run(table, tmp_path / "few", "--sheet_rows", "2")
    assert Image.open(tmp_path / "few/contact_sheet.png").height == 4 * 100  # 2, and 2 odd ones


def test_spacing_and_gaps_are_reported(tmp_path):
    for i in range(3):
        write_nifti(tmp_path / f"{i}.nii.gz", RNG.integers(0, 99, (5, 6, 7)).astype(np.int16),
                    np.diag([0.75, 0.5, 2.5, 1]))
    table = write_meta(tmp_path / "t.csv", F_Name=list("abc"), A=[0, 1, 1],
                       Path=[f"{i}.nii.gz" for i in range(3)], Split=["train", "val", "test"])
    report = run(table, tmp_path / "out")
    assert report.loc["a", ["between_slices_mm", "pixel_height_mm", "pixel_width_mm"]].tolist() == [
        2.5, 0.5, 0.75]
    assert report.loc["b", "axes"] == "SPL"


def test_unreadable_files_and_shared_patients_are_all_named(table, tmp_path, capsys):
    frame = pd.read_csv(table, dtype=str)
    frame.loc[7, "pid"] = "q"
    frame.to_csv(table, index=False)
    (tmp_path / "v3.npy").write_text("no array")
    (tmp_path / "v4/1.png").write_text("no picture")
    with pytest.raises(UserError) as error:
        run(table, tmp_path / "out")
    message = str(error.value)
    assert "t.csv is not fit for training" in message
    assert "2 scans cannot be read" in message
    assert "v3.npy: cannot be read as an array" in message
    assert "v4/1.png: cannot be read as an image" in message
    assert "1 patient is in several splits:\n  q: test, train" in message
    report = pd.read_csv(tmp_path / "out/data_report.csv").set_index("id")
    assert report["error"].notna().sum() == 2
    assert (tmp_path / "out/contact_sheet.png").exists()


def test_images_are_told_from_volumes(tmp_path, capsys):
    table = write_image_table(tmp_path)
    report = run(table, tmp_path / "out")
    assert "images.csv: 24 images" in capsys.readouterr().out
    assert report["slices"].isna().all()
    assert Image.open(tmp_path / "out/contact_sheet.png").height == 6 * 100  # four to a line


def test_named_sets_are_checked_too(tmp_path, capsys):
    check.main(["--dataset", "noduleshapes2d", "--out_dir", str(tmp_path / "out"),
                "--sheet_rows", "4"])
    assert "noduleshapes2d: 2141 images" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out/data_report.csv")) == 2141


def test_an_output_folder_in_use_is_refused(table, tmp_path):
    run(table, tmp_path / "out")
    with pytest.raises(UserError, match="is not empty"):
        run(table, tmp_path / "out")
    run(table, tmp_path / "out", "--overwrite")
