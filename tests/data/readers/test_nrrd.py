"""NRRD: what of its header counts, the file of the voxels, and what is refused."""

import gzip
import os

import numpy as np
import pytest
from helpers import file_scans
from itk_files import VALUES, write_nrrd
from scan_files import read_both, refused

from slivit.data.readers import ReadError, files_of, read_volume, scan_grid, volume_header

SLICES = VALUES.transpose(2, 1, 0)  # of a file without directions: as they are stored
RAW = VALUES.tobytes(order="F")
UNIT = "(1,0,0) (0,1,0) (0,0,1)"


@pytest.mark.parametrize("name", ["x.nrrd", "x.NRRD", "x.nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_without_directions_has_slices_as_they_are_stored(tmp_path, name, packed):
    path = write_nrrd(tmp_path / name, packed=packed, spacings="3 0.7 0.8")
    volume = read_both(path)
    assert (volume.slices == SLICES).all()
    assert (volume.spacing, volume.axes) == ((0.8, 0.7, 3), None)
    grid = scan_grid(path, volume_header(path))
    assert grid.affine.tolist() == np.diag([-3, -0.7, 0.8, 1]).tolist()  # as ITK takes it
    assert (grid.place(volume.slices) == VALUES).all()


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", None])
def test_a_space_of_no_patient_gives_spacing_but_no_axes(tmp_path, space):
    where = {"space_dimension": 3} if space is None else {"space": space}
    volume = read_both(write_nrrd(tmp_path / "x.nrrd", **where, space_origin="(1,2,3)",
                                  space_directions="(2,0,0) (0,0,4) (0,3,0)"))
    assert (volume.slices == SLICES).all()
    assert (volume.axes, volume.spacing) == (None, (3, 4, 2))


@pytest.mark.parametrize("space", ["anterior-right-superior", "inferior-right-anterior"])
def test_a_space_in_another_order_is_refused(tmp_path, space):
    path = write_nrrd(tmp_path / "x.nrrd", space=space, space_directions=UNIT)
    refused(path, f"x.nrrd: its space is {space}, expected ras or las or lps, or their names")


@pytest.mark.parametrize(("space", "short", "x", "y"), [
    ("left-posterior-superior", "LPS", 1, 1), ("right-anterior-superior", "ras", -1, -1),
    ("Left-Anterior-Superior", "LAS", 1, -1)])
def test_a_space_has_a_short_name(tmp_path, space, short, x, y):
    for name in (space, short):
        volume = read_both(write_nrrd(tmp_path / "x.nrrd", space=name, space_directions=UNIT))
        assert (volume.slices == SLICES[:, ::y, ::x]).all()
        assert volume.axes == "SPL"


@pytest.mark.parametrize(("units", "scale"), [
    ("mm", 1), ("um", 1e-3), ("microns", 1e-3), ("cm", 10), ("furlong", 1)])
def test_spacing_is_in_mm(tmp_path, units, scale):
    three = " ".join([f'"{units}"'] * 3)
    placed = read_both(write_nrrd(tmp_path / "x.nrrd", space="LPS", space_units=three,
                                  space_directions="(1,0,0) (0,1,0) (0,0,2)"))
    spaced = read_both(write_nrrd(tmp_path / "x.nrrd", spacings="1 1 2", units=three))
    assert placed.spacing == spaced.spacing == pytest.approx((2 * scale, scale, scale))


@pytest.mark.parametrize("axis", range(4))
def test_colour_may_be_any_axis(tmp_path, axis):
    colour = np.random.default_rng(1).integers(0, 255, (3, 7, 6, 5), dtype=np.uint8)
    kinds, vectors = ["domain"] * 3, UNIT.split()
    kinds.insert(axis, "RGB-color")
    vectors.insert(axis, "none")
    for where in ({}, {"space": "LPS", "space_directions": " ".join(vectors)}):
        path = write_nrrd(tmp_path / "x.nrrd", np.moveaxis(colour, 0, axis),
                          kinds=" ".join(kinds), **where)
        assert (read_both(path).slices == colour.transpose(3, 2, 1, 0)).all()


@pytest.mark.parametrize(("kinds", "message"), [
    ("list domain domain domain", "expected three dimensions; save each volume"),
    ("domain domain domain time", "expected three dimensions; save each volume"),
    (None, "expected three dimensions; save each volume"),
    ("vector domain domain vector", "expected three dimensions"),
    ("domain vector domain domain", r"contains 6 numbers \(uint8\) per voxel, expected one")])
def test_a_series_of_volumes_is_refused(tmp_path, kinds, message):
    refused(write_nrrd(tmp_path / "x.nrrd", np.zeros((3, 6, 5, 4), np.uint8), kinds=kinds),
            f"x.nrrd: .*{message}")


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (1, 7, 6), (7, 1, 6), (7, 6, 1, 1)])
def test_one_slice_is_refused(tmp_path, shape):
    refused(write_nrrd(tmp_path / "x.nrrd", np.zeros(shape, np.int16)),
            r"x.nrrd: has the shape \(.*\), which is one slice; expected a volume of at least two")


