"""make_kermany_meta.py and make_echonet_meta.py, on trees in the naming of each data set."""

import shutil

import av
import numpy as np
import pandas as pd
import pytest
from converters import GREY, read, refused, run, touch
from helpers import write_image

CLASSES = ("NORMAL", "DRUSEN", "CNV", "DME")


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
    assert "left out 4 images in train/ and val/ of 2 patients who are also in test/" in printed
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
    assert "49 Path cells would begin or end with a space" in message
    assert "' OCT/train/CNV/CNV-1016044-1.jpeg'" in message
    assert f"--out '{base / 'k.csv'}'" in message
    run(scripts.kermany, base, "--out", base / "k.csv")
    assert len(read(base / "k.csv", 2)) == 49


def test_tables_are_not_overwritten(scripts, kermany, tmp_path):
    out = tmp_path / "mine.csv"
    out.write_text("F_Name,Path,mine")
    message = refused(scripts.kermany, kermany, "--out", out)
    assert "mine.csv: already exists. Name another file, or add --overwrite" in message
    assert out.read_text() == "F_Name,Path,mine"
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


def test_echonet_table_holds_fractions_a_class_and_splits(scripts, echonet):
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
    assert "omitted 2 of 5 rows, whose videos are missing" in capsys.readouterr().out
    assert read(echonet / "echonet_meta.csv", 3).split.tolist() == ["val", "train", "test"]
    shutil.rmtree(echonet / "Videos")
    message = refused(scripts.echonet, echonet, "--skip_missing", "--overwrite")
    assert "Videos: contains none of the 5 videos in FileList.csv" in message


def test_echonet_bad_rows_are_all_listed(scripts, echonet):
    write_file_list(echonet, [("a", "101", "TRAIN"), ("b", "-1", "VAL"), ("c", "x", "train"),
                              ("d", "nan", "TEST"), ("a.avi", "50", "other"), ("", "5", "TEST"),
                              ("e", "5_5", "TEST")])
    message = refused(scripts.echonet, echonet)
    assert "9 bad cells" in message
    for text in ("line 2: EF '101'", "line 3: EF '-1'", "line 4: EF 'x'", "line 5: EF 'nan'",
                 "line 8: EF '5_5'",
                 "line 6: Split 'other'", "line 7: FileName is empty",
                 "line 2: FileName a appears in 2 rows", "line 6: FileName a appears in 2 rows"):
        assert f"\n  {text}\n" in message


def test_echonet_refuses_other_folders(scripts, echonet, tmp_path):
    message = refused(scripts.echonet, tmp_path)
    assert "FileList.csv: cannot be read (No such file or directory)" in message
    (echonet / "FileList.csv").write_text("FileName,ESV\na,1\n")
    message = refused(scripts.echonet, echonet)
    assert "column EF and Split not found. Available: FileName, ESV" in message
    (echonet / "FileList.csv").write_text("FileName,EF,Split\n")
    assert "has a header but no rows" in refused(scripts.echonet, echonet)
    (echonet / "FileList.csv").write_bytes(b"FileName,EF,Split\n\xff,1,TEST\n")
    assert "is not a CSV table" in refused(scripts.echonet, echonet)
