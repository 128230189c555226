"""The converters in data/, on trees in the naming and the file formats of each data set."""

import gzip
import importlib.util
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import nibabel
import numpy as np
import pandas as pd
import pytest
import tifffile
from helpers import content, write_image, write_medmnist
from PIL import Image
from pydicom.data import get_testdata_file

from slivit.errors import UserError
from slivit.meta import read_meta
from slivit.named import load_named

DATA = Path(__file__).resolve().parents[1] / "data"
NAMES = ("make_kermany_meta", "make_echonet_meta", "make_folder_meta", "export_medmnist_nifti")
CLASSES = ("NORMAL", "DRUSEN", "CNV", "DME")
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.fixture(scope="module")
def scripts():
    """Load the scripts from their paths, as Python does: with their folder on sys.path."""
    modules = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DATA)
        for name in NAMES:
            spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
            modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(modules[name])
    return SimpleNamespace(kermany=modules[NAMES[0]].main, echonet=modules[NAMES[1]].main,
                           folder=modules[NAMES[2]].main, export=modules[NAMES[3]].main)


def run(main, *options):
    """Run a script in this process."""
    main([str(option) for option in options])


def refused(main, *options):
    """Return the one message with which a script refuses its input."""
    with pytest.raises(UserError) as error:
        run(main, *options)
    return str(error.value)


def read(path, ndim):
    """Return the table as the training scripts read it; every scan it names is there."""
    scans = read_meta(path, ndim)
    cells = pd.read_csv(path, dtype=str)["Path"]
    assert all((path.parent / cell).exists() for cell in cells)
    return scans


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def kermany(tmp_path):
    """The data set as the archive unpacks it: 20 patients who are in train/ only, 5 who are not."""
    base = tmp_path / "archive" / "OCT2017 "
    for folder, names in {
            "train": [f"{CLASSES[i % 4]}-{1016042 + i}-{k}" for i in range(20) for k in (1, 2)]
            + ["DME-1016042-3", "CNV-53018-1", "CNV-53018-2", "NORMAL-77-1"],  # two are in test
            "val": ["NORMAL-1016042-4", "DRUSEN-1016043-9", "CNV-53018-7", "DME-1016045-5"],
            "test": ["NORMAL-77-8", "DRUSEN-53018-9", "CNV-900-1", "DME-901-1", "DME-901-2"],
    }.items():
        for name in names:
            write_image(base / folder / name.split("-")[0] / f"{name}.jpeg", GREY)
    touch(base / "train/CNV/._CNV-1016044-1.jpeg", base / "train/CNV/.DS_Store",
          base / "train/DME/Thumbs.db", base / "train/.ipynb_checkpoints/x",
          tmp_path / "archive/__MACOSX/train/CNV/._CNV-1016044-1.jpeg")
    return base


def test_kermany_patients_are_in_one_split_each(scripts, kermany, capsys):
    run(scripts.kermany, kermany.parent)  # the folder above
    scans = read(kermany / "kermany_meta.csv", 2)
    assert scans.label_names == CLASSES
    assert [CLASSES[k] for k in scans.labels.argmax(axis=1)] == [name.split("-")[0]
                                                                for name in scans.ids]
    assert (scans.labels.sum(axis=1) == 1).all()
    assert scans.patients == tuple(name.split("-")[1] for name in scans.ids)
    test = {scans.ids[row] for row in scans.rows("test")}
    assert test == {file.stem for file in (kermany / "test").glob("*/*")}
    assert len(set(np.array(scans.patients)[scans.rows("val")])) == 2  # a tenth of 20
    assert len(set(np.array(scans.patients)[scans.rows("train")])) == 18
    assert len(scans) == 44 + 4 + 5 - 4
    printed = capsys.readouterr().out
    assert "left out 4 images of 2 patients in train/ and val/ who are in test/ too" in printed
    assert "ignored 3 hidden files" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["split", "scans", "patients", *CLASSES] in lines
    assert ["test", "5", "4", "1", "1", "1", "2"] in lines


def test_kermany_draw_follows_the_seed(scripts, kermany, tmp_path):
    (tmp_path / "disk/tables").mkdir(parents=True)
    (tmp_path / "elsewhere").symlink_to("disk/tables")
    texts = []
    for k, seed in enumerate((0, 0, 1)):
        out = tmp_path / "elsewhere" / f"{k}.csv"
        run(scripts.kermany, kermany, "--seed", seed, "--val_share", 0.25, "--out", out)
        scans = read(out, 2)
        assert len({scans.patients[row] for row in scans.rows("val")}) == 5
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]
    assert "../../archive/OCT2017 /train/CNV/CNV-1016044-1.jpeg" in texts[0]


