"""Slices in an archive: as those in a folder."""

from pathlib import Path

import numpy as np
import pytest
from archive_files import SUFFIXES, contents, pack, png, slices_of
from helpers import write_image
from scan_files import (
    COLOUR,
    PIXELS,
    STACK,
    STORED,
    read_both,
    refused,
    write_dicom,
    write_dicom_series,
    write_frames,
)

from slivit.data.given_scans import given_scans
from slivit.data.meta_paths import resolved
from slivit.data.readers import (
    is_scan,
    read_volume,
    scan_grid,
    scan_ndim,
    volume_header,
)
from slivit.data.scan_table import FileSource


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pictures_come_in_natural_order(tmp_path, suffix):
    path = pack(tmp_path / f"x{suffix}", slices_of() | {"notes.txt": b"not a slice"})
    assert (read_both(path).slices == STACK).all()
    assert (volume_header(path).kind, volume_header(path).dtype) == ("pictures", "uint8")
    picked = read_volume(path, lambda count: np.array([0, count - 1])).slices
    assert (picked == STACK[[0, 3]]).all()
    assert is_scan(path)
    assert scan_ndim(path) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dicom_series_is_read_as_in_a_folder(tmp_path, suffix):
    folder = write_dicom_series(tmp_path / "s", STORED, RescaleSlope=2, RescaleIntercept=-1024)
    path = pack(tmp_path / f"X{suffix.upper()}" if suffix == ".zip" else tmp_path / f"x{suffix}",
                contents(folder, "patient/study/") | {"DICOMDIR": b"\0" * 128 + b"DICM"})
    found, expected = read_both(path), read_both(folder)
    assert (found.slices == expected.slices).all()
    assert volume_header(path) == volume_header(folder)
    grids = [scan_grid(one, volume_header(one)) for one in (path, folder)]
    assert (grids[0].affine == grids[1].affine).all()
    picked = read_volume(path, lambda count: np.array([1, count - 1])).slices
    assert (picked == expected.slices[[1, 4]]).all()


