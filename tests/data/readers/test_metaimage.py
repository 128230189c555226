"""MetaImage: what of its header counts, the file of the voxels, and what is refused."""

import os
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from itk_files import VALUES, write_itk, write_metaimage
from scan_files import STACK, read_both, refused

from slivit.data.meta_paths import resolved
from slivit.data.readers import ReadError, files_of, read_volume, scan_grid, volume_header

SLICES = VALUES.transpose(2, 1, 0)  # of a file without directions: as they are stored
RAW = VALUES.tobytes(order="F")


@pytest.mark.parametrize("suffix", [".mha", ".MHA", ".mhd"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_without_directions_has_slices_as_they_are_stored(tmp_path, suffix, packed):
    path = write_metaimage(tmp_path / f"x{suffix}", packed=packed, ElementSpacing="3 0.7 0.8")
    volume = read_both(path)
    assert (volume.slices == SLICES).all()
    assert (volume.spacing, volume.axes) == ((0.8, 0.7, 3), None)
    grid = scan_grid(path, volume_header(path))
    assert grid.affine.tolist() == np.diag([-3, -0.7, 0.8, 1]).tolist()  # as ITK takes it
    assert (grid.place(volume.slices) == VALUES).all()


def test_a_file_without_spacing_has_none(tmp_path):
    path = write_metaimage(tmp_path / "x.mha", TransformMatrix="1 0 0 0 1 0 0 0 1")
    volume = read_both(path)
    assert (volume.spacing, volume.axes) == (None, "SPL")
    assert (np.diag(scan_grid(path, volume_header(path)).affine) == (-1, -1, 1, 1)).all()


@pytest.mark.parametrize("field", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
def test_the_other_byte_order_gives_the_same_values(tmp_path, field):
    path = write_metaimage(tmp_path / "x.mha", content=VALUES.astype(">i2").tobytes(order="F"),
                           **{field: "True"})
    volume = read_both(path)
    assert (volume.slices == SLICES).all() and volume.slices.dtype == np.int16
    assert volume_header(path).dtype == "int16"


@pytest.mark.parametrize(("start", "content"), [(7, b"no voxe" + RAW), (-1, b"anything" + RAW)])
def test_voxels_begin_after_a_header_of_their_own(tmp_path, start, content):
    path = write_metaimage(tmp_path / "x.mhd", data="x.raw", content=content, HeaderSize=start)
    assert (read_both(path).slices == SLICES).all()


@pytest.mark.parametrize("name", ["ET", "UCHAR", "LONG", "ULONG", "LONG_LONG", "ULONG_LONG"])
def test_types_have_the_lengths_that_itk_gives_them(tmp_path, name):
    path = write_metaimage(tmp_path / "x.mha", content=bytes(range(210)) * 8,
                           ElementType=f"MET_{name}")
    if name == "ET":
        refused(path, "x.mha: its header is damaged: ElementType: found MET_ET, expected one of "
                      "MET_CHAR, MET_UCHAR, ")
        return
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert (read_both(path).slices == values).all()
    assert volume_header(path).dtype == values.dtype.name


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    path = write_metaimage(tmp_path / "x.mha", VALUES[..., None], ElementSpacing="1 2 3 9",
                           TransformMatrix=" ".join(map(str, np.eye(4).ravel())))
    volume = read_both(path)
    assert (volume.slices == SLICES).all()  # axes run to the left, the back and the head
    assert (volume.axes, volume.spacing) == ("SPL", (3, 2, 1))


def test_opacity_is_dropped(tmp_path):
    colour = np.random.default_rng(1).integers(0, 255, (4, 7, 6, 5), dtype=np.uint8)
    path = write_metaimage(tmp_path / "x.mha", VALUES.astype(np.uint8), ElementNumberOfChannels=4,
                           content=colour.tobytes(order="F"))
    assert (read_both(path).slices == colour[:3].transpose(3, 2, 1, 0)).all()


@pytest.mark.parametrize(("count", "dtype"), [(2, np.uint8), (3, np.float32), (6, np.uint8)])
def test_several_numbers_per_voxel_are_no_grey_values(tmp_path, count, dtype):
    path = write_metaimage(tmp_path / "x.mha", np.zeros((7, 6, 5), dtype), content=bytes(9999),
                           ElementNumberOfChannels=count)
    refused(path, rf"x.mha: contains {count} numbers \({np.dtype(dtype).name}\) per voxel, "
                  "expected one, or 8-bit RGB")


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (1, 7, 6), (7, 1, 6), (7, 6, 1, 1)])
def test_one_slice_is_refused(tmp_path, shape):
    refused(write_metaimage(tmp_path / "x.mha", np.zeros(shape, np.int16)),
            r"x.mha: has the shape \(.*\), which is one slice; expected a volume of at least two")


def test_a_series_of_volumes_is_refused(tmp_path):
    refused(write_metaimage(tmp_path / "x.mha", np.zeros((3, 4, 5, 2), np.int16)),
            r"has the shape \(3, 4, 5, 2\), expected three dimensions; save each volume")


@pytest.mark.parametrize(("name", "message"), [
    ("../y.raw", "outside its folder"), ("/y.raw", "outside its folder"),
    ("sub/../../y.raw", "outside its folder"), (r"..\y.raw", "outside its folder"),
    (r"C:\y.raw", "outside its folder"), ("C:y.raw", "outside its folder"),
    ("LIST", "are in several files"), ("LIST 2", "are in several files"),
    ("y%03d.raw 1 5 1", "are in several files"), ("", "the file of its voxels: found nothing"),
    ("z.raw", "its voxels are in z.raw, which does not exist; copy that file next to it"),
    (".", "which is a folder"), ("sub", "its voxels are in sub, which is a folder"),
    ("pipe", "its voxels are in pipe, which is a named pipe, expected a regular file"),
    ("a\0b", r"its voxels are in a\?b, which cannot be read \(embedded null byte"),
    ("a\rb", "its voxels are in a b, which does not exist"), ("x" * 300, "File name too long")])
def test_voxels_that_are_not_in_one_local_file_are_refused(tmp_path, name, message):
    (tmp_path / "y.raw").write_bytes(RAW)
    (tmp_path / "in/sub").mkdir(parents=True)
    os.mkfifo(tmp_path / "in/pipe")
    path = write_metaimage(tmp_path / "in/x.mhd", data="LOCAL")
    path.write_text(path.read_text("latin1").partition("LOCAL")[0] + name + "\n")
    refused(path, f"x.mhd: [^\r]*{message}")


def test_voxels_may_be_in_a_folder_below(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/x.raw").write_bytes(RAW)
    path = write_metaimage(tmp_path / "x.mhd", data="raw/x.raw")
    assert (read_both(path).slices == SLICES).all()
    assert files_of(path) == [path, tmp_path / "raw/x.raw"]


def test_files_of_a_scan_are_its_header_and_its_voxels(tmp_path):
    path = write_metaimage(tmp_path / "x.mhd", data="y.raw")
    assert files_of(path) == [path, tmp_path / "y.raw"]
    (tmp_path / "y.raw").unlink()
    assert files_of(path) == [path, tmp_path / "y.raw"]
    assert files_of(write_metaimage(tmp_path / "z.mha")) == [tmp_path / "z.mha"]
    path.write_text("no header")
    assert files_of(path) == [path]
    assert files_of(tmp_path / "absent.mhd") == [tmp_path / "absent.mhd"]


@pytest.mark.parametrize("kept", [-1, -200, 0])
def test_voxels_that_are_cut_off_are_found_by_the_header_alone(tmp_path, kept):
    path = write_metaimage(tmp_path / "x.mhd", data="x.raw", content=RAW[:kept])
    refused(path, f"x.mhd: is truncated: {len(RAW[:kept])} bytes in x.raw, expected 420")
    size = len(write_metaimage(tmp_path / "y.mha", content=b"").read_bytes())
    path = write_metaimage(tmp_path / "x.mha", content=RAW[:kept])
    refused(path, f"x.mha: is truncated: {size + len(RAW[:kept])} bytes, expected {size + 420}")


def test_packed_voxels_that_are_cut_off_are_found_by_their_length(tmp_path):
    content = zlib.compress(RAW)
    path = write_metaimage(tmp_path / "x.mhd", data="x.zraw", content=content[:-1],
                           CompressedData="True", CompressedDataSize=len(content))
    refused(path, f"x.mhd: is truncated: {len(content) - 1} bytes in x.zraw, expected "
                  f"{len(content)}")


@pytest.mark.parametrize(("content", "message"), [
    (zlib.compress(RAW)[:-1], "truncated: their checksum is missing"),
    (zlib.compress(RAW)[:-40], "truncated: .* bytes are missing when unpacked"),
    (zlib.compress(RAW[:-2]), "truncated: 2 bytes are missing when unpacked"),
    (zlib.compress(RAW + b"12"), "unpack to more than the expected 420 bytes"),
    (zlib.compress(RAW)[:-1] + b"\1", "incorrect data check"), (b"no zlib data", "")])
def test_packed_voxels_of_the_wrong_length_are_found_when_read(tmp_path, content, message):
    path = write_metaimage(tmp_path / "x.mha", content=content, CompressedData="True")
    with pytest.raises(ReadError, match=rf"x.mha: its voxels cannot be read \(.*{message}"):
        read_volume(path)


def test_a_header_cannot_ask_for_more_than_the_packed_voxels_can_hold(tmp_path):
    path = write_metaimage(tmp_path / "x.mha", packed=True, DimSize="50000 50000 50000")
    refused(path, r"x.mha: is truncated, or its header is damaged: an array of \(50000, 50000, ")


@pytest.mark.parametrize(("field", "value", "message"), [
    ("NDims", 0, "NDims: found 0, expected 1 to 16"), ("NDims", "3 3", "NDims: found 3 3"),
    ("NDims", 2, "DimSize: found 7 6 5, expected 2 whole numbers"),
    ("DimSize", "7 6 x", "DimSize: found 7 6 x, expected 3 whole numbers"),
    ("DimSize", "7 6 0", "is empty"), ("DimSize", "7 6 -5", "damaged: it has the shape"),
    ("DimSize", "7 6 6", "is truncated"), ("DimSize", f"7 6 {'9' * 3000}", "DimSize: found 7 6 9"),
    ("ObjectType", "Tube", "ObjectType: found Tube, expected Image"),
    ("CompressedData", "maybe", "CompressedData: found maybe, expected True or False"),
    ("BinaryData", "False", "its voxels are written as text"),
    ("HeaderSize", 5, "HeaderSize: found 5, expected 0"), ("HeaderSize", -2, "HeaderSize"),
    ("ElementNumberOfChannels", 0, "found 0 and 0, expected numbers above 0"),
    ("ElementSpacing", "1 1 0", "ElementSpacing: found 1 1 0, expected numbers above 0"),
    ("ElementSpacing", "1 1", "ElementSpacing: found 1 1, expected 3 numbers"),
    ("ElementSpacing", "1 1 nan", "does not give the directions of the axes"),
    ("Offset", "1 1 inf", "does not give the directions of the axes"),
    ("Offset", "1 1 1e99", "does not give the directions of the axes"),
    ("ElementType", "MET_\b\udcf6", "ElementType: found MET_\\?\\?, expected one of"),
    ("TransformMatrix", "1 0 0 0 1 0 0 1 0", "does not give the directions of the axes"),
    ("TransformMatrix", "1e300 0 0 0 1e300 0 0 0 1", "does not give the directions of the axes"),
    ("TransformMatrix", "1 0 0 0 1 0", "TransformMatrix: found 1 0 0 0 1 0, expected 9 numbers"),
    ("DimSize", None, "does not contain DimSize"), ("ElementType", None, "ElementType")])
def test_headers_that_cannot_be_are_refused(tmp_path, field, value, message):
    refused(write_metaimage(tmp_path / "x.mha", **{field: value}), f"x.mha: .*{message}")


def test_text_other_files_and_absent_ones_are_refused(tmp_path):
    for name, content in (("text.mha", b"this is no scan\n" * 100), ("none.mhd", b""),
                          ("raw.mha", bytes(3000))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"{name}: is not a MetaImage file")
    (tmp_path / "long.mha").write_bytes(b"a" * 2**21)
    refused(tmp_path / "long.mha", "long.mha: does not begin with a header in text")
    (tmp_path / "cut.mha").write_text("ObjectType = Image\nNDims = 3\nDimSi")
    refused(tmp_path / "cut.mha", "does not contain DimSize, ElementType, ElementDataFile")
    refused(tmp_path / "absent.mha", "absent.mha: does not exist")


def test_values_that_are_no_grey_values_are_refused(tmp_path):
    values = VALUES.astype(np.float32)
    values[1, 2, 3] = np.nan
    with pytest.raises(ReadError, match="x.mha: contains NaN or infinite values"):
        read_volume(write_metaimage(tmp_path / "x.mha", values))


def test_only_the_picked_slices_are_returned(tmp_path):
    volume = read_volume(write_itk(tmp_path / "x.mha", STACK.transpose(2, 1, 0), np.eye(4)),
                         lambda count: np.array([1, count - 1]))
    assert (volume.slices == STACK[[1, 3], ::-1, ::-1]).all()


def test_bytes_after_the_last_voxel_are_a_note_and_nothing_else_is_said(tmp_path, capfd):
    path = write_metaimage(tmp_path / "x.mhd", data="x.raw", content=RAW + b"more")
    assert volume_header(path).notes == ("4 bytes follow its last voxel",)
    assert (read_both(path).slices == SLICES).all()
    assert capfd.readouterr() == ("", "")


def test_headers_that_share_their_voxels_are_one_scan(tmp_path):
    write_metaimage(tmp_path / "a.mhd", data="v.raw")
    (tmp_path / "b.mhd").write_bytes((tmp_path / "a.mhd").read_bytes())
    first, second = resolved([tmp_path / "a.mhd", tmp_path / "b.mhd"])
    assert first == second == str(tmp_path / "v.raw")