def test_kermany_bad_names_are_all_listed(scripts, kermany):
    touch(kermany / "train/CNV/DME-5-1.jpeg", kermany / "test/DME/DME-5.jpeg",
          kermany / "val/CNV/CNV-x-1.png")
    message = refused(scripts.kermany, kermany)
    assert "3 images are not named CLASS-PATIENT-NUMBER with the class of their folder" in message
    assert "\n  train/CNV/DME-5-1.jpeg\n  val/CNV/CNV-x-1.png\n  test/DME/DME-5.jpeg\n" in message
    assert not (kermany / "kermany_meta.csv").exists()


def test_kermany_refuses_other_trees(scripts, kermany, tmp_path):
    message = refused(scripts.kermany, tmp_path)
    assert "expected train/ with the folders NORMAL, DRUSEN, CNV, DME" in message
    assert "found none" in message
    assert "--val_share 0 of 20 patients" in refused(scripts.kermany, kermany, "--val_share", 0)
    shutil.copytree(kermany, kermany.parent / "OCT2017")
    assert "found 'OCT2017', 'OCT2017 '" in refused(scripts.kermany, kermany.parent)
    shutil.rmtree(kermany / "train/DRUSEN")
    (kermany / "val/AMD").mkdir()
    message = refused(scripts.kermany, kermany)
    assert "\n  train/: CNV, DME, NORMAL\n  val/: AMD, CNV, DME, DRUSEN, NORMAL\n" in message


def test_path_cells_that_reading_would_strip_are_refused(scripts, kermany, tmp_path):
    base = kermany.rename(tmp_path / " OCT")
    message = refused(scripts.kermany, base, "--out", tmp_path / "k.csv")
    assert "49 Path cells would begin or end with a blank" in message
    assert "' OCT/train/CNV/CNV-1016044-1.jpeg'" in message
    assert f"--out '{base / 'k.csv'}'" in message
    run(scripts.kermany, base, "--out", base / "k.csv")
    assert len(read(base / "k.csv", 2)) == 49


def test_tables_are_not_overwritten(scripts, kermany, tmp_path):
    out = tmp_path / "mine.csv"
    out.write_text("mine")
    message = refused(scripts.kermany, kermany, "--out", out)
    assert "mine.csv: exists already. Name another file, or add --overwrite" in message
    assert out.read_text() == "mine"
    run(scripts.kermany, kermany, "--out", out, "--overwrite")
    assert len(read(out, 2)) == 49
    message = refused(scripts.kermany, kermany, "--out", tmp_path / "absent" / "k.csv")
    assert "absent/k.csv: cannot be written (No such file or directory)" in message


ECHO = [("0X100009310A3BD7FC", "78.498406", "VAL"), ("0X1002E8FBACD08477", "50", "TRAIN"),
        ("0X1005D03EED19C65B", "49.99", "TRAIN"), ("0X10075961BC11C88E", "", "TEST"),
        ("0X10094BA0A028EAC3.avi", "24.1", "TEST")]


@pytest.fixture
def echonet(tmp_path):
    """The data set with five videos."""
    videos = tmp_path / "EchoNet-Dynamic" / "Videos"
    videos.mkdir(parents=True)
    write_file_list(videos.parent, ECHO)
    with av.open(videos / "0X100009310A3BD7FC.avi", "w") as video:
        stream = video.add_stream("mjpeg", rate=50)
        stream.width = stream.height = 112
        stream.pix_fmt = "yuvj420p"
        for value in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((112, 112, 3), 60 * value, np.uint8))
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    for name, *_ in ECHO[1:]:
        shutil.copy(videos / "0X100009310A3BD7FC.avi", videos / f"{name.removesuffix('.avi')}.avi")
    return videos.parent


def write_file_list(root, rows):
    pd.DataFrame([(name, ef, 14.8, 69.2, 112, 112, 50, 174, split) for name, ef, split in rows],
                 columns=["FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS",
                          "NumberOfFrames", "Split"]).to_csv(root / "FileList.csv", index=False)


def test_echonet_table(scripts, echonet):
    run(scripts.echonet, echonet)
    scans = read(echonet / "echonet_meta.csv", 3)
    assert scans.ids == tuple(name.removesuffix(".avi") for name, *_ in ECHO)
    assert scans.label_names == ("EF", "EF_under_50")
    np.testing.assert_array_equal(scans.labels, np.float32(
        [[78.498406, 0], [50, 0], [49.99, 1], [np.nan, np.nan], [24.1, 1]]))
    assert scans.split.tolist() == ["val", "train", "train", "test", "test"]
    assert scans.patients is None
    assert "already" in refused(scripts.echonet, echonet)