def test_slices_without_a_position_are_sorted_by_name(tmp_path):
    for k, name in enumerate(("IM1", "IM2", "IM10")):
        write_dicom(tmp_path / "s" / name, STORED[k])
    path = pack(tmp_path / "x.zip", contents(tmp_path / "s"))
    assert (read_both(path).slices == STORED[:3]).all()
    assert volume_header(path).notes == ("no slice positions: sorted by file name",)
    assert scan_grid(path, volume_header(path)).affine[:3, 3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_frames_in_an_archive_are_read(tmp_path, suffix):
    """Their positions lie in a sequence of more than 1024 bytes, read when it is asked for."""
    frames = np.repeat(STORED, 8, axis=0)
    file = write_frames(tmp_path / "f.dcm", frames, heights=np.arange(40)[::-1])
    path = pack(tmp_path / f"x{suffix}", {"a/f.dcm": file.read_bytes()})
    assert (read_both(path).slices == frames[::-1]).all()
    assert (scan_grid(path, volume_header(path)).affine
            == scan_grid(file, volume_header(file)).affine).all()


def test_pictures_of_all_kinds_are_read_from_memory(tmp_path):
    deep = PIXELS.astype(np.uint16) * 200
    for name, pixels in (("a.tif", PIXELS), ("b.jpg", PIXELS), ("c.bmp", PIXELS)):
        write_image(tmp_path / "grey" / name, pixels)
    write_image(tmp_path / "deep/1.png", deep)
    write_image(tmp_path / "deep/2.tif", deep)
    for folder in ("grey", "deep"):
        path = pack(tmp_path / f"{folder}.zip", contents(tmp_path / folder))
        assert (read_both(path).slices == read_volume(tmp_path / folder).slices).all()
    path = pack(tmp_path / "rgb.tar", {"1.png": png(COLOUR[0]), "2.png": png(STACK[0])})
    assert read_both(path).slices.shape == (2, 9, 12, 3)
    assert scan_grid(path, volume_header(path)) is None


def test_hidden_files_and_other_junk_are_no_slices(tmp_path):
    junk = dict.fromkeys(("__MACOSX/v/._1.png", "v/.DS_Store", "v/._1.png", "v/Thumbs.db",
                          ".hidden/1.png", "DICOMDIR"), b"junk")
    for suffix in SUFFIXES:
        path = pack(tmp_path / f"x{suffix}", slices_of(folder="./v/") | junk)
        assert (read_both(path).slices == STACK).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_of_several_folders_is_chosen(tmp_path, suffix):
    path = pack(tmp_path / f"x{suffix}", slices_of(STACK[:2], "s/left/") | slices_of(folder="s/2/")
                | slices_of(STACK[:3]) | {"empty/readme.txt": b""})
    refused(path, rf"x{suffix}: contains slices in 3 folders \(\., s/2, s/left\), expected one, or "
            rf"its name as in x{suffix}:\.$")
    for key, count in (("s/left", 2), ("s/2", 4), (".", 3), ("./s/2", 4)):
        assert (read_both(f"{path}:{key}").slices == STACK[:count]).all()
    for key, message in (("s", r"contains slices in 2 folders \(s/2, s/left\)"),
                         ("t", r"no such folder with slices \(\., s/2, s/left\), expected one"),
                         ("empty", "no such folder with slices")):
        refused(tmp_path / f"{path}:{key}", f"x{suffix}:{key}: {message}")


def test_a_key_may_name_a_folder_above(tmp_path):
    path = pack(tmp_path / "x.zip", slices_of(folder="a/left/") | slices_of(STACK[:2], "b/right/"))
    assert (read_both(f"{path}:b").slices == STACK[:2]).all()


def test_tables_and_the_command_line_take_keys(tmp_path):
    path = pack(tmp_path / "x.zip", slices_of(folder="a/1/") | slices_of(STACK[:2], "b/"))
    scans = given_scans(tmp_path / "x.zip:a/1", 3, ["A"])
    assert (scans.read(0).slices == STACK).all()
    assert (scans.name, scans.ids) == ("x.zip:a/1", ("x.zip:a/1",))
    keyed = [tmp_path / "x.zip:a/1", tmp_path / "x.zip:b"]
    assert len(set(resolved(keyed))) == 2
    assert len(set(resolved([*keyed, path]))) == 1
    source = FileSource((path,), 3)
    before = source.identity(0)
    assert list(source.files()) == [path]
    pack(path, slices_of(STACK[:3]))
    assert source.identity(0) != before


def test_what_a_folder_refuses_an_archive_does(tmp_path):
    series = contents(write_dicom_series(tmp_path / "s", STORED))
    other = write_dicom(tmp_path / "o", STORED[0], SeriesInstanceUID="4.5.6", Modality="MR")
    two = slices_of(STACK[:1]) | {"2.png": png(PIXELS)}
    for suffix in (".zip", ".tar.gz"):
        for files, message in (
                (series | {"z": other.read_bytes()},
                 r"contains 2 series, expected one.*1\.2\.3 \(CT no description, 5 files, such as "
                 r"IM\d\); 4\.5\.6 \(MR no description, 1 files, such as z\)$"),
                (series | {"1.png": png(PIXELS)},
                 r"contains 5 DICOM files and 1 pictures \(such as 1.png\), expected only one"),
                ({"a.txt": b"1", "b/c.nii": b"2"},
                 r"contains no slices \(neither pictures nor DICOM files\): a.txt, c.nii"),
                ({}, "contains no slices .*: it is empty"),
                (two, r"slices differ in size \(9x12, 20x31\)"),
                ({"v/1.png": b"no picture"}, rf"x{suffix}:v/1.png: cannot be read as an image "
                                             r"\(cannot identify image file\)$"),
                ({"v/1.dcm": b"no DICOM"}, rf"x{suffix}:v/1.dcm: cannot be read as DICOM|"
                                           rf"x{suffix}:v/1.dcm: contains no pixels"),
                ({"1.png": png(PIXELS)[:-30]}, "x.*:1.png: cannot be read as an image"),
                ({"1.dcm": other.read_bytes()[:-20]}, "x.*:1.dcm: is truncated: its pixels")):
            refused(pack(tmp_path / f"x{suffix}", files), message)


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / "f.zip").mkdir()
    for name, message in (("x.zip", "x.zip: does not exist"), ("x.tar.gz:a", "does not exist"),
                          ("f.zip:a", "f.zip is a folder, expected a file"),
                          ("f.zip", "contains no slices .*: it is empty")):
        refused(tmp_path / name, message)


def test_a_folder_of_an_archive_under_other_names_is_one_scan(tmp_path):
    path = pack(tmp_path / "x.zip", slices_of(folder="a/") | slices_of(folder="b/"))
    names = [f"{path}:{key}" for key in ("a", "./a", "/a", "a/", "b")]
    assert resolved([Path(name) for name in names]) == [f"{path}:a"] * 4 + [f"{path}:b"]
