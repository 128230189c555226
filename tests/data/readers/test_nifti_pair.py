"""NIfTI and Analyze pairs: either name, values, byte order, orientation, and what is refused."""

import gzip
import os
import struct

import nibabel as nib
import numpy as np
import pytest
from scan_files import read_both, refused, scan_affine, write_nifti, write_pair
from scipy.io import savemat

from slivit.data.meta_paths import resolved
from slivit.data.readers import (
    ReadError,
    files_of,
    main_files,
    read_volume,
    scan_grid,
    volume_header,
)
from slivit.data.scan_table import FileSource

VALUES = np.random.default_rng(0).integers(-900, 900, (7, 6, 5)).astype(np.int16)
AXIAL = VALUES.transpose(2, 1, 0)[:, ::-1, ::-1]     # of NIfTI whose axes run right, front, head
UPRIGHT = VALUES.transpose(2, 1, 0)[:, ::-1]         # of Analyze
KINDS = {"nifti": nib.Nifti1Pair, "nifti2": nib.Nifti2Pair, "analyze": nib.AnalyzeImage}


def change(path, place, content):
    """Overwrite bytes of a file."""
    damaged = bytearray(path.read_bytes())
    damaged[place:place + len(content)] = content
    path.write_bytes(damaged)


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_both_byte_orders_give_the_values_by_either_name(tmp_path, dtype, kind, endianness):
    values = VALUES.astype(dtype)
    head = write_pair(tmp_path / "x", values, kind=KINDS[kind], endianness=endianness)
    wanted = values.transpose(2, 1, 0)[:, ::-1]
    for path in (head, head.with_suffix(".img")):
        volume = read_both(path)
        assert (volume.slices == (wanted if kind == "analyze" else wanted[..., ::-1])).all()
        assert volume_header(path).dtype == np.dtype(dtype).name
        assert volume_header(path).kind == "hdr/img"


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Pair(VALUES, np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    image.to_filename(tmp_path / "x.img")
    assert (read_both(tmp_path / "x.img").slices == AXIAL * 0.5 - 100).all()


def test_analyze_has_no_orientation_and_says_so(tmp_path):
    path = write_pair(tmp_path / "x", VALUES, np.diag([-3.0, 1, 2, 1]), nib.AnalyzeImage)
    header, volume = volume_header(path), read_both(path)
    assert header.axes is volume.axes is None
    assert volume.spacing == (2, 1, 3)  # of its third, second and first axis
    assert (volume.slices == UPRIGHT).all()
    assert header.notes == (
        "Analyze 7.5 states no orientation: left and right may be swapped",)
    assert volume_header(write_pair(tmp_path / "y", VALUES)).notes == ()


def test_heat_of_analyze_lies_in_its_array(tmp_path):
    path = write_pair(tmp_path / "x", VALUES, kind=nib.AnalyzeImage)
    assert (scan_grid(path, volume_header(path)).image(UPRIGHT).get_fdata() == VALUES).all()


def test_scale_of_spm_is_applied_and_its_matlab_file_is_not_read(tmp_path):
    path = write_pair(tmp_path / "x", VALUES, kind=nib.AnalyzeImage)
    change(path, 112, struct.pack("<f", 0.5))
    savemat(tmp_path / "x.mat", {"mat": np.zeros((4, 4))})
    assert (read_both(path).slices == UPRIGHT * 0.5).all()
    (tmp_path / "x.mat").write_bytes(b"no such file of MATLAB")
    assert (read_both(path).slices == UPRIGHT * 0.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_colour_is_kept(tmp_path, kind):
    colour = np.random.default_rng(1).integers(0, 255, (7, 6, 5, 3), dtype=np.uint8)
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = write_pair(tmp_path / "x", colour.view(rgb)[..., 0], kind=KINDS[kind])
    wanted = colour.transpose(2, 1, 0, 3)[:, ::-1]
    assert (read_both(path).slices == (wanted if kind == "analyze" else wanted[:, :, ::-1])).all()


@pytest.mark.parametrize("ends", [(".HDR", ".IMG"), (".hdr", ".img.gz"), (".hdr.gz", ".img.gz"),
                                  (".hdr.gz", ".img")])
def test_names_in_upper_case_and_packed_files_are_pairs(tmp_path, ends):
    head = write_pair(tmp_path / "a", VALUES)
    paths = [tmp_path / f"x.y{end}" for end in ends]
    for path, made in zip(paths, (head, head.with_suffix(".img")), strict=True):
        content = made.read_bytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    for path in paths:
        assert (read_both(path).slices == AXIAL).all()
        assert files_of(path) == paths


def test_both_files_are_the_scan_by_either_name(tmp_path):
    head = write_pair(tmp_path / "x", VALUES)
    voxels = head.with_suffix(".img")
    assert files_of(head) == files_of(voxels) == [head, voxels]
    assert main_files([head, voxels, tmp_path / "x.nii"]) == [str(head), str(head),
                                                              str(tmp_path / "x.nii")]
    assert len(set(resolved([head, voxels]))) == 1
    source = FileSource((head, voxels), 3)
    assert source.identity(0) == source.identity(1)
    before = source.identity(0), source.describe(0)
    voxels.write_bytes(voxels.read_bytes() + bytes(2))
    assert source.identity(0) != before[0] and source.describe(0) != before[1]
    voxels.unlink()
    assert files_of(head) == [head]


def test_a_file_without_its_partner_is_refused(tmp_path):
    head = write_pair(tmp_path / "x", VALUES)
    voxels = head.with_suffix(".img").rename(tmp_path / "y.img")
    refused(head, r"x.hdr: has no .img file of the same name beside it, which contains the voxels")
    refused(voxels, r"y.img: has no .hdr file of the same name beside it.* of another kind, such "
                    r"as Zeiss's, does not state its size: export the scan as DICOM")
    (tmp_path / "x.img").mkdir()
    refused(head, "x.hdr: x.img is a folder, expected a file")
    os.mkfifo(tmp_path / "y.hdr")
    refused(voxels, "y.hdr: is a named pipe, expected a regular file")
    refused(tmp_path / "z.hdr", "z.hdr: does not exist")


@pytest.mark.parametrize("content", [b"", b"ENVI\nsamples = 3\n", b"\\\\?RADIANCE" * 99])
def test_a_header_of_another_kind_is_refused(tmp_path, content):
    head = write_pair(tmp_path / "x", VALUES)
    head.write_bytes(content)
    for path in (head, head.with_suffix(".img")):
        refused(path, f"{path.name}: x.hdr is not a header of NIfTI or Analyze, or is truncated: "
                      "expected 348 or 540 bytes that begin with their number")


def test_the_header_of_a_single_file_is_refused(tmp_path):
    write_nifti(tmp_path / "x.nii", VALUES).rename(tmp_path / "x.hdr")
    (tmp_path / "x.img").write_bytes(VALUES.tobytes())
    refused(tmp_path / "x.hdr", "x.hdr states that its voxels are in the same file; expected them "
                                "in an .img file. Such a file is named .nii")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_cut_off_files_are_found_by_the_header_alone(tmp_path, kept, kind):
    head = write_pair(tmp_path / "x", VALUES, kind=KINDS[kind])
    voxels = head.with_suffix(".img")
    content = voxels.read_bytes()
    voxels.write_bytes(content[:kept])
    refused(head, rf"x.hdr: is truncated \(x.img\): {len(content[:kept])} bytes, expected 420")
    voxels.write_bytes(content)
    head.write_bytes(head.read_bytes()[:{-1: 347}.get(kept, kept)])
    refused(head, "x.hdr is not a header of NIfTI or Analyze")


@pytest.mark.parametrize("kept", [-1, 100, 20, 3, 0])
def test_cut_off_packed_voxels_are_found_by_the_header_alone(tmp_path, kept):
    head = write_pair(tmp_path / "x", VALUES)
    packed = gzip.compress(head.with_suffix(".img").read_bytes())
    head.with_suffix(".img").unlink()
    (tmp_path / "x.img.gz").write_bytes(packed[:kept])
    refused(head, "x.hdr: (is truncated|x.img.gz cannot be read)")


def test_bytes_after_the_voxels_are_a_note(tmp_path):
    head = write_pair(tmp_path / "x", VALUES)
    voxels = head.with_suffix(".img")
    voxels.write_bytes(voxels.read_bytes() + bytes(9))
    assert volume_header(head).notes == ("9 bytes follow its last voxel",)
    assert (read_both(head).slices == AXIAL).all()


def test_a_damaged_packed_file_is_found_by_its_checksum(tmp_path):
    head = write_pair(tmp_path / "x", VALUES)
    packed = bytearray(gzip.compress(head.with_suffix(".img").read_bytes(), compresslevel=0))
    packed[100] ^= 1
    head.with_suffix(".img").unlink()
    (tmp_path / "x.img.gz").write_bytes(packed)
    with pytest.raises(ReadError, match="x.hdr: x.img.gz cannot be read .CRC check failed"):
        read_volume(head)


@pytest.mark.parametrize(("place", "content", "message"), [
    (40, struct.pack("<8h", 4, 7, 3, 2, 5, 1, 1, 1), "expected three dimensions; save each volume"),
    (40, struct.pack("<8h", 3, 7, 30, 1, 1, 1, 1, 1), "which is one slice; expected a volume"),
    (42, struct.pack("<h", -7), "its header is damaged: it has the shape"),
    (42, struct.pack("<h", 0), "is empty|is one slice"),
    (70, struct.pack("<h", 9999), "x.hdr cannot be read as a header of NIfTI or Analyze"),
    (70, struct.pack("<h", 32), "contains complex64, expected numbers"),
    (108, struct.pack("<f", -16), "its header is damaged: its voxels would begin at byte -16"),
    (108, struct.pack("<f", 1e9), "is truncated"),
])
@pytest.mark.parametrize("kind", ["nifti", "analyze"])
def test_fields_that_cannot_be_are_refused(tmp_path, kind, place, content, message):
    head = write_pair(tmp_path / "x", VALUES, kind=KINDS[kind])
    change(head, place, content)
    if place == 70 and content == struct.pack("<h", 32):
        head.with_suffix(".img").write_bytes(bytes(8 * VALUES.size))
    refused(head, message)


def test_values_that_are_no_grey_values_are_refused(tmp_path):
    values = VALUES.astype(np.float32)
    values[1, 2, 3] = np.nan
    with pytest.raises(ReadError, match="x.hdr: contains NaN or infinite values"):
        read_volume(write_pair(tmp_path / "x", values, kind=nib.AnalyzeImage))
    change(write_pair(tmp_path / "y", VALUES), 112, struct.pack("<f", np.inf))
    refused(tmp_path / "y.hdr", "its values would be multiplied by inf .scl_slope.")


def test_nothing_is_said_on_the_way(tmp_path, capfd):
    head = write_pair(tmp_path / "x", VALUES, scan_affine("axial"), nib.AnalyzeImage)
    change(head, 80, struct.pack("<f", 0))
    assert "pixdim" in volume_header(head).notes[1]
    read_volume(head)
    assert capfd.readouterr() == ("", "")