def test_a_colour_image_is_one_slice(tmp_path):
    refused(write_nrrd(tmp_path / "x.nrrd", np.zeros((3, 6, 5), np.uint8),
                       kinds="RGB-color domain domain"), "which is one slice")


@pytest.mark.parametrize("name", ["signed short", "short int", "int16_t", "Short"])
def test_types_have_many_names(tmp_path, name):
    assert (read_both(write_nrrd(tmp_path / "x.nrrd", type=name)).slices == SLICES).all()


def test_the_other_byte_order_gives_the_same_values(tmp_path):
    volume = read_both(write_nrrd(tmp_path / "x.nrrd", endian="big",
                                  content=VALUES.astype(">i2").tobytes(order="F")))
    assert (volume.slices == SLICES).all() and volume.slices.dtype == np.int16


@pytest.mark.parametrize(("skip", "content"), [(7, b"no voxe" + RAW), (-1, b"anything" + RAW)])
@pytest.mark.parametrize("data", ["x.raw", None])
def test_voxels_begin_after_bytes_that_are_skipped(tmp_path, skip, content, data):
    path = write_nrrd(tmp_path / "x.nhdr", data=data, content=content, byte_skip=skip)
    assert (read_both(path).slices == SLICES).all()


def test_a_header_may_have_comments_own_keys_and_windows_line_ends(tmp_path):
    path = write_nrrd(tmp_path / "x.nhdr", data="x.raw")
    text = path.read_text().replace("type:", "# sizes: 1 1 1\nsizes:=9 9 9\nType:")
    path.write_bytes(text.rstrip().replace("\n", "\r\n").encode())  # nor an empty line at the end
    assert (read_both(path).slices == SLICES).all()


@pytest.mark.parametrize(("name", "message"), [
    ("../y.raw", "outside its folder"), ("/y.raw", "outside its folder"),
    ("LIST", "are in several files"), ("y%03d.raw 1 5 1", "are in several files"),
    ("z.raw", "x.nhdr: its voxels are in z.raw, which does not exist; copy that file next to it")])
def test_voxels_that_are_not_in_one_local_file_are_refused(tmp_path, name, message):
    path = write_nrrd(tmp_path / "in/x.nhdr", data="y.raw")
    (tmp_path / "y.raw").write_bytes(RAW)
    path.write_text(path.read_text().replace("y.raw", name))
    refused(path, message)


def test_files_of_a_scan_are_its_header_and_its_voxels(tmp_path):
    path = write_nrrd(tmp_path / "x.nhdr", data="y.raw.gz", packed=True)
    assert files_of(path) == [path, tmp_path / "y.raw.gz"]
    assert files_of(write_nrrd(tmp_path / "z.nrrd")) == [tmp_path / "z.nrrd"]


def test_a_change_of_the_file_of_the_voxels_is_noticed(tmp_path):
    path = write_nrrd(tmp_path / "x.nhdr", data="x.raw")
    scans = file_scans(path)
    was, fingerprint = scans.read.identity(0), scans.fingerprint()
    os.utime(tmp_path / "x.raw", (1, 1))
    assert scans.read.identity(0) != was
    assert scans.fingerprint() == fingerprint
    (tmp_path / "x.raw").write_bytes(RAW + b"1")
    assert scans.fingerprint() != fingerprint
    (tmp_path / "x.raw").unlink()
    assert b"x.raw missing" in scans.read.describe(0)


def test_voxels_that_are_cut_off_are_found_by_the_header_alone(tmp_path):
    refused(write_nrrd(tmp_path / "x.nhdr", data="x.raw", content=RAW[:-1]),
            "x.nhdr: is truncated: 419 bytes in x.raw, expected 420")
    path = write_nrrd(tmp_path / "x.nrrd")
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, r"x.nrrd: is truncated: \d+ bytes, expected \d+")