def test_echonet_missing_videos_are_listed_or_left_out(scripts, echonet, capsys):
    for name in ("0X1005D03EED19C65B", "0X10094BA0A028EAC3"):
        (echonet / "Videos" / f"{name}.avi").unlink()
    message = refused(scripts.echonet, echonet)
    assert "2 of 5 videos are missing" in message
    assert "\n  Videos/0X1005D03EED19C65B.avi\n  Videos/0X10094BA0A028EAC3.avi\n" in message
    assert "--skip_missing" in message
    run(scripts.echonet, echonet, "--skip_missing")
    assert "left out 2 of 5 rows, whose videos are missing" in capsys.readouterr().out
    assert read(echonet / "echonet_meta.csv", 3).split.tolist() == ["val", "train", "test"]
    shutil.rmtree(echonet / "Videos")
    message = refused(scripts.echonet, echonet, "--skip_missing", "--overwrite")
    assert "Videos: holds none of the 5 videos of FileList.csv" in message


def test_echonet_bad_rows_are_all_listed(scripts, echonet):
    write_file_list(echonet, [("a", "101", "TRAIN"), ("b", "-1", "VAL"), ("c", "x", "train"),
                              ("d", "nan", "TEST"), ("a.avi", "50", "other"), ("", "5", "TEST")])
    message = refused(scripts.echonet, echonet)
    assert "8 bad cells" in message
    for text in ("line 2: EF '101'", "line 3: EF '-1'", "line 4: EF 'x'", "line 5: EF 'nan'",
                 "line 6: Split 'other'", "line 7: FileName is empty",
                 "line 2: FileName a stands in 2 rows", "line 6: FileName a stands in 2 rows"):
        assert f"\n  {text}\n" in message


def test_echonet_refuses_other_folders(scripts, echonet, tmp_path):
    message = refused(scripts.echonet, tmp_path)
    assert "FileList.csv: cannot be read (No such file or directory)" in message
    (echonet / "FileList.csv").write_text("FileName,ESV\na,1\n")
    message = refused(scripts.echonet, echonet)
    assert "column EF and Split not found. There are: FileName, ESV" in message
    (echonet / "FileList.csv").write_text("FileName,EF,Split\n")
    assert "has a header but no rows" in refused(scripts.echonet, echonet)
    (echonet / "FileList.csv").write_bytes(b"FileName,EF,Split\n\xff,1,TEST\n")
    assert "is not a CSV table" in refused(scripts.echonet, echonet)


def test_images_in_split_folders(scripts, tmp_path, capsys):
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


def test_volumes_of_every_kind(scripts, tmp_path):
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
    assert "holds 9 volumes and 2 images; a table holds one kind" in message
    assert "\n  sick/one.png\n  well/two.tif\n" in message


def test_entries_that_are_no_scans_are_all_listed(scripts, tmp_path):
    write_volumes(tmp_path)
    (tmp_path / "well/b2.tif").write_bytes(b"II*\0")
    touch(tmp_path / "sick/nested/deeper/1.png")
    message = refused(scripts.folder, tmp_path)
    assert "2 entries are no scans" in message
    assert f"\n  {tmp_path}/sick/nested: holds no slices (neither pictures nor DICOM" in message
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
    assert "the class folders hold no scans" in refused(scripts.folder, tmp_path)
    (tmp_path / "Test").mkdir()
    message = refused(scripts.folder, tmp_path)
    assert "has split folders (Test) and others beside them:\n  A\n  B\n" in message


def test_patients_must_be_found_and_in_one_split(scripts, tmp_path):
    for name in ("train/A/P1_1.png", "train/B/x_1.png", "test/A/P1_2.png", "test/B/P2_.png"):
        write_image(tmp_path / name, GREY)
    message = refused(scripts.folder, tmp_path, "--patient_from", "P([0-9]+)_[0-9]")
    assert "finds no patient in 2 of 4 paths:\n  test/B/P2_.png\n  train/B/x_1.png\n" in message
    message = refused(scripts.folder, tmp_path, "--patient_from", "(P1|x|P2)_")
    assert "1 patients stand in more than one split" in message
    assert "\n  P1: test, train\n" in message
    message = refused(scripts.folder, tmp_path, "--patient_from", "(P1")
    assert "--patient_from (P1: is not a regular expression" in message
    assert not (tmp_path / "meta.csv").exists()


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
    assert sorted(content(tmp_path)) == ["meta.csv", "mine.nii.gz", "val_0000.nii.gz"]
    assert "holds images, expected volumes" in refused(
        scripts.export, "--dataset", "noduleshapes2d", "--out_dir", tmp_path / "new")
    assert "--medmnist_size goes with a MedMNIST set" in refused(
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
