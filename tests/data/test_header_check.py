"""What is said of the scans before a run looks at their pixels."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import (
    RUN_2D,
    RUN_3D,
    absolute_table,
    array_scans,
    file_scans,
    run_evaluate,
    write_image,
    write_meta,
)
from oct_files import raw_chunk, write_topcon, write_vol
from scan_files import write_dicom, write_dicom_series, write_nifti, write_video

import bb_train
import finetune
from slivit.checkpoints import checkpoint
from slivit.data.datasets import prepare
from slivit.data.header_check import check_headers
from slivit.data.readers import image_header, read_volume
from slivit.utils.errors import UserError, run_script

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 31), dtype=np.uint8)


def test_check_lists_every_unreadable_scan_at_once(tmp_path):
    write_image(tmp_path / "good.png", PIXELS)
    (tmp_path / "bad.png").write_text("this is no picture")
    scans = file_scans(*(tmp_path / name for name in ("bad.png", "good.png", "absent.png")), ndim=2)
    with pytest.raises(UserError, match="2 of 3 scans cannot be read") as error:
        check_headers(scans)
    assert "bad.png: cannot be read as an image" in str(error.value)
    assert "absent.png: does not exist" in str(error.value)
    check_headers(scans, np.array([1]))


def test_an_image_among_volumes_is_called_one(tmp_path):
    write_image(tmp_path / "a.png", PIXELS)
    np.save(tmp_path / "b.npy", np.stack([PIXELS] * 4))
    scans = file_scans(tmp_path / "a.png", tmp_path / "b.npy", ndim=3)
    with pytest.raises(UserError, match="1 of 2 scans cannot be read; 1 image is among them, but "
                                        "the table is read as one of volumes: give images and"):
        check_headers(scans)


def test_blank_scans_are_counted_and_named(messages):
    volumes = np.ones((4, 2, 3, 3), np.uint8)
    volumes[[1, 3]] = 0
    scans = array_scans(volumes, [0, 1, 0, 1])
    assert check_headers(scans) is scans
    assert any("2 of 4 scans are blank" in text and "train r1, train r3" in text
               for text in messages)


STORED = np.random.default_rng(1).integers(0, 2000, (4, 20, 24)).astype(np.int16)


def write_scan(folder, kind):
    """Write one volume of a kind of file."""
    if kind in ("CT", "MR"):
        return write_dicom_series(folder, STORED, Modality=kind, RescaleIntercept=-1024)
    if kind == "video":
        return write_video(folder.with_suffix(".avi"), STORED.astype(np.uint8))
    if kind == "nifti":
        return write_nifti(folder.with_suffix(".nii.gz"), STORED - 1024)
    if kind == "vol":
        return write_vol(folder.with_suffix(".vol"))
    if kind == "fds":
        return write_topcon(folder.with_suffix(".fds"), raw_chunk())
    np.save(folder.with_suffix(".npy"), STORED)
    return folder.with_suffix(".npy")


@pytest.mark.parametrize(("kinds", "window"), [
    ("CT CT", "-1000,1000"), ("video video", "full"), ("MR MR", "percentile"),
    ("CT MR", "percentile"), ("CT nifti", "percentile"), ("CT video", "percentile"),
    ("nifti", "percentile"), ("npy", "percentile"), ("vol vol", "percentile"),
    ("fds", "percentile"),
])
def test_default_window_follows_from_the_files(tmp_path, kinds, window):
    paths = [write_scan(tmp_path / f"v{i}", kind) for i, kind in enumerate(kinds.split())]
    assert check_headers(file_scans(*paths)).window == window


def test_default_window_of_images_and_of_scans_in_memory(tmp_path):
    ct = write_dicom(tmp_path / "x.dcm", STORED[0])
    assert check_headers(file_scans(ct, ndim=2)).window == "-1000,1000"
    picture = write_image(tmp_path / "x.png", PIXELS)
    assert check_headers(file_scans(picture, ndim=2)).window == "percentile"
    memory = array_scans(np.ones((2, 3, 4, 4), np.uint8), [0, 1], window="full")
    assert check_headers(memory).window == "full"


def test_what_was_found_is_said(tmp_path, messages):
    paths = [write_scan(tmp_path / "a", "CT"), write_scan(tmp_path / "b", "nifti")]
    check_headers(file_scans(*paths))
    assert [text.strip() for text in messages] == [
        "files: 1 CT dicom, 1 nifti", "slices: 4 to 24", "height: 20, width: 4 to 24 pixels",
        "spacing: 1 to 3 mm between slices, 0.7 to 1 mm between pixels (known for 2 of 2 scans)"]


def test_odd_scans_are_warned_of(tmp_path, messages):
    for k in range(3):
        write_dicom(tmp_path / f"v/{k}", STORED[k])
    check_headers(file_scans(tmp_path / "v"))
    assert ("warning: 1 scans look unusual: r0: no slice positions: sorted by file "
            "name") in messages


@pytest.mark.parametrize(("views", "warned"), [
    (("axial", "coronal"), True), (("1",), True), (("acquisition",), False), (("0",), False),
    ((), False)])
def test_views_across_thick_slices_are_warned_of(tmp_path, messages, views, warned):
    paths = [write_scan(tmp_path / "thick", "CT"), write_scan(tmp_path / "thin", "nifti")]
    check_headers(file_scans(*paths), views=views)
    expected = "in 1 of 2 scans the slices are more than 3 times as far apart as the pixels"
    assert any(expected in text for text in messages) == warned


def write_ct_table(folder, n=12):
    """Write CT series of 2 slices, dark and bright in turn, and their meta.csv."""
    paths = []
    for i in range(n):
        stored = np.random.default_rng(i).integers(0, 100, (2, 20, 24)) + 800 * (i % 2)
        paths.append(write_dicom_series(folder / f"ct{i}", stored.astype(np.int16),
                                        RescaleIntercept=-500).name)
    splits = ["train"] * (n // 2) + ["val"] * (n // 4) + ["test"] * (n // 4)
    return write_meta(folder / "meta.csv", F_Name=paths, Path=paths, Split=splits,
                      A=[i % 2 for i in range(n)])


def test_window_of_the_training_is_that_of_the_evaluation(tmp_path):
    """Hounsfield units -500 and 300 are 64 and 166 of 255 from -1000 to 1000."""
    write_ct_table(tmp_path)
    finetune.main(["--meta_csv", str(tmp_path / "meta.csv"), *RUN_3D, "--n_epochs", "1",
                   "--out_dir", str(tmp_path / "run")])
    path = tmp_path / "run/slivit.safetensors"
    card, model = checkpoint.load(path)
    assert card.preprocess.window == "-1000,1000"
    found = prepare(file_scans(tmp_path / "ct0"), 0, model.preprocess).slices
    assert (found.min(), found.max()) == (64, 76)
    before = pd.read_csv(tmp_path / "run/predictions.csv")
    table = pd.read_csv(tmp_path / "meta.csv")
    for name in table["Path"]:  # as arrays, whose own default would be percentile
        np.save(tmp_path / f"{name}.npy", read_volume(tmp_path / name).slices)
    table["Path"] += ".npy"
    table.to_csv(tmp_path / "arrays.csv", index=False)
    _, after = run_evaluate(path, tmp_path / "out", "--meta_csv", tmp_path / "arrays.csv")
    pd.testing.assert_frame_equal(before, after, rtol=1e-5)


def test_blank_scans_in_files_are_named_after_the_predictions(binary_run, volume_csv, tmp_path,
                                                              capsys):
    table = absolute_table(volume_csv)
    np.save(tmp_path / "blank.npy", np.zeros((3, 24, 20), np.uint8))
    np.save(tmp_path / "flat.npy", np.full((2, 24, 20), 7.5))
    rows = table.index[table["Split"] == "test"]
    table.loc[rows[[1, 4]], "Path"] = [str(tmp_path / name) for name in ("blank.npy", "flat.npy")]
    table.to_csv(tmp_path / "meta.csv", index=False)
    metrics, found = run_evaluate(binary_run / "slivit.safetensors", tmp_path / "out",
                                  "--meta_csv", tmp_path / "meta.csv")
    assert metrics["blank_scans"] == found["id"].iloc[[1, 4]].tolist()
    assert metrics["n"] == len(rows)
    assert ("warning: 2 of these scans show nothing in the window percentile (all pixels are "
            "equal) and are scored nevertheless; metrics.json lists "
            "them") in capsys.readouterr().out
    assert json.loads((binary_run / "metrics.json").read_text())["blank_scans"] == []


@pytest.mark.parametrize(("script", "n_cpu"), [(bb_train, 1), (finetune, 0)])
def test_scans_found_damaged_while_training_end_the_run(image_csv, volume_csv, tmp_path, capfd,
                                                        script, n_cpu):
    """One byte of the pixels is another: neither headers nor the first batches show it."""
    source, run = (image_csv, RUN_2D) if script is bb_train else (volume_csv, RUN_3D)
    table = absolute_table(source)
    bad = write_image(tmp_path / ("v" if script is finetune else ".") / "bad.png",
                      np.random.default_rng(0).integers(0, 255, (90, 90), dtype=np.uint8))
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 255
    bad.write_bytes(content)
    assert image_header(bad).shape == (90, 90)
    last = table.index[table["Split"] == "train"][-1]
    table.loc[last, "Path"] = str(bad.parent if script is finetune else bad)
    table.to_csv(tmp_path / "meta.csv", index=False)
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: script.main(
            ["--meta_csv", str(tmp_path / "meta.csv"), "--pathologies", "A", *run, "--n_cpu",
             str(n_cpu), "--n_epochs", "1", "--b_size", "2", "--out_dir", str(tmp_path / "out")]))
    assert stop.value.code == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.count("error:") == 1
    assert f"error: {bad}: cannot be read as an image" in error
