"""export_medmnist_nifti.py, and how all converters run as commands."""

import gzip
import runpy
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from converters import DATA, GREY, NAMES, read, refused, run
from helpers import content, write_image, write_medmnist

from slivit.data.named_sets import load_named


def slices_of(path):
    """Return a NIfTI file as (slice to superior, row to posterior, column to left)."""
    image = nibabel.as_closest_canonical(nibabel.load(path))  # to right, anterior, superior
    return np.asanyarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)


def test_exported_volumes_come_back_the_same(scripts, tmp_path):
    npz = dict(np.load(write_medmnist(tmp_path / "root/fracturemnist3d.npz", (6, 3, 4),
                                      (28, 28, 28), 3)))
    options = ["--dataset", "FractureMNIST3D", "--data_root", tmp_path / "root"]
    run(scripts.export, *options, "--out_dir", tmp_path / "out")
    known = load_named("fracturemnist3d", 3, tmp_path / "root")
    scans = read(tmp_path / "out/meta.csv", 3)
    assert scans.label_names == known.label_names
    assert scans.labels.tolist() == known.labels.tolist()
    assert scans.split.tolist() == known.split.tolist()
    assert scans.patients is None
    for split, n in (("train", 6), ("val", 3), ("test", 4)):
        for index in range(n):
            volume = slices_of(tmp_path / f"out/{split}_{index:04d}.nii.gz")
            assert volume.dtype == np.uint8
            np.testing.assert_array_equal(volume, npz[f"{split}_images"][index])
    image = nibabel.load(tmp_path / "out/val_0002.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert (image.affine @ [13.5, 13.5, 13.5, 1]).tolist() == [0, 0, 0, 1]

    run(scripts.export, *options, "--out_dir", tmp_path / "again")
    assert content(tmp_path / "out") == content(tmp_path / "again")
    assert gzip.decompress((tmp_path / "out/val_0002.nii.gz").read_bytes())[344:347] == b"n+1"
    assert (tmp_path / "out/val_0002.nii.gz").read_bytes()[4:8] == bytes(4)  # no time


def test_export_of_the_embedded_nodules_keeps_patients(scripts, tmp_path):
    known = load_named("noduleshapes3d", 3, None)
    run(scripts.export, "--dataset", "noduleshapes3d", "--limit", 2, "--out_dir", tmp_path)
    scans = read(tmp_path / "meta.csv", 3)
    assert scans.ids == ("train_0000", "train_0001", "val_0000", "val_0001", "test_0000",
                         "test_0001")
    rows = [0, 1, 1403, 1404, 1609, 1610]
    assert scans.patients == tuple(known.patients[row] for row in rows)
    assert scans.labels.tolist() == known.labels[rows].tolist()
    np.testing.assert_array_equal(slices_of(tmp_path / "test_0001.nii.gz"),
                                  np.load(DATA / "noduleshapes3d.npz")["test_images"][1])


def test_export_replaces_only_an_export(scripts, tmp_path):
    options = ["--dataset", "noduleshapes3d", "--limit", 1, "--out_dir", tmp_path]
    (tmp_path / "mine.nii.gz").write_text("mine")
    assert "is not empty" in refused(scripts.export, *options)
    run(scripts.export, *options, "--overwrite")
    run(scripts.export, *options, "--overwrite", "--split", "val")
    assert sorted(content(tmp_path)) == ["manifest.csv", "meta.csv", "mine.nii.gz",
                                         "val_0000.nii.gz"]
    assert "contains images, expected volumes" in refused(
        scripts.export, "--dataset", "noduleshapes2d", "--out_dir", tmp_path / "new")
    assert "--medmnist_size applies to MedMNIST sets" in refused(
        scripts.export, "--dataset", "noduleshapes3d", "--medmnist_size", 64,
        "--out_dir", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", NAMES)
def test_scripts_find_the_package_and_report_errors(name, tmp_path, monkeypatch, capsys):
    options = ["--dataset", "absent", "--out_dir", "new"] if "export" in name else ["absent"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(DATA), *sys.path])
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(DATA / f"{name}.py"), run_name="__main__")
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and "absent" in errors
    assert sys.path[0] == str(DATA.parent)
    assert list(tmp_path.iterdir()) == []


def test_command_runs_from_anywhere(tmp_path):
    for name in ("A/1.png", "B/1.png"):
        write_image(tmp_path / "tree" / name, GREY)
    done = subprocess.run([sys.executable, DATA / "make_folder_meta.py", "tree"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote tree/meta.csv" in done.stdout
    assert (tmp_path / "tree/meta.csv").read_text() == (
        "F_Name,Path,A,B\nA/1.png,A/1.png,1,0\nB/1.png,B/1.png,0,1\n")