@pytest.mark.parametrize(("stored", "kept", "message"), [
    (RAW, -1, "truncated: their checksum is missing"),
    (RAW, -60, "truncated: .* bytes are missing when unpacked"),
    (RAW[:-2], None, "truncated: 2 bytes are missing when unpacked"),
    (RAW + b"12", None, "unpack to more than the expected 420 bytes"),
    (RAW[:9], None, "truncated: 411 bytes are missing when unpacked")])
def test_gzip_of_the_wrong_length_is_found_by_the_header_alone(tmp_path, stored, kept, message):
    content = gzip.compress(stored)[:kept]
    refused(write_nrrd(tmp_path / "x.nrrd", content=content, encoding="gzip"),
            rf"x.nrrd: its voxels cannot be read \(.*{message}")


def test_damage_inside_gzip_is_found_when_it_is_read(tmp_path):
    content = bytearray(gzip.compress(RAW, compresslevel=0))
    content[-200] ^= 1
    with pytest.raises(ReadError, match="x.nrrd: its voxels cannot be read .*incorrect data check"):
        read_volume(write_nrrd(tmp_path / "x.nrrd", content=bytes(content), encoding="gzip"))


def test_gzip_in_several_parts_is_whole(tmp_path):
    content = gzip.compress(RAW[:99]) + gzip.compress(RAW[99:])
    path = write_nrrd(tmp_path / "x.nrrd", content=content, encoding="gz")
    assert (read_both(path).slices == SLICES).all()


@pytest.mark.parametrize(("field", "value", "message"), [
    ("dimension", 99, "dimension: found 99, expected 1 to 16"),
    ("dimension", 2, "sizes: found 7 6 5, expected 2 whole numbers"),
    ("sizes", "7 6 0", "is empty"), ("sizes", "7 6 -5", "damaged: it has the shape"),
    ("sizes", "7 6 900000", "is truncated"), ("sizes", "7 6 5_0", "sizes: found 7 6 5_0"),
    ("type", "block", "type: found block, expected a type of number, such as short or float"),
    ("encoding", "ascii", "its voxels are encoded as ascii, expected raw or gzip"),
    ("encoding", "bzip2", "its voxels are encoded as bzip2, expected raw or gzip"),
    ("endian", None, "endian: found nothing, expected little or big"),
    ("endian", "middle", "endian: found middle"),
    ("byte_skip", -2, "byte skip: found -2, expected 0"),
    ("line_skip", 3, "line skip: found 3, expected 0"),
    ("kinds", "domain", "kinds: found domain, expected 3"),
    ("spacings", "1 1 -1", "spacings: found 1 1 -1, expected numbers above 0"),
    ("space_directions", "(1,0,0) (0,1,0)", r"space directions: found .*, expected 3 vectors"),
    ("space_directions", "(1,0,0) (0,1,0) (0,0,0)", "space directions: found .*, expected vectors"),
    ("space_directions", "(1,0,0) (0,1,0) (0,0)", "directions: found 0 0, expected 3 numbers"),
    ("space_directions", "(1,0,0) (0,1,0) (1,1,0)", "does not give the directions of the axes"),
    ("space_directions", "(1,0,0) (0,1,0) (0,0,nan)", "space directions: found"),
    ("space_directions", "(1,0,0) (0,1,0) (0,0,1e9)", "does not give the directions of the axes"),
    ("space_origin", "(1,2)", "space origin: found 1 2, expected 3 numbers"),
    ("space_origin", "(1,2,inf)", "does not give the directions of the axes"),
    ("type", None, "does not contain type"), ("sizes", None, "does not contain sizes")])
def test_headers_that_cannot_be_are_refused(tmp_path, field, value, message):
    refused(write_nrrd(tmp_path / "x.nrrd", **{
        "space": "LPS", "space_directions": None if field == "spacings" else UNIT, field: value}),
        f"x.nrrd: .*{message}")


def test_text_other_files_and_absent_ones_are_refused(tmp_path):
    for name, content in (("text.nrrd", b"this is no scan\n" * 100), ("none.nhdr", b""),
                          ("new.nrrd", b"NRRD0009\n")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"{name}: is not a NRRD file; it does not begin with NRRD0001 to")
    path = write_nrrd(tmp_path / "cut.nrrd")
    path.write_bytes(path.read_bytes().partition(b"\n\n")[0])
    refused(path, "cut.nrrd: its header is truncated: no empty line and no data file follow")
    refused(tmp_path / "absent.nrrd", "absent.nrrd: does not exist")


def test_nothing_is_said(tmp_path, capfd):
    read_both(write_nrrd(tmp_path / "x.nrrd", packed=True))
    assert capfd.readouterr() == ("", "")
